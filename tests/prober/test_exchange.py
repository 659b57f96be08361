"""Every way a connection can end, each by its real cause, with its word and hint."""

from __future__ import annotations

import socket
import tracemalloc
from typing import TYPE_CHECKING

import pytest
import trio
import trio.testing
from backends import answering, backend, closed_port, reset

import trio_echo.prober.exchange
from trio_echo.prober.config import ProbeConfig
from trio_echo.prober.counts import Outcome
from trio_echo.prober.exchange import Address, PlainWire
from trio_echo.prober.schedule import probe
from trio_echo.prober.split import Verdict

if TYPE_CHECKING:
    from collections.abc import Callable

    from trio_echo.prober.words import Report


async def once(target: str, **settings: object) -> Report:
    """Probe with a single connection."""
    return await probe(ProbeConfig(target=target, connections=1, **settings))  # type: ignore[arg-type] # each test knows its settings


def assert_failed(report: Report, outcome: Outcome, *words: str) -> None:
    """The one connection ended so, and the report says it in its own words."""
    assert {found for found, count in report.counts.outcomes.items() if count} == {outcome}
    assert report.errors == 1
    said = str(report)
    for word in (outcome.value, *words):
        assert word in said


async def first_line(stream: trio.abc.Stream) -> bytes:
    """Read one line, which the probe sends at once."""
    line = b""
    while not line.endswith(b"\n"):
        line += await stream.receive_some()
    return line


async def test_ok() -> None:
    """An answer with the name in front of the line is that backend's."""
    async with backend(lambda stream: answering(stream, "v 1")) as target:
        report = await once(target)
    assert report.counts.outcomes == {Outcome.OK: 1}
    assert report.counts.answers == {"v 1": 1}
    assert report.verdict is None
    assert report.backends[0].answer.count == 1


async def test_plain_echo_has_an_empty_name() -> None:
    """The line alone is an answer too: the server's prefix is empty."""
    async with backend(lambda stream: answering(stream, "")) as target:
        report = await once(target, expect={"": 1})
    assert report.counts.answers == {"": 1}
    assert "(no name)" in str(report)


async def test_refused() -> None:
    """Nobody listens."""
    sock, target = closed_port()
    with sock:
        report = await once(target)
    assert_failed(report, Outcome.REFUSED, "Connection refused")
    assert report.verdict is Verdict.UNMEASURED
    assert str(report).startswith(f"COULD NOT MEASURE {target}")


async def test_unreachable() -> None:
    """TCP cannot reach a multicast address, and says so without sending anything."""
    report = await once("224.0.0.1:9000")
    assert_failed(report, Outcome.UNREACHABLE, "Network is unreachable")
    assert report.verdict is Verdict.UNMEASURED


async def test_connect_timeout() -> None:
    """A listener whose backlog is full drops what comes, as a firewall does."""
    with socket.create_server(("127.0.0.1", 0), backlog=0) as listener:
        address = listener.getsockname()
        fillers = [socket.socket() for _ in range(4)]
        for filler in fillers:
            filler.setblocking(False)
            filler.connect_ex(address)
        report = await once(f"127.0.0.1:{address[1]}", timeout=0.2)
        for filler in fillers:
            filler.close()
    assert_failed(report, Outcome.CONNECT_TIMEOUT)
    assert report.verdict is Verdict.UNMEASURED


async def test_reset() -> None:
    """A listener that cuts at once."""
    async with backend(reset) as target:
        report = await once(target, max_errors=0)
    assert_failed(report, Outcome.RESET, "Connection reset by peer")
    assert report.verdict is Verdict.UNMEASURED


async def test_eof_before_answer() -> None:
    """A proxy that looks at the first bytes accepts, and then closes."""

    async def closing(stream: trio.abc.Stream) -> None:
        await first_line(stream)

    async with backend(closing) as target:
        report = await once(target, expect={"one": 1})
    assert_failed(report, Outcome.EOF_BEFORE_ANSWER, "a policy refuses this client")
    assert report.verdict is Verdict.UNMEASURED


async def test_eof_mid_line() -> None:
    """A backend that dies while it answers."""

    async def dying(stream: trio.abc.Stream) -> None:
        line = await first_line(stream)
        await stream.send_all(b"one " + line[:5])

    async with backend(dying) as target:
        report = await once(target)
    assert_failed(report, Outcome.EOF_MID_LINE, "after 'one ")


async def test_read_timeout() -> None:
    """A backend that stays silent."""

    async def silent(stream: trio.abc.Stream) -> None:
        await first_line(stream)
        await trio.sleep_forever()

    async with backend(silent) as target:
        report = await once(target, timeout=0.2)
    assert_failed(report, Outcome.READ_TIMEOUT)


async def test_send_blocks_until_the_timeout() -> None:
    """A backend that does not even read: the send ends at the deadline as well."""

    async def deaf(stream: trio.abc.Stream) -> None:
        assert isinstance(stream, trio.SocketStream)
        stream.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1)
        await trio.sleep_forever()

    async with backend(deaf) as target:
        report = await once(target, payload_size=65536, timeout=0.2)
    assert_failed(report, Outcome.READ_TIMEOUT)


@pytest.mark.parametrize(
    "wrong",
    [
        lambda line: b"one !" + line[1:],
        lambda line: b"one" + line,
        lambda line: b"one " + line + b"one " + line,
        lambda line: b"one \n" + line,
        lambda line: line + b"x",
        lambda _: b"HTTP/1.1 400 Bad Request\r\n",
        lambda _: b"\x1b[2J\xff\n",
        lambda line: b"x" * 5000 + line[:-1],
    ],
    ids=["changed", "glued", "twice", "line", "rest", "http", "escapes", "endless"],
)
async def test_wrong_echo(wrong: Callable[[bytes], bytes]) -> None:
    """Anything but the exact line with a name in front; what came is shown, escaped."""

    async def twisting(stream: trio.abc.Stream) -> None:
        await stream.send_all(wrong(await first_line(stream)))
        await trio.sleep_forever()

    async with backend(twisting) as target:
        report = await once(target, payload_size=32)
    assert_failed(report, Outcome.WRONG_ECHO, "sent '", "got '")
    assert "\x1b" not in str(report)


async def test_answer_in_pieces() -> None:
    """An answer may come in any number of segments."""

    async def piecemeal(stream: trio.abc.Stream) -> None:
        answer = b"one " + await first_line(stream)
        for start in range(0, len(answer), 5):
            await stream.send_all(answer[start : start + 5])
            await trio.testing.wait_all_tasks_blocked()

    async with backend(piecemeal) as target:
        report = await once(target)
    assert report.counts.answers == {"one": 1}


async def test_last_answer_with_more_behind_it() -> None:
    """What comes after the last answer is wrong as well, when the end is asked for."""

    async def talkative(stream: trio.abc.Stream) -> None:
        await stream.send_all(b"one " + await first_line(stream))
        await stream.receive_some()
        await stream.send_all(b"one more thing\n")

    async with backend(talkative) as target:
        report = await once(target, half_close=True)
    assert_failed(report, Outcome.WRONG_ECHO, "after the answers came 'one more thing")


@pytest.mark.parametrize("host", ["no such host", "a" * 64 + ".invalid", "nobody.invalid"])
async def test_resolve(host: str) -> None:
    """A name that does not resolve, or cannot be one."""
    report = await once(f"{host}:9000", expect={"one": 1})
    assert_failed(report, Outcome.RESOLVE, host)
    assert report.verdict is Verdict.UNMEASURED
    assert report.address is None


async def test_local() -> None:
    """An address that is not this machine's is no failure of the route."""
    async with backend(lambda stream: answering(stream, "one")) as target:
        report = await once(target, source_addresses=["192.0.2.1"], max_errors=100)
    assert_failed(
        report, Outcome.LOCAL, "this machine has no --source-address 192.0.2.1: Cannot assign"
    )
    assert report.verdict is Verdict.UNMEASURED


async def test_local_after_answers_is_still_not_the_routes() -> None:
    """Running out of something here does not fail the route, however far it came."""
    async with backend(lambda stream: answering(stream, "one")) as target:
        config = ProbeConfig(
            target=target, expect={"one": 1}, source_addresses=["127.0.0.1", "192.0.2.1"]
        )
        report = await probe(config)
    assert report.verdict is Verdict.UNMEASURED
    assert report.counts.answers["one"] == 1


async def test_self_connection_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """A socket that met itself echoes plainly, and nobody listens."""

    async def from_the_same_port(address: Address, _: str | None) -> PlainWire:
        sock = socket.socket()
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.bind(address[1])
        sock.connect(address[1])
        sock.setblocking(False)
        return PlainWire(sock)

    monkeypatch.setattr(trio_echo.prober.exchange, "open_plain", from_the_same_port)
    sock, target = closed_port()
    sock.close()
    report = await once(target)
    assert_failed(report, Outcome.REFUSED, "connected to itself")


async def test_half_close_asks_for_the_end() -> None:
    """With half-close an answer alone is not enough."""

    async def endless(stream: trio.abc.Stream) -> None:
        await stream.send_all(b"one " + await first_line(stream))
        await trio.sleep_forever()

    async with backend(endless) as target:
        report = await once(target, half_close=True, timeout=0.2)
    assert_failed(report, Outcome.READ_TIMEOUT, "answered, but no end of file")
    async with backend(lambda stream: answering(stream, "one")) as target:
        report = await once(target, half_close=True)
    assert report.counts.outcomes == {Outcome.OK: 1}


async def test_several_lines_on_one_connection() -> None:
    """Each line waits for the answer before; one dropped later fails the connection."""

    async def twice_only(stream: trio.abc.Stream) -> None:
        for _ in range(2):
            await stream.send_all(b"one " + await first_line(stream))

    async with backend(twice_only) as target:
        report = await once(target, lines=2)
        assert report.counts.outcomes == {Outcome.OK: 1}
        report = await once(target, lines=3)
    # The backend closes when the third line is on its way: either is what the kernel saw.
    assert set(report.counts.outcomes) <= {Outcome.EOF_BEFORE_ANSWER, Outcome.RESET}


async def test_two_backends_on_one_connection() -> None:
    """Answers with different names on one connection mean balancing by request."""

    async def per_line(stream: trio.abc.Stream) -> None:
        for name in (b"one ", b"two ", b"one "):
            await stream.send_all(name + await first_line(stream))

    async with backend(per_line) as target:
        report = await once(target, lines=3, expect={"one": 80, "two": 20})
    assert report.verdict is Verdict.FAIL
    assert report.counts.mixed == 1
    assert "more than one backend answered 1 connection" in str(report)


async def test_every_line_is_unique() -> None:
    """No two lines of any connection or run are the same, and all have the length asked for."""
    seen = []

    async def noting(stream: trio.abc.Stream) -> None:
        for _ in range(2):
            line = await first_line(stream)
            seen.append(line)
            await stream.send_all(b"one " + line)

    async with backend(noting) as target:
        for _ in range(2):
            await probe(ProbeConfig(target=target, connections=20, lines=2, payload_size=40))
    assert len(set(seen)) == 80
    assert {len(line) for line in seen} == {41}


async def test_lines_without_end_fill_no_memory() -> None:
    """A connection is a name and whether others came; a line more is nothing more."""
    seen = 0

    async def counting(stream: trio.abc.Stream) -> None:
        nonlocal seen
        while seen < 3000:
            await stream.send_all(b"x" * 200 + b" " + await first_line(stream))
            seen += 1

    async with backend(counting) as target:
        config = ProbeConfig(target=target, connections=1, lines=2**64)
        tracemalloc.start()
        try:
            report = await probe(config)
            _, peak = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
    assert seen == 3000
    assert report.errors == 1
    assert peak < 2**19
