"""Streams over one edge-triggered epoll: trio's contract, and that of relay."""

from __future__ import annotations

import select
import socket
import struct
import time
from collections import Counter
from contextlib import asynccontextmanager, suppress
from typing import TYPE_CHECKING

import pytest
import trio
import trio.testing
from hypothesis import given
from hypothesis import strategies as st
from profiles import examples

from trio_echo.framing import Framer, LineTooLongError, encode_prefix
from trio_echo.server.epoll import TURN, EpollStream, Hub, open_hub

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable

if not hasattr(select, "epoll"):
    pytest.skip("there is no epoll here", allow_module_level=True)


class Edges:
    """A running hub, and the sockets that a test opens."""

    def __init__(self, hub: Hub) -> None:
        self.hub = hub
        self._opened: list[socket.socket] = []

    def connected(self) -> tuple[socket.socket, socket.socket]:
        """Connect two non-blocking TCP sockets over loopback."""
        with socket.create_server(("127.0.0.1", 0)) as listener:
            client = socket.create_connection(listener.getsockname())
            server, _ = listener.accept()
        client.setblocking(False)
        server.setblocking(False)
        self._opened += [client, server]
        return server, client

    def pair(self) -> tuple[EpollStream, trio.SocketStream]:
        """Make a stream on the hub, and trio's own at the client's end."""
        server, client = self.connected()
        wrapped = trio.socket.socket(fileno=client.detach())
        self._opened.append(wrapped)  # type: ignore[arg-type]  # it closes alike
        return self.hub.stream(server), trio.SocketStream(wrapped)

    def own(self, sock: socket.socket) -> None:
        """Close a socket at the end of the test."""
        self._opened.append(sock)

    def close(self) -> None:
        """Close what the test left open."""
        for sock in self._opened:
            sock.close()


@asynccontextmanager
async def running_hub(
    clock: Callable[[], float] = time.perf_counter,
) -> AsyncIterator[Edges]:
    """Run a hub for the length of a test."""
    async with open_hub(clock) as hub:
        edges = Edges(hub)
        try:
            yield edges
        finally:
            edges.close()


@asynccontextmanager
async def raising(
    expected: type[Exception], call: Callable[..., Awaitable[object]], *arguments: object
) -> AsyncIterator[list[BaseException]]:
    """Run a call beside the block; it has to end with an exception of this type."""
    errors: list[BaseException] = []

    async def run() -> None:
        with pytest.raises(expected) as caught:
            await call(*arguments)
        errors.append(caught.value)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(run)
        await trio.testing.wait_all_tasks_blocked()
        yield errors
    assert errors


def fill(sock: socket.socket) -> int:
    """Write until the kernel takes no more, not a byte; tell how much it took."""
    taken = 0
    for size in (65_536, 1):
        with suppress(BlockingIOError):
            while True:
                taken += sock.send(b"x" * size)
    return taken


async def test_it_is_a_stream_as_trio_defines_one() -> None:
    """Its own conformance check passes, with back-pressure and half-close."""
    async with running_hub() as edges:

        async def streams() -> tuple[EpollStream, EpollStream]:
            one, other = edges.connected()
            return edges.hub.stream(one), edges.hub.stream(other)

        async def clogged() -> tuple[EpollStream, EpollStream]:
            one, other = edges.connected()
            # Again and again: what the one's buffer held moves into the other's.
            while fill(one) + fill(other):
                await trio.testing.wait_all_tasks_blocked()
            return edges.hub.stream(one), edges.hub.stream(other)

        await trio.testing.check_half_closeable_stream(streams, clogged)


@given(
    st.lists(st.binary(max_size=40) | st.just(b"\n") | st.just(b"x" * 70_000 + b"\n"), max_size=12),
    st.sampled_from(["", "one", "x" * 255]),
)
@examples(0.3)
def test_relay_answers_what_the_framer_would(chunks: list[bytes], prefix: str) -> None:
    """Over real sockets, whatever is sent comes back as one call to the framer says."""
    received = b"".join(chunks)
    expected = Framer(encode_prefix(prefix), 100_000)
    answer = expected.feed(received) + expected.end()

    async def converse() -> bytes:
        async with running_hub() as edges, trio.open_nursery() as nursery:
            server, client = edges.pair()

            async def serve() -> None:
                framer = Framer(encode_prefix(prefix), 100_000)
                await server.relay(framer.feed, framer.chunk_size)
                await server.send_all(framer.end())
                server.close()

            async def send() -> None:
                for chunk in chunks:
                    await client.send_all(chunk)
                await client.send_eof()

            nursery.start_soon(serve)
            nursery.start_soon(send)
            got = bytearray()
            async for chunk in client:
                got += chunk
            await client.aclose()
        assert server.received == len(received)
        assert server.sent == len(got)
        return bytes(got)

    assert trio.run(converse) == answer


async def clog(client: socket.socket) -> int:
    """Send without reading, until nothing moves any more; tell how much was sent."""
    total = 0
    while taken := fill(client):
        total += taken
        await trio.testing.wait_all_tasks_blocked()
    return total


async def read_to_the_end(client: socket.socket) -> bytes:
    """Receive from a raw socket until the end of file."""
    got = bytearray()
    while True:
        await trio.lowlevel.wait_readable(client)
        chunk = client.recv(1 << 20)
        if not chunk:
            return bytes(got)
        got += chunk


async def test_a_client_that_does_not_read_is_not_read_from() -> None:
    """Back-pressure holds in the hub; when the client reads, nothing was lost."""
    async with running_hub() as edges, trio.open_nursery() as nursery:
        sock, client = edges.connected()
        server = edges.hub.stream(sock)

        async def serve() -> None:
            await server.relay(bytes, 65_536)
            server.close()

        nursery.start_soon(serve)
        await trio.testing.wait_all_tasks_blocked()
        total = await clog(client)
        assert server.blocked
        assert server.received < total, "the rest waits in the kernel"
        assert server.received - server.sent <= 65_536, "no more than a chunk is held"
        client.shutdown(socket.SHUT_WR)
        assert await read_to_the_end(client) == b"x" * total
        client.close()


async def test_a_cancelled_relay_is_left_as_it_was() -> None:
    """Cancelled while parked, it has lost nothing, and may be called again."""
    async with running_hub() as edges:
        server, client = edges.pair()
        framer = Framer(b"one ")
        for number in range(3):
            with trio.CancelScope() as scope:
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(server.relay, framer.feed, 65_536)
                    await trio.testing.wait_all_tasks_blocked()
                    await client.send_all(b"%d\nha" % number)
                    assert await client.receive_some() == b"one %s%d\n" % (
                        b"ha" if number else b"",
                        number,
                    )
                    scope.cancel()
            assert scope.cancelled_caught
        assert framer.partial
        server.close()
        await client.aclose()


async def test_relay_answers_what_has_arrived_even_when_cancelled() -> None:
    """A drain relies on it: what was accepted is answered."""
    async with running_hub() as edges:
        server, client = edges.pair()
        await client.send_all(b"late\n")
        with trio.CancelScope() as scope:
            scope.cancel()
            await server.relay(Framer(b"one ").feed, 65_536)
        assert scope.cancelled_caught
        assert await client.receive_some() == b"one late\n"
        server.close()
        await client.aclose()


async def test_what_is_begun_is_answered_before_the_task_has_its_turn() -> None:
    """And relay goes on from there: with what comes, and to the end of file."""
    async with running_hub() as edges:
        server, client = edges.pair()
        framer = Framer(b"one ")
        await client.send_all(b"early\nla")
        server.begin(framer.feed, 65_536)
        assert await client.receive_some() == b"one early\n"
        await client.send_all(b"te\n")
        await client.send_eof()
        await server.relay(framer.feed, 65_536)
        assert await client.receive_some() == b"one late\n"
        server.close()
        await client.aclose()


async def test_an_end_of_file_found_at_the_beginning_is_the_end() -> None:
    """Of a client that sent nothing."""
    async with running_hub() as edges:
        server, client = edges.pair()
        await client.send_eof()
        server.begin(bytes, 65_536)
        await server.relay(bytes, 65_536)
        server.close()
        await client.aclose()


async def test_an_answer_stuck_at_the_beginning_is_sent_whole() -> None:
    """Relay takes it over, before it receives any more."""
    async with running_hub() as edges:
        server, client = edges.pair()
        answer = b"a" * 20_000_000
        await client.send_all(b"x")
        server.begin(lambda _: answer, 65_536)
        assert server.blocked
        received = 0
        async with trio.open_nursery() as nursery:
            nursery.start_soon(server.relay, bytes, 65_536)
            while received < len(answer):
                received += len(await client.receive_some())
            await client.send_all(b"more")
            assert await client.receive_some() == b"more"
            await client.send_eof()
        server.close()
        await client.aclose()


async def test_an_error_at_the_beginning_is_raised_in_the_handler() -> None:
    """The acceptor, which began, has nothing to do with it."""
    async with running_hub() as edges:
        server, client = edges.pair()
        await client.send_all(b"toolong")
        framer = Framer(b"one ", 4)
        server.begin(framer.feed, 65_536)
        with pytest.raises(LineTooLongError):
            await server.relay(framer.feed, 65_536)
        await answered(server, client)


async def test_a_deadline_ends_a_blocked_send() -> None:
    """In relay as in send_all: the task wakes, and the stream can be closed."""
    async with running_hub() as edges:
        for send in ("relay", "send_all"):
            sock, client = edges.connected()
            server = edges.hub.stream(sock)
            with trio.move_on_after(0.05) as scope:
                if send == "relay":
                    async with trio.open_nursery() as nursery:
                        nursery.start_soon(server.relay, bytes, 65_536)
                        await clog(client)
                        assert server.blocked
                        await trio.sleep_forever()
                else:
                    await server.send_all(bytes(50_000_000))
            assert scope.cancelled_caught
            assert not server.blocked
            server.close()
            client.close()


@pytest.mark.parametrize("parked", [True, False])
async def test_an_error_in_the_framer_is_raised_in_the_handler(parked: bool) -> None:
    """In the task that called relay, whoever called the framer; the hub goes on."""

    def feed(chunk: bytes) -> bytes:
        raise ZeroDivisionError(chunk)

    async with running_hub() as edges:
        server, client = edges.pair()
        if not parked:
            await client.send_all(b"now")
        async with raising(ZeroDivisionError, server.relay, feed, 65_536):
            if parked:
                await client.send_all(b"now")
        await answered(server, client)


async def answered(server: EpollStream, client: trio.SocketStream) -> None:
    """Check that a stream still serves, and close it."""
    async with raising(LineTooLongError, server.relay, Framer(b"one ", 4).feed, 65_536):
        await client.send_all(b"more\n")
        assert await client.receive_some() == b"one more\n"
        await client.send_all(b"enough")
    server.close()
    await client.aclose()


@pytest.mark.parametrize("parked", [True, False])
async def test_a_reset_is_raised_in_the_handler(parked: bool) -> None:
    """As trio's error for a broken connection, with its cause."""
    async with running_hub() as edges:
        server, client = edges.pair()
        client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        if not parked:
            await client.aclose()
        async with raising(trio.BrokenResourceError, server.relay, bytes, 65_536) as errors:
            await client.aclose()
        assert isinstance(errors[0].__cause__, ConnectionResetError)
        server.close()


async def test_an_answer_to_a_client_that_is_gone_is_raised_in_the_handler() -> None:
    """The send of relay fails as its receive does."""
    async with running_hub() as edges:
        server, client = edges.pair()
        client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))

        def feed(_: bytes) -> bytes:
            client.socket.close()
            return b"too late"

        await client.send_all(b"x")
        with pytest.raises(trio.BrokenResourceError):
            await server.relay(feed, 65_536)
        with pytest.raises(trio.BrokenResourceError):
            await server.send_all(b"too late")
        server.close()


@pytest.mark.parametrize("waiting", ["relay", "receive_some", "send_all"])
async def test_a_close_wakes_the_task_that_waits(waiting: str) -> None:
    """It is told that the stream was closed under it."""
    async with running_hub() as edges:
        sock, client = edges.connected()
        server = edges.hub.stream(sock)
        calls: dict[str, Callable[[], Awaitable[object]]] = {
            "relay": lambda: server.relay(bytes, 65_536),
            "receive_some": server.receive_some,
            "send_all": lambda: server.send_all(bytes(50_000_000)),
        }
        async with raising(trio.ClosedResourceError, calls[waiting]):
            await server.aclose()
        client.close()


async def test_an_interrupted_task_gets_the_error_and_the_stream_stays() -> None:
    """The limits end a conversation so; a task that does not wait is not touched."""
    async with running_hub() as edges:
        server, client = edges.pair()
        assert not server.interrupt(TimeoutError())
        async with raising(TimeoutError, server.relay, bytes, 65_536):
            assert server.interrupt(TimeoutError())
        await answered(server, client)


async def test_a_descriptor_number_used_again_serves_the_new_connection() -> None:
    """Edges of a closed connection do the next one with its number no harm."""
    async with running_hub() as edges:
        old, old_client = edges.pair()
        with trio.CancelScope() as scope:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(old.relay, bytes, 65_536)
                await trio.testing.wait_all_tasks_blocked()
                scope.cancel()
        listener = socket.create_server(("127.0.0.1", 0))
        with listener, socket.create_connection(listener.getsockname()) as raw:
            # The edge of these bytes is in the epoll when the number changes hands.
            await old_client.send_all(b"for the old one")
            number = old._sock.fileno()  # noqa: SLF001 - the number is the point
            old.close()
            accepted, _ = listener.accept()
            assert accepted.fileno() == number
            edges.own(accepted)
            accepted.setblocking(False)
            new = edges.hub.stream(accepted)
            async with trio.open_nursery() as nursery:
                nursery.start_soon(new.relay, Framer(b"new ").feed, 65_536)
                await trio.testing.wait_all_tasks_blocked()
                raw.sendall(b"mine\n")
                await trio.lowlevel.wait_readable(raw)
                assert raw.recv(100) == b"new mine\n"
                nursery.cancel_scope.cancel()
        await old_client.aclose()


class Clock:
    """Time that passes only where chunks are served."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        """Tell the time."""
        return self.now


@asynccontextmanager
async def crowded(busy: int, chunk: int) -> AsyncIterator[tuple[Edges, Clock, list[int]]]:
    """Run a hub beside clients that are always ready, each chunk of which takes a millisecond.

    Args:
        busy: how many there are.
        chunk: bytes of it; 1 comes one at a time, so that each is announced by an edge of
            its own, and with more there is always more to receive.

    Yields the hub, its clock and the numbers of the clients served so far, in order.
    """
    clock, served = Clock(), []

    def serve(number: int, client: socket.socket) -> Callable[[bytes], bytes]:
        def feed(_: bytes) -> bytes:
            clock.now += 0.001
            served.append(number)
            if chunk == 1:
                client.send(b"x")
            else:
                fill(client)
            return b""

        return feed

    async with running_hub(clock) as edges, trio.open_nursery() as nursery:
        clients = []
        for number in range(busy):
            sock, client = edges.connected()
            clients.append(client)
            # One byte more than comes at once: a receive that falls short drains the socket.
            size = 2 if chunk == 1 else chunk
            nursery.start_soon(edges.hub.stream(sock).relay, serve(number, client), size)
        await trio.testing.wait_all_tasks_blocked()
        for client in clients:
            client.send(b"x" * chunk)
        yield edges, clock, served
        nursery.cancel_scope.cancel()


crowds = pytest.mark.parametrize("chunk", [1, 1024], ids=["newly ready", "never drained"])


@crowds
async def test_a_turn_ends_in_time_however_many_are_ready(chunk: int) -> None:
    """Other tasks wait for a turn and the two chunks at its end, no longer."""
    async with crowded(50, chunk) as (_, clock, served):
        for _ in range(100):
            before = clock.now
            await trio.lowlevel.checkpoint()
            # Two turns at most: trio runs the tasks of a pass in no certain order.
            assert clock.now - before <= 2 * (TURN + 0.002) + 1e-9
        assert len(served) >= 100


@crowds
async def test_nobody_starves(chunk: int) -> None:
    """Each of the busy ones has its share."""
    async with crowded(50, chunk) as (_, _, served):
        while len(served) < 5000:
            await trio.lowlevel.checkpoint()
        counts = Counter(served)
        assert len(counts) == 50
        assert min(counts.values()) >= 50


@crowds
async def test_a_quiet_client_is_answered_before_the_busy_ones_have_their_next_turn(
    chunk: int,
) -> None:
    """However many of those there are."""
    async with crowded(50, chunk) as (edges, _, served), trio.open_nursery() as nursery:
        while len(served) < 200:  # until those that are never drained have queued
            await trio.lowlevel.checkpoint()
        for _ in range(10):
            server, client = edges.pair()
            nursery.start_soon(server.relay, Framer(b"one ").feed, 65_536)
            await trio.lowlevel.checkpoint()
            before = len(served)
            await client.send_all(b"please\n")
            assert await client.receive_some() == b"one please\n"
            # Newly ready ones have the same right, and were there before.
            assert len(served) - before <= (100 if chunk == 1 else 12)
        nursery.cancel_scope.cancel()


async def test_one_that_is_never_drained_has_a_turn_beside_those_newly_ready() -> None:
    """However many of those there are."""
    async with crowded(50, 1) as (edges, _, served), trio.open_nursery() as nursery:
        sock, client = edges.connected()
        fill(client)
        chunks = 0

        def feed(_: bytes) -> bytes:
            nonlocal chunks
            chunks += 1
            fill(client)
            return b""

        nursery.start_soon(edges.hub.stream(sock).relay, feed, 1024)
        while len(served) < 1000:
            await trio.lowlevel.checkpoint()
        assert chunks >= 100
        nursery.cancel_scope.cancel()


async def test_only_one_task_may_receive_and_one_send() -> None:
    """The second is told so, and the first is not disturbed."""
    async with running_hub() as edges, trio.open_nursery() as nursery:
        server, client = edges.pair()
        nursery.start_soon(server.relay, bytes, 65_536)
        await trio.testing.wait_all_tasks_blocked()
        with pytest.raises(trio.BusyResourceError):
            await server.relay(bytes, 65_536)
        with pytest.raises(trio.BusyResourceError):
            await server.receive_some()
        await client.send_all(b"x")
        assert await client.receive_some() == b"x"
        nursery.cancel_scope.cancel()


async def test_urgent_data_does_not_hide_the_bytes_behind_it() -> None:
    """A receive stops short at TCP's urgent mark, and more may lie behind that."""
    async with running_hub() as edges, trio.open_nursery() as nursery:
        server, client = edges.pair()
        nursery.start_soon(server.relay, Framer(b"").feed, 65_536)
        await trio.testing.wait_all_tasks_blocked()
        # Three segments between two turns of the hub, the urgent one in the middle.
        raw = client.socket
        assert await raw.send(b"before\n") == 7
        assert await raw.send(b"!", socket.MSG_OOB) == 1
        assert await raw.send(b"behind\n") == 7
        got = b""
        with trio.fail_after(5):
            while got != b"before\nbehind\n":
                got += await client.receive_some()
        nursery.cancel_scope.cancel()


async def test_receive_some_refuses_a_senseless_size() -> None:
    """As trio's streams do."""
    async with running_hub() as edges:
        server, client = edges.pair()
        with pytest.raises(ValueError, match="max_bytes"):
            await server.receive_some(0)
        server.close()
        server.close()
        await client.aclose()


async def test_two_streams_ready_at_once_where_the_first_closes_the_second() -> None:
    """An edge that was already taken for a closed stream is dropped."""
    async with running_hub() as edges, trio.open_nursery() as nursery:
        (one, one_client), (two, two_client) = (edges.connected() for _ in range(2))
        first, second = edges.hub.stream(one), edges.hub.stream(two)
        closed = []

        async def serve(own: EpollStream, other: EpollStream) -> None:
            def feed(_: bytes) -> bytes:
                other.close()
                return b"mine"

            try:
                await own.relay(feed, 65_536)
            except trio.ClosedResourceError:
                closed.append(own)

        nursery.start_soon(serve, first, second)
        nursery.start_soon(serve, second, first)
        await trio.testing.wait_all_tasks_blocked()
        # Both within one step of this task, and so before the hub's next look.
        assert one_client.send(b"x") == two_client.send(b"x") == 1
        await trio.testing.wait_all_tasks_blocked()
        assert len(closed) == 1
        nursery.cancel_scope.cancel()


async def test_a_framer_that_closes_its_own_stream_is_told_so() -> None:
    """The answer has nowhere to go."""
    async with running_hub() as edges:
        server, client = edges.pair()

        def feed(_: bytes) -> bytes:
            server.close()
            return b"to nobody"

        await client.send_all(b"x")
        with pytest.raises(trio.ClosedResourceError):
            await server.relay(feed, 65_536)


async def test_every_call_on_a_broken_connection_says_so() -> None:
    """The errors are trio's, with the socket's as their cause."""
    async with running_hub() as edges:
        server, client = edges.pair()
        client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        await client.aclose()
        with pytest.raises(trio.BrokenResourceError):
            await server.receive_some()
        with pytest.raises(trio.BrokenResourceError):
            await server.send_eof()


async def test_room_is_awaited_again_on_a_registered_stream() -> None:
    """No edge comes for room that has been there all the time; the epoll is asked anew."""
    async with running_hub() as edges:
        server, client = edges.pair()
        await client.send_all(b"x")
        with trio.fail_after(5):
            assert await server.receive_some() == b"x"
            with trio.move_on_after(0.01):
                await server.receive_some()  # waits, and so is registered
            await server.wait_send_all_might_not_block()
            await server.wait_send_all_might_not_block()


async def test_an_answer_waits_for_a_pipe_that_is_full_to_the_last_byte() -> None:
    """Not a byte of it fits, and none is lost."""
    async with running_hub() as edges, trio.open_nursery() as nursery:
        sock, client = edges.connected()
        server = edges.hub.stream(sock)
        before = 0

        def feed(chunk: bytes) -> bytes:
            nonlocal before
            before = fill(sock)
            return b"one " + chunk

        async def serve() -> None:
            await server.relay(feed, 65_536)
            server.close()

        nursery.start_soon(serve)
        client.send(b"x\n")
        client.shutdown(socket.SHUT_WR)
        assert await read_to_the_end(client) == b"x" * before + b"one x\n"
        assert server.sent == len(b"one x\n")
