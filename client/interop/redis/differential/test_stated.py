"""The rules of stated.py, each held to what it must accept and what it must not. Run by run.sh --self-test."""

import unittest

from compare import Difference, Pairs, find_difference, view
from resp import Reply
from stated import APART, RULES, Asked, Past


def reply(text: bytes) -> Reply:
    """A reply from its bytes, whole."""
    made, rest = parsed(text)
    assert rest == b"", rest
    return made


def parsed(text: bytes) -> tuple[Reply, bytes]:
    line, rest = text.split(b"\r\n", 1)
    kind, raw = line[:1], line + b"\r\n"
    if kind == b"$" and line != b"$-1":
        length = int(line[1:]) + 2
        return Reply(raw + rest[:length], kind), rest[length:]
    if kind in b"*%" and line != b"*-1":
        items: list[Reply] = []
        for _ in range(int(line[1:]) * (2 if kind == b"%" else 1)):
            item, rest = parsed(rest)
            items.append(item)
        return Reply(raw + b"".join(item.raw for item in items), kind, items), rest
    return Reply(raw, kind), rest


def bulk(text: str) -> bytes:
    return b"$%d\r\n%s\r\n" % (len(text), text.encode())


def array(*items: bytes | str | int) -> bytes:
    def one(item: bytes | str | int) -> bytes:
        if isinstance(item, bytes):
            return item
        return b":%d\r\n" % item if isinstance(item, int) else bulk(item)

    return b"*%d\r\n" % len(items) + b"".join(one(item) for item in items)


IDMP = ("idmp-duration", 100, "idmp-maxsize", 100, "pids-tracked", 0, "iids-tracked", 0, "iids-added", 0)


def stream(length: int, added: int, deleted: str, first: str, lag: bytes | int) -> bytes:
    """XINFO STREAM FULL of a stream up to 9-0 with a group at 5-0."""
    group = array("name", "g", "last-delivered-id", "5-0", "entries-read", b"$-1\r\n", "lag", lag)
    head = ("length", length, "last-generated-id", "9-0", "max-deleted-entry-id", deleted, "entries-added", added)
    return array(*head, "recorded-first-entry-id", first, "groups", array(group))


class Stated(unittest.TestCase):
    """Each test gives a command, Redis's reply, ours, and what came before."""

    def outcome(self, command: str, expected: bytes, got: bytes, *before: str) -> str | None:
        """`apart`, or `same`, or None for a difference that no rule explains."""
        past = Past()
        for line in before:
            words = line.encode().split(b" ")
            past.note(words)
            past.note_done(words)
        words = command.encode("latin1").split(b" ")
        past.note(words)
        asked = Asked(words, view(words, reply(expected)), view(words, reply(got)), Difference("", b"", b""), past)
        while difference := find_difference(asked.expected, asked.got, Pairs()):
            asked.difference = difference
            outcomes = [outcome for rule in RULES if (outcome := rule.apply(asked))]
            if not outcomes:
                return None
            if outcomes[0] == APART:
                return "apart"
        return "same"

    def test_equal_and_unequal(self) -> None:
        self.assertEqual(self.outcome("XLEN s", b":1\r\n", b":1\r\n"), "same")
        self.assertIsNone(self.outcome("XLEN s", b":1\r\n", b":2\r\n"))
        self.assertIsNone(self.outcome("XRANGE s - +", b"*-1\r\n", b"*0\r\n"))

    def test_idempotency_fields(self) -> None:
        plain = array("length", 1, "recorded-first-entry-id", "1-0", "groups", 0)
        good = array("length", 1, "recorded-first-entry-id", "1-0", *IDMP, "iids-duplicates", 0, "groups", 0)
        used = array("length", 1, "recorded-first-entry-id", "1-0", *IDMP, "iids-duplicates", 1, "groups", 0)
        elsewhere = array("length", 1, *IDMP, "iids-duplicates", 0, "recorded-first-entry-id", "1-0", "groups", 0)
        self.assertEqual(self.outcome("XINFO STREAM s", plain, good), "same")
        self.assertIsNone(self.outcome("XINFO STREAM s", plain, used))
        self.assertIsNone(self.outcome("XINFO STREAM s", plain, elsewhere))

    def test_consumers(self) -> None:
        row = ("name", "c", "pending", 0, "idle", 5)
        ours, busy = array(*row, "inactive", -1), array("name", "c", "pending", 1, "idle", 5, "inactive", 5)
        claim = "XCLAIM s g c 0 1-0"
        self.assertEqual(self.outcome("XINFO CONSUMERS s g", array(array(*row)), array(ours)), "same")
        self.assertEqual(self.outcome("XINFO CONSUMERS s g", array(), array(ours), claim), "same")
        self.assertIsNone(self.outcome("XINFO CONSUMERS s g", array(), array(ours)))
        self.assertIsNone(self.outcome("XINFO CONSUMERS s g", array(), array(busy), claim))
        self.assertEqual(self.outcome("XGROUP CREATECONSUMER s g c", b":1\r\n", b":0\r\n", claim), "same")
        self.assertIsNone(self.outcome("XGROUP CREATECONSUMER s g c", b":0\r\n", b":1\r\n", claim))

    def test_times(self) -> None:
        def row(idle: int, count: int) -> bytes:
            return array(array("1-0", "c", idle, count))

        self.assertEqual(self.outcome("XPENDING s g - + 9", row(5, 1), row(99, 1)), "same")
        self.assertIsNone(self.outcome("XPENDING s g - + 9", row(5, 1), row(5000, 1)))
        self.assertIsNone(self.outcome("XPENDING s g - + 9", row(5, 1), row(5, 2)))

    def test_lag(self) -> None:
        full, deletion = "XINFO STREAM s FULL", "XDEL s 1-0"
        null = b"$-1\r\n"
        # 5-0 is before the last deleted entry: unknown. Of what is left nothing was delivered: all of it.
        unknown = stream(3, 9, "7-0", "6-0", 4), stream(3, 9, "7-0", "6-0", null), stream(3, 9, "7-0", "6-0", 3)
        self.assertEqual(self.outcome(full, unknown[0], unknown[1], deletion), "same")
        self.assertIsNone(self.outcome(full, unknown[0], unknown[2], deletion))
        self.assertIsNone(self.outcome(full, unknown[0], unknown[1]))
        behind = stream(2, 9, "1-0", "8-0", 4), stream(2, 9, "1-0", "8-0", 2), stream(2, 9, "1-0", "8-0", 3)
        self.assertEqual(self.outcome(full, behind[0], behind[1], deletion), "same")
        self.assertIsNone(self.outcome(full, behind[0], behind[2], deletion))

    def test_texts(self) -> None:
        before = b"-ERR Unbalanced XREAD list of streams: for each stream key an ID or '$' must be specified.\r\n"
        group = b"-ERR Unbalanced 'xreadgroup' list of streams: for each stream key an ID or '>' must be specified.\r\n"
        self.assertEqual(self.outcome("XREADGROUP GROUP g c STREAMS a b 0", before, group), "same")
        self.assertIsNone(self.outcome("XREAD STREAMS a b 0", before, group))

    def test_names(self) -> None:
        refused = b"-ERR a stream name must not be empty\r\n"
        self.assertEqual(self.outcome("XADD  1-0 f v", bulk("1-0"), refused), "apart")
        self.assertEqual(self.outcome("XLEN ", b":0\r\n", refused), "same")
        self.assertIsNone(self.outcome("XADD s 1-0 f v", bulk("1-0"), refused))

    def test_watch(self) -> None:
        self.assertEqual(self.outcome("EXEC", array(1), b"*-1\r\n", "WATCH s", "XACK s g 1-0"), "apart")
        self.assertIsNone(self.outcome("EXEC", array(1), b"*-1\r\n", "WATCH s", "XACK other g 1-0"))
        self.assertIsNone(self.outcome("EXEC", array(1), b"*-1\r\n", "WATCH s", "XLEN s"))
        self.assertIsNone(self.outcome("EXEC", b"*-1\r\n", array(1), "WATCH s", "XADD s 1-0 f v"))

    def test_blocks(self) -> None:
        self.assertEqual(self.outcome("XTRIM s MAXLEN ~ 5", b":0\r\n", b":1\r\n", "XDEL s 1-0"), "apart")
        self.assertIsNone(self.outcome("XTRIM s MAXLEN ~ 5", b":0\r\n", b":1\r\n"))
        self.assertIsNone(self.outcome("XTRIM s MAXLEN 5", b":0\r\n", b":1\r\n", "XDEL s 1-0"))


if __name__ == "__main__":
    unittest.main()
