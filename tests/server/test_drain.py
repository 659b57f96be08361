"""The end of the server: whatever it accepted is answered, in full and once."""

from __future__ import annotations

import errno
import select
import signal
import socket
import ssl
from collections import Counter
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from itertools import count
from typing import TYPE_CHECKING, ClassVar, cast

import pytest
import trio
import trio.testing
from certificates import Certificates
from serving import (
    Command,
    answers,
    command,
    connected,
    exchange,
    receive,
    receive_all,
    running,
    until,
)

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


async def test_a_second_signal_ends_at_once() -> None:
    """Whoever is still busy is cut and counted, and the exit code tells."""
    async with command("0", "one", "--drain-timeout", "600") as child:
        async with await child.connect() as client:
            await exchange(client, b"a\namid a ", b"one a\n")
            child.signal(signal.SIGTERM)
            await child.wait_for_log("draining")
            await exchange(client, b"line\namid ", b"one amid a line\n")
            child.signal(signal.SIGINT)
            assert await child.wait(5) == 1
        await child.wait_for_log("warning: connections cut count=1")


async def test_a_client_that_never_stops_is_cut_at_the_deadline() -> None:
    """Served until then, counted, and told by the exit code; the quiet one is no such."""
    async with command("0", "one", "--drain-timeout", "1.5") as child:
        async with (
            await child.connect() as quiet,
            await child.connect() as client,
            await child.connect() as also,
        ):
            for each in (quiet, client, also):
                await exchange(each, b"a\n", b"one a\n")
            child.signal(signal.SIGINT)
            began = trio.current_time()
            with suppress(AssertionError, trio.BrokenResourceError):
                while True:
                    for each in (client, also):
                        await exchange(each, b"more\n", b"one more\n")
            assert 1.3 < trio.current_time() - began < 10
            assert await quiet.receive_some() == b""
        assert await child.wait() == 1
        await child.wait_for_log("warning: connections cut count=2")
        assert not any("Traceback" in line for line in child.log)


async def test_no_time_to_drain_is_a_cut() -> None:
    """A drain timeout of 0 is allowed, and ends as a second signal does."""
    async with (
        command("0", "one", "--drain-timeout", "0") as child,
        await child.connect() as client,
    ):
        await exchange(client, b"a\n", b"one a\n")
        child.signal(signal.SIGTERM)
        assert await child.wait(5) == 1


async def test_nobody_new_comes_in(clock: trio.testing.MockClock) -> None:
    """Not while others are being served, and the port is closed soon."""
    async with running() as server, connected(server) as (client,):
        await exchange(client, b"a\namid", b"one a\n")
        server.drain()
        await trio.testing.wait_all_tasks_blocked()
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection(("127.0.0.1", server.ports[0]))
        await trio.sleep(1)
        assert clock.current_time() < 2
        with pytest.raises(OSError, match="all attempts to connect"):
            await connected(server).__aenter__()
        await exchange(client, b" a line\n", b"one amid a line\n")
        assert await receive_all(client) == b""


async def test_clients_beyond_the_limit_are_served_in_the_drain(
    clock: trio.testing.MockClock,
) -> None:
    """They are in the backlog, so they were accepted as far as they know."""
    async with running(max_connections=2) as server, connected(server, 10) as clients:
        for number, client in enumerate(clients):
            await client.send_all(b"%d\n" % number)
        await until(lambda: server.metrics.lines == 2)
        server.drain()
        began = clock.current_time()
        for number, client in enumerate(clients):
            assert await receive_all(client) == b"one %d\n" % number
            await client.send_eof()
        await until(lambda: not server.metrics.open)
        assert clock.current_time() - began < 6  # each pair is quiet for half a second
        assert server.metrics.ended["drain"] == 10
        assert server.dropped_connections == 0


async def test_clients_beyond_the_limit_are_cut_with_the_rest(
    clock: trio.testing.MockClock,
) -> None:
    """If no place frees until the deadline."""
    async with running(max_connections=1, drain_timeout=3) as server:
        async with connected(server, 2) as (busy, waiting):
            await exchange(busy, b"a\namid", b"one a\n")
            await waiting.send_all(b"b\n")
            server.drain()
            await trio.sleep(2.9)
            assert server.metrics.open == 1
            await trio.sleep(0.2)
            assert server.metrics.ended["cut"] == 1
            assert server.metrics.ended["refused"] == 1
            for client in (busy, waiting):
                with suppress(trio.BrokenResourceError):
                    assert await client.receive_some() == b""
        assert clock.current_time() < 4


@pytest.mark.parametrize("epoll", [True, False], ids=["engine", "generic"])
async def test_a_drain_waits_for_a_client_to_read(
    monkeypatch: pytest.MonkeyPatch, clock: trio.testing.MockClock, epoll: bool
) -> None:
    """However slowly: a full pipe is no quiet client."""
    if not epoll:
        monkeypatch.delattr(select, "epoll")
    # Bare newlines: no client is amid a line, so nothing but the full pipe holds the drain up.
    lines = b"\n" * 3_000_000
    expected = answers(lines)
    async with running(drain_timeout=100) as server, connected(server) as (client,):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(client.send_all, lines)
            await trio.testing.wait_all_tasks_blocked()
            server.drain()
            read = await receive(client, 1000)
            await trio.sleep(5)
            assert server.metrics.open == 1
            read += await receive(client, len(expected) - 1000)
        assert await receive_all(client) == b""
        assert read == expected
        await client.send_eof()
        await until(lambda: not server.metrics.open)
        assert server.metrics.ended["drain"] == 1
    assert clock.current_time() < 10


@pytest.mark.parametrize("reads", [True, False])
async def test_answers_have_left_the_machine_before_the_server_ends(
    clock: trio.testing.MockClock, reads: bool
) -> None:
    """A container's network ends with it, and with that what the kernel had still to send."""
    lines = b"\n" * 300_000
    async with running(drain_timeout=9) as server, connected(server) as (client,):
        server.drain()
        await client.send_all(lines)
        await client.send_eof()
        await until(lambda: server.metrics.lines == 300_000)
        await trio.sleep(5)
        assert server.metrics.open == 1
        if reads:
            assert await receive_all(client) == answers(lines)
        await until(lambda: not server.metrics.open)
        assert server.metrics.ended["eof" if reads else "cut"] == 1
    assert (clock.current_time() < 8.5) == reads


async def test_tls_clients_are_drained_as_others_are(
    clock: trio.testing.MockClock, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """A line that came with the drain is answered, then comes a proper end."""
    certificates = Certificates.issue(tmp_path_factory.mktemp("certificates"))
    context = certificates.client_context()
    async with running(tls=certificates.config()) as server, connected(server, 2, port=1) as plain:
        streams = [trio.SSLStream(each, context, server_hostname="localhost") for each in plain]
        for stream in streams:
            await exchange(stream, b"a\n", b"one a\n")
        server.drain()
        for number in range(10):
            await exchange(streams[0], b"%d\n" % number, b"one %d\n" % number)
            await trio.sleep(0.3)
        for stream in streams:
            assert await receive_all(stream) == b""
            await stream.transport_stream.send_eof()
        await until(lambda: not server.metrics.open)
        assert server.metrics.ended["drain"] == 2
    assert clock.current_time() < 5


async def test_a_client_that_was_told_of_the_end_and_stays_is_no_cut_connection(
    clock: trio.testing.MockClock,
) -> None:
    """It has read all it was owed: a full drain, though the deadline comes first."""
    async with running(drain_timeout=2) as server, connected(server) as (client,):
        await exchange(client, b"a\n", b"one a\n")
        # Its kernel acknowledges the end when it comes, not 40 ms of real time later.
        client.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_QUICKACK, 1)
        server.drain()
        assert await receive_all(client) == b""
        await until(lambda: not server.metrics.open)
        assert server.dropped_connections == 0
        assert server.metrics.ended["drain"] == 1
    assert clock.current_time() < 2.5


@pytest.mark.parametrize("late", [0, 1], ids=["at once", "later"])
async def test_a_line_that_crossed_the_end_is_counted(
    clock: trio.testing.MockClock, late: float
) -> None:
    """Nobody can answer it any more: the connection counts as cut, and the exit code tells.

    A packet that was lost comes a second later.
    """
    async with running() as server, connected(server) as (client,):
        await exchange(client, b"a\n", b"one a\n")
        server.drain()
        assert await client.receive_some() == b""
        await trio.sleep(late)
        await client.send_all(b"crossed\n")
        await client.send_eof()
        await until(lambda: not server.metrics.open)
        assert server.metrics.ended["cut"] == 1
    assert clock.current_time() < 4


async def test_those_in_line_are_served_though_the_one_before_was_cut(
    clock: trio.testing.MockClock,
) -> None:
    """It wrote on as it was ended; that is no reason to refuse the next."""
    async with running(max_connections=1) as server, connected(server, 2) as (first, second):
        await exchange(first, b"a\n", b"one a\n")
        await second.send_all(b"b\n")
        server.drain()
        assert await first.receive_some() == b""
        await first.send_all(b"crossed\n")
        await first.send_eof()
        await second.send_eof()
        assert await receive_all(second) == b"one b\n"
        await until(lambda: not server.metrics.open)
        assert server.metrics.ended["cut"] == 1
        assert server.metrics.ended["eof"] == 1
    assert clock.current_time() < 4


async def test_a_line_on_its_way_as_the_drain_begins_is_answered(
    clock: trio.testing.MockClock,
) -> None:
    """However long the client was quiet before: it gets its time from now on."""
    async with running() as server, connected(server) as (client,):
        await exchange(client, b"a\n", b"one a\n")
        await trio.sleep(60)
        server.drain()
        await trio.sleep(0.45)
        await exchange(client, b"b\n", b"one b\n")
        await client.send_eof()
        await until(lambda: not server.metrics.open)
        assert server.metrics.ended["eof"] == 1
    assert clock.current_time() < 65


class SlowTLS:
    """A client of TLS by hand, which decides when its bytes go."""

    def __init__(self, certificates: Certificates, stream: trio.SocketStream) -> None:
        self._in, self._out = ssl.MemoryBIO(), ssl.MemoryBIO()
        context = certificates.client_context()
        self._tls = context.wrap_bio(self._in, self._out, server_hostname="localhost")
        self._stream = stream

    async def until_done(self, step: Callable[[], object], pause: float = 0) -> object:
        """Do a step of TLS, whatever the server's bytes it takes; send half, pause, send half."""
        while True:
            with suppress(ssl.SSLWantReadError):
                result = step()
                await self._send(pause)
                return result
            await self._send(pause)
            part = await self._stream.receive_some()
            self._in.write(part) if part else self._in.write_eof()

    async def _send(self, pause: float) -> None:
        if data := self._out.read():
            half = len(data) // 2
            await self._stream.send_all(data[:half])
            await trio.sleep(pause)
            await self._stream.send_all(data[half:])

    async def shake_hands(self, pause: float = 0) -> None:
        """Shake hands."""
        await self.until_done(self._tls.do_handshake, pause)

    async def write(self, line: bytes, pause: float = 0) -> None:
        """Write a line."""
        await self.until_done(lambda: self._tls.write(line), pause)

    async def say_goodbye(self) -> None:
        """Send ``close_notify``."""
        with suppress(ssl.SSLError):
            self._tls.unwrap()
        await self._send(0)

    async def read(self) -> bytes:
        """Read what comes next."""
        return cast("bytes", await self.until_done(lambda: self._tls.read(100_000)))


async def test_tls_that_takes_its_time_is_waited_for(
    clock: trio.testing.MockClock, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """A handshake under way, and a record of which half is there, are no quiet clients."""
    certificates = Certificates.issue(tmp_path_factory.mktemp("certificates"))
    async with (
        running(tls=certificates.config()) as server,
        connected(server, 2, port=1) as (one, two),
    ):
        slow, early = SlowTLS(certificates, one), SlowTLS(certificates, two)
        await early.shake_hands()

        async def ask(client: SlowTLS, pause: float, line: bytes) -> None:
            if client is slow:
                await client.shake_hands(pause)
            await client.write(line, pause)
            assert await client.read() == b"one " + line

        async with trio.open_nursery() as nursery:
            nursery.start_soon(ask, slow, 1.5, b"slow\n")
            nursery.start_soon(ask, early, 3, b"early\n")
            await trio.sleep(0.1)
            server.drain()
        for client in (one, two):
            await client.send_eof()
        await until(lambda: not server.metrics.open)
        assert server.dropped_connections == 0
    assert 3 < clock.current_time() < 12


@pytest.mark.parametrize("line", [b"", b"crossed\n"])
async def test_a_line_over_tls_that_crossed_the_end_is_counted(
    clock: trio.testing.MockClock, tmp_path_factory: pytest.TempPathFactory, line: bytes
) -> None:
    """The client's own goodbye is no such line."""
    certificates = Certificates.issue(tmp_path_factory.mktemp("certificates"))
    async with running(tls=certificates.config()) as server, connected(server, port=1) as (client,):
        tls = SlowTLS(certificates, client)
        await tls.shake_hands()
        await tls.write(b"a\n")
        assert await tls.read() == b"one a\n"
        server.drain()
        assert await tls.read() == b""
        if line:
            await tls.write(line)
        await tls.say_goodbye()
        await client.send_eof()
        await until(lambda: not server.metrics.open)
        assert server.metrics.ended["cut" if line else "drain"] == 1
    assert clock.current_time() < 4
