"""Several runs as one: counts add up, and the verdict comes from the sum.

The interval of the sum is as valid as that of one run. Draws of different runs
are independent, so the runs one after another are one long sequence in which
the martingale has expectation 1 under a correct route, wherever each run
stopped and for whatever reason it did; looking at the sum is one more look.

Two things can spoil that, and both are the caller's: leaving out runs because
of what they found ("again until it passes"), and adding one run twice. The
second is refused here. And a sum may look right though no run does, half of
them all to one, the others all to two. So a sum does not pass over a run that
failed by itself: it is inconclusive then. That makes PASS rarer and FAIL no
likelier, so both stated probabilities hold.
"""

from __future__ import annotations

from collections import Counter
from datetime import datetime, timedelta
from math import inf
from typing import TYPE_CHECKING, TypeVar

from trio_echo.errors import TrioEchoError
from trio_echo.prober.latency import Histogram
from trio_echo.prober.order import Point, Runs, thin
from trio_echo.prober.report import Report
from trio_echo.prober.split import Split, Verdict
from trio_echo.prober.tally import Timings

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

__all__ = ["merge"]

Key = TypeVar("Key")


def merge(reports: Mapping[str, Report]) -> Report:
    """Add runs up, and judge the sum.

    Args:
        reports: by a label to name them with, such as their file; at least one.

    Raises:
        TrioEchoError: two expect different things, or are the same run.
    """
    labels = list(reports)
    parts = list(reports.values())
    first = parts[0]
    for label, part in reports.items():
        _check_same(labels[0], first, label, part)
    _check_distinct(reports)
    if len(parts) == 1:
        return first
    split = Split(first.expect, margin=first.split.margin, alpha=first.split.alpha)
    changes = [part.changes for part in parts if part.changes is not None]
    for part in parts:
        split.counts.update(part.split.counts)
        split.errors += part.errors
        split.mixed += part.split.mixed
    limits = [part.error_limit for part in parts]
    notices = [f"{label}: {notice}" for label, part in reports.items() for notice in part.notices]
    verdict = _judge(reports, split, notices)
    began = min(datetime.fromisoformat(part.began) for part in parts)
    ended = max(
        datetime.fromisoformat(part.began) + timedelta(seconds=part.elapsed) for part in parts
    )
    return Report(
        target=", ".join(dict.fromkeys(part.target for part in parts)),
        address=first.address if len({part.address for part in parts}) == 1 else None,
        runs=tuple(run for part in parts for run in part.runs),
        began=began.isoformat(),
        elapsed=(ended - began).total_seconds(),
        expect=first.expect,
        error_limit=None if None in limits else sum(limit or 0 for limit in limits),
        verdict=verdict,
        interrupted=False,
        split=split,
        outcomes=_sum(part.outcomes for part in parts),
        examples={
            outcome: text for part in reversed(parts) for outcome, text in part.examples.items()
        },
        timings=_timings(parts),
        points=_points(parts),
        changes=Runs(*map(sum, zip(*changes, strict=True))) if changes else None,
        lag=_added(part.lag for part in parts),
        late=_sum(part.late for part in parts),
        launched=sum(part.launched for part in parts),
        unfinished=sum(part.unfinished for part in parts),
        contacts=sum(part.contacts for part in parts),
        notices=notices,
    )


def _check_same(label: str, report: Report, other_label: str, other: Report) -> None:
    """Refuse to add up runs that were to show different things."""
    for what, ours, theirs in (
        ("shares", _shares(report), _shares(other)),
        ("--margin", f"{report.split.margin:g}", f"{other.split.margin:g}"),
        ("--alpha", f"{report.split.alpha:g}", f"{other.split.alpha:g}"),
    ):
        if ours != theirs:
            message = (
                f"{other_label}: expects {what} {theirs}, but {label} expects {ours}; "
                "only runs with one expectation can be added up"
            )
            raise TrioEchoError(message)


def _shares(report: Report) -> str:
    """The expectation as people compare it: weights in another unit are the same shares."""
    shares = sorted(report.split.shares.items())
    return ", ".join(f"{name!r} {100 * share:.10g} %" for name, share in shares) or "of nobody"


def _check_distinct(reports: Mapping[str, Report]) -> None:
    """Refuse to count a run twice."""
    seen: dict[str, str] = {}
    for label, report in reports.items():
        for run in report.runs:
            if run in seen:
                raise TrioEchoError(f"{label}: holds the same run as {seen[run]}")
            seen[run] = label


def _judge(reports: Mapping[str, Report], split: Split, notices: list[str]) -> Verdict | None:
    """The verdict of the sum; why it is not simply that of the counts goes to the notices.

    A run that had more failures than it accepted fails the sum, however many
    failures the other runs had left to spend. A run that could not measure
    leaves a hole that a PASS would paper over.
    """
    notices += [
        f"{label}: was interrupted after {report.connections} connections"
        for label, report in reports.items()
        if report.interrupted
    ]
    if not split.shares:
        return None
    failed = [
        f"{label}: {report.errors} of its connections failed"
        for label, report in reports.items()
        if report.verdict is Verdict.FAIL
        and report.errors > (inf if report.error_limit is None else report.error_limit)
    ]
    unmeasured = [
        f"{label}: could not measure, so the sum has a hole"
        for label, report in reports.items()
        if report.verdict is Verdict.UNMEASURED
    ]
    notices += failed + unmeasured
    verdict = split.verdict()
    if failed or verdict is Verdict.FAIL:
        return Verdict.FAIL
    if unmeasured:
        return Verdict.UNMEASURED
    against = [
        f"{label}: failed by itself, so the runs did not see one and the same split"
        for label, report in reports.items()
        if report.verdict is Verdict.FAIL
    ]
    if verdict is Verdict.PASS and against:
        notices += against
        return Verdict.INCONCLUSIVE
    return verdict


def _sum(counts: Iterable[Mapping[Key, int]]) -> Counter[Key]:
    """Counts by whatever, added up."""
    total: Counter[Key] = Counter()
    for part in counts:
        total.update(part)
    return total


def _added(histograms: Iterable[Histogram]) -> Histogram:
    """One histogram of all."""
    total = Histogram()
    for histogram in histograms:
        total.merge(histogram)
    return total


def _timings(parts: Sequence[Report]) -> dict[str, Timings]:
    """The timings of every backend in any run."""
    names = dict.fromkeys(name for part in parts for name in part.timings)
    return {
        name: Timings(
            _added(part.timings[name].connect for part in parts if name in part.timings),
            _added(part.timings[name].answer for part in parts if name in part.timings),
        )
        for name in names
    }


def _points(parts: Sequence[Report]) -> list[Point]:
    """The runs one after another, each going on from where the one before ended."""
    points: list[Point] = []
    base = Point(0, 0, {})
    for part in parts:
        points += [
            Point(
                base.total + point.total,
                base.errors + point.errors,
                _sum([base.counts, point.counts]),
            )
            for point in part.points
        ]
        base = points[-1]
    return thin(points)
