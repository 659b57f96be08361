"""The memory limit: whose it is, what counts against it, and who is ended before it is reached."""

from __future__ import annotations

import os
import socket
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import trio
import trio.testing
from hypothesis import given
from hypothesis import strategies as st
from serving import connected, exchange, running, until

from trio_echo.errors import ConfigError
from trio_echo.server.memory import Memory, find_memory, give_back, pause

if TYPE_CHECKING:
    from collections.abc import Mapping

MIB = 1 << 20


def machine(root: Path, files: Mapping[str, str]) -> Path:
    """Write a machine's files."""
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return root


V2 = {
    "proc/self/cgroup": "0::/\n",
    "sys/fs/cgroup/memory.max": f"{256 * MIB}\n",
    "sys/fs/cgroup/memory.current": f"{250 * MIB}\n",
    "sys/fs/cgroup/memory.stat": f"anon 1\nsock 2\ninactive_file {30 * MIB}\n",
}
"""A container under version 2, which sees its own cgroup as the top."""

V1 = {
    "proc/self/cgroup": "5:cpu:/\n4:memory,hugetlb:/pod/one\n0::/\n",
    "sys/fs/cgroup/memory/memory.limit_in_bytes": f"{256 * MIB}\n",
    "sys/fs/cgroup/memory/memory.usage_in_bytes": f"{250 * MIB}\n",
    "sys/fs/cgroup/memory/memory.stat": f"cache 1\ntotal_inactive_file {30 * MIB}\n",
}
"""A container under version 1, which is told the host's path and sees its own as the top."""


@pytest.mark.parametrize("files", [V1, V2], ids=["version 1", "version 2"])
def test_the_limit_of_the_cgroup_holds(tmp_path: Path, files: Mapping[str, str]) -> None:
    """What is used leaves out what the kernel can take back."""
    memory = find_memory(None, machine(tmp_path, files))
    assert memory is not None
    assert memory.limit == 256 * MIB
    assert memory.used() == 220 * MIB
    assert memory.spare() == -28 * MIB
    assert memory.places() == 1
    (tmp_path / "sys/fs/cgroup" / ("" if files is V2 else "memory")).joinpath(
        "memory.current" if files is V2 else "memory.usage_in_bytes"
    ).write_text(f"{64 * MIB}\n")
    assert memory.spare() == 128 * MIB
    assert memory.places() == 16_384


def test_the_lowest_limit_of_those_above_holds(tmp_path: Path) -> None:
    """A pod's container may be within a pod that has less."""
    files = {
        "proc/self/cgroup": "0::/pod/one\n",
        "sys/fs/cgroup/pod/memory.max": "1000\n",
        "sys/fs/cgroup/pod/one/memory.max": "2000\n",
        "sys/fs/cgroup/memory.max": "3000\n",
    }
    memory = find_memory(None, machine(tmp_path, files))
    assert memory is not None
    assert memory.limit == 1000


@pytest.mark.parametrize(
    "files",
    [
        {},
        {"proc/self/cgroup": "1:cpu:/\n"},
        {"proc/self/cgroup": "0::/\n", "sys/fs/cgroup/memory.max": "max\n"},
        {
            "proc/self/cgroup": "4:memory:/\n",
            "sys/fs/cgroup/memory/memory.limit_in_bytes": "9223372036854771712\n",
        },
    ],
    ids=["no cgroups", "not for memory", "none in version 2", "none in version 1"],
)
def test_where_there_is_no_limit_none_holds(tmp_path: Path, files: Mapping[str, str]) -> None:
    """Unless one is asked for, of what this process uses."""
    root = machine(tmp_path, files)
    assert find_memory(None, root) is None
    with pytest.raises(ConfigError, match="max_memory: cannot be held here"):
        find_memory(100 * MIB, root)
    machine(root, {"proc/self/statm": "5000 300 20 1 0 200 0\n"})
    memory = find_memory(100 * MIB, root)
    assert memory is not None
    assert memory.limit == 100 * MIB
    assert memory.used() == 300 * os.sysconf("SC_PAGE_SIZE")


@pytest.mark.parametrize(("asked", "limit"), [(100 * MIB, 100 * MIB), (500 * MIB, 256 * MIB)])
def test_the_lower_of_two_limits_holds(tmp_path: Path, asked: int, limit: int) -> None:
    """The one asked for, or the cgroup's."""
    memory = find_memory(asked, machine(tmp_path, V2 | {"proc/self/statm": "1 1 1"}))
    assert memory is not None
    assert memory.limit == limit


@pytest.mark.parametrize(("files", "bounded"), [(V1, False), (V2, True)])
def test_buffers_are_bounded_where_they_count(
    tmp_path: Path, files: Mapping[str, str], bounded: bool
) -> None:
    """The kernel doubles what it is told; a connection inherits its listener's."""
    memory = find_memory(None, machine(tmp_path, files))
    assert memory is not None
    with socket.create_server(("127.0.0.1", 0)) as listener:
        memory.bound_buffers(listener)
        with socket.create_connection(listener.getsockname()):
            sock, _ = listener.accept()
            with sock:
                for option in (socket.SO_RCVBUF, socket.SO_SNDBUF):
                    assert (sock.getsockopt(socket.SOL_SOCKET, option) == 64 * 1024) is bounded


@given(st.integers(min_value=-(10**12), max_value=10**12))
def test_the_next_look_comes_before_memory_can_be_used_up(spare: int) -> None:
    """At a gigabyte a second; never without a pause, nor after a long one."""
    assert 0.01 <= pause(spare) <= 1
    assert pause(spare) <= max(spare / 10**9, 0.01)


def test_giving_back_is_no_fault_anywhere() -> None:
    """A C library that cannot is left alone."""
    give_back()


class Scarce(Memory):
    """A limit that a test says how much there is below."""

    def __init__(self) -> None:
        super().__init__(1 << 40, Path("unused"))
        self.wanted = 0

    def spare(self) -> int:
        """Nothing is wanted twice."""
        wanted, self.wanted = self.wanted, 0
        return -wanted or 10**12


async def test_those_who_hold_the_most_are_ended_and_nobody_else(
    monkeypatch: pytest.MonkeyPatch, autojump_clock: trio.testing.MockClock
) -> None:
    """As many as it takes; they read a reset, and what they held is gone."""
    autojump_clock.autojump_threshold = 0.02
    scarce = Scarce()
    monkeypatch.setattr("trio_echo.server.service.find_memory", lambda _: scarce)
    async with running() as server, connected(server, 6) as clients:
        sizes = [0, 10_000, 60_000, 20_000, 50_000, 40_000]
        for client, size in zip(clients, sizes, strict=True):
            await exchange(client, b"a\n", b"one a\n")
            await client.send_all(b"x" * size)
        await until(lambda: server.metrics.received_bytes == 12 + sum(sizes))
        count = 0
        for wanted, ended in ((1, [2]), (50_001, [4, 5]), (10**9, [3])):
            scarce.wanted = wanted
            await until(lambda: not scarce.wanted)
            await trio.testing.wait_all_tasks_blocked(0.01)
            count += len(ended)
            assert server.metrics.ended["memory"] == count
            for index in ended:
                with pytest.raises(trio.BrokenResourceError):
                    await clients[index].receive_some()
        await exchange(clients[0], b"b\n", b"one b\n")
        await exchange(clients[1], b"\n", b"one " + b"x" * 10_000 + b"\n")


async def test_a_client_that_does_not_read_is_ended_for_its_answers(
    monkeypatch: pytest.MonkeyPatch, autojump_clock: trio.testing.MockClock
) -> None:
    """Those that wait here, and those that wait in the kernel."""
    autojump_clock.autojump_threshold = 0.02
    scarce = Scarce()
    monkeypatch.setattr("trio_echo.server.service.find_memory", lambda _: scarce)
    async with running() as server, connected(server) as (client,), trio.open_nursery() as nursery:

        async def flood() -> None:
            with pytest.raises(trio.BrokenResourceError):
                while True:
                    await client.send_all(b"\n" * 65_536)

        nursery.start_soon(flood)
        await trio.testing.wait_all_tasks_blocked(0.02)
        scarce.wanted = 1
        await until(lambda: server.metrics.ended["memory"])
