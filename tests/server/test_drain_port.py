"""The port in a drain: who is connected is kept, who is not is refused, all are counted."""

from __future__ import annotations

import errno
import socket
import sys
from contextlib import closing, suppress
from typing import TYPE_CHECKING

import pytest
import trio
import trio.testing
from serving import connected, exchange, receive_all, running, until

from trio_echo.server.accept import reset
from trio_echo.server.drain import handshakes, refuse_new, retransmission, unacknowledged, unsent

if TYPE_CHECKING:
    from collections import Counter
    from collections.abc import Iterable, Iterator
    from pathlib import Path

linux = pytest.mark.skipif(sys.platform != "linux", reason="only Linux can keep clients away")


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


def is_free(port: int) -> bool:
    """Whether a server could listen there."""
    with socket.socket() as sock:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        with suppress(OSError):
            sock.bind(("127.0.0.1", port))
            return True
        return False


@linux
def test_refusing_keeps_new_clients_away_and_nobody_else(
    listening: tuple[socket.socket, tuple[str, int]],
) -> None:
    """The backlog stays, a handshake under way ends well, a new one is refused at once."""
    listener, address = listening
    with socket.create_connection(address), handshaking(address) as believing:
        assert refuse_new(listener)
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection(address)
        count = accepted(listener)
        believing.send(b"a\n")
        assert count + accepted(listener) == 2
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection(address)


@linux
def test_a_handshake_under_way_is_seen(
    listening: tuple[socket.socket, tuple[str, int]],
) -> None:
    """Until its last step; those of other ports are not looked for."""
    _, address = listening
    port = address[1]

    def seen() -> bool:
        with handshaking(address):
            return handshakes([port]) == {port: 1} and not handshakes([port + 1])

    # On a busy machine the 40 ms may be over before a look at it.
    assert any(seen() for _ in range(50))
    with handshaking(address) as client:
        client.send(b"a\n")
        assert handshakes([port]) == {}


class Sandboxed(socket.socket):
    """A socket in a sandbox that lets no option be set."""

    def setsockopt(self, level: int, optname: int, *value: object) -> None:
        """Refuse.

        Raises:
            PermissionError: always.
        """
        raise PermissionError(level, optname, value)


def test_what_a_sandbox_forbids_is_no_fault() -> None:
    """The listener goes on to accept; the drain knows that it does."""
    with Sandboxed() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        assert not refuse_new(listener)
        with socket.create_connection(listener.getsockname()):
            pass


def test_elsewhere_nothing_is_done(monkeypatch: pytest.MonkeyPatch) -> None:
    """The numbers of Linux's options mean something else there."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        monkeypatch.setattr(sys, "platform", "darwin")
        assert not refuse_new(listener)
        assert retransmission(listener.fileno()) == 0.2
        assert unsent(listener.fileno()) == 0
        with socket.create_connection(listener.getsockname()):
            pass


def test_what_the_kernel_does_not_tell_is_no_fault(tmp_path: Path) -> None:
    """It tells nothing of handshakes; of a file that is no socket it knows no times."""
    assert handshakes([1], tmp_path) is None
    (tmp_path / "tcp").write_bytes(b"  sl  local_address rem_address   st\n")
    assert handshakes([1], tmp_path) == {}
    with (tmp_path / "tcp").open("rb") as file:
        assert retransmission(file.fileno()) == 0.2
        assert unacknowledged(file.fileno()) == unsent(file.fileno()) == 0


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


@pytest.mark.parametrize("known", [True, False], ids=["the kernel tells", "nobody tells"])
async def test_where_nothing_can_be_refused_the_listener_closes_soon(
    monkeypatch: pytest.MonkeyPatch, autojump_clock: trio.testing.MockClock, known: bool
) -> None:
    """New clients are served until then; waiting for the last one would have no end."""
    autojump_clock.autojump_threshold = 0.02
    monkeypatch.setattr("trio_echo.server.drain.refuse_new", lambda _: False)
    if not known:
        monkeypatch.setattr("trio_echo.server.drain.handshakes", lambda _: None)
    async with running() as server, connected(server) as (client,):
        await exchange(client, b"amid a line\namid", b"one amid a line\n")
        server.drain()
        async with connected(server) as (late,):
            await exchange(late, b"late\n", b"one late\n")
        await until(lambda: is_free(server.ports[0]))
        await exchange(client, b" a line\n", b"one amid a line\n")


@linux
async def test_a_successor_has_the_port_while_a_full_server_drains(
    autojump_clock: trio.testing.MockClock,
) -> None:
    """Those who waited in the backlog wait in the server, and are served when there is a place."""
    autojump_clock.autojump_threshold = 0.02
    async with running(max_connections=1, drain_timeout=1000) as server:
        async with connected(server, 3) as (busy, *waiting):
            await exchange(busy, b"a\namid", b"one a\n")
            for client in waiting:
                await client.send_all(b"b\n")
            server.drain()
            await until(lambda: is_free(server.ports[0]))
            async with (
                running(ports=list(server.ports), prefix="two") as successor,
                connected(successor) as (client,),
            ):
                await exchange(client, b"c\n", b"two c\n")
            await exchange(busy, b" a line\n", b"one amid a line\n")
            for client in waiting:
                assert await receive_all(client) == b"one b\n"
        await until(lambda: not server.metrics.open)
        assert server.dropped_connections == 0


@linux
async def test_who_was_not_served_by_the_deadline_is_counted(
    autojump_clock: trio.testing.MockClock,
) -> None:
    """In line for a place, or amid the handshake: all are reset, and told apart from none."""
    autojump_clock.autojump_threshold = 0.02
    async with running(max_connections=1, drain_timeout=1) as server:
        async with connected(server, 6) as (busy, *waiting):
            await exchange(busy, b"a\namid", b"one a\n")
            server.drain()
            await until(lambda: server.metrics.ended["refused"])
            for client in waiting:
                with pytest.raises(trio.BrokenResourceError):
                    await client.receive_some()
        assert server.metrics.ended["refused"] == 5
        assert server.dropped_connections == 6
        assert server.metrics.connections == 6


@linux
async def test_who_is_not_accepted_at_a_sudden_end_is_counted() -> None:
    """The backlog, and a client that takes its handshake for done."""
    async with running(max_connections=1) as server:
        async with connected(server, 4) as (busy, *_):
            await exchange(busy, b"a\n", b"one a\n")
            with handshaking(("127.0.0.1", server.ports[0])):
                server.cut()
                await until(lambda: server.metrics.ended["refused"])
        assert server.metrics.ended["refused"] == 4
        assert server.metrics.ended["cut"] == 1


@linux
async def test_a_handshake_that_ends_at_the_very_end_is_counted_once(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """It was seen under way, and is in the queue by the time that this is emptied."""
    async with running(max_connections=1) as server, connected(server) as (busy,):
        await exchange(busy, b"a\n", b"one a\n")
        with handshaking(("127.0.0.1", server.ports[0])) as client:

            def seen(ports: Iterable[int]) -> Counter[int] | None:
                under_way = handshakes(ports)
                with suppress(ConnectionError):  # from the second time on it has been reset
                    client.send(b"a\n")
                return under_way

            monkeypatch.setattr("trio_echo.server.drain.handshakes", seen)
            server.cut()
            await until(lambda: server.metrics.ended["refused"])
        assert server.metrics.ended["refused"] == 1


@pytest.mark.parametrize("number", [errno.EMFILE, errno.EBADF])
async def test_a_fault_at_the_very_end_is_none(
    monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    """One that broke in the backlog is passed over; without descriptors, or a listener, it ends."""
    async with running(max_connections=1) as server, connected(server, 2) as (busy, _):
        await exchange(busy, b"a\n", b"one a\n")
        faults = [number, errno.ECONNABORTED]

        def broken(_: socket.socket) -> object:
            raise OSError(faults.pop(), "broken")

        monkeypatch.setattr(socket.socket, "accept", broken)
        server.cut()
        await until(lambda: server.metrics.ended["cut"])
        assert not faults


def test_a_reset_connection_is_read_as_one() -> None:
    """No client takes it for an orderly end."""
    with (
        socket.create_server(("127.0.0.1", 0)) as listener,
        socket.create_connection(listener.getsockname()) as client,
    ):
        reset(listener.accept()[0])
        with pytest.raises(ConnectionResetError):
            client.recv(1)
