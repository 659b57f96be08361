"""What a watch has seen: counts, a sliding window, a timeline, and events in words.

Pure, and bounded: names, points of the timeline and events are kept up to a
number, so that a watch may go on for ever.
"""

from __future__ import annotations

from collections import Counter, deque
from dataclasses import replace
from datetime import UTC, datetime
from itertools import chain
from typing import TYPE_CHECKING, Any, NamedTuple

from trio_echo.monitor.change import Detector
from trio_echo.prober.counts import Counts, Outcome
from trio_echo.prober.latency import Histogram
from trio_echo.prober.remarks import MOST_NAMES, duration, percent, shown_name, span
from trio_echo.prober.split import Interval, Verdict, interval, judge
from trio_echo.text import printable, visible

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from trio_echo.monitor.change import Change
    from trio_echo.prober.counts import Result
    from trio_echo.prober.split import Expectation

__all__ = ["OTHERS", "WINDOW", "Event", "Loss", "Moment", "Record", "Share", "lasting", "stamp"]

WINDOW = 300
"""Connections in the sliding window: a minute at the default rate. A share of 80 %
is then right to some five points; the detector looks at all of them."""

OTHERS = "(other names)"
"""Where answers are counted once far too many different names have come."""

_EVENTS = 500
_POINTS = 400

_RECENT = 600
"""Seconds that are kept second by second."""

_QUIET = 60.0
"""Seconds without a failed connection after which failures are over."""


class Event(NamedTuple):
    """Something that happened.

    Attributes:
        at: the time of day.
        elapsed: seconds from the start.
        kind: ``change``, ``lost``, ``replaced``, ``failing``, ``answering`` or ``names``.
        text: in words that are safe to print.
        data: the same for machines, as JSON has it.
    """

    at: datetime
    elapsed: float
    kind: str
    text: str
    data: Mapping[str, Any]

    def to_json(self) -> dict[str, Any]:
        """One object, its kind first."""
        return {"kind": self.kind, "at": stamp(self.at), "elapsed": self.elapsed, **self.data}


class Moment(NamedTuple):
    """The sliding window at one time.

    Attributes:
        at: the time of day.
        elapsed: seconds from the start.
        answered: connections answered until then.
        shares: of the window's connections, by backend.
        failed: the part of the window's connections that failed.
    """

    at: datetime
    elapsed: float
    answered: int
    shares: Mapping[str, float]
    failed: float


class Share(NamedTuple):
    """One backend now.

    Attributes:
        name: as it came.
        share: of the connections in the window.
        interval: where its true share lies, by the window.
        expected: its expected share; None where nothing was expected of it.
        band: the shares within the margin; None like `expected`.
        answers: connections that it answered since the start.
    """

    name: str
    share: float
    interval: Interval
    expected: float | None
    band: Interval | None
    answers: int


class Loss(NamedTuple):
    """The end of a held connection.

    Attributes:
        backend: who answered on it.
        outcome: how it ended.
        detail: the same in the words of the system; may be empty.
        age: seconds from its first answer until it ended.
    """

    backend: str
    outcome: Outcome
    detail: str
    age: float


class Record:
    """What a watch has seen so far.

    Args:
        expectation: what is expected; its weights may be empty.
        target: what is watched.
        tell: called with each event as it happens.
        clock: the time of day.

    Attributes:
        counts: all connections since the start.
        since: those since the last change, or since the start.
        moments: the whole time in a bounded number of points.
        recent: the last ten minutes, second by second.
        events: the last ones.
        changes: how often the split changed.
        held: how many of the held connections are open now.
        lost: how many held connections were lost, by the reason.
        elapsed: seconds from the start to the last sample.
    """

    def __init__(
        self,
        expectation: Expectation,
        target: str,
        tell: Callable[[Event], object] = lambda _: None,
        clock: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self.expectation = expectation
        self.target = target
        self.counts = Counts()
        self.since = Counts()
        self.moments: list[Moment] = []
        self.recent: deque[Moment] = deque(maxlen=_RECENT)
        self.events: deque[Event] = deque(maxlen=_EVENTS)
        self.changes = 0
        self.held = 0
        self.lost: Counter[Outcome] = Counter()
        self.elapsed = 0.0
        self.began = clock()
        self.detector = Detector(expectation)
        self._tell = tell
        self._clock = clock
        self._window: deque[tuple[str | None, Outcome]] = deque()
        self._in_window = Counts()
        self._stride = 1
        self._samples = 0
        self._failing_since: float | None = None
        self._failed_last = 0.0
        self._failed = 0

    @property
    def verdict(self) -> Verdict:
        """What the connections since the last change come to."""
        if not self.counts.answers:
            return Verdict.UNMEASURED
        return judge(self.expectation, self.since)

    @property
    def shares(self) -> list[Share]:
        """Every backend that is expected or has answered, as the window has it."""
        total = self._in_window.total
        found = []
        for name in dict.fromkeys((*self.expectation.shares, *self.counts.answers)):
            expected = self.expectation.shares.get(name)
            found.append(
                Share(
                    name,
                    self._in_window.answers[name] / total if total else 0.0,
                    interval(self.expectation, self._in_window, name),
                    expected,
                    None if expected is None else self.expectation.band(name),
                    self.counts.answers[name],
                )
            )
        return found

    @property
    def window(self) -> int:
        """How many connections are in the sliding window."""
        return len(self._window)

    @property
    def failed(self) -> float:
        """The part of the window's connections that failed."""
        return self._in_window.errors / (len(self._window) or 1)

    def take(self, result: Result, elapsed: float) -> Change | None:
        """Take a connection that has ended.

        Returns:
            The change of the split that it is the last proof of.
        """
        name = result.name
        if name is not None and len(self.counts.answers) >= MOST_NAMES:
            name = self._known(name, elapsed)
        for counts in (self.counts, self.since, self._in_window):
            counts.outcomes[result.outcome] += 1
            if name is not None:
                counts.answers[name] += 1
        self._window.append((name, result.outcome))
        if len(self._window) > WINDOW:
            gone, outcome = self._window.popleft()
            self._in_window.outcomes[outcome] -= 1
            if gone is not None:
                self._in_window.answers[gone] -= 1
        if name is None:
            self._fail(result, elapsed)
            return None
        if name not in self.counts.answer:
            self.counts.connect[name], self.counts.answer[name] = Histogram(), Histogram()
        self.counts.connect[name].add(result.connect)
        self.counts.answer[name].add(result.answer)
        if result.mixed:
            self.counts = replace(self.counts, mixed=self.counts.mixed + 1)
            self.since = replace(self.since, mixed=self.since.mixed + 1)
        change = self.detector.add(name)
        if change is not None:
            self.changes += 1
            self.since = Counts()
            text, data = _change(change, self._when(change.at))
            self._add("change", elapsed, text, data)
        return change

    def sample(self, elapsed: float) -> None:
        """Note where the window stands. Call it once a second."""
        self.elapsed = elapsed
        total = self._in_window.total or 1
        moment = Moment(
            self._clock(),
            elapsed,
            self.counts.outcomes[Outcome.OK],
            {name: hits / total for name, hits in self._in_window.answers.items() if hits},
            self.failed,
        )
        self.recent.append(moment)
        if not self._samples % self._stride:
            self.moments.append(moment)
            if len(self.moments) >= _POINTS:
                self._stride *= 2
                del self.moments[1::2]
        self._samples += 1
        if self._failing_since is not None and elapsed - self._failed_last >= _QUIET:
            lasted = self._failed_last - self._failing_since
            text = (
                f"no connection failed for {lasting(_QUIET)}; before that, "
                f"{self._failed} did within {lasting(lasted)}"
            )
            self._failing_since = None
            self._add("answering", elapsed, text, {"failed": self._failed, "within": lasted})

    def lose(self, loss: Loss, elapsed: float, replaced: tuple[str, float] | None) -> None:
        """Take note of a held connection that was lost.

        Args:
            loss: how.
            elapsed: now.
            replaced: who answered on the connection that replaced it, and
                seconds from the loss to that answer; None if nobody has yet.
        """
        self.lost[loss.outcome] += 1
        why = _LOSSES.get(loss.outcome, str(loss.outcome))
        text = (
            f"held connection to {shown_name(loss.backend)} lost after {lasting(loss.age)}: "
            f"{why}{f', {visible(loss.detail)}' if loss.detail else ''}; "
        )
        data = {
            "backend": loss.backend,
            "age": loss.age,
            "reason": str(loss.outcome),
            "detail": loss.detail,
        }
        if replaced is None:
            text += "no replacement was answered yet"
        else:
            name, took = replaced
            text += f"{shown_name(name)} answered its replacement after {lasting(took)}"
            data |= {"replacement": name, "replaced_after": took}
        self._add("lost", elapsed, text, data)

    def replace(self, backend: str, took: float, elapsed: float) -> None:
        """Take note that a lost connection was replaced, long after it was lost."""
        text = (
            f"{shown_name(backend)} answered the replacement of a held connection "
            f"{lasting(took)} after it was lost"
        )
        self._add("replaced", elapsed, text, {"replacement": backend, "replaced_after": took})

    def to_json(self) -> dict[str, Any]:
        """Where things stand, as one object."""
        return {
            "at": stamp(self._clock()),
            "elapsed": self.elapsed,
            "verdict": str(self.verdict),
            "connections": self.counts.total,
            "failures": {
                str(outcome): count
                for outcome, count in self.counts.outcomes.items()
                if outcome is not Outcome.OK
            },
            "changes": self.changes,
            "held": self.held,
            "lost": {str(outcome): count for outcome, count in self.lost.items()},
            "window": self.window,
            "backends": [
                {
                    "name": share.name,
                    "answers": share.answers,
                    "share": share.share,
                    "interval": list(share.interval),
                    "expected": share.expected,
                }
                for share in self.shares
            ],
        }

    @property
    def headline(self) -> str:
        """The verdict so far, in one line that is safe to print."""
        where = printable(self.target)
        if self.verdict is Verdict.UNMEASURED:
            return f"{where}: nobody has answered yet"
        since = "so far" if not self.changes else "since the last change"
        if not self.expectation.shares:
            return f"{where}: watched for changes of its split, nothing is expected of it"
        words = {
            Verdict.PASS: "splits as expected",
            Verdict.FAIL: "does not split as expected",
            Verdict.INCONCLUSIVE: "not decided yet",
        }
        return f"{self.verdict} {since}: {where} {words[self.verdict]}"

    def __str__(self) -> str:
        """Where things stand, in one line that is safe to print."""
        parts = []
        shares = self.shares
        for name, share, _, expected, band, _ in shares[:_MOST_IN_LINE]:
            words = f"{shown_name(name)} {percent(share)}"
            if expected is not None and band is not None:
                off = "" if band.low <= share <= band.high else ", off by more than the margin"
                words += f" (expected {percent(expected)}{off})"
            parts.append(words)
        if len(shares) > _MOST_IN_LINE:
            parts.append(f"{len(shares) - _MOST_IN_LINE} more")
        total = self.counts.total
        failed = self.counts.errors
        line = f"{total} connection{'s' * (total != 1)}, {failed} failed"
        if self.held or self.lost:
            line += f", {self.held} held, {self.lost.total()} lost"
        line += f", {self.changes} change{'s' * (self.changes != 1)} of the split"
        return f"{line}; of the last {self.window}: {', '.join(parts) or 'nobody answered'}"

    def _known(self, name: str, elapsed: float) -> str:
        """A name that is counted already, or the one for all others; the first is told."""
        if name in self.counts.answers:
            return name
        if OTHERS not in self.counts.answers:
            text = (
                f"more than {MOST_NAMES} different names answered, {shown_name(name)} the last: "
                "all others are counted as one; have backends named by what all their "
                "connections share (--identify)"
            )
            self._add("names", elapsed, text, {"name": name})
        return OTHERS

    def _fail(self, result: Result, elapsed: float) -> None:
        """Take note of a failed connection; only the first of a series is an event."""
        if self._failing_since is None:
            self._failing_since, self._failed = elapsed, 0
            detail = f", {visible(result.detail)}" if result.detail else ""
            data = {"outcome": str(result.outcome), "detail": result.detail}
            self._add("failing", elapsed, f"a connection failed: {result.outcome}{detail}", data)
        self._failed_last = elapsed
        self._failed += 1

    def _when(self, number: int) -> datetime:
        """About when connection `number` was answered; the start, if that is too long ago."""
        times = (
            moment.at
            for moment in chain(reversed(self.recent), reversed(self.moments))
            if moment.answered < number
        )
        return next(times, self.began)

    def _add(self, kind: str, elapsed: float, text: str, data: Mapping[str, Any]) -> None:
        """Keep an event, and tell it."""
        event = Event(self._clock(), elapsed, kind, text, data)
        self.events.append(event)
        self._tell(event)


_LOSSES = {
    Outcome.EOF_BEFORE_ANSWER: "closed by the other side",
    Outcome.EOF_MID_LINE: "closed by the other side in the middle of an answer",
    Outcome.RESET: "reset",
    Outcome.READ_TIMEOUT: "no answer in time",
    Outcome.WRONG_ECHO: "a wrong answer",
}


def lasting(seconds: float) -> str:
    """A stretch of time as people say it, seconds or days."""
    minutes, hours = seconds / 60, seconds / 3600
    if minutes < 2:  # noqa: PLR2004 - "100.0 s" is read well still
        return duration(seconds)
    if hours < 2:  # noqa: PLR2004 - and so are 100 minutes
        return f"{minutes:.0f} min"
    return f"{hours:.0f} h" if hours < 48 else f"{hours / 24:.1f} days"  # noqa: PLR2004 - two days


def stamp(at: datetime) -> str:
    """A time of day for machines and for people."""
    return at.isoformat(timespec="milliseconds")


def _change(change: Change, at: datetime) -> tuple[str, dict[str, Any]]:
    """A change in words, the backend that changed most clearly first, and for machines."""
    backends = []
    words = []
    for name in dict.fromkeys((change.backend, *change.names)):
        before, after = change.shares(name)
        within_before, within_after = change.intervals(name)
        backends.append(
            {
                "name": name,
                "before": before,
                "before_interval": list(within_before),
                "after": after,
                "after_interval": list(within_after),
            }
        )
        words.append(
            f"{shown_name(name)} from {percent(before)} ({span(within_before)}) "
            f"to {percent(after)} ({span(within_after)})"
        )
    late = change.seen - change.at + 1
    text = (
        f"the split changed at about {at:%H:%M:%S}, {late} answer{'s' * (late != 1)} ago: "
        f"{', '.join(words[:_MOST_SAID])}"
    )
    data = {
        "changed_at": stamp(at),
        "connection": change.at,
        "seen_after": late,
        "backends": backends,
    }
    return text, data


_MOST_IN_LINE = 8
"""Backends that one line on where things stand names."""

_MOST_SAID = 4
"""Backends that a line about a change names."""
