"""Every case of cases.txt, in redis-py's words. They hold for its blocking client as it is, and for the asyncio client
behind the adapter in redis_py_asyncio.py."""

import json
import threading
import time
from collections.abc import Callable

from redis import Redis
from redis.exceptions import ResponseError, WatchError

from support import Report, equal, fields_of, holds, now_ms, order


def by_stream(reply: list | dict) -> dict[str, list]:
    """What XREAD and XREADGROUP replied; redis-py hands on the shape of the protocol."""
    if isinstance(reply, dict):
        return {key: entries for key, [entries] in reply.items()}
    return {key: entries for key, entries in reply}


def error_of(call: Callable[[], object]) -> str:
    try:
        reply = call()
    except ResponseError as error:
        # redis-py takes the code ERR away.
        return str(error)
    raise AssertionError(f"no error, but {reply!r}")


class Cases:
    def __init__(self, connect: Callable):
        """`connect(turn, **options)` makes a client of the turn-th door."""
        self.another = connect
        self.r = connect(0)
        self.r.flushall()

    def in_thread(self, call: Callable[[], object]) -> Callable[[], object]:
        """Starts a call, and returns what waits for its reply or error."""
        outcome: list = []

        def run() -> None:
            try:
                outcome.append(call())
            except Exception as error:  # noqa: BLE001 - handed to the caller
                outcome.append(error)

        thread = threading.Thread(target=run, daemon=True)
        thread.start()

        def wait() -> object:
            thread.join(timeout=10)
            holds(outcome, "a blocked call ended")
            return outcome[0]

        return wait

    def wait_blocked(self, count: int, door: Redis | None = None) -> None:
        """Waits until so many clients of a door are blocked, of the first one if none is named."""
        deadline = time.monotonic() + 5
        while (door or self.r).info("clients")["blocked_clients"] != count:
            # Without a pause: who counts as blocked must have its place in the queue.
            holds(time.monotonic() < deadline, f"{count} clients are blocked")

    def order_tracker(self) -> None:
        r = self.r
        r.xadd("left-over", {"a": "b"})
        equal(r.flushall(), True, "FLUSHALL")
        equal(r.dbsize(), 0, "keys after FLUSHALL")
        ids = [r.xadd("orders:stream", {"data": order(n)}) for n in range(5)]
        equal(r.xlen("orders:stream"), 5, "XLEN")
        history = r.xrange("orders:stream")
        equal(history, [(entry_id, {"data": order(n)}) for n, entry_id in enumerate(ids)], "the history")
        newest = r.xrevrange("orders:stream", count=2)
        equal([json.loads(fields["data"])["orderId"] for _, fields in newest], ["order-4", "order-3"], "newest first")
        for number, status in ((1, "paid"), (3, "paid"), (1, "shipped")):
            r.xadd("orders:stream", {"data": order(number, status)})
        latest = {}
        for _, fields in r.xrange("orders:stream"):
            data = json.loads(fields["data"])
            latest[data["orderId"]] = data["status"]
        expected = {f"order-{n}": s for n, s in enumerate(["created", "shipped", "created", "paid", "created"])}
        equal(latest, expected, "the latest status of each order")

    def producer_consumer(self) -> None:
        def produce() -> list[str]:
            client = self.another(1)
            return [client.xadd("pc", {"n": n}) for n in range(50)]

        ids = self.in_thread(produce)
        seen, last = [], "0-0"
        while len(seen) < 50:
            reply = self.r.xread({"pc": last}, count=10, block=2000)
            [[key, entries]] = by_stream(reply).items()
            equal(key, "pc", "the stream's name")
            seen += [(entry_id, fields["n"]) for entry_id, fields in entries]
            last = seen[-1][0]
        equal(seen, list(zip(ids(), [str(n) for n in range(50)], strict=True)), "what the consumer saw")

    def group_acks(self) -> None:
        r = self.r
        equal(r.xgroup_create("ga", "workers", id="0", mkstream=True), True, "XGROUP CREATE MKSTREAM")
        busy = error_of(lambda: r.xgroup_create("ga", "workers", id="0"))
        equal(busy, "BUSYGROUP Consumer Group name already exists", "a second XGROUP CREATE")
        ids = [r.xadd("ga", {"n": n}) for n in range(20)]
        got: dict[str, list[str]] = {"alice": [], "bob": []}
        for consumer in ("alice", "bob", "bob", "alice"):
            reply = by_stream(r.xreadgroup("workers", consumer, {"ga": ">"}, count=5))
            got[consumer] += [entry_id for entry_id, _ in reply["ga"]]
        equal(got, {"alice": ids[0:5] + ids[15:20], "bob": ids[5:15]}, "who got what")
        equal(by_stream(r.xreadgroup("workers", "alice", {"ga": ">"})), {}, "nothing is left")
        expected = {
            "pending": 20,
            "min": ids[0],
            "max": ids[-1],
            "consumers": [{"name": "alice", "pending": 10}, {"name": "bob", "pending": 10}],
        }
        equal(r.xpending("ga", "workers"), expected, "XPENDING")
        equal(r.xack("ga", "workers", *got["alice"]), 10, "XACK")
        equal(r.xack("ga", "workers", got["alice"][0], got["bob"][0]), 1, "XACK, one of them again")
        equal(r.xpending("ga", "workers")["consumers"], [{"name": "bob", "pending": 9}], "XPENDING after XACK")
        equal(r.xack("ga", "workers", *got["bob"]), 9, "XACK of the rest")
        equal(
            r.xpending("ga", "workers"),
            {"pending": 0, "min": None, "max": None, "consumers": []},
            "XPENDING at the end",
        )

    def pending_recovery(self) -> None:
        r = self.r
        ids = [r.xadd("pr", {"n": n}) for n in range(6)]
        r.xgroup_create("pr", "g", id="0")
        r.xreadgroup("g", "gone", {"pr": ">"})
        rows = r.xpending_range("pr", "g", "-", "+", 10)
        equal([row["message_id"] for row in rows], ids, "ids of XPENDING")
        equal({(row["consumer"], row["times_delivered"]) for row in rows}, {("gone", 1)}, "rows of XPENDING")
        holds(all(0 <= row["time_since_delivered"] < 60_000 for row in rows), "idle times")
        equal(r.xpending_range("pr", "g", "-", "+", 10, consumername="nobody"), [], "XPENDING of nobody")
        equal(r.xpending_range("pr", "g", "-", "+", 10, idle=60_000), [], "XPENDING IDLE")
        equal(r.xclaim("pr", "g", "heir", 60_000, [ids[0]]), [], "XCLAIM of an entry too young")
        equal(r.xclaim("pr", "g", "heir", 0, [ids[0]]), [(ids[0], {"n": "0"})], "XCLAIM")
        [row] = r.xpending_range("pr", "g", ids[0], ids[0], 1)
        equal((row["consumer"], row["times_delivered"]), ("heir", 2), "the claimed row")
        equal(r.xdel("pr", ids[3]), 1, "XDEL")
        cursor, claimed, deleted = r.xautoclaim("pr", "g", "heir", 0, "0-0", count=2)
        equal((cursor, [i for i, _ in claimed], deleted), (ids[2], ids[0:2], []), "XAUTOCLAIM, first page")
        cursor, claimed, deleted = r.xautoclaim("pr", "g", "heir", 0, cursor, count=10)
        expected = ("0-0", [(ids[n], {"n": str(n)}) for n in (2, 4, 5)], [ids[3]])
        equal((cursor, claimed, deleted), expected, "XAUTOCLAIM, the rest")
        equal(r.xautoclaim("pr", "g", "heir", 60_000, "0-0"), ["0-0", [], []], "XAUTOCLAIM of entries too young")
        equal(r.xautoclaim("pr", "g", "third", 0, "0-0", count=1, justid=True), [ids[0]], "XAUTOCLAIM JUSTID")
        counts = {row["message_id"]: row["times_delivered"] for row in r.xpending_range("pr", "g", "-", "+", 10)}
        equal(counts, {ids[0]: 3, ids[1]: 2, ids[2]: 2, ids[4]: 2, ids[5]: 2}, "times delivered")
        equal(r.xgroup_delconsumer("pr", "g", "heir"), 4, "XGROUP DELCONSUMER")
        equal(r.xgroup_delconsumer("pr", "g", "gone"), 0, "XGROUP DELCONSUMER without pending entries")
        equal(r.xpending("pr", "g")["pending"], 1, "what is pending at the end")

    def trim_length(self) -> None:
        r = self.r
        ids = [r.xadd("tl", {"n": n}, maxlen=10, approximate=False) for n in range(15)]
        equal([i for i, _ in r.xrange("tl")], ids[5:], "the newest ten")
        equal(r.xtrim("tl", maxlen=4, approximate=False), 6, "XTRIM MAXLEN")
        equal([i for i, _ in r.xrange("tl")], ids[11:], "the newest four")
        equal(r.xtrim("tl", maxlen=4, approximate=False), 0, "XTRIM MAXLEN again")
        pipe = r.pipeline(transaction=False)
        for n in range(500):
            pipe.xadd("tl", {"n": n}, maxlen=1000, approximate=True)
        pipe.execute()
        equal(r.xlen("tl"), 504, "XADD MAXLEN ~ 1000 leaves what is below it")
        removed = r.xtrim("tl", maxlen=100, approximate=True)
        left = r.xlen("tl")
        holds(
            100 <= left and removed + left == 504 and 0 < removed, f"XTRIM MAXLEN ~ 100 removed {removed}, left {left}"
        )
        equal(r.xtrim("tl", maxlen=0, approximate=False), left, "XTRIM MAXLEN 0")
        equal((r.xlen("tl"), r.exists("tl")), (0, 1), "an empty stream stays")

    def trim_time(self) -> None:
        r = self.r
        for ms in range(1000, 2000, 100):
            r.xadd("tt", {"at": ms}, id=f"{ms}-1")
        equal(r.xtrim("tt", minid="1500", approximate=False), 5, "XTRIM MINID")
        equal(r.xrange("tt", count=1), [("1500-1", {"at": "1500"})], "the first that is left")
        equal(r.xtrim("tt", minid="1500-1", approximate=False), 0, "XTRIM MINID at the first")
        r.xadd("tt", {"at": 2000}, id="2000-0", minid="1800-2", approximate=False)
        equal([i for i, _ in r.xrange("tt")], ["1900-1", "2000-0"], "XADD MINID")
        now = int(r.xadd("tt-now", {"a": "b"}).split("-")[0])
        equal(r.xtrim("tt-now", minid=now - 3_600_000, approximate=False), 0, "older than an hour")
        equal(r.xtrim("tt-now", minid=now + 3_600_000, approximate=False), 1, "older than in an hour")

    def history_replay(self) -> None:
        r = self.r
        for n in range(25):
            r.xadd("hr", {"n": n}, id=f"{1000 + n // 5}-{n % 5 + 1}")
        pages, start = [], "-"
        while page := r.xrange("hr", min=start, count=7):
            pages.append([int(fields["n"]) for _, fields in page])
            start = f"({page[-1][0]}"
        equal(pages, [list(range(n, min(n + 7, 25))) for n in range(0, 25, 7)], "pages")
        equal([i for i, _ in r.xrange("hr", "1002", "1002")], [f"1002-{s}" for s in range(1, 6)], "one ms")
        equal(
            r.xrange("hr", "1003-2", "(1003-4"),
            [(f"1003-{s}", {"n": str(14 + s)}) for s in (2, 3)],
            "a half-open range",
        )
        equal([i for i, _ in r.xrevrange("hr", "1001", "-", count=2)], ["1001-5", "1001-4"], "XREVRANGE")
        equal(r.xrange("hr", "1004-4", "1004-3"), [], "an empty range")
        equal(r.xrange("no-such-stream"), [], "XRANGE of a missing stream")
        r.xgroup_create("hr", "replay", id="1004-2")

        def read(after: str) -> dict[str, list]:
            return by_stream(r.xreadgroup("replay", "c", {"hr": after}))

        expected = {"hr": [(f"1004-{s}", {"n": str(19 + s)}) for s in (3, 4, 5)]}
        equal(read(">"), expected, "after the group's position")
        equal(read("0"), expected, "the consumer's own history")
        equal(r.xack("hr", "replay", "1004-3"), 1, "XACK")
        equal(read("1004-4"), {"hr": [("1004-5", {"n": "24"})]}, "its history after an id")
        r.xack("hr", "replay", "1004-4", "1004-5")
        equal(read("0"), {"hr": []}, "an empty history")
        equal(r.xgroup_setid("hr", "replay", "0"), True, "XGROUP SETID")
        everything = by_stream(r.xreadgroup("replay", "c", {"hr": ">"}, noack=True))
        equal(len(everything["hr"]), 25, "everything again, NOACK")
        equal(r.xpending("hr", "replay")["pending"], 0, "nothing pending after NOACK")

    def xinfo(self) -> None:
        r = self.r
        for n in range(1, 6):
            r.xadd("xi", {"n": n}, id=f"{n}-0")
        r.xgroup_create("xi", "g1", id="0")
        r.xgroup_create("xi", "g2", id="$")
        r.xreadgroup("g1", "c", {"xi": ">"}, count=1)
        g1 = {"name": "g1", "entries-read": 1, "lag": 4}
        equal(fields_of(r.xinfo_groups("xi")[0], *g1), g1, "a group that is four entries behind")
        r.xdel("xi", "2-0")
        r.xgroup_createconsumer("xi", "g1", "idle")
        info = r.xinfo_stream("xi")
        expected = {
            "length": 4,
            "last-generated-id": "5-0",
            "max-deleted-entry-id": "2-0",
            "entries-added": 5,
            "recorded-first-entry-id": "1-0",
            "groups": 2,
            "first-entry": ("1-0", {"n": "1"}),
            "last-entry": ("5-0", {"n": "5"}),
        }
        equal(fields_of(info, *expected), expected, "XINFO STREAM")
        holds("radix-tree-keys" in info and "radix-tree-nodes" in info, "the radix tree's fields")
        groups = r.xinfo_groups("xi")
        g1 = {"name": "g1", "consumers": 2, "pending": 1, "last-delivered-id": "1-0", "entries-read": 1, "lag": None}
        # What is deleted behind the position makes the lag unknown.
        equal(fields_of(groups[0], *g1), g1, "XINFO GROUPS, first")
        g2 = {"name": "g2", "consumers": 0, "pending": 0, "last-delivered-id": "5-0", "lag": 0}
        equal((len(groups), fields_of(groups[1], *g2)), (2, g2), "XINFO GROUPS, second")
        consumers = r.xinfo_consumers("xi", "g1")
        equal([(c["name"], c["pending"]) for c in consumers], [("c", 1), ("idle", 0)], "XINFO CONSUMERS")
        holds(all(0 <= c["idle"] < 60_000 for c in consumers), "idle times of consumers")
        full = r.xinfo_stream("xi", full=True)
        equal(full["entries"], {f"{n}-0": {"n": str(n)} for n in (1, 3, 4, 5)}, "XINFO STREAM FULL, entries")
        group = full["groups"][0]
        group = dict(zip(group[::2], group[1::2])) if isinstance(group, list) else group
        equal((group["name"], group["pel-count"], group["last-delivered-id"]), ("g1", 1, "1-0"), "a group in FULL")
        [pending] = group["pending"]
        equal((pending[0], pending[1], pending[3]), ("1-0", "c", 1), "a pending entry in FULL")
        holds(abs(pending[2] - now_ms()) < 60_000, "its delivery time")
        equal(error_of(lambda: r.xinfo_stream("nothing")), "no such key", "XINFO STREAM of a missing stream")
        nogroup = "NOGROUP No such consumer group 'nobody' for key name 'xi'"
        equal(error_of(lambda: r.xinfo_consumers("xi", "nobody")), nogroup, "XINFO CONSUMERS of a missing group")

    def blocking(self) -> None:
        r = self.r
        began = time.monotonic()
        equal(by_stream(r.xread({"bl": "$"}, block=300)), {}, "XREAD BLOCK without an entry")
        took = time.monotonic() - began
        holds(0.29 <= took < 2, f"BLOCK 300 took {took:.3f} s")
        r.xgroup_create("bl", "g", mkstream=True)
        # Once would not do: the wrong order may be rare.
        for n in range(20):
            self.first_blocked_first_served(f"bl-{n}", turn=n % 2)

        client = self.another(0)
        forever = self.in_thread(lambda: client.xread({"bl": "$", "bl-other": "$"}, block=0))
        self.wait_blocked(1)
        entry_id = r.xadd("bl-other", {"a": "b"})
        equal(by_stream(forever()), {"bl-other": [(entry_id, {"a": "b"})]}, "XREAD BLOCK 0 of two streams")

        client = self.another(0, single_connection_client=True)
        client_id = client.client_id()
        stopped = self.in_thread(lambda: client.xread({"bl": "$"}, block=0))
        self.wait_blocked(1)
        equal(r.client_unblock(client_id), True, "CLIENT UNBLOCK")
        equal(by_stream(stopped()), {}, "a reader that CLIENT UNBLOCK stopped")
        equal(r.client_unblock(client_id), False, "CLIENT UNBLOCK of a client that is not blocked")

        client = self.another(0)
        orphan = self.in_thread(lambda: client.xreadgroup("g", "c", {"bl": ">"}, block=4000))
        self.wait_blocked(1)
        equal(r.delete("bl"), 1, "DEL")
        error = orphan()
        texts = (
            "NOGROUP No such key 'bl' or consumer group 'g' in XREADGROUP with GROUP option",
            "UNBLOCKED the stream key no longer exists",  # before Redis 7.2
        )
        holds(isinstance(error, ResponseError) and str(error) in texts, f"a reader whose stream was deleted: {error!r}")

    def first_blocked_first_served(self, key: str, turn: int) -> None:
        door = self.another(turn)
        door.xgroup_create(key, "g", mkstream=True)
        waits = []
        for n in range(2):
            client = self.another(turn)

            def read(consumer: str = f"c{n}", client: Redis = client) -> list | dict:
                return client.xreadgroup("g", consumer, {key: ">"}, count=1, block=4000)

            waits.append(self.in_thread(read))
            self.wait_blocked(n + 1, door)
        ids = [self.r.xadd(key, {"n": n}) for n in range(2)]
        for n, wait in enumerate(waits):
            equal(by_stream(wait()), {key: [(ids[n], {"n": str(n)})]}, f"blocked reader {n}, door {turn}")
        self.wait_blocked(0, door)

    def pipeline(self) -> None:
        pipe = self.r.pipeline(transaction=False)
        for n in range(200):
            pipe.xadd("pl", {"n": n})
        pipe.xlen("pl")
        *ids, length = pipe.execute()
        equal(length, 200, "XLEN at the end of the pipeline")
        stored = self.r.xrange("pl")
        equal(stored, [(entry_id, {"n": str(n)}) for n, entry_id in enumerate(ids)], "replies in order")
        pipe = self.r.pipeline(transaction=False)
        pipe.xadd("pl", {"n": "a"}).xadd("pl", {"n": "b"}, id="1-1").xlen("pl").xack("pl", "nobody", "1-1")
        first, error, length, acked = pipe.execute(raise_on_error=False)
        small = "The ID specified in XADD is equal or smaller than the target stream top item"
        equal((str(error), length, acked), (small, 201, 0), "an error among replies")
        equal(self.r.xrevrange("pl", count=1), [(first, {"n": "a"})], "the entry before the error")

    def transaction(self) -> None:
        r = self.r
        r.xgroup_create("tx", "g", id="0", mkstream=True)
        first = r.xadd("tx", {"n": 0})
        r.xreadgroup("g", "c", {"tx": ">"})
        pipe = r.pipeline(transaction=True)
        pipe.xadd("tx", {"n": 1}).xadd("tx-dead", {"origin": first}).xack("tx", "g", first).xlen("tx").xpending(
            "tx", "g"
        )
        second, dead, acked, length, pending = pipe.execute()
        equal((acked, length, pending["pending"]), (1, 2, 0), "replies of EXEC")
        equal(r.xrange("tx"), [(first, {"n": "0"}), (second, {"n": "1"})], "the stream after EXEC")
        equal(r.xrange("tx-dead"), [(dead, {"origin": first})], "the other stream after EXEC")
        pipe = r.pipeline(transaction=True)
        pipe.xadd("tx", {"n": 2}).xadd("tx", {"n": "too small"}, id="1-1").xadd("tx", {"n": 3})
        replies = pipe.execute(raise_on_error=False)
        holds(isinstance(replies[1], ResponseError), "an error within EXEC")
        equal([f["n"] for _, f in r.xrange("tx")], ["0", "1", "2", "3"], "the others of that EXEC took place")
        pipe = r.pipeline(transaction=True)
        pipe.xadd("tx", {"n": 4}).execute_command("XADD", "tx", "*", "odd").xadd("tx", {"n": 5})
        error = error_of(pipe.execute)
        holds("wrong number of arguments for 'xadd' command" in error, f"a refused command refuses EXEC: {error}")
        equal(r.xlen("tx"), 4, "nothing of the refused EXEC took place")
        pipe = r.pipeline(transaction=True)
        pipe.xadd("tx", {"n": 6})
        pipe.reset()
        equal(r.xlen("tx"), 4, "nothing of the discarded one")
        one = self.another(0, single_connection_client=True)
        one.execute_command("MULTI")
        equal(one.execute_command("XADD", "tx", "*", "n", "7"), "QUEUED", "a command after MULTI")
        equal(one.execute_command("DISCARD"), "OK", "DISCARD")
        equal(error_of(lambda: one.execute_command("EXEC")), "EXEC without MULTI", "EXEC after DISCARD")
        equal(r.xlen("tx"), 4, "nothing after DISCARD")

    def watch(self) -> None:
        r = self.r
        r.xadd("wa", {"n": 0})
        with r.pipeline() as pipe:
            pipe.watch("wa")
            equal(pipe.xlen("wa"), 1, "XLEN after WATCH")
            pipe.multi()
            pipe.xadd("wa", {"n": 1})
            equal(len(pipe.execute()), 1, "EXEC without a change")
        with r.pipeline() as pipe:
            pipe.watch("wa", "wa-other")
            self.another(2).xadd("wa-other", {"n": 0})
            pipe.multi()
            pipe.xadd("wa", {"n": 2})
            try:
                pipe.execute()
                raise AssertionError("EXEC after a change was carried out")
            except WatchError:
                pass
        equal(r.xlen("wa"), 2, "nothing of it took place")
        with r.pipeline() as pipe:
            pipe.watch("wa")
            self.another(1).xadd("wa", {"n": 3})
            pipe.unwatch()
            pipe.multi()
            pipe.xadd("wa", {"n": 4})
            equal(len(pipe.execute()), 1, "EXEC after UNWATCH")
        equal(r.xlen("wa"), 4, "at the end")

    def errors(self) -> None:
        r = self.r
        r.xadd("er", {"a": "b"}, id="5-5")
        rows = [
            (
                ("XADD", "er", "5-5", "a", "b"),
                "The ID specified in XADD is equal or smaller than the target stream top item",
            ),
            (("XADD", "er", "0-0", "a", "b"), "The ID specified in XADD must be greater than 0-0"),
            (("XADD", "er", "abc", "a", "b"), "Invalid stream ID specified as stream command argument"),
            (("XADD", "er", "*", "a"), "wrong number of arguments for 'xadd' command"),
            (("XRANGE", "er", "-", "+", "COUNT", "x"), "value is not an integer or out of range"),
            (("XREAD", "BLOCK", "-1", "STREAMS", "er", "$"), "timeout is negative"),
            (
                ("XREADGROUP", "GROUP", "g", "c", "STREAMS", "er", ">"),
                "NOGROUP No such key 'er' or consumer group 'g' in XREADGROUP with GROUP option",
            ),
            (("XPENDING", "er", "g"), "NOGROUP No such key 'er' or consumer group 'g'"),
            (
                ("XGROUP", "CREATE", "nothing", "g", "0"),
                "The XGROUP subcommand requires the key to exist. Note that for CREATE you may want to use the "
                "MKSTREAM option to create an empty stream automatically.",
            ),
            (("XGROUP", "NOSUCH", "er"), "unknown subcommand 'NOSUCH'. Try XGROUP HELP."),
            (("XTRIM", "er", "MAXLEN", "-1"), "The MAXLEN argument must be >= 0."),
            (("NOSUCHCOMMAND", "a", "b"), "unknown command 'NOSUCHCOMMAND', with args beginning with: 'a' 'b' "),
        ]
        for command, expected in rows:
            equal(error_of(lambda c=command: r.execute_command(*c)), expected, " ".join(command))
        equal(r.xlen("er"), 1, "nothing was added")

    def keys(self) -> None:
        r = self.r
        r.flushall()
        for name in ("orders:1", "orders:2", "events:1"):
            r.xadd(name, {"a": "b"})
        equal(r.dbsize(), 3, "DBSIZE")
        equal(r.exists("orders:1", "events:1", "nothing", "orders:1"), 3, "EXISTS")
        equal((r.type("orders:1"), r.type("nothing")), ("stream", "none"), "TYPE")
        equal(sorted(r.keys("orders:*")), ["orders:1", "orders:2"], "KEYS")
        equal(sorted(r.keys("?????s:[13]")), ["events:1", "orders:1"], "KEYS with a class")
        equal(sorted(r.scan_iter(match="*:1", count=1, _type="stream")), ["events:1", "orders:1"], "SCAN")
        equal(list(r.scan_iter(_type="string")), [], "SCAN of another type")
        equal(r.delete("orders:1", "nothing"), 1, "DEL")
        equal(r.unlink("orders:2"), 1, "UNLINK")
        equal(r.keys("*"), ["events:1"], "what is left")
        equal(r.flushdb(), True, "FLUSHDB")
        equal(r.keys("*"), [], "KEYS after FLUSHDB")

    def ids_and_bytes(self) -> None:
        r = self.r
        equal(r.xadd("ib", {"a": "b"}, id="7-*"), "7-0", "a partial id")
        equal(r.xadd("ib", {"a": "b"}, id="7-*"), "7-1", "the next of it")
        equal(r.xadd("ib", {"a": "b"}, id="8"), "8-0", "an id without its second part")
        equal(r.xadd("nothing", {"a": "b"}, nomkstream=True), None, "NOMKSTREAM")
        equal(r.exists("nothing"), 0, "no stream came of it")
        raw = self.another(0, decode_responses=False)
        fields = {b"\xff\x00raw": bytes(range(256)), b"empty": b"", "grüße".encode(): "日本語🌊".encode()}
        entry_id = raw.xadd("ib", fields)
        equal(raw.xrange("ib", entry_id, entry_id), [(entry_id, fields)], "bytes come back")
        large = bytes(n % 251 for n in range(300_000))
        entry_id = raw.xadd("ib", {b"large": large})
        equal(raw.xrevrange("ib", count=1), [(entry_id, {b"large": large})], "a large value")
        raw.execute_command("XADD", "ib-twice", "1-1", "f", "1", "f", "2", "f", "1")
        raw.set_response_callback("XRANGE", lambda reply, **_: reply)
        equal(
            raw.xrange("ib-twice"), [[b"1-1", [b"f", b"1", b"f", b"2", b"f", b"1"]]], "repeated fields keep their order"
        )

    def any_door(self) -> None:
        doors = [self.another(turn) for turn in range(3)]
        for n in range(60):
            entry_id = doors[n % 3].xadd("ad", {"n": n})
            [newest] = doors[(n + 1) % 3].xrevrange("ad", count=1)
            equal(newest, (entry_id, {"n": str(n)}), "the newest entry at the next door")
            equal(doors[(n + 2) % 3].xlen("ad"), n + 1, "XLEN at the one after")
        doors[0].xgroup_create("ad", "g", id="0")
        ids = []
        for n in range(6):
            [(entry_id, _)] = by_stream(doors[n % 3].xreadgroup("g", "c", {"ad": ">"}, count=1))["ad"]
            ids.append(entry_id)
            equal(doors[(n + 1) % 3].xpending("ad", "g")["pending"], 1, "XPENDING at the next door")
            equal(doors[(n + 2) % 3].xack("ad", "g", entry_id), 1, "XACK at the one after")
        equal(ids, [entry_id for entry_id, _ in doors[0].xrange("ad", count=6)], "delivered in order, each once")
        for n in range(3):
            blocked = self.in_thread(lambda door=doors[n]: door.xread({"ad-wake": "$"}, block=4000))
            self.wait_blocked(1, doors[n])
            entry_id = doors[(n + 1) % 3].xadd("ad-wake", {"n": n})
            expected = {"ad-wake": [(entry_id, {"n": str(n)})]}
            equal(by_stream(blocked()), expected, "a reader blocked at one door, woken by another")
        equal(doors[1].flushall(), True, "FLUSHALL")
        equal([door.dbsize() for door in doors], [0, 0, 0], "DBSIZE at every door")

    def run(self, report: Report) -> None:
        # In the order of cases.txt.
        for case in (
            self.order_tracker, self.producer_consumer, self.group_acks, self.pending_recovery, self.trim_length,
            self.trim_time, self.history_replay, self.xinfo, self.blocking, self.pipeline, self.transaction,
            self.watch, self.errors, self.keys, self.ids_and_bytes, self.any_door,
        ):  # fmt: skip
            report.run(case.__name__.replace("_", "-"), case)
