"""A server under everything at once, for as long as asked: a program.

One server on loopback, and around it, each in a process of its own: clients that
stay and say nothing, talkers whose every answer is compared, clients that come,
ask once and leave, and clients that do everything wrong. First without the
faulty ones and then with them, so that the talkers' figures can be compared. It
prints a table, ends by itself, and exits with 1 if a line was lost or changed,
a counter does not add up, or something was not given back.

    python -m fire.soak --minutes 5
"""

from __future__ import annotations

import argparse
import json
import random
import signal
import socket
import ssl
import statistics
import subprocess
import sys
import tempfile
import time
from collections import Counter
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Final

import trio
from certificates import Certificates
from fire.server import ServerProcess, free_port, serving

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Sequence

PREFIX: Final = b"one "
MAX_LINE: Final = 65_536

_CONTEXT: Final = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
"""Of the clients that break their handshake off."""

_SETTLED: Final = 12
"""Seconds until the last faulty client has ended: a TLS handshake gets ten."""

_SPARE: Final = 256
"""Tasks that the server keeps for the next connections."""


@dataclass(frozen=True)
class Target:
    """Where the clients go, and for how long."""

    port: int
    tls_port: int
    seconds: float
    number: int
    rate: float


def address(chance: random.Random) -> tuple[str, int]:
    """An address of loopback to come from: there are more ports for many connections."""
    return f"127.0.{chance.randrange(1, 250)}.{chance.randrange(1, 250)}", 0


async def connect(chance: random.Random, port: int) -> trio.SocketStream:
    """Connect from one of many addresses."""
    sock = trio.socket.socket()
    # IP_BIND_ADDRESS_NO_PORT: the port is chosen at the connect, for this destination.
    sock.setsockopt(socket.IPPROTO_IP, 24, 1)
    await sock.bind(address(chance))
    await sock.connect(("127.0.0.1", port))
    return trio.SocketStream(sock)


async def receive(stream: trio.abc.ReceiveStream, number: int) -> bytes:
    """Receive so many bytes, or all up to the end."""
    received = bytearray()
    while len(received) < number and (part := await stream.receive_some(number - len(received))):
        received += part
    return bytes(received)


# The roles: each runs in its own process, and returns what it counted.


async def stay(target: Target) -> Counter[str]:
    """Hold idle connections; each asks once when it comes, and once before it leaves."""
    chance = random.Random(1)  # noqa: S311 - addresses are no secret
    counts: Counter[str] = Counter()
    streams = []
    end = trio.current_time() + target.seconds
    for _ in range(target.number):
        stream = await connect(chance, target.port)
        await stream.send_all(b"here\n")
        read = await receive(stream, 9)
        counts["lines"] += read == PREFIX + b"here\n"
        streams.append(stream)
    counts["connected"] = len(streams)
    sys.stderr.write("ready\n")
    sys.stderr.flush()
    await trio.sleep_until(end)
    for stream in streams:
        await stream.send_all(b"still\n")
        read = await receive(stream, 10)
        counts["lines"] += read == PREFIX + b"still\n"
        await stream.aclose()
    counts["expected"] = 2 * target.number
    return counts


async def talk(target: Target) -> Counter[str]:
    """Write bundles of lines of every kind, and compare every byte that comes back."""
    counts: Counter[str] = Counter()
    times: list[float] = []
    end = trio.current_time() + target.seconds

    async def talker(seed: int) -> None:
        chance = random.Random(seed)  # noqa: S311 - lines are no secret
        async with await connect(chance, target.port) as stream:
            counts["connected"] += 1
            while trio.current_time() < end:
                lines = [bundle(chance) for _ in range(chance.randint(1, 16))]
                began = time.perf_counter()
                await stream.send_all(b"".join(line + b"\n" for line in lines))
                expected = b"".join(PREFIX + line + b"\n" for line in lines)
                read = await receive(stream, len(expected))
                times.append(time.perf_counter() - began)
                counts["expected"] += len(lines)
                counts["lines"] += len(lines) if read == expected else 0
                if read != expected:
                    counts["wrong"] += 1
                    return
                await trio.sleep(chance.uniform(0.02, 0.08))

    async with trio.open_nursery() as nursery:
        for seed in range(target.number):
            nursery.start_soon(talker, seed)
    if times:
        ordered = sorted(times)
        counts["p50 us"] = int(statistics.median(ordered) * 1e6)
        counts["p99 us"] = int(ordered[len(ordered) * 99 // 100] * 1e6)
    return counts


def bundle(chance: random.Random) -> bytes:
    """One line: mostly short, sometimes long, with any byte but LF."""
    length = chance.choice((0, 1, 20, 44, 100, 1000, 9000))
    return chance.randbytes(length).replace(b"\n", b"\r")


async def come(target: Target) -> Counter[str]:
    """Connect, ask, read, leave; so many a second."""
    counts: Counter[str] = Counter()
    chance = random.Random(2)  # noqa: S311 - addresses are no secret

    async def caller() -> None:
        line = b"caller\n"
        async with await connect(chance, target.port) as stream:
            counts["connected"] += 1
            counts["expected"] += 1
            await stream.send_all(line)
            read = await receive(stream, 4 + len(line))
            counts["lines"] += read == PREFIX + line

    await at_rate(target, lambda: caller)
    return counts


async def err(target: Target) -> Counter[str]:
    """Do everything wrong that a client can."""
    counts: Counter[str] = Counter()
    chance = random.Random(3)  # noqa: S311 - faults are no secret
    faults = [
        reset_amid_a_line,
        reset_with_answers_unread,
        vanish_half_open,
        byte_by_byte,
        too_long,
        rubbish,
        broken_tls,
        half_a_handshake,
        nothing_at_all,
    ]

    async def fault() -> None:
        kind = chance.choice(faults)
        tls = kind in (broken_tls, half_a_handshake)
        stream = await connect(chance, target.tls_port if tls else target.port)
        counts["connected tls" if tls else "connected"] += 1
        counts[kind.__name__.replace("_", " ")] += 1
        with suppress(trio.BrokenResourceError):
            await kind(stream, chance)
        await stream.aclose()

    await at_rate(target, lambda: fault)
    return counts


def close_with_reset(stream: trio.SocketStream) -> None:
    """Have the close send a reset."""
    stream.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
    stream.socket.close()


async def reset_amid_a_line(stream: trio.SocketStream, chance: random.Random) -> None:
    """Half a line, then a reset."""
    await stream.send_all(b"x" * chance.randint(1, MAX_LINE))
    close_with_reset(stream)


async def reset_with_answers_unread(stream: trio.SocketStream, chance: random.Random) -> None:
    """Many lines, no answer read, then a reset."""
    with trio.move_on_after(0.2):
        await stream.send_all(b"line\n" * chance.randint(1, 50_000))
    close_with_reset(stream)


async def vanish_half_open(stream: trio.SocketStream, chance: random.Random) -> None:
    """End this side, never read the answers, and stay a while."""
    await stream.send_all(b"a line\nand a half")
    await stream.send_eof()
    await trio.sleep(chance.random())


async def byte_by_byte(stream: trio.SocketStream, chance: random.Random) -> None:
    """A line, one byte a segment."""
    stream.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    for byte in b"byte by byte\n":
        await stream.send_all(bytes([byte]))
        await trio.sleep(chance.random() / 100)
    assert await receive(stream, 17) == b"one byte by byte\n", "a wrong answer"


async def too_long(stream: trio.SocketStream, chance: random.Random) -> None:
    """A line over the limit; the words for it are read."""
    await stream.send_all(b"x" * (MAX_LINE + chance.randint(1, 1000)))
    assert (await receive(stream, 100)).startswith(b"error: line longer"), "no words"


async def rubbish(stream: trio.SocketStream, chance: random.Random) -> None:
    """Any bytes, and then the end."""
    await stream.send_all(chance.randbytes(chance.randint(1, 5000)))
    await stream.send_eof()
    with trio.move_on_after(1):
        await receive(stream, 1_000_000)


async def broken_tls(stream: trio.SocketStream, chance: random.Random) -> None:
    """No TLS at a port that speaks it."""
    await stream.send_all(chance.choice((b"GET / HTTP/1.1\r\n\r\n", chance.randbytes(600))))
    with trio.move_on_after(1):
        await receive(stream, 1000)


async def half_a_handshake(stream: trio.SocketStream, chance: random.Random) -> None:
    """The first flight of a handshake, whole or cut, and no more."""
    out = ssl.MemoryBIO()
    with suppress(ssl.SSLWantReadError):
        _CONTEXT.wrap_bio(ssl.MemoryBIO(), out, server_hostname="localhost").do_handshake()
    hello = out.read()
    await stream.send_all(hello[: chance.randint(1, len(hello))])
    await trio.sleep(chance.random())
    if chance.random() < 0.5:
        close_with_reset(stream)


async def nothing_at_all(_: trio.SocketStream, chance: random.Random) -> None:
    """A connection, and no byte on it."""
    await trio.sleep(chance.random())


async def at_rate(
    target: Target, make: Callable[[], Callable[[], Coroutine[None, None, None]]]
) -> None:
    """Start a task so many times a second, and wait for all of them."""
    began = trio.current_time()
    async with trio.open_nursery() as nursery:
        for number in range(int(target.rate * target.seconds)):
            await trio.sleep_until(began + number / target.rate)
            nursery.start_soon(make())


ROLES: Final = {"stay": stay, "talk": talk, "come": come, "err": err}


# The conductor.


class Process:
    """One role in its process."""

    def __init__(self, role: str, target: Target) -> None:
        values = ",".join(
            map(str, (target.port, target.tls_port, target.seconds, target.number, target.rate))
        )
        self.process = subprocess.Popen(
            [sys.executable, "-m", "fire.soak", "--role", role, "--target", values],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE if role == "stay" else None,
            text=True,
            cwd=Path(__file__).parents[1],
        )

    def ready(self) -> None:
        """Wait until it says so."""
        assert self.process.stderr is not None
        assert self.process.stderr.readline() == "ready\n", "the idle clients failed"

    def result(self, seconds: float) -> Counter[str]:
        """Wait for its end, and return what it counted."""
        told, errors = self.process.communicate(timeout=seconds)
        assert self.process.returncode == 0, f"a role failed: {errors}"
        return Counter(json.loads(told))


@dataclass(frozen=True)
class Held:
    """What a server holds at one moment."""

    memory: int
    descriptors: int
    tasks: int
    cpu: float

    @classmethod
    def by(cls, server: ServerProcess) -> Held:
        """Look."""
        return cls(server.resident(), server.descriptors(), server.tasks(), server.cpu())


@dataclass(frozen=True)
class Load:
    """How much of everything.

    Attributes:
        seconds: in all; a quarter of it without the faulty clients.
        idle: connections that stay and say nothing.
        talkers: connections that talk all the time.
        callers: clients a second that come, ask once and leave.
        faults: clients a second that do something wrong.
    """

    seconds: float
    idle: int
    talkers: int
    callers: float
    faults: float


def soak(load: Load) -> bool:
    """Run all of it; print the table; tell whether everything held."""
    with tempfile.TemporaryDirectory() as folder:
        files = Certificates.issue(Path(folder))
        tls = (
            "--tls-ports",
            str(free_port()),
            "--tls-cert",
            str(files.cert),
            "--tls-key",
            str(files.key),
        )
        options = ("--host", "127.0.0.1", "--admin-port", "0", *tls, "0", "one")
        with serving(*options, listeners=3) as server:
            return _soak(server, load)


def _soak(server: ServerProcess, load: Load) -> bool:
    target = partial(Target, server.ports[0], server.ports[1])
    calm, rough = load.seconds / 4, load.seconds * 3 / 4
    # A few clients first: what the server imports and keeps for them is not what
    # is looked for.
    counts = {"callers, first": Process("come", target(1, 0, 5)).result(60)}
    server.metrics()
    before = Held.by(server)
    staying = Process("stay", target(load.seconds + 5, load.idle, 0))
    staying.ready()
    held = Held.by(server)
    quiet = {
        "talkers, calm": Process("talk", target(calm, load.talkers, 0)),
        "callers, calm": Process("come", target(calm, 0, load.callers)),
    }
    counts |= {name: process.result(calm + 60) for name, process in quiet.items()}
    busy = {
        "talkers, faults": Process("talk", target(rough, load.talkers, 0)),
        "callers, faults": Process("come", target(rough, 0, load.callers)),
        "faulty": Process("err", target(rough, 0, load.faults)),
    }
    most = held.memory
    while busy["faulty"].process.poll() is None:
        most = max(most, server.resident())
        time.sleep(1)
    counts |= {name: process.result(120) for name, process in busy.items()}
    counts["idle"] = staying.result(load.seconds + 120)
    time.sleep(_SETTLED)
    after = Held.by(server)
    metrics = server.metrics()
    code = server.end()
    return _tell(counts, metrics, (before, held, after), most, code)


def _tell(
    counts: dict[str, Counter[str]],
    metrics: dict[str, float],
    moments: tuple[Held, Held, Held],
    most: int,
    code: int,
) -> bool:
    """Print the table and the checks; tell whether all held."""
    before, _, after = moments
    mib = 1024 * 1024
    print(f"{'clients':18}{'connections':>12}{'lines':>12}{'lost':>6}{'p50 ms':>9}{'p99 ms':>9}")
    for name, count in counts.items():
        line = f"{name:18}{count['connected'] + count['connected tls']:12,}"
        if count["expected"]:
            line += f"{count['lines']:12,}{count['expected'] - count['lines']:6}"
        if count["p50 us"]:
            line += f"{count['p50 us'] / 1000:9.2f}{count['p99 us'] / 1000:9.2f}"
        print(line)
    print(f"\n{'server':18}{'memory MiB':>12}{'descriptors':>12}{'tasks':>8}{'CPU s':>9}")
    for name, moment in zip(("before", "idle clients", "after"), moments, strict=True):
        print(
            f"{name:18}{moment.memory / mib:12.1f}{moment.descriptors:12,}{moment.tasks:8,}"
            f"{moment.cpu:9.2f}"
        )
    print(f"{'at most':18}{most / mib:12.1f}\n")

    def counted(name: str) -> int:
        return int(sum(value for key, value in metrics.items() if key.startswith(name)))

    connected = sum(count["connected"] + count["connected tls"] for count in counts.values())
    lost = sum(count["expected"] - count["lines"] for count in counts.values())
    checks = {
        "every line came back, byte for byte": not lost,
        f"the server counted {connected:,} connections": connected
        == counted("trio_echo_connections_total"),
        "each of them has ended, for a reason": connected
        == counted("trio_echo_connections_closed_total"),
        "none is open": counted("trio_echo_connections_open") == 0,
        "no fault of the server's own": not metrics[
            'trio_echo_connections_closed_total{reason="error"}'
        ],
        "all descriptors were given back": after.descriptors <= before.descriptors,
        "all tasks ended, but for those kept in spare": after.tasks <= before.tasks + _SPARE,
        "memory came back to within 32 MiB": after.memory <= before.memory + 32 * mib,
        "the server ended with 0": code == 0,
    }
    for words, held_true in checks.items():
        print(f"{'yes' if held_true else 'NO ':4} {words}")
    return all(checks.values())


def main(arguments: Sequence[str] | None = None) -> int:
    """Run as a program."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=5.0)
    parser.add_argument("--idle", type=int, default=10_000)
    parser.add_argument("--talkers", type=int, default=50)
    parser.add_argument("--callers", type=float, default=2000 / 60, help="a second")
    parser.add_argument("--faults", type=float, default=200.0, help="a second")
    parser.add_argument("--role", choices=ROLES, help=argparse.SUPPRESS)
    parser.add_argument("--target", help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    if options.role:
        port, tls_port, seconds, number, rate = options.target.split(",")
        target = Target(int(port), int(tls_port), float(seconds), int(number), float(rate))
        print(json.dumps(trio.run(ROLES[options.role], target)))
        return 0
    load = Load(
        options.minutes * 60, options.idle, options.talkers, options.callers, options.faults
    )
    return 0 if soak(load) else 1


if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    sys.exit(main())
