"""The admin port of a real server, seen by a real HTTP client."""

from __future__ import annotations

import http.client
from contextlib import asynccontextmanager
from functools import partial
from typing import TYPE_CHECKING

import trio
import trio.testing
from scraping import OPENMETRICS, TEXT, read_samples

from trio_echo.server.config import ServerConfig
from trio_echo.server.service import Server, serve

if TYPE_CHECKING:
    from collections.abc import AsyncIterator


@asynccontextmanager
async def running(prefix: str = "one", ports: int = 1) -> AsyncIterator[Server]:
    """Run a server with an admin port; drain it at the end."""
    config = ServerConfig(ports=[0] * ports, prefix=prefix, hosts=["127.0.0.1"], admin_port=0)
    async with trio.open_nursery() as nursery:
        server: Server = await nursery.start(serve, config)
        yield server
        server.drain()


async def get(
    server: Server, target: str, accept: str = "", method: str = "GET"
) -> tuple[int, bytes, str]:
    """Ask for a page with the standard library's client; return status, page and type."""

    def ask() -> tuple[int, bytes, str]:
        assert server.admin_port is not None
        connection = http.client.HTTPConnection("127.0.0.1", server.admin_port, timeout=20)
        try:
            connection.request(method, target, headers={"Accept": accept} if accept else {})
            response = connection.getresponse()
            return response.status, response.read(), response.headers["Content-Type"]
        finally:
            connection.close()

    return await trio.to_thread.run_sync(ask)


async def scrape(server: Server, accept: str) -> dict[str, float]:
    """Fetch the metrics and parse them as what they say they are."""
    status, page, content_type = await get(server, "/metrics", accept)
    assert status == 200
    assert content_type.startswith(accept.partition(";")[0])
    return read_samples(page, content_type)


async def exchange(stream: trio.SocketStream, request: bytes, answer: bytes) -> None:
    """Send lines and expect their answers."""
    await stream.send_all(request)
    received = b""
    while len(received) < len(answer):
        part = await stream.receive_some()
        assert part, f"end of file after {received!r}"
        received += part
    assert received == answer


async def test_pages_of_a_running_server() -> None:
    """Probes see it live and ready; nothing else is there."""
    async with running() as server:
        assert (await get(server, "/livez"))[:2] == (200, b"alive\n")
        assert (await get(server, "/readyz"))[:2] == (200, b"ready\n")
        assert (await get(server, "/readyz", method="HEAD"))[:2] == (200, b"")
        assert (await get(server, "/"))[0] == 404
        assert (await get(server, "/livez", method="POST"))[0] == 405


async def test_a_scrape_is_exact_while_connections_are_open() -> None:
    """Both parsers agree with what was sent, to the byte, before and after the end."""
    async with running(ports=2) as server:
        first, second = server.ports
        client = await trio.open_tcp_stream("127.0.0.1", first)
        async with client:
            await exchange(client, b"a\nbc\n", b"one a\none bc\n")
            for accept in (TEXT, OPENMETRICS):
                samples = await scrape(server, accept)
                assert samples[f"trio_echo_connections_total|port={first}|tls=false"] == 1
                assert samples[f"trio_echo_connections_total|port={second}|tls=false"] == 0
                assert samples["trio_echo_connections_open"] == 1
                assert samples["trio_echo_connections_closed_total|reason=eof"] == 0
                assert samples["trio_echo_lines_total"] == 2
                assert samples["trio_echo_received_bytes_total"] == len(b"a\nbc\n")
                assert samples["trio_echo_sent_bytes_total"] == len(b"one a\none bc\n")
            await client.send_eof()
            assert await client.receive_some() == b""
        samples = await scrape(server, OPENMETRICS)
        assert samples["trio_echo_connections_open"] == 0
        assert samples["trio_echo_connections_closed_total|reason=eof"] == 1
        assert samples["trio_echo_lines_total"] == 2


async def test_any_prefix_is_told() -> None:
    """Quotes, backslashes and every script."""
    async with running(prefix='sn"o\\w \N{SNOWMAN}') as server:
        for accept in (TEXT, OPENMETRICS):
            names = await scrape(server, accept)
            assert any('|prefix=sn"o\\w \N{SNOWMAN}|version=' in name for name in names)


async def test_a_draining_server_is_not_ready_and_still_answers() -> None:
    """Readiness and the echo are two things: 503 there, every answer here."""
    async with (
        running() as server,
        await trio.open_tcp_stream("127.0.0.1", server.ports[0]) as client,
    ):
        await exchange(client, b"before\n", b"one before\n")
        await client.send_all(b"amid a ")  # a drain waits for the rest of a line
        await trio.testing.wait_all_tasks_blocked()
        server.drain()
        assert (await get(server, "/readyz"))[:2] == (503, b"draining\n")
        assert (await get(server, "/livez"))[:2] == (200, b"alive\n")
        await exchange(client, b"line\n", b"one amid a line\n")
        await exchange(client, b"another\n", b"one another\n")
        samples = await scrape(server, TEXT)
        assert samples["trio_echo_lines_total"] == 3
        assert await client.receive_some() == b""


async def test_garbage_on_the_admin_port_harms_nobody() -> None:
    """Not the pages, and not the echo."""
    async with running() as server:
        assert server.admin_port is not None
        open_garbage = partial(trio.open_tcp_stream, "127.0.0.1", server.admin_port)
        for garbage in (b"\0\xff\r\n\r\n", b"\x16\x03\x01\x02\x00\x01\r\n", b"world\n\n\n"):
            async with await open_garbage() as client:
                await client.send_all(garbage)
                await client.send_eof()
                answer = b""
                while part := await client.receive_some():
                    answer += part
                assert answer.startswith(b"HTTP/1.1 400 ")
        async with await open_garbage() as resetting:
            await resetting.send_all(b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n")
        assert (await get(server, "/livez"))[:2] == (200, b"alive\n")
        async with await trio.open_tcp_stream("127.0.0.1", server.ports[0]) as client:
            await exchange(client, b"hello\n", b"one hello\n")


async def test_a_plain_server_has_no_admin_port() -> None:
    """It is off unless asked for."""
    async with trio.open_nursery() as nursery:
        config = ServerConfig(ports=[0], hosts=["127.0.0.1"])
        server: Server = await nursery.start(serve, config)
        assert server.admin_port is None
        server.drain()
