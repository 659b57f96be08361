"""Accepting, and the last instant of it: nobody who is connected is reset."""

from __future__ import annotations

import errno
import socket
import sys
from contextlib import closing
from typing import TYPE_CHECKING

import pytest
import trio
import trio.testing
from serving import connected, exchange, receive_all, running, until

from trio_echo.server.accept import admit, refuse_new

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

linux = pytest.mark.skipif(sys.platform != "linux", reason="only Linux can keep connections away")


def handshaking(address: tuple[str, int]) -> socket.socket:
    """Connect, but leave the server waiting for the last step of the handshake.

    That goes with the first data, or after some 40 ms: a delayed acknowledgement.
    """
    family = socket.AF_INET6 if ":" in address[0] else socket.AF_INET
    client = socket.socket(family)
    client.setsockopt(socket.IPPROTO_TCP, socket.TCP_QUICKACK, 0)
    client.connect(address)
    return client


@pytest.fixture(params=["127.0.0.1", "::1", "dual"])
def listening(request: pytest.FixtureRequest) -> Iterator[tuple[socket.socket, tuple[str, int]]]:
    """A listener of each family, and the address to reach it at."""
    family = socket.AF_INET if request.param == "127.0.0.1" else socket.AF_INET6
    dual = request.param == "dual"
    try:
        listener = socket.create_server(
            ("" if dual else request.param, 0), family=family, dualstack_ipv6=dual
        )
    except OSError:
        pytest.skip("no IPv6 here")
    listener.setblocking(False)
    with listener:
        yield listener, ("127.0.0.1" if dual else request.param, listener.getsockname()[1])


def accepted(listener: socket.socket) -> int:
    """Accept what is there, and count it."""
    count = 0
    while True:
        try:
            sock, _ = listener.accept()
        except BlockingIOError:
            return count
        sock.close()
        count += 1


@linux
def test_refusing_keeps_new_clients_away_and_nobody_else(
    listening: tuple[socket.socket, tuple[str, int]],
) -> None:
    """The backlog stays, a handshake under way ends well, a new one does not begin."""
    listener, address = listening
    with socket.create_connection(address), handshaking(address) as believing:
        assert accepted(listener) == 1
        with socket.create_connection(address):
            refuse_new(listener)
            assert accepted(listener) == 1
            believing.send(b"a\n")
            assert accepted(listener) == 1
            with socket.socket(believing.family) as late:
                late.setblocking(False)
                assert late.connect_ex(address) == errno.EINPROGRESS
                assert accepted(listener) == 0


@linux
@pytest.mark.parametrize("step", ["with the request", "alone"])
async def test_a_handshake_under_way_is_waited_for(step: str) -> None:
    """A client that is connected, as far as it can know, is served in a drain as any other."""
    async with running() as server:
        with closing(handshaking(("127.0.0.1", server.ports[0]))) as client:
            assert server.metrics.connections == 0
            server.drain()
            await trio.testing.wait_all_tasks_blocked()
            if step == "alone":
                client.setsockopt(socket.IPPROTO_TCP, socket.TCP_QUICKACK, 1)
                await until(lambda: server.metrics.connections)
            client.send(b"a\n")
            client.shutdown(socket.SHUT_WR)
            client.setblocking(False)
            stream = trio.SocketStream(trio.socket.from_stdlib_socket(client))
            with trio.fail_after(5):
                assert await receive_all(stream) == b"one a\n"


async def test_a_connection_that_broke_in_the_backlog_harms_nobody(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Some systems report it at the accept; the next one is served."""
    faults = [errno.ECONNABORTED, errno.EPROTO]
    accept = socket.socket._accept  # type: ignore[attr-defined]  # noqa: SLF001 - as the acceptor does

    def broken(listener: socket.socket) -> object:
        if faults:
            raise OSError(faults.pop(), "broken")
        return accept(listener)

    async with running() as server:
        monkeypatch.setattr(socket.socket, "_accept", broken, raising=False)
        async with connected(server) as (client,):
            with trio.fail_after(5):
                await exchange(client, b"a\n", b"one a\n")
    assert not faults


class Sandboxed(socket.socket):
    """A socket in a sandbox that lets no option be set."""

    def setsockopt(self, level: int, optname: int, *value: object) -> None:
        """Refuse.

        Raises:
            PermissionError: always.
        """
        raise PermissionError(level, optname, value)


@linux
@pytest.mark.parametrize("kind", [socket.socket, Sandboxed])
def test_the_backlog_stays_and_nothing_is_added(kind: type[socket.socket]) -> None:
    """Whatever is allowed, who waits is served and the next is not."""
    clients = [socket.socket() for _ in range(4)]
    with kind() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen(10)
        listener.setblocking(False)
        for client in clients[:2]:
            client.connect(listener.getsockname())

        refuse_new(listener)

        for client in clients[2:]:
            client.settimeout(0.05)
            with pytest.raises(TimeoutError):
                client.connect(listener.getsockname())
        accepted = [listener.accept()[0] for _ in range(2)]
        with pytest.raises(BlockingIOError):
            listener.accept()
        for client, server in zip(clients, accepted, strict=False):
            assert client.getsockname() == server.getpeername()
    for each in (*clients, *accepted):
        each.close()


@linux
def test_what_a_sandbox_forbids_is_no_fault() -> None:
    """Where nothing could be demanded, nothing has to be taken back."""
    with Sandboxed() as sock:
        admit(sock)


@linux
@pytest.mark.parametrize("call", [admit, refuse_new])
def test_elsewhere_nothing_is_done(
    monkeypatch: pytest.MonkeyPatch, call: Callable[[socket.socket], None]
) -> None:
    """The numbers of the options mean something else there."""
    monkeypatch.setattr(sys, "platform", "darwin")
    with socket.create_server(("127.0.0.1", 0)) as listener:
        call(listener)
        with socket.create_connection(listener.getsockname()), closing(listener.accept()[0]):
            pass
