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
from math import inf, log, log1p, sqrt
from operator import add
from typing import TYPE_CHECKING, NamedTuple

from trio_echo.prober.counts import Counts, Outcome
from trio_echo.prober.latency import Histogram
from trio_echo.prober.order import Point, Runs, affinity, drift, thin
from trio_echo.prober.split import (
    Verdict,
    interval,
    judge,
    off,
    silent,
    unexpected,
    would_decide,
)
from trio_echo.text import printable, visible

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from trio_echo.prober.order import Drift
    from trio_echo.prober.split import Expectation, Interval

__all__ = [
    "Backend",
    "Remark",
    "Report",
    "Run",
    "basis",
    "decide",
    "describe",
    "duration",
    "findings",
    "headline",
    "latencies",
    "percent",
    "reasons",
    "shares",
    "shown_name",
    "span",
]

MOST_NAMES = 256
"""Different names that are told apart. A server with more gives each connection a
name of its own, and must not fill the memory."""

_HOPELESS = 20
"""Failed connections after which a probe without any answer ends. A dead canary
that takes 20 % of the connections looks like this once in 10^14 probes."""


_NO_WAY = (
    "no backend is healthy behind the proxy, a policy refuses this client, "
    "or the listener wants TLS or a PROXY header"
)
HINTS = {
    Outcome.RESOLVE: "the name does not resolve here: check its spelling, or the cluster's DNS",
    Outcome.REFUSED: "nothing listens there: wrong port, or not started yet (--wait SECONDS waits)",
    Outcome.UNREACHABLE: "no way to that address: check routes, firewall and network policies",
    Outcome.CONNECT_TIMEOUT: (
        "no reply to the connection attempt: a firewall or network policy drops it, "
        "or the address is gone"
    ),
    Outcome.RESET: f"cut by the other side: {_NO_WAY}",
    Outcome.EOF_BEFORE_ANSWER: f"connected, then closed before an answer: {_NO_WAY}",
    Outcome.EOF_MID_LINE: "closed in the middle of an answer: a backend was stopped without drain",
    Outcome.READ_TIMEOUT: (
        "connected, but no answer in time: a backend hangs, it is no echo server by lines, "
        "or the listener wants TLS or a PROXY header"
    ),
    Outcome.WRONG_ECHO: (
        "the answer was not the line with a name in front: "
        "another kind of server, or answers mixed up on the way"
    ),
    Outcome.TLS: (
        "the TLS handshake failed: check --tls-ca, --sni, the certificate, "
        "and that the port speaks TLS at all"
    ),
    Outcome.LOCAL: "this machine's own failure, which says nothing about the route",
}
"""The usual causes of each ending where nothing answered, and the remedy."""

_HINTS_BESIDE_ANSWERS = HINTS | {
    Outcome.REFUSED: "nobody listened meanwhile: a restart, or a full backlog",
    Outcome.CONNECT_TIMEOUT: "no reply to some connection attempts: a full backlog, or packet loss",
    Outcome.RESET: (
        "cut by the other side: a limit (of connections or of their rate, a circuit breaker), "
        "or a backend that dies"
    ),
    Outcome.EOF_BEFORE_ANSWER: (
        "connected, then closed before an answer: a limit (of connections or of their rate, "
        "a circuit breaker), or a backend that dies"
    ),
    Outcome.READ_TIMEOUT: "connected, but no answer in time: a backend hangs or is overloaded",
    Outcome.TLS: "the TLS handshake failed for some: not every backend has the same certificate",
}
"""The same where other connections were answered."""

_SAME = 1.25
"""How far apart the middle nine tenths of durations may be, as a ratio, to be one timeout."""

_NOTICEABLE = 0.02
"""Seconds below which a connection may end as quickly as that by itself."""

_FEW = 5
"""Failures from which on their durations are worth comparing."""

_SIGMAS = 4.5
"""Standard deviations within which two shares may be the same."""

_SAYS = {
    Verdict.PASS: "splits",
    Verdict.FAIL: "does not split",
    Verdict.INCONCLUSIVE: "may or may not split",
}

_LAG_WORTH_SAYING = 0.01
"""Seconds of lag at the 99th percentile below which a rate was kept."""


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
            counts.outcomes.get(Outcome.WRONG_ECHO) == failed >= _HOPELESS
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
    """

    expectation: Expectation
    runs: tuple[Run, ...]

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
        """When a backend's share changed most clearly, and from what to what.

        None where that is no more than chance, and for several runs, whose
        order is no course of time.
        """
        return drift(list(self.runs[0].points)) if len(self.runs) == 1 else None

    @property
    def notices(self) -> list[str]:
        """What else one should know; of several runs, which of them stand out and how."""
        if len(self.runs) == 1:
            run = self.runs[0]
            return [*run.notices, *([run.fault] if run.fault else [])]
        return [
            f"{run.label or run.tag}: {text}"
            for run in self.runs
            for text in _stands_out(self, run)
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
        """The same with a reason why nothing can be said, whatever was counted."""
        return replace(self, runs=tuple(replace(run, fault=fault) for run in self.runs))

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
        yield f"was interrupted after {_connections(run.counts.total)}"
    alone = run.verdict(report.expectation)
    if alone is Verdict.UNMEASURED:
        yield run.fault or "could not measure, so the sum has a hole"
    elif _overspent(run):
        yield f"{run.counts.errors} of its connections failed"
    elif alone is Verdict.FAIL and _judge_sum(report) is Verdict.PASS:
        yield "failed by itself, so the runs did not see one and the same split"


_SHOWN = 230
"""Characters of a report in a line."""


class Remark(NamedTuple):
    """One thing to say.

    Attributes:
        code: for machines; never changes its meaning.
        backend: which one it is about, or None.
        text: for people, one line.
    """

    code: str
    backend: str | None
    text: str


def describe(report: Report) -> str:
    """Everything worth saying about a report, in lines that are safe to print."""
    lines = [headline(report), f"  {basis(report)}"]
    lines += [f"  - {remark.text}" for remark in (*reasons(report), *findings(report))]
    lines += [f"  - {visible(notice)}" for notice in report.notices]
    if report.counts.answers:
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
        f"{shown_name(name)} {_exact(share)}" for name, share in report.expectation.shares.items()
    )
    return f"{report.verdict}: {where} {says} as expected: {shares}"


def basis(report: Report) -> str:
    """What the verdict rests on, in one line."""
    if report.verdict is Verdict.UNMEASURED:
        return f"{_connections(report.connections)} judged; nothing can be said about the split"
    spent = f"{_connections(report.connections)} in {duration(report.elapsed)}"
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
        return "who answers goes by source address, so no chance of error holds"
    chance = f"with a chance of {expectation.alpha:g} at most"
    if report.verdict is Verdict.PASS:
        return f"a share off by {_points(expectation.margin)} or more passes {chance}"
    if report.verdict is Verdict.FAIL:
        within = f" off by {_points(expectation.tolerance)} or less"
        return f"a {f'split{within}' if expectation.tolerance else 'right split'} fails {chance}"
    return "neither PASS nor FAIL is proved so far"


def reasons(report: Report) -> Iterator[Remark]:
    """Why the verdict is what it is."""
    expectation, counts = report.expectation, report.counts
    total = report.connections
    if report.verdict is Verdict.FAIL and expectation.shares:
        for name in unexpected(expectation, counts):
            why = "has weight 0" if name in expectation.shares else "was not expected at all"
            text = f"{shown_name(name)} answered {counts.answers[name]} of {total}, but {why}"
            yield Remark("unexpected", name, text)
        if counts.mixed:
            text = (
                f"more than one backend answered {_connections(counts.mixed)}: "
                "something balances by request, not by connection"
            )
            yield Remark("mixed", None, text)
        for name in off(expectation, counts):
            yield Remark("share", name, _off_words(report, name))
    if report.verdict is Verdict.INCONCLUSIVE:
        yield from _undecided(report)
    if len(counts.answers) > MOST_NAMES:
        text = (
            f"more than {MOST_NAMES} different names answered: the server gives each connection "
            "a name of its own, so there are no shares to measure"
        )
        yield Remark("names", None, text)
    if counts.outcomes[Outcome.WRONG_ECHO] == counts.total > 1:
        text = f"all {counts.total} answers were wrong: the server speaks another protocol"
        yield Remark("protocol", None, text)
    for outcome, count in counts.outcomes.items():
        if outcome is not Outcome.OK and count:
            yield Remark(outcome.value, None, _failure_words(report, outcome, count))


def findings(report: Report) -> Iterator[Remark]:
    """What the counts and their order look like, where the sample carries it."""
    counts = report.counts
    yield from _who_answered(report)
    kept = affinity(counts.sources)
    if kept is not None:
        text = (
            f"sticky by source address: {kept.kept} of {kept.sources} addresses got one backend "
            f"alone, so this is a sample of {kept.sources} draws, not of {counts.total}"
        )
        yield Remark("sticky-source", None, text)
    runs, drift = report.changes, report.drift
    if runs is not None and drift is not None:
        runs = drift.within(runs)
        if runs.patterned and runs.sigmas < 0:
            drift = None  # answers that stick together wander by themselves
    # Addresses in turn make a pattern of their own where each keeps its backend.
    if runs is not None and runs.patterned and kept is None:
        figure = (
            f"the backend changed {runs.changes} times from one connection to the next, "
            f"where independent draws make about {runs.expected:.0f}"
        )
        if runs.sigmas < 0:
            text = f"{figure}: session affinity, or connections kept together?"
            yield Remark("sticky", None, text)
        else:
            yield Remark("rotation", None, f"{figure}: strict rotation (round robin)?")
    lag = counts.lag.quantile(99)
    if lag >= _LAG_WORTH_SAYING:
        text = (
            f"the rate was not kept: 1 connection in 100 started {duration(lag)} or more late "
            "(a higher -c, a lower --rate or an idler machine would help)"
        )
        yield Remark("lag", None, text)
    sticks = runs is not None and runs.patterned and runs.sigmas < 0
    stopped = [] if sticks else list(_stopped(report))
    yield from stopped
    if drift is not None and not stopped:
        before, after = map(percent, drift.shares)
        text = (
            f"{shown_name(drift.name)} went from {before} to {after} at about answer {drift.at}: "
            "were weights moved meanwhile?"
        )
        yield Remark("drift", drift.name, text)


def shares(report: Report) -> list[tuple[str, ...]]:
    """A table, head first: the share of each backend beside what was expected."""
    rows: list[tuple[str, ...]] = [("backend", "expected", "share", "true share", "answered")]
    rows += [
        (
            shown_name(backend.name),
            "-" if backend.expected is None else _exact(backend.expected),
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


def percent(share: float) -> str:
    """A share as people read it."""
    return f"{100 * share:.1f} %"


def duration(seconds: float) -> str:
    """A duration with the unit that suits it."""
    if seconds < 0.001:  # noqa: PLR2004 - one millisecond
        return f"{seconds * 1e6:.0f} µs"
    if seconds < 1:
        return f"{seconds * 1e3:.3g} ms"
    return f"{seconds:.1f} s"


def shown_name(name: str) -> str:
    """A backend's name, safe to print, no two alike; a plain echo has none."""
    return printable(name) or "(no name)"


def span(interval: Interval) -> str:
    """An interval as people read it."""
    return f"{100 * interval.low:.1f} to {100 * interval.high:.1f} %"


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


def _share_words(report: Report, name: str) -> str:
    """A backend's share beside what was expected."""
    expectation, counts = report.expectation, report.counts
    share = percent(counts.answers[name] / max(1, counts.total))
    return (
        f"{shown_name(name)} has {share} of {counts.total} "
        f"(true share {span(interval(expectation, counts, name))}), "
        f"expected {_exact(expectation.shares[name])}"
    )


def _off_words(report: Report, name: str) -> str:
    """The same for a share that is off: by how much at least, and whether the margin holds it."""
    expectation = report.expectation
    share = expectation.shares[name]
    low, high = interval(expectation, report.counts, name)
    least = max(low - share, share - high)
    words = f"{_share_words(report, name)}: off by {_points(least)} or more"
    if abs(report.counts.answers[name] / report.counts.total - share) < expectation.margin:
        words += (
            f", but inside the margin of {_points(expectation.margin)}: "
            "where the balancer may round so, give a --tolerance"
        )
    return words


def _undecided(report: Report) -> Iterator[Remark]:
    """Why there is no verdict yet, and what would bring one."""
    expectation, counts = report.expectation, report.counts
    if judge(expectation, counts) is not Verdict.INCONCLUSIVE:
        return  # the counts are decided; a finding or a notice says what speaks against them
    for name in expectation.shares:
        yield Remark("undecided", name, _share_words(report, name))
    enough = would_decide(expectation, counts)
    if enough is not None:
        text = f"about {_round_up(enough)} connections with these shares would decide it"
    elif counts.errors:
        text = (
            f"the {_connections(counts.errors)} that failed keep it open, each may have been meant "
            "for any backend: more connections would not decide it, mend the failures first"
        )
    else:
        text = "more connections with these shares would not decide it: another --margin would"
    yield Remark("undecided", None, text)


def _failure_words(report: Report, outcome: Outcome, count: int) -> str:
    """One way to fail: how often, what was met, and the likely cause."""
    detail = visible(report.examples.get(outcome, ""))
    met = f" ({detail})" if detail else ""
    return f"{count} x {outcome}{met}{_when(report, outcome)}: {_cause(report, outcome)}"


def _when(report: Report, outcome: Outcome) -> str:
    """How long connections lasted that ended so, where all did for the same time."""
    lasted = report.counts.failed.get(outcome)
    if lasted is None or lasted.count < _FEW or outcome in _OWN_TIMEOUTS:
        return ""
    first, last = lasted.quantile(5), lasted.quantile(95)
    if first < _NOTICEABLE or last > _SAME * first:
        return ""
    return f", each after about {duration(lasted.quantile(50))}, which looks like a timeout"


_OWN_TIMEOUTS = {Outcome.CONNECT_TIMEOUT, Outcome.READ_TIMEOUT}
"""What the probe itself gives up after --timeout."""


def _cause(report: Report, outcome: Outcome) -> str:
    """What the rest of the sample leaves as the cause of a way to fail."""
    expectation, counts = report.expectation, report.counts
    if not counts.outcomes[Outcome.OK]:
        return HINTS[outcome]
    dead = silent(expectation, counts)
    hint = _HINTS_BESIDE_ANSWERS[outcome]
    if not dead or outcome not in _OF_A_DEAD_BACKEND:
        return hint
    names = _listed(dead)
    if counts.errors < _FEW:
        return f"{hint}, or {names} is down, with no answer so far"
    weight = sum(expectation.shares[name] for name in dead)
    failed = counts.errors / counts.total
    doubt = _SIGMAS * sqrt(weight * (1 - weight) / counts.total)
    if abs(failed - weight) <= doubt:
        return (
            f"{names} never answered and should have had {_exact(weight)}, about the "
            f"{percent(failed)} that failed: down, or not reachable from the proxy"
        )
    return hint


_OF_A_DEAD_BACKEND = {
    Outcome.REFUSED,
    Outcome.RESET,
    Outcome.EOF_BEFORE_ANSWER,
    Outcome.READ_TIMEOUT,
    Outcome.CONNECT_TIMEOUT,
}


def _who_answered(report: Report) -> Iterator[Remark]:
    """What shares that are off look like: one for all, swapped, or even."""
    expectation, counts = report.expectation, report.counts
    outside = off(expectation, counts)
    answered = [name for name, count in counts.answers.items() if count]
    missing = silent(expectation, counts)
    if len(answered) == 1 and missing and outside:
        who = "it is" if len(missing) == 1 else "they are"
        text = (
            f"all {counts.answers[answered[0]]} to {shown_name(answered[0])}, none to "
            f"{_listed(missing)}: {who} down or not in the route, or answers go by the client"
        )
        yield Remark("all-to-one", answered[0], text)
    elif len(outside) > 1 and set(outside) == set(expectation.shares):
        even = dict.fromkeys(outside, 1 / len(outside))
        if len(outside) == 2:  # noqa: PLR2004 - a swap takes two
            first, second = outside
            swapped = {first: expectation.shares[second], second: expectation.shares[first]}
            if _fits(report, swapped, even):
                names = f"{shown_name(first)} and {shown_name(second)}"
                yield Remark("swapped", None, f"the counts fit the weights of {names} swapped")
        if _fits(report, even, expectation.shares):
            yield Remark("even", None, "the counts fit equal weights: are the weights in force?")


def _fits(report: Report, shares: Mapping[str, float], others: Mapping[str, float]) -> bool:
    """Whether the counts fit these shares, and are far nearer to them than to the others."""
    counts = report.counts
    for name, share in shares.items():
        low, high = interval(report.expectation, counts, name)
        away = abs(counts.answers[name] / counts.total - share)
        if not (low <= share <= high and away < abs(others[name] - share) / 2):
            return False
    return True


def _stopped(report: Report) -> Iterator[Remark]:
    """Which backends answered for a while and then not any more, beyond chance."""
    if len(report.runs) > 1:
        return
    points, total = report.runs[0].points, report.counts.total
    for name, count in report.counts.answers.items():
        last = next(point.total for point in points if point.counts.get(name, 0) == count)
        if 0 < count < last and (total - last) * log1p(-count / last) < _NEVER:
            text = (
                f"{shown_name(name)} has {percent(count / last)} of the first {last} connections "
                f"and none of the {total - last} after: it stopped, or was taken out"
            )
            yield Remark("stopped", name, text)


_NEVER = log(1e-6)
"""The logarithm of a chance that a backend has not had: once in a million."""


def _listed(names: Sequence[str]) -> str:
    """Names as a list in a sentence."""
    *others, last = map(shown_name, names)
    return f"{', '.join(others)} and {last}" if others else last


def _connections(count: int) -> str:
    """So many connections."""
    return f"{count} connection" + ("" if count == 1 else "s")


def _points(share: float) -> str:
    """A difference of shares as people read it."""
    points = f"{100 * share:.2g}"
    return f"{points} point" + ("" if points == "1" else "s")


def _round_up(count: int) -> int:
    """A number of connections without digits that mean nothing."""
    unit: int = 10 ** max(0, len(str(count)) - 2)
    return -(-count // unit) * unit


def _exact(share: float) -> str:
    """An expected share, without decimals that nobody gave."""
    return f"{100 * share:.4g} %"


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
