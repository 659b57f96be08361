"""How long others wait while some clients keep a server as busy as they can."""

from __future__ import annotations

import http.client
import selectors
import signal
import socket
import subprocess
import sys
import time
from contextlib import contextmanager, suppress
from functools import partial
from statistics import median
from typing import TYPE_CHECKING, cast

from benchmarks.servers import MisbehavedError, pinned, running
from benchmarks.summary import CROWDS, OURS, Wait

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from benchmarks.servers import Process

__all__ = ["flood", "measure_fairness"]

_SECONDS = 2.0  # of measuring beside each crowd
_PAUSE = 0.02  # between two looks, so that they are no load themselves
_PATIENCE = 5.0  # a longer wait counts as this one
_STOPS = 3  # servers that are told to end
_FLOODERS = 20
_CHUNK = b"\n" * 65_536


def measure_fairness(
    name: str, generator: Path, server_core: int | None, load_core: int | None
) -> Iterator[Wait]:
    """Measure one server beside each crowd of clients.

    Raises:
        MisbehavedError: it did not start, or did not answer.
    """
    ours = name in {OURS, "before"}
    for crowd in CROWDS:
        waits: dict[str, list[float]] = {}
        for _ in range(_STOPS if ours else 1):
            with socket.create_server(("127.0.0.1", 0)) as free:
                admin = free.getsockname()[1]
            options = ("--admin-port", str(admin)) if ours else ()
            with running(name, "hello", server_core, options=options) as process:
                stay = socket.create_connection(("127.0.0.1", process.port), _PATIENCE)
                with stay, _crowd(crowd, process, generator, load_core):
                    looks: dict[str, Callable[[], None]] = {
                        "a new connection": partial(_connect, process),
                        "an open one": partial(_ask, stay),
                    }
                    if ours:
                        looks["/livez"] = partial(_livez, admin)
                    _look(looks, waits)
                    if ours:
                        waits.setdefault("SIGTERM", []).append(_stop(process))
        for what, measured in waits.items():
            yield Wait(server=name, crowd=crowd, what=what, seconds=median(measured))


@contextmanager
def _crowd(crowd: str, process: Process, generator: Path, core: int | None) -> Iterator[None]:
    """Have a crowd of clients at the server, on a core of their own."""
    commands: dict[str, list[str | Path]] = {
        "newlines": [sys.executable, __file__, str(process.port)],
        "lines": [
            *(generator, "-workers", "100", "-depth", "100", "-pad", "24", "-prefix", "hello"),
            *("-port", str(process.port), "-pid", str(process.pid), "-window", "60s"),
        ],
    }
    with pinned(core), subprocess.Popen(commands[crowd], stdout=subprocess.DEVNULL) as load:
        try:
            time.sleep(0.5)
            if load.poll() is not None:
                raise MisbehavedError(f"{process.name}: the {crowd} ended")
            yield
        finally:
            load.kill()


def _look(looks: dict[str, Callable[[], None]], waits: dict[str, list[float]]) -> None:
    """Look at each in turn, for a while."""
    end = time.perf_counter() + _SECONDS
    while time.perf_counter() < end:
        for what, look in looks.items():
            begun = time.perf_counter()
            with suppress(TimeoutError):
                look()
            waits.setdefault(what, []).append(time.perf_counter() - begun)
            time.sleep(_PAUSE)


def _connect(process: Process) -> None:
    """Connect, and have a line answered."""
    with socket.create_connection(("127.0.0.1", process.port), _PATIENCE) as client:
        _ask(client)


def _ask(client: socket.socket) -> None:
    """Have a line answered."""
    client.sendall(b"polite\n")
    answer = b""
    while not answer.endswith(b"\n"):
        answer += client.recv(100) or b"and the end\n"
    if answer != b"hello polite\n":
        raise MisbehavedError(f"answered {answer!r}")


def _livez(port: int) -> None:
    """Ask whether the server lives, on a connection of its own, as kubelet does."""
    client = http.client.HTTPConnection("127.0.0.1", port, timeout=_PATIENCE)
    client.request("GET", "/livez")
    client.getresponse().read()
    client.close()


def _stop(process: Process) -> float:
    """Tell how many seconds pass until the server has seen a SIGTERM."""
    begun = time.perf_counter()
    process.popen.send_signal(signal.SIGTERM)
    while not process.said(b"draining"):
        time.sleep(0.0005)
        if time.perf_counter() > begun + _PATIENCE:
            break
    return time.perf_counter() - begun


def flood(port: int) -> None:
    """Send bare newlines on some connections, and read what comes, for ever."""
    selector = selectors.DefaultSelector()
    for _ in range(_FLOODERS):
        client = socket.create_connection(("127.0.0.1", port))
        client.setblocking(False)
        selector.register(client, selectors.EVENT_READ | selectors.EVENT_WRITE)
    while True:
        for key, events in selector.select():
            flooder = cast("socket.socket", key.fileobj)
            if events & selectors.EVENT_READ and not flooder.recv(1 << 20):
                return
            if events & selectors.EVENT_WRITE:
                flooder.send(_CHUNK)


if __name__ == "__main__":
    flood(int(sys.argv[1]))
