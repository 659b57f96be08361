"""What a probe counts: one value with `+`.

Pure. The live tally grows `Counts`, a report holds it, JSON is it, several runs are its
sum, and intervals and verdicts are functions of it. A new counter is one field,
besides the line that counts it and the words that show it: `+`, `to_json` and
`from_json` go by the fields and their types.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field, fields
from enum import StrEnum
from functools import cache
from typing import Any, NamedTuple, get_args, get_origin, get_type_hints

from trio_echo.prober.latency import Histogram

__all__ = ["Clue", "Counts", "Outcome", "Result"]

_LARGEST = 2**53
"""The largest count that JSON carries exactly everywhere."""


class Outcome(StrEnum):
    """How one connection ended."""

    OK = "ok"
    RESOLVE = "resolve"
    REFUSED = "refused"
    UNREACHABLE = "unreachable"
    CONNECT_TIMEOUT = "connect-timeout"
    RESET = "reset"
    EOF_BEFORE_ANSWER = "eof-before-answer"
    EOF_MID_LINE = "eof-mid-line"
    READ_TIMEOUT = "read-timeout"
    WRONG_ECHO = "wrong-echo"
    NO_MATCH = "no-match"
    TLS = "tls"
    LOCAL = "local"


class Clue(StrEnum):
    """What a second look found, where the probe itself could not tell causes apart."""

    FAILED_ALONE = "failed-alone"
    """A connection that was the only one failed too."""

    CHANGED_ALONE = "changed-alone"
    """Of two such connections, one after another, another backend answered the second."""

    SPEAKS_TLS = "speaks-tls"
    SPEAKS_NO_TLS = "speaks-no-tls"
    WANTS_PROXY = "wants-proxy"
    """It answers behind a header of the PROXY protocol."""

    WANTS_NO_PROXY = "wants-no-proxy"
    ENDS_UNASKED = "ends-unasked"
    """It ends a connection on which nothing was sent."""

    WAITS = "waits"
    """It keeps a connection on which nothing was sent."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Counts:
    """Counts of connections. ``Counts()`` is zero; ``+`` is associative and commutative.

    A field is an int, a Counter, a Histogram, or a dict of these by name. Whoever
    makes a value may let its containers grow before handing it on; nobody else
    changes it, and ``+`` shares none of them.

    Attributes:
        answers: answered connections by backend.
        outcomes: judged connections by how they ended.
        mixed: connections that two or more backends answered.
        sources: answered connections by backend for each local address, where
            there are several.
        connect: for each backend, seconds from the intended start of a connection
            until it could be written to.
        answer: for each backend, seconds from the first line's sending to its answer.
        failed: for each way to fail, seconds from the start of a connection to its end.
        lag: seconds that connections started later than a rate asked for.
        late: answers by backend that came after the verdict; not judged.
        launched: connections launched, the late ones included.
        unfinished: connections cut before their end.
        contacts: further connections that are not judged: to find an address that
            answers, to wait for a first answer, and of the second look.
        alone: answers by backend in the second look, where one connection was
            made at a time.
        clues: what else the second look found.
    """

    answers: Counter[str] = field(default_factory=Counter)
    outcomes: Counter[Outcome] = field(default_factory=Counter)
    mixed: int = 0
    sources: dict[str, Counter[str]] = field(default_factory=dict)
    connect: dict[str, Histogram] = field(default_factory=dict)
    answer: dict[str, Histogram] = field(default_factory=dict)
    failed: dict[Outcome, Histogram] = field(default_factory=dict)
    lag: Histogram = field(default_factory=Histogram)
    late: Counter[str] = field(default_factory=Counter)
    launched: int = 0
    unfinished: int = 0
    contacts: int = 0
    alone: Counter[str] = field(default_factory=Counter)
    clues: Counter[Clue] = field(default_factory=Counter)

    @property
    def errors(self) -> int:
        """Judged connections that failed."""
        return self.outcomes.total() - self.outcomes[Outcome.OK]

    @property
    def total(self) -> int:
        """Judged connections, failed ones included."""
        return self.outcomes.total()

    def __add__(self, other: Counts) -> Counts:
        """The counts of both."""
        return Counts(
            **{
                name: _sum(getattr(self, name), getattr(other, name), hint)
                for name, hint in _types().items()
            }
        )

    def to_json(self) -> dict[str, Any]:
        """The fields by name, in what JSON has."""
        return {name: _to_json(getattr(self, name)) for name in _types()}

    @classmethod
    def from_json(cls, document: dict[str, Any]) -> Counts:
        """Read what `to_json` made, from wherever it comes.

        Raises:
            LookupError: a field is missing.
            TypeError: a field has another shape.
            ValueError: something is no count, or the counts do not agree.
        """
        counts = cls(**{name: _read(document[name], hint) for name, hint in _types().items()})
        by_source = [source.total() for source in counts.sources.values()]
        by_time = [histogram.count for histogram in counts.answer.values()]
        if {counts.answers.total()} != {
            counts.outcomes[Outcome.OK],
            *([sum(by_source)] if by_source else []),
            sum(by_time),
        }:
            raise ValueError("its counts do not agree")
        return counts


class Result(NamedTuple):
    """One connection from its start to its end.

    Attributes:
        outcome: how it ended.
        name: who answered the first line, as it came; empty for a plain echo,
            None where it ended otherwise than ok.
        mixed: whether another backend answered a later line.
        connect: seconds from the intended start until it could be written to,
            a TLS handshake included.
        answer: seconds from the first line's sending to its answer.
        lag: seconds that it started later than intended.
        took: seconds from its start to its end, where it failed.
        detail: what happened, in the words of the system.
    """

    outcome: Outcome
    name: str | None = None
    mixed: bool = False
    connect: float = 0.0
    answer: float = 0.0
    lag: float = 0.0
    took: float = 0.0
    detail: str = ""


@cache
def _types() -> dict[str, Any]:
    """The type of each field, in their order."""
    hints = get_type_hints(Counts)
    return {each.name: hints[each.name] for each in fields(Counts)}


def _sum(one: Any, other: Any, hint: Any) -> Any:
    """The sum of two values of one field; what is in it is shared with neither."""
    if get_origin(hint) is None:
        return one + other
    if get_origin(hint) is Counter:
        total = Counter(one)
        total.update(other)
        return total
    _, inner = get_args(hint)
    zero = get_origin(inner) or inner
    return {
        name: _sum(one.get(name, zero()), other.get(name, zero()), inner)
        for name in dict.fromkeys((*one, *other))
    }


def _to_json(value: Any) -> Any:
    """A value of one field as JSON has it."""
    if isinstance(value, Histogram):
        return value.to_json()
    if isinstance(value, dict):
        return {name: _to_json(inner) for name, inner in value.items()}
    return value


def _read(value: Any, hint: Any) -> Any:
    """Read a value of one field."""
    if hint is int:
        return _count(value)
    if hint is Histogram:
        return Histogram.from_json(value)
    of, *inner = get_args(hint)
    if get_origin(hint) is Counter:
        return Counter({of(name): _count(count) for name, count in value.items()})
    return {of(name): _read(each, *inner) for name, each in value.items()}


def _count(value: object) -> int:
    """A number of things.

    Raises:
        ValueError: it is something else.
    """
    if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value <= _LARGEST:
        raise ValueError(f"{value!r} is no count")
    return value
