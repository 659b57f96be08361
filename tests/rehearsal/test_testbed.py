"""The testbed: a real Envoy, real backends, and nothing left of them afterwards."""

from __future__ import annotations

import os
import signal
import socket
import sys
import tempfile
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import trio
import trio.testing

from trio_echo.errors import RehearsalError
from trio_echo.rehearsal import process
from trio_echo.rehearsal import testbed as testbed_module
from trio_echo.rehearsal.dataplane import PLANES, configure, run_by
from trio_echo.rehearsal.process import find_envoy
from trio_echo.rehearsal.route import built_in
from trio_echo.rehearsal.testbed import Authority, open_testbed
from trio_echo.server.service import serve

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from trio_echo.rehearsal.envoy import Configuration, Machine
    from trio_echo.rehearsal.route import Route
    from trio_echo.rehearsal.testbed import Testbed
    from trio_echo.server.config import ServerConfig
    from trio_echo.server.service import Server

PORT = "built-in"


@pytest.fixture(autouse=True)
def _own_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Temporary files of a test go where it can see what is left of them."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))


@asynccontextmanager
async def up(route: Route) -> AsyncIterator[Testbed]:
    """A testbed; when it is down, no process and no file of it is there."""
    folder = Path(tempfile.gettempdir())
    pid = 0
    try:
        async with open_testbed(route, find_envoy()) as testbed:
            pid = testbed.envoy.pid
            yield testbed
    finally:
        assert not remains(folder)
        if pid:
            with pytest.raises(ProcessLookupError):
                os.kill(pid, 0)


def remains(folder: Path) -> list[Path]:
    """What is left in a folder for temporary files."""
    return list(folder.glob("trio-echo-*"))


async def ask(port: int) -> bytes:
    """The answer to one line on one connection."""
    async with await trio.open_tcp_stream("127.0.0.1", port) as stream:
        return await exchange(stream)


async def exchange(stream: trio.SocketStream) -> bytes:
    """The answer to one line."""
    await stream.send_all(b"x\n")
    return bytes(await stream.receive_some())


async def test_route_is_up_and_gone() -> None:
    """Answers come from the backends of the route, and are counted on the way."""
    async with up(built_in({"one": 1, "two": 1})) as testbed:
        port = testbed.ports[PORT]
        answers = [await ask(port) for _ in range(50)]
        assert set(answers) == {b"one x\n", b"two x\n"}
        counts = {name: answers.count(f"{name} x\n".encode()) for name in ("one", "two")}
        assert testbed.accepted() == counts
        assert await testbed.dialled() == counts
    with pytest.raises(OSError, match="connect"):
        await trio.open_tcp_stream("127.0.0.1", port)


async def test_change_moves_new_connections_only() -> None:
    """Open connections stay with their backend, whatever the route becomes."""
    async with up(built_in({"one": 1, "two": 0})) as testbed:
        port = testbed.ports[PORT]
        async with await trio.open_tcp_stream("127.0.0.1", port) as kept:
            assert await exchange(kept) == b"one x\n"
            for weights, name in (
                ({"one": 0, "two": 1}, b"two"),
                ({"three": 1}, b"three"),
                ({"one": 3, "three": 0}, b"one"),
            ):
                await testbed.change(built_in(weights))
                assert testbed.ports[PORT] == port
                assert {await ask(port) for _ in range(10)} == {name + b" x\n"}
                assert await exchange(kept) == b"one x\n"


async def test_nothing_is_refused_while_the_route_changes() -> None:
    """Connections that come all the time meet no moment without a route."""
    async with up(built_in({"one": 1, "two": 0})) as testbed:
        answers: list[bytes] = []
        over = trio.Event()

        async def keep_asking() -> None:
            while not over.is_set():
                answers.append(await ask(testbed.ports[PORT]))

        async with trio.open_nursery() as nursery:
            for _ in range(4):
                nursery.start_soon(keep_asking)
            for turn in range(10):
                await testbed.change(built_in({"one": turn % 2, "two": 1 - turn % 2}))
            over.set()
        assert set(answers) == {b"one x\n", b"two x\n"}


async def test_refused_change_leaves_the_last_good_route(monkeypatch: pytest.MonkeyPatch) -> None:
    """What Envoy does not take is an error, and the former route stays up."""
    async with up(built_in({"one": 1})) as testbed:
        good = configure
        route = testbed.route
        [backend] = route.backends
        other = replace(backend, config=replace(backend.config, prefix="other"))

        def refused(asked: Route, machine: Machine) -> Configuration:
            found = good(asked, machine)
            if asked is not route:
                found.listeners[:] = [each | {"filter_chains": []} for each in found.listeners]
            return found

        monkeypatch.setattr(testbed_module, "configure", refused)
        with pytest.raises(RehearsalError, match="refuses the route"):
            await testbed.change(built_in({"two": 1}))
        assert await ask(testbed.ports[PORT]) == b"one x\n"
        # Envoy takes in the clusters, which lead to another server, and then
        # refuses the listeners that are to use them.
        with pytest.raises(RehearsalError, match="refuses the route"):
            await testbed.change(replace(route, backends=(other,)))
        assert await ask(testbed.ports[PORT]) == b"one x\n"
        monkeypatch.undo()
        await testbed.change(built_in({"two": 1}))
        assert await ask(testbed.ports[PORT]) == b"two x\n"


async def test_port_in_use_is_left_to_its_owner() -> None:
    """Where the route's port is taken, Envoy listens on another."""
    with socket.socket() as owner:
        owner.bind(("127.0.0.1", 0))
        owner.listen()
        route = built_in({"one": 1}, port=owner.getsockname()[1])
        async with up(route) as testbed:
            assert testbed.ports[PORT] != owner.getsockname()[1]
            assert await ask(testbed.ports[PORT]) == b"one x\n"


async def test_port_taken_at_the_last_moment(monkeypatch: pytest.MonkeyPatch) -> None:
    """A port that was free when looked at and is not when Envoy binds it."""
    monkeypatch.setattr(testbed_module, "_is_free", lambda _: True)
    with socket.socket() as owner:
        owner.bind(("127.0.0.1", 0))
        owner.listen()
        async with up(built_in({"one": 1}, port=owner.getsockname()[1])) as testbed:
            assert testbed.ports[PORT] != owner.getsockname()[1]
            assert await ask(testbed.ports[PORT]) == b"one x\n"


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGABRT])
async def test_crash_of_envoy_ends_the_stage(number: signal.Signals) -> None:
    """An Envoy that ends by itself is an error that says how."""

    async def crash() -> None:
        async with up(built_in({"one": 1})) as testbed:
            os.kill(testbed.envoy.pid, number)
            await trio.sleep_forever()

    with pytest.raises(RehearsalError, match=r"Envoy ended by itself \((SIG|exit code 0)"):
        await crash()


async def test_crash_of_a_backend_ends_the_stage(monkeypatch: pytest.MonkeyPatch) -> None:
    """A backend that fails is an error with its name."""

    async def fragile(
        config: ServerConfig, *, task_status: trio.TaskStatus[Server] = trio.TASK_STATUS_IGNORED
    ) -> None:
        async with trio.open_nursery() as nursery:
            server = await nursery.start(serve, config)
            task_status.started(server)
            await trio.testing.wait_all_tasks_blocked(0.01)
            raise OSError(5, "the disk is on fire")

    monkeypatch.setattr(testbed_module, "serve", fragile)
    with pytest.raises(RehearsalError, match=r"backend one failed: .*the disk is on fire"):
        async with up(built_in({"one": 1})):
            await trio.sleep_forever()


async def test_backend_that_ends_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    """A backend that just returns is an error too."""

    async def short(
        config: ServerConfig, *, task_status: trio.TaskStatus[Server] = trio.TASK_STATUS_IGNORED
    ) -> None:
        async with trio.open_nursery() as nursery:
            server = await nursery.start(serve, config)
            task_status.started(server)
            server.cut()

    monkeypatch.setattr(testbed_module, "serve", short)
    with pytest.raises(RehearsalError, match="backend one ended by itself"):
        async with up(built_in({"one": 1})):
            await trio.sleep_forever()


async def test_envoy_that_does_not_start_is_told(tmp_path: Path) -> None:
    """An Envoy that fails at once is an error with its last words."""
    broken = tmp_path / "envoy"
    broken.write_text("#!/bin/sh\necho no such instruction >&2\nexit 3\n")
    broken.chmod(0o755)
    with pytest.raises(RehearsalError, match=r"(?s)exit code 3.*no such instruction"):
        async with open_testbed(built_in({"one": 1}), str(broken)):
            pytest.fail("there is no Envoy")
    with pytest.raises(RehearsalError, match=r"Envoy does not start: .*No such file"):
        async with open_testbed(built_in({"one": 1}), str(tmp_path / "missing")):
            pytest.fail("there is no Envoy")
    assert not remains(tmp_path)


async def test_error_in_the_block_is_left_as_it_is() -> None:
    """What the user of a testbed raises comes out, and the testbed is gone."""
    with pytest.raises(BaseExceptionGroup) as caught:
        async with up(built_in({"one": 1})):
            raise LookupError("mine")
    assert caught.group_contains(LookupError, match="mine")


async def test_cancelled_stage_leaves_nothing() -> None:
    """A cancellation is an ending like any other."""
    with trio.move_on_after(30) as scope:
        async with up(built_in({"one": 1})):
            scope.cancel()
            await trio.sleep_forever()
    assert scope.cancelled_caught


async def test_admin_interface_that_fails_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    """An answer that is none, and none at all."""
    monkeypatch.setattr(process, "_CRASH_NOTICE", 0.0)
    monkeypatch.setattr(process, "_ADMIN_TIMEOUT", 2.0)
    async with up(built_in({"one": 1})) as testbed:
        with pytest.raises(RehearsalError, match="answers 404 to /nonsense"):
            await testbed.envoy.get("/nonsense")
        with pytest.raises(RehearsalError, match="did not take in the route"):
            await testbed.envoy.took("listener_manager.lds", "another", rejected=9)
        await testbed.change(run_by(PLANES["envoy-gateway"], testbed.route))
        with pytest.raises(RehearsalError, match="did not take in the endpoints"):
            await testbed.envoy.took_endpoints("another")
        with socket.socket() as nobody:
            nobody.bind(("127.0.0.1", 0))
            testbed.envoy.admin = nobody.getsockname()
            with pytest.raises(RehearsalError, match="admin interface does not answer"):
                await testbed.envoy.get("/ready")


@pytest.mark.parametrize("address", ["", "127.0.0.1:1"])
async def test_envoy_that_is_never_ready_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, address: str
) -> None:
    """One that hangs at its start is ended."""
    monkeypatch.setattr(process, "_START_TIMEOUT", 0.3)
    hanging = tmp_path / "envoy"
    hanging.write_text(f'#!/bin/sh\nprintf "{address}" > "$4"\nexec sleep 60\n')
    hanging.chmod(0o755)
    with pytest.raises(RehearsalError, match=r"Envoy is not ready after 0\.3 s"):
        async with open_testbed(built_in({"one": 1}), str(hanging)):
            pytest.fail("it is not ready")
    assert not remains(tmp_path)


async def test_changed_backend_runs_beside_its_former_self() -> None:
    """A new prefix is a new server; the old one keeps its connections, and is counted on."""
    async with up(built_in({"one": 1})) as testbed:
        port = testbed.ports[PORT]
        async with await trio.open_tcp_stream("127.0.0.1", port) as kept:
            assert await exchange(kept) == b"one x\n"
            (backend,) = testbed.route.backends
            other = replace(backend, config=replace(backend.config, prefix="other"))
            await testbed.change(replace(testbed.route, backends=(other,)))
            assert await ask(port) == b"other x\n"
            assert await exchange(kept) == b"one x\n"
            assert testbed.accepted() == {"one": 1, "other": 1}


def test_missing_maker_of_certificates_has_a_remedy(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """TLS needs one more package of the extra."""
    monkeypatch.setitem(sys.modules, "trustme", None)
    with pytest.raises(RehearsalError, match=r"pip install .*'trustme"):
        Authority(tmp_path)


async def test_envoy_that_does_not_end_is_killed(monkeypatch: pytest.MonkeyPatch) -> None:
    """One that is stopped obeys nothing else."""
    monkeypatch.setattr(process, "_LAST_CALL", 0.1)
    async with up(built_in({"one": 1})) as testbed:
        os.kill(testbed.envoy.pid, signal.SIGSTOP)
