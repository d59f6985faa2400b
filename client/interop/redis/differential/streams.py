"""Random stream commands over a few streams, groups and consumers, so that they meet."""

import random
from collections.abc import Callable
from itertools import count

from steps import Command
from words import ODD_IDS, ODD_NUMBERS

# Idle times that no pause in a run reaches, and that commands set by themselves.
IDLE_LONG = b"500000"
IDLE_LESS = b"400000"
IDLE_MORE = b"600000"
FUTURE_MS = 9_000_000_000_000


class StreamCommands:
    """Makes stream commands. Remembers which ids it used, not what the servers did with them."""

    def __init__(self, chance: random.Random, level: tuple[int, ...] = (7, 0)) -> None:
        """`level` is the version of Redis whose commands are made."""
        self.chance = chance
        self.level = level
        self.keys = [b"s1", b"s2", b"s3"][: chance.randint(1, 3)]
        self.groups = [b"g1", b"g2"]
        self.consumers = [b"c1", b"c2", b"c3"]
        self.last = {key: (0, 0) for key in self.keys}
        self.used: list[bytes] = [b"1-1"]
        self.autos = count()
        self.auto_last = -1
        weighted: list[tuple[int, Callable[[bytes], list[bytes]]]] = [
            (20, self.add),
            (3, self.length),
            (7, self.range),
            (7, self.read),
            (5, self.delete),
            (6, self.trim),
            (3, self.set_id),
            (10, self.group_command),
            (15, self.read_group),
            (7, self.ack),
            (9, self.pending),
            (9, self.claim),
            (8, self.auto_claim),
            (11, self.info),
        ]
        if level >= (8, 2):
            weighted += [(4, self.delete_ex), (4, self.ack_delete)]
        self.makers = [maker for _, maker in weighted]
        # Each sequence does without some commands and is fond of others: what undoes the rest would otherwise be
        # everywhere.
        needed = (self.add, self.read_group, self.group_command)
        moods = [chance.choice((1, 2) if maker in needed else (0, 0.3, 1, 1, 3)) for maker in self.makers]
        self.weights = [weight * mood for (weight, _), mood in zip(weighted, moods)]

    def command(self, key: bytes | None = None) -> list[bytes]:
        maker = self.chance.choices(self.makers, self.weights)[0]
        return maker(self.key() if key is None else key)

    def beginning(self) -> list[Command]:
        """Groups to read in, so that not all of a sequence is about what does not exist."""
        made = [[b"XGROUP", b"CREATE", key, group, b"0", b"MKSTREAM"] for key in self.keys for group in self.groups]
        return [Command(arguments) for arguments in made if self.maybe(0.85)]

    def drain(self) -> Command:
        """Everything there is to know of a stream."""
        return Command([b"XINFO", b"STREAM", self.key(), b"FULL", b"COUNT", b"0"])

    # Names and ids.

    def maybe(self, likely: float) -> bool:
        return self.chance.random() < likely

    def key(self) -> bytes:
        roll = self.chance.random()
        if roll < 0.95:
            return self.chance.choice(self.keys)
        if roll < 0.997:
            return b"missing"
        return self.chance.choice((b"", b"\xff\xfe", b"with space", b"k" * 1100, "ζ".encode()))

    def group(self) -> bytes:
        return self.chance.choice(self.groups) if self.maybe(0.97) else self.chance.choice((b"none", b"", b"g 3"))

    def consumer(self) -> bytes:
        return self.chance.choice(self.consumers) if self.maybe(0.97) else self.chance.choice((b"c9", b"", b"\xc3\xa4"))

    def rising_id(self, key: bytes) -> bytes:
        """An id that is most likely above the last one."""
        ms, sequence = self.last.get(key, (0, 0))
        if self.maybe(0.1):
            made = b"%d-*" % ms
            sequence += 1
        else:
            step = self.chance.randint(0, 2)
            ms, sequence = ms + step, self.chance.randint(1, 3) + (0 if step else sequence)
            made = b"%d-%d" % (ms, sequence)
        self.last[key] = ms, sequence
        self.used.append(b"%d-%d" % (ms, sequence))
        return made

    def new_id(self, key: bytes) -> bytes:
        roll = self.chance.random()
        if roll < 0.86:
            return self.rising_id(key)
        if roll < 0.91:
            return self.id()
        if roll < 0.94:
            self.auto_last = next(self.autos)
            # Ids that follow it must be above it: far in the future, where `*` merely counts on.
            self.last[key] = max(self.last.get(key, (0, 0)), (FUTURE_MS, 0))
            return b"*"
        return self.chance.choice(ODD_IDS) if roll < 0.97 else b"%d" % (self.last.get(key, (0, 0))[0] + 1)

    def id(self) -> bytes:
        roll = self.chance.random()
        if roll < 0.75:
            return self.chance.choice(self.used[-12:])
        if roll < 0.85:
            return b"%d" % self.chance.randint(0, 12)
        if roll < 0.92:
            return b"%d-%d" % (self.chance.randint(0, 12), self.chance.randint(0, 3))
        if roll < 0.97 and self.auto_last >= 0:
            return b"{auto:%d}" % self.auto_last
        return self.chance.choice(ODD_IDS) if roll > 0.985 else b"0"

    def ids(self) -> list[bytes]:
        return [self.id() for _ in range(self.chance.choice((1, 1, 2, 3)))]

    def count(self) -> bytes:
        return b"%d" % self.chance.randint(1, 5) if self.maybe(0.94) else self.chance.choice(ODD_NUMBERS)

    def bound(self) -> bytes:
        """One end of a range."""
        roll = self.chance.random()
        if roll < 0.35:
            return self.chance.choice((b"-", b"+"))
        return b"(" + self.id() if roll < 0.55 else self.id()

    def options(self, *choices: tuple[float, list[bytes]]) -> list[bytes]:
        """Some of these options, in any order."""
        taken = [words for likely, words in choices if self.maybe(likely)]
        self.chance.shuffle(taken)
        return [word for words in taken for word in words]

    # Commands.

    def fields(self) -> list[bytes]:
        pairs = self.chance.choice((1, 1, 1, 2, 3))
        pool = (b"f", b"g", b"", b"v", b"\x00\r\n", b"x" * 40)
        words = [self.chance.choice(pool) for _ in range(2 * pairs)]
        return words[:-1] if self.maybe(0.01) else words

    def trimming(self) -> list[bytes]:
        how = self.chance.choice(([], [], [b"="], [b"~"], [b"~"]))
        if self.maybe(0.6):
            length = self.chance.choice((0, 1, 3, 5, 10, 10, 20, 50, 99, 100, 101, 150))
            words = [b"MAXLEN", *how, b"%d" % length if self.maybe(0.95) else self.chance.choice(ODD_NUMBERS)]
        else:
            words = [b"MINID", *how, self.chance.choice(self.used) if self.maybe(0.6) else self.id()]
        if self.maybe(0.5 if how == [b"~"] else 0.04):
            limit = self.chance.choice((b"0", b"1", b"99", b"100", b"101", b"200", b"1000"))
            words += [b"LIMIT", limit if self.maybe(0.9) else self.chance.choice(ODD_NUMBERS)]
        # Redis 8.2 does nothing for `~` with these, 8.8 does.
        if self.level >= (8, 2) and self.maybe(0.3) and b"~" not in words:
            words = self.chance.choice(([*self.references(), *words], [*words, *self.references()]))
            return words
        # Without what it limits.
        return words[-2:] if self.maybe(0.02) else words

    def add(self, key: bytes) -> list[bytes]:
        options = self.options((0.05, [b"NOMKSTREAM"]), (0.07, self.trimming()))
        return [b"XADD", key, *options, self.new_id(key), *self.fields()]

    def length(self, key: bytes) -> list[bytes]:
        return [b"XLEN", key]

    def range(self, key: bytes) -> list[bytes]:
        name = self.chance.choice((b"XRANGE", b"XREVRANGE"))
        ends = [self.bound(), self.bound()]
        if self.maybe(0.5):
            ends = [b"-", b"+"] if name == b"XRANGE" else [b"+", b"-"]
        return [name, key, *ends, *self.options((0.5, [b"COUNT", self.count()]))]

    def streams(self, key: bytes, ids: Callable[[], bytes]) -> list[bytes]:
        keys = [key] + [self.key() for _ in range(self.chance.choice((0, 0, 0, 1, 2)))]
        return [b"STREAMS", *keys, *(ids() for _ in keys)]

    def read(self, key: bytes) -> list[bytes]:
        options = self.options((0.5, [b"COUNT", self.count()]), (0.2, [b"BLOCK", self.wait()]))
        newest = (b"$", b"+") if self.level >= (7, 4) else (b"$",)
        ids = self.streams(key, lambda: self.chance.choice(newest) if self.maybe(0.15) else self.id())
        return [b"XREAD", *options, *ids]

    def wait(self) -> bytes:
        return b"%d" % self.chance.choice((1, 5, 10)) if self.maybe(0.95) else self.chance.choice(ODD_NUMBERS)

    def delete(self, key: bytes) -> list[bytes]:
        return [b"XDEL", key, *self.ids()]

    def references(self) -> list[bytes]:
        return [self.chance.choice((b"KEEPREF", b"DELREF", b"ACKED"))]

    def id_block(self) -> list[bytes]:
        ids = self.ids()
        count_ = b"%d" % len(ids) if self.maybe(0.95) else self.chance.choice(ODD_NUMBERS)
        block = [b"IDS", count_, *ids]
        return self.chance.choice((block, [*self.references(), *block], [*block, *self.references()]))

    def delete_ex(self, key: bytes) -> list[bytes]:
        return [b"XDELEX", key, *self.id_block()]

    def ack_delete(self, key: bytes) -> list[bytes]:
        return [b"XACKDEL", key, self.group(), *self.id_block()]

    def trim(self, key: bytes) -> list[bytes]:
        return [b"XTRIM", key, *self.trimming()]

    def set_id(self, key: bytes) -> list[bytes]:
        number = b"%d" % self.chance.choice((0, 1, 5, 20, 100)) if self.maybe(0.9) else self.chance.choice(ODD_NUMBERS)
        options = self.options((0.4, [b"ENTRIESADDED", number]), (0.4, [b"MAXDELETEDID", self.id()]))
        return [b"XSETID", key, self.rising_id(key) if self.maybe(0.6) else self.id(), *options]

    def entries_read(self) -> list[bytes]:
        number = b"%d" % self.chance.choice((-1, 0, 1, 2, 3)) if self.maybe(0.9) else self.chance.choice(ODD_NUMBERS)
        return self.options((0.15, [b"ENTRIESREAD", number]))

    def group_command(self, key: bytes) -> list[bytes]:
        start = self.chance.choice((b"$", b"0", b"0", self.id()))
        roll = self.chance.random()
        if roll < 0.6:
            made = self.options((0.7, [b"MKSTREAM"]), (1, self.entries_read()))
            return [b"XGROUP", b"CREATE", key, self.group(), start, *made]
        if roll < 0.72:
            return [b"XGROUP", b"SETID", key, self.group(), start, *self.entries_read()]
        if roll < 0.76:
            return [b"XGROUP", b"DESTROY", key, self.group()]
        if roll < 0.88:
            return [b"XGROUP", b"CREATECONSUMER", key, self.group(), self.consumer()]
        if roll < 0.96:
            return [b"XGROUP", b"DELCONSUMER", key, self.group(), self.consumer()]
        return [b"XGROUP", self.chance.choice((b"WHAT", b"HELPME", b"")), key]

    def read_group(self, key: bytes) -> list[bytes]:
        options = self.options(
            (0.6, [b"COUNT", self.count()]), (0.1, [b"NOACK"]), (0.15, [b"BLOCK", self.wait()])
        )
        ids = self.streams(key, lambda: b">" if self.maybe(0.7) else self.chance.choice((b"0", b"0", self.id())))
        return [b"XREADGROUP", b"GROUP", self.group(), self.consumer(), *options, *ids]

    def ack(self, key: bytes) -> list[bytes]:
        return [b"XACK", key, self.group(), *self.ids()]

    def pending(self, key: bytes) -> list[bytes]:
        if self.maybe(0.35):
            return [b"XPENDING", key, self.group()]
        idle = self.options((0.2, [b"IDLE", self.chance.choice((b"0", IDLE_LESS, IDLE_MORE))]))
        ends = [b"-", b"+"] if self.maybe(0.6) else [self.bound(), self.bound()]
        consumer = [self.consumer()] if self.maybe(0.3) else []
        count_ = b"%d" % self.chance.choice((1, 2, 10, 100)) if self.maybe(0.9) else self.chance.choice(ODD_NUMBERS)
        return [b"XPENDING", key, self.group(), *idle, *ends, count_, *consumer]

    def min_idle(self) -> bytes:
        roll = self.chance.random()
        if roll < 0.03:
            return self.chance.choice(ODD_NUMBERS)
        return b"0" if roll < 0.75 else self.chance.choice((IDLE_LESS, IDLE_MORE))

    def claim(self, key: bytes) -> list[bytes]:
        options = self.options(
            (0.25, [b"IDLE", IDLE_LONG if self.maybe(0.8) else self.chance.choice(ODD_NUMBERS)]),
            (0.1, [b"TIME", self.chance.choice((b"0", b"1", b"1600000000000", b"99999999999999", b"-1", b"x"))]),
            (0.25, [b"RETRYCOUNT", self.count()]),
            (0.35, [b"FORCE"]),
            (0.3, [b"JUSTID"]),
            (0.1, [b"LASTID", self.id()]),
        )
        return [b"XCLAIM", key, self.group(), self.consumer(), self.min_idle(), *self.ids(), *options]

    def auto_claim(self, key: bytes) -> list[bytes]:
        options = self.options((0.5, [b"COUNT", self.count()]), (0.3, [b"JUSTID"]))
        start = self.chance.choice((b"-", b"0", b"0-0", self.bound()))
        return [b"XAUTOCLAIM", key, self.group(), self.consumer(), self.min_idle(), start, *options]

    def info(self, key: bytes) -> list[bytes]:
        roll = self.chance.random()
        if roll < 0.25:
            return [b"XINFO", b"STREAM", key]
        if roll < 0.5:
            return [b"XINFO", b"STREAM", key, b"FULL", *self.options((0.6, [b"COUNT", self.count()]))]
        if roll < 0.75:
            return [b"XINFO", b"GROUPS", key]
        if roll < 0.97:
            return [b"XINFO", b"CONSUMERS", key, self.group()]
        return [b"XINFO", self.chance.choice((b"WHAT", b"")), key]
