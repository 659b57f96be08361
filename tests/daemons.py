"""Servers and balancers of other people, run as they are on ports of loopback."""

from __future__ import annotations

import shutil
import socket
import subprocess
from contextlib import ExitStack, asynccontextmanager, suppress
from typing import TYPE_CHECKING

import pytest
import trio

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Mapping
    from pathlib import Path

__all__ = ["balancer", "daemon", "free_ports"]


def free_ports(count: int) -> list[int]:
    """Ports that nobody has right now."""
    with ExitStack() as stack:
        sockets = [
            stack.enter_context(socket.create_server(("127.0.0.1", 0))) for _ in range(count)
        ]
        return [sock.getsockname()[1] for sock in sockets]


@asynccontextmanager
async def daemon(*command: object, port: int) -> AsyncGenerator[None]:
    """Run a program in the foreground, from when its port answers to the end of the block."""
    name, *arguments = map(str, command)
    program = shutil.which(name, path="/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin")
    if program is None:
        pytest.skip(f"{name} is not installed")
    process = await trio.lowlevel.open_process(
        [program, *arguments], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    try:
        with trio.fail_after(20):
            while True:
                assert process.poll() is None, f"{name} ended"
                with suppress(OSError):
                    await (await trio.open_tcp_stream("127.0.0.1", port)).aclose()
                    break
                await trio.sleep(0.02)
        yield
    finally:
        process.terminate()  # so that nginx ends its workers
        await process.wait()


@asynccontextmanager
async def balancer(
    folder: Path, weights: Mapping[int, int], *, words: str = ""
) -> AsyncGenerator[str]:
    """Run HAProxy before ports of loopback, in turns by weight; yields HOST:PORT.

    Args:
        folder: for its configuration.
        weights: of each port.
        words: what else its ``bind`` says.
    """
    [front] = free_ports(1)
    servers = "".join(
        f"  server s{index} 127.0.0.1:{port} weight {weight}\n"
        for index, (port, weight) in enumerate(weights.items())
    )
    path = trio.Path(folder / "haproxy.cfg")
    await path.write_text(
        "defaults\n  mode tcp\n  timeout connect 5s\n  timeout client 9s\n  timeout server 9s\n"
        f"listen front\n  bind 127.0.0.1:{front} {words}\n  balance roundrobin\n{servers}"
    )
    async with daemon("haproxy", "-db", "-f", path, port=front):
        yield f"127.0.0.1:{front}"
