"""A report as JSON and back, and several reports as one. Pure.

The schema is ``report.schema.json``, beside this file. What can be derived from the
counts is written for readers without statistics, and never read back.
"""

from __future__ import annotations

import json
import re
from dataclasses import replace
from datetime import datetime
from functools import partial
from itertools import pairwise
from math import isfinite
from typing import TYPE_CHECKING, Any, NamedTuple

import trio_echo
from trio_echo.errors import ConfigError, TrioEchoError
from trio_echo.prober import remarks, words
from trio_echo.prober.counts import Counts, Outcome
from trio_echo.prober.order import Point, Runs
from trio_echo.prober.split import Expectation, Verdict, worst
from trio_echo.prober.words import Report, Run
from trio_echo.text import printable, visible

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping

    from trio_echo.prober.latency import Histogram
    from trio_echo.prober.remarks import Remark
    from trio_echo.prober.words import Backend

__all__ = [
    "FORMAT",
    "Found",
    "error_json",
    "find",
    "from_json",
    "merge",
    "several_json",
    "to_json",
]

FORMAT = 2
"""The version of the schema. It grows when a reader of the old one would be wrong;
fields may be added without."""

_HEX = "hex:"
"""In front of a name that JSON cannot carry as it is: bytes that are no UTF-8."""


def to_json(report: Report, **more: Any) -> str:
    """The report as one JSON object and LF, in ASCII whatever the peer sent.

    Args:
        report: what was found.
        more: what stands beside it, by its field; `from_json` does not read it.
    """
    expectation = report.expectation
    return _dump(
        {
            "format": FORMAT,
            "tool": _tool(),
            "verdict": report.verdict,
            "interrupted": report.interrupted,
            "headline": words.headline(report),
            "basis": words.basis(report),
            "reasons": _remarks(remarks.reasons(report)),
            "findings": _remarks(remarks.findings(report)),
            "notices": [visible(notice) for notice in report.notices],
            "target": report.target,
            "address": report.address,
            "began": report.began,
            "elapsed": report.elapsed,
            "expectation": {
                "weights": dict(expectation.weights),
                "margin": expectation.margin,
                "tolerance": expectation.tolerance,
                "alpha": expectation.alpha,
            },
            "connections": report.connections,
            "errors": report.errors,
            "outcomes": {outcome.value: report.counts.outcomes[outcome] for outcome in Outcome},
            "backends": [_backend(report, backend) for backend in report.backends],
            "runs": [_run(run) for run in report.runs],
        }
        | more
    )


def several_json(cases: Mapping[str, Report], **more: Any) -> str:
    """Several reports as one JSON object and LF, each with the name of its case.

    The verdict of all is the worst: FAIL, then what could not be measured,
    then INCONCLUSIVE. `from_json` does not read it.

    Args:
        cases: at least one report.
        more: what belongs to all of them, by its field; None is left out.
    """
    return _dump(
        {
            "format": FORMAT,
            "tool": _tool(),
            "verdict": worst(report.verdict for report in cases.values()),
            "interrupted": any(report.interrupted for report in cases.values()),
            "reports": [
                {"case": name} | json.loads(to_json(report)) for name, report in cases.items()
            ],
        }
        | {name: value for name, value in more.items() if value is not None}
    )


def error_json(message: str, *, interrupted: bool = False) -> str:
    """A JSON object and LF in the place of a report that could not be made.

    Args:
        message: why.
        interrupted: whether somebody stopped it.
    """
    return _dump(
        {
            "format": FORMAT,
            "tool": _tool(),
            "verdict": None if interrupted else Verdict.UNMEASURED,
            "interrupted": interrupted,
            "headline": "INTERRUPTED" if interrupted else "COULD NOT MEASURE",
            "error": visible(message),
        }
    )


def from_json(text: str | bytes) -> Report:
    """Read a report that `to_json` wrote.

    Raises:
        TrioEchoError: it is none, of another version, or damaged.
    """
    try:
        document = json.loads(text)
    except (ValueError, RecursionError):
        raise TrioEchoError(_NO_REPORT) from None
    return _from_document(document)


class Found(NamedTuple):
    """The reports in a text.

    Attributes:
        reports: by a label: the name of the text, and behind it, where there is
            more than one report, the pod that wrote it or its number.
        notes: in words, what was left out with good reason.
        broken: how many reports begin and do not end.
    """

    reports: dict[str, Report]
    notes: list[str]
    broken: int


def find(data: bytes, name: str) -> Found:
    """Read the reports in a document of JSON, or among the lines of logs.

    A report in a log is one object, at any place of a line. Copies of one and the
    same report count once.

    Args:
        data: the text.
        name: what to call it, as it is shown.

    Raises:
        TrioEchoError: there is none, or one cannot be read.
    """
    try:
        documents = [("", json.loads(data))]
    except (ValueError, RecursionError):
        documents = list(_scan(data.decode(errors="replace")))
    found = Found({}, [], [document for _, document in documents].count(None))
    known: set[str] = set()
    for number, (pod, document) in enumerate(documents, 1):
        label = name
        if len(documents) > 1:
            label += f": {pod or f'report {number}'}"
            label += f", report {number}" if label in found.reports else ""
        if document is None:
            continue
        whole = json.dumps(document, sort_keys=True)
        if whole in known:
            found.notes.append(f"{label}: the same run again, which counts once")
        elif len(documents) > 1 and document.get("interrupted") and "error" in document:
            found.notes.append(f"{label}: was interrupted before its first connection")
        else:
            try:
                found.reports[label] = _from_document(document)
            except TrioEchoError as error:
                raise TrioEchoError(f"{visible(label)}: {error}") from None
        known.add(whole)
    if not found.reports:
        reason = "holds no whole report" if documents else _NO_REPORT
        raise TrioEchoError(f"{name}: {reason}")
    return found


_NO_REPORT = "not a report of trio-echo"

_BEGIN = re.compile(r'\{\s*"format":\s*\d+,\s*"tool":\s*"trio-echo ')
"""How each report begins, in whatever line."""

_POD = re.compile(r"\[pod/([^/\]\n]{1,253})")
"""What ``kubectl logs --prefix`` begins each line with."""


def _scan(text: str) -> Iterator[tuple[str, Any]]:
    """Find what begins as a report does.

    Yields:
        The pod that its line names, if any, and the object; None if it does not end.
    """
    decoder = json.JSONDecoder()
    place = line = 0
    after = _BEGIN.search(text)
    while begin := after:
        start = begin.start()
        line = max(line, text.rfind("\n", place, start) + 1)
        pod = _POD.match(text, line, start)
        # None holds another one, so each byte is decoded once, however often one begins.
        after = _BEGIN.search(text, begin.end())
        try:
            document, size = decoder.raw_decode(text[start : after.start() if after else None])
            place = start + size
        except (ValueError, RecursionError):
            # Skip the rest of the line: it may begin as often as somebody likes.
            document, place = None, text.find("\n", begin.end())
            if place < 0:
                after = None
            elif after and after.start() < place:
                after = _BEGIN.search(text, place)
        yield pod[1] if pod else "", document


def _from_document(document: Any) -> Report:
    """Read a report.

    Raises:
        TrioEchoError: it is none, of another version, or damaged.
    """
    try:
        found = document["format"]
    except (TypeError, LookupError):
        raise TrioEchoError(_NO_REPORT) from None
    if found != FORMAT:
        shown = printable(str(found))[:20]
        raise TrioEchoError(f"a report of format {shown}; this version reads format {FORMAT}")
    if isinstance(document.get("error"), str):
        raise TrioEchoError(f"holds no report but an error: {visible(document['error'])}")
    if isinstance(several := document.get("reports"), list):
        option, what = (" --shift", "step") if "walk" in document else ("", "route")
        raise TrioEchoError(
            f"was written by rehearse{option} and holds {len(several)} expectations, one for each"
            f" {what}; report adds up runs of one"
        )
    try:
        report = _report(_every_text(document, _as_it_came))
        to_json(report)  # whatever cannot be put into words again is damaged as well
    except (ValueError, TypeError, LookupError, AttributeError, ArithmeticError):
        raise TrioEchoError("a damaged report: a text or a figure cannot be read") from None
    return report


def merge(reports: Mapping[str, Report]) -> Report:
    """Add runs up, in whatever order they come.

    The verdict of the sum is as good as that of one run, but for two things that
    are the caller's: leaving out runs because of what they found ("again until it
    passes"), and adding one run twice. The second is refused here.

    Args:
        reports: by a label to name them with, such as their file; at least one.

    Raises:
        TrioEchoError: two expect different things, or hold the same run.
    """
    [(label, first), *others] = reports.items()
    for other_label, other in others:
        _check_same(label, first, other_label, other)
    if not others:
        return first
    runs: dict[str, Run] = {}
    for each, report in reports.items():
        for run in report.runs:
            if run.tag in runs:
                raise TrioEchoError(f"{each}: holds the same run as {runs[run.tag].label}")
            runs[run.tag] = replace(run, label=run.label or each)
    ordered = sorted(
        runs.values(), key=lambda run: (datetime.fromisoformat(run.began).timestamp(), run.tag)
    )
    return Report(first.expectation, tuple(ordered))


def _check_same(label: str, report: Report, other_label: str, other: Report) -> None:
    """Refuse to add up runs that were to show different things."""
    ours, theirs = report.expectation, other.expectation
    for what, one, two in (
        ("shares", _shares(ours), _shares(theirs)),
        ("--margin", f"{ours.margin:g}", f"{theirs.margin:g}"),
        ("--tolerance", f"{ours.tolerance:g}", f"{theirs.tolerance:g}"),
        ("--alpha", f"{ours.alpha:g}", f"{theirs.alpha:g}"),
    ):
        if one != two:
            message = (
                f"{other_label}: expects {what} {two}, but {label} expects {one}; "
                "only runs with one expectation can be added up"
            )
            raise TrioEchoError(message)
    one, two = (_how_asked(each.runs[0]) for each in (report, other))
    if one != two:
        message = (
            f"{other_label}: its backends were named by {two}, but those of {label} by {one}; "
            "only runs that ask in the same way can be added up"
        )
        raise TrioEchoError(message)


def _how_asked(run: Run) -> str:
    """How backends were made to tell their names, as people write it."""
    options = (
        f"--{name.replace('_', '-')} '{visible(value)}'" for name, value in run.asked.items()
    )
    return " ".join(sorted(options)) or "their echo"


def _shares(expectation: Expectation) -> str:
    """The expectation as people compare it: weights in another unit are the same shares."""
    shares = sorted(expectation.shares.items())
    return (
        ", ".join(f"'{printable(name)}' {100 * share:.10g} %" for name, share in shares)
        or "of nobody"
    )


def _tool() -> str:
    return f"trio-echo {trio_echo.__version__}"


def _dump(document: dict[str, Any]) -> str:
    return json.dumps(_every_text(document, _carried), allow_nan=False) + "\n"


def _every_text(value: Any, change: Callable[[str], str]) -> Any:
    """A JSON value with each text in it changed, the names of fields too."""
    if isinstance(value, str):
        return change(value)
    if isinstance(value, dict):
        return {change(name): _every_text(each, change) for name, each in value.items()}
    if isinstance(value, list | tuple):
        return [_every_text(each, change) for each in value]
    return value


def _carried(text: str) -> str:
    """Text as JSON carries it to every reader; no two are carried alike."""
    if text.startswith(_HEX) or not _is_unicode(text):
        return _HEX + text.encode(errors="surrogatepass").hex()
    return text


def _is_unicode(text: str) -> bool:
    """Whether UTF-8 can carry a text: it holds no lone surrogate."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _as_it_came(text: str) -> str:
    """What `_carried` was given.

    Raises:
        ValueError: it does not write such a thing.
    """
    if not text.startswith(_HEX):
        return text
    return bytes.fromhex(text.removeprefix(_HEX)).decode(errors="surrogatepass")


def _remarks(remarks: Iterable[Remark]) -> list[dict[str, Any]]:
    return [remark._asdict() for remark in remarks]


def _backend(report: Report, backend: Backend) -> dict[str, Any]:
    """One backend, for readers without statistics."""
    return {
        "name": backend.name,
        "weight": report.expectation.weights.get(backend.name),
        "expected": backend.expected,
        "connections": backend.connections,
        "share": backend.share,
        "interval": backend.interval,
        "band": backend.band,
        "connect": _percentiles(backend.connect),
        "answer": _percentiles(backend.answer),
    }


def _percentiles(histogram: Histogram) -> dict[str, float]:
    return {f"{percent:g}": seconds for percent, seconds in histogram.percentiles()}


def _run(run: Run) -> dict[str, Any]:
    """One run: all that is read back."""
    names = list(run.counts.answers)
    return {
        "tag": run.tag,
        "label": run.label,
        "target": run.target,
        "address": run.address,
        "began": run.began,
        "elapsed": run.elapsed,
        "max_errors": run.error_limit,
        "asked": dict(run.asked),
        "interrupted": run.interrupted,
        "fault": run.fault,
        "notices": run.notices,
        "examples": {outcome.value: text for outcome, text in run.examples.items()},
        "counts": run.counts.to_json(),
        "changes": None if run.changes is None else run.changes._asdict(),
        "running": {
            "names": names,
            "points": [
                [point.total, point.errors, *(point.counts.get(name, 0) for name in names)]
                for point in run.points
            ],
        },
    }


def _report(document: dict[str, Any]) -> Report:
    """Rebuild a report from what cannot be derived.

    Raises:
        TrioEchoError: a field is missing, or holds what no probe writes.
    """
    expectation = _take(document, "", "expectation", _expectation)
    count = len(_take(document, "", "runs", list))
    runs = tuple(_read_run(document["runs"][index], f"runs[{index}].") for index in range(count))
    if len({run.tag for run in runs}) != count or not runs:
        raise TrioEchoError("a damaged report: it holds no run, or one twice")
    return Report(expectation, runs)


def _expectation(document: dict[str, Any]) -> Expectation:
    return Expectation(
        {name: float(weight) for name, weight in document["weights"].items()},
        margin=float(document["margin"]),
        tolerance=float(document["tolerance"]),
        alpha=float(document["alpha"]),
    )


def _read_run(document: dict[str, Any], where: str) -> Run:
    """Rebuild one run, and hold its counts against each other."""
    take = partial(_take, document, where)
    counts = take("counts", Counts.from_json)
    return Run(
        tag=take("tag", _text),
        label=take("label", _text),
        target=take("target", _text),
        address=take("address", lambda value: None if value is None else _text(value)),
        began=take("began", _time),
        elapsed=take("elapsed", _duration),
        error_limit=take("max_errors", _limit),
        interrupted=take("interrupted", bool),
        fault=take("fault", _text),
        notices=take("notices", lambda notices: list(map(_text, notices))),
        examples=take(
            "examples",
            lambda examples: {Outcome(word): _text(text) for word, text in examples.items()},
        ),
        counts=counts,
        # Not there in a report of a version that knew our echo alone.
        asked=take("asked", _asked) if "asked" in document else {},
        changes=take("changes", _changes),
        points=take("running", lambda running: _points(running, counts)),
    )


def _take(document: Any, where: str, name: str, read: Callable[[Any], Any]) -> Any:
    """Read one field of an object; an error names it.

    Raises:
        TrioEchoError: it is missing, or `read` raised an error.
    """
    try:
        value = document[name]
    except (LookupError, TypeError):
        raise TrioEchoError(f"a damaged report: {where}{name} is missing") from None
    try:
        return read(value)
    except ConfigError as error:
        reason = error.reason
    except ValueError as error:
        reason = str(error)
    except (TypeError, LookupError, AttributeError, ArithmeticError):
        reason = "holds what no probe writes"
    raise TrioEchoError(f"a damaged report: {where}{name}: {visible(reason[:_LONGEST_REASON])}")


def _text(value: object) -> str:
    if not isinstance(value, str):
        raise ValueError(f"{value!r} is no text")  # noqa: TRY004 - an error of the file, not of the caller
    return value


def _time(value: object) -> str:
    if datetime.fromisoformat(_text(value)).tzinfo is None:
        raise ValueError(f"{value!r} has no time zone")
    return str(value)


def _duration(value: Any) -> float:
    if not 0 <= float(value) < _AGES:
        raise ValueError(f"{value!r} is no duration")
    return float(value)


def _limit(value: object) -> int | None:
    if value is not None and not (isinstance(value, int) and value >= 0):
        raise ValueError(f"{value!r} is no limit")
    return value


def _asked(value: Any) -> dict[str, str]:
    return {_text(name): _text(each) for name, each in value.items()}


def _changes(value: Any) -> Runs | None:
    if value is None:
        return None
    changes = Runs(**value)
    if not all(map(isfinite, changes)):
        raise ValueError("its changes are no numbers")
    return changes


def _points(running: dict[str, Any], counts: Counts) -> list[Point]:
    points = [
        Point(total, errors, dict(zip(running["names"], answers, strict=True)))
        for total, errors, *answers in running["points"]
    ]
    _check_points(points, counts)
    return points


_LONGEST_REASON = 200
"""Characters of what is wrong with a field: it may hold megabytes."""

_AGES = 1e10
"""Seconds that no run has taken."""


def _check_points(points: list[Point], counts: Counts) -> None:
    """Hold running counts against the sum that they run to.

    Raises:
        ValueError: they do not agree.
    """
    growing = all(
        before.total < after.total
        and before.errors <= after.errors
        and all(before.counts[name] <= after.counts[name] for name in before.counts)
        for before, after in pairwise([Point(-1, 0, dict.fromkeys(points[0].counts, 0)), *points])
    )
    whole = all(isinstance(count, int) for point in points for count in point.counts.values())
    adding_up = all(point.total == point.errors + point.answered for point in points)
    last = points[-1]
    if not (
        growing
        and whole
        and adding_up
        and (last.total, last.errors) == (counts.total, counts.errors)
        and last.counts == dict(counts.answers)
    ):
        raise ValueError("its counts do not agree")
