"""Whether two replies to the same command are the same, byte for byte.

Bytes that the server makes up cannot be. They are known by their place and their name, never by the whole reply:

- ids of `XADD *`: the two are taken for each other from then on (Pairs), if both are of about now;
- times (`idle` of XINFO, the time columns of XPENDING and XINFO STREAM FULL): may lie TIME_MS apart;
- `radix-tree-keys` and `radix-tree-nodes` of XINFO STREAM, `id`, `version` and `modules` of HELLO, the id of CLIENT ID:
  the type is compared, the value not;
- the order of KEYS and SCAN, which Redis leaves open, and of the flags in COMMAND INFO, which are a set; what follows
  the position of the keys in COMMAND INFO (ACL categories, tips) is left out.
"""

import time
from dataclasses import dataclass, field

from resp import Reply

TIME_MS = 1500
AUTO_MS = 5000

TIMES = {b"idle", b"inactive", b"seen-time", b"active-time"}
DETAILS = {b"radix-tree-keys", b"radix-tree-nodes"}


@dataclass
class Leaf:
    """Compared as bytes (`exact`), as a time, by type alone (`detail`), or not at all (`open`)."""

    how: str
    reply: Reply


@dataclass
class Node:
    """An array, set or map. With names (`names[i]` is that of `items[i]`) if it holds pairs that are known by name."""

    kind: bytes
    items: list["View"]
    names: list[bytes] | None = None


View = Leaf | Node


@dataclass
class Pairs:
    """Which id of one server is which of the other, for ids that they made up. One may be several, in other streams."""

    known: set[tuple[bytes, bytes]] = field(default_factory=set)

    def learn(self, a: bytes, b: bytes) -> bool:
        """Takes two ids for each other if both are of about now. Whether they are the same."""
        if a == b:
            return True
        now = time.time() * 1000
        for made in (a, b):
            ms = made.split(b"-")[0]
            if not ms.isdigit() or abs(int(ms) - now) > AUTO_MS:
                return False
        self.known.add((a, b))
        return True

    def same(self, a: bytes, b: bytes) -> bool:
        return (a, b) in self.known


@dataclass
class Difference:
    """The first place where two replies differ: how to get there, and what is there."""

    path: str
    expected: bytes
    got: bytes
    leaves: tuple[Leaf, Leaf] | None = None

    def settle(self) -> bool:
        """Leaves this place out of the comparison from now on. Only single values can be."""
        for leaf in self.leaves or ():
            leaf.how = "open"
        return self.leaves is not None


def exact(reply: Reply) -> View:
    if reply.items is None:
        return Leaf("exact", reply)
    return Node(reply.kind, [exact(item) for item in reply.items])


def view(command: list[bytes], reply: Reply) -> View:
    """What of a reply to this command is compared, and how."""
    words = [word.upper() for word in command[:3]]
    name = words[0] if words else b""
    if reply.items is None:
        if words[:2] == [b"CLIENT", b"ID"] and reply.kind == b":":
            return Leaf("detail", reply)
        return exact(reply)
    if name == b"XPENDING":
        return rows(reply, 2) if len(command) > 3 else exact(reply)
    if words[:2] == [b"XINFO", b"STREAM"]:
        return pairs(reply)
    if words[:2] in ([b"XINFO", b"GROUPS"], [b"XINFO", b"CONSUMERS"]):
        return Node(reply.kind, [pairs(item) for item in reply.items])
    if name == b"HELLO":
        return pairs(reply, {b"id", b"version", b"modules"})
    if name == b"KEYS":
        return unordered(reply)
    if name == b"SCAN" and len(reply.items) == 2:
        return Node(reply.kind, [exact(reply.items[0]), unordered(reply.items[1])])
    if words[:2] == [b"COMMAND", b"INFO"]:
        return Node(reply.kind, [described(item) for item in reply.items])
    return exact(reply)


def rows(reply: Reply, column: int) -> View:
    """Rows with a time in one column."""
    if reply.items is None:
        return exact(reply)
    listed: list[View] = []
    for row in reply.items:
        if row.items is None:
            listed.append(exact(row))
            continue
        cells = [Leaf("time", cell) if at == column else exact(cell) for at, cell in enumerate(row.items)]
        listed.append(Node(row.kind, cells))
    return Node(reply.kind, listed)


def pairs(reply: Reply, details: set[bytes] = DETAILS) -> View:
    """Names and values, as XINFO answers them, down to the groups and consumers of a stream."""
    if reply.items is None or len(reply.items) % 2:
        return exact(reply)
    names = [item.text for item in reply.items[::2]]
    values: list[View] = []
    for name, key, value in zip(names, reply.items[::2], reply.items[1::2]):
        if key.kind != b"$":
            return exact(reply)
        if name in details:
            values.append(Leaf("detail", value))
        elif name in TIMES:
            values.append(Leaf("time", value))
        elif name == b"pending" and value.items is not None:
            # Of a group: id, consumer, time, count. Of a consumer: id, time, count.
            values.append(rows(value, 1 if b"seen-time" in names else 2))
        elif name in (b"groups", b"consumers") and value.items is not None:
            values.append(Node(value.kind, [pairs(item) for item in value.items]))
        else:
            values.append(exact(value))
    return Node(reply.kind, values, names)


def unordered(reply: Reply) -> View:
    if reply.items is None:
        return exact(reply)
    return Node(reply.kind, [exact(item) for item in sorted(reply.items, key=lambda item: item.raw)])


def described(reply: Reply) -> View:
    """An item of COMMAND INFO: name, arity, flags, first key, last key, step."""
    if reply.items is None or len(reply.items) < 6:
        return exact(reply)
    first = [unordered(item) if at == 2 else exact(item) for at, item in enumerate(reply.items[:6])]
    return Node(reply.kind, first + [Leaf("open", item) for item in reply.items[6:]])


def find_difference(a: View, b: View, ids: Pairs, path: str = "") -> Difference | None:
    """The first place where two views differ."""
    if isinstance(a, Leaf) and isinstance(b, Leaf):
        return None if leaves_agree(a, b, ids) else Difference(path, a.reply.raw, b.reply.raw, (a, b))
    if isinstance(a, Leaf) or isinstance(b, Leaf) or a.kind != b.kind:
        return Difference(path, shown(a), shown(b))
    if a.names != b.names:
        return Difference(path, b" ".join(a.names or []), b" ".join(b.names or []))
    for at, (left, right) in enumerate(zip(a.items, b.items)):
        step = a.names[at].decode(errors="replace") if a.names else str(at)
        if found := find_difference(left, right, ids, f"{path}/{step}"):
            return found
    if len(a.items) != len(b.items):
        return Difference(f"{path}/length", b"%d: " % len(a.items) + shown(a), b"%d: " % len(b.items) + shown(b))
    return None


def leaves_agree(a: Leaf, b: Leaf, ids: Pairs) -> bool:
    if b.how == "open" or a.reply.raw == b.reply.raw:
        return True
    if a.reply.kind != b.reply.kind:
        return False
    if a.how == "detail":
        return True
    if a.how == "time" and a.reply.kind == b":":
        left, right = int(a.reply.text), int(b.reply.text)
        # -1 is "never", not a time.
        return min(left, right) >= 0 and abs(left - right) <= TIME_MS
    return a.reply.kind == b"$" and ids.same(a.reply.text, b.reply.text)


def shown(of: View) -> bytes:
    """A view as bytes, for people."""
    if isinstance(of, Leaf):
        return of.reply.raw
    inner = b" ".join(
        (of.names[at] + b"=" if of.names else b"") + shown(item).strip() for at, item in enumerate(of.items)
    )
    return of.kind + b"[" + inner + b"]"
