"""The second look: what it finds at servers of each kind, and what it adds to the counts."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
import trio
from backends import answering, backend, reset
from certificates import Certificates
from serving import running, until

from trio_echo.prober.config import ProbeConfig, ProbeTLS
from trio_echo.prober.counts import Clue, Counts, Outcome
from trio_echo.prober.schedule import Tally, probe

if TYPE_CHECKING:
    from pathlib import Path


async def looked(target: str, **asked: Any) -> Counts:
    """What a probe counts that expects a backend `one`."""
    asked = {"expect": {"one": 1}, "connections": 1, "timeout": 0.2, **asked}
    return (await probe(ProbeConfig(target=target, **asked))).counts


async def greeting(stream: trio.abc.Stream) -> None:
    """Speak first, then say nothing more."""
    await stream.send_all(b"hello\n")
    while await stream.receive_some():
        pass


async def silent(stream: trio.abc.Stream) -> None:
    """Read, and say nothing."""
    while await stream.receive_some():
        pass


async def closing(stream: trio.abc.Stream) -> None:
    """End once something came."""
    await stream.receive_some()


@pytest.mark.parametrize(
    ("handler", "clues"),
    [
        (reset, {Clue.ENDS_UNASKED: 1}),
        (silent, {Clue.WAITS: 1}),
        (closing, {Clue.WAITS: 1}),
        (greeting, {}),
    ],
)
async def test_what_a_server_does_with_silence(handler: Any, clues: dict[Clue, int]) -> None:
    """Three connections more: in silence, in TLS, and behind a PROXY header."""
    async with backend(handler) as target:
        counts = await looked(target)
    assert counts.clues == clues
    assert counts.contacts == 3
    assert counts.launched == 1


async def test_a_port_with_tls(tmp_path: Path) -> None:
    """It answers a hello, whatever it says of the name."""
    async with running(ports=[], tls=Certificates.issue(tmp_path).config()) as server:
        counts = await looked(f"127.0.0.1:{server.ports[0]}")
    assert counts.clues == {Clue.SPEAKS_TLS: 1, Clue.WAITS: 1}


async def test_a_port_without_tls(tmp_path: Path) -> None:
    """It answers what is not asked in TLS."""
    ca = Certificates.issue(tmp_path).ca
    async with running() as server:
        counts = await looked(f"127.0.0.1:{server.ports[0]}", tls=ProbeTLS(ca=ca))
    assert counts.clues == {Clue.SPEAKS_NO_TLS: 1, Clue.WAITS: 1}


async def test_no_name_without_a_certificate() -> None:
    """Where the certificate is the name, TLS is never left out."""
    async with backend(closing) as target:
        counts = await looked(target, identify_cert="cn")
    assert counts.clues == {Clue.WAITS: 1}
    assert counts.contacts == 2


async def test_headers_that_are_wanted_or_not() -> None:
    """With the header where there was none, without where there was one."""

    async def behind_a_proxy(stream: trio.abc.Stream) -> None:
        header, _, line = (await stream.receive_some()).partition(b"\r\n")
        while header.startswith(b"PROXY ") and not line:
            line = await stream.receive_some()
        await stream.send_all(b"one " + line if line else b"")

    async with backend(behind_a_proxy) as target:
        counts = await looked(target)
    assert counts.clues[Clue.WANTS_PROXY] == 1
    async with running() as server:
        counts = await looked(f"127.0.0.1:{server.ports[0]}", proxy_protocol="v2")
    assert counts.clues[Clue.WANTS_NO_PROXY] == 1


async def test_one_at_a_time() -> None:
    """Sixty connections, counted apart from those that are judged."""
    turns = iter(["one", "", "two"] * 30)

    async def in_turn(stream: trio.abc.Stream) -> None:
        if name := next(turns):
            await answering(stream, name)
        else:
            await reset(stream)

    async with backend(in_turn) as target:
        counts = await looked(target, expect={"one": 1, "two": 1}, connections=3, concurrency=1)
    assert counts.outcomes == {Outcome.OK: 1, Outcome.RESET: 1}
    assert counts.alone == {"one": 20, "two": 20}
    assert counts.clues == {Clue.FAILED_ALONE: 20, Clue.CHANGED_ALONE: 39}
    assert counts.contacts == 60


@pytest.mark.parametrize("asked", [{"max_errors": 1}, {"expect": {"one": 1}, "connections": 5}])
async def test_no_look_without_a_riddle(asked: dict[str, Any]) -> None:
    """Nothing failed: whatever the verdict is, nothing is asked again."""
    async with backend(lambda stream: answering(stream, "one")) as target:
        counts = await looked(target, **asked)
    assert not counts.contacts
    assert not counts.alone


async def test_a_look_ends_in_time(autojump_clock: trio.testing.MockClock) -> None:
    """A server that hangs does not keep the report for longer than two seconds."""
    autojump_clock.autojump_threshold = 0.05
    turns = iter(["one"])

    async def once(stream: trio.abc.Stream) -> None:
        if name := next(turns, None):
            await answering(stream, name)
        else:
            await silent(stream)

    async with backend(once) as target:
        started = trio.current_time()
        counts = await looked(target, connections=2, max_errors=5, timeout=9, concurrency=1)
    assert counts.contacts == 1
    assert trio.current_time() - started == pytest.approx(9 + 2, abs=0.5)


async def test_a_look_can_be_stopped_or_forbidden() -> None:
    """Ctrl-C ends it at once, and marks nothing as interrupted; a watcher may say no before."""
    async with backend(silent) as target:
        config = ProbeConfig(target=target, connections=1, timeout=0.1)
        async with trio.open_nursery() as nursery:

            async def stop(tally: Tally) -> None:
                await until(lambda: tally.phase == "looking")
                tally.stop()

            report = await probe(config, watch=lambda tally: nursery.start_soon(stop, tally))
        assert not report.counts.clues
        assert not report.interrupted
        assert report.counts.contacts  # those are counted that it made until then
        counts = await looked(target, second_look=0)
        assert not counts.contacts


async def test_a_look_that_is_stopped_keeps_its_counts() -> None:
    """What reached backends until then is known, as a comparison with their counts needs."""
    turns = iter(range(30))
    answered = 0

    async def a_few(stream: trio.abc.Stream) -> None:
        nonlocal answered
        if (turn := next(turns, None)) is None:
            await silent(stream)
        elif turn:
            answered += 1
            await answering(stream, "one")
        else:
            await reset(stream)

    async with backend(a_few) as target, trio.open_nursery() as nursery:

        async def stop(tally: Tally) -> None:
            await until(lambda: answered == 29)
            tally.stop()

        config = ProbeConfig(
            target=target, expect={"one": 1}, connections=2, max_errors=5, concurrency=1
        )
        report = await probe(config, watch=lambda tally: nursery.start_soon(stop, tally))
    assert report.counts.answers["one"] + report.counts.alone["one"] in {28, 29}
    assert report.counts.contacts >= report.counts.alone["one"] == 28


async def test_a_look_keeps_to_the_rate_and_the_number(
    autojump_clock: trio.testing.MockClock,
) -> None:
    """No faster, in either way to look, and no more than allowed."""
    autojump_clock.autojump_threshold = 0.05
    turns = iter(["one"])
    came: list[float] = []

    async def once(stream: trio.abc.Stream) -> None:
        came.append(trio.current_time())
        await (answering(stream, "one") if next(turns, None) else reset(stream))

    asked: dict[str, Any] = {"connections": 2, "max_errors": 5, "rate": 5.2, "timeout": 9}
    async with backend(once) as target:
        assert (await looked(target, **asked)).contacts == 10  # within two seconds
        assert (await looked(target, **asked)).contacts == 3
        assert (await looked(target, **asked, second_look=2)).contacts == 2
    assert len(came) == 2 + 10 + 2 + 3 + 2 + 2
    assert came[11] - came[1] == pytest.approx(10 / 5.2, abs=0.1)
    assert came[16] - came[13] == pytest.approx(3 / 5.2, abs=0.1)


async def test_a_look_keeps_to_the_connections_at_a_time() -> None:
    """One way after another."""
    is_open = False

    async def one_only(stream: trio.abc.Stream) -> None:
        nonlocal is_open
        assert not is_open
        is_open = True
        await reset(stream)
        is_open = False

    async with backend(one_only) as target:
        assert (await looked(target, concurrency=1)).contacts == 3
