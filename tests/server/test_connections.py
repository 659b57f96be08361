"""A connection's task: its log, its faults, and its end just as its client does something."""

from __future__ import annotations

import gc
import socket
import struct
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import trio
import trio.testing
from logged import capture_logs
from serving import close_with_reset, connected, exchange, running, until

from trio_echo.framing import Framer
from trio_echo.server.config import ServerConfig
from trio_echo.server.connection import Connection
from trio_echo.server.service import Server, serve
from trio_echo.server.stream import LoopStream

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    import pytest


@asynccontextmanager
async def ended_with_client(*sent: bytes) -> AsyncIterator[tuple[socket.socket, Server]]:
    """Have a drain end a connection; in the same instant its client sends something.

    Yields the client's socket, to do more with it in that instant, and the server.
    """
    async with trio.open_nursery() as nursery:
        config = ServerConfig(ports=[0], prefix="one", hosts=["127.0.0.1"], max_line=100)
        server: Server = await nursery.start(serve, config)
        stream = await trio.open_tcp_stream("127.0.0.1", server.ports[0])
        await stream.send_all(b"a\n")
        assert await stream.receive_some() == b"one a\n"
        with socket.fromfd(stream.socket.fileno(), socket.AF_INET, socket.SOCK_STREAM) as client:
            await stream.aclose()
            (connection,) = server.metrics._open  # noqa: SLF001 - an instant cannot be hit from outside
            assert isinstance(connection, Connection)
            connection.end("drain")
            for part in sent:
                client.send(part)
            yield client, server
        with trio.fail_after(20):
            while server.metrics.open:
                await trio.testing.wait_all_tasks_blocked(0.01)
        # Whatever happened there, others are served.
        async with await trio.open_tcp_stream("127.0.0.1", server.ports[0]) as other:
            await other.send_all(b"b\n")
            assert await other.receive_some() == b"one b\n"
        server.drain()


async def receive_all(client: socket.socket) -> bytes:
    """Receive to the end of file."""
    stream = trio.SocketStream(trio.socket.from_stdlib_socket(client.dup()))
    received = b""
    async with stream:
        with trio.fail_after(20):
            while part := await stream.receive_some():
                received += part
    return received


async def test_a_line_that_came_with_the_drain_is_answered() -> None:
    """It was accepted."""
    async with ended_with_client(b"late\n") as (client, server):
        await trio.testing.wait_all_tasks_blocked(0.05)
        client.shutdown(socket.SHUT_WR)
        assert await receive_all(client) == b"one late\n"
    assert server.metrics.ended["eof"] == 2


async def test_a_line_that_began_with_the_drain_is_waited_for() -> None:
    """Its rest comes later, and then the client is quiet."""
    async with ended_with_client(b"la") as (client, _):
        await trio.testing.wait_all_tasks_blocked(0.05)
        client.send(b"te\n")
        client.shutdown(socket.SHUT_WR)
        assert await receive_all(client) == b"one late\n"


async def test_a_rest_and_an_end_that_came_with_the_drain_are_answered() -> None:
    """As the wire contract has it at any other time."""
    async with ended_with_client(b"late\nrest") as (client, _):
        client.shutdown(socket.SHUT_WR)
        assert await receive_all(client) == b"one late\none rest"


async def test_a_line_too_long_that_came_with_the_drain_is_told() -> None:
    """As the wire contract has it at any other time."""
    async with ended_with_client(b"late\n", bytes(200)) as (client, _):
        assert await receive_all(client) == b"one late\nerror: line longer than 100 bytes\n"


async def test_a_reset_that_came_with_the_drain_harms_nobody_else() -> None:
    """It ends this connection, not the server."""
    async with ended_with_client() as (client, server):
        client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    assert server.metrics.ended["reset"] + server.metrics.ended["drain"] == 1


async def test_requests_and_responses_are_logged_when_asked_for() -> None:
    """Escaped, with the client's address."""
    with capture_logs() as logs:
        async with trio.open_nursery() as nursery:
            config = ServerConfig(ports=[0], prefix="one", hosts=["127.0.0.1"], log_lines=True)
            server: Server = await nursery.start(serve, config)
            async with await trio.open_tcp_stream("127.0.0.1", server.ports[0]) as client:
                host, port = client.socket.getsockname()
                await client.send_all(b"\x1b[2J\n")
                assert await client.receive_some() == b"one \x1b[2J\n"
            server.drain()
    assert [entry for entry in logs if "line" in entry] == [
        {"event": event, "line": line, "peer": f"{host}:{port}", "log_level": "info"}
        for event, line in (("request", r"\x1b[2J"), ("response", r"one \x1b[2J"))
    ]


async def test_a_fault_of_ours_ends_one_connection_and_is_logged_once(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The next client is served."""
    real = Framer.feed

    def feed(framer: Framer, chunk: bytes) -> bytes:
        if chunk == b"fault\n":
            raise RuntimeError("broken")
        return real(framer, chunk)

    monkeypatch.setattr(Framer, "feed", feed)
    with capture_logs() as logs:
        async with trio.open_nursery() as nursery:
            config = ServerConfig(ports=[0], prefix="one", hosts=["127.0.0.1"])
            server: Server = await nursery.start(serve, config)
            async with await trio.open_tcp_stream("127.0.0.1", server.ports[0]) as client:
                await client.send_all(b"fault\n")
                assert await client.receive_some() == b""
            async with await trio.open_tcp_stream("127.0.0.1", server.ports[0]) as client:
                await client.send_all(b"a\n")
                assert await client.receive_some() == b"one a\n"
            server.drain()
    errors = [entry["event"] for entry in logs if entry["log_level"] == "error"]
    assert errors == ["a connection failed"]
    assert server.metrics.ended["error"] == 1


async def test_a_cancellation_amid_an_accept_is_no_fault() -> None:
    """In whichever tick it comes, the connection is cut, and nothing is logged as broken."""
    for tick in range(24):
        with capture_logs() as logs:
            async with trio.open_nursery() as nursery:
                config = ServerConfig(ports=[0], prefix="one", hosts=["127.0.0.1"])
                server: Server = await nursery.start(serve, config)
                address = ("127.0.0.1", server.ports[0])
                clients = [socket.create_connection(address) for _ in range(3)]
                for _ in range(tick % 8):
                    await trio.lowlevel.checkpoint()
                nursery.cancel_scope.cancel()
            for client in clients:
                client.close()
        assert [entry for entry in logs if entry["log_level"] == "error"] == []


async def test_nothing_of_a_connection_is_kept() -> None:
    """Not by a task that waits for the next one: there may be a long line in it."""
    async with running(max_line=1_000_000) as server:
        async with connected(server, 10) as clients:
            for client in clients:
                await client.send_all(b"a" * 900_000)
            await until(lambda: server.metrics.received_bytes == 9_000_000)
            for client in clients:
                close_with_reset(client.socket)
        await until(lambda: server.metrics.ended["reset"] == 10)
        gc.collect()
        assert not [each for each in gc.get_objects() if isinstance(each, Connection)]


async def test_a_client_amid_a_line_at_the_last_call_can_still_idle(
    autojump_clock: trio.testing.MockClock,
) -> None:
    """The drain waits for the rest of its line, the idle timeout does not."""
    autojump_clock.autojump_threshold = 0.02
    async with (
        running(idle_timeout=3, drain_timeout=1000) as server,
        connected(server) as (client,),
    ):
        await exchange(client, b"a\n", b"one a\n")
        (connection,) = server.metrics._open  # noqa: SLF001 - an instant cannot be hit from outside
        assert isinstance(connection, Connection)
        connection.end("drain")
        await client.send_all(b"amid a line")
        began = trio.current_time()
        assert await client.receive_some() == b""
        assert 3 <= trio.current_time() - began < 5
        await until(lambda: not server.metrics.open)
        assert server.metrics.ended["idle"] == 1


def test_a_kernel_that_cannot_tell_what_is_queued_ends_nothing() -> None:
    """The time of a blocked client is told by its bytes alone then."""
    _, server = trio.testing.memory_stream_pair()
    stream = LoopStream(server, lambda: None)
    stream.unsent = 1
    with Path("/dev/null").open("rb") as no_socket:
        connection = Connection(stream, Framer(b""), ("127.0.0.1", 1), no_socket.fileno())
        assert connection.quiet(1.0) == 0.0
        assert connection.quiet(3.0) == 2.0
