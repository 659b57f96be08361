"""``trio-echo gate``: where it says it is, what it refuses to start with, and its end."""

from __future__ import annotations

import json
import re
import signal
import socket
import subprocess
import urllib.request
from contextlib import asynccontextmanager
from functools import partial
from typing import TYPE_CHECKING, NamedTuple

import pytest
import trio
from backends import answering, backend
from processes import COMMAND, run

from trio_echo.cli.app import run as run_here

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

ALLOW = ("--allow", "127.0.0.1:*")


class Started(NamedTuple):
    """A running gate.

    Attributes:
        process: the command.
        address: where it says that it is, as HOST:PORT.
    """

    process: trio.Process
    address: str

    async def rest(self) -> bytes:
        """What it still writes to stderr, to its end."""
        assert self.process.stderr is not None
        return b"".join([bytes(part) async for part in self.process.stderr])


@asynccontextmanager
async def started(*arguments: str) -> AsyncIterator[Started]:
    """Run a gate on any free port until it is told to end."""
    async with trio.open_nursery() as nursery:
        with trio.fail_after(30):
            command = [COMMAND, "gate", "--listen", "127.0.0.1:0", *ALLOW, *arguments]
            process = await nursery.start(
                partial(trio.run_process, command, stderr=subprocess.PIPE, check=False)
            )
            said = b""
            while b"\n" not in said:
                said += bytes(await process.stderr.receive_some())
            found = re.search(rb"gate on http://(127\.0\.0\.1:\d+)/", said)
            assert found is not None, said
            yield Started(process, found[1].decode())


async def test_it_probes_until_it_is_told_to_end() -> None:
    """One line a request; after SIGTERM the last line and code 0."""
    async with backend(partial(answering, name="one")) as target, started() as gate:
        body = json.dumps({"target": target, "expect": {"one": 1}, "margin": 0.5}).encode()
        ask = partial(urllib.request.urlopen, f"http://{gate.address}/v1/probe", body, 20)
        with await trio.to_thread.run_sync(ask) as answer:
            assert json.load(answer)["verdict"] == "PASS"
        gate.process.terminate()
        rest = (await gate.rest()).decode()
        assert await gate.process.wait() == 0
    line, last = rest.splitlines()
    assert last == "draining requests=0"
    assert line.startswith("probe path=/v1/probe client=127.0.0.1:")
    assert f" target={target} verdict=PASS connections=" in line


async def test_a_second_signal_cuts() -> None:
    """Who waits is told, and the code is 1."""
    reached = trio.Event()

    async def silent(stream: trio.abc.Stream) -> None:
        reached.set()
        await stream.receive_some()
        await stream.receive_some()

    async with backend(silent) as target, started("--log-format", "json") as gate:
        host, port = gate.address.split(":")
        async with await trio.open_tcp_stream(host, int(port)) as client:
            body = json.dumps({"target": target, "expect": {"one": 1}, "settle": 0}).encode()
            head = b"POST /v1/probe HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n" % len(body)
            await client.send_all(head + body)
            await reached.wait()
            gate.process.send_signal(signal.SIGTERM)
            ready = b"GET /readyz HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
            answer = b""
            while b" 503 " not in answer:
                async with await trio.open_tcp_stream(host, int(port)) as other:
                    await other.send_all(ready)
                    answer = bytes(await other.receive_some())
            gate.process.send_signal(signal.SIGINT)
            assert (await client.receive_some()).startswith(b"HTTP/1.1 503 ")
        draining, line = (await gate.rest()).splitlines()
        assert await gate.process.wait() == 1
    assert json.loads(draining)["requests"] == 1
    entry = json.loads(line)
    assert (entry["event"], entry["status"]) == ("probe", 503)
    assert entry["refused"] == "the gate has ended the probe"


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("--listen", "0"), "--allow: is missing; name the targets to probe, such as *.svc."),
        (("--listen", "0", "--allow", "echo"), "--allow: must be HOST:PORT, such as *.svc"),
        (("--listen", "x", *ALLOW), "--listen: must be PORT or HOST:PORT"),
        (("--listen", "0", *ALLOW, "--concurrency", "0"), "--concurrency: must be at least 1"),
        (("--listen", "0", *ALLOW, "--max-seconds", "0"), "--max-seconds: must be more than 0"),
        (("--listen", "0", *ALLOW, "--tls-ca", "/nowhere"), "--tls-ca: cannot use /nowhere: "),
        (("--listen", "0", *ALLOW, "--tls-key", "/nowhere"), "--tls-key: needs --tls-cert"),
    ],
)
def test_settings_that_cannot_work_are_refused(
    arguments: tuple[str, ...], says: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """Exit code 2, and one line that names the option."""
    assert run_here(["gate", *arguments]) == 2
    printed = capsys.readouterr()
    assert printed.out == ""
    [line] = printed.err.splitlines()
    assert line.startswith(f"trio-echo: {says}")


async def test_a_port_that_is_taken_is_refused() -> None:
    """By its option."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        done = await run("gate", "--listen", f"127.0.0.1:{taken.getsockname()[1]}", *ALLOW)
    assert done.returncode == 2
    assert done.stderr.startswith(b"trio-echo: --listen: ")
