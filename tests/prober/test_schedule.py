"""When connections are launched, how that ends, and that nothing is left open."""

from __future__ import annotations

import itertools
import socket

import pytest
import trio
import trio.testing
from backends import answering, backend, closed_port, drawing, in_turn

import trio_echo.prober.schedule
from trio_echo.prober.config import ProbeConfig
from trio_echo.prober.counts import Outcome, Result
from trio_echo.prober.schedule import Tally, probe
from trio_echo.prober.split import Verdict

EIGHTY_TWENTY = {"one": 80.0, "two": 20.0}


async def test_right_split_passes() -> None:
    """The whole way, with looks after every connection."""
    async with backend(drawing(EIGHTY_TWENTY, seed=1)) as target:
        report = await probe(ProbeConfig(target=target, expect=EIGHTY_TWENTY))
    assert report.verdict is Verdict.PASS
    assert 500 < report.connections < 4000
    assert report.errors == 0
    assert report.counts.unfinished == 0
    assert (
        report.counts.answers.total() + sum(report.counts.late.values()) == report.counts.launched
    )


async def test_wrong_split_fails_soon() -> None:
    """A verdict ends the probe, whatever is left to spend."""
    async with backend(drawing({"one": 50, "two": 50}, seed=1)) as target:
        report = await probe(ProbeConfig(target=target, expect=EIGHTY_TWENTY))
    assert report.verdict is Verdict.FAIL
    assert report.counts.launched < 300


async def test_connections_used_up_are_inconclusive() -> None:
    """No verdict within the connections that may be spent."""
    async with backend(drawing(EIGHTY_TWENTY, seed=1)) as target:
        report = await probe(ProbeConfig(target=target, expect=EIGHTY_TWENTY, connections=100))
    assert report.verdict is Verdict.INCONCLUSIVE
    assert report.connections == report.counts.launched == 100
    assert "connections with these shares would decide it" in str(report)


async def test_slow_backend_is_not_counted_last() -> None:
    """Judged in launch order: a verdict is not reached while the slow ones are on their way."""
    gate, nearly_all = trio.Event(), trio.Event()
    turn = itertools.cycle(["slow", *["fast"] * 4])
    ended = itertools.count(1)

    async def handle(stream: trio.abc.Stream) -> None:
        name = next(turn)
        if name == "slow":
            await gate.wait()
        await answering(stream, name)
        if next(ended) == 390:
            nearly_all.set()

    seen: list[Tally] = []
    async with backend(handle) as target, trio.open_nursery() as nursery:

        async def judge() -> None:
            config = ProbeConfig(
                target=target,
                expect={"fast": 80, "slow": 20},
                concurrency=100,
                connections=500,
                timeout=60,
            )
            report = await probe(config, watch=seen.append)
            assert report.verdict is not Verdict.FAIL
            assert report.counts.answers["slow"] == 100

        nursery.start_soon(judge)
        await nearly_all.wait()
        # 390 answers came by now, all from the fast one, but the first launched is still out.
        assert seen[0].ended >= 390
        assert seen[0].connections == 0
        gate.set()


async def test_launches_do_not_run_away_from_the_oldest(
    monkeypatch: pytest.MonkeyPatch, mock_clock: trio.testing.MockClock
) -> None:
    """One connection that hangs holds up launches once the window is full.

    In a closed loop those are not late for that: nobody meant them to start before.
    """
    monkeypatch.setattr(trio_echo.prober.schedule, "_WINDOW", 20)
    gate, full = trio.Event(), trio.Event()
    first = iter([True])
    ended = itertools.count(1)

    async def handle(stream: trio.abc.Stream) -> None:
        if next(first, False):
            await gate.wait()
        await answering(stream, "one")
        if next(ended) == 19:
            full.set()

    seen: list[Tally] = []
    async with backend(handle) as target, trio.open_nursery() as nursery:

        async def judge() -> None:
            config = ProbeConfig(target=target, connections=100, concurrency=4, timeout=60)
            report = await probe(config, watch=seen.append)
            assert report.connections == 100
            [one] = report.backends
            assert one.answer.quantile(100) == pytest.approx(10, rel=0.01)
            assert one.connect.quantile(100) < 1

        nursery.start_soon(judge)
        await full.wait()
        await trio.testing.wait_all_tasks_blocked(0.05)
        assert seen[0].launched == 20
        mock_clock.jump(10)
        gate.set()


async def test_rate_keeps_the_intended_starts() -> None:
    """Open loop: a hundred a second take their time, however fast the answers are."""
    async with backend(drawing(EIGHTY_TWENTY, seed=1)) as target:
        report = await probe(ProbeConfig(target=target, rate=100, connections=31))
    assert report.connections == 31
    assert report.elapsed >= 0.3
    assert report.counts.lag.count == 31


async def test_lag_is_part_of_the_latency_and_reported() -> None:
    """With one place in flight and slow answers, launches are late; nothing hides that."""

    async def slow(stream: trio.abc.Stream) -> None:
        await trio.sleep(0.02)
        await answering(stream, "one")

    async with backend(slow) as target:
        report = await probe(ProbeConfig(target=target, rate=200, concurrency=1, connections=15))
    # The last was meant to start after 70 ms and could after 280 ms at the earliest.
    assert report.counts.lag.quantile(100) > 0.15
    assert report.backends[0].connect.quantile(100) > 0.15
    assert "the rate was not kept" in str(report)


async def test_duration_ends_the_launches() -> None:
    """After the duration nothing is launched; the rest is judged."""
    async with backend(drawing(EIGHTY_TWENTY, seed=1)) as target:
        report = await probe(ProbeConfig(target=target, duration=0.2))
        assert report.elapsed >= 0.2
        assert report.connections == report.counts.launched > 0
        report = await probe(ProbeConfig(target=target, duration=60, connections=10))
        assert report.connections == 10


async def test_a_rate_that_is_behind_is_not_made_up_for_after_the_duration() -> None:
    """A hundred thousand a second are not to be had; the end holds all the same."""
    async with backend(drawing(EIGHTY_TWENTY, seed=1)) as target:
        report = await probe(ProbeConfig(target=target, duration=0.2, rate=100_000))
    assert 0 < report.counts.launched < 20_000
    assert "the rate was not kept" in str(report)


async def test_verdict_wakes_those_who_wait_for_their_time() -> None:
    """At a slow rate nobody sleeps on until the next intended start, minutes ahead."""
    async with backend(drawing({"three": 1}, seed=1)) as target:
        with trio.fail_after(30):
            report = await probe(ProbeConfig(target=target, expect=EIGHTY_TWENTY, rate=0.01))
    assert report.verdict is Verdict.FAIL
    assert report.counts.launched == 1


async def test_connection_that_hangs_after_the_verdict_is_cut(
    autojump_clock: trio.testing.MockClock,
) -> None:
    """What is in flight gets a moment, not its whole timeout."""
    autojump_clock.autojump_threshold = 0.05
    first = iter([True])

    async def handle(stream: trio.abc.Stream) -> None:
        if next(first, False):
            await answering(stream, "three")
        else:
            await trio.sleep_forever()

    async with backend(handle) as target:
        config = ProbeConfig(target=target, expect=EIGHTY_TWENTY, timeout=60, concurrency=5)
        report = await probe(config)
    assert report.verdict is Verdict.FAIL
    assert report.elapsed == pytest.approx(1, abs=0.1)
    assert report.counts.unfinished == 4
    assert report.connections == 1


async def test_stop_returns_what_there_is() -> None:
    """Stopped from outside, the report is there, and says so."""
    seen: list[Tally] = []
    ended = itertools.count(1)

    async def handle(stream: trio.abc.Stream) -> None:
        await answering(stream, "one")
        if next(ended) == 20:
            seen[0].stop()

    async with backend(handle) as target:
        config = ProbeConfig(target=target, expect=EIGHTY_TWENTY, concurrency=1)
        report = await probe(config, watch=seen.append)
    assert report.interrupted
    assert report.verdict is None
    assert 18 <= report.connections <= 21
    assert str(report).startswith(f"INTERRUPTED: {target}, no verdict by then")


async def test_stop_after_the_verdict_keeps_it() -> None:
    """A verdict that was reached is not taken back."""
    tally = Tally(ProbeConfig(target="x:1", expect={"one": 1}), "run")
    tally.take(0, Result(Outcome.OK, "two"))
    tally.stop()
    assert tally.verdict is Verdict.FAIL
    assert not tally.stopped


async def test_cancelled_probe_leaves_nothing_open() -> None:
    """Cancelled from outside, every connection is closed on the way out."""
    all_here, all_gone = trio.Event(), trio.Event()
    came, went = itertools.count(1), itertools.count(1)

    async def handle(stream: trio.abc.Stream) -> None:
        if next(came) == 7:
            all_here.set()
        while await stream.receive_some():
            pass
        if next(went) == 7:
            all_gone.set()

    async with backend(handle) as target, trio.open_nursery() as nursery:
        nursery.start_soon(probe, ProbeConfig(target=target, concurrency=7, timeout=60))
        await all_here.wait()
        nursery.cancel_scope.cancel()
        with trio.CancelScope(shield=True), trio.fail_after(30):
            await all_gone.wait()


async def test_failing_connections_let_others_run() -> None:
    """Hundreds of refusals in a row do not starve the rest of the program."""
    turns = 0

    async def take_turns() -> None:
        nonlocal turns
        while turns < 100:
            await trio.lowlevel.checkpoint()
            turns += 1

    sock, target = closed_port()
    with sock:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(take_turns)
            report = await probe(
                ProbeConfig(target=target, connections=300, max_errors=300, concurrency=1)
            )
            assert turns == 100
    assert report.counts.outcomes == {Outcome.REFUSED: 300}
    assert report.verdict is Verdict.UNMEASURED


async def test_wait_until_an_echo_comes_back() -> None:
    """A route that accepts before it works is waited for; the tries do not count."""
    tries = iter(range(3))

    async def handle(stream: trio.abc.Stream) -> None:
        if next(tries, None) is None:
            await answering(stream, "one")

    async with backend(handle) as target:
        config = ProbeConfig(target=target, expect={"one": 1}, wait=30, connections=20)
        report = await probe(config)
    assert report.counts.outcomes == {Outcome.OK: 20}
    assert report.counts.contacts == 4


@pytest.mark.parametrize("name", ["nobody.invalid", "127.0.0.1"])
async def test_wait_in_vain(name: str) -> None:
    """Nothing measured, and the words say how long and what the last try met."""
    sock, target = closed_port()
    with sock:
        target = target.replace("127.0.0.1", name)
        report = await probe(ProbeConfig(target=target, expect={"one": 1}, wait=0.3))
    assert report.verdict is Verdict.UNMEASURED
    assert "no answer within 0.3 s; the last try: " in str(report)
    assert report.counts.launched == 0


def resolver(*addresses: str) -> trio.abc.HostnameResolver:
    """A resolver that knows one name."""

    class Fixed(trio.abc.HostnameResolver):
        async def getaddrinfo(  # type: ignore[override] # wider than asked for
            self, host: object, port: object, family: int = 0, *_: object
        ) -> list[object]:
            assert host in ("echo.test", b"echo.test")
            assert isinstance(port, int)
            kind = trio.socket.SOCK_STREAM
            known = [
                (socket.AF_INET6 if ":" in address else socket.AF_INET, address)
                for address in addresses
            ]
            return [
                (each, kind, 6, "", (address, port))
                for each, address in known
                if family in {each, socket.AF_UNSPEC}
            ]

        async def getnameinfo(self, *_: object) -> tuple[str, str]:
            raise AssertionError

    return Fixed()


async def test_of_several_addresses_the_one_that_connects_is_measured() -> None:
    """The name is resolved once, and the report says which address was taken."""
    trio.socket.set_custom_hostname_resolver(resolver("127.0.0.9", "127.0.0.1"))
    async with backend(in_turn(["one"] * 30)) as target:
        port = target.rpartition(":")[2]
        report = await probe(ProbeConfig(target=f"echo.test:{port}", connections=20))
    assert report.address == target
    assert report.counts.outcomes == {Outcome.OK: 20}
    assert report.counts.contacts == 1
    assert str(report).startswith(f"MEASURED: {target} (echo.test)")


@pytest.mark.parametrize("others", [(), ("127.0.0.9",)])
async def test_only_addresses_of_the_sources_family_are_taken(others: tuple[str, ...]) -> None:
    """From an IPv4 address nothing of IPv6 can be reached, though it listens and comes first."""
    trio.socket.set_custom_hostname_resolver(resolver("::1", *others, "127.0.0.1"))
    async with backend(in_turn(["one"] * 30)) as target:
        port = int(target.rpartition(":")[2])
        with socket.socket(socket.AF_INET6) as first:
            try:
                first.bind(("::1", port))
            except OSError:
                pytest.skip("this machine has no IPv6")
            first.listen()
            sources = ["127.0.0.2"]
            config = ProbeConfig(
                target=f"echo.test:{port}", connections=20, source_addresses=sources
            )
            report = await probe(config)
    assert report.address == target
    assert report.counts.outcomes == {Outcome.OK: 20}


async def test_target_of_another_family_than_the_source_is_told() -> None:
    """It has no address that could be reached from there."""
    report = await probe(ProbeConfig(target="127.0.0.1:9", source_addresses=["::1"]))
    assert report.counts.outcomes == {Outcome.RESOLVE: 1}
    assert "127.0.0.1, from ::1: " in str(report)


async def test_no_address_connects() -> None:
    """The errors of all the addresses come wrapped; the outcome is found in there."""
    trio.socket.set_custom_hostname_resolver(resolver("127.0.0.1", "127.0.0.2"))
    sock, target = closed_port()
    with sock:
        report = await probe(ProbeConfig(target=target.replace("127.0.0.1", "echo.test")))
    assert report.counts.outcomes == {Outcome.REFUSED: 1}
    assert report.verdict is Verdict.UNMEASURED


async def test_no_address_replies(autojump_clock: trio.testing.MockClock) -> None:
    """Addresses that swallow the attempt end at the timeout."""
    autojump_clock.autojump_threshold = 0.05
    trio.socket.set_custom_hostname_resolver(resolver("127.0.0.1", "127.0.0.2"))

    with trio.socket.socket() as listener:
        await listener.bind(("0.0.0.0", 0))
        listener.listen(0)
        port = listener.getsockname()[1]
        fillers = [trio.socket.socket() for _ in range(6)]
        async with trio.open_nursery() as nursery:
            for number, filler in enumerate(fillers):
                nursery.start_soon(filler.connect, (f"127.0.0.{number % 2 + 1}", port))
            await trio.testing.wait_all_tasks_blocked(0.01)
            report = await probe(ProbeConfig(target=f"echo.test:{port}", timeout=0.5))
            nursery.cancel_scope.cancel()
        for filler in fillers:
            filler.close()
    assert report.counts.outcomes == {Outcome.CONNECT_TIMEOUT: 1}
    assert "no address of echo.test replied" in str(report)


@pytest.mark.parametrize(
    ("errors", "settings", "verdict"),
    [
        (0, {"max_errors": 0}, Verdict.PASS),
        (1, {"max_errors": 0}, Verdict.FAIL),
        (1, {}, Verdict.FAIL),
        (2, {"max_errors": 2}, Verdict.PASS),
        (3, {"max_errors": 2}, Verdict.FAIL),
    ],
)
async def test_failed_connections_against_the_limit(
    errors: int, settings: dict[str, int], verdict: Verdict
) -> None:
    """As many as were accepted pass, one more fails."""
    numbers = itertools.count()

    async def handle(stream: trio.abc.Stream) -> None:
        if next(numbers) not in range(10, 10 + errors):
            await answering(stream, "one")

    async with backend(handle) as target:
        config = ProbeConfig(target=target, expect={"one": 1}, concurrency=1, **settings)  # type: ignore[arg-type] # max_errors only
        report = await probe(config)
    assert report.verdict is verdict


async def test_errors_without_an_expectation_do_not_stop() -> None:
    """Shares and failures are both worth knowing; nothing was promised."""
    numbers = itertools.count()

    async def handle(stream: trio.abc.Stream) -> None:
        if next(numbers) % 2:
            await answering(stream, "one")

    async with backend(handle) as target:
        report = await probe(ProbeConfig(target=target, connections=50))
    assert report.verdict is None
    assert report.counts.outcomes[Outcome.OK] == 25
    assert report.errors == 25
