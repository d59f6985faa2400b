"""Measures XADD with redis-benchmark against several servers in turn, and prints the medians as a Markdown table.

Started by run.sh beside this file. In each round every server is measured once in each way, so that what else the
machine does meets all of them alike. CPU is what the server's processes used, from /proc, by the entries that it added.
"""

import argparse
import csv
import os
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median

VALUE = "x" * 100
TICKS = os.sysconf("SC_CLK_TCK")


@dataclass
class Server:
    """A server to measure: where it listens, and its processes, the one that is asked first."""

    name: str
    port: int
    pids: list[int]


@dataclass
class Measured:
    """What the rounds gave for one server and one way, in order."""

    rate: list[float] = field(default_factory=list)
    p50_ms: list[float] = field(default_factory=list)
    p99_ms: list[float] = field(default_factory=list)
    cpu_us: list[float] = field(default_factory=list)
    cpu_all_us: list[float] = field(default_factory=list)


def server(text: str) -> Server:
    name, port, pids = text.rsplit(":", 2)
    return Server(name, int(port), [int(pid) for pid in pids.split(",")])


def cpu_seconds(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rsplit(") ", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / TICKS


def benchmark(port: int, pipeline: int, clients: int, requests: int) -> dict[str, str]:
    """One run of redis-benchmark. It counts errors as answers: run.sh looks at the length of the stream."""
    command = ["redis-benchmark", "-h", "127.0.0.1", "-p", str(port), "--csv", "-c", str(clients), "-P", str(pipeline)]
    command += ["-n", str(requests), "XADD", "benchmark", "*", "field", VALUE]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
    rows = [row for row in csv.reader(done.stdout.splitlines()) if row]
    return dict(zip(rows[0], rows[-1]))


def length(port: int) -> int:
    command = ["redis-cli", "-h", "127.0.0.1", "-p", str(port), "XLEN", "benchmark"]
    return int(subprocess.run(command, capture_output=True, text=True, timeout=10, check=True).stdout)


def measure(target: Server, pipeline: int, clients: int, requests: int, into: Measured) -> None:
    before, entries = [cpu_seconds(pid) for pid in target.pids], length(target.port)
    row = benchmark(target.port, pipeline, clients, requests)
    used = [cpu_seconds(pid) - had for pid, had in zip(target.pids, before)]
    # It asks for as many, and for what its clients have under way when the last answer comes.
    added = length(target.port) - entries
    if not requests <= added <= requests + clients * pipeline:
        sys.exit(f"{target.name}: {requests} requests added {added} entries")
    into.rate.append(float(row["rps"]))
    into.p50_ms.append(float(row["p50_latency_ms"]))
    into.p99_ms.append(float(row["p99_latency_ms"]))
    into.cpu_us.append(used[0] / added * 1e6)
    into.cpu_all_us.append(sum(used) / added * 1e6)


def table(servers: list[Server], ways: list[int], results: dict[tuple[str, int], Measured]) -> list[str]:
    lines = [
        "| server | pipeline | requests/s | of Redis | p50 ms | p99 ms | CPU µs/request | of Redis | all nodes' CPU |",
        "|---|--:|--:|--:|--:|--:|--:|--:|--:|",
    ]
    for pipeline in ways:
        base = results[servers[0].name, pipeline]
        for target in servers:
            made = results[target.name, pipeline]
            rate, cpu = median(made.rate), median(made.cpu_us)
            everywhere = f"{median(made.cpu_all_us):.1f}" if len(target.pids) > 1 else ""
            lines.append(
                f"| {target.name} | {pipeline} | {rate:,.0f} | {rate / median(base.rate):.2f} "
                f"| {median(made.p50_ms):.2f} | {median(made.p99_ms):.2f} "
                f"| {cpu:.1f} | {cpu / median(base.cpu_us):.2f} | {everywhere} |"
            )
    return lines


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("servers", type=server, nargs="+", help="NAME:PORT:PID,...; the first is compared to")
    parser.add_argument("--clients", type=int, default=50)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=4, help="of each measurement, about (4)")
    options = parser.parse_args()
    ways = [1, 16]
    results = {(target.name, way): Measured() for target in options.servers for way in ways}
    requests: dict[tuple[str, int], int] = {}
    for target in options.servers:
        for way in ways:
            # Also warms up. A rate that is far off costs only time.
            rate = float(benchmark(target.port, way, options.clients, 3000 * way)["rps"])
            requests[target.name, way] = max(1000, int(rate * options.seconds))
    began = time.monotonic()
    for number in range(options.rounds):
        for way in ways:
            for target in options.servers:
                measure(target, way, options.clients, requests[target.name, way], results[target.name, way])
        print(f"round {number + 1}: {time.monotonic() - began:.0f} s", file=sys.stderr)
    print("\n".join(table(options.servers, ways, results)))
    print(
        f"\nMedians of {options.rounds} rounds of about {options.seconds:g} s each, {options.clients} clients, values "
        f"of {len(VALUE)} bytes, {os.cpu_count()} cores for servers and clients, load {os.getloadavg()[1]:.1f}."
    )


if __name__ == "__main__":
    main()
