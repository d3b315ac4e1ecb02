"""A RESP client for asyncio: one command at a time unless told otherwise, and strict.

What matters to a judge is *whether a command may have been done*. So a failure before any byte was
given to the socket is `NotSent`, every other one is `Lost`, and an error reply is an `Error` value,
never an exception.
"""

import asyncio
import re

# Errors that promise that nothing was done.
REFUSALS = {"NOQUORUM", "CLUSTERDOWN", "TRYAGAIN", "LOADING", "MISCONF", "OOM"}


class NotSent(Exception):
    """The command never left: nothing was done."""


class Lost(Exception):
    """The answer never came: it may have been done."""


class Error(str):
    """An error reply, without its dash."""

    @property
    def code(self):
        return self.split(" ", 1)[0]

    @property
    def is_refusal(self):
        return self.code in REFUSALS


def encode(args):
    out = [b"*%d\r\n" % len(args)]
    for arg in args:
        if not isinstance(arg, bytes):
            arg = str(arg).encode()
        out.append(b"$%d\r\n%b\r\n" % (len(arg), arg))
    return b"".join(out)


async def decode(reader):
    """One reply, of RESP2 or RESP3. Text that is UTF-8 becomes `str`, other bytes stay bytes."""
    line = await reader.readline()
    if not line.endswith(b"\r\n"):
        raise Lost("closed")
    kind, rest = line[:1], line[1:-2]
    if kind == b"+":
        return rest.decode()
    if kind == b"-":
        return Error(rest.decode())
    if kind == b":":
        return int(rest)
    if kind in b"$=!":
        if rest == b"-1":
            return None
        body = (await reader.readexactly(int(rest) + 2))[:-2]
        if kind == b"=":
            body = body[4:]
        try:
            text = body.decode()
        except UnicodeDecodeError:
            return body
        return Error(text) if kind == b"!" else text
    if kind in b"*~>":
        if rest == b"-1":
            return None
        return [await decode(reader) for _ in range(int(rest))]
    if kind == b"%":
        found = {}
        for _ in range(int(rest)):
            name = await decode(reader)
            found[name] = await decode(reader)
        return found
    if kind == b"_":
        return None
    if kind == b"#":
        return rest == b"t"
    if kind == b",":
        return float(rest)
    if kind == b"(":
        return int(rest)
    raise Lost(f"not RESP: {line[:80]!r}")


class Client:
    """A connection that is opened when it is needed, and anew after it failed."""

    def __init__(self, host, port, timeout=10.0, setup=()):
        self.host, self.port, self.timeout = host, port, timeout
        # Commands said on every new connection before anything else.
        self.setup = setup
        self.reader = self.writer = None

    async def open(self):
        try:
            dialled = asyncio.open_connection(self.host, self.port, limit=1 << 26)
            self.reader, self.writer = await asyncio.wait_for(dialled, self.timeout)
            for command in self.setup:
                reply = await self._exchange([command])
                if isinstance(reply[0], Error):
                    raise Lost(f"{command}: {reply[0]}")
        except (OSError, asyncio.TimeoutError, asyncio.IncompleteReadError, Lost) as why:
            self.close()
            raise NotSent(type(why).__name__) from why

    async def _exchange(self, commands):
        self.writer.write(b"".join(map(encode, commands)))
        replies = [decode(self.reader) for _ in commands]
        return await asyncio.wait_for(_in_order(replies), self.timeout)

    async def pipeline(self, commands):
        """The replies to several commands sent at once."""
        if self.writer is None:
            await self.open()
        try:
            return await self._exchange(commands)
        except (asyncio.TimeoutError, OSError, asyncio.IncompleteReadError, Lost) as why:
            self.close()
            raise Lost("timeout" if isinstance(why, asyncio.TimeoutError) else "closed") from why
        except asyncio.CancelledError:
            self.close()
            raise

    async def call(self, *args):
        return (await self.pipeline([args]))[0]

    def close(self):
        if self.writer is not None:
            self.writer.transport.abort()
        self.reader = self.writer = None


async def _in_order(replies):
    return [await reply for reply in replies]


def parse_info(text):
    """`INFO`'s lines as a dictionary; numbers are numbers."""
    found = {}
    for line in text.splitlines():
        name, colon, value = line.partition(":")
        if colon and not line.startswith("#"):
            found[name] = number(value)
    return found


def number(text):
    if re.fullmatch(r"-?\d+", text):
        return int(text)
    if re.fullmatch(r"-?\d+\.\d+", text):
        return float(text)
    return text


def pairs(reply):
    """A map, whichever way it was sent: RESP3's map, RESP2's flat array, or an array of pairs."""
    if isinstance(reply, dict):
        return reply
    if reply and all(isinstance(item, list) and len(item) == 2 for item in reply):
        return dict(reply)
    return dict(zip(reply[::2], reply[1::2]))
