"""The report as JSON and back. The schema is ``report.schema.json``, beside this file."""

from __future__ import annotations

import json
from collections import Counter
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

from trio_echo.errors import ConfigError, TrioEchoError
from trio_echo.prober import words
from trio_echo.prober.latency import Histogram
from trio_echo.prober.order import Point, Runs
from trio_echo.prober.outcome import Outcome
from trio_echo.prober.report import Report
from trio_echo.prober.split import Split, Verdict
from trio_echo.prober.tally import Timings

if TYPE_CHECKING:
    from collections.abc import Iterable

    from trio_echo.prober.report import Backend
    from trio_echo.prober.words import Remark

__all__ = ["FORMAT", "from_json", "to_json"]

FORMAT = 1
"""The version of the schema. It grows when a reader of the old one would be wrong;
fields may be added without."""


def to_json(report: Report) -> str:
    """The report as one JSON object and LF, in ASCII whatever the peer sent."""
    split = report.split
    names = list(split.counts)
    document = {
        "format": FORMAT,
        "tool": f"trio-echo {version('trio-echo')}",
        "runs": list(report.runs),
        "target": report.target,
        "address": report.address,
        "began": report.began,
        "elapsed": report.elapsed,
        "verdict": report.verdict,
        "interrupted": report.interrupted,
        "headline": words.headline(report),
        "basis": words.basis(report),
        "reasons": _remarks(words.reasons(report)),
        "findings": _remarks(words.findings(report)),
        "notices": report.notices,
        "expectation": {
            "weights": dict(report.expect),
            "margin": split.margin,
            "alpha": split.alpha,
            "max_errors": report.error_limit,
        },
        "connections": report.connections,
        "errors": report.errors,
        "mixed": split.mixed,
        "launched": report.launched,
        "unfinished": report.unfinished,
        "contacts": report.contacts,
        "outcomes": {outcome.value: report.outcomes.get(outcome, 0) for outcome in Outcome},
        "examples": {outcome.value: text for outcome, text in report.examples.items()},
        "backends": [_backend(report, backend) for backend in report.backends],
        "late": dict(report.late),
        "changes": None if report.changes is None else report.changes._asdict(),
        "lag": _histogram(report.lag),
        "running": {
            "columns": ["connections", "errors", *(f"answered by {name}" for name in names)],
            "points": [
                [point.total, point.errors, *(point.counts.get(name, 0) for name in names)]
                for point in report.points
            ],
        },
    }
    return json.dumps(document, allow_nan=False) + "\n"


def from_json(text: str | bytes) -> Report:
    """Read a report that `to_json` wrote.

    Raises:
        TrioEchoError: it is none, or of another version.
    """
    try:
        document = json.loads(text)
        found = document["format"]
    except (ValueError, TypeError, LookupError, RecursionError):
        raise TrioEchoError("not a report of trio-echo") from None
    if found != FORMAT:
        raise TrioEchoError(f"a report of format {found!r}; this version reads format {FORMAT}")
    try:
        report = _report(document)
        _check(report)
        to_json(report)  # whatever cannot be put into words again is damaged as well
    except (ValueError, TypeError, LookupError, AttributeError, ArithmeticError) as error:
        what = error.reason if isinstance(error, ConfigError) else repr(error)
        raise TrioEchoError(f"a damaged report: {what}") from None
    return report


def _backend(report: Report, backend: Backend) -> dict[str, Any]:
    """One backend, its derived figures included for readers without statistics."""
    return {
        "name": backend.name,
        "weight": report.expect.get(backend.name),
        "expected": backend.expected,
        "connections": backend.connections,
        "share": backend.share,
        "interval": list(backend.interval),
        "tolerance": None if backend.tolerance is None else list(backend.tolerance),
        "connect": _histogram(backend.timings.connect),
        "answer": _histogram(backend.timings.answer),
    }


def _histogram(histogram: Histogram) -> dict[str, Any]:
    """Percentiles for people, and the buckets behind them for merging."""
    return {
        "count": histogram.count,
        "percentiles": {f"{percent:g}": seconds for percent, seconds in histogram.percentiles()},
        "buckets": sorted(histogram.buckets.items()),
    }


def _remarks(remarks: Iterable[Remark]) -> list[dict[str, Any]]:
    return [remark._asdict() for remark in remarks]


def _report(document: dict[str, Any]) -> Report:
    """Rebuild a report from what cannot be derived."""
    expectation = document["expectation"]
    weights = {str(name): float(weight) for name, weight in expectation["weights"].items()}
    split = Split(weights, margin=expectation["margin"], alpha=expectation["alpha"])
    backends = document["backends"]
    for backend in backends:
        split.counts[str(backend["name"])] = _count(backend["connections"])
    split.errors = _count(document["errors"])
    split.mixed = _count(document["mixed"])
    names = list(split.counts)
    changes = document["changes"]
    return Report(
        target=str(document["target"]),
        address=document["address"],
        runs=tuple(map(str, document["runs"])),
        began=str(document["began"]),
        elapsed=float(document["elapsed"]),
        expect=weights,
        error_limit=expectation["max_errors"],
        verdict=None if document["verdict"] is None else Verdict(document["verdict"]),
        interrupted=bool(document["interrupted"]),
        split=split,
        outcomes=Counter(
            {Outcome(word): _count(count) for word, count in document["outcomes"].items() if count}
        ),
        examples={Outcome(word): str(text) for word, text in document["examples"].items()},
        timings={
            str(backend["name"]): Timings(_read(backend["connect"]), _read(backend["answer"]))
            for backend in backends
        },
        points=[
            Point(total, errors, dict(zip(names, counts, strict=True)))
            for total, errors, *counts in document["running"]["points"]
        ],
        changes=None if changes is None else Runs(**changes),
        lag=_read(document["lag"]),
        late=Counter({str(name): _count(count) for name, count in document["late"].items()}),
        launched=_count(document["launched"]),
        unfinished=_count(document["unfinished"]),
        contacts=_count(document["contacts"]),
        notices=[str(notice) for notice in document["notices"]],
    )


def _check(report: Report) -> None:
    """Hold the counts of a report against each other.

    Raises:
        ValueError: they do not agree.
    """
    ends = report.points[-1]
    if not (
        sum(report.outcomes.values()) == report.connections == ends.total
        and report.outcomes.get(Outcome.OK, 0) == report.counts.total() == ends.answered
        and report.runs
    ):
        raise ValueError("its counts do not agree")


def _read(histogram: dict[str, Any]) -> Histogram:
    return Histogram({int(bucket): _count(count) for bucket, count in histogram["buckets"]})


def _count(value: object) -> int:
    """A number of things.

    Raises:
        ValueError: it is something else.
    """
    if not isinstance(value, int) or isinstance(value, bool) or value < 0:
        raise ValueError(f"{value!r} is no count")
    return value
