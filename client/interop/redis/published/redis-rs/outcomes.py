"""Turns what `cargo test -- --show-output` says into the lines that check.py takes; the argument goes before names.

A test of the redis crate that needs a later server says so and passes; here that is a test that was skipped.
"""

import re
import sys

prefix = sys.argv[1]
output = sys.stdin.read()
skipped = {
    name
    for name, text in re.findall(r"^---- (\S+) stdout ----\n(.*?)(?=^----|^successes:|^failures:)", output, re.M | re.S)
    if text.startswith("Skipping the test because")
}
for name, word in re.findall(r"^test (\S+)(?: - .*?)? \.\.\. (ok|FAILED|ignored)$", output, re.M):
    outcome = {"ok": "passed", "FAILED": "failed", "ignored": "skipped"}[word]
    print("skipped" if name in skipped else outcome, f"{prefix}::{name}")
