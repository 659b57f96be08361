"""The command as a process, and the clients that people have at hand."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import sys
from pathlib import Path

import pytest
import trio
from serving import command, exchange, receive_all

NC = shutil.which("nc")
BUSYBOX = shutil.which("busybox")

nc = pytest.mark.skipif(NC is None, reason="nc is not installed")
busybox = pytest.mark.skipif(BUSYBOX is None, reason="busybox is not installed")


async def shell(line: str, port: int) -> bytes:
    """Run a line of shell with the port as ``$1``; return what it printed."""
    with trio.fail_after(20):
        ran = await trio.run_process(
            ["/bin/sh", "-c", line, "sh", str(port)], capture_stdout=True, stdin=b""
        )
    return ran.stdout


@nc
@pytest.mark.parametrize(
    ("line", "printed"),
    [
        ("echo world | nc -N 127.0.0.1 $1", b"one world\n"),
        ("printf world | nc -N 127.0.0.1 $1", b"one world"),
        (r"printf 'a\r\nb' | nc -N 127.0.0.1 $1", b"one a\r\none b"),
        (r"printf '\n' | nc -N 127.0.0.1 $1", b"one \n"),
        ("nc -N 127.0.0.1 $1 </dev/null", b""),
    ],
)
async def test_nc_that_ends_its_side(line: str, printed: bytes) -> None:
    """It gets every answer, one to the unterminated rest too, and then the end."""
    async with command("0", "one") as child:
        assert await shell(line, child.ports[0]) == printed


@nc
async def test_nc_that_waits_on() -> None:
    """The loop of the well-known demonstration, whose pipe stays open for a second."""
    async with command("0", "one") as child:
        printed = await shell("(date; sleep 1) | nc -w 2 127.0.0.1 $1", child.ports[0])
    assert printed.startswith(b"one ")
    assert printed.count(b"\n") == 1


@busybox
async def test_the_nc_of_small_images() -> None:
    """Busybox has one of its own, which ends its side unasked."""
    async with command("0", "one") as child:
        assert await shell("echo world | busybox nc 127.0.0.1 $1", child.ports[0]) == b"one world\n"


async def test_two_thousand_lines_at_once() -> None:
    """All are answered, in order."""
    lines = [b"line %d\n" % number for number in range(2000)]
    async with command("0", "one") as child, await child.connect() as client:
        await client.send_all(b"".join(lines))
        await client.send_eof()
        assert await receive_all(client) == b"".join(b"one " + line for line in lines)


async def test_a_line_too_long_is_told_and_no_reset_takes_it_back() -> None:
    """Seventy thousand bytes without a line feed, all of them sent before a byte is read."""
    async with command("0", "one") as child, await child.connect() as client:
        await client.send_all(b"a" * 70_000)
        assert await receive_all(client) == b"error: line longer than 65536 bytes\n"


async def test_the_same_two_arguments_as_ever() -> None:
    """A comma list of ports and a prefix, each told with its real port."""
    async with command("0,0,0", "hello", listeners=3) as child:
        assert len(set(child.ports)) == 3
        assert child.log[:3] == [
            f"listening on 127.0.0.1:{port}, prefix: hello" for port in child.ports
        ]
        for port in child.ports:
            async with await trio.open_tcp_stream("127.0.0.1", port) as client:
                await exchange(client, b"world\n", b"hello world\n")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_a_signal_ends_it_well(number: signal.Signals) -> None:
    """With exit code 0 when all were served, and a word about it."""
    async with command("0", "one", "--drain-timeout", "600") as child:
        async with await child.connect() as early:
            await exchange(early, b"a\n", b"one a\n")
        async with await child.connect() as client:
            await exchange(client, b"a\n", b"one a\n")
            child.signal(number)
            assert await receive_all(client) == b""
        assert await child.wait() == 0
        await child.wait_for_log("draining connections=1")


async def test_a_signal_from_before_python_ran_is_obeyed() -> None:
    """The image's entry point blocks it until then, for the first process of a container."""
    block = (
        "import os, signal",
        "signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTERM])",
        "os.kill(os.getpid(), signal.SIGTERM)",
    )
    async with command("0", "one", launcher=block) as child:
        assert await child.wait() == 0


async def test_a_second_signal_cuts() -> None:
    """Whoever does not end by itself, and the exit code says so."""
    server = command("0", "one", "--drain-timeout", "600")
    async with server as child, await child.connect() as client:
        with trio.move_on_after(0.5):  # until nothing more fits: it reads no answer
            while True:
                await client.send_all(b"\n" * 65536)
        child.signal(signal.SIGTERM)
        await child.wait_for_log("draining connections=1")
        child.signal(signal.SIGTERM)
        assert await child.wait() == 1
        await child.wait_for_log("connections cut count=1")


@pytest.mark.parametrize("closed", ["2>&-", "<&- >&- 2>&-"])
async def test_closed_standard_streams_stop_nobody(closed: str) -> None:
    """Not even the words about a port in use: they are lost, the exit code is not."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        line = f'exec "$0" -m trio_echo serve --host 127.0.0.1 {port} one {closed}'
        ran = await trio.run_process(
            ["/bin/sh", "-c", line, sys.executable], check=False, capture_stdout=True
        )
    assert (ran.returncode, ran.stdout) == (2, b"")


def unprivileged_ports_start() -> int:
    """The first port that needs no privilege."""
    told = Path("/proc/sys/net/ipv4/ip_unprivileged_port_start")
    return int(told.read_text(encoding="ascii")) if told.exists() else 1024


@pytest.mark.skipif(unprivileged_ports_start() <= 80, reason="here nobody needs a privilege")
async def test_a_privileged_port_is_refused_to_others() -> None:
    """One line that names the argument and the remedy, and exit code 2."""
    program = (
        "import contextlib, os, trio_echo.cli\n"
        "serve = ['serve', '--host', '127.0.0.1']\n"
        # Once as root, who may read every module that is imported on the way.
        "with contextlib.suppress(SystemExit): trio_echo.cli.main([*serve, 'x', 'one'])\n"
        "serve += ['--host', '..']\n"
        "with contextlib.suppress(SystemExit): trio_echo.cli.main([*serve, '0', 'one'])\n"
        "if os.getuid() == 0: os.setgid(65534); os.setuid(65534)\n"
        "trio_echo.cli.main([*serve[:-2], '80', 'one'])\n"
    )
    # Whoever has no privilege cannot save what a measurement of coverage saw either.
    environment = {name: value for name, value in os.environ.items() if "COV" not in name}
    ran = await trio.run_process(
        [sys.executable, "-c", program], check=False, capture_stderr=True, env=environment
    )
    assert ran.stderr.decode().splitlines()[2:] == [
        "trio-echo: PORTS: not allowed to listen on 127.0.0.1:80; choose a port from 1024 up"
    ]
    assert ran.returncode == 2
