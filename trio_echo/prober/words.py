"""What a probe found, its verdict, and the words for it: the verdict first, then why.

Pure. A report is a handful of runs and what they were to show. Its verdict is never
stored: it is judged anew from the counts, wherever they come from.

The interval of a sum is as valid as that of one run. Draws of different runs are
independent, so the runs one after another are one long sequence in which the
martingale has expectation 1 under a correct route, wherever each run stopped and
for whatever reason it did; looking at the sum is one more look. A sum may look
right though no run does, half of them all to one, the others all to two. So it does
not pass over a run that failed by itself: it is inconclusive then. That makes PASS
rarer and FAIL no likelier, so both stated chances hold.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from functools import cached_property, reduce
from math import inf
from operator import add
from typing import TYPE_CHECKING, NamedTuple

from trio_echo.prober.counts import Counts, Outcome
from trio_echo.prober.latency import Histogram
from trio_echo.prober.order import Point, Runs, affinity, drift, thin
from trio_echo.prober.remarks import (
    MOST_NAMES,
    connections,
    duration,
    exact,
    findings,
    in_points,
    percent,
    reasons,
    shown_name,
    span,
)
from trio_echo.prober.split import (
    Verdict,
    interval,
    judge,
    off,
    unexpected,
)
from trio_echo.text import visible

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from trio_echo.prober.order import Drift
    from trio_echo.prober.split import Expectation, Interval

__all__ = [
    "Backend",
    "Report",
    "Run",
    "basis",
    "decide",
    "describe",
    "headline",
    "latencies",
    "shares",
]

_HOPELESS = 20
"""Failed connections after which a probe without any answer ends. A dead canary
that takes 20 % of the connections looks like this once in 10^14 probes."""


_SAYS = {
    Verdict.PASS: "splits",
    Verdict.FAIL: "does not split",
    Verdict.INCONCLUSIVE: "may or may not split",
}


def decide(
    expectation: Expectation, counts: Counts, error_limit: int | None, *, ended: bool
) -> Verdict | None:
    """The verdict on the counts of one run.

    Where nothing ever answered, nothing was measured, however the connections
    failed: a proxy may reset, close or refuse them for one and the same reason.
    A failure of this machine's says nothing about the route either.

    Args:
        expectation: what the counts are held against.
        counts: of one run.
        error_limit: how many failed connections are accepted; None for any number.
        ended: whether no connection will follow.

    Returns:
        None where nothing was expected, and as long as it may go either way.
    """
    failed = counts.errors
    if counts.outcomes.get(Outcome.LOCAL) or len(counts.answers) > MOST_NAMES:
        return Verdict.UNMEASURED
    if not counts.outcomes.get(Outcome.OK):
        hopeless = failed > max(_HOPELESS - 1, error_limit or 0) or (
            counts.outcomes[Outcome.WRONG_ECHO] + counts.outcomes[Outcome.NO_MATCH]
            == failed
            >= _HOPELESS
        )
        return Verdict.UNMEASURED if ended or hopeless else None
    if error_limit is not None and failed > error_limit:
        return Verdict.FAIL
    if not expectation.shares:
        return None
    verdict = judge(expectation, counts)
    if verdict is Verdict.PASS and affinity(counts.sources):
        # As many draws as sources, not as connections: no promise holds.
        verdict = Verdict.INCONCLUSIVE
    return verdict if ended or verdict is not Verdict.INCONCLUSIVE else None


@dataclass(frozen=True, kw_only=True)
class Run:
    """What one run of the probe found.

    Attributes:
        tag: of this run, unique among all.
        target: what was probed, as given.
        address: the numeric address behind it; None where none was found.
        began: when, in ISO 8601 with a time zone.
        elapsed: seconds from the first connection to the last.
        error_limit: how many failed connections were accepted; None for any number.
        interrupted: whether it was stopped before its end.
        counts: what was counted.
        examples: for each way to fail, what the first such connection met.
        points: running counts at some hundreds of moments, the last for all.
        changes: how often the backend changed; None where the sample does not
            carry it.
        notices: what else one should know.
        fault: why nothing can be said whatever was counted; empty for nothing.
        label: what it is called among others, such as its file.
        asked: how backends were made to tell their names, by the options' names;
            empty for our echo.
    """

    tag: str
    target: str
    address: str | None
    began: str
    elapsed: float
    error_limit: int | None
    interrupted: bool
    counts: Counts
    examples: Mapping[Outcome, str]
    points: Sequence[Point] = field(repr=False)
    changes: Runs | None
    notices: Sequence[str]
    fault: str = ""
    label: str = ""
    asked: Mapping[str, str] = field(default_factory=dict)

    def verdict(self, expectation: Expectation) -> Verdict | None:
        """What it shows by itself."""
        if self.fault:
            return Verdict.UNMEASURED
        return decide(expectation, self.counts, self.error_limit, ended=not self.interrupted)


class Backend(NamedTuple):
    """What was found of one backend.

    Attributes:
        name: as it calls itself; empty for a plain echo.
        expected: its expected share from 0 to 1, or None where nobody expected it.
        connections: how many it answered.
        share: the part of all connections that it answered, from 0 to 1.
        interval: where its true share lies, at level 1 - alpha, valid at any time.
        band: the shares within the margin; None where nobody expected it.
        connect: how long its connections took until they could be written to.
        answer: how long from the first line's sending to its answer.
    """

    name: str
    expected: float | None
    connections: int
    share: float
    interval: Interval
    band: Interval | None
    connect: Histogram
    answer: Histogram


@dataclass(frozen=True, repr=False)
class Report:
    """What a probe found, in one run or several. ``str(report)`` says it in plain words.

    Attributes:
        expectation: the split that was to be shown.
        runs: at least one.
        cause: why connections do not go as expected, where whoever asked knew
            it before; empty where nobody did.
    """

    expectation: Expectation
    runs: tuple[Run, ...]
    cause: str = ""

    @cached_property
    def counts(self) -> Counts:
        """What was counted in all runs."""
        return reduce(add, (run.counts for run in self.runs), Counts())

    @cached_property
    def verdict(self) -> Verdict | None:
        """What the counts prove; None where nothing was expected or it was interrupted before.

        A run that had more failures than it accepted fails the sum, however many
        failures the other runs had left to spend. A run that could not measure
        leaves a hole that a PASS would paper over.
        """
        alone = [run.verdict(self.expectation) for run in self.runs]
        if len(alone) == 1:
            return alone[0]
        if not self.expectation.shares:
            return Verdict.UNMEASURED if Verdict.UNMEASURED in alone else None
        verdict = _judge_sum(self)
        if verdict is Verdict.FAIL or any(map(_overspent, self.runs)):
            return Verdict.FAIL
        if Verdict.UNMEASURED in alone:
            return Verdict.UNMEASURED
        return Verdict.INCONCLUSIVE if Verdict.FAIL in alone else verdict

    @property
    def interrupted(self) -> bool:
        """Whether it was stopped before there was a verdict."""
        return len(self.runs) == 1 and self.runs[0].interrupted and self.verdict is None

    @property
    def target(self) -> str:
        """What was probed; several after one another."""
        return ", ".join(dict.fromkeys(run.target for run in self.runs))

    @property
    def address(self) -> str | None:
        """The one numeric address behind it; None for none or several."""
        [first, *others] = {run.address for run in self.runs}
        return None if others else first

    @property
    def began(self) -> str:
        """When the first run began, in ISO 8601."""
        return min(self.runs, key=lambda run: datetime.fromisoformat(run.began)).began

    @property
    def elapsed(self) -> float:
        """Seconds from the first run's beginning to the last one's end."""
        ends = [
            datetime.fromisoformat(run.began) + timedelta(seconds=run.elapsed) for run in self.runs
        ]
        if len(ends) == 1:
            return self.runs[0].elapsed
        return (max(ends) - datetime.fromisoformat(self.began)).total_seconds()

    @property
    def connections(self) -> int:
        """How many connections were judged, failed ones included."""
        return self.counts.total

    @property
    def errors(self) -> int:
        """How many of them failed."""
        return self.counts.errors

    @property
    def error_limit(self) -> int | None:
        """How many failed connections were accepted; None for any number."""
        limits = [run.error_limit for run in self.runs]
        return None if None in limits else sum(limit or 0 for limit in limits)

    @property
    def examples(self) -> Mapping[Outcome, str]:
        """For each way to fail, what the first such connection met."""
        return {
            outcome: text for run in reversed(self.runs) for outcome, text in run.examples.items()
        }

    @property
    def points(self) -> list[Point]:
        """Running counts, the runs one after another, each going on where the one before ended."""
        points: list[Point] = []
        base = Point(0, 0, {})
        for run in self.runs:
            points += [
                Point(
                    base.total + point.total,
                    base.errors + point.errors,
                    Counter(base.counts) + Counter(point.counts),
                )
                for point in run.points
            ]
            base = points[-1]
        return thin(points)

    @property
    def changes(self) -> Runs | None:
        """How often the backend changed; None where the sample does not carry it."""
        known = [run.changes for run in self.runs if run.changes is not None]
        return Runs(*map(sum, zip(*known, strict=True))) if known else None

    @property
    def drift(self) -> Drift | None:
        """When a backend's share changed most clearly; None where that is no more than chance."""
        return drift(list(self.course))

    @property
    def course(self) -> Sequence[Point]:
        """Running counts of a single run; none for several, whose order is no course of time."""
        return self.runs[0].points if len(self.runs) == 1 else ()

    @property
    def notices(self) -> list[str]:
        """What else one should know; of several runs, which of them stand out and how."""
        if len(self.runs) == 1:
            run = self.runs[0]
            return [*run.notices, *([run.fault] if run.fault else [])]
        faults = Counter(run.fault for run in self.runs if run.fault)
        shared = [fault for fault, runs in faults.items() if runs > 1]
        return shared + [
            f"{run.label or run.tag}: {text}"
            for run in self.runs
            for text in _stands_out(self, run)
            if text not in shared
        ]

    @property
    def backends(self) -> list[Backend]:
        """What was found of each backend: the expected first, then by what came."""
        expectation, counts = self.expectation, self.counts
        return [
            Backend(
                name=name,
                expected=expectation.shares.get(name),
                connections=counts.answers[name],
                share=counts.answers[name] / max(1, counts.total),
                interval=interval(expectation, counts, name),
                band=expectation.band(name) if name in expectation.shares else None,
                connect=counts.connect.get(name) or Histogram(),
                answer=counts.answer.get(name) or Histogram(),
            )
            for name in dict.fromkeys((*expectation.shares, *counts.answers))
        ]

    def unmeasured(self, fault: str) -> Report:
        """The same with a reason why nothing can be said, whatever was counted.

        A run that has such a reason keeps its own. Counts of several runs that
        prove a FAIL still do.
        """
        return replace(
            self, runs=tuple(replace(run, fault=run.fault or fault) for run in self.runs)
        )

    def __str__(self) -> str:
        return describe(self)

    def __repr__(self) -> str:
        # What pytest shows of `assert report.verdict is PASS, report`: it cuts the
        # middle out of what is longer.
        words = "; ".join([headline(self), *(reason.text for reason in reasons(self))])
        return words if len(words) <= _SHOWN else f"{words[:_SHOWN]}..."


def _judge_sum(report: Report) -> Verdict:
    """The verdict of the counts of several runs."""
    verdict = judge(report.expectation, report.counts)
    if verdict is Verdict.PASS and affinity(report.counts.sources):
        return Verdict.INCONCLUSIVE
    return verdict


def _overspent(run: Run) -> bool:
    """Whether more connections failed than were accepted."""
    limit = inf if run.error_limit is None else run.error_limit
    return run.counts.errors > limit and bool(run.counts.outcomes[Outcome.OK])


def _stands_out(report: Report, run: Run) -> Iterator[str]:
    """What one should know of one run among several."""
    yield from run.notices
    if run.interrupted:
        yield f"was interrupted after {connections(run.counts.total)}"
    alone = run.verdict(report.expectation)
    if alone is Verdict.UNMEASURED:
        yield run.fault or "could not measure, so the sum is incomplete"
    elif _overspent(run):
        yield f"{run.counts.errors} of its connections failed"
    elif alone is Verdict.FAIL and _judge_sum(report) is Verdict.PASS:
        yield "failed by itself, so the runs did not see one and the same split"


_SHOWN = 230
"""Characters of a report in a line."""


def describe(report: Report) -> str:
    """Everything worth saying about a report, in lines that are safe to print."""
    lines = [headline(report), f"  {basis(report)}"]
    lines += [f"  - {remark.text}" for remark in (*reasons(report), *findings(report))]
    lines += [f"  - {visible(notice)}" for notice in report.notices]
    if 0 < len(report.counts.answers) <= MOST_NAMES:
        lines += ["", *_columns(shares(report)), "", *_columns(latencies(report))]
    return "\n".join(lines)


def headline(report: Report) -> str:
    """The verdict in one line."""
    where = _where(report)
    if report.interrupted:
        return f"INTERRUPTED: {where}, no verdict by then"
    if report.verdict is Verdict.UNMEASURED:
        return f"COULD NOT MEASURE {where}"
    if report.verdict is Verdict.FAIL and not _split_failed(report):
        return f"FAIL: connections to {where} failed"
    if not report.expectation.shares:
        return f"MEASURED: {where}"
    says = _SAYS[report.verdict or Verdict.INCONCLUSIVE]
    shares = ", ".join(
        f"{shown_name(name)} {exact(share)}" for name, share in report.expectation.shares.items()
    )
    return f"{report.verdict}: {where} {says} as expected: {shares}"


def basis(report: Report) -> str:
    """What the verdict rests on, in one line."""
    if report.verdict is Verdict.UNMEASURED:
        return f"{connections(report.connections)} judged; nothing can be said about the split"
    spent = f"{connections(report.connections)} in {duration(report.elapsed)}"
    if len(report.runs) > 1:
        spent += f", {len(report.runs)} runs"
    return f"{spent}; {_promise(report)}"


def _promise(report: Report) -> str:
    """How sure the verdict is."""
    expectation = report.expectation
    if report.verdict is Verdict.FAIL and not _split_failed(report):
        return f"{report.error_limit} may fail, and {report.errors} did"
    if not expectation.shares:
        return "no split was expected, so there is no verdict on it"
    if affinity(report.counts.sources):
        return "the source address decides who answers, so the error rates do not hold"
    chance = f"with a chance of {expectation.alpha:g} at most"
    if report.verdict is Verdict.PASS:
        return f"a share off by {in_points(expectation.margin)} or more passes {chance}"
    if report.verdict is Verdict.FAIL:
        within = f" off by {in_points(expectation.tolerance)} or less"
        return f"a {f'split{within}' if expectation.tolerance else 'right split'} fails {chance}"
    return "neither PASS nor FAIL is proved so far"


def shares(report: Report) -> list[tuple[str, ...]]:
    """A table, head first: the share of each backend beside what was expected."""
    rows: list[tuple[str, ...]] = [("backend", "expected", "share", "true share", "answered")]
    rows += [
        (
            shown_name(backend.name),
            "-" if backend.expected is None else exact(backend.expected),
            percent(backend.share),
            span(backend.interval),
            str(backend.connections),
        )
        for backend in report.backends
    ]
    return rows


def latencies(report: Report) -> list[tuple[str, ...]]:
    """A table, head first: the percentiles of each backend that its sample carries."""
    measured = [
        (what, shown_name(backend.name), histogram.percentiles())
        for what in ("connect", "answer")
        for backend in report.backends
        if (histogram := getattr(backend, what)).count
    ]
    depths = sorted({depth for _, _, percentiles in measured for depth, _ in percentiles})
    rows: list[tuple[str, ...]] = [("time to", "backend", *(f"p{depth:g}" for depth in depths))]
    for what, name, percentiles in measured:
        found = dict(percentiles)
        cells = (duration(found[depth]) if depth in found else "-" for depth in depths)
        rows.append((what, name, *cells))
    return rows


def _where(report: Report) -> str:
    """What was probed, and the address behind it where that says more."""
    target = visible(report.target)
    if report.address in (None, report.target):
        return target
    return f"{visible(report.address or '')} ({target.rpartition(':')[0]})"


def _split_failed(report: Report) -> bool:
    """Whether the answers themselves speak against the split, not only failures."""
    expectation, counts = report.expectation, report.counts
    return bool(
        expectation.shares
        and (counts.mixed or off(expectation, counts) or unexpected(expectation, counts))
    )


def _columns(rows: list[tuple[str, ...]]) -> list[str]:
    """A table as lines of equal columns, words to the left and figures to the right."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return [
        "  "
        + "  ".join(
            cell.rjust(width) if number else cell.ljust(width)
            for number, (cell, width) in enumerate(zip(row, widths, strict=True))
        )
        for row in rows
    ]
