"""A server that speaks first, as SMTP and MySQL do."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import trio
from certificates import Certificates
from serving import connected, exchange, receive, receive_all, running, until

from trio_echo.errors import ConfigError
from trio_echo.server.config import ServerConfig

if TYPE_CHECKING:
    from pathlib import Path


async def test_the_greeting_comes_at_once_and_before_every_answer() -> None:
    """Whether the client has spoken first or waits; it is no line."""
    async with running(greeting=True) as server, connected(server, 2) as (waiting, hasty):
        await hasty.send_all(b"a\nb\n")
        assert await receive(waiting, 4) == b"one\n"
        await exchange(waiting, b"a\n", b"one a\n")
        await waiting.send_eof()
        assert await receive_all(waiting) == b""
        assert await receive(hasty, 16) == b"one\none a\none b\n"
        assert server.metrics.lines == 3
        assert server.metrics.sent_bytes == 26


async def test_a_greeting_does_not_lose_the_words_about_a_line_too_long() -> None:
    """Every end is as without it."""
    async with running(greeting=True, max_line=2) as server, connected(server) as (client,):
        await client.send_all(b"abc")
        assert await receive_all(client) == b"one\nerror: line longer than 2 bytes\n"
        await client.aclose()
        await until(lambda: server.metrics.ended["line-too-long"])


async def test_a_greeting_over_tls(tmp_path: Path) -> None:
    """After the handshake; who has not begun that is ended by a drain, and is no failure."""
    certificates = Certificates.issue(tmp_path)
    settings = {"tls": certificates.config(), "greeting": True, "drain_timeout": 1000}
    async with (
        running(**settings) as server,
        connected(server, 3, port=1) as (plain, silent, leaving),
    ):
        context = certificates.client_context()
        tls = trio.SSLStream(plain, context, server_hostname="localhost")
        await tls.do_handshake()
        assert await receive(tls, 4) == b"one\n"
        await exchange(tls, b"a\n", b"one a\n")
        await leaving.send_eof()
        assert await receive_all(leaving) == b""
        server.drain()
        assert await receive_all(silent) == b""
        await silent.aclose()
        assert await receive_all(tls) == b""
        await plain.aclose()
        await until(lambda: not server.metrics.open)
        assert {key: each for key, each in server.metrics.ended.items() if each} == {
            "eof": 1,
            "drain": 2,
        }
        assert server.metrics.sent_bytes == 10


def test_an_empty_name_is_no_greeting() -> None:
    """It would send LF alone, which names nobody."""
    with pytest.raises(ConfigError, match="needs a PREFIX to greet with"):
        ServerConfig(ports=[0], greeting=True)
