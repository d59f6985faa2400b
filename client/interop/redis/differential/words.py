"""The small vocabulary of the sequences: good words, bad words, and ways to spoil a command."""

import random

STREAM_COMMANDS = [
    b"XADD",
    b"XLEN",
    b"XRANGE",
    b"XREVRANGE",
    b"XREAD",
    b"XDEL",
    b"XTRIM",
    b"XSETID",
    b"XGROUP",
    b"XREADGROUP",
    b"XACK",
    b"XPENDING",
    b"XCLAIM",
    b"XAUTOCLAIM",
    b"XINFO",
]

# Ids that are no ids, or are ids only here and there.
ODD_IDS = [
    b"-",
    b"+",
    b"$",
    b">",
    b"*",
    b"(1",
    b"(1-1",
    b"(-",
    b"(+",
    b"(",
    b"(0-0",
    b"(18446744073709551615-18446744073709551615",
    b"0",
    b"0-0",
    b"0-*",
    b"1-",
    b"-1",
    b"1-1-1",
    b"1-x",
    b"x-1",
    b"",
    b"abc",
    b"1.5",
    b"007-01",
    b"18446744073709551615",
    b"18446744073709551615-18446744073709551615",
    b"18446744073709551616-0",
    b"1-18446744073709551616",
    b"1-18446744073709551615",
    b"9" * 130,
]
ODD_NUMBERS = [
    b"0",
    b"-1",
    b"1",
    b"x",
    b"",
    b"1.5",
    b"01",
    b"-0",
    b"9223372036854775807",
    b"9223372036854775808",
    b"-9223372036854775808",
    b"576460752303423488",
]
# No MAXCOUNT, KEEPREF and the like: words that Redis 7.0 does not know mean something on a later level.
ODD_WORDS = [
    b"COUNT",
    b"BLOCK",
    b"STREAMS",
    b"GROUP",
    b"NOACK",
    b"MAXLEN",
    b"MINID",
    b"LIMIT",
    b"~",
    b"=",
    b"NOMKSTREAM",
    b"MKSTREAM",
    b"ENTRIESREAD",
    b"JUSTID",
    b"FORCE",
    b"IDLE",
    b"TIME",
    b"RETRYCOUNT",
    b"LASTID",
    b"FULL",
    b"what",
    b"s1",
    b"g1",
]
# How long a wait may last; a wait for ever would hold both servers.
BLOCK_MS_MAX = 20
# No run pauses for so long.
IDLE_MS_MIN = 400_000


def spoil(chance: random.Random, arguments: list[bytes]) -> list[bytes]:
    """The command with one thing wrong, or merely unusual."""
    spoilt = list(arguments)
    at = chance.randrange(len(spoilt))
    junk = chance.choice(chance.choice((ODD_IDS, ODD_NUMBERS, ODD_WORDS)))
    match chance.randrange(6):
        case 0:
            del spoilt[max(at, 1) :]
        case 1 if len(spoilt) > 1:
            del spoilt[max(at, 1)]
        case 2:
            spoilt.insert(max(at, 1), junk)
        case 3:
            spoilt.append(junk)
        case 4 if len(spoilt) > 1:
            spoilt[max(at, 1)] = junk
        case _:
            spoilt.insert(at, spoilt[at])
    return spoilt


def other_case(chance: random.Random, arguments: list[bytes]) -> list[bytes]:
    """With its words in another case, which matters for names (they are in lower case) and for nothing else."""
    return [chance.choice((word.lower(), word.title(), word)) if word.isupper() else word for word in arguments]


def settled(arguments: list[bytes], at: int) -> None:
    """Without an idle time that the pace of the run decides about."""
    if at < len(arguments) and arguments[at].isdigit() and 0 < int(arguments[at]) < IDLE_MS_MIN:
        arguments[at] = b"0"


def bounded(arguments: list[bytes]) -> list[bytes]:
    """With every wait so short that it ends, every scan whole, and nothing that is up to time or to the server."""
    name = arguments[0].upper() if arguments else b""
    safe = list(arguments)
    if name in (b"XREAD", b"XREADGROUP"):
        for at, argument in enumerate(safe[:-1]):
            value = safe[at + 1]
            if argument.upper() == b"BLOCK" and value.isdigit() and not 0 < int(value) <= BLOCK_MS_MAX:
                safe[at + 1] = b"5"
    if name in (b"XCLAIM", b"XAUTOCLAIM"):
        settled(safe, 4)
    if name == b"XPENDING" and len(safe) > 4 and safe[3].upper() == b"IDLE":
        settled(safe, 4)
    if name == b"SELECT" and len(safe) == 2 and safe[1].isdigit() and int(safe[1]) < 16:
        safe[1] = b"0"  # the only database of a node
    if name == b"XSETID" and b"9223372036854775807" in safe:
        # What comes after the greatest number is negative in Redis.
        safe[safe.index(b"9223372036854775807")] = b"9223372036854700000"
    if name == b"COMMAND" and (len(safe) == 1 or (len(safe) == 2 and safe[1].upper() == b"INFO")):
        return [b"COMMAND", b"INFO", b"xadd"]  # of all commands there are: no two servers have the same
    if name == b"SCAN" and len(safe) > 1:
        # Where a scan goes on is the server's own affair: it starts at the start and finds everything at once.
        if safe[1] == b"" or safe[1].strip(b" +-").isdigit():
            safe[1] = b"0"
        for at, argument in enumerate(safe[2:-1], 2):
            if argument.upper() == b"COUNT" and safe[at + 1].isdigit() and int(safe[at + 1]) > 0:
                safe[at + 1] = b"1000"
    return safe
