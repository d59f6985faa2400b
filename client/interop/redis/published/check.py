"""Holds the outcomes of a published suite to a list of expected failures.

The list has one test a line, `#` and the reason behind it; a `*` stands for any characters. The outcomes are lines
`passed NAME`, `failed NAME` or `skipped NAME`. Fails if a test fails that is not listed, if a listed one passes, and if
a line of the list matches no test that ran.
"""

import argparse
import sys
from collections import Counter
from fnmatch import fnmatchcase
from pathlib import Path


def listed(path: Path) -> list[str]:
    names: list[str] = []
    for number, line in enumerate(path.read_text().splitlines(), 1):
        name, _, reason = (part.strip() for part in line.partition(" # "))
        if not name or name.startswith("#"):
            continue
        if not reason:
            sys.exit(f"{path}:{number}: {name} is listed without a reason")
        # Names hold brackets, which fnmatch would take for a set of characters.
        names.append(name.replace("[", "[[]"))
    return names


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("suite")
    parser.add_argument("outcomes", type=Path)
    parser.add_argument("expected", type=Path, help="the expected failures")
    parser.add_argument("--least", type=int, required=True, help="how many must pass at least")
    options = parser.parse_args()
    patterns = listed(options.expected)
    met: Counter[str] = Counter()
    counts: Counter[str] = Counter()
    complaints: list[str] = []
    for line in options.outcomes.read_text().splitlines():
        outcome, _, name = line.partition(" ")
        counts[outcome] += 1
        expected = [pattern for pattern in patterns if fnmatchcase(name, pattern)]
        met.update(expected)
        if outcome == "failed" and not expected:
            complaints.append(f"failed: {name}")
        if outcome == "failed" and expected:
            counts["failed as expected"] += 1
        if outcome == "passed" and expected:
            complaints.append(f"passed, but is listed as a failure: {name}")
    complaints += [f"listed, but did not run: {pattern}" for pattern in patterns if not met[pattern]]
    if counts["passed"] < options.least:
        complaints.append(f"only {counts['passed']} passed, {options.least} at least must")
    print("\n".join(complaints), end="\n" if complaints else "")
    expectedly = counts["failed as expected"]
    print(
        f"{options.suite}: {counts['passed']} passed, {counts['failed']} failed ({expectedly} of them as expected), "
        f"{counts['skipped']} skipped"
    )
    return 1 if complaints else 0


if __name__ == "__main__":
    sys.exit(main())
