"""Appends and consumes through a leader failure, and checks that nothing was lost or doubled.

What a client in another language needs from the contract is here in full: which errors may be retried is read from the
annotations in errors.proto, and sessions make the retries safe. Started by run.sh beside this file.
"""

import argparse
import sys
import threading
import time
from collections import Counter
from pathlib import Path

import grpc
from google.protobuf.duration_pb2 import Duration
from google.rpc import error_details_pb2, status_pb2

from millstream.admin.v1 import cluster_service_pb2 as cluster_pb
from millstream.admin.v1 import cluster_service_pb2_grpc as cluster_rpc
from millstream.v1 import common_pb2, errors_pb2, session_service_pb2_grpc
from millstream.v1 import consumer_group_service_pb2 as group_pb
from millstream.v1 import consumer_group_service_pb2_grpc as group_rpc
from millstream.v1 import session_service_pb2 as session_pb
from millstream.v1 import stream_service_pb2 as stream_pb
from millstream.v1 import stream_service_pb2_grpc as stream_rpc

STREAM = "interop-ζ"
GROUP = "readers"
ENTRIES = 1000
KILL_AFTER = 400
CALL_SECONDS = 5
RETRY_SECONDS = 30


def error_info(error: grpc.RpcError) -> error_details_pb2.ErrorInfo | None:
    """The ErrorInfo in an error, if the server sent one; transport failures have none."""
    for key, value in error.trailing_metadata() or ():
        if key == "grpc-status-details-bin":
            for detail in status_pb2.Status.FromString(value).details:
                info = error_details_pb2.ErrorInfo()
                if detail.Unpack(info):
                    return info
    return None


def may_retry(error: grpc.RpcError) -> bool:
    """Whether the same call, with the same identity, may be repeated."""
    info = error_info(error)
    if info is None:
        # The connection broke or the time ran out.
        return error.code() in (
            grpc.StatusCode.UNAVAILABLE,
            grpc.StatusCode.DEADLINE_EXCEEDED,
            grpc.StatusCode.CANCELLED,
        )
    reason = errors_pb2.ErrorReason.DESCRIPTOR.values_by_name["ERROR_REASON_" + info.reason]
    return reason.GetOptions().Extensions[errors_pb2.traits].retryable


class Node:
    """The services of one node."""

    def __init__(self, address: str):
        self.address = address
        options = [("grpc.initial_reconnect_backoff_ms", 100), ("grpc.max_reconnect_backoff_ms", 500)]
        self.channel = grpc.insecure_channel(address, options)
        self.streams = stream_rpc.StreamServiceStub(self.channel)
        self.groups = group_rpc.ConsumerGroupServiceStub(self.channel)
        self.sessions = session_service_pb2_grpc.SessionServiceStub(self.channel)
        self.cluster = cluster_rpc.ClusterServiceStub(self.channel)

    def status(self) -> cluster_pb.GetStatusResponse:
        return self.cluster.GetStatus(cluster_pb.GetStatusRequest(), timeout=CALL_SECONDS)


class Session:
    """Calls any node that answers, and repeats a call under the same identity until its outcome is known.

    One call at a time, so every sequence below the present one is finished.
    """

    def __init__(self, nodes: list[Node], first: int = 0):
        self.nodes = nodes
        self.turn = first
        self.retries = 0
        self.sequence = 0
        self.id = self.call("sessions", "OpenSession", session_pb.OpenSessionRequest()).session_id

    def call(self, service: str, method: str, request, seconds: float = CALL_SECONDS):
        deadline = time.monotonic() + RETRY_SECONDS
        while True:
            node = self.nodes[self.turn % len(self.nodes)]
            try:
                return getattr(getattr(node, service), method)(request, timeout=seconds)
            except grpc.RpcError as error:
                if not may_retry(error) or deadline < time.monotonic():
                    raise
                self.retries += 1
                self.turn += 1
                time.sleep(0.05)

    def mutate(self, service: str, method: str, request, seconds: float = CALL_SECONDS):
        self.sequence += 1
        request.request.CopyFrom(self.identity())
        return self.call(service, method, request, seconds)

    def identity(self) -> common_pb2.RequestIdentity:
        return common_pb2.RequestIdentity(session_id=self.id, sequence=self.sequence, completed_below=self.sequence)


def key(entry_id: common_pb2.EntryId) -> tuple[int, int]:
    return entry_id.ms, entry_id.seq


def body(number: int) -> list[common_pb2.Field]:
    """The fields of one entry: text in several scripts, bytes that are no text, an empty value, a doubled name."""
    text = ["grüße", "naïve", "日本語", "Ω≈ç√", "🌊🌾"][number % 5] * (1 + number % 40)
    pairs = [
        (b"number", str(number).encode()),
        (b"text", text.encode()),
        (b"\xff\x00raw", bytes(range(number % 256))),
        (b"empty", b""),
        (b"text", b"again"),
    ]
    return [common_pb2.Field(name=name, value=value) for name, value in pairs]


class Progress:
    """What the threads tell each other."""

    def __init__(self):
        self.acknowledged: list[tuple[tuple[int, int], int]] = []
        self.consumed = Counter()
        self.acked = 0
        self.lock = threading.Lock()
        self.failures: list[BaseException] = []

    def done(self) -> bool:
        return bool(self.failures) or (len(self.acknowledged) == ENTRIES and len(self.consumed) == ENTRIES)


def produce(session: Session, progress: Progress) -> None:
    for number in range(ENTRIES):
        # Any node will do: followers forward. Going round shows that they do.
        session.turn += 1
        answer = session.mutate("streams", "Append", stream_pb.AppendRequest(stream=STREAM, fields=body(number)))
        progress.acknowledged.append((key(answer.id), number))


def consume(session: Session, progress: Progress, consumer: str) -> None:
    while not progress.done():
        position = group_pb.GroupReadPosition(stream=STREAM, new_entries=True)
        request = group_pb.ReadGroupRequest(
            group=GROUP, consumer=consumer, streams=[position], count=20, wait=Duration(nanos=500_000_000)
        )
        delivered = session.mutate("groups", "ReadGroup", request).streams[0].entries
        if not delivered:
            continue
        ids = [item.entry.id for item in delivered]
        answer = session.mutate("groups", "Ack", group_pb.AckRequest(stream=STREAM, group=GROUP, ids=ids))
        with progress.lock:
            progress.consumed.update(key(entry_id) for entry_id in ids)
            progress.acked += answer.acknowledged


def start(progress: Progress, work, *arguments) -> threading.Thread:
    def run() -> None:
        try:
            work(*arguments)
        except BaseException as failure:  # noqa: BLE001 - handed to the main thread
            progress.failures.append(failure)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    return thread


def check(holds: bool, claim: str) -> None:
    if not holds:
        raise AssertionError(claim)
    print(f"  ok: {claim}")


def wait_for(what: str, seconds: float, test, progress: Progress | None = None):
    deadline = time.monotonic() + seconds
    while True:
        if progress and progress.failures:
            raise progress.failures[0]
        if result := test():
            return result
        if deadline < time.monotonic():
            raise AssertionError(f"within {seconds} s: {what}")
        time.sleep(0.05)


def leader_of(nodes: list[Node]) -> Node | None:
    for node in nodes:
        try:
            if node.status().role == cluster_pb.NODE_ROLE_LEADER:
                return node
        except grpc.RpcError:
            pass
    return None


def agreement(nodes: list[Node]) -> str | None:
    """The common digest of all nodes, once they have applied the same log."""
    try:
        statuses = [node.status() for node in nodes]
    except grpc.RpcError:
        return None
    if len({status.applied_index for status in statuses}) > 1:
        return None
    digests = {status.state_digest for status in statuses}
    check(len(digests) == 1, f"all nodes have the same digest at index {statuses[0].applied_index:,}")
    return digests.pop()


def refusal(call, request) -> tuple[grpc.StatusCode, error_details_pb2.ErrorInfo]:
    try:
        call(request, timeout=CALL_SECONDS)
    except grpc.RpcError as error:
        info = error_info(error)
        if info is None:
            raise AssertionError(f"an error without ErrorInfo: {error}") from error
        return error.code(), info
    raise AssertionError("the call was not refused")


def read_all(session: Session) -> list[common_pb2.Entry]:
    entries, start_bound = [], None
    while True:
        request = stream_pb.RangeRequest(stream=STREAM, start=start_bound, count=300)
        page = session.call("streams", "Range", request)
        entries.extend(page.entries)
        if not page.more:
            return entries
        start_bound = common_pb2.IdBound(exclusive=entries[-1].id)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--endpoints", required=True, help="client addresses of nodes 1, 2, 3, with commas")
    parser.add_argument(
        "--cluster-dir",
        required=True,
        type=Path,
        help="where N.kill and N.start do as they say (deploy/local/cluster.sh)",
    )
    arguments = parser.parse_args()
    nodes = [Node(address) for address in arguments.endpoints.split(",")]
    began = time.monotonic()

    print("a session, a group, one producer and two consumers")
    producer = Session(nodes)
    position = group_pb.GroupPosition(after=common_pb2.EntryId())
    producer.mutate(
        "groups",
        "CreateGroup",
        group_pb.CreateGroupRequest(stream=STREAM, group=GROUP, position=position, create_stream=True),
    )
    progress = Progress()
    consumers = [Session(nodes, first) for first in (1, 2)]
    threads = [start(progress, produce, producer, progress)]
    threads += [start(progress, consume, session, progress, f"consumer-{n}") for n, session in enumerate(consumers)]

    wait_for("the first appends", 30, lambda: KILL_AFTER <= len(progress.acknowledged), progress)
    victim = wait_for("a leader", 10, lambda: leader_of(nodes), progress)
    number = nodes.index(victim) + 1
    (arguments.cluster_dir / f"{number}.kill").touch()
    wait_for("the end of the leader", 10, lambda: not (arguments.cluster_dir / f"{number}.pid").exists(), progress)
    killed, before = time.monotonic(), len(progress.acknowledged)
    print(f"killed the leader, node {number}, after {before} acknowledged appends")
    wait_for("appends go on", 20, lambda: before + 1 < len(progress.acknowledged), progress)
    print(f"  appends went on after {time.monotonic() - killed:.2f} s")
    wait_for("everything is appended and consumed", 40, progress.done, progress)
    for thread in threads:
        thread.join(timeout=CALL_SECONDS)
    retries = producer.retries + sum(session.retries for session in consumers)
    print(f"appended and consumed {ENTRIES} entries with two nodes of three; {retries} calls were repeated")

    print("verifying")
    survivor = Session([node for node in nodes if node is not victim])
    entries = read_all(survivor)
    ids = [key(entry.id) for entry in entries]
    check(all(low < high for low, high in zip(ids, ids[1:])), "ids increase")
    check(
        ids == [entry_id for entry_id, _ in progress.acknowledged], "every acknowledged entry is there once, in order"
    )
    check(
        all(list(entry.fields) == body(n) for n, entry in enumerate(entries)),
        "fields came back byte for byte, in order",
    )
    check(
        set(progress.consumed) == set(ids) and max(progress.consumed.values()) == 1,
        "each entry was delivered exactly once",
    )
    check(progress.acked == ENTRIES, "each entry was acknowledged exactly once")
    pending = survivor.call("groups", "GetPending", group_pb.GetPendingRequest(stream=STREAM, group=GROUP))
    check(pending.count == 0, "nothing is pending")

    again = stream_pb.AppendRequest(stream=STREAM, fields=body(ENTRIES - 1), request=producer.identity())
    first_answer = producer.call("streams", "Append", again)
    check(
        key(first_answer.id) == ids[-1], "the last append, repeated after the failover, is answered with the first id"
    )
    other = stream_pb.AppendRequest(stream=STREAM, fields=body(0), request=producer.identity())
    code, info = refusal(survivor.nodes[0].streams.Append, other)
    check(
        (info.domain, info.reason) == ("millstream", "SEQUENCE_REUSED"),
        "another command under its identity is refused: SEQUENCE_REUSED",
    )
    old_id = stream_pb.NewEntryId(explicit=common_pb2.EntryId(ms=1, seq=1))
    code, info = refusal(
        survivor.nodes[1].streams.Append, stream_pb.AppendRequest(stream=STREAM, fields=body(0), id=old_id)
    )
    expected = (grpc.StatusCode.FAILED_PRECONDITION, "ID_NOT_GREATER", "%d-%d" % ids[-1])
    check(
        (code, info.reason, info.metadata["last_id"]) == expected,
        "an old id is refused: ID_NOT_GREATER, with the last id",
    )
    described = survivor.call("streams", "GetStream", stream_pb.GetStreamRequest(stream=STREAM))
    check(described.length == described.entries_added == ENTRIES, f"the stream counts {ENTRIES} entries, ever and now")

    (arguments.cluster_dir / f"{number}.start").touch()
    print(f"asked for node {number} again")
    wait_for("the killed node catches up", 30, lambda: agreement(nodes))
    for session in (producer, survivor, *consumers):
        session.call("sessions", "CloseSession", session_pb.CloseSessionRequest(session_id=session.id))
    print(f"interop passed in {time.monotonic() - began:.1f} s")


if __name__ == "__main__":
    try:
        main()
    except (AssertionError, grpc.RpcError) as failure:
        sys.exit(f"interop FAILED: {failure}")
