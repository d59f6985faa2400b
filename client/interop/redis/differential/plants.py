"""Faults that are planted into the replies of the second server, to see that the comparison finds them."""

from resp import Reply


def longer(command: list[bytes], reply: Reply) -> Reply:
    """XLEN counts one too many once there are three entries."""
    if command[0].upper() == b"XLEN" and reply.kind == b":" and int(reply.text) >= 3:
        return Reply(b":%d\r\n" % (int(reply.text) + 1), b":")
    return reply


def lost_cursor(command: list[bytes], reply: Reply) -> Reply:
    """XAUTOCLAIM forgets where to go on."""
    if command[0].upper() == b"XAUTOCLAIM" and reply.items and reply.items[0].text != b"0-0":
        first = Reply(b"$3\r\n0-0\r\n", b"$")
        raw = reply.raw.replace(reply.items[0].raw, first.raw, 1)
        return Reply(raw, reply.kind, [first, *reply.items[1:]])
    return reply


def wrong_null(command: list[bytes], reply: Reply) -> Reply:
    """A null array where Redis sends a null string, or the other way round: the same to most clients."""
    if reply.raw == b"*-1\r\n" and command[0].upper() == b"XREADGROUP":
        return Reply(b"$-1\r\n", b"$")
    return reply


def wrong_text(command: list[bytes], reply: Reply) -> Reply:
    """One letter of an error."""
    if reply.raw.startswith(b"-BUSYGROUP"):
        return Reply(reply.raw.replace(b"Consumer Group", b"consumer group"), b"-")
    return reply


PLANTS = {"longer": longer, "lost-cursor": lost_cursor, "wrong-null": wrong_null, "wrong-text": wrong_text}
