"""Runs one sequence against both servers and finds the first reply in which they differ."""

import re
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field

from compare import Difference, Pairs, find_difference, view
from resp import Connection, Reply
from stated import APART, Asked, Past, Rule
from steps import Broken, Command, Made, Overlap, Pipeline, Step
from words import STREAM_COMMANDS

# Changes the replies of the second server, to see that this is found.
Plant = Callable[[list[bytes], Reply], Reply]

CONNECTIONS = 3

CONTAINERS = {b"XGROUP", b"XINFO", b"CLIENT", b"COMMAND", b"OBJECT", b"CONFIG"}
KNOWN = set(STREAM_COMMANDS) | CONTAINERS
KNOWN |= {b"PING", b"ECHO", b"SELECT", b"HELLO", b"AUTH", b"RESET", b"QUIT", b"MULTI", b"EXEC", b"DISCARD", b"WATCH"}
KNOWN |= {b"UNWATCH", b"DEL", b"UNLINK", b"EXISTS", b"TYPE", b"DBSIZE", b"KEYS", b"SCAN", b"FLUSHALL", b"FLUSHDB"}
KNOWN |= {b"SET", b"GET", b"XDELEX", b"XACKDEL"}
SUBCOMMANDS = {b"CREATE", b"SETID", b"DESTROY", b"CREATECONSUMER", b"DELCONSUMER", b"STREAM", b"GROUPS", b"CONSUMERS"}
SUBCOMMANDS |= {b"ENCODING", b"SETNAME", b"GETNAME", b"ID", b"INFO", b"GETKEYS", b"UNBLOCK", b"KILL"}
SUBCOMMANDS |= {b"REPLY", b"NO-EVICT"}


def name_of(command: list[bytes]) -> str:
    """The command and its subcommand, for counting."""
    words = [word.upper() for word in command[:2]]
    if not words or words[0] not in KNOWN:
        return "(unknown)"
    if words[0] in CONTAINERS:
        sub = words[1] if len(words) > 1 and words[1] in SUBCOMMANDS else b"(unknown)"
        return (words[0] + b" " + sub).decode()
    return words[0].decode()


@dataclass
class Tally:
    """What a run has compared."""

    compared: Counter[str] = field(default_factory=Counter)
    refused: Counter[str] = field(default_factory=Counter)
    used: Counter[str] = field(default_factory=Counter)
    replies: set[bytes] = field(default_factory=set)
    errors: set[bytes] = field(default_factory=set)


@dataclass
class Found:
    """A command that the servers answered differently."""

    command: list[bytes]
    difference: Difference
    expected: str
    got: str

    @property
    def signature(self) -> str:
        """What it has in common with others of its kind."""
        path = re.sub(r"/\d+", "/*", self.difference.path)
        name = name_of(self.command) if self.command else "(bytes)"
        return f"{name} {path}: {general(self.difference.expected)} | {general(self.difference.got)}"


def general(reply: bytes) -> str:
    """A reply without its numbers and names."""
    if reply[1:2] == b"[":
        return "several values"
    text = repr(reply[:160])[2:-1].replace("\\r\\n", " ").strip()
    text = re.sub(r"'[^']*'", "'..'", text)
    return re.sub(r"\d+", "N", text)


def printed(raw: bytes, limit: int = 400) -> str:
    text = repr(raw)[2:-1]
    return text if len(text) <= limit else f"{text[:limit]}... ({len(raw)} bytes)"


class Sides:
    """The two servers, and a connection to each of their nodes besides those of the sequences."""

    def __init__(self, addresses: list[list[tuple[str, int]]], rules: list[Rule], plant: Plant | None) -> None:
        """`addresses` has for each server its nodes: the connections go to one after the other."""
        self.addresses = addresses
        self.rules = rules
        self.plant = plant
        self.control = [[Connection(*node) for node in nodes] for nodes in addresses]

    def close(self) -> None:
        for connection in self.control[0] + self.control[1]:
            connection.close()

    def run(self, steps: list[Step], tally: Tally) -> Found | None:
        for control in self.control:
            control[-1].ask(b"FLUSHALL")
        run = Run(self, tally)
        try:
            for step in steps:
                found = run.step(step)
                if found or run.is_over:
                    return found
            return None
        finally:
            run.close()


class Run:
    """One sequence on its way."""

    def __init__(self, sides: Sides, tally: Tally) -> None:
        self.sides = sides
        self.tally = tally
        self.connections = [self.connect(at) for at in range(CONNECTIONS)]
        self.queued: list[list[list[bytes]]] = [[] for _ in range(CONNECTIONS)]
        self.pairs = Pairs()
        self.past = Past()
        self.made = [Made(clients=[b"0"] * CONNECTIONS) for _ in range(2)]
        self.is_over = False
        for at in range(CONNECTIONS):
            self.ask_number(at)

    def connect(self, at: int) -> list[Connection]:
        """A connection to each server."""
        return [Connection(*nodes[at % len(nodes)]) for nodes in self.sides.addresses]

    def close(self) -> None:
        for both in self.connections:
            for connection in both:
                connection.close()

    def step(self, step: Step) -> Found | None:
        match step:
            case Pipeline():
                return self.pipeline(step)
            case Overlap():
                return self.overlap(step)
            case Broken():
                return self.broken(step)

    def pipeline(self, step: Pipeline) -> Found | None:
        both = self.connections[step.connection]
        for side, connection in enumerate(both):
            data = b"".join(command.bytes_for(self.made[side]) for command in step.commands)
            for at, piece in enumerate(step.pieces(data)):
                if at > 0:
                    time.sleep(0.0003)
                connection.send(piece)
        answered = [command for command in step.commands if command.wire is None]
        for at, command in enumerate(answered):
            found = self.replies(command, step.connection)
            if found or self.is_over:
                self.drain(len(answered) - at - 1, step.connection)
                return found
        return None

    def drain(self, replies: int, connection: int) -> None:
        """Waits for the rest of a pipeline: what is still on its way would disturb the next sequence."""
        for side in self.connections[connection]:
            for _ in range(replies):
                if side.read().is_gone:
                    break

    def overlap(self, step: Overlap) -> Found | None:
        waiting: list[list[int]] = [[], []]
        for at, command in enumerate(step.blocked, 1):
            self.past.note(command.arguments)
            for side, connection in enumerate(self.connections[at]):
                connection.send(command.bytes_for(self.made[side]))
            for side in range(2):
                self.await_blocked(side, at, waiting[side])
        if step.hangs_up:
            self.hang_up(len(step.blocked))
        # One at a time: in a pipeline it would be up to the server whether it serves readers between two commands.
        for command in step.commands:
            found = self.pipeline(Pipeline([command]))
            if found or self.is_over:
                return found
            if not step.hangs_up:
                self.settle(len(step.blocked))
        for at, command in enumerate(step.blocked, 1):
            if not step.hangs_up and (found := self.replies(command, at)):
                return found
        return None

    def settle(self, count: int) -> None:
        """Waits until the second server has answered those readers that Redis has.

        Redis does so before it goes on with anything else; when another does is its own affair.
        """
        for at in range(1, count + 1):
            expected, got = self.connections[at]
            if expected.has_reply_within(0.002):
                got.has_reply_within(1.0)

    def ask_number(self, at: int) -> None:
        """Learns which client a connection is to each server."""
        for side, connection in enumerate(self.connections[at]):
            self.made[side].clients[at] = connection.ask(b"CLIENT", b"ID").text

    def blocked_clients(self, side: int, at: int) -> int:
        """How many clients wait at the node that has this connection."""
        control = self.sides.control[side]
        info = control[at % len(control)].ask(b"INFO", b"clients").raw
        found = re.search(rb"\r\nblocked_clients:(\d+)\r\n", info)
        return int(found.group(1)) if found else 0

    def await_blocked(self, side: int, at: int, waiting: list[int]) -> None:
        """Returns when the server has said twice that this one waits as well, or has answered it."""
        nodes = len(self.sides.addresses[side])
        here = [other for other in waiting if other % nodes == at % nodes]
        deadline = time.monotonic() + 0.15
        said = 0
        while said < 2 and time.monotonic() < deadline:
            if self.connections[at][side].has_reply_within(0.004):
                return
            said += self.blocked_clients(side, at) == len(here) + 1
        waiting.append(at)

    def hang_up(self, count: int) -> None:
        """Gives the connections after the first a new life, and returns when the servers have noticed."""
        for at in range(1, count + 1):
            for connection in self.connections[at]:
                connection.close()
            self.connections[at] = self.connect(at)
            self.queued[at] = []
            self.ask_number(at)
        deadline = time.monotonic() + 0.15
        for side in range(2):
            for at in range(1, count + 1):
                while self.blocked_clients(side, at) and time.monotonic() < deadline:
                    time.sleep(0.002)

    def broken(self, step: Broken) -> Found | None:
        ends: list[bytes] = []
        for connection in self.connections[0]:
            connection.send(step.wire)
            connection.wait_s = 1.0
            connection.wire.settimeout(1.0)
            ends.append(connection.read_to_end())
        self.tally.compared["(no request)"] += 1
        self.tally.replies.add(ends[0])
        self.is_over = True
        if ends[0] == ends[1]:
            return None
        return Found([], Difference("", ends[0], ends[1]), printed(ends[0]), printed(ends[1]))

    def replies(self, command: Command, connection: int) -> Found | None:
        """Reads both replies to a command and compares them."""
        expected, got = (side.read() for side in self.connections[connection])
        arguments = command.arguments_for(self.made[0])
        if self.sides.plant and not got.is_gone:
            got = self.sides.plant(arguments, got)
        self.learn(arguments, expected, got, connection)
        self.past.note(arguments)
        found = self.differ(arguments, expected, got, connection)
        if not found and not self.is_over:
            self.tally.compared[name_of(arguments)] += 1
            self.tally.replies.add(expected.raw)
            if expected.is_error:
                self.tally.refused[name_of(arguments)] += 1
                self.tally.errors.add(expected.raw)
        if expected.is_gone or got.is_gone:
            self.is_over = True
        self.remember(arguments, expected, connection)
        self.past.note_done(arguments)
        return found

    def learn(self, command: list[bytes], expected: Reply, got: Reply, connection: int) -> None:
        """Takes ids that the servers made up for each other."""
        if expected.items is not None and got.items is not None and command[0].upper() == b"EXEC":
            for inner, left, right in zip(self.queued[connection], expected.items, got.items):
                self.learn(inner, left, right, connection)
        elif command[:1] and command[0].upper() == b"XADD" and b"*" in command:
            if expected.kind == got.kind == b"$" and self.pairs.learn(expected.text, got.text):
                self.made[0].autos.append(expected.text)
                self.made[1].autos.append(got.text)

    def remember(self, command: list[bytes], expected: Reply, connection: int) -> None:
        """Keeps the commands of a transaction, to know what its replies belong to."""
        name = command[0].upper() if command else b""
        if expected.raw == b"+QUEUED\r\n":
            self.queued[connection].append(command)
        elif name in (b"EXEC", b"DISCARD", b"RESET") and not expected.raw.startswith(b"-ERR"):
            self.queued[connection] = []

    def differ(
        self,
        command: list[bytes],
        expected: Reply,
        got: Reply,
        connection: int,
        transaction: list[list[bytes]] | None = None,
    ) -> Found | None:
        if expected.raw == got.raw:
            return None
        if command and command[0].upper() == b"EXEC" and expected.items is not None and got.items is not None:
            inner = self.queued[connection]
            if len(inner) == len(expected.items) == len(got.items):
                for one, left, right in zip(inner, expected.items, got.items):
                    if found := self.differ(one, left, right, connection, inner):
                        return found
                    if self.is_over:
                        return None
                return None
        views = view(command, expected), view(command, got)
        asked = Asked(command, *views, Difference("", b"", b""), self.past, transaction)
        while difference := find_difference(asked.expected, asked.got, self.pairs):
            asked.difference = difference
            for rule in self.sides.rules:
                outcome = rule.apply(asked)
                if outcome:
                    self.tally.used[rule.name] += 1
                    break
            else:
                return Found(command, difference, printed(expected.raw), printed(got.raw))
            if outcome == APART:
                self.is_over = True
                return None
        return None
