"""A report in plain words: the verdict first, then why, then the figures."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from trio_echo.prober.outcome import HINTS, Outcome
from trio_echo.prober.split import Verdict
from trio_echo.text import printable

if TYPE_CHECKING:
    from collections.abc import Iterator

    from trio_echo.prober.report import Report
    from trio_echo.prober.split import Interval

__all__ = [
    "Remark",
    "basis",
    "describe",
    "duration",
    "findings",
    "headline",
    "latencies",
    "percent",
    "reasons",
    "shares",
]

_SAYS = {
    Verdict.PASS: "splits",
    Verdict.FAIL: "does not split",
    Verdict.INCONCLUSIVE: "may or may not split",
}

_LAG_WORTH_SAYING = 0.01
"""Seconds of lag at the 99th percentile below which a rate was kept."""


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
    """Everything worth saying about a report, in lines."""
    lines = [headline(report), f"  {basis(report)}"]
    lines += [f"  - {remark.text}" for remark in (*reasons(report), *findings(report))]
    lines += [f"  - {notice}" for notice in report.notices]
    if report.counts.total():
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
    if not report.expect:
        return f"MEASURED: {where}"
    says = _SAYS[report.verdict or Verdict.INCONCLUSIVE]
    shares = ", ".join(
        f"{_name(name)} {_exact(share)}" for name, share in report.split.shares.items()
    )
    return f"{report.verdict}: {where} {says} as expected: {shares}"


def basis(report: Report) -> str:
    """What the verdict rests on, in one line."""
    spent = f"{_connections(report.connections)} in {duration(report.elapsed)}"
    margin = f"{100 * report.split.margin:g} points"
    alpha = f"with a chance of {report.split.alpha:g} at most"
    if len(report.runs) > 1:
        spent += f", {len(report.runs)} runs"
    if report.verdict is Verdict.UNMEASURED:
        return f"{_connections(report.connections)} judged; nothing can be said about the split"
    if report.verdict is Verdict.FAIL and not _split_failed(report):
        return f"{spent}; {report.error_limit} may fail, and {report.errors} did"
    if not report.expect:
        return f"{spent}; no split was expected, so there is no verdict on it"
    match report.verdict:
        case Verdict.PASS:
            return f"{spent}; a share off by {margin} or more passes {alpha}"
        case Verdict.FAIL:
            return f"{spent}; a right split fails {alpha}"
    return f"{spent}; a share may be off by {margin}"


def reasons(report: Report) -> Iterator[Remark]:
    """Why the verdict is what it is."""
    split = report.split
    total = report.connections
    if report.verdict is Verdict.FAIL and split.shares:
        for name in split.unexpected():
            why = "has weight 0" if name in split.shares else "was not expected at all"
            text = f"{_name(name)} answered {split.counts[name]} of {total}, but {why}"
            yield Remark("unexpected", name, text)
        if split.mixed:
            text = (
                f"more than one backend answered {_connections(split.mixed)}: "
                "something balances by request, not by connection"
            )
            yield Remark("mixed", None, text)
        for name in split.off():
            yield Remark("share", name, _share_words(report, name))
    if report.verdict is Verdict.INCONCLUSIVE and split.verdict() is Verdict.INCONCLUSIVE:
        for name in split.shares:
            yield Remark("undecided", name, _share_words(report, name))
        text = "more --connections or a wider --margin would decide it"
        yield Remark("undecided", None, text)
    for outcome, count in report.outcomes.items():
        if outcome is not Outcome.OK:
            yield Remark(outcome.value, None, _failure_words(report, outcome, count))


def findings(report: Report) -> Iterator[Remark]:
    """What the counts and their order look like, where the sample carries it."""
    answered = {name: count for name, count in report.counts.items() if count}
    off = report.split.off()
    if len(answered) == 1 and len(report.split.shares) > 1 and off:
        [(name, count)] = answered.items()
        text = f"all {count} to {_name(name)}: session affinity or source-IP hashing?"
        yield Remark("all-to-one", name, text)
    elif off and set(off) == set(report.split.shares) and len(off) == 2:  # noqa: PLR2004 - a swap takes two
        first, second = off
        yield from _swapped(report, first, second)
    runs, drift = report.changes, report.drift
    if runs is not None and drift is not None:
        runs = drift.within(runs)
        if runs.patterned and runs.sigmas < 0:
            drift = None  # answers that stick together wander by themselves
    if runs is not None and runs.patterned:
        figure = (
            f"the backend changed {runs.changes} times from one connection to the next, "
            f"where independent draws make about {runs.expected:.0f}"
        )
        if runs.sigmas < 0:
            text = f"{figure}: session affinity, or connections kept together?"
            yield Remark("sticky", None, text)
        else:
            yield Remark("rotation", None, f"{figure}: strict rotation (round robin)?")
    lag = report.lag.quantile(99)
    if lag >= _LAG_WORTH_SAYING:
        text = (
            f"the rate was not kept: 1 connection in 100 started {duration(lag)} or more late "
            "(a higher -c, a lower --rate or an idler machine would help)"
        )
        yield Remark("lag", None, text)
    if drift is not None:
        before, after = map(percent, drift.shares)
        text = (
            f"{_name(drift.name)} went from {before} to {after} at about answer {drift.at}: "
            "were weights moved meanwhile?"
        )
        yield Remark("drift", drift.name, text)


def shares(report: Report) -> list[tuple[str, ...]]:
    """A table, head first: the share of each backend beside what was expected."""
    rows: list[tuple[str, ...]] = [("backend", "expected", "share", "true share", "answered")]
    rows += [
        (
            _name(backend.name),
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
        (what, _name(backend.name), histogram.percentiles())
        for what in ("connect", "answer")
        for backend in report.backends
        if (histogram := getattr(backend.timings, what)).count
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


def _where(report: Report) -> str:
    """What was probed, and the address behind it where that says more."""
    target = printable(report.target)
    if report.address in (None, report.target):
        return target
    return f"{report.address} ({target.rpartition(':')[0]})"


def _split_failed(report: Report) -> bool:
    """Whether the answers themselves speak against the split, not only failures."""
    split = report.split
    return bool(split.mixed or split.off() or (split.shares and split.unexpected()))


def _share_words(report: Report, name: str) -> str:
    """A backend's share beside what was expected."""
    split = report.split
    share = split.counts[name] / report.connections
    return (
        f"{_name(name)} has {percent(share)} of {report.connections} "
        f"(true share {span(split.interval(name))}), expected {_exact(split.shares[name])}"
    )


def _failure_words(report: Report, outcome: Outcome, count: int) -> str:
    """One way to fail: how often, what was met, and the usual cause."""
    detail = report.examples.get(outcome, "")
    met = f" ({detail})" if detail else ""
    return f"{count} x {outcome}{met}: {HINTS[outcome]}"


def _swapped(report: Report, first: str, second: str) -> Iterator[Remark]:
    """Whether two backends have each other's share, rather than each the same."""
    split = report.split
    swapped = {first: split.shares[second], second: split.shares[first]}
    even = (split.shares[first] + split.shares[second]) / 2
    if all(
        split.interval(name).low <= share <= split.interval(name).high
        and abs(split.counts[name] / split.total - share) < abs(even - share) / 2
        for name, share in swapped.items()
    ):
        text = f"the counts fit the weights of {_name(first)} and {_name(second)} swapped"
        yield Remark("swapped", None, text)


def _connections(count: int) -> str:
    """So many connections."""
    return f"{count} connection" + ("" if count == 1 else "s")


def _name(name: str) -> str:
    """A backend's name; a plain echo has none."""
    return printable(name) or "(no name)"


def span(interval: Interval) -> str:
    """An interval as people read it."""
    return f"{100 * interval.low:.1f} to {100 * interval.high:.1f} %"


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
