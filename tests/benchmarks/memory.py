"""What a connection costs a server in memory: idle ones, and the worst there are."""

from __future__ import annotations

import resource
import socket
import time
from contextlib import ExitStack
from typing import TYPE_CHECKING

from benchmarks.servers import MisbehavedError, running
from benchmarks.summary import CLIENTS, Memory

if TYPE_CHECKING:
    from collections.abc import Iterator

    from benchmarks.servers import Process

__all__ = ["IDLE", "measure_memory", "raise_descriptor_limit"]

IDLE = 8000
_WARM = 100
_WORST = 20
_LONGEST_PREFIX = "p" * 255
_MAX_LINE = 65_536
_PATIENCE = 10.0  # seconds


_FLOODS = {"newlines": b"\n" * _MAX_LINE, "long-lines": b"x" * _MAX_LINE + b"\n"}
_FLOOD = 64 * 1024 * 1024  # bytes of a client after which a server counts as unbounded


def raise_descriptor_limit() -> int:
    """Raise the soft limit of open files to the hard one, for us and the servers.

    Returns:
        how many connections can then be held, with a reserve, at most `IDLE`.
    """
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    return min(IDLE, hard - 200) if hard != resource.RLIM_INFINITY else IDLE


def measure_memory(name: str, core: int | None, idle: int) -> Iterator[Memory]:
    """Measure one server with each kind of client, in a new process for each.

    Raises:
        MisbehavedError: it did not start, or did not answer.
    """
    for client in CLIENTS:
        count = idle if client == "idle" else _WORST
        prefix = "hello" if client == "idle" else _LONGEST_PREFIX
        with running(name, prefix, core) as process, ExitStack() as clients:
            grown = (_idle if client == "idle" else _worst)(process, client, count, clients)
        yield Memory(server=name, client=client, clients=count, per_client=grown / count)


def _idle(process: Process, _client: str, count: int, clients: ExitStack) -> int:
    """Grow by idle connections, from a hundred on: what is loaded once is not theirs."""
    for _ in range(_WARM):
        _connect(process, clients)
    before = process.memory()
    for _ in range(count):
        _connect(process, clients)
    return process.memory() - before


def _worst(process: Process, client: str, count: int, clients: ExitStack) -> int:
    """Grow to the peak of memory while clients do their worst, after one did."""
    _stuff(client, [_connect(process, clients)])
    before = process.forget_peak()
    _stuff(client, [_connect(process, clients) for _ in range(count)])
    return process.peak() - before


def _connect(process: Process, clients: ExitStack) -> socket.socket:
    """Open a connection that has had one line answered."""
    client = socket.create_connection(("127.0.0.1", process.port), _PATIENCE)
    clients.enter_context(client)
    client.sendall(b"world\n")
    answer = b""
    while not answer.endswith(b"\n"):
        chunk = client.recv(4096)
        if not chunk:
            break
        answer += chunk
    if not answer.endswith(b" world\n"):
        raise MisbehavedError(f"{process.name} answered {answer!r}")
    return client


def _stuff(client: str, sockets: list[socket.socket]) -> None:
    """Send on every socket until none takes more for half a second, or all got enough."""
    if client == "unfinished":
        for each in sockets:
            each.sendall(b"x" * _MAX_LINE)
        time.sleep(0.5)
        return
    payload = _FLOODS[client]
    sent = dict.fromkeys(sockets, 0)
    for each in sockets:
        each.setblocking(False)
    quiet = 0
    while quiet < 10 and min(sent.values()) < _FLOOD:  # ten pauses: half a second
        moved = 0
        for each in sockets:
            try:
                # Go on in the middle of a line where the last send was cut short.
                taken = each.send(payload[sent[each] % len(payload) :])
            except BlockingIOError:
                continue
            sent[each] += taken
            moved += taken
        quiet = 0 if moved else quiet + 1
        if not moved:
            time.sleep(0.05)
