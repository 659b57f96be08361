"""One conversation from its first byte to its end, over every kind of transport."""

from __future__ import annotations

import select
import socket
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any, Literal, cast, get_args

import pytest
import trio
import trio.testing
from hypothesis import example, given
from hypothesis import strategies as st
from profiles import examples
from serving import answers, close_with_reset, connected, receive, receive_all, running, until

from trio_echo.framing import Framer, encode_prefix
from trio_echo.server.connection import EndedError, converse, end_politely
from trio_echo.server.epoll import arrived, open_hub
from trio_echo.server.stream import LoopStream

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Sequence

    from trio_echo.server.metrics import Reason
    from trio_echo.server.stream import Stream

Kind = Literal["edge", "socket", "memory"]
"""The engine, the generic loop over a real socket, and the same over memory."""

kinds = pytest.mark.parametrize("kind", get_args(Kind))
sockets = pytest.mark.parametrize("kind", ["edge", "socket"])

ERROR = b"error: line longer than 100 bytes\n"


@pytest.fixture
def clock() -> trio.testing.MockClock:
    """Time that passes when nothing else happens; real sockets get an instant to move."""
    return trio.testing.MockClock(autojump_threshold=0.02)


@dataclass
class Conversation:
    """A client and the handler that serves it.

    Attributes:
        client: the client's side.
        stream: the server's.
        framer: the server's.
        ended: what the handler returned or raised, once it has.
    """

    client: trio.abc.HalfCloseableStream
    stream: Stream
    framer: Framer
    ended: list[Reason | Exception] = field(default_factory=list)

    async def hold(self) -> None:
        """Run the handler to its end, and close after it as its owner does."""
        try:
            reason = await converse(self.stream, self.framer)
            if reason in {"drain", "line-too-long"}:
                await end_politely(self.stream)
            self.ended.append(reason)
        except (trio.BrokenResourceError, EndedError) as error:
            self.ended.append(error)
        finally:
            self.stream.close()

    async def end(self) -> Reason | Exception:
        """Wait until the handler has ended, and tell how."""
        await until(lambda: self.ended)
        return self.ended[0]

    async def park(self) -> None:
        """Wait until the handler waits."""
        await trio.testing.wait_all_tasks_blocked()

    def fill(self, line: bytes) -> bytes:
        """Send a line again and again until the kernel takes no more; return what was sent."""
        sock = cast("trio.SocketStream", self.client).socket
        sent = bytearray()
        with socket.socket(fileno=socket.dup(sock.fileno())) as raw:
            try:
                while True:
                    count = raw.send(line * 1000, socket.MSG_DONTWAIT)
                    sent += (line * 1000)[:count]
            except BlockingIOError:
                return bytes(sent)


def tcp_pair() -> tuple[socket.socket, socket.socket]:
    """Two connected, non-blocking sockets."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        ours = socket.create_connection(listener.getsockname())
        theirs, _ = listener.accept()
    ours.setblocking(False)
    theirs.setblocking(False)
    return ours, theirs


@asynccontextmanager
async def conversing(
    kind: Kind, *, prefix: str = "one", max_line: int = 65_536, lockstep: bool = False
) -> AsyncGenerator[Conversation]:
    """Serve a client over one kind of transport; cut both at the end.

    Args:
        kind: the transport.
        prefix: of the framer.
        max_line: of the framer.
        lockstep: over memory, hold no byte between the two sides.
    """
    stream: Stream
    client: trio.abc.HalfCloseableStream
    async with open_hub() as hub, trio.open_nursery() as nursery:
        if kind == "memory":
            make = (
                trio.testing.lockstep_stream_pair if lockstep else trio.testing.memory_stream_pair
            )
            client, server = cast("tuple[Any, Any]", make())

            def close() -> None:
                server.send_stream.close()
                server.receive_stream.close()

            stream = LoopStream(server, close)
        else:
            ours, theirs = tcp_pair()
            client = trio.SocketStream(trio.socket.from_stdlib_socket(ours))
            if kind == "edge":
                stream = hub.stream(theirs)
            else:
                wrapped = trio.socket.from_stdlib_socket(theirs)
                there = partial(arrived, wrapped)
                stream = LoopStream(trio.SocketStream(wrapped), wrapped.close, there)
        conversation = Conversation(client, stream, Framer(encode_prefix(prefix), max_line))
        async with client:
            nursery.start_soon(conversation.hold)
            yield conversation
        await conversation.end()
        nursery.cancel_scope.cancel()


async def send_apart(stream: trio.abc.HalfCloseableStream, chunks: Sequence[bytes]) -> None:
    """Send chunks so that each arrives alone, and the end."""
    for chunk in chunks:
        await stream.send_all(chunk)
        await trio.testing.wait_all_tasks_blocked()
    await stream.send_eof()


# Lines of every kind, cut anywhere.
chunked = st.lists(
    st.lists(st.sampled_from([b"\n", b"a", b"\r", b"\0\xff", b"b" * 90])).map(b"".join)
)


@kinds
@examples(0.25)
@given(chunks=chunked)
@example(chunks=[b"a", b"\n", b"\nrest"])
@example(chunks=[b"b" * 100, b"\n", b"c" * 101, b"\n"])
async def test_how_it_is_cut_changes_nothing(kind: Kind, chunks: list[bytes]) -> None:
    """The answer is a function of the bytes, over every transport, the limit included."""
    whole = [b"".join(chunks)]
    read = []
    for cutting in (chunks, whole):
        async with conversing(kind, max_line=100) as conversation, trio.open_nursery() as nursery:
            nursery.start_soon(send_apart, conversation.client, cutting)
            read.append(await receive_all(conversation.client))
    assert read[0] == read[1]
    if ERROR not in read[0]:
        assert read[0] == answers(whole[0])


@pytest.mark.parametrize("epoll", [True, False], ids=["engine", "generic"])
@examples(0.15)
@given(chunks=chunked)
async def test_how_it_is_cut_changes_nothing_to_the_server(
    epoll: bool, chunks: list[bytes]
) -> None:
    """The same for the server as a whole, with epoll and where there is none."""
    sent = b"".join(chunks)
    with pytest.MonkeyPatch.context() as patch:
        if not epoll:
            patch.delattr(select, "epoll")
        async with running() as server, connected(server) as (client,):
            await send_apart(client, chunks)
            assert await receive_all(client) == answers(sent)
            await until(lambda: not server.metrics.open)
            assert server.metrics.ended["eof"] == 1
            assert server.metrics.received_bytes == len(sent)


@kinds
async def test_an_empty_conversation(kind: Kind) -> None:
    """A client that only looks whether the port is open reads nothing but the end."""
    async with conversing(kind) as conversation:
        await conversation.client.send_eof()
        assert await receive_all(conversation.client) == b""
        assert await conversation.end() == "eof"


@kinds
async def test_lines_are_answered_as_soon_as_they_are_complete(kind: Kind) -> None:
    """Each in a round trip of its own, and the rest at the end of file."""
    async with conversing(kind) as conversation:
        for number in range(3):
            await conversation.client.send_all(b"line %d" % number)
            await conversation.client.send_all(b"\r\n")
            assert await receive(conversation.client, 12) == b"one line %d\r\n" % number
        await conversation.client.send_all(b"rest")
        await conversation.client.send_eof()
        assert await receive_all(conversation.client) == b"one rest"
        assert await conversation.end() == "eof"
        assert conversation.framer.lines == 4
        assert conversation.stream.received == 28
        assert conversation.stream.sent == 44


@kinds
async def test_many_lines_at_once_are_answered_in_order(kind: Kind) -> None:
    """All of them, however they are batched."""
    lines = b"".join(b"line %d\n" % number for number in range(50_000))
    async with conversing(kind) as conversation, trio.open_nursery() as nursery:
        nursery.start_soon(conversation.client.send_all, lines)
        expected = answers(lines)
        assert await receive(conversation.client, len(expected)) == expected


@kinds
async def test_a_line_too_long_is_told_behind_the_answers(kind: Kind) -> None:
    """Then comes the end, no reset: what is still in flight is read away."""
    async with conversing(kind, max_line=100) as conversation, trio.open_nursery() as nursery:
        nursery.start_soon(conversation.client.send_all, b"a\n" + b"b" * 1_000_000)
        assert await receive_all(conversation.client) == b"one a\n" + ERROR
        await conversation.park()
        assert not conversation.ended
        await conversation.client.send_eof()
        assert await conversation.end() == "line-too-long"


@kinds
async def test_a_client_that_was_told_and_goes_on_is_left(
    kind: Kind, clock: trio.testing.MockClock
) -> None:
    """The reading away ends by time, whatever the client does."""
    async with conversing(kind, max_line=100) as conversation:
        await conversation.client.send_all(b"b" * 101)
        assert await receive_all(conversation.client) == ERROR
        began = clock.current_time()
        with pytest.raises(trio.BrokenResourceError):
            while True:
                await conversation.client.send_all(b"more")
                await trio.sleep(0.3)
        assert conversation.ended == ["line-too-long"]
        assert 1.5 < clock.current_time() - began < 3


@kinds
async def test_a_client_that_does_not_read_is_not_read_from(kind: Kind) -> None:
    """However much it has to say; and once it reads, nothing is missing."""
    lines = b"".join(b"line %d\n" % number for number in range(1_500_000))
    expected = answers(lines)
    async with (
        conversing(kind, lockstep=True) as conversation,
        trio.open_nursery() as nursery,
    ):
        nursery.start_soon(conversation.client.send_all, lines)
        while not conversation.stream.blocked:
            # All tasks may wait while a busy kernel still has segments to deliver.
            await conversation.park()
        taken = conversation.stream.received
        assert 0 < taken < len(lines)
        await conversation.park()
        assert conversation.stream.received == taken
        assert await receive(conversation.client, len(expected)) == expected
        await conversation.park()
        assert not conversation.stream.blocked


@sockets
async def test_a_reset_ends_a_waiting_handler(kind: Kind) -> None:
    """As the one thing it is: a broken connection."""
    async with conversing(kind) as conversation:
        await conversation.park()
        close_with_reset(cast("trio.SocketStream", conversation.client).socket)
        assert isinstance(await conversation.end(), trio.BrokenResourceError)


@sockets
async def test_a_reset_ends_a_stuck_handler(kind: Kind) -> None:
    """Also amid an answer that is not read."""
    async with conversing(kind) as conversation, trio.open_nursery() as nursery:
        nursery.start_soon(send_until_broken, conversation.client)
        await conversation.park()
        assert conversation.stream.blocked
        close_with_reset(cast("trio.SocketStream", conversation.client).socket)
        assert isinstance(await conversation.end(), trio.BrokenResourceError)


async def send_until_broken(client: trio.abc.SendStream) -> None:
    """Send lines without reading, until the connection breaks or is closed."""
    with pytest.raises((trio.BrokenResourceError, trio.ClosedResourceError)):
        while True:
            await client.send_all(b"line\n" * 10_000)


@kinds
async def test_an_idle_client_is_ended(kind: Kind) -> None:
    """It reads an end of file; nothing else is owed to it."""
    async with conversing(kind) as conversation:
        await conversation.client.send_all(b"a\nrest")
        assert await receive(conversation.client, 6) == b"one a\n"
        await conversation.park()
        assert conversation.stream.interrupt(EndedError("idle"))
        assert await receive_all(conversation.client) == b""
        assert await conversation.end() == "idle"


@kinds
async def test_a_stuck_client_is_ended(kind: Kind) -> None:
    """It does not read, and so can be told nothing."""
    async with conversing(kind, lockstep=True) as conversation, trio.open_nursery() as nursery:
        nursery.start_soon(send_until_broken, conversation.client)
        await conversation.park()
        assert conversation.stream.interrupt(EndedError("idle"))
        assert await conversation.end() == "idle"
        await conversation.client.aclose()


@kinds
async def test_a_client_that_does_not_read_its_rest_is_ended(kind: Kind) -> None:
    """The last words wait for the client as every answer does, and as long."""
    rest = b"a" * 8_000_000
    async with (
        conversing(kind, max_line=len(rest), lockstep=True) as conversation,
        trio.open_nursery() as nursery,
    ):
        nursery.start_soon(send_apart, conversation.client, [rest])
        await until(lambda: conversation.framer.lines == 1)
        await conversation.park()
        assert conversation.stream.interrupt(EndedError("idle"))
        assert await conversation.end() == "idle"


async def test_a_client_that_does_not_read_the_error_line_is_ended() -> None:
    """The same."""
    async with conversing("memory", max_line=100, lockstep=True) as conversation:
        await conversation.client.send_all(b"b" * 101)
        await conversation.park()
        assert conversation.stream.interrupt(EndedError("idle"))
        assert await conversation.end() == "idle"


@kinds
async def test_a_quiet_client_is_told_of_the_end(kind: Kind) -> None:
    """It reads the end of file, and the server waits for its end."""
    async with conversing(kind) as conversation:
        await conversation.client.send_all(b"a\n")
        assert await receive(conversation.client, 6) == b"one a\n"
        await conversation.park()
        assert conversation.stream.interrupt(EndedError("drain"))
        assert await receive_all(conversation.client) == b""
        assert not conversation.ended
        await conversation.client.send_eof()
        assert await conversation.end() == "drain"


@sockets
async def test_all_that_came_with_the_end_is_answered_in_full(
    kind: Kind, clock: trio.testing.MockClock
) -> None:
    """However much: no answer is torn, no line that had arrived is lost."""
    assert clock.current_time() == 0
    async with conversing(kind) as conversation:
        await conversation.park()
        assert conversation.stream.interrupt(EndedError("drain"))
        sent = conversation.fill(b"a line that came with the end\n")
        whole = sent[: sent.rindex(b"\n") + 1]
        expected = answers(whole)
        assert await receive(conversation.client, len(expected)) == expected
        await trio.sleep(5)
        assert not conversation.ended  # it is amid a line
        await conversation.client.send_all(b" of a line\n")
        rest = answers(sent[len(whole) :] + b" of a line\n")
        assert await receive(conversation.client, len(rest)) == rest
        await conversation.park()
        assert conversation.stream.interrupt(EndedError("drain"))
        assert await receive_all(conversation.client) == b""
        await conversation.client.send_eof()
        assert await conversation.end() == "drain"


@kinds
async def test_an_end_amid_the_polite_end_changes_nothing(kind: Kind) -> None:
    """The reason stays, and nothing fails."""
    async with conversing(kind, max_line=100) as conversation:
        await conversation.client.send_all(b"b" * 101)
        assert await receive_all(conversation.client) == ERROR
        await conversation.park()
        conversation.stream.interrupt(EndedError("drain"))
        assert await conversation.end() == "line-too-long"
