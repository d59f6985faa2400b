"""redis-py, the ordinary (blocking) client, through every case of cases.txt and through the leader's end."""

import threading
import time
from collections.abc import Callable

import redis
from redis.backoff import ExponentialBackoff
from redis.exceptions import BusyLoadingError, ClusterDownError, ReadOnlyError, ResponseError, TryAgainError
from redis.retry import Retry

from cases import Cases, by_stream
from support import BLOCK_MS, RETRYABLE_CODES, Account, Faults, Report, arguments, now_ms


def connect(address: tuple[str, int], protocol: int, **options) -> redis.Redis:
    options.setdefault("decode_responses", True)
    return redis.Redis(host=address[0], port=address[1], protocol=protocol, **options)


# The settings a program has for a server that may be away for a while: redis-py's own retries, more of them.
def patient(address: tuple[str, int], protocol: int) -> redis.Redis:
    return connect(
        address,
        protocol,
        retry=Retry(ExponentialBackoff(cap=0.5, base=0.02), retries=60),
        retry_on_error=[TryAgainError, ClusterDownError, ReadOnlyError, BusyLoadingError],
    )


def sent_until_told(account: Account, call: Callable[[], object]) -> object:
    """For what redis-py has no name for, so that retry_on_error cannot list it."""
    while True:
        try:
            return call()
        except ResponseError as error:
            if not str(error).startswith(RETRYABLE_CODES):
                raise
            account.resent += 1
            time.sleep(0.05)


def failover(address: Callable, protocol: int, faults: Faults, report: Report) -> None:
    stream, groups = "failover:stream", ["billing", "shipping"]
    setup = patient(address(-1), protocol)
    setup.flushall()
    for group in groups:
        setup.xgroup_create(stream, group, id="0", mkstream=True)
    account = Account(faults, handled={group: set() for group in groups})
    failures: list[BaseException] = []
    producing = threading.Event()
    producing.set()

    def produce(turn: int) -> None:
        client, name = patient(address(turn), protocol), f"producer-{turn}"
        number = turn
        while not failures and not account.producer_done(name, number):
            began = now_ms()
            entry_id = sent_until_told(account, lambda: client.xadd(stream, {"n": number}))
            account.appended(name, number, entry_id, began)
            number += 2
            time.sleep(0.003)

    def consume(group: str, turn: int) -> None:
        client, consumer = patient(address(turn), protocol), f"consumer-{turn}"

        def handle(entries: list) -> None:
            ids = [entry_id for entry_id, fields in entries if fields]
            account.handled[group].update(ids)
            if ids:
                sent_until_told(account, lambda: client.xack(stream, group, *ids))

        while not failures and time.monotonic() < account.deadline + 5:
            reply = sent_until_told(
                account, lambda: client.xreadgroup(group, consumer, {stream: ">"}, count=10, block=BLOCK_MS[turn])
            )
            for entries in by_stream(reply).values():
                handle(entries)
            # Entries whose delivery was lost on its way to a consumer, this one or another.
            if not reply:
                claimed = sent_until_told(account, lambda: client.xautoclaim(stream, group, consumer, 1000, "0-0", 100))
                handle(claimed[1])
                if not producing.is_set() and client.xpending(stream, group)["pending"] == 0:
                    return

    def start(work: Callable, *args) -> threading.Thread:
        def run() -> None:
            try:
                work(*args)
            except BaseException as failure:  # noqa: BLE001 - handed to the main thread
                failures.append(failure)

        thread = threading.Thread(target=run, daemon=True)
        thread.start()
        return thread

    consumers = [start(consume, group, turn) for group in groups for turn in (0, 2)]
    for thread in [start(produce, turn) for turn in (0, 1)]:
        thread.join()
    producing.clear()
    for thread in consumers:
        thread.join()
    if failures:
        raise failures[0]
    entries = [(entry_id, int(fields["n"])) for entry_id, fields in setup.xrange(stream)]
    state = {group["name"]: {"pending": group["pending"], "lag": group["lag"]} for group in setup.xinfo_groups(stream)}
    account.verify(report, entries, state)


def main() -> None:
    args = arguments()
    report = Report("redis-py", redis.__version__, args.protocol, args.part)
    if args.part == "failover":
        report.run(None, lambda: failover(args.address, args.protocol, Faults(args.fault_dir), report))
    else:
        Cases(lambda turn, **options: connect(args.address(turn), args.protocol, **options)).run(report)
    report.end()


if __name__ == "__main__":
    main()
