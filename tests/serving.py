"""Servers for tests: in this process, and the command as a child process."""

from __future__ import annotations

import contextlib
import re
import socket
import subprocess
import sys
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any

import trio

from trio_echo.framing import Framer, encode_prefix
from trio_echo.server.config import ServerConfig
from trio_echo.server.service import Server, serve

if TYPE_CHECKING:
    import signal
    from collections.abc import AsyncGenerator, Callable, Mapping

__all__ = [
    "Command",
    "answers",
    "close_with_reset",
    "command",
    "connect",
    "connected",
    "exchange",
    "receive",
    "receive_all",
    "running",
    "until",
]


@asynccontextmanager
async def running(**settings: Any) -> AsyncGenerator[Server]:
    """Run a server with the prefix ``one`` on a port of loopback; cut it at the end."""
    config = ServerConfig(**({"ports": [0], "prefix": "one", "hosts": ["127.0.0.1"]} | settings))
    async with trio.open_nursery() as nursery:
        server: Server = await nursery.start(serve, config)
        yield server
        server.cut()


async def connect(server: Server, port: int = 0) -> trio.SocketStream:
    """Connect to one of the server's ports, by its place in the configuration."""
    return await trio.open_tcp_stream("127.0.0.1", server.ports[port])


@asynccontextmanager
async def connected(
    server: Server, count: int = 1, port: int = 0
) -> AsyncGenerator[list[trio.SocketStream]]:
    """Connect a number of clients, and close them at the end."""
    async with AsyncExitStack() as opened:
        clients = [await connect(server, port) for _ in range(count)]
        for client in clients:
            await opened.enter_async_context(client)
        yield clients


async def receive(stream: trio.abc.ReceiveStream, count: int) -> bytes:
    """Receive a number of bytes."""
    received = bytearray()
    while len(received) < count:
        part = await stream.receive_some(count - len(received))
        assert part, f"end of file after {bytes(received)!r}"
        received += part
    return bytes(received)


async def receive_all(stream: trio.abc.ReceiveStream) -> bytes:
    """Receive to the end of file."""
    received = bytearray()
    while part := await stream.receive_some():
        received += part
    return bytes(received)


async def exchange(stream: trio.abc.Stream, request: bytes, answer: bytes) -> None:
    """Send lines and expect their answers."""
    await stream.send_all(request)
    assert await receive(stream, len(answer)) == answer


async def until(condition: Callable[[], object]) -> None:
    """Wait until something is so, for a few seconds at most."""
    with trio.fail_after(10):
        while not condition():  # noqa: ASYNC110 - what it waits for is no event of trio's
            # Not wait_all_tasks_blocked: no mock clock jumps while a task waits there.
            await trio.sleep(0.01)


def answers(data: bytes, prefix: str = "one") -> bytes:
    """What a client reads that sends `data`, all lines within the limit, and ends."""
    framer = Framer(encode_prefix(prefix), max(1, len(data)))
    return framer.feed(data) + framer.end()


def close_with_reset(sock: trio.socket.SocketType) -> None:
    """Close a socket so that the other side reads a reset."""
    # struct linger: on, for no time.
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
    sock.close()


_PATIENCE = 60.0
"""Seconds for a step of a child. To start and to end took 21 together on two cores that had
18 programs to run."""

_LISTENING = re.compile(r"listening on (\S+):(\d+), prefix: ")


@dataclass
class Command:
    """``trio-echo serve`` as a child process.

    Attributes:
        process: the child.
        ports: the real ports, in the order in which it told them.
        log: its lines on stderr so far.
    """

    process: trio.Process
    ports: list[int] = field(default_factory=list)
    log: list[str] = field(default_factory=list)

    def signal(self, number: signal.Signals) -> None:
        """Send a signal to the child."""
        self.process.send_signal(number)

    async def connect(self) -> trio.SocketStream:
        """Connect to the first port."""
        return await trio.open_tcp_stream("127.0.0.1", self.ports[0])

    async def wait(self, seconds: float = _PATIENCE) -> int:
        """Wait for the end and return the exit code."""
        with trio.fail_after(seconds):
            return await self.process.wait()

    async def wait_for_log(self, part: str, times: int = 1) -> None:
        """Wait until a number of lines on stderr contain something."""
        with trio.fail_after(_PATIENCE):
            while sum(part in line for line in self.log) < times:
                self._said = trio.Event()
                await self._said.wait()

    async def read_log(
        self, count: int, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED
    ) -> None:
        """Read stderr to its end; `count` listeners have to be told before it is started."""
        assert self.process.stderr is not None
        rest = b""
        async for chunk in self.process.stderr:
            *lines, rest = (rest + chunk).split(b"\n")
            for line in lines:
                self.log.append(line.decode())
                if told := _LISTENING.match(self.log[-1]):
                    self.ports.append(int(told[2]))
                    if len(self.ports) == count:
                        task_status.started()
            self._said.set()
        assert len(self.ports) >= count, f"it ended at once, with {self.log}"

    def __post_init__(self) -> None:
        self._said = trio.Event()


@asynccontextmanager
async def command(
    *arguments: str,
    environment: Mapping[str, str] | None = None,
    listeners: int = 1,
    launcher: tuple[str, ...] = (),
) -> AsyncGenerator[Command]:
    """Run ``trio-echo serve`` on loopback as a child process, killed at the end.

    Args:
        arguments: what follows ``serve --host 127.0.0.1``.
        environment: the child's; this process's own if not given.
        listeners: how many lines about listeners to wait for.
        launcher: Python statements to run first in the child.
    """
    program = "; ".join((*launcher, "from trio_echo.cli import main", "main()"))
    async with trio.open_nursery() as nursery:
        process: trio.Process = await nursery.start(
            partial(
                trio.run_process,
                [sys.executable, "-c", program, "serve", "--host", "127.0.0.1", *arguments],
                stderr=subprocess.PIPE,
                capture_stderr=False,
                check=False,
                env=environment,
            )
        )
        child = Command(process)
        with trio.fail_after(_PATIENCE):
            await nursery.start(child.read_log, listeners)
        try:
            yield child
        finally:
            with contextlib.suppress(ProcessLookupError):
                process.kill()
