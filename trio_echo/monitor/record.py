"""What a watch has seen: counts, a sliding window, a timeline, and events in words.

Pure, and bounded: names, points of the timeline and events are kept up to a
number, so that a watch may go on for ever.

Failed connections come in series. A series begins with one, and is over when none has
failed for a minute. It lasts, which is a FAIL and is told once a minute, from when the
failed part of the window has reached the margin: the split cannot be held to its margin
then. A restart that takes some seconds is no such thing.
"""

from __future__ import annotations

from collections import Counter, deque
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from itertools import chain
from typing import TYPE_CHECKING, Any, NamedTuple

from trio_echo.monitor.change import Detector
from trio_echo.prober.counts import Counts, Outcome
from trio_echo.prober.latency import Histogram
from trio_echo.prober.remarks import MOST_NAMES, connections, duration, percent, shown_name, span
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

_CALM = 20
"""Connections answered meanwhile, at least: at a slow rate a minute shows little."""

_LASTING = 10.0
"""Seconds after which a failed part is no restart any more."""

_MANY = 10
"""Failed connections that it takes besides."""

_CEASED = 1 / 4
"""A lasting series is over below this part of the margin: not at each dip of chance."""

_AGAIN = 60.0
"""Seconds between two events that say that connections fail."""


class Event(NamedTuple):
    """Something that happened.

    Attributes:
        at: the time of day.
        elapsed: seconds from the start.
        kind: ``change``, ``lost``, ``replaced``, ``failed`` (the first connection of a
            series), ``failing`` (many, for long, once a minute), ``answering`` or ``names``.
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


class _Series:
    """Failed connections without a pause, and those answered between them.

    Attributes:
        at: the time of day of the first.
        began: seconds from the start of the watch to it.
        last: the same for the last failed one.
        outcomes: how all connections since the first ended.
        calm: how many were answered since the last failed one.
        said: when it was last told that the series lasts; None if it does not.
    """

    def __init__(self, at: datetime, began: float) -> None:
        self.at = at
        self.began = self.last = began
        self.outcomes: Counter[Outcome] = Counter()
        self.calm = 0
        self.said: float | None = None

    @property
    def failed(self) -> Counter[Outcome]:
        """The failed ones."""
        return self.outcomes - Counter({Outcome.OK: self.outcomes[Outcome.OK]})

    def take(self, outcome: Outcome, elapsed: float) -> None:
        """Take a connection that has ended."""
        self.outcomes[outcome] += 1
        self.calm += 1
        if outcome is not Outcome.OK:
            self.calm, self.last = 0, elapsed


class Record:
    """What a watch has seen so far.

    Args:
        expectation: what is expected; its weights may be empty.
        target: what is watched.
        tell: called with each event as it happens.
        clock: the time of day.

    Attributes:
        counts: all connections since the start.
        since: those since the last change, since connections failed for long, or since
            the start.
        moments: the whole time in a bounded number of points.
        recent: the last ten minutes, second by second.
        events: the last ones.
        changes: how often the split changed.
        outages: how often a part of the connections failed for long.
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
        self.outages = 0
        self.held = 0
        self.lost: Counter[Outcome] = Counter()
        self.elapsed = 0.0
        self.began = clock()
        self.detector = Detector(expectation)
        self._tell = tell
        self._clock = clock
        self._window: deque[tuple[str | None, Outcome, float]] = deque()
        self._in_window = Counts()
        self._stride = 1
        self._samples = 0
        self._series: _Series | None = None
        self._happened: tuple[str, datetime, str] | None = None

    @property
    def verdict(self) -> Verdict:
        """What the connections since the last change come to; FAIL while many fail."""
        if not self.counts.answers:
            return Verdict.UNMEASURED
        if self.failing and self.expectation.shares:
            return Verdict.FAIL
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

    @property
    def failing(self) -> bool:
        """Whether a part of the connections fails and has for long."""
        return self._series is not None and self._series.said is not None

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
        self._window.append((name, result.outcome, elapsed))
        if len(self._window) > WINDOW:
            gone, outcome, _ = self._window.popleft()
            self._in_window.outcomes[outcome] -= 1
            if gone is not None:
                self._in_window.answers[gone] -= 1
        self._follow(result, elapsed)
        if name is None:
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
            at = self._when(change.at)
            before, after = map(percent, change.shares(change.backend))
            moved = f": {shown_name(change.backend)} from {before} to {after}"
            self._happened = "CHANGED at", at, moved
            text, data = _change(change, at)
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
        if self._series is not None:
            self._weigh(self._series, elapsed)

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
            "outages": self.outages,
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
        """What happened last and the verdict since then, in one line that is safe to print."""
        where, verdict = printable(self.target), self.verdict
        if verdict is Verdict.UNMEASURED:
            return f"{where}: nobody has answered yet"
        if self.failing:
            assert self._series is not None  # noqa: S101 - it is what is failing
            return f"FAIL: connections to {where} fail since {self._time(self._series.at)}, " + (
                self._failed_words()
            )
        if self._happened is None:
            since, lead = "so far", ""
        else:
            what, at, how = self._happened
            since, lead = "since then", f"{what} {self._time(at)}{how}; "
        if not self.expectation.shares:
            return f"{lead}{where}: watched for changes of its split, nothing is expected of it"
        words = {
            Verdict.PASS: "splits as expected",
            Verdict.FAIL: "does not split as expected",
            Verdict.INCONCLUSIVE: "not decided yet",
        }[verdict]
        return f"{lead}{verdict} {since}: {where} {words}"

    def _time(self, at: datetime) -> str:
        """A time of day, with its date unless that is today's."""
        today = at.date() == self._clock().date()
        return f"{at:%H:%M:%S}" if today else f"{at:%Y-%m-%d %H:%M:%S}"

    def _failed_words(self) -> str:
        """How many connections of the window failed."""
        return f"{self._in_window.errors} of the last {self.window} ({percent(self.failed)})"

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

    def _follow(self, result: Result, elapsed: float) -> None:
        """Take note of a connection for a series of failures; only its first one is an event."""
        if self._series is None:
            if result.outcome is Outcome.OK:
                return
            self._series = _Series(self._clock(), elapsed)
            detail = f", {visible(result.detail)}" if result.detail else ""
            data = {"outcome": str(result.outcome), "detail": result.detail}
            self._add("failed", elapsed, f"a connection failed: {result.outcome}{detail}", data)
        self._series.take(result.outcome, elapsed)

    def _weigh(self, series: _Series, elapsed: float) -> None:
        """Tell when a series begins to last, that it does, and when it is over."""
        margin, failed = self.expectation.margin, series.failed.total()
        lasted = series.last - series.began
        if series.said is None:
            if failed >= _MANY and lasted >= _LASTING and self.failed >= margin:
                self.outages += 1
                if failed < margin * series.outcomes.total():
                    series = self._series = self._series_in_window(elapsed)
                self._say_failing(series, elapsed)
            elif elapsed - series.last >= _QUIET and series.calm >= _CALM:
                text = (
                    f"no connection failed for {lasting(elapsed - series.last)}; before that, "
                    f"{failed} did within {lasting(lasted)}"
                )
                self._end_series(series, elapsed, text)
        elif self.failed < _CEASED * margin:
            text = (
                f"connections are answered again: {self._failed_words()} failed; before that, "
                f"{failed} of {series.outcomes.total() - series.calm} did within {lasting(lasted)}"
            )
            self._end_series(series, elapsed, text)
            self.since = Counts()
            how = f" for {lasting(lasted)}: {connections(failed)}"
            self._happened = "FAILED from", series.at, how
        elif elapsed - series.said >= _AGAIN:
            if self.events[-1].kind == "failing":
                self.events.pop()  # told, but not kept: the next one says more
            self._say_failing(series, elapsed)

    def _series_in_window(self, elapsed: float) -> _Series:
        """A series of the window alone, as what came before was a failure now and then."""
        first = next(then for _, outcome, then in self._window if outcome is not Outcome.OK)
        series = _Series(self._clock() - timedelta(seconds=elapsed - first), first)
        for _, outcome, then in self._window:
            if then >= first:
                series.take(outcome, then)
        return series

    def _say_failing(self, series: _Series, elapsed: float) -> None:
        """Tell how many connections fail."""
        begins, series.said = series.said is None, elapsed
        failed, total = series.failed, series.outcomes.total()
        often = ", ".join(f"{count} x {outcome}" for outcome, count in failed.most_common())
        text = (
            f"connections {'keep failing' if begins else 'still fail'}: {self._failed_words()}, "
            f"{failed.total()} of {total} since {self._time(series.at)}: {often}"
        )
        data = {
            "since": stamp(series.at),
            "share": self.failed,
            "failed": failed.total(),
            "connections": total,
            "outcomes": {str(outcome): count for outcome, count in failed.items()},
        }
        self._add("failing", elapsed, text, data)

    def _end_series(self, series: _Series, elapsed: float, text: str) -> None:
        """Tell that failures are over."""
        self._series = None
        data = {"failed": series.failed.total(), "within": series.last - series.began}
        self._add("answering", elapsed, text, data)

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
