"""A real Prometheus with settings of a test's own, asked in its own language."""

from __future__ import annotations

import json
import shutil
import socket
import urllib.error
import urllib.request
from contextlib import asynccontextmanager
from functools import partial
from typing import TYPE_CHECKING, Any
from urllib.parse import urlencode

import pytest
import trio

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Mapping
    from pathlib import Path

__all__ = ["Prometheus", "needs_prometheus", "prometheus"]

PROGRAM = shutil.which("prometheus")

needs_prometheus = pytest.mark.skipif(
    PROGRAM is None, reason="needs prometheus, of Debian's package of that name"
)


class Prometheus:
    """A running Prometheus."""

    def __init__(self, port: int) -> None:
        self._api = f"http://127.0.0.1:{port}/api/v1"

    async def query(self, expression: str) -> list[Any]:
        """The result of an expression, now: metrics with their values.

        Raises:
            AssertionError: it is none that Prometheus understands.
        """
        found: list[Any] = (await self.get("query", query=expression))["result"]
        return found

    async def until(self, expression: str) -> list[Any]:
        """Wait until an expression has a result, and return it."""
        found: list[Any] = []
        with trio.fail_after(40):
            while not found:
                found = await self.query(expression)
                await trio.sleep(0.1)
        return found

    async def get(self, path: str, **parameters: str) -> Any:
        """The data that a page of the API holds.

        Raises:
            AssertionError: it says that something is wrong.
            OSError: it does not listen yet.
        """
        url = f"{self._api}/{path}?{urlencode(parameters)}"
        return json.loads(await trio.to_thread.run_sync(_read, url))["data"]


def _read(url: str) -> bytes:
    try:
        with urllib.request.urlopen(url, timeout=10) as response:  # noqa: S310 - of ours
            body: bytes = response.read()
            return body
    except urllib.error.HTTPError as error:
        with error:
            refused = OSError if error.code == 503 else AssertionError  # 503: it is starting
            raise refused(error.read().decode()) from None


@asynccontextmanager
async def prometheus(folder: Path, settings: Mapping[str, Any]) -> AsyncGenerator[Prometheus]:
    """Run one with these settings, which may name files in `folder`; yields it as it listens."""
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        port = sock.getsockname()[1]
    (folder / "prometheus.yml").write_text(json.dumps(settings), encoding="utf-8")
    command = [
        str(PROGRAM),
        f"--config.file={folder / 'prometheus.yml'}",
        f"--storage.tsdb.path={folder / 'data'}",
        f"--web.listen-address=127.0.0.1:{port}",
        "--log.level=error",
    ]
    running = Prometheus(port)
    async with trio.open_nursery() as nursery:
        process = await nursery.start(partial(trio.run_process, command, check=False))
        with trio.fail_after(40):
            while True:
                try:
                    await running.get("status/runtimeinfo")
                    break
                except OSError:
                    assert process.poll() is None, "it has ended"
                    await trio.sleep(0.1)
        yield running
        process.terminate()
