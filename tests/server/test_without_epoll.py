"""Platforms without epoll are served too, by the generic loop."""

from __future__ import annotations

import subprocess
import sys
from contextlib import asynccontextmanager
from types import SimpleNamespace
from typing import TYPE_CHECKING

import trio

from trio_echo.server.config import ServerConfig
from trio_echo.server.service import Server, serve

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    import pytest

IMPORT = """
import trio  # it has its own way of doing without

import select

for name in [name for name in vars(select) if name.lower().startswith("epoll")]:
    delattr(select, name)

import trio_echo.cli
"""


def test_everything_can_be_imported() -> None:
    """None of epoll's constants is missed."""
    subprocess.run([sys.executable, "-c", IMPORT], check=True)


@asynccontextmanager
async def running(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Server]:
    """Run a server that finds no epoll; drain it at the end."""
    monkeypatch.setattr("trio_echo.server.service.select", SimpleNamespace())
    config = ServerConfig(ports=[0], prefix="one", hosts=["127.0.0.1"], max_line=1000)
    async with trio.open_nursery() as nursery:
        server: Server = await nursery.start(serve, config)
        yield server
        server.drain()


async def converse(server: Server, request: bytes, *, end: bool = True) -> bytes:
    """Send a request while receiving all there is."""
    received = b""
    async with (
        await trio.open_tcp_stream("127.0.0.1", server.ports[0]) as client,
        trio.open_nursery() as nursery,
    ):

        async def send() -> None:
            await client.send_all(request)
            if end:
                await client.send_eof()

        nursery.start_soon(send)
        async for part in client:
            received += part
    return received


async def test_the_wire_contract_holds(monkeypatch: pytest.MonkeyPatch) -> None:
    """Many lines at once in order, a rest at the end of file, and a line too long."""
    numbers = range(2000)
    lines = b"".join(b"%d\r\n" % number for number in numbers)
    answers = b"".join(b"one %d\r\n" % number for number in numbers)
    async with running(monkeypatch) as server:
        assert await converse(server, lines + b"rest") == answers + b"one rest"
        too_long = await converse(server, b"a\n" + bytes(100_000), end=False)
        assert too_long == b"one a\nerror: line longer than 1000 bytes\n"
        assert server.metrics.lines == 2002
        assert server.metrics.received_bytes >= len(lines) + 4
    assert server.metrics.open == 0


async def test_a_drain_ends_a_quiet_client(monkeypatch: pytest.MonkeyPatch) -> None:
    """It reads an end of file."""
    async with (
        running(monkeypatch) as server,
        await trio.open_tcp_stream("127.0.0.1", server.ports[0]) as client,
    ):
        await client.send_all(b"a\n")
        assert await client.receive_some() == b"one a\n"
        server.drain()
        assert await client.receive_some() == b""
    assert server.metrics.ended["drain"] == 1
