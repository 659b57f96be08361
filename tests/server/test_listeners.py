"""Listening: on what was asked for, or a refusal that says what can be done."""

from __future__ import annotations

import errno
import os
import socket
from contextlib import ExitStack, asynccontextmanager
from ipaddress import IPv6Address
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import trio
import trio.testing

from trio_echo.errors import ConfigError
from trio_echo.server.config import ServerConfig
from trio_echo.server.listeners import (
    Listener,
    open_listeners,
    peer,
)
from trio_echo.text import format_address

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence


@asynccontextmanager
async def listening(
    ports: Sequence[int], hosts: Sequence[str] = (), admin_port: int | None = None
) -> AsyncIterator[list[Listener]]:
    """Open listeners, those of the admin port last, and close them."""
    config = ServerConfig(ports=ports, hosts=hosts, admin_port=admin_port)
    with ExitStack() as opened:
        listeners, admin_listeners = await open_listeners(config)
        for listener in (*listeners, *admin_listeners):
            opened.enter_context(listener.sock)
        yield [*listeners, *admin_listeners]


async def refused(hosts: Sequence[str] = (), port: int = 0) -> tuple[str, str]:
    """Listen in vain; return the field at fault and what was said of it."""
    with pytest.raises(ConfigError) as raised:
        await open_listeners(ServerConfig(ports=[port], hosts=hosts))
    return raised.value.field, raised.value.reason


def has_ipv6() -> bool:
    """Whether this machine speaks it."""
    try:
        with socket.create_server(("::1", 0), family=socket.AF_INET6):
            return True
    except OSError:
        return False


needs_ipv6 = pytest.mark.skipif(not has_ipv6(), reason="this machine has no IPv6")


@needs_ipv6
async def test_by_default_both_families_are_served_by_one_socket() -> None:
    """An IPv4 client is written as what it is."""
    async with listening([0]) as (listener,):
        assert str(listener) == f"[::]:{listener.port}"
        for address in ("127.0.0.1", "::1"):
            with socket.create_connection((address, listener.port)) as client:
                peer, source = listener.sock.accept()
                with peer:
                    written = format_address(*source[:2])
                    assert written == format_address(*client.getsockname()[:2])


@needs_ipv6
async def test_an_ipv6_address_is_that_and_no_more() -> None:
    """Only the wildcard is dual stack."""
    async with listening([0], ["::1"]) as (listener,):
        assert str(listener) == f"[::1]:{listener.port}"
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection(("127.0.0.1", listener.port))


@needs_ipv6
@pytest.mark.parametrize(
    ("hosts", "heard"),
    [
        (["127.0.0.1", "127.0.0.1"], ["127.0.0.1"]),
        (["0.0.0.0", "::"], ["0.0.0.0", "::"]),
        (["::", "0.0.0.0"], ["::", "0.0.0.0"]),
        (["127.0.0.1", "0.0.0.0"], ["0.0.0.0"]),
        (["::1", "::", "127.0.0.1"], ["::", "127.0.0.1"]),
        (["::", "::1"], ["::"]),
    ],
)
async def test_addresses_that_overlap_are_listened_on_once(
    hosts: list[str], heard: list[str]
) -> None:
    """Each is served, and none is taken for a port in use by somebody else."""
    async with listening([0], hosts) as listeners:
        assert [listener.host for listener in listeners] == heard
        for host in hosts:
            address = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)
            socket.create_connection((address, listeners[0].port)).close()


@needs_ipv6
async def test_a_port_0_is_the_same_on_all_hosts() -> None:
    """A client that is told one port finds it at every address."""
    async with listening([0, 0], ["127.0.0.1", "::1"], admin_port=0) as listeners:
        first, also_first, second, also_second, admin, also_admin = listeners
        assert first.port == also_first.port
        assert second.port == also_second.port
        assert admin.port == also_admin.port
        assert len({first.port, second.port, admin.port}) == 3


@needs_ipv6
async def test_a_port_that_is_free_on_one_host_only_is_tried_anew(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The kernel chooses on the first host, and does not know of the next."""
    real, failures = socket.socket.bind, [2]

    def bind(sock: socket.socket, address: Any) -> None:
        if sock.family == socket.AF_INET6 and failures[0]:
            failures[0] -= 1
            raise OSError(errno.EADDRINUSE, "taken")
        real(sock, address)

    monkeypatch.setattr(socket.socket, "bind", bind)
    async with listening([0], ["127.0.0.1", "::1"]) as (first, second):
        assert first.port == second.port
    failures[0] = 1000
    field, reason = await refused(["127.0.0.1", "::1"])
    assert field == "ports"
    assert "already in use" in reason


@pytest.mark.parametrize("error", [errno.EAFNOSUPPORT, errno.EADDRNOTAVAIL])
async def test_without_ipv6_every_ipv4_address_is_served(
    monkeypatch: pytest.MonkeyPatch, error: int
) -> None:
    """The kernel has it not at all, or has it switched off."""
    real = socket.socket.bind

    def bind(sock: socket.socket, address: Any) -> None:
        if sock.family == socket.AF_INET6:
            raise OSError(error, os.strerror(error))
        real(sock, address)

    monkeypatch.setattr(socket.socket, "bind", bind)
    async with listening([0]) as (listener,):
        assert str(listener) == f"0.0.0.0:{listener.port}"
        socket.create_connection(("127.0.0.1", listener.port)).close()
    with pytest.raises(ConfigError, match="no IPv6 here"):
        await open_listeners(ServerConfig(ports=[0], hosts=["::"]))


@pytest.mark.parametrize("host", ["no such host", "..", "[::1]"])
async def test_a_host_that_does_not_resolve_is_refused(host: str) -> None:
    """In words that repeat it."""
    field, reason = await refused([host])
    assert field == "host"
    assert reason.startswith(f"cannot resolve {host!r}: ")


async def test_an_address_of_another_machine_is_refused() -> None:
    """It is the host's fault, not the port's."""
    assert await refused(["192.0.2.1"]) == ("host", "192.0.2.1 is not an address of this machine")


async def test_a_port_in_use_is_refused_with_a_remedy() -> None:
    """And nothing that was opened before it stays open."""
    async with listening([0], ["127.0.0.1"]) as (taken,):
        remedy = "already in use; choose another port, or 0 for any free one"
        assert await refused(["127.0.0.1"], taken.port) == ("ports", f"{taken} is {remedy}")


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (errno.EACCES, "not allowed to listen on 127.0.0.1:80; choose a port from 1024 up"),
        (errno.ENOMEM, "cannot listen on 127.0.0.1:80: Cannot allocate memory"),
    ],
)
async def test_what_the_kernel_refuses_is_said(
    monkeypatch: pytest.MonkeyPatch, error: int, said: str
) -> None:
    """The test may run as root, who is allowed everything: so the kernel's word is given."""

    def bind(_sock: socket.socket, _address: Any) -> None:
        raise OSError(error, os.strerror(error))

    monkeypatch.setattr(socket.socket, "bind", bind)
    assert await refused(["127.0.0.1"], 80) == ("ports", said)


def link_local() -> str | None:
    """A link-local address of this machine, with its interface."""
    interfaces = Path("/proc/net/if_inet6")
    for line in interfaces.read_text("ascii").splitlines() if interfaces.exists() else ():
        digits, _, _, scope, _, name = line.split()
        if scope == "20":
            return f"{IPv6Address(bytes.fromhex(digits))}%{name}"
    return None


@pytest.mark.skipif(link_local() is None, reason="this machine has no link-local address")
async def test_a_link_local_address_keeps_its_interface() -> None:
    """It is listened on, written and reached with it."""
    host = link_local()
    assert host is not None
    async with listening([0], [host]) as (listener,):
        assert str(listener) == f"[{host}]:{listener.port}"
        with socket.create_connection((host, listener.port)) as client:
            accepted, source = listener.sock.accept()
            with accepted:
                assert peer(source) == f"[{host}]:{client.getsockname()[1]}"


async def test_a_slow_resolver_keeps_nobody_waiting() -> None:
    """It is trio's, which asks in a thread."""
    asked = []

    class Slow(trio.abc.HostnameResolver):
        """Answers after a turn of everybody else."""

        async def getaddrinfo(self, host: bytes | None, *_: object, **__: object) -> Any:
            await trio.testing.wait_all_tasks_blocked()
            asked.append(host)
            return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", ("127.0.0.1", 0))]

        async def getnameinfo(self, *_: object) -> Any:
            raise NotImplementedError

    before = trio.socket.set_custom_hostname_resolver(Slow())
    try:
        async with listening([0], ["backend.example"]) as (listener,):
            assert listener.host == "127.0.0.1"
    finally:
        trio.socket.set_custom_hostname_resolver(before)
    assert asked == [b"backend.example"]
