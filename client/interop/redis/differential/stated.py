"""The differences from Redis 7.0 that docs/conformance.md and docs/redis.md state: one narrow rule each.

A rule looks at the first place where two replies differ. It either takes away what it explains, in both replies, and
the comparison goes on with the rest; or it says that the two servers hold different data from here on, and the sequence
ends. It never accepts a reply as a whole. Each names the row of a table there that it comes from, and a run refuses to
start if there is no such row.

Most are about what a later Redis does otherwise than 7.0: such a rule holds only if the Redis that we compare with is
older than that (`since`).
"""

import re
from collections.abc import Callable
from dataclasses import dataclass, field

from compare import Difference, Leaf, Node, View

EXPLAINED = "explained"
APART = "apart"

Version = tuple[int, ...]
# Key, group and consumer.
Consumers = set[tuple[bytes, bytes, bytes]]


@dataclass
class Past:
    """What a sequence did so far, as far as rules ask."""

    # Of commands that since 7.2 create the consumer even if they give it nothing.
    consumers: Consumers = field(default_factory=set)
    # Keys of streams that lost entries, or whose counters were set.
    counted_anew: set[bytes] = field(default_factory=set)
    # Watched keys, and what happened to them since: names of commands.
    watched: dict[bytes, set[bytes]] = field(default_factory=dict)

    def note(self, command: list[bytes]) -> None:
        name = command[0].upper() if command else b""
        words = [word.upper() for word in command]
        if name in (b"XCLAIM", b"XAUTOCLAIM") and len(command) > 3:
            self.consumers.add((command[1], command[2], command[3]))
        elif name == b"XREADGROUP" and b"GROUP" in words and b"STREAMS" in words:
            at, keys = words.index(b"GROUP"), words.index(b"STREAMS") + 1
            for key in command[keys:]:
                self.consumers.add((key, *command[at + 1 : at + 3]))
        if name == b"XGROUP" and b"ENTRIESREAD" in words and len(command) > 2:
            self.counted_anew.add(command[2])
        for key, happened in self.watched.items():
            if key in command or name in (b"FLUSHALL", b"FLUSHDB"):
                happened.add(name)
        if name == b"WATCH":
            for key in command[1:]:
                self.watched.setdefault(key, set())

    def note_done(self, command: list[bytes]) -> None:
        """After its replies were compared."""
        words = [word.upper() for word in command]
        if len(command) > 1 and (
            words[0] in (b"XDEL", b"XDELEX", b"XACKDEL", b"XTRIM", b"XSETID")
            or (words[0] == b"XADD" and (b"MAXLEN" in words or b"MINID" in words))
        ):
            self.counted_anew.add(command[1])
        if command and command[0].upper() in (b"EXEC", b"DISCARD", b"UNWATCH", b"RESET"):
            self.watched.clear()


@dataclass
class Asked:
    """A command, what both servers said, where that first differs, and what was before."""

    command: list[bytes]
    expected: View
    got: View
    difference: Difference
    past: Past
    # The commands of the transaction that it was part of, if it was.
    transaction: list[list[bytes]] | None = None

    def is_named(self, *names: bytes) -> bool:
        return [word.upper() for word in self.command[: len(names)]] == list(names)

    def said(self, expected: bytes, got: bytes) -> bool:
        return self.difference.expected == expected and self.difference.got == got

    def settled(self) -> str | None:
        return EXPLAINED if self.difference.settle() else None


@dataclass
class Rule:
    """A stated difference from Redis before the version `since`."""

    name: str
    row: str
    since: Version
    apply: Callable[[Asked], str | None]


def nodes(view: View) -> list[Node]:
    """A view and all within it that holds something."""
    if isinstance(view, Leaf):
        return []
    return [view] + [found for item in view.items for found in nodes(item)]


def text_of(node: View, name: bytes) -> bytes | None:
    """The value of this name, if it is a single one."""
    if isinstance(node, Leaf) or node.names is None or name not in node.names:
        return None
    value = node.items[node.names.index(name)]
    return value.reply.text if isinstance(value, Leaf) else None


def number(view: View) -> int | None:
    return int(view.reply.text) if isinstance(view, Leaf) and view.reply.kind == b":" else None


def drop_fields(view: View, after: bytes, fields: dict[bytes, Callable[[int], bool]]) -> bool:
    """Takes these fields out of every map that has all of them right after the named one, with such values."""
    dropped = False
    wanted = list(fields)
    for node in nodes(view):
        if node.names is None or after not in node.names:
            continue
        at = node.names.index(after) + 1
        values = [number(item) for item in node.items[at : at + len(wanted)]]
        if node.names[at : at + len(wanted)] != wanted:
            continue
        if all(value is not None and fields[name](value) for name, value in zip(wanted, values)):
            del node.names[at : at + len(wanted)]
            del node.items[at : at + len(wanted)]
            dropped = True
    return dropped


def idempotency_fields(asked: Asked) -> str | None:
    fields: dict[bytes, Callable[[int], bool]] = {
        b"idmp-duration": lambda value: value == 100,
        b"idmp-maxsize": lambda value: value == 100,
    }
    for name in (b"pids-tracked", b"iids-tracked", b"iids-added", b"iids-duplicates"):
        fields[name] = lambda value: value == 0
    if asked.is_named(b"XINFO", b"STREAM") and drop_fields(asked.got, b"recorded-first-entry-id", fields):
        return EXPLAINED
    return None


def released_count(asked: Asked) -> str | None:
    fields: dict[bytes, Callable[[int], bool]] = {b"nacked-count": lambda value: value == 0}
    if asked.is_named(b"XINFO", b"STREAM") and drop_fields(asked.got, b"pel-count", fields):
        return EXPLAINED
    return None


def active_time(asked: Asked) -> str | None:
    after, name = (b"seen-time", b"active-time") if asked.is_named(b"XINFO", b"STREAM") else (b"idle", b"inactive")
    fields: dict[bytes, Callable[[int], bool]] = {name: lambda value: value >= -1}
    if asked.is_named(b"XINFO") and drop_fields(asked.got, after, fields):
        return EXPLAINED
    return None


def unbalanced(asked: Asked) -> str | None:
    text = b"-ERR Unbalanced %s list of streams: for each stream key an ID%s must be specified.\r\n"
    now = {
        b"XREAD": text % (b"'xread'", b", '+', or '$'"),
        b"XREADGROUP": text % (b"'xreadgroup'", b" or '>'"),
    }
    name = asked.command[0].upper()
    return asked.settled() if name in now and asked.said(text % (b"XREAD", b" or '$'"), now[name]) else None


def last_entry(asked: Asked) -> str | None:
    """`+` among the ids is none in 7.0, so nothing was read, and nothing changed."""
    invalid = b"-ERR Invalid stream ID specified as stream command argument\r\n"
    if asked.is_named(b"XREAD") and b"+" in asked.command and asked.difference.expected == invalid:
        # What the other server says instead is more than one value; the sequence ends.
        return asked.settled() or APART
    meaningless = b"-ERR The + ID is meaningless in the context of XREADGROUP: you want to read the history"
    if asked.is_named(b"XREADGROUP") and asked.difference.got.startswith(meaningless):
        return asked.settled() if asked.difference.expected == invalid else None
    return None


def consumers_made(asked: Asked) -> str | None:
    """Consumers with nothing pending, which commands named, and which 7.0 creates only when it gives them something."""
    past = asked.past.consumers
    path = asked.difference.path
    if asked.is_named(b"XGROUP", b"CREATECONSUMER") and asked.said(b":1\r\n", b":0\r\n"):
        return asked.settled() if tuple(asked.command[2:5]) in past else None
    if asked.is_named(b"XINFO", b"GROUPS") and path.endswith("/consumers") and isinstance(asked.got, Node):
        group = text_of(asked.got.items[int(path.split("/")[1])], b"name")
        possible = sum(1 for key, name, _ in past if key == asked.command[2] and name == group)
        more = int(asked.difference.got[1:-2]) - int(asked.difference.expected[1:-2])
        return asked.settled() if 0 < more <= possible else None
    if asked.is_named(b"XINFO", b"CONSUMERS") and isinstance(asked.expected, Node) and isinstance(asked.got, Node):
        return drop_consumers(asked.expected, asked.got, asked.command[2], asked.command[3], past)
    if asked.is_named(b"XINFO", b"STREAM") and "/consumers" in path:
        group_at = int(path.split("/")[2])
        group, expected, got = None, asked.expected, asked.got
        for step in (b"groups", group_at, b"consumers"):
            if isinstance(step, int):
                group = text_of(got.items[step], b"name")
            expected, got = (
                side.items[step if isinstance(step, int) else side.names.index(step)] for side in (expected, got)
            )
        return drop_consumers(expected, got, asked.command[2], group or b"", past)
    return None


def drop_consumers(expected: Node, got: Node, key: bytes, group: bytes, past: Consumers) -> str | None:
    there = {text_of(consumer, b"name") for consumer in expected.items}
    kept: list[View] = []
    for consumer in got.items:
        name = text_of(consumer, b"name")
        has_nothing = b"0" in (text_of(consumer, b"pel-count"), text_of(consumer, b"pending"))
        if name in there or not has_nothing or (key, group, name) not in past:
            kept.append(consumer)
    dropped = len(kept) < len(got.items)
    got.items[:] = kept
    return EXPLAINED if dropped else None


GROUP_GONE = b"-NOGROUP the consumer group this client was blocked on no longer exists\r\n"


def sequence_exhausted(asked: Asked) -> str | None:
    before = b"-ERR Elements are too large to be stored\r\n"
    now = b"-ERR The ID specified in XADD is equal or smaller than the target stream top item\r\n"
    return asked.settled() if asked.is_named(b"XADD") and asked.said(before, now) else None


def woken_for_nothing(asked: Asked) -> str | None:
    """7.0 wakes a reader when any group of the stream is destroyed, and serves it nothing if entries were deleted."""
    words = [word.upper() for word in asked.command]
    if not asked.is_named(b"XREADGROUP") or b"BLOCK" not in words:
        return None
    empty = re.fullmatch(r"(/\d+)+/length", asked.difference.path) and asked.difference.expected.startswith(b"0: ")
    return APART if empty and asked.past.counted_anew & set(asked.command) else None


def woken_by_deletion(asked: Asked) -> str | None:
    gone = b"-NOGROUP No such key '"
    before = (b"-UNBLOCKED the stream key no longer exists\r\n", GROUP_GONE)
    if asked.is_named(b"XREADGROUP") and asked.difference.expected in before:
        return asked.settled() if asked.difference.got.startswith(gone) else None
    return None


def deleted_id_kept(asked: Asked) -> str | None:
    """XSETID below the greatest deleted id: 7.0 looks only at the one that the command gives."""
    below = b"-ERR The ID specified in XSETID is smaller than current max_deleted_entry_id\r\n"
    if not asked.is_named(b"XSETID") or asked.difference.got != below:
        return None
    if asked.difference.expected == b"+OK\r\n":
        return APART
    # What comes after it in the order of checks.
    later = (
        b"-ERR The ID specified in XSETID is smaller than the target stream top item\r\n",
        b"-ERR The entries_added specified in XSETID is smaller than the target stream length\r\n",
    )
    return asked.settled() if asked.difference.expected in later else None


def counters(asked: Asked) -> str | None:
    """entries-read and lag of a group whose stream lost entries, or whose counters were set. In XINFO STREAM FULL,
    which says all that the lag follows from, it must follow."""
    name = asked.difference.path.rsplit("/", 1)[-1]
    is_info = asked.is_named(b"XINFO", b"GROUPS") or asked.is_named(b"XINFO", b"STREAM")
    if not is_info or name not in ("lag", "entries-read") or asked.command[2] not in asked.past.counted_anew:
        return None
    if not re.fullmatch(rb":\d+\r\n|\$-1\r\n|_\r\n", asked.difference.got):
        return None
    if name == "lag" and asked.is_named(b"XINFO", b"STREAM"):
        group = asked.got.items[asked.got.names.index(b"groups")].items[int(asked.difference.path.split("/")[2])]
        if not lag_follows(asked.got, group):
            return None
    return asked.settled()


def blocks(asked: Asked) -> str | None:
    """How many entries `~` removes from a stream that lost some before: nodes count them, blocks do not."""
    is_trim = asked.is_named(b"XTRIM") and asked.difference.expected[:1] == asked.difference.got[:1] == b":"
    return APART if is_trim and b"~" in asked.command and asked.command[1] in asked.past.counted_anew else None


ABOUT_NAMES = {b"KEYS", b"SCAN", b"DBSIZE"}


def names_after(asked: Asked) -> str | None:
    """What a transaction asks about names is answered as of its end."""
    name = asked.command[0].upper()
    if asked.transaction is None or name not in ABOUT_NAMES:
        return None
    if all(command[0].upper() in ABOUT_NAMES for command in asked.transaction):
        return None
    asked.got = asked.expected
    return EXPLAINED


NAME_REFUSED = re.compile(
    rb"-ERR (the name of a (stream|group|consumer) must be UTF-8 in Millstream"
    rb"|a stream name must not be empty|a name of \d+ bytes is longer than 1024)\r\n"
)


def names(asked: Asked) -> str | None:
    """A name that is none here: refused whatever the command is."""
    if not NAME_REFUSED.fullmatch(asked.difference.got) or asked.difference.path:
        return None
    if not any(is_odd_name(word) for word in asked.command[1:]):
        return None
    # Where Redis does something, the two are apart; where it refuses as well or finds nothing, they are not.
    nothing = (b":0\r\n", b"*0\r\n", b"$-1\r\n", b"*-1\r\n", b"_\r\n", b"+none\r\n")
    if asked.difference.expected.startswith(b"-") or asked.difference.expected in nothing:
        return asked.settled()
    return APART


def is_odd_name(word: bytes) -> bool:
    try:
        word.decode()
    except UnicodeDecodeError:
        return True
    return word == b"" or len(word) > 1024


OF_GROUPS = {b"XACK", b"XACKDEL", b"XGROUP", b"XREADGROUP", b"XCLAIM", b"XAUTOCLAIM", b"XSETID"}
DELETIONS = {b"DEL", b"UNLINK", b"FLUSHALL", b"FLUSHDB"}


def watch(asked: Asked) -> str | None:
    """A watched stream also changes by what groups do and by XSETID; made and deleted again, it does not."""
    null = (b"*-1\r\n", b"_\r\n")
    if not asked.is_named(b"EXEC") or asked.difference.path:
        return None
    happened = set().union(*asked.past.watched.values())
    if asked.difference.got in null and isinstance(asked.expected, Node) and happened & OF_GROUPS:
        return APART
    if asked.difference.expected in null and isinstance(asked.got, Node) and happened & DELETIONS:
        return APART
    return None


def stream_id(text: bytes | None) -> tuple[int, int]:
    ms, _, sequence = (text or b"0-0").partition(b"-")
    return int(ms), int(sequence)


def lag_follows(stream: Node, group: Node) -> bool:
    """Whether the lag is what Redis 8 makes of the counters beside it."""
    length, added = int(text_of(stream, b"length") or 0), int(text_of(stream, b"entries-added") or 0)
    last = stream_id(text_of(stream, b"last-generated-id"))
    deleted = stream_id(text_of(stream, b"max-deleted-entry-id"))
    first = stream_id(text_of(stream, b"recorded-first-entry-id"))
    at = stream_id(text_of(group, b"last-delivered-id"))
    read, lag = (text_of(group, name) for name in (b"entries-read", b"lag"))
    return (lag or None) == as_text(expected_lag(length, added, last, deleted, first, at, read))


def as_text(number_: int | None) -> bytes | None:
    return None if number_ is None else b"%d" % max(number_, 0)


Id = tuple[int, int]


def expected_lag(length: int, added: int, last: Id, deleted: Id, first: Id, at: Id, read: bytes | None) -> int | None:
    if added == 0 or length == 0:
        return 0
    if at < first and deleted < first:
        return length
    if read and not (deleted != (0, 0) and at <= deleted):
        return added - int(read)
    if at != (0, 0) and at < deleted:
        return None
    if at >= last:
        return 0 if at == last else None
    if deleted == (0, 0) or deleted < first:
        return {True: length, False: length - 1}[at < first] if at <= first else None
    return None


# No Redis does it.
NEVER = (1000,)

RULES = [
    Rule("idmp fields of XINFO STREAM", "XINFO STREAM idmp fields", (8, 6), idempotency_fields),
    Rule("nacked-count of XINFO STREAM FULL", "XINFO STREAM FULL nacked-count", (8, 8), released_count),
    Rule("active-time and inactive of XINFO", "XINFO CONSUMERS inactive", (7, 2), active_time),
    Rule("consumers that got nothing", "XINFO CONSUMERS inactive", (7, 2), consumers_made),
    Rule("readers woken by a deletion", "XREADGROUP BLOCK", (7, 2), woken_by_deletion),
    Rule("readers woken for nothing", "XREADGROUP BLOCK", (7, 2), woken_for_nothing),
    Rule("text of XADD ms-* without a number left", "XADD `ms-*`", (8, 2), sequence_exhausted),
    Rule("XREAD +", "XREAD `+`", (7, 4), last_entry),
    Rule("text of unbalanced lists", "XREAD `+`", (7, 4), unbalanced),
    Rule("XSETID below a deleted id", "XSETID", (7, 2), deleted_id_kept),
    Rule("names of streams, groups and consumers", "names of streams, groups and consumers", NEVER, names),
    Rule("what ~ removes after deletions", "XADD MAXLEN `~`", NEVER, blocks),
    Rule("names asked for in a transaction", "MULTI, EXEC", NEVER, names_after),
    Rule("what WATCH notices", "WATCH", NEVER, watch),
    Rule("entries-read and lag after deletions", "XINFO GROUPS entries-read, lag", (8, 3), counters),
]


def rules_for(version: Version) -> list[Rule]:
    """Those that hold when compared with a Redis of this version."""
    return [rule for rule in RULES if version < rule.since]


def missing_rows(pages: str) -> list[str]:
    """The rows that rules name and these pages do not have."""
    return [rule.row for rule in RULES if f"\n| {rule.row} |" not in pages]
