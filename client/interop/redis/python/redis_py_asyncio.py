"""redis-py's asyncio client through every case of cases.txt, as the core of a FastAPI service, and through the leader's
end."""

import asyncio
import inspect
import json
import threading
import time
from collections.abc import Awaitable, Callable
from contextlib import asynccontextmanager

import redis
import redis.asyncio
from redis.asyncio.retry import Retry
from redis.backoff import ExponentialBackoff
from redis.exceptions import BusyLoadingError, ClusterDownError, ReadOnlyError, ResponseError, TryAgainError

from cases import Cases, by_stream
from support import BLOCK_MS, RETRYABLE_CODES, Account, Faults, Report, arguments, equal, holds, now_ms


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


class OrderService:
    """What FastAPI tutorials show, without FastAPI: a lifespan that starts and stops the workers, and handlers."""

    STREAM, GROUP = "orders:stream", "order-workers"

    def __init__(self, client: redis.asyncio.Redis):
        self.redis = client
        self.processed: list[str] = []

    @asynccontextmanager
    async def lifespan(self, workers: int):
        await self.redis.xgroup_create(self.STREAM, self.GROUP, id="0", mkstream=True)
        tasks = [asyncio.create_task(self.work(f"worker-{n}")) for n in range(workers)]
        try:
            yield
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            await self.redis.aclose()

    async def work(self, consumer: str) -> None:
        while True:
            reply = await self.redis.xreadgroup(self.GROUP, consumer, {self.STREAM: ">"}, count=5, block=1000)
            for entries in by_stream(reply).values():
                for entry_id, fields in entries:
                    self.processed.append(json.loads(fields["data"])["orderId"])
                    await self.redis.xack(self.STREAM, self.GROUP, entry_id)

    async def create_order(self, body: dict) -> dict:
        message_id = await self.redis.xadd(self.STREAM, {"data": json.dumps(body)}, maxlen=10_000, approximate=True)
        return {"status": "queued", "messageId": message_id}

    async def history(self, count: int = 10, start: str = "-", end: str = "+") -> list[dict]:
        entries = await self.redis.xrange(self.STREAM, min=start, max=end, count=count)
        return [{"id": entry_id, **json.loads(fields["data"])} for entry_id, fields in entries]


async def fastapi_shape(address: tuple[str, int], protocol: int) -> None:
    client = connect(address, protocol)
    await client.flushall()
    service = OrderService(client)
    async with service.lifespan(workers=3):
        bodies = [{"orderId": f"o-{n}", "item": "naïve café", "quantity": n + 1} for n in range(40)]
        answers = await asyncio.gather(*(service.create_order(body) for body in bodies))
        equal({answer["status"] for answer in answers}, {"queued"}, "answers of POST /orders")
        async with asyncio.timeout(10):
            while (
                len(service.processed) < len(bodies)
                or (await client.xpending(service.STREAM, service.GROUP))["pending"]
            ):
                await asyncio.sleep(0.01)
        equal(sorted(service.processed), sorted(body["orderId"] for body in bodies), "each order was processed once")
        of = {answer["messageId"]: body for answer, body in zip(answers, bodies)}
        ids = sorted(of, key=lambda entry_id: [int(part) for part in entry_id.split("-")])
        equal(await service.history(count=3), [{"id": i, **of[i]} for i in ids[:3]], "GET /orders/history?count=3")
        equal(
            await service.history(count=100, start=ids[5], end=ids[7]),
            [{"id": i, **of[i]} for i in ids[5:8]],
            "GET /orders/history with start and end",
        )
        [group] = await client.xinfo_groups(service.STREAM)
        equal((group["consumers"], group["lag"], group["pending"]), (3, 0, 0), "GET /stream/info")


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

    async with asyncio.TaskGroup() as tasks:
        for group in groups:
            for turn in (0, 2):
                tasks.create_task(consume(group, turn))
        await asyncio.gather(produce(0), produce(1))
        producing = False
    entries = [(entry_id, int(fields["n"])) for entry_id, fields in await setup.xrange(stream)]
    state = {g["name"]: {"pending": g["pending"], "lag": g["lag"]} for g in await setup.xinfo_groups(stream)}
    account.verify(report, entries, state)


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
        report.run("fastapi-shape", lambda: asyncio.run(fastapi_shape(args.address(1), args.protocol)))
    report.end()


if __name__ == "__main__":
    main()
