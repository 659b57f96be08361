"""The live count of a probe: what has come so far, judged strictly in launch order."""

from __future__ import annotations

from collections import Counter
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import trio

from trio_echo.prober.latency import Histogram
from trio_echo.prober.order import Order
from trio_echo.prober.outcome import NOTHING_MEASURED, Outcome, Result
from trio_echo.prober.split import Split, Verdict

if TYPE_CHECKING:
    from trio_echo.prober.config import ProbeConfig

__all__ = ["OTHERS", "Tally", "Timings"]

OTHERS = "(other names)"
"""Where answers are counted once far too many different names have come."""

_MOST_NAMES = 64
"""Names that are told apart. A server that answers with something new each time
must not fill the memory or the report."""

_LONGEST_NAME = 255
"""Characters of a name that are kept, as many as a prefix of the server's can have."""


class Timings:
    """How long the connections of one backend took.

    Attributes:
        connect: from the intended start until a connection could be written to.
        answer: from sending the first line to its answer.
    """

    __slots__ = ("answer", "connect")

    def __init__(self, connect: Histogram | None = None, answer: Histogram | None = None) -> None:
        self.connect = connect or Histogram()
        self.answer = answer or Histogram()


class Tally:
    """What a probe has counted so far; read it at any time between checkpoints.

    With several connections in flight, the first to end are those of the
    fastest backend. So results wait here until all that were launched before
    them are in, and only then are counted.

    Attributes:
        config: what the probe was told.
        run: the tag of this run.
        phase: what it does now: ``resolving``, ``waiting``, ``probing`` or ``done``.
        address: the numeric address it connects to, once known.
        split: the counts, and what they prove.
        outcomes: connections counted, by how they ended.
        examples: for each way to fail, what the first such connection met.
        timings: by backend.
        order: what the order of the answers says.
        lag: seconds that connections started later than intended.
        late: answers by backend that came after the verdict; not judged.
        launched: connections launched, counted yet or not.
        ended: connections that came to an end by themselves, counted or not.
        contacts: connections made outside the sample, to find an address that
            answers or to wait for a first echo.
        verdict: None until it is known.
        stopped: whether somebody stopped the probe before its end.
        notices: what else the user should know.
        began: the time of day, for people to find a run again.
        started: when the first connection started, in trio's time.
        elapsed: seconds from then on until the end.
    """

    def __init__(self, config: ProbeConfig, run: str) -> None:
        self.config = config
        self.run = run
        self.phase = "resolving"
        self.address: str | None = None
        self.split = Split(config.expect, margin=config.margin, alpha=config.alpha)
        self.outcomes: Counter[Outcome] = Counter()
        self.examples: dict[Outcome, str] = {}
        self.timings: dict[str, Timings] = {}
        self.order = Order()
        self.lag = Histogram()
        self.late: Counter[str] = Counter()
        self.launched = 0
        self.ended = 0
        self.contacts = 0
        self.verdict: Verdict | None = None
        self.stopped = False
        self.notices: list[str] = []
        self.began = datetime.now(UTC)
        self.started: float | None = None
        self.elapsed = 0.0
        self._early: dict[int, Result] = {}
        self._cancel = trio.CancelScope()

    @property
    def connections(self) -> int:
        """How many connections were counted."""
        return self.split.total

    def over(self) -> bool:
        """Whether no further connection is needed."""
        return self.verdict is not None or self.stopped

    @property
    def cancel_scope(self) -> trio.CancelScope:
        """The scope around everything that the probe does."""
        return self._cancel

    def stop(self) -> None:
        """End the probe now; it is marked as interrupted unless its verdict was there."""
        self.stopped = self.verdict is None
        self._cancel.cancel()

    def take(self, index: int, result: Result) -> bool:
        """Take the result of connection `index`, and count all that are due.

        Returns:
            Whether the verdict was reached with it.
        """
        if self.over():
            if result.name is not None:
                self.late[self._known(result.name)] += 1
            return False
        self._early[index] = result
        while not self.over() and self.connections in self._early:
            self._count(self._early.pop(self.connections))
        if self.over():
            for early in self._early.values():
                if early.name is not None:
                    self.late[self._known(early.name)] += 1
            self._early.clear()
        return self.over()

    def fail(self, result: Result) -> None:
        """Count a failure that ends the probe before its first connection."""
        self._note(result)
        self.verdict = Verdict.UNMEASURED

    def finish(self) -> None:
        """Say what is left to say when no more connections will come."""
        self.phase = "done"
        if self.started is not None:
            self.elapsed = trio.current_time() - self.started
        self._early.clear()
        if self.verdict is None and not self.stopped:
            if not self.split.counts.total() and (
                not self.config.expect or self.outcomes.keys() <= NOTHING_MEASURED
            ):
                self.verdict = Verdict.UNMEASURED
            elif self.config.expect:
                self.verdict = Verdict.INCONCLUSIVE

    def _count(self, result: Result) -> None:
        """Count the next connection in launch order, and look whether that decides."""
        if result.name is None:
            self._note(result)
        else:
            name = self._known(result.name)
            self.outcomes[Outcome.OK] += 1
            self.split.counts[name] += 1
            self.split.mixed += result.mixed
            timings = self.timings.get(name)
            if timings is None:
                timings = self.timings[name] = Timings()
            timings.connect.add(result.connect)
            timings.answer.add(result.answer)
            self.order.add(name)
        if self.config.rate is not None:
            self.lag.add(result.lag)
        self.order.mark(self.connections, self.split.errors, self.split.counts)
        self._decide()

    def _note(self, result: Result) -> None:
        """Count a failed connection and keep the first of its kind as an example."""
        self.split.errors += 1
        self.outcomes[result.outcome] += 1
        self.examples.setdefault(result.outcome, result.detail)

    def _decide(self) -> None:
        """Set the verdict if the counts have reached one.

        A failure of this machine's is never the route's. Other failures beyond
        the limit are, unless nothing but failures to get there was ever seen:
        then what should be judged was not reached.
        """
        limit = self.config.error_limit
        unreached = not self.split.counts.total() and self.outcomes.keys() <= NOTHING_MEASURED
        if self.outcomes[Outcome.LOCAL] or (unreached and self.split.errors > (limit or 0)):
            self.verdict = Verdict.UNMEASURED
        elif limit is not None and self.split.errors > limit:
            self.verdict = Verdict.FAIL
        elif self.config.expect:
            verdict = self.split.verdict()
            self.verdict = None if verdict is Verdict.INCONCLUSIVE else verdict

    def _known(self, name: str) -> str:
        """The name to count under: bounded in length and in number of names."""
        if name in self.split.counts:
            return name
        if len(name) > _LONGEST_NAME:
            name = name[:_LONGEST_NAME] + "..."
        if name in self.split.counts or len(self.split.counts) < _MOST_NAMES:
            return name
        return OTHERS
