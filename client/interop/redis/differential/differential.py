"""Sends the same random commands to a Redis 7.0 and to another server, and compares the replies byte for byte.

Started by run.sh beside this file. The same --seed makes the same sequences. Prints each kind of difference once, with
the shortest sequence found that shows it, and at the end what was compared. Fails if there is a difference that
stated.py does not know.
"""

import argparse
import random
import sys
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

import stated
from generate import Sequence
from plants import PLANTS
from resp import Connection
from session import Found, Sides, Tally, printed
from shrink import shrink
from steps import Step, describe

PAGES = [Path(__file__).resolve().parents[4] / "docs" / name for name in ("conformance.md", "redis.md")]


@dataclass
class Kind:
    """A kind of difference: the first one found, and the sequence that shows it."""

    found: Found
    sequence: int
    lines: list[str]
    times: int = 1


@dataclass
class Run:
    """What one run has found."""

    tally: Tally = field(default_factory=Tally)
    kinds: dict[str, Kind] = field(default_factory=dict)
    sequences: int = 0


def address(text: str) -> tuple[str, int]:
    host, _, port = text.rpartition(":")
    return host or "127.0.0.1", int(port)


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--redis", type=address, required=True, help="HOST:PORT of a Redis 7.0")
    parser.add_argument(
        "--against",
        type=lambda text: [address(one) for one in text.split(",")],
        required=True,
        help="HOST:PORT of the other server; with HOST:PORT,HOST:PORT the second connection goes to another node of it",
    )
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--first", type=int, default=0, help="the first sequence (0)")
    parser.add_argument("--sequences", type=int, default=1_000_000_000, help="how many (until the time is over)")
    parser.add_argument("--commands", type=int, default=60, help="in each sequence, about (60)")
    parser.add_argument("--seconds", type=float, default=60, help="the run ends after this time (60)")
    parser.add_argument("--kinds", type=int, default=40, help="stop after so many kinds of difference (40)")
    parser.add_argument("--shrink-seconds", type=float, default=8, help="for each kind of difference (8)")
    parser.add_argument("--report", type=Path, help="also write the differences here, the most frequent first")
    parser.add_argument("--plant", choices=sorted(PLANTS), help="falsify replies of the other server")
    return parser.parse_args()


def sequence(options: argparse.Namespace, number: int, version: stated.Version, has_strings: bool) -> list[Step]:
    chance = random.Random(f"{options.seed}:{number}")
    made = Sequence(chance, version, has_strings, is_one_node=len(options.against) == 1)
    return made.make(options.commands)


def both_have_strings(addresses: list[tuple[str, int]]) -> bool:
    """Whether keys of another type can be made, for WRONGTYPE."""
    for where in addresses:
        connection = Connection(*where)
        answer = connection.ask(b"SET", b"differential", b"v").raw
        connection.ask(b"DEL", b"differential")
        connection.close()
        if answer != b"+OK\r\n":
            return False
    return True


def version_of(where: tuple[str, int]) -> stated.Version:
    """Which Redis it is."""
    connection = Connection(*where)
    info = connection.ask(b"INFO", b"server").raw
    connection.close()
    return tuple(int(part) for part in info.split(b"redis_version:")[1].split(b"\r\n")[0].split(b"."))


def explore(options: argparse.Namespace, sides: Sides, version: stated.Version, has_strings: bool) -> Run:
    run = Run()
    deadline = time.monotonic() + options.seconds
    for number in range(options.first, options.first + options.sequences):
        if time.monotonic() >= deadline or len(run.kinds) >= options.kinds:
            break
        steps = sequence(options, number, version, has_strings)
        run.sequences += 1
        found = sides.run(steps, run.tally)
        if found is None:
            continue
        signature = found.signature
        if known := run.kinds.get(signature):
            known.times += 1
            continue

        def shows(shorter: list[Step]) -> bool:
            again = sides.run(shorter, Tally())
            return again is not None and again.signature == signature

        began = time.monotonic()
        shortest = shrink(steps, shows, options.shrink_seconds)
        deadline += time.monotonic() - began
        last = sides.run(shortest, Tally())
        lines = describe(shortest)
        if last is None:
            lines = [f"(not seen again, a matter of time; the last of {len(lines)} commands:)", *lines[-5:]]
        run.kinds[signature] = Kind(last or found, number, lines)
        print("\n".join(told(run.kinds[signature])), flush=True)
    return run


def told(kind: Kind) -> list[str]:
    found = kind.found
    asked = " ".join(repr(word)[2:-1] or "''" for word in found.command)
    return [
        f"\ndifference (sequence {kind.sequence}): {asked} at {found.difference.path or '/'}",
        *(f"  | {line}" for line in kind.lines),
        f"  where: {printed(found.difference.expected, 200)} | {printed(found.difference.got, 200)}",
        f"  redis: {found.expected}",
        f"  other: {found.got}",
    ]


def summary(run: Run, sides: Sides, has_strings: bool) -> list[str]:
    tally = run.tally
    rows = [f"  {count:8} {tally.refused[name]:8}  {name}" for name, count in sorted(tally.compared.items())]
    used = [f"  {tally.used[rule.name]:8}  {rule.name}" for rule in sides.rules]
    differences = sum(kind.times for kind in run.kinds.values())
    lines = ["", "commands compared, and how many of them Redis refused:", *rows]
    lines += ["stated differences met (stated.py):", *used]
    if not has_strings:
        lines.append("WRONGTYPE was not compared: not both servers have SET")
    lines.append(
        f"{run.sequences} sequences, {sum(tally.compared.values())} commands compared, {len(tally.replies)} distinct "
        f"replies, {len(tally.errors)} distinct errors; {differences} differences of {len(run.kinds)} kinds"
    )
    return lines


def report(run: Run) -> str:
    kinds = sorted(run.kinds.values(), key=lambda kind: -kind.times)
    return "".join(f"{kind.times} times\n" + "\n".join(told(kind)[1:]) + "\n\n" for kind in kinds)


def main() -> int:
    options = arguments()
    if rows := stated.missing_rows("".join(page.read_text() for page in PAGES if page.exists())):
        print(f"stated.py names rows that no table in docs has: {', '.join(rows)}", file=sys.stderr)
        return 2
    addresses = [[options.redis], options.against]
    has_strings = both_have_strings([options.redis, options.against[0]])
    version = version_of(options.redis)
    sides = Sides(addresses, stated.rules_for(version), PLANTS[options.plant] if options.plant else None)
    try:
        run = explore(options, sides, version, has_strings)
    finally:
        sides.close()
    print("\n".join(summary(run, sides, has_strings)))
    if options.report:
        options.report.write_text(report(run))
    if run.kinds:
        frequent = Counter({signature: kind.times for signature, kind in run.kinds.items()})
        print("\n".join(f"  {times:6}  {signature}" for signature, times in frequent.most_common()))
        print(f"again: --seed {options.seed} --first N --sequences 1, with N as above")
    return 1 if run.kinds else 0


if __name__ == "__main__":
    sys.exit(main())
