"""What a sequence of commands is made of, and how it is written on the wire and for people."""

import random
import re
from dataclasses import dataclass, field

from resp import encode

# What a server made up: the id of the n-th `XADD *` of the sequence, and the number of the n-th connection. Each server
# is sent its own.
OWN = re.compile(rb"\{(auto|client):(\d+)\}")
MISSING = {b"auto": b"7-7", b"client": b"0"}
# What an inline command can hold without quotes.
PLAIN = re.compile(rb"^[A-Za-z0-9_$*+(<>=~.:-]+$")


@dataclass
class Made:
    """What one server has made up so far."""

    autos: list[bytes] = field(default_factory=list)
    clients: list[bytes] = field(default_factory=list)

    def of(self, found: re.Match[bytes]) -> bytes:
        kind, at = found.group(1), int(found.group(2))
        made = self.autos if kind == b"auto" else self.clients
        return made[at] if at < len(made) else MISSING[kind]


@dataclass
class Command:
    """One command. With `inline` it is sent as a line of text. With `wire` it is these bytes, which have no reply."""

    arguments: list[bytes]
    inline: bool = False
    wire: bytes | None = None

    def bytes_for(self, made: Made) -> bytes:
        """As it is sent to a server that made up this."""
        if self.wire is not None:
            return self.wire
        arguments = self.arguments_for(made)
        return quoted(arguments) + b"\r\n" if self.inline else encode(arguments)

    def arguments_for(self, made: Made) -> list[bytes]:
        return [OWN.sub(made.of, argument) for argument in self.arguments]

    def __str__(self) -> str:
        if self.wire is not None:
            return f"(bytes {self.wire!r})"
        text = quoted(self.arguments).decode("ascii")
        return f"(inline) {text}" if self.inline else text


@dataclass
class Pipeline:
    """Commands sent together on one connection, in pieces cut at these places."""

    commands: list[Command]
    connection: int = 0
    cuts: list[float] = field(default_factory=list)

    def pieces(self, data: bytes) -> list[bytes]:
        places = sorted(int(cut * len(data)) for cut in self.cuts)
        bounds = [0, *places, len(data)]
        return [data[a:b] for a, b in zip(bounds, bounds[1:]) if a < b]


@dataclass
class Overlap:
    """Commands that may block, one after the other on connections of their own, and what the first one does meanwhile.

    With `hangs_up`, those that wait are gone before that.
    """

    blocked: list[Command]
    commands: list[Command]
    hangs_up: bool = False


@dataclass
class Broken:
    """Bytes that are no request. The server answers whatever it likes, and must then close."""

    wire: bytes


Step = Pipeline | Overlap | Broken


def quoted(arguments: list[bytes]) -> bytes:
    """As redis-cli and inline commands take them; only ASCII."""
    return b" ".join(argument if PLAIN.match(argument) else quote(argument) for argument in arguments)


def quote(argument: bytes) -> bytes:
    def one(byte: int) -> bytes:
        if byte in b'"\\':
            return b"\\" + bytes([byte])
        return bytes([byte]) if 32 <= byte < 127 else b"\\x%02x" % byte

    return b'"' + b"".join(one(byte) for byte in argument) + b'"'


def describe(steps: list[Step]) -> list[str]:
    """A sequence as lines of text. What is not on the first connection says so."""
    lines: list[str] = []
    for step in steps:
        match step:
            case Pipeline():
                side = "" if step.connection == 0 else "(connection 2) "
                lines += [f"{side}{command}" for command in step.commands]
            case Overlap():
                does = "hangs up" if step.hangs_up else "meanwhile"
                lines += [f"(connection {at}, {does}) {command}" for at, command in enumerate(step.blocked, 2)]
                lines += [str(command) for command in step.commands]
            case Broken():
                lines.append(f"(bytes) {step.wire[:120]!r}")
    return lines


def cuts(chance: random.Random) -> list[float]:
    """Where a pipeline is cut: half of them nowhere."""
    return [chance.random() for _ in range(chance.choice((0, 0, 0, 1, 2, 4)))]
