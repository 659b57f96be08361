"""Backends and the judge for tests that are no coroutines.

The fixtures of the pytest plugin are made of them; other test frameworks use them as
they are.
"""

from __future__ import annotations

import asyncio
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, Protocol

import trio

from trio_echo.prober.config import ProbeConfig
from trio_echo.prober.schedule import probe
from trio_echo.server.config import ServerConfig
from trio_echo.server.service import serve

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from trio_echo.prober.words import Report

__all__ = ["EchoBackend", "StartBackend", "echo_backend", "split_probe"]

_HOST = "127.0.0.1"


@dataclass(frozen=True, slots=True)
class EchoBackend:
    """A backend that runs beside a test.

    Attributes:
        prefix: what it puts in front of each answer.
        port: where it listens, on loopback.
    """

    prefix: str
    port: int

    @property
    def address(self) -> str:
        """``HOST:PORT``."""
        return f"{_HOST}:{self.port}"


class StartBackend(Protocol):
    """What the fixture ``echo_backend`` is."""

    def __call__(self, prefix: str, *, port: int = 0, **settings: Any) -> EchoBackend:
        """Start a backend as `echo_backend` does; it ends with the test."""


@contextmanager
def echo_backend(prefix: str, *, port: int = 0, **settings: Any) -> Iterator[EchoBackend]:
    """Run a backend on loopback, in a thread of its own, for as long as the context lasts.

    It listens from the beginning on. At the end, its connections are cut.

    Args:
        prefix: what it puts in front of each answer.
        port: where it listens; 0 for any free port.
        settings: others, as `ServerConfig` has them, such as ``max_line``.

    Raises:
        ConfigError: a setting cannot work, or the port is in use.
    """
    config = ServerConfig(prefix=prefix, ports=[port], hosts=[_HOST], **settings)
    up: Future[tuple[int, Callable[[], None]]] = Future()

    async def run() -> None:
        async with trio.open_nursery() as nursery:
            try:
                server = await nursery.start(serve, config)
            except Exception as error:  # noqa: BLE001 - raised below, in the test's thread
                up.set_exception(error)
                return
            token = trio.lowlevel.current_trio_token()
            stop = partial(token.run_sync_soon, nursery.cancel_scope.cancel)
            up.set_result((server.ports[0], stop))

    with ThreadPoolExecutor(max_workers=1, thread_name_prefix="trio-echo") as threads:
        ended = threads.submit(trio.run, run)
        real_port, stop = up.result()
        try:
            yield EchoBackend(prefix, real_port)
        finally:
            with suppress(trio.RunFinishedError):
                stop()
            ended.result()  # raises what ended it, if it was not this


def split_probe(target: str, **settings: Any) -> Report:
    """Probe a target, print the report, and return it.

    pytest shows what a test printed if the test fails: the report in words.

    Args:
        target: ``HOST:PORT``.
        settings: others, as `ProbeConfig` has them, such as ``expect``.

    Raises:
        ConfigError: a setting cannot work.
        RuntimeError: an event loop runs in this thread, and would stand still.
        KeyboardInterrupt: Ctrl-C, alone, so that the test runner ends too.
    """
    if _in_event_loop():
        raise RuntimeError(
            "split_probe would block the event loop of this test: use"
            " await trio_echo.probe(trio_echo.ProbeConfig(...)) under trio,"
            " or await asyncio.to_thread(split_probe, ...) under asyncio"
        )
    try:
        report = trio.run(probe, ProbeConfig(target=target, **settings))
    except BaseExceptionGroup as group:
        interrupted = group.subgroup(KeyboardInterrupt) is not None
        raise (KeyboardInterrupt() if interrupted else group) from None
    print(report)  # noqa: T201 - for who reads why a test failed
    return report


def _in_event_loop() -> bool:
    """Whether trio or asyncio runs in this thread."""
    if trio.lowlevel.in_trio_run():
        return True
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return False
    return True
