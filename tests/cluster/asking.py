"""Connections that find out who answers, from inside any network namespace."""

from __future__ import annotations

import ctypes
import json
import os
import socket
import ssl
from collections import Counter
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import h11
import trio

if TYPE_CHECKING:
    from cluster.cases import Ask

FAILED = "failed"
_LIBC = ctypes.CDLL(None, use_errno=True)
_NETWORK = 0x40000000  # CLONE_NEWNET


def _enter(path: Path) -> None:
    with path.open("rb") as namespace:
        if _LIBC.setns(namespace.fileno(), _NETWORK) != 0:
            raise OSError(ctypes.get_errno(), f"cannot enter the network of {path}")


def _socket_inside(namespace: str) -> socket.socket:
    own = Path(f"/proc/{os.getpid()}/task/{os.getpid()}/ns/net")
    _enter(Path("/run/netns") / namespace)
    try:
        return socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    finally:
        _enter(own)


async def connect(host: str, port: int, namespace: str = "") -> trio.SocketStream:
    """A connection that starts in a network namespace, by default in the node's.

    Raises:
        OSError: It was refused.
    """
    if namespace:
        # A socket belongs for ever to the namespace in which it was made, so that one
        # thread goes there for a moment.
        plain = await trio.to_thread.run_sync(_socket_inside, namespace)
        plain.setblocking(False)
        own = trio.socket.from_stdlib_socket(plain)
    else:
        own = trio.socket.socket()
    try:
        await own.connect((host, port))
    except BaseException:
        own.close()
        raise
    return trio.SocketStream(own)


def client_hello(name: str) -> bytes:
    """The first bytes of a TLS client that asks for a name."""
    context = ssl.create_default_context()
    read, write = ssl.MemoryBIO(), ssl.MemoryBIO()
    client = context.wrap_bio(read, write, server_hostname=name)
    with suppress(ssl.SSLWantReadError):
        client.do_handshake()
    return write.read()


async def who_answers(ask: Ask, host: str, namespace: str = "") -> Counter[str]:
    """The first word of each answer, counted; FAILED for connections without one.

    An echo server behind TLS passthrough gets a TLS client's first bytes, and puts its
    name before them as before any others: no certificate is needed to see who it was.
    """
    counts: Counter[str] = Counter()
    limit = trio.CapacityLimiter(ask.at_once)
    words = (client_hello(ask.sni) if ask.sni else b"hello") + b"\n"

    async def one() -> None:
        async with limit:
            with trio.move_on_after(5):
                counts[await _answer(host, ask.port, namespace, words)] += 1
                return
            counts[FAILED] += 1

    async with trio.open_nursery() as nursery:
        for _ in range(ask.times):
            nursery.start_soon(one)
    return counts


async def _answer(host: str, port: int, namespace: str, words: bytes) -> str:
    try:
        async with await connect(host, port, namespace) as stream:
            await stream.send_all(words)
            answer = b""
            while b" " not in answer and (data := await stream.receive_some()):
                answer += data
    except (OSError, trio.BrokenResourceError):
        return FAILED
    word, space, _ = answer.partition(b" ")
    return word.decode(errors="replace") if space else FAILED


async def get_json(host: str, port: int, path: str, namespace: str = "") -> Any:
    """A JSON page over plain HTTP.

    Raises:
        OSError: Nothing listens there, or the connection broke.
    """
    async with await connect(host, port, namespace) as stream:
        http = h11.Connection(h11.CLIENT)
        headers = [("Host", "localhost"), ("Connection", "close")]
        request = h11.Request(method="GET", target=path, headers=headers)
        await stream.send_all(http.send(request) + http.send(h11.EndOfMessage()))
        body = b""
        while True:
            event = http.next_event()
            if event is h11.NEED_DATA:
                try:
                    http.receive_data(await stream.receive_some())
                except trio.BrokenResourceError as error:
                    raise OSError(f"{host}:{port}{path}: the connection broke") from error
            elif isinstance(event, h11.Data):
                body += event.data
            elif isinstance(event, h11.EndOfMessage):
                return json.loads(body)
