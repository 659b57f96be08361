"""Waits until a route shows the split that was just asked of it.

A controller sets weights and asks for a verdict in the same second; the proxies follow
some time later. A sample that began before the change is a mixture of two routes, and
its verdict speaks of neither.

So small samples are taken and thrown away until one does not contradict the expectation,
or the time is up. Then one new sample is judged. No connection of the small samples is
in it, and whatever made them end, each connection of the judged one is drawn after that.
So for any rule by which the waiting ends, P(PASS | some share is off by the margin or
more while it is judged) <= alpha, as for a probe alone. To probe again until one passes
would break exactly this: twenty tries pass with a chance of up to twenty alpha.

The rule: a sample of an eighth of the connections that a verdict takes contradicts the
expectation where it FAILs at the level of 5 % or where nobody answers. So it takes an old
split for the new one twice in a hundred times where a share is off by twice the margin
(simulated for 50/50, 80/20, 95/5 and 99/1), and less often where it is off by more; a right
split is taken for an old one five times in a hundred, which costs one more sample. A route
that never follows is judged when the time is up, and fails.
"""

from __future__ import annotations

from dataclasses import replace
from math import ceil
from typing import TYPE_CHECKING, NamedTuple

import trio

from trio_echo.prober.schedule import probe
from trio_echo.prober.split import Verdict, connections_needed

if TYPE_CHECKING:
    from trio_echo.prober.config import ProbeConfig
    from trio_echo.prober.schedule import Tally
    from trio_echo.prober.words import Report

__all__ = ["CONTRADICTS", "Settling", "probe_until", "sample_of", "settle"]

CONTRADICTS = {Verdict.FAIL, Verdict.UNMEASURED}
"""Verdicts on a small sample after which another one is taken."""

_LEVEL = 0.05
_PART = 8
_FEWEST = 50
"""Connections of a sample at least."""

_FIRST_PAUSE = 0.1
_LONGEST_PAUSE = 0.5
"""Seconds between two samples."""


class Settling(NamedTuple):
    """What the wait for a new split was like.

    Attributes:
        settled: whether the last sample fits the expectation.
        seconds: how long it took.
        samples: how many there were.
        connections: how many connections they took.
    """

    settled: bool
    seconds: float
    samples: int
    connections: int


async def settle(config: ProbeConfig, seconds: float) -> Settling:
    """Wait until the target shows the expected split, `seconds` at most.

    Every connection is closed then, also when cancelled.

    Raises:
        ConfigError: a TLS file or a server name cannot be used.
    """
    started = trio.current_time()
    deadline = started + seconds
    sample = sample_of(config)
    samples = connections = 0
    settled = False
    pause = _FIRST_PAUSE
    while not settled and trio.current_time() < deadline:
        if samples:
            await trio.sleep_until(min(deadline, trio.current_time() + pause))
            pause = min(2 * pause, _LONGEST_PAUSE)
        report = await probe_until(sample, deadline)
        samples += 1
        connections += report.counts.launched
        in_time = trio.current_time() < deadline
        settled = in_time and report.verdict not in CONTRADICTS
    return Settling(settled, trio.current_time() - started, samples, connections)


def sample_of(config: ProbeConfig) -> ProbeConfig:
    """A small sample in the place of the whole probe."""
    size = max(_FEWEST, ceil(connections_needed(config.expectation) / _PART))
    return replace(
        config,
        connections=min(size, config.budget or size),
        duration=None,
        wait=0.0,
        alpha=max(config.alpha, _LEVEL),
        second_look=0,
    )


async def probe_until(config: ProbeConfig, deadline: float) -> Report:
    """Probe until there is a verdict, or a time of trio's clock.

    What was counted by then is judged: results are counted in the order in which their
    connections started, so none is missing for being slow.

    Raises:
        ConfigError: a TLS file or a server name cannot be used.
    """

    def limit(tally: Tally) -> None:
        tally.cancel_scope.deadline = deadline

    return await probe(config, watch=limit)
