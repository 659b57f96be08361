"""The probe before a balancer with faults, over real sockets: its verdicts and its words."""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import pytest
import trio
from balancer import Balancer, bunched, rotating, shifting, sticky, weighted
from hypothesis import given
from hypothesis import strategies as st
from profiles import examples
from trio.testing import MockClock

from trio_echo.prober.config import ProbeConfig
from trio_echo.prober.counts import Outcome
from trio_echo.prober.remarks import findings, reasons
from trio_echo.prober.schedule import probe
from trio_echo.prober.split import Verdict

if TYPE_CHECKING:
    from collections.abc import Mapping

    from balancer import Choose

    from trio_echo.prober.words import Report

EXPECT = {"one": 80, "two": 20}
SWAPPED = {"one": 20, "two": 80}

JUMP = 0.01
"""Real seconds without any event after which the virtual clock jumps. What a
socket sends to another of this process is there at once, so nothing is missed."""


async def judge(balancer: Balancer, **asked: Any) -> Report:
    """Probe a balancer until there is a verdict, with margin and alpha that make it soon."""
    asked = {"expect": EXPECT, "margin": 0.1, "alpha": 0.01, **asked}
    async with trio.open_nursery() as nursery:
        target = await nursery.start(balancer.serve)
        report = await probe(ProbeConfig(target=target, **asked))
        nursery.cancel_scope.cancel()
    return report


def drawn(choose: Choose, total: int) -> Counter[str]:
    """What a balancer must have dealt out by its first `total` connections."""
    return Counter(choose("127.0.0.1") for _ in range(total))


@examples(0.2)
@given(
    weights=st.fixed_dictionaries({name: st.integers(1, 9) for name in ("a", "b", "c")}),
    delays=st.dictionaries(st.sampled_from("abc"), st.floats(0.01, 1), max_size=2),
    seed=st.integers(0, 99),
    concurrency=st.integers(1, 20),
)
def test_the_running_counts_are_those_of_the_first_draws(
    weights: Mapping[str, int], delays: Mapping[str, float], seed: int, concurrency: int
) -> None:
    """However slow some are and however many wait at once, nobody is counted out of turn."""
    balancer = Balancer(choose=weighted(weights, seed), delays=delays)

    async def measure() -> Report:
        return await judge(balancer, expect=weights, connections=30, concurrency=concurrency)

    report = trio.run(measure, clock=MockClock(autojump_threshold=JUMP))
    for point in report.points:
        assert drawn(weighted(weights, seed), point.total) == +Counter(point.counts)
    assert report.counts.outcomes == {Outcome.OK: report.connections}


@dataclass(frozen=True, kw_only=True)
class Case:
    """A balancer and what the probe must make of it.

    Attributes:
        verdict: the verdict.
        says: the codes of all remarks, in order.
        words: parts of the report.
        asked: what the probe is asked beyond the usual.
    """

    balancer: Balancer
    verdict: Verdict
    says: tuple[str, ...]
    words: tuple[str, ...]
    asked: Mapping[str, Any] = field(default_factory=dict)


SHARES = ("share", "share")

CASES = {
    "true": lambda: Case(
        balancer=Balancer(choose=weighted(EXPECT, 1)),
        verdict=Verdict.PASS,
        says=(),
        words=("splits as expected: one 80 %, two 20 %", "a chance of 0.01 at most"),
    ),
    "77/23 is off, where 5 points are allowed and one asks long enough": lambda: Case(
        balancer=Balancer(choose=weighted({"one": 77, "two": 23}, 1)),
        asked={"margin": 0.05, "alpha": 0.05},
        verdict=Verdict.FAIL,
        says=SHARES,
        words=("does not split as expected", "one has 75.4 % of 850", "expected 80 %"),
    ),
    "77/23 passes where 10 points are allowed": lambda: Case(
        balancer=Balancer(choose=weighted({"one": 77, "two": 23}, 1)),
        verdict=Verdict.PASS,
        says=(),
        words=("splits as expected", "a share off by 10 points or more passes"),
    ),
    "swapped": lambda: Case(
        balancer=Balancer(choose=weighted(SWAPPED, 1)),
        verdict=Verdict.FAIL,
        says=(*SHARES, "swapped"),
        words=("the counts fit the weights of one and two swapped",),
    ),
    "even, which is not swapped": lambda: Case(
        balancer=Balancer(choose=weighted({"one": 1, "two": 1}, 2)),
        verdict=Verdict.FAIL,
        says=(*SHARES, "even"),
        words=("of 17, expected", "the counts fit equal weights: are the weights in force?"),
    ),
    "all to one": lambda: Case(
        balancer=Balancer(choose=weighted({"one": 1}, 1)),
        verdict=Verdict.FAIL,
        says=(*SHARES, "all-to-one"),
        words=(
            "two has 0.0 % of",
            "to one, none to two: it is down or not in the route, or answers go by",
        ),
    ),
    "strict rotation": lambda: Case(
        balancer=Balancer(choose=rotating(EXPECT)),
        asked={"margin": 0.08, "alpha": 0.001},
        verdict=Verdict.PASS,
        says=("rotation",),
        words=(": the balancer takes turns (round robin)",),
    ),
    "sticky by source": lambda: Case(
        balancer=Balancer(choose=sticky(EXPECT, 1)),
        verdict=Verdict.FAIL,
        says=(*SHARES, "all-to-one"),
        words=("or answers go by the client",),
    ),
    "drawn once for ten": lambda: Case(
        balancer=Balancer(choose=bunched(weighted(EXPECT, 1), 10)),
        verdict=Verdict.PASS,
        says=("sticky",),
        words=("session affinity, or connections kept together?",),
    ),
    "by line": lambda: Case(
        balancer=Balancer(choose=weighted(EXPECT, 1), by_line=True),
        asked={"lines": 3},
        verdict=Verdict.FAIL,
        says=("mixed",),
        words=("something balances by request, not by connection",),
    ),
    "by line, which one line cannot show": lambda: Case(
        balancer=Balancer(choose=weighted(EXPECT, 1), by_line=True),
        verdict=Verdict.PASS,
        says=(),
        words=("splits as expected",),
    ),
    "one resets": lambda: Case(
        balancer=Balancer(choose=weighted(EXPECT, 1), resets={"two"}),
        verdict=Verdict.FAIL,
        says=("reset",),
        words=(
            "1 x reset (Connection reset by peer): two is down, or not reachable from the proxy",
            "it never answered, and",
        ),
    ),
    "one resets and any error is accepted": lambda: Case(
        balancer=Balancer(choose=weighted(EXPECT, 1), resets={"two"}),
        asked={"max_errors": 1000, "connections": 1000},
        verdict=Verdict.INCONCLUSIVE,
        says=("undecided", "undecided", "undecided", "reset"),
        words=("may or may not split as expected", "two has 0.0 % of 1000"),
    ),
    "drift halfway": lambda: Case(
        balancer=Balancer(choose=shifting(weighted(EXPECT, 1), weighted(SWAPPED, 2), 300)),
        verdict=Verdict.FAIL,
        says=(*SHARES, "drift"),
        words=("one went from 79.5 % to 27.9 % at about answer 288: were weights moved",),
        asked={"margin": 0.05, "alpha": 0.001},
    ),
}
"""Made anew for each test: a balancer goes on where it was."""


@pytest.mark.parametrize("name", CASES)
async def test_verdict_and_words(name: str) -> None:
    """The verdict comes first, then what is wrong and nothing else, in plain words."""
    case = CASES[name]()
    report = await judge(case.balancer, **case.asked)
    text = str(report)
    assert text.startswith(case.verdict.value)
    assert report.verdict is case.verdict
    assert tuple(remark.code for remark in (*reasons(report), *findings(report))) == case.says
    for words in case.words:
        assert words in text


async def test_a_slow_backend_is_neither_undercounted_nor_overlooked(
    mock_clock: MockClock,
) -> None:
    """With 16 in flight the fast one is 60 answers ahead; it still passes, and the table tells."""
    mock_clock.autojump_threshold = JUMP
    balancer = Balancer(choose=weighted(EXPECT, 1), delays={"two": 0.2})
    report = await judge(balancer)
    assert report.verdict is Verdict.PASS
    assert drawn(weighted(EXPECT, 1), report.connections) == report.counts.answers
    one, two = report.backends
    assert one.answer.quantile(99) < 0.1
    assert two.answer.quantile(1) == pytest.approx(0.2, rel=0.01)
    assert re.search("answer +two +200 ms", str(report))
