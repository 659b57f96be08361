"""The end of the server: whatever it accepted is answered, in full and once."""

from __future__ import annotations

import errno
import signal
from collections import Counter
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from itertools import count
from typing import TYPE_CHECKING, ClassVar

import pytest
import trio
import trio.testing
from serving import Command, command

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable

QUIET = 0.5
"""Seconds of silence that a drain grants every client."""


@pytest.fixture
def clock() -> trio.testing.MockClock:
    """Time that passes when nothing else happens; real sockets get an instant to move."""
    return trio.testing.MockClock(autojump_threshold=0.02)


@dataclass
class Load:
    """Clients of a server that is told to end, and how each of them fared.

    Attributes:
        port: the server's.
        tally: how many clients ended how.
        asked: how many of those that ask once have.
        failures: what must not have happened.
        signalled: when the signal was sent; infinitely late before that.
    """

    port: int
    ENDS: ClassVar = {"busy", "answered", "too late", "ECONNREFUSED", "SYN unanswered"}
    """How a client may fare."""

    tally: Counter[str] = field(default_factory=Counter)
    asked: int = 0
    failures: list[str] = field(default_factory=list)
    signalled: float = float("inf")
    _numbers: count[int] = field(default_factory=count)
    _progress: trio.lowlevel.ParkingLot = field(default_factory=trio.lowlevel.ParkingLot)

    async def until(self, condition: Callable[[], object]) -> None:
        """Wait until the clients have got so far."""
        with trio.fail_after(20):
            while not condition():
                await self._progress.park()

    async def talk(self) -> None:
        """One busy client: request after request, on for a second behind the signal."""
        async with await trio.open_tcp_stream("127.0.0.1", self.port) as stream:
            while trio.current_time() < self.signalled + 1:
                line = b"busy %d\n" % next(self._numbers)
                await stream.send_all(line * 3)
                if await self._read(stream, len(line) * 3 + 12) != (b"one " + line) * 3:
                    self.failures.append("a busy client lost an answer")
                    return
            await stream.send_all(b"last")
            await stream.send_eof()
            if await self._read(stream, 100) != b"one last":
                self.failures.append("a busy client lost its last answer")
            self.tally["busy"] += 1

    async def come(self) -> None:
        """A stream of clients, each with one request, until the port is closed to them."""
        while await self.visit():
            pass

    async def visit(self) -> bool:
        """Connect, ask once, read to the end; tell whether the port was open."""
        sock = trio.socket.socket()
        with trio.move_on_after(3) as patience:
            try:
                await sock.connect(("127.0.0.1", self.port))
            except OSError as error:
                sock.close()
                self.tally[errno.errorcode[error.errno or 0]] += 1
                return False
        if patience.cancelled_caught:
            sock.close()
            self.tally["SYN unanswered"] += 1
            return False
        async with trio.SocketStream(sock) as stream:
            await self.ask(stream)
        return True

    async def ask(self, stream: trio.SocketStream) -> None:
        """Ask once, and judge what is read up to the end."""
        number = next(self._numbers)
        request = b"first %d\nrest %d" % (number, number)
        try:
            await stream.send_all(request)
            written = trio.current_time()
            self.asked += 1
            self._progress.unpark_all()
            await stream.send_eof()
        except trio.BrokenResourceError:
            self.failures.append("a client could not write")
            return
        read = await self._read(stream, 1000)
        if read == b"one first %d\none rest %d" % (number, number):
            self.tally["answered"] += 1
            self._progress.unpark_all()
        elif read == b"" and written > self.signalled + QUIET:
            self.tally["too late"] += 1
        else:
            self.failures.append(f"asked for {request!r}, read {read!r}")

    async def _read(self, stream: trio.SocketStream, most: int) -> bytes:
        """Read up to a number of bytes, or to the end; a reset is told in words."""
        read = b""
        try:
            while len(read) < most and (part := await stream.receive_some(most - len(read))):
                read += part
        except trio.BrokenResourceError as error:
            return read + b" and then " + str(error.__cause__).encode()
        return read


@asynccontextmanager
async def under_load(*arguments: str) -> AsyncGenerator[tuple[Command, Load]]:
    """A server with 50 busy clients and a stream of new ones; all fare well in the end."""
    async with command("0", "one", *arguments) as child:
        load = Load(child.ports[0])
        async with trio.open_nursery() as nursery:
            for _ in range(50):
                nursery.start_soon(load.talk)
            for _ in range(10):
                nursery.start_soon(load.come)
            await load.until(lambda: load.tally["answered"] >= 100)
            yield child, load
            assert await child.wait() == 0
        assert load.failures == []
        assert load.tally["busy"] == 50
        assert set(load.tally) <= load.ENDS
        assert not any("warning" in line or "Traceback" in line for line in child.log)


async def test_a_drain_under_load_answers_all_that_was_asked() -> None:
    """Those in the midst of a conversation, those in the backlog, those about to be."""
    async with under_load("--drain-timeout", "15") as (child, load):
        load.signalled = trio.current_time()
        child.signal(signal.SIGTERM)


async def test_a_drain_answers_a_backlog() -> None:
    """Hundreds are connected and have asked before the server sees any of them, or the signal."""
    async with under_load("--drain-timeout", "15") as (child, load), trio.open_nursery() as nursery:
        child.signal(signal.SIGSTOP)
        asked = load.asked
        for _ in range(300):
            nursery.start_soon(load.visit)
        await load.until(lambda: load.asked >= asked + 300)
        load.signalled = trio.current_time()
        child.signal(signal.SIGTERM)
        child.signal(signal.SIGCONT)
