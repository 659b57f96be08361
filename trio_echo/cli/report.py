"""``trio-echo report``: several runs added up to one verdict."""

from __future__ import annotations

import sys
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from trio_echo.cli.options import (
    EFFORT,
    EXPECTED,
    AlphaOption,
    ExpectOption,
    GitHubOption,
    JSONOption,
    JUnitOption,
    MarginOption,
    PNGOption,
    SVGOption,
    ToleranceOption,
    option,
)
from trio_echo.cli.output import Output, Words
from trio_echo.cli.signals import interruptible
from trio_echo.errors import ConfigError, TrioEchoError
from trio_echo.prober.config import parse_expectation
from trio_echo.prober.document import find, merge
from trio_echo.prober.split import DEFAULT_ALPHA, Expectation
from trio_echo.text import printable

if TYPE_CHECKING:
    from trio_echo.prober.words import Report

__all__ = ["report"]


def report(
    files: Annotated[
        list[str],
        typer.Argument(
            metavar="FILE",
            help="Reports that `probe --json` wrote, or logs that hold some; - for standard input.",
        ),
    ],
    *,
    expect: ExpectOption = None,
    margin: MarginOption = None,
    tolerance: ToleranceOption = 0.0,
    alpha: AlphaOption = DEFAULT_ALPHA,
    max_errors: Annotated[
        int | None,
        option(
            EXPECTED,
            "N",
            "Accept N failed connections in each run. [default: 0 with --expect, else what each"
            " run accepted]",
        ),
    ] = None,
    runs: Annotated[
        int | None,
        option(EFFORT, "N", "Give no PASS unless N complete runs are found."),
    ] = None,
    json: JSONOption = None,
    junit: JUnitOption = None,
    svg: SVGOption = None,
    png: PNGOption = None,
    github: GitHubOption = None,
) -> None:
    """Add up the reports of several probes to one verdict.

    The sum is judged anew from its counts, by what the runs expected or by
    --expect. Include every run; leaving out unwelcome ones makes the result
    worthless. In a log, reports may stand among other lines. Exit codes are those
    of probe.

    Examples:
    trio-echo report run-*.json
    kubectl logs -l job-name=probe --tail=-1 | trio-echo report --runs 8 -
    """
    output = Output(json, junit, svg, png, github=github)
    judged_by = None
    if expect:
        judged_by = Expectation(
            parse_expectation("expect", expect), margin=margin, tolerance=tolerance, alpha=alpha
        )
        max_errors = max_errors or 0
    elif (margin, tolerance, alpha) != (None, 0.0, DEFAULT_ALPHA):
        raise ConfigError("expect", "must be given too, for --margin, --tolerance and --alpha")
    for field, value, least in (("max_errors", max_errors, 0), ("runs", runs, 1)):
        if value is not None and value < least:
            raise ConfigError(field, f"must be {least} or more, got {value}")
    reports, faults = _collect(files)
    whole = merge({label: _judged(each, judged_by, max_errors) for label, each in reports.items()})
    complete = sum(not run.interrupted for run in whole.runs)
    if runs not in {None, complete}:
        faults.append(f"{complete} complete runs were found, and --runs asks for {runs}")
    if faults:
        whole = whole.unmeasured("; ".join(faults))
    raise typer.Exit(output.end(output.publish(whole)))


def _collect(places: list[str]) -> tuple[dict[str, Report], list[str]]:
    """Read every report; say what was left out.

    Returns:
        The reports by a label, and why the sum may have a hole.

    Raises:
        TrioEchoError: a place cannot be read, or holds no report.
    """
    reports: dict[str, Report] = {}
    faults = []
    if twice := [place for place, times in Counter(places).items() if times > 1]:
        raise TrioEchoError(f"{_named(twice[0])}: given twice")
    for place in places:
        name = _named(place)
        try:
            with interruptible():
                found = find(_read(place), name)
        except (OSError, ValueError) as error:  # ValueError: NUL in a path
            reason = error.strerror if isinstance(error, OSError) else error
            raise TrioEchoError(f"{name}: {reason}") from None
        for note in found.notes:
            Words(stderr=True).print(f"note: {note}")
        if found.broken:
            faults.append(f"{name}: {found.broken} of its reports cut off or damaged")
        if again := [label for label in found.reports if label in reports]:
            raise TrioEchoError(f"{again[0]}: two reports are called so: rename a file")
        reports |= found.reports
    return reports, faults


def _named(place: str) -> str:
    """What to call a place."""
    return "standard input" if place == "-" else printable(place)


def _read(place: str) -> bytes:
    """The bytes of a file, or of standard input."""
    return sys.stdin.buffer.read() if place == "-" else Path(place).read_bytes()


def _judged(report: Report, by: Expectation | None, max_errors: int | None) -> Report:
    """The report with another expectation and limit of failures, where these are given."""
    runs = report.runs
    if max_errors is not None:
        runs = tuple(replace(run, error_limit=max_errors) for run in runs)
    return replace(report, expectation=by or report.expectation, runs=runs)
