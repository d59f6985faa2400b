"""What the programs of this folder share: cases and their outcome, the words with run.sh about the leader's end, and
the account of what was acknowledged."""

import argparse
import json
import sys
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

# Errors that say "not now": the command may be sent again. UNKNOWN says that the outcome is open, so sending again may
# double an entry; these programs do, and count.
RETRYABLE_CODES = ("TRYAGAIN", "CLUSTERDOWN", "LOADING", "READONLY", "MASTERDOWN", "UNKNOWN", "UNBLOCKED")
# Until a program must have come through the leader's end.
FAILOVER_SECONDS = 60
# How many numbers a producer goes on for after the leader is back.
APPENDS_AFTER = 100
# How long consumers wait, by their turn: some are at the leader's door, and some wait through its end at another.
BLOCK_MS = {0: 300, 2: 2000}


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    parser.add_argument("--addresses", required=True, help="host:port of each door, with commas; the leader's first")
    parser.add_argument("--protocol", type=int, choices=(2, 3), required=True)
    parser.add_argument("--part", choices=("plain", "failover"), required=True)
    parser.add_argument("--fault-dir", type=Path, help="where run.sh and the program tell each other how far they are")
    parsed = parser.parse_args()
    parsed.addresses = [(host, int(port)) for host, port in (a.rsplit(":", 1) for a in parsed.addresses.split(","))]
    parsed.address = lambda turn: parsed.addresses[turn % len(parsed.addresses)]
    return parsed


def equal(got: object, expected: object, what: str) -> None:
    if got != expected:
        raise AssertionError(f"{what}: expected {expected!r}, got {got!r}")


def holds(condition: object, what: str) -> None:
    if not condition:
        raise AssertionError(what)


def fields_of(reply: dict, *names: str) -> dict:
    """The named fields of a reply, so that newer servers may say more."""
    return {name: reply[name] for name in names if name in reply}


@dataclass
class Report:
    """Counts cases, and says how they went in the form that run.sh reads."""

    client: str
    version: str
    protocol: int
    part: str
    passed: int = 0
    failed: int = 0

    def run(self, name: str | None, case: Callable[[], object]) -> None:
        """Runs a case; without a name, what is to report cases of its own."""
        try:
            case()
            if name:
                self.ok(name)
        except Exception as error:  # noqa: BLE001 - it goes into the report
            self.failure(name or self.part, error)

    def ok(self, name: str) -> None:
        self.passed += 1
        print(f"ok {name}", flush=True)

    def failure(self, name: str, error: BaseException) -> None:
        self.failed += 1
        where = traceback.extract_tb(error.__traceback__)
        lines = " < ".join(f"{Path(frame.filename).name}:{frame.lineno}" for frame in reversed(where[-3:]))
        print(f"FAILED {name}: {type(error).__name__}: {error} ({lines})", flush=True)

    def end(self) -> None:
        print(f"result|{self.client}|{self.version}|RESP{self.protocol}|{self.part}|{self.passed}|{self.failed}")
        sys.exit(0 if self.failed == 0 else 1)


class Faults:
    """run.sh kills the leader once `progress` is high enough, writes `killed`, starts it again, writes `restored`; both
    hold the time in ms."""

    def __init__(self, folder: Path):
        self.folder = folder

    def progress(self, count: int) -> None:
        (self.folder / "progress").write_text(str(count))

    def at(self, name: str) -> int | None:
        try:
            return int((self.folder / name).read_text())
        except (FileNotFoundError, ValueError):
            return None


@dataclass
class Account:
    """Which numbers were appended, under which ids, and which of the calls may have been sent twice."""

    faults: Faults
    acknowledged: dict[int, str] = field(default_factory=dict)
    spans: dict[int, tuple[int, int]] = field(default_factory=dict)
    handled: dict[str, set[str]] = field(default_factory=dict)
    restored_from: dict[str, int] = field(default_factory=dict)
    resent: int = 0
    deadline: float = field(default_factory=lambda: time.monotonic() + FAILOVER_SECONDS)

    def appended(self, producer: str, number: int, entry_id: str, began_ms: int) -> None:
        holds(number not in self.acknowledged, f"{number} is acknowledged once")
        self.acknowledged[number] = entry_id
        self.spans[number] = (began_ms, now_ms())
        if len(self.acknowledged) % 20 == 0:
            self.faults.progress(len(self.acknowledged))
        if producer not in self.restored_from and self.faults.at("restored"):
            self.restored_from[producer] = number

    def producer_done(self, producer: str, number: int) -> bool:
        """Whether a producer has appended enough after the leader came back."""
        holds(time.monotonic() < self.deadline, f"{producer} came through within {FAILOVER_SECONDS} s")
        return producer in self.restored_from and self.restored_from[producer] + APPENDS_AFTER <= number

    def verify(self, report: Report, entries: list[tuple[str, int]], groups: dict[str, dict]) -> None:
        """`entries`: id and number of each entry of the stream; `groups`: what XINFO GROUPS and XPENDING say."""
        killed, restored = self.faults.at("killed"), self.faults.at("restored")

        def through_the_fault() -> None:
            holds(killed and restored, "the leader was killed and started again")
            began = [span[0] for span in self.spans.values()]
            holds(min(began) < killed and restored < max(began), "appends began before and after it")

        def none_lost() -> None:
            there = dict(entries)
            lost = [n for n, entry_id in self.acknowledged.items() if there.get(entry_id) != n]
            equal(lost, [], "acknowledged numbers that are not at their id")
            for turn in (0, 1):
                ids = [id_of(self.acknowledged[number]) for number in sorted(self.acknowledged) if number % 2 == turn]
                holds(
                    all(low < high for low, high in zip(ids, ids[1:])), "what a producer appends later has a higher id"
                )

        def doubled_only_by_the_fault() -> None:
            ids: dict[int, list[str]] = {}
            for entry_id, number in entries:
                ids.setdefault(number, []).append(entry_id)
            holds(set(ids) == set(self.acknowledged), "the stream holds no other numbers")
            doubled = [number for number, of_it in ids.items() if 1 < len(of_it)]
            for number in doubled:
                began, ended = self.spans[number]
                holds(began <= restored + 5000 and killed - 100 <= ended, f"{number} was doubled far from the fault")
            print(f"     {len(self.acknowledged)} acknowledged, {len(entries)} in the stream, {len(doubled)} doubled")
            # Even numbers went by way of the door that ended, odd ones by way of another, if there is one.
            for turn, door in enumerate(("the leader's door", "another door")):
                longest = max(ended - began for n, (began, ended) in self.spans.items() if n % 2 == turn)
                times = sum(number % 2 == turn for number in doubled)
                print(f"       by way of {door}: {times} doubled, the longest append took {longest} ms")

        def groups_handled_all() -> None:
            everything = {entry_id for entry_id, _ in entries}
            for group, state in groups.items():
                missing = everything - self.handled[group]
                equal(sorted(missing)[:5], [], f"ids that group {group} has not handled ({len(missing)} in all)")
                equal(state, {"pending": 0, "lag": 0}, f"what is left for group {group}")

        report.run("failover-happened", through_the_fault)
        report.run("failover-none-lost", none_lost)
        report.run("failover-doubled", doubled_only_by_the_fault)
        report.run("failover-groups", groups_handled_all)


def id_of(text: str) -> tuple[int, int]:
    ms, seq = text.split("-")
    return int(ms), int(seq)


def now_ms() -> int:
    return int(time.time() * 1000)


def order(number: int, status: str = "created") -> str:
    customer = ["Zoë", "Björn", "李雷", "O'Neil"][number % 4]
    return json.dumps(
        {"orderId": f"order-{number}", "customer": customer, "total": number * 10 + 0.5, "status": status}
    )
