"""A plugin for pytest that lets fakeredis's own tests run against a server of our choice.

The tests marked `real` want a Redis at localhost:6390 and use its database 2. This sends them to MILLSTREAM_SERVER
(HOST:PORT) and to database 0, the only one that a node has; it changes nothing else. With MILLSTREAM_COMMANDS=FILE it
also writes down which commands each test sends: that is how tests.txt was made. MILLSTREAM_OUTCOMES=FILE gets a line
for each test, as check.py takes them.
"""

import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import redis
import redis.asyncio

WANTED_PORT = 6390
HOST, _, PORT = os.environ["MILLSTREAM_SERVER"].rpartition(":")

sent: dict[str, list[str]] = {}
now_running: list[str] = []
outcomes: dict[str, str] = {}


def redirected(make: Callable[..., None]) -> Callable[..., None]:
    def init(self: Any, *args: Any, **kwargs: Any) -> None:
        if kwargs.get("port") == WANTED_PORT:
            kwargs |= {"host": HOST, "port": int(PORT), "db": 0}
        make(self, *args, **kwargs)

    return init


def note(connection: Any, *args: Any) -> None:
    if now_running and args and connection.port == int(PORT):
        words = args[0].split() if isinstance(args[0], str) else [args[0]]
        name = (words[0].decode() if isinstance(words[0], bytes) else str(words[0])).upper()
        commands = sent.setdefault(now_running[0], [])
        if name not in commands:
            commands.append(name)


def noting_one(send: Callable[..., Any]) -> Callable[..., Any]:
    def send_command(self: Any, *args: Any, **kwargs: Any) -> Any:
        note(self, *args)
        return send(self, *args, **kwargs)

    return send_command


def noting_many(pack: Callable[..., Any]) -> Callable[..., Any]:
    def pack_commands(self: Any, commands: Any) -> Any:
        listed = list(commands)
        for args in listed:
            note(self, *args)
        return pack(self, listed)

    return pack_commands


for connection in (redis.Connection, redis.asyncio.Connection):
    setattr(connection, "__init__", redirected(connection.__init__))
    if "MILLSTREAM_COMMANDS" in os.environ:
        setattr(connection, "send_command", noting_one(connection.send_command))
        setattr(connection, "pack_commands", noting_many(connection.pack_commands))


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item: pytest.Item) -> Iterator[None]:
    now_running[:] = [item.nodeid]
    return (yield)


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    # One outcome for the three phases of a test: that of the call, unless another went wrong or skipped it.
    if report.when == "call" or report.outcome != "passed":
        has_failed = "failed" in (report.outcome, outcomes.get(report.nodeid))
        outcomes[report.nodeid] = "failed" if has_failed else report.outcome


def pytest_sessionfinish() -> None:
    if path := os.environ.get("MILLSTREAM_OUTCOMES"):
        Path(path).write_text("".join(f"{outcome} {name}\n" for name, outcome in outcomes.items()))
    if path := os.environ.get("MILLSTREAM_COMMANDS"):
        Path(path).write_text(json.dumps(sent, indent=1))
