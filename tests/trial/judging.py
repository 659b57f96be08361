"""One run of the probe before a balancer: fed with its draws, or over real sockets.

Fed, the probe's own tally counts and judges, exactly as it does when
connections end; only the sockets are left out, which are what takes time. The
run over real sockets shows that nothing else was.
"""

from __future__ import annotations

from heapq import heappop, heappush
from typing import TYPE_CHECKING, NamedTuple

import trio
from trio.testing import MockClock

from trio_echo.prober.config import ProbeConfig
from trio_echo.prober.counts import Outcome, Result
from trio_echo.prober.remarks import findings, reasons
from trio_echo.prober.schedule import Tally, probe

if TYPE_CHECKING:
    from collections.abc import Iterator

    from balancer import Balancer
    from trial.cases import Case

    from trio_echo.prober.split import Verdict
    from trio_echo.prober.words import Report

__all__ = ["Judged", "draw", "endings", "fed", "over_sockets"]

SOURCE = "127.0.0.1"

_JUMP = 0.01
"""Real seconds without any event after which the virtual clock jumps: a late
answer costs no real time, and what is sent within one process is there at once."""


class Judged(NamedTuple):
    """What one run came to.

    Attributes:
        verdict: the verdict.
        connections: how many it took.
        said: codes of all remarks on what else is wrong, shares aside.
    """

    verdict: Verdict | None
    connections: int
    said: tuple[str, ...]

    @classmethod
    def of(cls, report: Report) -> Judged:
        """Reduce a report."""
        said = [remark.code for remark in (*reasons(report), *findings(report))]
        besides = dict.fromkeys(code for code in said if code not in {"share", "undecided"})
        return cls(report.verdict, report.connections, tuple(besides))


def draw(balancer: Balancer, lines: int = 1, source: str = SOURCE) -> Result:
    """What one connection through the balancer comes to."""
    name = balancer.choose(source)
    if name in balancer.resets:
        return Result(Outcome.RESET)
    others = [balancer.choose(source) for _ in range(lines - 1)] if balancer.by_line else []
    mixed = any(other != name for other in others)
    return Result(Outcome.OK, name, mixed, answer=balancer.delays.get(name, 0.0))


def endings(balancer: Balancer, config: ProbeConfig) -> Iterator[tuple[int, Result]]:
    """Connections with their index in launch order, in the order in which they end.

    A closed loop in virtual time: a connection is launched when one ends.
    """
    flying: list[tuple[float, int, Result]] = []
    sources = config.source_addresses or (SOURCE,)
    now = 0.0
    for index in range(config.budget or 0):
        if len(flying) == config.in_flight:
            now, ended, result = heappop(flying)
            yield ended, result
        result = draw(balancer, config.lines, sources[index % len(sources)])
        heappush(flying, (now + result.answer, index, result))
    while flying:
        _, ended, result = heappop(flying)
        yield ended, result


def asked(case: Case, target: str, margin: float | None, alpha: float) -> ProbeConfig:
    """What the probe is asked about a case."""
    return ProbeConfig(
        target=target,
        expect=case.expect,
        margin=margin,
        tolerance=case.tolerance,
        alpha=alpha,
        lines=case.lines,
        source_addresses=[f"127.0.0.{number + 2}" for number in range(case.sources)]
        if case.sources > 1
        else (),
        concurrency=case.in_flight,
        second_look=0,  # what is compared are the words about what was judged
    )


def fed(case: Case, seed: int, *, margin: float | None, alpha: float) -> Judged:
    """Judge a balancer by its draws."""
    config = asked(case, "localhost:1", margin, alpha)
    tally = Tally(config, "fed")
    for index, result in endings(case.make(seed), config):
        if tally.take(index, result):
            break
    tally.finish()
    return Judged.of(tally.report())


def over_sockets(case: Case, seed: int, *, margin: float | None, alpha: float) -> Judged:
    """Judge a balancer over loopback."""
    balancer = case.make(seed)

    async def run() -> Report:
        async with trio.open_nursery() as nursery:
            target = await nursery.start(balancer.serve)
            config = asked(case, target, margin, alpha)
            report = await probe(config)
            nursery.cancel_scope.cancel()
        return report

    clock = MockClock(autojump_threshold=_JUMP) if balancer.delays else None
    return Judged.of(trio.run(run, clock=clock))
