"""Run ``trio-echo`` as a process to its end, also on a terminal."""

from __future__ import annotations

import os
import pty
import sys
import termios
from pathlib import Path
from typing import TYPE_CHECKING, Any

import trio

if TYPE_CHECKING:
    import subprocess

__all__ = ["COMMAND", "run", "seen_on_a_terminal"]

COMMAND = str(Path(sys.executable).with_name("trio-echo"))
"""Where the command is."""


async def run(*arguments: str | Path, **settings: Any) -> subprocess.CompletedProcess[bytes]:
    """Run ``trio-echo`` to its end."""
    with trio.fail_after(30):
        return await trio.run_process(
            [COMMAND, *map(str, arguments)],
            capture_stdout=True,
            capture_stderr=True,
            check=False,
            **settings,
        )


async def seen_on_a_terminal(
    *arguments: str, environment: dict[str, str] | None = None, narrow_after: bytes = b""
) -> str:
    """Run with a terminal for stdout and stderr; return all that it was sent.

    Args:
        arguments: of the command.
        environment: what it has besides this process's.
        narrow_after: make the terminal narrower once it has shown this; empty for never.
    """
    master, slave = pty.openpty()
    termios.tcsetwinsize(slave, (30, 100))
    shown = b""
    others = ("NO_COLOR", "CI", "COLUMNS", "LINES")  # the last two would be in place of its size
    own = {name: value for name, value in os.environ.items() if name not in others}
    try:
        process = await trio.lowlevel.open_process(
            [COMMAND, *arguments],
            stdout=slave,
            stderr=slave,
            env=own | {"TERM": "xterm-256color", "LC_ALL": "C.UTF-8"} | (environment or {}),
        )
        os.close(slave)
        while True:
            await trio.lowlevel.wait_readable(master)
            try:
                shown += os.read(master, 65536)
                if narrow_after and narrow_after in shown:
                    termios.tcsetwinsize(master, (30, 60))
            except OSError:  # the last one who had the terminal open has gone
                break
        await process.wait()
    finally:
        os.close(master)
    return shown.decode()
