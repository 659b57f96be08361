"""What there is to say about a sample: why its verdict is what it is, and what it looks like.

Pure. A remark rests on the whole sample: who answered, whether others were answered
where some failed, how long that took, and the failed share beside the weight of a
backend that never answered. One guess comes first, then the others; none that the
sample rules out.
"""

from __future__ import annotations

from collections import Counter
from math import log, log1p, sqrt
from typing import TYPE_CHECKING, NamedTuple, Protocol

from trio_echo.prober.counts import Clue, Counts, Outcome
from trio_echo.prober.order import affinity, differ, expected_runs
from trio_echo.prober.split import (
    Verdict,
    chance_of,
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

    from trio_echo.prober.order import Drift, Point, Runs
    from trio_echo.prober.split import Expectation, Interval
    from trio_echo.prober.words import Run

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
_PROXY_SENT = (
    "the listener wants TLS or a PROXY header",
    "the listener wants TLS, or does not take the PROXY header that you send",
)
"""What a hint says, and what it says in place of that where a header was sent."""

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
        "nobody there takes this server name (check --sni) or this client (--tls-cert), "
        "no backend is healthy behind the proxy, or the port does not speak TLS"
    ),
    Outcome.LOCAL: "this machine's own failure, which says nothing about the route",
}
"""The usual causes of each ending where nothing answered, and the remedy."""

_CERTAIN = {
    Clue.SPEAKS_TLS: "the port speaks TLS: add --tls",
    Clue.SPEAKS_NO_TLS: "the port answers without TLS: leave out --tls",
    Clue.WANTS_PROXY: "the listener wants a PROXY header: add --proxy-protocol v1",
    Clue.WANTS_NO_PROXY: "the listener wants no PROXY header: leave out --proxy-protocol",
}
"""What a second look shows beyond doubt, where nothing answered before."""

_GUESSES = {
    Clue.ENDS_UNASKED: (
        "no backend is healthy behind the proxy, or a policy refuses this client's address: "
        "a connection on which nothing is sent ends as well"
    ),
    Clue.WAITS: (
        "a policy refuses this client (RBAC, AuthorizationPolicy), or the port wants another "
        "protocol: a connection on which nothing is sent stays open"
    ),
}
"""What a second look leaves where the other side ended all connections by itself."""

_UNVERIFIED = "certificate verify failed"
"""How TLS begins where it was this side that refused."""

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

_LONG = 0.05
"""Seconds that fewer failures must last to look like a timeout, and ten times as long as
most answers took."""

_FEW = 5
"""Failures from which on their durations are worth comparing."""

_SIGMAS = 4.0
"""Standard deviations within which two shares may be the same."""

_SAMPLE = 15
"""Connections from which on a sample shows a pattern."""

_ENOUGH = 10
"""Connections one at a time from which on they show what becomes of all."""

_UNLIKELY = 0.01
"""A chance that rules a cause out, where another one must be named."""

_RARE = 0.001
"""A chance that speaks for a cause by itself."""

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
    def cause(self) -> str:
        """Why connections do not go as expected, where that is known; else empty."""

    @property
    def examples(self) -> Mapping[Outcome, str]:
        """For each way to fail, what the first such connection met."""

    @property
    def runs(self) -> Sequence[Run]:
        """Its runs, which tell how they asked."""

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
    if report.cause and report.verdict in {Verdict.FAIL, Verdict.UNMEASURED}:
        yield Remark("cause", None, visible(report.cause))
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
        text = (
            f"all {counts.total} answers were wrong: the server speaks another protocol; "
            "ask it with --send, and find its name in the answer with --identify"
        )
        yield Remark("protocol", None, text)
    yield from _failures(report)


def findings(report: Sample) -> Iterator[Remark]:
    """What the counts and their order look like, where the sample carries it."""
    counts = report.counts
    if len(counts.answers) > MOST_NAMES:
        return  # a name for each connection makes no pattern
    kept = affinity(counts.sources)
    runs, moved = report.changes, report.drift
    if runs is not None and moved is not None:
        runs = moved.within(runs)
        if runs.patterned and runs.sigmas < 0:
            moved = None  # answers that stick together wander by themselves
    sticks = runs is not None and runs.patterned and runs.sigmas < 0
    by_load = kept is None and _goes_by_load(report, sticks=sticks)
    if not by_load:
        yield from _who_answered(report, turns=runs is not None and runs.patterned and not sticks)
    if kept is not None:
        text = (
            f"sticky by source address: {kept.kept} of {kept.sources} addresses always got the "
            f"same backend, so this is a sample of {kept.sources} draws, not of {counts.total}"
        )
        yield Remark("sticky-source", None, text)
    if by_load:
        yield Remark("by-load", None, _by_load_words(report))
    # Addresses in turn make a pattern of their own where each keeps its backend.
    elif runs is not None and kept is None:
        yield from _pattern(report, runs if moved is None else runs._replace(evenness=0.0))
    lag = counts.lag.quantile(99)
    if lag >= _LAG_WORTH_SAYING:
        text = (
            f"the rate was not kept: 1 connection in 100 started {duration(lag)} or more late "
            "(a higher -c, a lower --rate or an idler machine would help)"
        )
        yield Remark("lag", None, text)
    stopped = [] if sticks or by_load else list(_stopped(report))
    yield from stopped
    if moved is not None and not (stopped or by_load):
        before, after = map(percent, moved.shares)
        text = (
            f"{shown_name(moved.name)} went from {before} to {after} at about answer {moved.at}: "
            "were weights moved meanwhile?"
        )
        yield Remark("drift", moved.name, text)


def _pattern(report: Sample, runs: Runs) -> Iterator[Remark]:
    """Whether answers stick together or take turns."""
    figure = (
        f"the backend changed {runs.changes} times from one connection to the next, "
        f"where independent draws make about {runs.expected:.0f}"
    )
    if runs.patterned and runs.sigmas < 0:
        text = f"{figure}: session affinity, or connections kept together?"
        yield Remark("sticky", None, text)
    elif runs.patterned:
        yield Remark("rotation", None, f"{figure}: the balancer takes turns (round robin)")
    elif runs.even:
        answers = +report.counts.answers
        rare = min(answers, key=lambda name: answers[name])
        text = (
            f"{shown_name(rare)} answers every {answers.total() / answers[rare]:.3g} connections, "
            "more evenly than independent draws: the balancer takes turns (round robin)"
        )
        yield Remark("rotation", None, text)


def _goes_by_load(report: Sample, *, sticks: bool) -> bool:
    """Whether the shares are others where only one connection is open at a time.

    Args:
        report: the sample.
        sticks: whether its answers stick together, which makes few draws of many.
    """
    expectation, counts, moved = report.expectation, report.counts, report.drift
    if report.verdict is not Verdict.FAIL or not off(expectation, counts):
        return False
    alone = +counts.alone
    if sticks and (
        len(alone) < 2  # noqa: PLR2004 - one backend alone never changes
        or counts.clues[Clue.CHANGED_ALONE] < expected_runs(alone).expected
    ):
        return False
    since = counts
    if moved is not None:
        after = moved.parts[1]
        since = Counts(answers=after, outcomes=Counter({Outcome.OK: after.total()}))
    return any(
        chance_of(alone[name], alone.total(), interval(expectation, since, name)) < _RARE
        for name in expectation.shares
    )


def _by_load_words(report: Sample) -> str:
    """The share of a backend with one connection open at a time, and with several."""
    counts = report.counts
    shares = {
        name: (
            counts.alone[name] / counts.alone.total(),
            counts.answers[name] / counts.answers.total(),
        )
        for name in (*counts.answers, *counts.alone)
    }
    name = max(shares, key=lambda name: abs(shares[name][0] - shares[name][1]))
    alone, together = map(percent, shares[name])
    return (
        f"{shown_name(name)} has {together} with several connections open, and {alone} of "
        f"{counts.alone.total()} made one at a time: the balancer goes by open connections "
        "(least connections)"
    )


def _share_words(report: Sample, name: str) -> str:
    """A backend's share beside what was expected."""
    expectation, counts = report.expectation, report.counts
    share = percent(counts.answers[name] / max(1, counts.total))
    return (
        f"{shown_name(name)} has {share} of {counts.total}, expected {_expected(expectation, name)}"
    )


def _expected(expectation: Expectation, name: str) -> str:
    """An expected share, and how far from it is accepted."""
    words = exact(expectation.shares[name])
    if expectation.tolerance:
        words += f" (tolerance {in_points(expectation.tolerance)})"
    return words


def _off_words(report: Sample, name: str) -> str:
    """The same for a share that is off: where it lies, and whether the margin holds it."""
    expectation, tolerance = report.expectation, report.expectation.tolerance
    share = expectation.shares[name]
    low, high = interval(expectation, report.counts, name)
    lies = f"{_beside(low, share + tolerance)} to {_beside(high, share - tolerance)} %"
    words = f"{_share_words(report, name)}: the true share is {lies}"
    if abs(report.counts.answers[name] / report.counts.total - share) < expectation.margin:
        words += (
            f", which is inside the margin of {in_points(expectation.margin)}: "
            "if the balancer rounds shares, accept it with --tolerance"
        )
    return words


def _beside(end: float, edge: float) -> str:
    """An end of an interval in percent, with digits enough to be another than an edge."""
    texts = [[f"{100 * value:.{digits}f}" for value in (end, edge)] for digits in range(1, 8)]
    return next((found for found, other in texts if found != other), texts[-1][0])


def _undecided(report: Sample) -> Iterator[Remark]:
    """Why there is no verdict yet, and what would bring one."""
    expectation, counts = report.expectation, report.counts
    if judge(expectation, counts) is not Verdict.INCONCLUSIVE:
        return  # the counts are decided; a finding or a notice says what speaks against them
    for name in expectation.shares:
        true = span(interval(expectation, counts, name))
        yield Remark("undecided", name, f"{_share_words(report, name)}: the true share is {true}")
    enough = would_decide(expectation, counts)
    if enough is not None:
        text = f"about {_round_up(enough)} connections with these shares would decide it"
    elif counts.errors:
        text = (
            f"the {connections(counts.errors)} that failed may have been meant for any backend: "
            "fix these failures first, more connections would not decide it"
        )
    else:
        text = "more connections with these shares would not decide it: another --margin would"
    yield Remark("undecided", None, text)


def _failures(report: Sample) -> Iterator[Remark]:
    """Each way to fail. One cause is said once."""
    said: dict[str, Outcome] = {}
    for outcome, count in report.counts.outcomes.items():
        if outcome is not Outcome.OK and count:
            what, cause = _failure_words(report, outcome, count)
            first = said.setdefault(cause, outcome)
            text = f"{what}: {cause if first is outcome else f'as with {first}'}"
            if report.cause:
                text = what  # no guess beside what is known
            yield Remark(outcome.value, None, text)


def _failure_words(report: Sample, outcome: Outcome, count: int) -> tuple[str, str]:
    """One way to fail: how often and what was met; and the likely cause."""
    detail = visible(report.examples.get(outcome, ""))
    met = f" ({detail})" if detail else ""
    lasted = _timeout(report, outcome)
    when = "" if lasted is None else f", after about {duration(lasted)}" + " each" * (count > 1)
    answered = report.counts.outcomes[Outcome.OK]
    cause = _cause_beside_answers if answered else _cause_without_answers
    return f"{count} x {outcome}{met}{when}", cause(report, outcome, lasted)


def _timeout(report: Sample, outcome: Outcome) -> float | None:
    """Seconds after which connections ended so, where a timeout of the proxy's may have."""
    counts = report.counts
    lasted = counts.failed.get(outcome)
    if lasted is None or outcome in _OWN_TIMEOUTS:
        return None
    first, last = lasted.quantile(5), lasted.quantile(95)
    if first < _NOTICEABLE or last > _SAME * first:
        return None
    usual = max((10 * answer.quantile(90) for answer in counts.answer.values()), default=0.0)
    if lasted.count < _FEW and (not usual or first < max(_LONG, usual)):
        return None
    return lasted.quantile(50)


_OWN_TIMEOUTS = {Outcome.CONNECT_TIMEOUT, Outcome.READ_TIMEOUT, Outcome.NO_MATCH}
"""What the probe itself gives up after --timeout."""


def _cause_without_answers(report: Sample, outcome: Outcome, lasted: float | None) -> str:
    """What a second look leaves as the cause of a way to fail, where nothing answered."""
    clues = report.counts.clues
    certain = [words for clue, words in _CERTAIN.items() if clues[clue]]
    if outcome in _STOOD and certain:
        return certain[0]
    if outcome is Outcome.TLS and _UNVERIFIED in report.examples.get(outcome, ""):
        return "check --tls-ca, --sni and the server's certificate"
    if outcome is Outcome.READ_TIMEOUT and clues:
        return "connected, but no answer in time: a backend hangs, or it speaks another protocol"
    if outcome in _ENDED:
        if lasted is not None:
            return (
                "the proxy gives up: its timeout is shorter than a backend's answer takes, "
                "or it reaches no backend"
            )
        for clue, words in _GUESSES.items():
            if clues[clue]:
                return words
    hint = HINTS[outcome]
    if any("proxy_protocol" in run.asked for run in report.runs):
        hint = hint.replace(*_PROXY_SENT)
    return hint


def _cause_beside_answers(report: Sample, outcome: Outcome, lasted: float | None) -> str:
    """What the whole sample leaves as the cause of a way to fail, where others were answered."""
    hint = _HINTS_BESIDE_ANSWERS[outcome]
    if outcome not in _OF_A_DEAD_BACKEND:
        return hint
    if lasted is not None:
        hint = "a timeout of the proxy: a backend answers too slowly, hangs, or cannot be reached"
    return _dead_words(report, lasted) or _limit_words(report.counts) or hint


def _limit_words(counts: Counts) -> str | None:
    """What limit is likely; None where as many connections fail one at a time as otherwise."""
    alone, failed = counts.alone.total(), counts.clues[Clue.FAILED_ALONE]
    more = f"of {alone + failed} more, one at a time, {failed or 'none'} failed"
    if failed and not alone:
        return f"a limit on the rate of connections, or everything behind the proxy is down: {more}"
    # With those that ended after the verdict, and were not judged.
    answered = counts.answers.total() + counts.late.total()
    lost = max(counts.errors, counts.launched - counts.unfinished - answered)
    if not differ(
        {"answered": answered, "lost": lost}, {"answered": alone, "lost": failed}, _UNLIKELY
    ):
        return None
    if failed * answered > lost * alone:
        return f"a limit on the rate of connections: {more}"
    return f"a limit on open connections (maxconn, limit_conn, a circuit breaker): {more}"


def _dead_words(report: Sample, lasted: float | None) -> str | None:
    """What to say of backends that do not answer; None where others or more than theirs fail.

    Args:
        report: the sample.
        lasted: seconds after which connections ended, where that looks like a timeout.
    """
    counts, shares = report.counts, report.expectation.shares
    dead, failed, total, of = silent(report.expectation, counts), counts.errors, counts.total, ""
    alone = counts.alone.total() + counts.clues[Clue.FAILED_ALONE]
    if alone >= _ENOUGH:
        dead = [name for name, share in shares.items() if share and not counts.alone[name]]
        failed, total, of = counts.clues[Clue.FAILED_ALONE], alone, " more, one at a time,"
    if not dead or len(dead) == len(shares):
        return None
    weight = sum(shares[name] for name in dead)
    doubt = _SIGMAS * sqrt(weight * (1 - weight) / total) + 1 / total
    if abs(failed / total - weight) > doubt:
        return None
    is_, it, its = ("is", "it", "its") if len(dead) == 1 else ("are", "they", "their")
    words = f"{_listed(dead)} {is_} "
    if lasted is not None and lasted < 1:
        words += f"slower than the proxy's timeout of about {duration(lasted)}, "
    words += "down, or not reachable from the proxy"
    if total < _ENOUGH:
        return f"{words}: no answer so far"
    known = any(counts.answers[name] for name in dead)
    return (
        f"{words}: {it} {'answered before' if known else 'never answered'}, and "
        f"{percent(failed / total)} of {total}{of} failed, about {its} {exact(weight)}"
    )


_STOOD = {
    Outcome.RESET,
    Outcome.EOF_BEFORE_ANSWER,
    Outcome.EOF_MID_LINE,
    Outcome.READ_TIMEOUT,
    Outcome.WRONG_ECHO,
    Outcome.NO_MATCH,
    Outcome.TLS,
}
"""Ways to end after a connection stood."""

_ENDED = {Outcome.RESET, Outcome.EOF_BEFORE_ANSWER}

_OF_A_DEAD_BACKEND = {
    Outcome.REFUSED,
    Outcome.RESET,
    Outcome.EOF_BEFORE_ANSWER,
    Outcome.EOF_MID_LINE,
    Outcome.READ_TIMEOUT,
    Outcome.CONNECT_TIMEOUT,
}


def _who_answered(report: Sample, *, turns: bool) -> Iterator[Remark]:
    """What shares that are off look like: one for all, swapped, or even.

    Args:
        report: the sample.
        turns: whether the backends take turns.
    """
    expectation, counts = report.expectation, report.counts
    outside = off(expectation, counts)
    answered = [name for name, count in counts.answers.items() if count]
    missing = silent(expectation, counts)
    if len(answered) == 1 and missing and outside and counts.total >= _SAMPLE:
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
            text = "the counts fit equal weights: are the weights in force"
            # What least connections does while no connection stays open.
            text += ", or does it go by open connections (least connections)?" if turns else "?"
            yield Remark("even", None, text)


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
        if (
            not report.counts.alone[name]
            and 0 < count < last
            and (total - last) * log1p(-count / last) < _NEVER
        ):
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
