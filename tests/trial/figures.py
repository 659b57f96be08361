"""Pure: what the runs add up to, whether a promise was kept, and the table."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from io import StringIO
from math import comb
from statistics import median
from typing import TYPE_CHECKING

from rich.box import MARKDOWN
from rich.console import Console
from rich.table import Table
from trial.moves import WINDOWS

from trio_echo.prober.split import Verdict, connections_needed

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from trial.exact import Chances, Question
    from trial.judging import Judged
    from trial.moves import Delays, Lengths
    from trial.peeking import Peeked

__all__ = [
    "LEVEL",
    "Figures",
    "chance_of_as_many",
    "delays_table",
    "exact_table",
    "lengths_table",
    "peeking_table",
    "short_table",
    "table",
]

LEVEL = 0.001
"""The chance that the whole trial accuses a probe that keeps all its promises.
Each promise gets its part of it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Figures:
    """The runs of one case.

    Attributes:
        name: of the case.
        right: what a check should say.
        wrong: the verdict that would be wrong; None where nothing is promised.
        alpha: the promised bound of its chance.
        runs: what each run of the probe came to.
        accepted: how many runs each of the usual checks accepted.
    """

    name: str
    right: str
    wrong: Verdict | None
    alpha: float
    runs: Sequence[Judged]
    accepted: Mapping[str, int]

    def count(self, verdict: Verdict) -> int:
        """How many runs had this verdict."""
        return sum(run.verdict is verdict for run in self.runs)

    def broken(self, promises: int) -> bool:
        """Whether there were more wrong verdicts than chance allows.

        Args:
            promises: how many promises the whole trial looks at.
        """
        if self.wrong is None:
            return False
        chance = chance_of_as_many(self.count(self.wrong), len(self.runs), self.alpha)
        return chance < LEVEL / promises


def chance_of_as_many(hits: int, total: int, share: float) -> float:
    """P(X >= hits) for X binomial; the smallest level at which `share` is refuted as a bound."""
    return sum(
        comb(total, count) * share**count * (1 - share) ** (total - count)
        for count in range(hits, total + 1)
    )


def table(figures: Sequence[Figures]) -> str:
    """All cases as one Markdown table."""
    usual = list(figures[0].accepted)
    left = ["the balancer", "right is to", "promised"]
    right = ["PASS", "FAIL", "connections, median"]
    heads = [f"{name}: accepts" for name in usual]
    drawn = _columns(left, right, ["said besides the shares"], heads)
    for case in figures:
        total = len(case.runs)
        said = Counter(code for run in case.runs for code in run.said)
        drawn.add_row(
            case.name,
            case.right,
            "" if case.wrong is None else f"{case.wrong} <= {100 * case.alpha:g} %",
            _percent(case.count(Verdict.PASS) / total),
            _percent(case.count(Verdict.FAIL) / total),
            f"{median(run.connections for run in case.runs):.0f}",
            ", ".join(f"{code} {_percent(count / total)}" for code, count in said.most_common()),
            *(_percent(case.accepted[name] / total) for name in usual),
        )
    return _markdown(drawn)


def short_table(figures: Sequence[Figures]) -> str:
    """How often each check calls a case wrong, as a Markdown table."""
    usual = list(figures[0].accepted)
    drawn = _columns(["called wrong by"], [*usual, "probe", "its connections, median"])
    for case in figures:
        total = len(case.runs)
        drawn.add_row(
            case.name,
            *(_percent(1 - case.accepted[name] / total) for name in usual),
            _percent(case.count(Verdict.FAIL) / total),
            f"{median(run.connections for run in case.runs):.0f}",
        )
    return _markdown(drawn)


def peeking_table(peeked: Sequence[Peeked]) -> str:
    """How often looking often calls a right split wrong, as a Markdown table."""
    drawn = _columns([], ["looks at a right 80/20", "z-test at 5 %", "probe at 5 %"])
    for found in peeked:
        drawn.add_row(f"{found.looks:,}", _percent(found.fixed), _percent(found.always))
    return _markdown(drawn)


def exact_table(exact: Mapping[Question, Chances]) -> str:
    """Computed chances of every question, as a Markdown table."""
    drawn = _columns(
        ["asked", "given", "promised"],
        ["PASS", "FAIL", "INCONCLUSIVE", "connections, median", "at most"],
    )
    for question, found in exact.items():
        expectation = question.expectation
        tolerated = f", tolerance {100 * question.tolerance:g} points" * bool(question.tolerance)
        promised = f"{question.wrong} <= {100 * expectation.alpha:g} %"
        drawn.add_row(
            f"{question.asked:g}/{100 - question.asked:g}{tolerated}",
            f"{question.given:g}/{100 - question.given:g}",
            "" if question.wrong is None else promised,
            _percent(found.passes),
            _percent(found.fails),
            _percent(found.undecided),
            str(found.connections),
            str(connections_needed(expectation)),
        )
    return _markdown(drawn)


def delays_table(found: Sequence[Delays]) -> str:
    """How soon changes are seen, as a Markdown table."""
    drawn = _columns(
        ["80/20 changes to"],
        [
            "watch: connections, median",
            "its moment is off by",
            *(f"z-test on every {size}" for size in WINDOWS),
        ],
    )
    for delays in found:
        drawn.add_row(
            delays.name,
            *map(_connections, (delays.detector, delays.off, *delays.windows)),
        )
    return _markdown(drawn)


def lengths_table(found: Sequence[Lengths]) -> str:
    """How rare false alarms are, as a Markdown table."""
    drawn = _columns([], ["connections to a false alarm: promised", "measured, mean", "error"])
    for length in found:
        drawn.add_row(f">= {length.promised}", f"{length.mean:.0f}", f"{length.error:.0f}")
    return _markdown(drawn)


def _connections(number: float | None) -> str:
    """A number of connections; a dash where it mostly never came to it."""
    return "-" if number is None else f"{number:.0f}"


def _columns(*heads: Sequence[str]) -> Table:
    """An empty table: columns to the left, to the right, to the left, and so on."""
    drawn = Table(box=MARKDOWN)
    for number, group in enumerate(heads):
        for head in group:
            drawn.add_column(head, justify="right" if number % 2 else "left")
    return drawn


def _markdown(drawn: Table) -> str:
    """A table as text."""
    page = StringIO()
    Console(file=page, width=1000, color_system=None).print(drawn)
    lines = (line.strip() for line in page.getvalue().splitlines())
    return "\n".join(line for line in lines if line)


def _percent(share: float) -> str:
    """A share with as many digits as tell it from never and always."""
    digits = 1 if 0.001 < share < 0.999 else 4
    return f"{round(100 * share, digits):.6g} %"
