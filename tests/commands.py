"""Run the installed command ``trio-echo serve`` as a process, as a user does."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

LISTENING = re.compile(r"listening on (?:127\.0\.0\.1|\[::1?\]|0\.0\.0\.0):(\d+), prefix: ")
ADMIN = re.compile(r"admin pages on (?:127\.0\.0\.1|\[::1?\]|0\.0\.0\.0):(\d+)")


class ServeProcess:
    """A running ``trio-echo serve``.

    Attributes:
        ports: those it said that it listens on, in order.
        admin_port: the one of the admin pages, if it said one.
        log: what it wrote to stderr so far; all of it after `end`.
    """

    def __init__(self, process: subprocess.Popen[str], listeners: int, admin: bool) -> None:
        self._process = process
        self.log: list[str] = []
        self.ports: list[int] = []
        self.admin_port: int | None = None
        assert process.stderr is not None
        while len(self.ports) < listeners or (admin and self.admin_port is None):
            line = process.stderr.readline()
            assert line, f"it ended, saying {self.log}"
            self.log.append(line)
            if found := LISTENING.search(line):
                self.ports.append(int(found[1]))
            if found := ADMIN.search(line):
                self.admin_port = int(found[1])

    def signal(self, number: signal.Signals = signal.SIGTERM) -> None:
        """Send a signal."""
        self._process.send_signal(number)

    def end(self) -> int:
        """Wait for the end and return the exit code."""
        _, rest = self._process.communicate(timeout=20)
        self.log += rest.splitlines(keepends=True)
        return self._process.returncode


@contextmanager
def serve_process(
    *arguments: str | Path, environment: Mapping[str, str] | None = None, listeners: int = 1
) -> Iterator[ServeProcess]:
    """Run ``trio-echo serve`` until it listens; stop it at the end if it still runs.

    Args:
        arguments: what follows ``serve``.
        environment: variables besides this process's own.
        listeners: how many ports it will say that it listens on.
    """
    own = {name: value for name, value in os.environ.items() if "TRIO_ECHO" not in name}
    command = [Path(sys.executable).with_name("trio-echo"), "serve", *arguments]
    with subprocess.Popen(
        command, stderr=subprocess.PIPE, text=True, env=own | dict(environment or {})
    ) as process:
        try:
            yield ServeProcess(process, listeners, "--admin-port" in arguments)
        finally:
            if process.returncode is None:
                process.kill()
