"""Limits: connections, descriptors, time and memory. Nobody is reset, nobody holds up others."""

from __future__ import annotations

import select
import signal
import socket
from contextlib import AsyncExitStack
from pathlib import Path

import pytest
import trio
import trio.testing
from logged import capture_logs
from serving import (
    answers,
    command,
    connected,
    exchange,
    receive,
    receive_all,
    running,
    until,
)

epolls = pytest.mark.parametrize("epoll", [True, False], ids=["engine", "generic"])


@pytest.fixture
def clock() -> trio.testing.MockClock:
    """Time that passes when nothing else happens; real sockets get an instant to move."""
    return trio.testing.MockClock(autojump_threshold=0.02)


# -- connections


async def test_the_next_client_waits_in_the_backlog() -> None:
    """Connected, its request written, and served as soon as a place frees; none is reset."""
    async with running(max_connections=2) as server:
        async with connected(server, 2) as (first, second), connected(server, 20) as waiting:
            for client in (first, second):
                await exchange(client, b"a\n", b"one a\n")
            for client in waiting:
                await client.send_all(b"b\n")
            await trio.testing.wait_all_tasks_blocked()
            assert server.metrics.connections == server.metrics.open == 2
            await first.aclose()
            for client in waiting:
                with trio.fail_after(5):
                    await exchange(client, b"", b"one b\n")
                assert server.metrics.open == 2
                await client.aclose()
            await exchange(second, b"c\n", b"one c\n")
        await until(lambda: not server.metrics.open)
        assert server.metrics.ended == {**dict.fromkeys(server.metrics.ended, 0), "eof": 22}


async def test_a_place_is_not_kept_for_a_listener_that_nobody_waits_at() -> None:
    """The place that frees goes to whoever waits, on whichever port."""
    async with running(ports=[0, 0], max_connections=1) as server:
        # Both listeners find it full, one after the other, in both orders.
        for first, second in ((0, 1), (1, 0)):
            async with connected(server, port=first) as (client,):
                await exchange(client, b"a\n", b"one a\n")
                async with connected(server, port=second) as (waiting,):
                    await waiting.send_all(b"b\n")
                    await trio.testing.wait_all_tasks_blocked()
                    await client.aclose()
                    with trio.fail_after(5):
                        await exchange(waiting, b"", b"one b\n")
            await until(lambda: not server.metrics.open)


async def test_the_warning_names_the_limit() -> None:
    """Also when the clients came all at once."""
    with capture_logs() as logs:
        async with running(max_connections=3) as server, connected(server, 3) as clients:
            for client in clients:
                await exchange(client, b"a\n", b"one a\n")
    assert [
        (entry["log_level"], entry["max_connections"])
        for entry in logs
        if "max_connections" in entry
    ] == [("info", 3), ("warning", 3)]


# -- descriptors


async def test_a_lack_of_descriptors_is_waited_out() -> None:
    """Who is in serves on, who waits is served later, and each episode is told once."""
    scarce = "import resource; resource.setrlimit(resource.RLIMIT_NOFILE, (40, 40))"
    async with command("0", "one", "--max-connections", "1000", launcher=(scarce,)) as child:
        for episode in (1, 2):
            async with AsyncExitStack() as opened:
                clients = [
                    await opened.enter_async_context(await child.connect()) for _ in range(60)
                ]
                await child.wait_for_log("cannot accept for now", times=episode)
                await exchange(clients[0], b"a\n", b"one a\n")
                for client in clients:
                    await client.send_all(b"b\n")
                for client in clients:
                    await exchange(client, b"", b"one b\n")
                    await client.aclose()
            async with await child.connect() as client:
                await exchange(client, b"c\n", b"one c\n")
        warnings = [line for line in child.log if line.startswith("warning")]
        assert len(warnings) == 2
        assert all("error='Too many open files'" in line for line in warnings)
        child.signal(signal.SIGTERM)
        assert await child.wait() == 0
        assert not any("Traceback" in line for line in child.log)


async def test_the_limit_of_open_files_makes_the_limit_of_connections() -> None:
    """With a reserve, so that the lack of descriptors is not met."""
    few = "import resource; resource.setrlimit(resource.RLIMIT_NOFILE, (70, 70))"
    async with command("0", "one", launcher=(few,)) as child:
        async with AsyncExitStack() as opened:
            for _ in range(10):
                client = await opened.enter_async_context(await child.connect())
                await client.send_all(b"a\n")
            await child.wait_for_log("no place for another connection")
        warnings = [line for line in child.log if "warning" in line]
        assert all(line.endswith("in the backlog max_connections=6") for line in warnings)


# -- time


@epolls
async def test_idle_clients_are_ended_and_others_are_not(
    monkeypatch: pytest.MonkeyPatch, clock: trio.testing.MockClock, epoll: bool
) -> None:
    """One that moves a byte now and then stays, a byte of a line that never ends is enough."""
    if not epoll:
        monkeypatch.delattr(select, "epoll")
    with capture_logs() as logs:
        async with running(idle_timeout=100) as server, connected(server, 3) as clients:
            idle, amid, talking = clients
            await exchange(idle, b"a\n", b"one a\n")
            await amid.send_all(b"amid a line")
            for _ in range(10):
                await trio.sleep(60)
                await talking.send_all(b"b")
            for client in (idle, amid):
                assert await client.receive_some() == b""
            await exchange(talking, b"\n", b"one bbbbbbbbbb\n")
            assert server.metrics.ended["idle"] == 2
            assert server.metrics.open == 1
            began = clock.current_time()
            assert await talking.receive_some() == b""
            assert 100 <= clock.current_time() - began <= 130
    warnings = [entry["event"] for entry in logs if entry["log_level"] == "warning"]
    assert warnings == ["idle for too long"] * 3


@pytest.fixture
def steered() -> trio.testing.MockClock:
    """Time that passes as it does, and jumps when told to.

    A full pipe takes the kernel's own time to move, and no idle moment of this
    process tells that it is done.
    """
    return trio.testing.MockClock(rate=1)


@epolls
async def test_stuck_clients_are_ended_and_slow_ones_are_not(
    monkeypatch: pytest.MonkeyPatch, steered: trio.testing.MockClock, epoll: bool
) -> None:
    """Two full pipes: the one that is read from, a little now and then, loses nothing."""
    if not epoll:
        monkeypatch.delattr(select, "epoll")
    lines = b"".join(b"line %d\n" % number for number in range(1_200_000))
    expected = answers(lines)
    with capture_logs() as logs:
        async with running(idle_timeout=100) as server, connected(server, 2) as (stuck, slow):
            # Less than is read in each turn below: the kernel says nothing of room for
            # more while there is less than a sixteenth of a buffer, which it lets grow.
            slow.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 100_000)
            async with trio.open_nursery() as nursery:
                nursery.start_soon(send_until_broken, stuck)
                nursery.start_soon(slow.send_all, lines)
                await trio.testing.wait_all_tasks_blocked(0.02)
                read = bytearray()
                for turn in range(10):
                    assert turn > 1 or server.metrics.open == 2
                    read += await receive(slow, 500_000)
                    for _ in range(7):
                        steered.jump(10)
                        await trio.testing.wait_all_tasks_blocked(0.01)
                assert server.metrics.open == 1
                read += await receive(slow, len(expected) - len(read))
            assert read == expected
            await exchange(slow, b"a\n", b"one a\n")
            assert server.metrics.ended["idle"] == 1
    assert not [entry for entry in logs if entry["log_level"] == "error"]


async def send_until_broken(client: trio.abc.SendStream) -> None:
    """Send lines and never read, until the server has had enough."""
    with pytest.raises(trio.BrokenResourceError):
        while True:
            await client.send_all(b"line\n" * 10_000)


# -- memory

WORST = {
    "bare newlines": b"\n" * 65_536,
    "the longest lines": (b"a" * 65_536 + b"\n") * 4,
    "longest lines and newlines": b"\n" * 65_535 + b"a" * 65_536 + b"\n" * 65_535,
    "one byte lines": b"a\n" * 65_536,
}


@pytest.mark.parametrize("worst", WORST.values(), ids=WORST)
async def test_the_worst_clients_cost_less_than_a_mebibyte_each(worst: bytes) -> None:
    """They send all they can, with the longest prefix, and never read."""
    async with command("0", "p" * 255) as child, AsyncExitStack() as opened:
        async with await child.connect() as first:
            await exchange(first, b"a\n", b"p" * 255 + b" a\n")
        before = peak(child.process.pid)
        streams = [await opened.enter_async_context(await child.connect()) for _ in range(20)]
        with trio.move_on_after(1):  # there is no telling when a pipe is full for good
            async with trio.open_nursery() as nursery:
                for stream in streams:
                    nursery.start_soon(send_for_ever, stream, worst)
        assert (peak(child.process.pid) - before) / len(streams) < 2**20


async def send_for_ever(client: trio.abc.SendStream, data: bytes) -> None:
    """Send something again and again, and never read."""
    while True:
        await client.send_all(data)


def peak(pid: int) -> int:
    """The most memory that a process has held, in bytes."""
    status = Path(f"/proc/{pid}/status").read_text(encoding="ascii")
    (line,) = (line for line in status.splitlines() if line.startswith("VmHWM:"))
    return int(line.split()[1]) * 1024


# -- urgent data


@epolls
async def test_urgent_data_stalls_no_line(monkeypatch: pytest.MonkeyPatch, epoll: bool) -> None:
    """TCP's urgent byte is not part of the stream, and hides nothing behind it."""
    if not epoll:
        monkeypatch.delattr(select, "epoll")
    async with running() as server, connected(server) as (client,):
        for number in range(50):
            client.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            await client.send_all(b"%d " % number)
            await client.socket.send(b"!", socket.MSG_OOB)
            await client.send_all(b"a\n")
            with trio.fail_after(5):
                await exchange(client, b"b\n", b"one %d a\none b\n" % number)
        await client.send_eof()
        assert await receive_all(client) == b""
