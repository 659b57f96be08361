"""Commands that are run to their end, and programs that are kept running."""

from __future__ import annotations

import os
import subprocess
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import trio

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping, Sequence
    from pathlib import Path


class CommandFailedError(Exception):
    """A command ended with another exit code than 0."""


async def run(*command: str, stdin: str = "", env: Mapping[str, str] | None = None) -> str:
    """What a command prints on its standard output.

    Raises:
        CommandFailedError: With the command and all that it printed.
    """
    done = await trio.run_process(
        command,
        stdin=stdin.encode(),
        capture_stdout=True,
        capture_stderr=True,
        check=False,
        env=None if env is None else {**os.environ, **env},
    )
    if done.returncode != 0:
        words = (done.stdout + done.stderr).decode(errors="replace").strip()
        raise CommandFailedError(f"{' '.join(command)}: exit code {done.returncode}\n{words}")
    return done.stdout.decode()


async def run_all(*command: str, env: Mapping[str, str] | None = None) -> tuple[int, str]:
    """A command's exit code, and all that it printed."""
    done = await trio.run_process(
        command,
        capture_stdout=True,
        stderr=subprocess.STDOUT,
        check=False,
        env=None if env is None else {**os.environ, **env},
    )
    return done.returncode, done.stdout.decode(errors="replace").strip()


class Program:
    """A program that runs, started by this very thread.

    Envoy asks the kernel to be ended with the thread that started it, and trio's own
    processes are started by threads that end after ten idle seconds.
    """

    def __init__(self, started: subprocess.Popen[bytes]) -> None:
        self._started = started

    def poll(self) -> int | None:
        """The exit code, or None while it runs."""
        return self._started.poll()

    async def wait(self) -> int:
        """Wait for its end. Gives the exit code; a cancel leaves it running."""
        while (code := self.poll()) is None:
            watch = os.pidfd_open(self._started.pid)
            try:
                await trio.lowlevel.wait_readable(watch)
            finally:
                os.close(watch)
        return code

    def terminate(self) -> None:
        """Send SIGTERM."""
        self._started.terminate()

    def kill(self) -> None:
        """Send SIGKILL."""
        self._started.kill()


@asynccontextmanager
async def running(
    command: Sequence[str], log: Path, env: Mapping[str, str] | None = None, grace: float = 10
) -> AsyncIterator[Program]:
    """A program that runs until the block ends, and writes its output to a log file.

    At the end, or when the block is cancelled, it gets SIGTERM, and SIGKILL after the
    grace in seconds. A program that ends earlier is no error here: whoever needs it
    waits for the process.
    """
    log.parent.mkdir(parents=True, exist_ok=True)
    # Whatever user it runs as may open its standard output by its path.
    log.touch()
    log.chmod(0o666)
    with log.open("ab") as output:
        started = subprocess.Popen(  # noqa: ASYNC220 - by this thread: see Program
            command,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            env=None if env is None else dict(env),
        )
    process = Program(started)
    try:
        yield process
    finally:
        with trio.CancelScope(shield=True):
            await end(process, grace)


async def end(process: Program, grace: float) -> None:
    """End a process: SIGTERM, and SIGKILL after the grace in seconds."""
    if process.poll() is None:
        process.terminate()
        with trio.move_on_after(grace):
            await process.wait()
    if process.poll() is None:
        process.kill()
    await process.wait()
