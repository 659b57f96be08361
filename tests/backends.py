"""Backends for the probe to judge: good ones, and each kind of bad one."""

from __future__ import annotations

import random
import socket
import struct
from contextlib import asynccontextmanager, suppress
from functools import partial
from typing import TYPE_CHECKING

import trio

if TYPE_CHECKING:
    import ssl
    from collections.abc import AsyncGenerator, Awaitable, Callable, Iterable, Mapping

    Handler = Callable[[trio.abc.Stream], Awaitable[None]]

__all__ = ["answering", "backend", "closed_port", "drawing", "in_turn", "reset"]


@asynccontextmanager
async def backend(handler: Handler, tls: ssl.SSLContext | None = None) -> AsyncGenerator[str]:
    """Serve each connection with `handler` on a port of loopback; yields HOST:PORT."""

    async def handle(stream: trio.abc.Stream) -> None:
        # The probe may have gone meanwhile, which is its right.
        with suppress(trio.BrokenResourceError, trio.ClosedResourceError):
            await handler(stream)

    async with trio.open_nursery() as nursery:
        serve = (
            partial(trio.serve_tcp, host="127.0.0.1")
            if tls is None
            else partial(trio.serve_ssl_over_tcp, ssl_context=tls, host="127.0.0.1")
        )
        [listener, *_] = await nursery.start(serve, handle, 0)
        plain = getattr(listener, "transport_listener", listener)
        yield f"127.0.0.1:{plain.socket.getsockname()[1]}"
        nursery.cancel_scope.cancel()


async def answering(stream: trio.abc.Stream, name: str) -> None:
    """Echo every line with a name in front, until end of file."""
    buffer = b""
    while chunk := await stream.receive_some():
        buffer += chunk
        *lines, buffer = buffer.split(b"\n")
        for line in lines:
            await stream.send_all(name.encode() + (b" " if name else b"") + line + b"\n")
    if isinstance(stream, trio.abc.HalfCloseableStream):
        await stream.send_eof()


def drawing(weights: Mapping[str, float], seed: int) -> Handler:
    """A backend that draws its name for each connection, independently."""
    draw = random.Random(seed)  # noqa: S311 - a simulation with fixed seeds, no secret
    names, chances = list(weights), list(weights.values())
    return lambda stream: answering(stream, draw.choices(names, chances)[0])


def in_turn(names: Iterable[str]) -> Handler:
    """A backend that takes the next name for each connection."""
    turn = iter(names)
    return lambda stream: answering(stream, next(turn))


async def reset(stream: trio.abc.Stream) -> None:
    """Cut the connection with a reset."""
    if not isinstance(stream, trio.SocketStream):
        raise TypeError(stream)
    stream.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    stream.socket.close()


def closed_port() -> tuple[socket.socket, str]:
    """A port that refuses: bound, so that nobody else gets it, but not listened on."""
    sock = socket.socket()
    sock.bind(("127.0.0.1", 0))
    return sock, f"127.0.0.1:{sock.getsockname()[1]}"
