"""Clients behind a proxy: who they are is told by its header, and without one nobody is served."""

from __future__ import annotations

import shutil
import socket
import subprocess
from contextlib import asynccontextmanager, suppress
from itertools import pairwise
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest
import trio
import trio.testing
from certificates import Certificates
from hypothesis import example, given
from hypothesis import strategies as st
from logged import capture_logs
from profiles import examples
from serving import answers, connected, exchange, receive_all, running, until

from trio_echo.proxy_header import write
from trio_echo.server.connection import HEADER_TIMEOUT

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from trio_echo.server.service import Server

CLIENT = ("192.0.2.7", 4000)
HEADERS = {
    "v1": write("v1", CLIENT, ("192.0.2.1", 9000)),
    "v2": write("v2", CLIENT, ("192.0.2.1", 9000)),
    "unknown": write("v1", None, None),
    "local": write("v2", None, None),
}


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    """Made once: keys take a while."""
    return Certificates.issue(tmp_path_factory.mktemp("proxied"))


def ended(server: Server) -> dict[str, int]:
    """How many connections ended, by reason."""
    return {reason: count for reason, count in server.metrics.ended.items() if count}


def requests(logs: list[dict[str, Any]]) -> list[tuple[str, str]]:
    """Who asked what."""
    return [(each["peer"], each["line"]) for each in logs if each["event"] == "request"]


async def send_in_parts(stream: trio.SocketStream, data: bytes, places: list[int]) -> None:
    """Send bytes cut at places, so that each part arrives alone; then the end."""
    cuts = sorted({0, len(data), *(place for place in places if place < len(data))})
    for start, end in pairwise(cuts):
        await stream.send_all(data[start:end])
        await trio.testing.wait_all_tasks_blocked()
    await stream.send_eof()


@examples(0.04)
@given(
    lines=st.lists(st.sampled_from([b"\n", b"a", b"PROXY ", b"\r\n", b"b" * 90])).map(b"".join),
    places=st.lists(st.integers(0, 120), max_size=6) | st.just(list(range(60))),
    greeting=st.booleans(),
)
@example(lines=b"a\nb\n", places=list(range(60)), greeting=True)
async def test_how_it_is_cut_changes_nothing(
    lines: bytes, places: list[int], greeting: bool
) -> None:
    """The header may come with the first lines, or by the byte; what is sent is the same."""
    settings = {"proxy_protocol": True, "greeting": greeting}
    many = len(HEADERS)
    async with running(**settings) as server, connected(server, many) as clients:
        async with trio.open_nursery() as nursery:
            for client, header in zip(clients, HEADERS.values(), strict=True):
                nursery.start_soon(send_in_parts, client, header + lines, places)
            expected = (b"one\n" if greeting else b"") + answers(lines)
            for client in clients:
                assert await receive_all(client) == expected
        await until(lambda: not server.metrics.open)
        assert ended(server) == {"eof": many}
        assert server.metrics.received_bytes == len(b"".join(HEADERS.values()) + lines * many)
        assert server.metrics.sent_bytes == len(expected) * many


@pytest.mark.parametrize("epoll", [True, False])
@pytest.mark.parametrize("name", HEADERS)
async def test_the_log_names_the_client(
    monkeypatch: pytest.MonkeyPatch, name: str, epoll: bool
) -> None:
    """Where a header gives no address, the connection's own counts."""
    if not epoll:
        monkeypatch.setattr("trio_echo.server.service.select", SimpleNamespace())
    with capture_logs() as logs:
        async with running(proxy_protocol=True, log_lines=True) as server:
            async with connected(server) as (stream,):
                own = "{}:{}".format(*stream.socket.getsockname())
                await exchange(stream, HEADERS[name] + b"a\n", b"one a\n")
            await until(lambda: not server.metrics.open)
    client = "192.0.2.7:4000" if name in {"v1", "v2"} else own
    assert requests(logs) == [(client, "a")]
    [opened] = [each for each in logs if each["event"] == "connection opened"]
    assert (opened["peer"], opened["proxy"]) == (client, own)
    [closed] = [each for each in logs if each["event"] == "connection closed"]
    assert (closed["peer"], closed["reason"]) == (client, "eof")


@pytest.mark.parametrize("together", [True, False])
@pytest.mark.parametrize("epoll", [True, False])
@pytest.mark.parametrize("greeting", [b"", b"one\n"])
async def test_the_header_comes_before_tls(
    monkeypatch: pytest.MonkeyPatch,
    certificates: Certificates,
    epoll: bool,
    together: bool,
    greeting: bytes,
) -> None:
    """In one segment with the client's first words, or alone."""
    if not epoll:
        monkeypatch.setattr("trio_echo.server.service.select", SimpleNamespace())
    settings = {"tls": certificates.config(), "proxy_protocol": True, "log_lines": True}
    with capture_logs() as logs:
        async with (
            running(**settings, greeting=bool(greeting)) as server,
            connected(server, port=1) as (plain,),
        ):
            # With the flag, the kernel waits for what comes next.
            flag = getattr(socket, "MSG_MORE", 0) if together else 0
            await plain.socket.send(HEADERS["v2"], flag)
            tls = trio.SSLStream(plain, certificates.client_context(), server_hostname="localhost")
            await exchange(tls, b"a\n", greeting + b"one a\n")
            await plain.send_eof()
            assert await receive_all(tls) == b""
            await until(lambda: not server.metrics.open)
            assert ended(server) == {"eof": 1}
            assert server.metrics.received_bytes == len(HEADERS["v2"]) + 2
    assert requests(logs) == [("192.0.2.7:4000", "a")]


@pytest.mark.parametrize("port", [0, 1])
@pytest.mark.parametrize(
    ("sent", "error"),
    [
        (b"hello\n", "no PROXY header"),
        (b"PROXY TCP4 127.0.0.1\r\n", "the PROXY line must be TCP4 or TCP6"),
        (b"\x16\x03\x01\x02\x00", "no PROXY header"),
        (HEADERS["v2"][:20], "the connection ended amid its PROXY header"),
    ],
)
async def test_without_a_header_nobody_is_served(
    certificates: Certificates, port: int, sent: bytes, error: str
) -> None:
    """The connection ends with nothing sent, on a port of TLS too."""
    settings = {"tls": certificates.config(), "proxy_protocol": True, "greeting": True}
    with capture_logs() as logs:
        async with running(**settings) as server, connected(server, port=port) as (client,):
            await client.send_all(sent)
            await client.send_eof()
            assert await receive_all(client) == b""
            await until(lambda: not server.metrics.open)
            assert ended(server) == {"proxy": 1}
            own = "{}:{}".format(*client.socket.getsockname())
    [warning] = [each for each in logs if each["log_level"] == "warning"]
    assert (warning["event"], warning["peer"]) == ("no PROXY header", own)
    assert warning["error"].startswith(error)


async def test_a_look_at_the_port_is_nothing_to_warn_of() -> None:
    """Health checks connect and say nothing; those that reset, too."""
    with capture_logs() as logs:
        async with running(proxy_protocol=True) as server:
            async with connected(server):
                pass
            await until(lambda: not server.metrics.open)
            assert ended(server) == {"eof": 1}
    assert not [each for each in logs if each["log_level"] == "warning"]


async def test_a_header_is_waited_for_within_a_bound(
    autojump_clock: trio.testing.MockClock,
) -> None:
    """For all of it, not for each byte."""
    autojump_clock.autojump_threshold = 0.02
    async with running(proxy_protocol=True) as server, connected(server) as (client,):
        began = trio.current_time()
        async with trio.open_nursery() as nursery:

            async def trickle() -> None:
                for byte in HEADERS["v1"]:
                    await client.send_all(bytes([byte]))
                    await trio.sleep(3)

            nursery.start_soon(trickle)
            assert await receive_all(client) == b""
            nursery.cancel_scope.cancel()
        assert trio.current_time() - began == pytest.approx(HEADER_TIMEOUT, abs=1)
        await until(lambda: not server.metrics.open)
        assert ended(server) == {"proxy": 1}


async def test_a_drain_ends_who_has_sent_nothing_and_waits_for_who_is_amid_a_header() -> None:
    """A part of a header is owed an answer, as a part of a line is."""
    settings = {"proxy_protocol": True, "drain_timeout": 1000, "idle_timeout": 1000}
    async with running(**settings) as server, connected(server, 2) as (quiet, amid):
        await amid.send_all(HEADERS["v1"][:9])
        await until(lambda: server.metrics.received_bytes == 9)
        server.drain()
        assert await receive_all(quiet) == b""
        await quiet.aclose()
        await exchange(amid, HEADERS["v1"][9:] + b"a\n", b"one a\n")
        await amid.send_eof()
        assert await receive_all(amid) == b""
        await until(lambda: not server.metrics.open)
        assert ended(server) == {"eof": 1, "drain": 1}


async def test_what_has_arrived_as_a_drain_ends_a_connection_is_served() -> None:
    """Its header came after the drain's look, and before its task had a turn."""
    async with running(proxy_protocol=True) as server, connected(server) as (client,):
        await until(lambda: server.metrics.open)
        await trio.testing.wait_all_tasks_blocked()
        (connection,) = server.metrics._open  # noqa: SLF001 - an instant cannot be hit from outside
        connection.end("drain")  # type: ignore[attr-defined]  # a Connection
        client.socket._sock.send(HEADERS["v1"] + b"a\n")  # type: ignore[attr-defined]  # noqa: SLF001 - at once
        assert await client.receive_some() == b"one a\n"


HAPROXY = """
defaults
    mode tcp
    timeout connect 5s
    timeout client 5s
    timeout server 5s
listen one
    bind 127.0.0.1:{front}
    server s1 127.0.0.1:{back} {words}
"""

NGINX = """
load_module /usr/lib/nginx/modules/ngx_stream_module.so;
daemon off;
master_process off;
pid {folder}/nginx.pid;
error_log stderr;
events {{}}
stream {{ server {{ listen 127.0.0.1:{front}; proxy_pass 127.0.0.1:{back}; {words}; }} }}
"""

PROXIES = {
    "send-proxy": ("haproxy", HAPROXY, ("-db", "-f")),
    "send-proxy-v2 check inter 50ms": ("haproxy", HAPROXY, ("-db", "-f")),
    "proxy_protocol on": ("nginx", NGINX, ("-c",)),
}


@asynccontextmanager
async def proxied(folder: Path, words: str, back: int) -> AsyncIterator[int]:
    """Run a real proxy in front of a port while the block lasts; give its own port."""
    program, template, arguments = PROXIES[words]
    if shutil.which(program) is None:
        pytest.skip(f"{program} is not installed")
    with socket.create_server(("127.0.0.1", 0)) as listener:
        front: int = listener.getsockname()[1]
    path = trio.Path(folder / "proxy.conf")
    await path.write_text(template.format(folder=folder, front=front, back=back, words=words))
    process = await trio.lowlevel.open_process(
        [program, *arguments, str(path)], stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL
    )
    try:
        yield front
    finally:
        process.kill()
        await process.wait()


async def connect_from(host: str, port: int) -> trio.SocketStream:
    """Connect from an address of loopback, as soon as somebody listens."""
    while True:
        with suppress(OSError):
            return await trio.open_tcp_stream("127.0.0.1", port, local_address=host)
        await trio.sleep(0.02)


@pytest.mark.parametrize("words", PROXIES)
async def test_a_real_proxy_names_its_client(tmp_path: Path, words: str) -> None:
    """HAProxy and nginx, with the words of their own configuration."""
    with capture_logs() as logs:
        async with (
            running(proxy_protocol=True, log_lines=True) as server,
            proxied(tmp_path, words, server.ports[0]) as front,
        ):
            with trio.fail_after(20):
                client = await connect_from("127.0.0.7", front)  # not the proxy's own address
            async with client:
                host, port = client.socket.getsockname()
                await exchange(client, b"a\n", b"one a\n")
                if "check" in words:
                    await until(lambda: server.metrics.connections > 2)
                await client.send_eof()
                assert await receive_all(client) == b""
    assert requests(logs) == [(f"{host}:{port}", "a")]
    assert not [each for each in logs if each["log_level"] == "warning"]
