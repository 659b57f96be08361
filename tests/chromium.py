"""A real Chromium, driven over its debugging pipe: no driver, no port."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from contextlib import asynccontextmanager
from fcntl import F_DUPFD, fcntl
from functools import partial
from typing import TYPE_CHECKING, Any

import trio

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator
    from pathlib import Path

__all__ = ["CHROMIUM", "Tab", "browser"]

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
"""Where it is, or None."""


class Tab:
    """One page in the browser.

    Attributes:
        requests: the addresses that it asked for.
        complaints: what it logged as an error, its policy's refusals included.
    """

    def __init__(self, commands: trio.abc.SendStream, answers: trio.abc.ReceiveStream) -> None:
        self.requests: list[str] = []
        self.complaints: list[str] = []
        self._commands = commands
        self._answers = answers
        self._rest = b""
        self._number = 0
        self._session: str | None = None

    async def begin(self) -> None:
        """Make the page, and have it tell what it does."""
        target = await self._ask("Target.createTarget", url="about:blank")
        attached = await self._ask("Target.attachToTarget", flatten=True, **target)
        self._session = attached["sessionId"]
        for domain in ("Page", "Network", "Log", "Runtime"):
            await self._ask(f"{domain}.enable")

    async def open(self, url: str) -> None:
        """Go to an address."""
        await self._ask("Page.navigate", url=url)

    async def evaluate(self, expression: str) -> Any:
        """The value of an expression of JavaScript."""
        answer = await self._ask("Runtime.evaluate", expression=expression, returnByValue=True)
        return answer["result"].get("value")

    async def until(self, expression: str) -> None:
        """Wait until an expression is true. Bound it from outside."""
        while not await self.evaluate(expression):  # noqa: ASYNC110 - the page has no event for us
            await trio.sleep(0.1)

    async def prefer(self, scheme: str) -> None:
        """Be a reader who prefers ``light`` or ``dark``."""
        features = [{"name": "prefers-color-scheme", "value": scheme}]
        await self._ask("Emulation.setEmulatedMedia", features=features)

    async def narrow(self, width: int) -> None:
        """Be so many pixels wide."""
        await self._ask(
            "Emulation.setDeviceMetricsOverride",
            width=width,
            height=800,
            deviceScaleFactor=1,
            mobile=False,
        )

    async def _ask(self, method: str, **parameters: Any) -> dict[str, Any]:
        """Send a command and wait for its answer."""
        self._number += 1
        command: dict[str, Any] = {"id": self._number, "method": method, "params": parameters}
        if self._session is not None:
            command["sessionId"] = self._session
        await self._commands.send_all(json.dumps(command).encode() + b"\0")
        while True:
            message = await self._next()
            if message.get("id") == self._number:
                assert "error" not in message, message["error"]
                result: dict[str, Any] = message["result"]
                return result
            self._note(message)

    async def _next(self) -> dict[str, Any]:
        """The next message of the browser."""
        while b"\0" not in self._rest:
            chunk = await self._answers.receive_some()
            assert chunk, "the browser has ended"
            self._rest += chunk
        message, _, self._rest = self._rest.partition(b"\0")
        decoded: dict[str, Any] = json.loads(message)
        return decoded

    def _note(self, message: dict[str, Any]) -> None:
        """Take note of what the page does by itself."""
        parameters = message.get("params", {})
        if message.get("method") == "Network.requestWillBeSent":
            self.requests.append(parameters["request"]["url"])
        elif message.get("method") == "Log.entryAdded":
            entry = parameters["entry"]
            if entry["level"] == "error" and "favicon" not in entry.get("url", ""):
                self.complaints.append(entry["text"])
        elif message.get("method") == "Runtime.exceptionThrown":
            self.complaints.append(parameters["exceptionDetails"]["text"])


@asynccontextmanager
async def browser(folder: Path) -> AsyncGenerator[Tab]:
    """Run Chromium without a window, its files in a folder; yields a page of it."""
    to_it, commands = os.pipe()
    answers, from_it = os.pipe()
    flags = ["--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"]
    command = [str(CHROMIUM), *flags, "--remote-debugging-pipe"]
    # It reads commands from 3 and writes answers to 4, whatever these are here.
    moved = [fcntl(end, F_DUPFD, 10) for end in (to_it, from_it)]
    os.close(to_it)
    os.close(from_it)
    script = (
        "import os, sys; "
        f"os.dup2({moved[0]}, 3); os.dup2({moved[1]}, 4); os.execv(sys.argv[1], sys.argv[1:])"
    )
    run = partial(
        trio.run_process,
        [sys.executable, "-c", script, *command, f"--user-data-dir={folder}", "about:blank"],
        check=False,
        pass_fds=moved,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    async with (
        trio.open_nursery() as nursery,
        trio.lowlevel.FdStream(commands) as sending,
        trio.lowlevel.FdStream(answers) as receiving,
    ):
        process = await nursery.start(run)
        for end in moved:
            os.close(end)
        tab = Tab(sending, receiving)
        await tab.begin()
        yield tab
        process.terminate()
