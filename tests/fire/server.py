"""``trio-echo serve`` as a process, for programs that try it hard."""

from __future__ import annotations

import re
import signal
import socket
import subprocess
import sys
import threading
import urllib.request
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["ServerProcess", "free_port", "serving"]

_LISTENING: Final = re.compile(r"(listening|admin pages) on (\S+):(\d+)")
_COUNTED: Final = re.compile(r"connections (?:cut|refused).* count=(\d+)")

_PROGRAM: Final = """
import os, signal
def tell(*_):
    import trio
    os.write(2, b"tasks=%d\\n" % trio.lowlevel.current_statistics().tasks_living)
signal.signal(signal.SIGUSR1, tell)
from trio_echo.cli import main
main()
"""
"""The command, with one more signal: it tells how many tasks live."""


@dataclass
class ServerProcess:
    """A server that runs.

    Attributes:
        process: the child.
        log: its lines on stderr so far.
        ports: of its listeners in the order in which it told them, plain before TLS.
        admin: the port of its admin pages, or None.
    """

    process: subprocess.Popen[str]
    log: list[str] = field(default_factory=list)
    ports: list[int] = field(default_factory=list)
    admin: int | None = None
    _news: threading.Condition = field(default_factory=threading.Condition)

    def __post_init__(self) -> None:
        self._reader = threading.Thread(target=self._read, daemon=True)

    def wait_for(self, text: str, seconds: float = 20) -> str:
        """Wait for a line that contains something, and return it."""
        with self._news:
            found = self._news.wait_for(
                lambda: [line for line in self.log if text in line], seconds
            )
            assert found, f"no {text!r} in {self.log}"
            return found[-1]

    def read_log(self, listeners: int) -> None:
        """Read stderr to its end, in a thread; come back when so many listeners are told."""
        self._reader.start()
        with self._news:
            told = self._news.wait_for(lambda: len(self.ports) + bool(self.admin) >= listeners, 20)
        assert told, f"no server: {self.log}"

    def _read(self) -> None:
        assert self.process.stderr is not None
        for line in self.process.stderr:
            with self._news:
                self.log.append(line.rstrip())
                if told := _LISTENING.match(line):
                    if told[1] == "listening":
                        self.ports.append(int(told[3]))
                    else:
                        self.admin = int(told[3])
                self._news.notify_all()

    @property
    def counted(self) -> int:
        """How many clients it says it has cut or refused."""
        return sum(int(found[1]) for line in self.log if (found := _COUNTED.search(line)))

    def end(self) -> int:
        """Send SIGTERM, and see `wait`."""
        self.process.send_signal(signal.SIGTERM)
        return self.wait()

    def wait(self, seconds: float = 60) -> int:
        """Wait for its end, read the log to its end, and return the exit code."""
        code = self.process.wait(seconds)
        self._reader.join(seconds)
        return code

    def metrics(self) -> dict[str, float]:
        """Scrape it: samples by name and labels, as they are written."""
        with urllib.request.urlopen(f"http://127.0.0.1:{self.admin}/metrics", timeout=10) as page:
            lines = page.read().decode().splitlines()
        return {
            name: float(value)
            for line in lines
            if not line.startswith("#")
            for name, _, value in [line.rpartition(" ")]
        }

    def resident(self) -> int:
        """Bytes of memory that it holds."""
        [line] = [line for line in self._proc("status").splitlines() if line.startswith("VmRSS")]
        return int(line.split()[1]) * 1024

    def descriptors(self) -> int:
        """How many files it has open."""
        return len(list(Path(f"/proc/{self.process.pid}/fd").iterdir()))

    def tasks(self) -> int:
        """How many tasks of trio live in it."""
        before = len(self.log)
        self.process.send_signal(signal.SIGUSR1)
        with self._news:
            self._news.wait_for(
                lambda: any(line.startswith("tasks=") for line in self.log[before:]), 20
            )
        return int(self.log[-1].removeprefix("tasks="))

    def cpu(self) -> float:
        """Seconds of processor time so far."""
        fields = self._proc("stat").rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / 100

    def _proc(self, name: str) -> str:
        return Path(f"/proc/{self.process.pid}/{name}").read_text(encoding="ascii")


@contextmanager
def serving(
    *arguments: str, python: str = sys.executable, listeners: int = 1
) -> Iterator[ServerProcess]:
    """Run a server, killed at the end if it has not ended by then.

    Args:
        arguments: what follows ``serve``.
        python: whose package is run.
        listeners: how many addresses to wait for, the admin port's among them.
    """
    command = [python, "-c", _PROGRAM, "serve", *arguments]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True, errors="replace") as process:
        server = ServerProcess(process)
        try:
            server.read_log(listeners)
            yield server
        finally:
            process.kill()
            process.wait()


def free_port() -> int:
    """A port that was free a moment ago."""
    with socket.create_server(("127.0.0.1", 0)) as sock:
        return int(sock.getsockname()[1])
