"""The wait for a new split: it ends soon, it ends, and none of it is judged."""

from __future__ import annotations

from math import ceil
from typing import TYPE_CHECKING

import pytest
import trio
from backends import backend, closed_port
from balancer import Balancer, shifting, weighted
from trio.testing import MockClock

from trio_echo.monitor.settle import CONTRADICTS, probe_until, sample_of, settle
from trio_echo.prober.config import ProbeConfig
from trio_echo.prober.counts import Counts, Outcome
from trio_echo.prober.split import Expectation, Verdict, connections_needed, judge

if TYPE_CHECKING:
    from collections.abc import Callable

    from balancer import Choose

    from trio_echo.monitor.settle import Settling
    from trio_echo.prober.words import Report

RIGHT = {"one": 80, "two": 20}
OLD = {"one": 100, "two": 0}
MARGIN = 0.1
SAMPLE = ceil(connections_needed(Expectation(RIGHT, margin=MARGIN)) / 8)
"""Connections of a sample that goes to its end."""


def waited(
    choose: Choose,
    seconds: float = 10.0,
    connections: int | None = None,
    between: Callable[[], object] = lambda: None,
) -> tuple[Settling, Report]:
    """Wait for 80/20 at a balancer, do what is to be done between, then judge it."""

    async def main() -> tuple[Settling, Report]:
        async with trio.open_nursery() as nursery:
            target = await nursery.start(Balancer(choose=choose).serve)
            # One at a time: the balancer's next draw is then the next connection's.
            config = ProbeConfig(
                target=target, expect=RIGHT, margin=MARGIN, concurrency=1, connections=connections
            )
            settling = await settle(config, seconds)
            between()
            report = await probe_until(config, trio.current_time() + 60)
            nursery.cancel_scope.cancel()
        return settling, report

    return trio.run(main, clock=MockClock(autojump_threshold=0.01))


@pytest.mark.parametrize(
    ("expected", "old"),
    [({"one": 80, "two": 20}, 70), ({"one": 95, "two": 5}, 100), ({"one": 50, "two": 50}, 60)],
)
def test_how_surely_a_small_sample_tells_an_old_split(
    expected: dict[str, float], old: float
) -> None:
    """As the module says: of an old one by twice the margin, 98 of 100; of the right one, 5."""
    sample = sample_of(ProbeConfig(target="x:1", expect=expected))

    def contradicted(first: float, seed: int) -> bool:
        choose = weighted({"one": int(first), "two": int(100 - first)}, seed)
        counts, verdict = Counts(), Verdict.INCONCLUSIVE
        while verdict is Verdict.INCONCLUSIVE and counts.total < (sample.connections or 0):
            counts.answers[choose("")] += 1
            counts.outcomes[Outcome.OK] += 1
            verdict = judge(sample.expectation, counts)
        return verdict in CONTRADICTS

    assert sum(contradicted(old, seed) for seed in range(40)) >= 38
    assert sum(contradicted(expected["one"], seed) for seed in range(40)) <= 5


def test_a_split_that_shows_is_judged_at_once() -> None:
    """One sample, an eighth of what a verdict takes."""
    settling, report = waited(weighted(RIGHT, seed=1))
    assert (settling.settled, settling.samples) == (True, 1)
    assert 50 < settling.connections <= SAMPLE
    assert settling.seconds < 1
    assert report.verdict is Verdict.PASS


@pytest.mark.parametrize("late", [1, 40, 70])
def test_a_route_that_follows_late_passes(late: int) -> None:
    """A sample of the old split, or of both, is not judged."""
    settling, report = waited(shifting(weighted(OLD, 1), weighted(RIGHT, 3), at=late))
    assert settling.settled
    assert settling.samples > 1 or late == 1
    assert settling.seconds < 2
    assert report.verdict is Verdict.PASS


def test_a_route_that_never_follows_is_judged_when_the_time_is_up() -> None:
    """And fails: nothing was spent on waiting that the verdict would need."""
    settling, report = waited(weighted(OLD, 1), seconds=3.0)
    assert not settling.settled
    assert settling.seconds == pytest.approx(3.0, abs=0.2)
    assert 5 < settling.samples < 15
    assert report.verdict is Verdict.FAIL


def test_what_is_judged_is_new() -> None:
    """The split is right as long as it is waited for, and wrong from then on: that is a FAIL."""
    draws = [weighted(RIGHT, seed=1)]

    def choose(source: str) -> str:
        return draws[-1](source)

    settling, report = waited(choose, between=lambda: draws.append(weighted({"two": 1}, seed=1)))
    assert settling.settled
    assert report.verdict is Verdict.FAIL
    assert set(report.counts.answers) == {"two"}


def test_a_sample_is_no_larger_than_what_is_judged() -> None:
    """Who allows few connections gets few."""
    settling, _ = waited(weighted(RIGHT, seed=1), connections=60)
    assert settling.connections == 60


async def test_nobody_there_is_not_settled() -> None:
    """It is waited for, and then it is what it is."""
    sock, target = closed_port()
    with sock:
        config = ProbeConfig(target=target, expect=RIGHT)
        settling = await settle(config, 0.3)
        assert not settling.settled
        assert settling.samples > 1
        report = await probe_until(config, trio.current_time() + 1)
    assert report.verdict is Verdict.UNMEASURED


async def test_a_deadline_holds_whatever_the_target_does() -> None:
    """Nobody answers and nothing ends: no connection outlives it."""
    open_now = 0

    async def silent(stream: trio.abc.Stream) -> None:
        nonlocal open_now
        open_now += 1
        await stream.receive_some()
        await stream.receive_some()
        open_now -= 1

    async with backend(silent) as target:
        config = ProbeConfig(target=target, expect=RIGHT)
        started = trio.current_time()
        settling = await settle(config, 0.2)
        report = await probe_until(config, trio.current_time() + 0.2)
        assert trio.current_time() - started < 1
        assert (settling.settled, settling.samples) == (False, 1)
        assert settling.connections == 16
        assert report.verdict is Verdict.UNMEASURED
        assert (report.counts.launched, report.counts.unfinished) == (16, 16)
        while open_now:
            await trio.lowlevel.checkpoint()
