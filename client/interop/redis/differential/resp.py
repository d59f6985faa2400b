"""A reader and a writer of RESP2 and RESP3 over a plain socket. The reader keeps the exact bytes of every reply."""

import socket
import time
from dataclasses import dataclass, field

# What stands for a reply when there is none. Neither can be the beginning of one.
CLOSED = b"<closed>"
SILENT = b"<no reply>"


@dataclass
class Reply:
    """A reply: its bytes, its type (the first of them), and for an aggregate what is in it."""

    raw: bytes
    kind: bytes
    items: list["Reply"] | None = None

    @property
    def is_error(self) -> bool:
        return self.kind in (b"-", b"!")

    @property
    def is_gone(self) -> bool:
        """Whether nothing more can come from this connection."""
        return self.raw in (CLOSED, SILENT)

    @property
    def text(self) -> bytes:
        """What a string, a number or an error says."""
        if self.kind in (b"$", b"=", b"!"):
            return self.raw.split(b"\r\n", 1)[1][:-2] if self.raw[1:2] != b"-" else b""
        return self.raw[1:-2]


def mark(raw: bytes) -> Reply:
    """A reply that is none: CLOSED or SILENT."""
    return Reply(raw, b"<")


def encode(arguments: list[bytes]) -> bytes:
    """A request as clients send it."""
    parts = [b"*%d\r\n" % len(arguments)]
    for argument in arguments:
        parts.append(b"$%d\r\n%s\r\n" % (len(argument), argument))
    return b"".join(parts)


@dataclass
class Connection:
    """One connection to a server."""

    host: str
    port: int
    wait_s: float = 5.0
    wire: socket.socket = field(init=False)
    buffer: bytearray = field(init=False, default_factory=bytearray)
    at: int = field(init=False, default=0)

    def __post_init__(self) -> None:
        self.wire = socket.create_connection((self.host, self.port), timeout=self.wait_s)
        self.wire.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def close(self) -> None:
        self.wire.close()

    def send(self, data: bytes) -> None:
        """Sends, if the other side still takes it: a reader finds out if not."""
        try:
            self.wire.sendall(data)
        except OSError:
            pass

    def ask(self, *arguments: bytes) -> Reply:
        self.send(encode(list(arguments)))
        return self.read()

    def read(self) -> Reply:
        """The next reply, or what stands for none."""
        try:
            return self._reply()
        except TimeoutError:
            return mark(SILENT)
        except (EOFError, OSError):
            return mark(CLOSED)

    def has_reply_within(self, seconds: float) -> bool:
        """Whether something has come, or comes in that time."""
        if self.at < len(self.buffer):
            return True
        deadline = time.monotonic() + seconds
        while True:
            self.wire.settimeout(max(deadline - time.monotonic(), 0.0005))
            try:
                self._fill()
                return True
            except TimeoutError:
                if time.monotonic() >= deadline:
                    return False
            except (EOFError, OSError):
                return True
            finally:
                self.wire.settimeout(self.wait_s)

    def read_to_end(self) -> bytes:
        """Whatever comes until the server closes, and CLOSED; or SILENT if it does not."""
        try:
            while True:
                self._fill()
        except TimeoutError:
            end = SILENT
        except (EOFError, OSError):
            end = CLOSED
        rest = bytes(self.buffer[self.at :])
        self.at = len(self.buffer)
        return rest + end

    def _fill(self) -> None:
        data = self.wire.recv(65536)
        if not data:
            raise EOFError
        self.buffer += data

    def _take(self, length: int) -> bytes:
        while len(self.buffer) - self.at < length:
            self._fill()
        taken = bytes(self.buffer[self.at : self.at + length])
        self.at += length
        return taken

    def _line(self) -> bytes:
        while (end := self.buffer.find(b"\r\n", self.at)) < 0:
            self._fill()
        return self._take(end + 2 - self.at)

    def _reply(self) -> Reply:
        if self.at > 1 << 16 and self.at == len(self.buffer):
            self.buffer.clear()
            self.at = 0
        line = self._line()
        kind = line[:1]
        if kind in (b"$", b"=", b"!"):
            length = int(line[1:-2])
            return Reply(line if length < 0 else line + self._take(length + 2), kind)
        if kind in (b"*", b"~", b">", b"%", b"|"):
            count = int(line[1:-2])
            if count < 0:
                return Reply(line, kind)
            items = [self._reply() for _ in range(count * 2 if kind in (b"%", b"|") else count)]
            return Reply(line + b"".join(item.raw for item in items), kind, items)
        return Reply(line, kind)
