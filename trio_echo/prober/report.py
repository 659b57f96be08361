"""What a probe found: counts, what they prove, and everything that explains it."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from trio_echo.prober import words
from trio_echo.prober.order import Point, Runs, drift
from trio_echo.prober.tally import Timings

if TYPE_CHECKING:
    from collections.abc import Mapping

    from trio_echo.prober.latency import Histogram
    from trio_echo.prober.order import Drift
    from trio_echo.prober.outcome import Outcome
    from trio_echo.prober.split import Interval, Split, Verdict
    from trio_echo.prober.tally import Tally

__all__ = ["Backend", "Report"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Backend:
    """What was found of one backend.

    Attributes:
        name: as it calls itself; empty for a plain echo.
        expected: its expected share from 0 to 1, or None where nobody expected it.
        connections: how many it answered.
        share: the part of all connections that it answered, from 0 to 1.
        interval: where its true share lies, at level 1 - alpha, valid at any time.
        tolerance: where its share passes; None where nobody expected it.
        timings: how long its connections took.
    """

    name: str
    expected: float | None
    connections: int
    share: float
    interval: Interval
    tolerance: Interval | None
    timings: Timings


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """What a probe found. ``str(report)`` says it in plain words, the verdict first.

    Attributes:
        target: what was probed, as given.
        address: the numeric address behind it; None where none was found.
        runs: the tag of each run in it; several after a merge.
        began: when, in ISO 8601 and UTC.
        elapsed: seconds from the first connection to the last.
        expect: the weights that were expected; empty for none.
        error_limit: how many failed connections were accepted; None for any number.
        verdict: what the counts prove; None where nothing was expected, and
            where the probe was interrupted before it knew.
        interrupted: whether it was stopped before its end.
        split: the counts, the intervals, the tolerance.
        outcomes: connections by how they ended.
        examples: for each way to fail, what the first such connection met.
        timings: by backend.
        points: running counts at some hundreds of moments.
        changes: how often the backend changed; None where the sample does not
            carry it.
        lag: seconds that connections started later than the rate asked for.
        late: answers by backend that came after the verdict; not judged.
        launched: connections launched, the late ones included.
        unfinished: connections cut before their end.
        contacts: connections made before the first that counts.
        notices: what else one should know.
    """

    target: str
    address: str | None
    runs: tuple[str, ...]
    began: str
    elapsed: float
    expect: Mapping[str, float]
    error_limit: int | None
    verdict: Verdict | None
    interrupted: bool
    split: Split
    outcomes: Mapping[Outcome, int]
    examples: Mapping[Outcome, str]
    timings: Mapping[str, Timings]
    points: list[Point] = field(repr=False)
    changes: Runs | None
    lag: Histogram
    late: Mapping[str, int]
    launched: int
    unfinished: int
    contacts: int
    notices: list[str]

    @classmethod
    def of(cls, tally: Tally) -> Report:
        """Make the report of a tally that is done."""
        split = tally.split
        return cls(
            target=tally.config.target,
            address=tally.address,
            runs=(tally.run,),
            began=tally.began.isoformat(timespec="milliseconds"),
            elapsed=tally.elapsed,
            expect=dict(tally.config.expect),
            error_limit=tally.config.error_limit,
            verdict=tally.verdict,
            interrupted=tally.stopped,
            split=split,
            outcomes=Counter(tally.outcomes),
            examples=dict(tally.examples),
            timings=dict(tally.timings),
            points=_whole(tally.order.points, split),
            changes=tally.order.runs(),
            lag=tally.lag,
            late=Counter(tally.late),
            launched=tally.launched,
            unfinished=tally.launched - tally.ended,
            contacts=tally.contacts,
            notices=list(tally.notices),
        )

    @property
    def connections(self) -> int:
        """How many connections were judged, failed ones included."""
        return self.split.total

    @property
    def errors(self) -> int:
        """How many of them failed."""
        return self.split.errors

    @property
    def counts(self) -> Counter[str]:
        """Judged connections by the backend that answered them."""
        return self.split.counts

    @property
    def backends(self) -> list[Backend]:
        """What was found of each backend: the expected first, then by what came."""
        split = self.split
        return [
            Backend(
                name=name,
                expected=split.shares.get(name),
                connections=count,
                share=count / max(1, split.total),
                interval=split.interval(name),
                tolerance=split.tolerance(name) if name in split.shares else None,
                timings=self.timings.get(name) or Timings(),
            )
            for name, count in split.counts.items()
        ]

    @property
    def drift(self) -> Drift | None:
        """When a backend's share changed most clearly, and from what to what.

        None where that is no more than chance, and for merged runs, whose
        order is no course of time.
        """
        return drift(self.points) if len(self.runs) == 1 else None

    def __str__(self) -> str:
        return words.describe(self)


def _whole(points: list[Point], split: Split) -> list[Point]:
    """The points kept, and the end as the last one."""
    if points and points[-1].total == split.total:
        return points
    return [*points, Point(split.total, split.errors, dict(split.counts))]
