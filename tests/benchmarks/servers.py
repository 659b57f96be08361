"""The servers side by side, and one of them as a process of its own."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryFile
from typing import IO, TYPE_CHECKING

from benchmarks.summary import OURS

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

__all__ = ["SERVERS", "MisbehavedError", "Process", "build", "cores", "pinned", "running"]

_HERE = Path(__file__).parent
_SCRIPTS = Path(sys.executable).parent
_BUILT = Path(sys.prefix) / "go-build"

_STARTUP = 15.0  # seconds; Python with a cold cache on a busy machine takes 2
_ENDING = 5.0

# Each command takes the port and the prefix as its last two arguments. All of them
# listen on every address of the machine, as trio-echo does with default options.
SERVERS: dict[str, Sequence[str | Path]] = {
    OURS: [_SCRIPTS / "trio-echo", "serve", "--admin-port", "0"],
    "go-print": [_BUILT / "echo", "-print"],
    "go-silent": [_BUILT / "echo"],
    "c-epoll": [_BUILT / "c-epoll"],
    "uvloop": [sys.executable, _HERE / "peers" / "uvloop_batched.py"],
    "asyncio": [sys.executable, _HERE / "peers" / "asyncio_streams.py"],
    "trio": [sys.executable, _HERE / "peers" / "trio_lines.py"],
}


class MisbehavedError(Exception):
    """A server did not start, answered wrongly or ended by itself."""


def build() -> Path:
    """Build the programs in Go and C, and return the load generator's path.

    Nothing is fetched: they use the standard libraries only, and the toolchains
    are those installed beside this Python; for C the system's, where that is not.
    What the compilers cache stays in this virtual environment.
    """
    offline = {
        "GOTOOLCHAIN": "local",
        "GOPROXY": "off",
        "GOFLAGS": "-mod=mod",
        "GOENV": "off",
        "GOTELEMETRY": "off",
        "GOPATH": str(_BUILT / "path"),
        "GOCACHE": str(_BUILT / "cache"),
        "CGO_ENABLED": "0",
    }
    subprocess.run(
        [_SCRIPTS / "go", "build", "-o", f"{_BUILT}{os.sep}", "./..."],
        cwd=_HERE / "go",
        env=os.environ | offline,
        check=True,
    )
    zig = find_spec("ziglang") is not None
    subprocess.run(
        [
            *([sys.executable, "-m", "ziglang", "cc"] if zig else ["cc"]),
            *("-O2", "-Wall", "-Wextra", "-Werror", "-o", _BUILT / "c-epoll"),
            _HERE / "c" / "echo.c",
        ],
        env=os.environ | {"ZIG_GLOBAL_CACHE_DIR": str(_BUILT / "cache")},
        check=True,
    )
    return _BUILT / "load"


def cores() -> tuple[int, int] | None:
    """Choose a core for the server and another for the generator.

    The first and the last: neighbours may be two threads of one physical core.
    None where there is only one, or where a process cannot be pinned.
    """
    if not hasattr(os, "sched_getaffinity"):
        return None
    allowed = sorted(os.sched_getaffinity(0))
    return (allowed[0], allowed[-1]) if len(allowed) > 1 else None


@contextmanager
def pinned(core: int | None) -> Iterator[None]:
    """Let the processes started within run on one core only.

    Args:
        core: its number; None leaves them any.
    """
    cores = os.sched_getaffinity(0)
    try:
        if core is not None:
            os.sched_setaffinity(0, {core})
        yield
    finally:
        os.sched_setaffinity(0, cores)


@dataclass(frozen=True, slots=True)
class Process:
    """A server that runs.

    Attributes:
        name: which one, a key of `SERVERS`.
        port: where it listens.
        popen: its process.
        log: the file that takes what it writes to stderr.
    """

    name: str
    port: int
    popen: subprocess.Popen[bytes]
    log: IO[bytes]

    @property
    def pid(self) -> int:
        """Its process id."""
        return self.popen.pid

    def said(self, word: bytes) -> bool:
        """Whether its log has a word."""
        # Not by a seek: the child writes on from wherever this would leave the file.
        return word in os.pread(self.log.fileno(), 1 << 20, 0)

    def memory(self) -> int:
        """Its share of resident memory (PSS), in bytes."""
        return self._kilobytes("smaps_rollup", "Pss:")

    def peak(self) -> int:
        """The most resident memory since `forget_peak`, in bytes."""
        return self._kilobytes("status", "VmHWM:")

    def forget_peak(self) -> int:
        """Start a new peak at the memory that is resident now, and return that in bytes."""
        (Path("/proc") / f"{self.pid}" / "clear_refs").write_text("5")
        return self.peak()

    def _kilobytes(self, file: str, field: str) -> int:
        """Read a field of one of the kernel's files about the process, in bytes."""
        for line in (Path("/proc") / f"{self.pid}" / file).read_text().splitlines():
            if line.startswith(field):
                return int(line.split()[1]) * 1024
        raise LookupError(field)


@contextmanager
def running(
    name: str, prefix: str, core: int | None, *, options: Sequence[str] = ()
) -> Iterator[Process]:
    """Start a server, pinned as `pinned` says, wait until it accepts, and end it afterwards.

    Args:
        name: which one, a key of `SERVERS`.
        prefix: what it puts before each answer.
        core: where it runs.
        options: beside those that it always has.

    Raises:
        MisbehavedError: it did not start, or has ended by itself.
    """
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    command = [*SERVERS[name], *options, str(port), prefix]
    # What a server prints goes nowhere: the cheapest place, in favour of those that print.
    with TemporaryFile() as complaints, ExitStack() as stack:
        with pinned(core):
            popen = stack.enter_context(
                subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=complaints)
            )
        try:
            process = Process(name, port, popen, complaints)
            started = _accepts(process)
            if started:
                yield process
            if not started or popen.poll() is not None:
                complaints.seek(0)
                last = complaints.read().decode(errors="replace").strip().rpartition("\n")[2]
                event = "ended by itself" if started else "did not start"
                raise MisbehavedError(f"{name} {event}, exit code {popen.returncode}: {last}")
        finally:
            popen.terminate()
            with suppress(subprocess.TimeoutExpired):
                popen.wait(_ENDING)
            popen.kill()


def _accepts(process: Process) -> bool:
    """Wait until the server accepts connections; tell whether it does."""
    deadline = time.monotonic() + _STARTUP
    while process.popen.poll() is None and time.monotonic() < deadline:
        with socket.socket() as client:
            if client.connect_ex(("127.0.0.1", process.port)) == 0:
                return True
        time.sleep(0.05)
    return False
