"""Random sequences of commands: most of them make sense, so that there is state to compare; some are broken."""

import random

import words
from steps import Broken, Command, Made, Overlap, Pipeline, Step, cuts
from streams import StreamCommands

# What is no request. What comes first on the line is answered before the connection closes.
BROKEN = [
    b"*abc\r\n",
    b"*1\r\n$abc\r\n",
    b"*1\r\n:5\r\n",
    b"*1\r\nPING\r\n",
    b"*1\r\n$-1\r\n",
    b"*1\r\n$-5\r\n",
    b"*2147483648\r\n",
    b"*9999999999999999999\r\n",
    b"*1\r\n$536870913\r\n",
    b"*1\r\n$1073741824\r\n",
    b"*2\r\n$4\r\nPING\r\n$1x\r\n",
    b"*2\r\n$4\r\nPING\r\n*1\r\n",
    b'PING "a\r\n',
    b"PING 'a\r\n",
    b'PING "a"b\r\n',
    b"PING\r\n*1 \r\n$4\r\nPING\r\n",
]
PATTERNS = [b"*", b"s?", b"s[12]", b"s[^1]", b"nothing*", b"\\*", b"*1", b"[s-t]*", b"", b"[s", b"**", b"*s*2"]
# Nothing, in several ways: no reply, and the connection goes on.
NOTHING = [b"\r\n", b"\n", b"*0\r\n", b"*-1\r\n", b"*-10\r\n", b"   \r\n"]


class Sequence:
    """Makes one sequence from one source of chance."""

    def __init__(self, chance: random.Random, level: tuple[int, ...], has_strings: bool, is_one_node: bool) -> None:
        self.chance = chance
        self.streams = StreamCommands(chance, level)
        self.has_strings = has_strings
        # Redis 8.2 does not answer within MULTI when the user does not exist.
        self.stranger = b"nobody" if level < (8, 0) else b"default"
        # Who waits at the same node as the first connection: clients have numbers by node.
        self.near = (b"{client:1}", b"{client:2}") if is_one_node else (b"{client:2}", b"{client:2}")

    def make(self, commands: int) -> list[Step]:
        steps: list[Step] = []
        if self.chance.random() < 0.5:
            steps.append(Pipeline([Command([b"HELLO", b"3"])]))
            steps.append(Pipeline([Command([b"HELLO", b"3"])], connection=1))
        if self.chance.random() < 0.85:
            steps.append(self.pipeline(self.streams.beginning()))
        left = commands
        while left > 0:
            made = self.steps()
            left -= sum(len(step.commands) for step in made if not isinstance(step, Broken))
            steps += made
        if self.chance.random() < 0.1:
            steps.append(self.end())
        return steps

    def steps(self) -> list[Step]:
        roll = self.chance.random()
        if roll < 0.04:
            return self.transaction()
        if roll < 0.055:
            return self.watched()
        if roll < 0.062:
            return [self.fill()]
        if roll < 0.075:
            return [self.overlap()]
        if roll < 0.09:
            return [self.pipeline([self.streams.drain()])]
        if roll < 0.35:
            return [self.pipeline([self.command() for _ in range(self.chance.randint(2, 8))])]
        return [self.pipeline([self.command()])]

    def pipeline(self, commands: list[Command], connection: int = 0) -> Pipeline:
        return Pipeline(commands, connection, cuts(self.chance))

    def command(self) -> Command:
        roll = self.chance.random()
        if roll < 0.86:
            arguments = self.streams.command()
        elif roll < 0.97:
            arguments = self.keys()
        else:
            arguments = self.connection()
        if self.chance.random() < 0.07:
            arguments = words.spoil(self.chance, arguments)
        if self.chance.random() < 0.1:
            arguments = words.other_case(self.chance, arguments)
        if self.chance.random() < 0.01:
            return Command([], wire=self.chance.choice(NOTHING))
        return self.sent(words.bounded(arguments))

    def sent(self, arguments: list[bytes]) -> Command:
        inline = self.chance.random() < 0.05 and sum(map(len, arguments)) < 1000 and arguments[:1] != [b""]
        return Command(arguments, inline=inline and len(arguments) > 0)

    def keys(self) -> list[bytes]:
        key = self.streams.key
        some = [key() for _ in range(self.chance.randint(1, 3))]
        choices = [
            [b"EXISTS", *some],
            [b"TYPE", key()],
            [b"DBSIZE"],
            [b"KEYS", self.chance.choice(PATTERNS)],
            [b"SCAN", b"0", b"COUNT", b"1000"],
            [b"SCAN", b"0", b"TYPE", b"stream", b"COUNT", b"1000"],
            [b"SCAN", b"0", b"COUNT", b"1000", b"MATCH", self.chance.choice((b"*", b"s[1-2]", b"x*"))],
            [b"SCAN", b"0", b"COUNT", b"1000", b"TYPE", self.chance.choice((b"string", b"STREAM", b"what"))],
            [b"SCAN", self.chance.choice((b"x", b"1x")), b"COUNT", b"1000"],
            [b"SCAN", b"0", b"COUNT", self.chance.choice((b"0", b"-1", b"x"))],
            [b"OBJECT", b"ENCODING", key()],
        ]
        if self.has_strings:
            choices += [[b"SET", key(), b"v"], [b"GET", key()]]
        roll = self.chance.random()
        if roll < 0.02:
            return [b"FLUSHALL", *self.chance.choice(([], [], [b"ASYNC"], [b"SYNC"], [b"WHAT"], [b"SYNC", b"SYNC"]))]
        if roll < 0.03:
            return [b"FLUSHDB"]
        if roll < 0.07:
            return [self.chance.choice((b"DEL", b"UNLINK")), *some]
        return self.chance.choice(choices)

    def connection(self) -> list[bytes]:
        return self.chance.choice(
            [
                [b"PING"],
                [b"PING", b"hello"],
                [b"PING", b"a", b"b"],
                [b"ECHO", b"a\r\nb"],
                [b"ECHO"],
                [b"SELECT", b"0"],
                [b"SELECT", self.chance.choice((b"99", b"-1", b"x"))],
                [b"HELLO"],
                [b"HELLO", self.chance.choice((b"2", b"3"))],
                [b"HELLO", self.chance.choice((b"1", b"4", b"x", b"99999999999999999999"))],
                [b"HELLO", b"3", b"SETNAME", self.chance.choice((b"me", b"a b", b""))],
                [b"HELLO", b"3", b"WHAT"],
                [b"HELLO", b"3", b"AUTH", b"default"],
                [b"AUTH", b"secret"],
                [b"AUTH", b"default", b"secret"],
                [b"AUTH", self.stranger, b"secret"],
                [b"CLIENT", b"SETNAME", self.chance.choice((b"me", b"a b", b"a\nb", b""))],
                [b"CLIENT", b"GETNAME"],
                [b"CLIENT", b"ID"],
                [b"CLIENT", b"WHAT"],
                [b"CLIENT"],
                [b"CLIENT", b"UNBLOCK", self.chance.choice((b"0", b"x", b"123456789"))],
                [b"CLIENT", b"UNBLOCK", b"123456789", self.chance.choice((b"ERROR", b"TIMEOUT", b"WHAT"))],
                [b"CLIENT", b"KILL", b"ID", self.chance.choice((b"0", b"-1", b"x", b"123456789"))],
                [b"CLIENT", b"KILL", self.chance.choice((b"TYPE", b"USER", b"SKIPME", b"WHAT")), b"what"],
                [b"CLIENT", b"KILL", self.chance.choice((b"1.2.3.4:5", b"what", b""))],
                [b"CLIENT", b"REPLY", self.chance.choice((b"ON", b"WHAT"))],
                [b"CLIENT", b"NO-EVICT", self.chance.choice((b"ON", b"OFF", b"WHAT"))],
                [b"COMMAND", b"INFO", self.chance.choice(words.STREAM_COMMANDS).lower()],
                [b"COMMAND", b"INFO", b"what", b"xadd"],
                [b"COMMAND", b"GETKEYS", *self.streams.command()],
                [b"RESET"],
                [b"UNWATCH"],
                [b"WATCH", self.streams.key()],
                [b"WATCH"],
                [b"MULTI"],
                [b"MULTI"],
                [b"EXEC"],
                [b"EXEC"],
                [b"DISCARD"],
                [b"WHAT", b"is", b"this"],
                [b"what" * 40, b"x" * 200],
                [b"wh\r\nat", b"a\r\nb"],
                [b""],
            ]
        )

    def transaction(self) -> list[Step]:
        """MULTI to EXEC, in one piece or several; now and then with a command that is refused at once."""
        inner = [self.command() for _ in range(self.chance.randint(0, 6))]
        if self.chance.random() < 0.8:
            valid = [Command(words.bounded(self.streams.command())) for _ in inner]
            inner = [command for command in valid if command.arguments]
        last = b"DISCARD" if self.chance.random() < 0.1 else b"EXEC"
        all_commands = [Command([b"MULTI"]), *inner, Command([last])]
        if self.chance.random() < 0.5:
            return [self.pipeline(all_commands)]
        return [self.pipeline([command]) for command in all_commands]

    def watched(self) -> list[Step]:
        """WATCH, something on the other connection or on this one, and a transaction."""
        key = self.streams.key()
        between = [Command(words.bounded(self.streams.command(key))) for _ in range(self.chance.randint(0, 2))]
        inner = [Command(words.bounded(self.streams.command())) for _ in range(2)]
        return [
            self.pipeline([Command([b"WATCH", key])]),
            self.pipeline(between, connection=self.chance.choice((0, 1, 1))),
            self.pipeline([Command([b"MULTI"]), *inner, Command([b"EXEC"])]),
        ]

    def fill(self) -> Pipeline:
        """Enough entries for several nodes of a stream, for approximate trimming."""
        key = self.streams.key()
        count = self.chance.choice((40, 99, 100, 101, 150, 230))
        commands = [Command([b"XADD", key, self.streams.rising_id(key), b"f", b"v"]) for _ in range(count)]
        commands.append(Command([b"XLEN", key]))
        return self.pipeline(commands)

    def overlap(self) -> Overlap:
        """Readers that wait, and writers who serve them, or end their waits in another way."""
        key = self.chance.choice(self.streams.keys)
        group = self.streams.group()
        blocked = [self.reader(key, group) for _ in range(self.chance.choice((1, 1, 2)))]
        serve = [b"XADD", key, self.streams.rising_id(key), b"f", b"v"]
        again = [b"XADD", key, self.streams.rising_id(key), b"g", b"w"]
        how = [self.chance.choice((b"TIMEOUT", b"ERROR"))] if self.chance.random() < 0.7 else []
        inner = self.chance.choice(
            [
                [serve],
                [serve, again],
                [serve, again],
                [[b"MULTI"], serve, again, [b"EXEC"]],
                [[b"MULTI"], serve, [b"DEL", key], [b"EXEC"]],
                [[b"DEL", key], serve],
                [[b"XGROUP", b"DESTROY", key, group], serve],
                [[b"FLUSHALL"]],
                [[b"XGROUP", b"SETID", key, group, b"0"], serve],
                [[b"CLIENT", b"UNBLOCK", self.near[0], *how], serve],
                [[b"CLIENT", b"UNBLOCK", self.near[1], *how], serve],
                [[b"CLIENT", b"UNBLOCK", b"{client:0}", *how], serve],
                [self.streams.command(key), serve],
            ]
        )
        commands = [Command(words.bounded(arguments)) for arguments in inner]
        commands.append(Command([b"XINFO", b"STREAM", key, b"FULL"]))
        return Overlap([Command(words_) for words_ in blocked], commands, hangs_up=self.chance.random() < 0.1)

    def reader(self, key: bytes, group: bytes) -> list[bytes]:
        """A command that waits for news of a stream, most likely for a group."""
        count = [b"COUNT", b"1"] if self.chance.random() < 0.6 else []
        if self.chance.random() < 0.3:
            return [b"XREAD", *count, b"BLOCK", b"250", b"STREAMS", key, b"$"]
        head = [b"XREADGROUP", b"GROUP", group, self.streams.consumer()]
        return [*head, *count, b"BLOCK", b"250", b"STREAMS", key, b">"]

    def end(self) -> Step:
        if self.chance.random() < 0.2:
            return self.pipeline([self.command(), Command([b"QUIT"]), Command([b"PING"])])
        before = Command([b"PING"]).bytes_for(Made()) * self.chance.randint(0, 2)
        return Broken(before + self.chance.choice(BROKEN))
