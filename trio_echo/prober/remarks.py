"""What there is to say about a sample: why its verdict is what it is, and what it looks like.

Pure. A remark rests on the whole sample: who answered, whether others were answered
where some failed, how long that took, and the failed share beside the weight of a
backend that never answered. One guess comes first, then the others; none that the
sample rules out.
"""

from __future__ import annotations

from math import log, log1p, sqrt
from typing import TYPE_CHECKING, NamedTuple, Protocol

from trio_echo.prober.counts import Outcome
from trio_echo.prober.order import affinity
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

    from trio_echo.prober.counts import Counts
    from trio_echo.prober.order import Drift, Point, Runs
    from trio_echo.prober.split import Expectation, Interval

__all__ = [
    "HINTS",
    "MOST_NAMES",
    "Remark",
    "Sample",
    "connections",
    "duration",
    "exact",
    "findings",
    "in_points",
    "percent",
    "reasons",
    "shown_name",
    "span",
]

MOST_NAMES = 256
"""Different names that are told apart. A server with more gives each connection a
name of its own, and must not fill the memory."""

_NAMES_SHOWN = 3

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
        "connected, but no answer in time: a backend hangs, it speaks another protocol, "
        "or the listener wants TLS or a PROXY header"
    ),
    Outcome.WRONG_ECHO: (
        "the answer was not the line with a name in front: "
        "another kind of server, or answers mixed up on the way"
    ),
    Outcome.NO_MATCH: (
        "the answer does not tell who gave it: another kind of server, an error of its own, "
        "or --identify asks for what it does not say"
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
    Outcome.NO_MATCH: (
        "some answers do not tell who gave them: a backend's limit or error, or one of another kind"
    ),
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


class Sample(Protocol):
    """What is read of a report."""

    @property
    def expectation(self) -> Expectation:
        """The split that was to be shown."""

    @property
    def counts(self) -> Counts:
        """What was counted."""

    @property
    def verdict(self) -> Verdict | None:
        """What the counts prove."""

    @property
    def examples(self) -> Mapping[Outcome, str]:
        """For each way to fail, what the first such connection met."""

    @property
    def changes(self) -> Runs | None:
        """How often the backend changed; None where the sample does not carry it."""

    @property
    def drift(self) -> Drift | None:
        """When a backend's share changed most clearly; None where that is no more than chance."""

    @property
    def course(self) -> Sequence[Point]:
        """Running counts of a single run; none for several, whose order is no course of time."""


def reasons(report: Sample) -> Iterator[Remark]:
    """Why the verdict is what it is."""
    expectation, counts = report.expectation, report.counts
    total = report.counts.total
    if report.verdict is Verdict.FAIL and expectation.shares:
        for name in unexpected(expectation, counts):
            why = "has weight 0" if name in expectation.shares else "was not expected at all"
            text = f"{shown_name(name)} answered {counts.answers[name]} of {total}, but {why}"
            yield Remark("unexpected", name, text)
        if counts.mixed:
            text = (
                f"more than one backend answered {connections(counts.mixed)}: "
                "something balances by request, not by connection"
            )
            yield Remark("mixed", None, text)
        for name in off(expectation, counts):
            yield Remark("share", name, _off_words(report, name))
    if report.verdict is Verdict.INCONCLUSIVE:
        yield from _undecided(report)
    if len(counts.answers) > MOST_NAMES:
        seen = ", ".join(map(shown_name, list(counts.answers)[:_NAMES_SHOWN]))
        text = (
            f"more than {MOST_NAMES} different names answered ({seen} and so on): each connection "
            "gets a name of its own, so there are no shares to measure; have backends named by "
            "what all their connections share (--identify)"
        )
        yield Remark("names", None, text)
    if counts.outcomes[Outcome.WRONG_ECHO] == counts.total > 1:
        text = f"all {counts.total} answers were wrong: the server speaks another protocol"
        yield Remark("protocol", None, text)
    for outcome, count in counts.outcomes.items():
        if outcome is not Outcome.OK and count:
            yield Remark(outcome.value, None, _failure_words(report, outcome, count))


def findings(report: Sample) -> Iterator[Remark]:
    """What the counts and their order look like, where the sample carries it."""
    counts = report.counts
    if len(counts.answers) > MOST_NAMES:
        return  # a name for each connection makes no pattern
    yield from _who_answered(report)
    kept = affinity(counts.sources)
    if kept is not None:
        text = (
            f"sticky by source address: {kept.kept} of {kept.sources} addresses got one backend "
            f"alone, so this is a sample of {kept.sources} draws, not of {counts.total}"
        )
        yield Remark("sticky-source", None, text)
    runs, moved = report.changes, report.drift
    if runs is not None and moved is not None:
        runs = moved.within(runs)
        if runs.patterned and runs.sigmas < 0:
            moved = None  # answers that stick together wander by themselves
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
    if moved is not None and not stopped:
        before, after = map(percent, moved.shares)
        text = (
            f"{shown_name(moved.name)} went from {before} to {after} at about answer {moved.at}: "
            "were weights moved meanwhile?"
        )
        yield Remark("drift", moved.name, text)


def _share_words(report: Sample, name: str) -> str:
    """A backend's share beside what was expected."""
    expectation, counts = report.expectation, report.counts
    share = percent(counts.answers[name] / max(1, counts.total))
    return (
        f"{shown_name(name)} has {share} of {counts.total} "
        f"(true share {span(interval(expectation, counts, name))}), "
        f"expected {exact(expectation.shares[name])}"
    )


def _off_words(report: Sample, name: str) -> str:
    """The same for a share that is off: by how much at least, and whether the margin holds it."""
    expectation = report.expectation
    share = expectation.shares[name]
    low, high = interval(expectation, report.counts, name)
    least = max(low - share, share - high)
    words = f"{_share_words(report, name)}: off by {in_points(least)} or more"
    if abs(report.counts.answers[name] / report.counts.total - share) < expectation.margin:
        words += (
            f", but inside the margin of {in_points(expectation.margin)}: "
            "where the balancer may round so, give a --tolerance"
        )
    return words


def _undecided(report: Sample) -> Iterator[Remark]:
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
            f"the {connections(counts.errors)} that failed keep it open, each may have been meant "
            "for any backend: more connections would not decide it, mend the failures first"
        )
    else:
        text = "more connections with these shares would not decide it: another --margin would"
    yield Remark("undecided", None, text)


def _failure_words(report: Sample, outcome: Outcome, count: int) -> str:
    """One way to fail: how often, what was met, and the likely cause."""
    detail = visible(report.examples.get(outcome, ""))
    met = f" ({detail})" if detail else ""
    return f"{count} x {outcome}{met}{_when(report, outcome)}: {_cause(report, outcome)}"


def _when(report: Sample, outcome: Outcome) -> str:
    """How long connections lasted that ended so, where all did for the same time."""
    lasted = report.counts.failed.get(outcome)
    if lasted is None or lasted.count < _FEW or outcome in _OWN_TIMEOUTS:
        return ""
    first, last = lasted.quantile(5), lasted.quantile(95)
    if first < _NOTICEABLE or last > _SAME * first:
        return ""
    return f", each after about {duration(lasted.quantile(50))}, which looks like a timeout"


_OWN_TIMEOUTS = {Outcome.CONNECT_TIMEOUT, Outcome.READ_TIMEOUT, Outcome.NO_MATCH}
"""What the probe itself gives up after --timeout."""


def _cause(report: Sample, outcome: Outcome) -> str:
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
            f"{names} never answered and should have had {exact(weight)}, about the "
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


def _who_answered(report: Sample) -> Iterator[Remark]:
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


def _fits(report: Sample, shares: Mapping[str, float], others: Mapping[str, float]) -> bool:
    """Whether the counts fit these shares, and are far nearer to them than to the others."""
    counts = report.counts
    for name, share in shares.items():
        low, high = interval(report.expectation, counts, name)
        away = abs(counts.answers[name] / counts.total - share)
        if not (low <= share <= high and away < abs(others[name] - share) / 2):
            return False
    return True


def _stopped(report: Sample) -> Iterator[Remark]:
    """Which backends answered for a while and then not any more, beyond chance."""
    if not report.course:
        return
    total = report.counts.total
    for name, count in report.counts.answers.items():
        last = next(point.total for point in report.course if point.counts.get(name, 0) == count)
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


def connections(count: int) -> str:
    """So many connections."""
    return f"{count} connection" + ("" if count == 1 else "s")


def in_points(share: float) -> str:
    """A difference of shares as people read it."""
    points = f"{100 * share:.2g}"
    return f"{points} point" + ("" if points == "1" else "s")


def _round_up(count: int) -> int:
    """A number of connections without digits that mean nothing."""
    unit: int = 10 ** max(0, len(str(count)) - 2)
    return -(-count // unit) * unit


def exact(share: float) -> str:
    """An expected share, without decimals that nobody gave."""
    return f"{100 * share:.4g} %"
