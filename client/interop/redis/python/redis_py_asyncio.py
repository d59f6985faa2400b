"""redis-py's asyncio client through every case of cases.txt and through the leader's end; and a FastAPI service that is
built on it, through both."""

import asyncio
import inspect
import itertools
import threading
import time
from collections.abc import Awaitable, Callable

import redis
import redis.asyncio
from redis.asyncio.retry import Retry
from redis.backoff import ExponentialBackoff
from redis.exceptions import BusyLoadingError, ClusterDownError, ReadOnlyError, ResponseError, TryAgainError

from cases import Cases, by_stream
from fastapi_orders import STREAM, WORKERS, application, serving
from support import (
    BLOCK_MS,
    RETRYABLE_CODES,
    Account,
    Faults,
    Report,
    arguments,
    equal,
    fields_of,
    holds,
    id_of,
    now_ms,
)


def connect(address: tuple[str, int], protocol: int, **options) -> redis.asyncio.Redis:
    options.setdefault("decode_responses", True)
    return redis.asyncio.Redis(host=address[0], port=address[1], protocol=protocol, **options)


class Blocking:
    """An asyncio client for the cases, which are written without `await`: every call runs on the loop of one thread."""

    loop = asyncio.new_event_loop()

    def __init__(self, of: object):
        self.of = of

    def wait(self, awaitable: Awaitable) -> object:
        async def run() -> object:
            return await awaitable

        return asyncio.run_coroutine_threadsafe(run(), self.loop).result(timeout=30)

    def __getattr__(self, name: str) -> object:
        of = getattr(self.of, name)
        if not callable(of):
            return of

        def call(*args, **options):
            reply = of(*args, **options)
            if isinstance(reply, redis.asyncio.client.Pipeline):
                return Blocking(reply)
            if inspect.isasyncgen(reply):

                async def collect() -> list:
                    return [item async for item in reply]

                return self.wait(collect())
            return self.wait(reply) if inspect.isawaitable(reply) else reply

        return call

    def __enter__(self) -> "Blocking":
        return self

    def __exit__(self, *_) -> None:
        self.reset()


async def fastapi_plain(address: tuple[str, int], protocol: int) -> None:
    setup = connect(address, protocol)
    await setup.flushall()
    app = application(connect(address, protocol))
    async with serving(app) as http:
        bodies = [{"orderId": f"o-{n}", "item": "naïve café", "quantity": n + 1} for n in range(40)]
        answers = await asyncio.gather(*(http.post("/orders", json=body) for body in bodies))
        equal({(answer.status_code, answer.json()["status"]) for answer in answers}, {(201, "queued")}, "POST /orders")
        refused = await http.post("/orders", json={**bodies[0], "quantity": 0})
        equal(refused.status_code, 422, "POST /orders of nothing")
        await settled(setup, lambda: len(bodies) <= len(app.state.processed))
        equal(sorted(app.state.processed), sorted(body["orderId"] for body in bodies), "each order was processed once")
        of = {answer.json()["messageId"]: body for answer, body in zip(answers, bodies)}
        ids = sorted(of, key=id_of)
        page = (await http.get("/orders/history", params={"count": 3})).json()
        equal(page, [{"id": i, **of[i]} for i in ids[:3]], "GET /orders/history?count=3")
        page = (await http.get("/orders/history", params={"count": 100, "start": ids[5], "end": ids[7]})).json()
        equal(page, [{"id": i, **of[i]} for i in ids[5:8]], "GET /orders/history with start and end")
        expected = {"length": 40, "consumers": WORKERS, "lag": 0, "pending": 0}
        equal(fields_of((await http.get("/stream/info")).json(), *expected), expected, "GET /stream/info")
        equal((await http.get("/orders/history", params={"start": "abc"})).status_code, 503, "a malformed id")
        equal(app.state.failures, 1, "failures")
    await setup.aclose()


async def settled(client: redis.asyncio.Redis, also: Callable[[], bool]) -> None:
    """Waits until the service's group has nothing left to do."""

    async def left() -> object:
        [group] = await client.xinfo_groups(STREAM)
        return group["pending"] or group["lag"]

    async with asyncio.timeout(15):
        while await left() or not also():
            await asyncio.sleep(0.01)


class Orders:
    """Two instances of the service, one of them at the door that ends, and clients that turn to the other when one
    fails."""

    def __init__(self, address: Callable, protocol: int):
        self.apps = [application(patient(address(turn), protocol)) for turn in (0, 1)]
        self.accepted: list[str] = []
        self.repeated = 0

    async def work(self, account: Account, producing: Callable[[], bool]) -> None:
        async with serving(self.apps[0]) as first, serving(self.apps[1]) as second:

            async def post(turn: int) -> None:
                for number in itertools.count():
                    body = {"orderId": f"o-{turn}-{number}", "item": "tea", "quantity": 1}
                    for instance in itertools.cycle((first, second) if turn == 0 else (second, first)):
                        if (await instance.post("/orders", json=body)).status_code == 201:
                            break
                        holds(time.monotonic() < account.deadline, "orders are accepted")
                        self.repeated += 1
                        await asyncio.sleep(0.05)
                    self.accepted.append(body["orderId"])
                    if not producing():
                        break
                    await asyncio.sleep(0.005)

            await asyncio.gather(post(0), post(1))
            await settled(self.apps[1].state.client, lambda: True)

    def verify(self) -> None:
        processed = [order for app in self.apps for order in app.state.processed]
        holds(100 <= len(self.accepted), f"only {len(self.accepted)} orders were accepted")
        equal(sorted(set(self.accepted) - set(processed))[:5], [], "orders accepted and never processed")
        equal(sorted(set(processed) - set(self.accepted))[:5], [], "orders processed that nobody made")
        failures = sum(app.state.failures for app in self.apps)
        print(
            f"     FastAPI: {len(self.accepted)} orders accepted, {self.repeated} requests repeated, "
            f"{failures} failures inside, {len(processed) - len(set(processed))} processed twice"
        )


# The settings a program has for a server that may be away for a while: redis-py's own retries, more of them.
def patient(address: tuple[str, int], protocol: int) -> redis.asyncio.Redis:
    return connect(
        address,
        protocol,
        retry=Retry(ExponentialBackoff(cap=0.5, base=0.02), retries=60),
        retry_on_error=[TryAgainError, ClusterDownError, ReadOnlyError, BusyLoadingError],
    )


async def sent_until_told(account: Account, call: Callable[[], Awaitable]) -> object:
    """For what redis-py has no name for, so that retry_on_error cannot list it."""
    while True:
        try:
            return await call()
        except ResponseError as error:
            if not str(error).startswith(RETRYABLE_CODES):
                raise
            account.resent += 1
            await asyncio.sleep(0.05)


async def failover(address: Callable, protocol: int, faults: Faults, report: Report) -> None:
    stream, groups = "failover:stream", ["billing", "shipping"]
    setup = patient(address(-1), protocol)
    await setup.flushall()
    for group in groups:
        await setup.xgroup_create(stream, group, id="0", mkstream=True)
    account = Account(faults, handled={group: set() for group in groups})
    producing = True

    async def produce(turn: int) -> None:
        client, name, number = patient(address(turn), protocol), f"producer-{turn}", turn
        while not account.producer_done(name, number):
            began = now_ms()
            entry_id = await sent_until_told(account, lambda: client.xadd(stream, {"n": number}))
            account.appended(name, number, entry_id, began)
            number += 2
            await asyncio.sleep(0.003)

    async def consume(group: str, turn: int) -> None:
        client, consumer = patient(address(turn), protocol), f"consumer-{turn}"

        async def handle(entries: list) -> None:
            ids = [entry_id for entry_id, fields in entries if fields]
            account.handled[group].update(ids)
            if ids:
                await sent_until_told(account, lambda: client.xack(stream, group, *ids))

        async def pending() -> int:
            return (await sent_until_told(account, lambda: client.xpending(stream, group)))["pending"]

        while True:
            holds(time.monotonic() < account.deadline + 5, f"{consumer} of {group} came through")
            reply = await sent_until_told(
                account, lambda: client.xreadgroup(group, consumer, {stream: ">"}, count=10, block=BLOCK_MS[turn])
            )
            for entries in by_stream(reply).values():
                await handle(entries)
            # Entries whose delivery was lost on its way to a consumer, this one or another.
            if not reply:
                claimed = await sent_until_told(
                    account, lambda: client.xautoclaim(stream, group, consumer, 1000, "0-0", 100)
                )
                await handle(claimed[1])
                if not producing and await pending() == 0:
                    return

    orders = Orders(address, protocol)
    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(orders.work(account, lambda: producing))
        for group in groups:
            for turn in (0, 2):
                tasks.create_task(consume(group, turn))
        await asyncio.gather(produce(0), produce(1))
        producing = False
    entries = [(entry_id, int(fields["n"])) for entry_id, fields in await setup.xrange(stream)]
    state = {g["name"]: {"pending": g["pending"], "lag": g["lag"]} for g in await setup.xinfo_groups(stream)}
    account.verify(report, entries, state)
    report.run("failover-fastapi", orders.verify)


def main() -> None:
    args = arguments()
    report = Report("redis-py asyncio", redis.__version__, args.protocol, args.part)
    if args.part == "failover":
        report.run(None, lambda: asyncio.run(failover(args.address, args.protocol, Faults(args.fault_dir), report)))
    else:
        threading.Thread(target=Blocking.loop.run_forever, daemon=True).start()
        clients: list[Blocking] = []

        def client(turn: int, **options) -> Blocking:
            clients.append(Blocking(connect(args.address(turn), args.protocol, **options)))
            return clients[-1]

        Cases(client).run(report)
        for opened in clients:
            opened.aclose()
        report.run("fastapi", lambda: asyncio.run(fastapi_plain(args.address(1), args.protocol)))
    report.end()


if __name__ == "__main__":
    main()
