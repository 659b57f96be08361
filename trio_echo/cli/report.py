"""``trio-echo report``: several runs added up to one verdict."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from trio_echo.cli.output import JSONOption, JUnitOption, Output, SVGOption
from trio_echo.errors import TrioEchoError
from trio_echo.prober.document import from_json, merge
from trio_echo.text import printable

__all__ = ["report"]


def report(
    files: Annotated[
        list[str],
        typer.Argument(
            metavar="FILE...", help="Reports that `probe --json` wrote; - for standard input."
        ),
    ],
    *,
    json: JSONOption = None,
    junit: JUnitOption = None,
    svg: SVGOption = None,
) -> None:
    """Add up runs with one expectation, and judge the sum.

    Each is judged anew from its counts. Include every run; leaving out unwelcome
    ones makes the result worthless. Exit codes are those of probe.
    """
    output = Output(json, junit, svg)
    reports = {}
    for place in files:
        name = "standard input" if place == "-" else place
        if name in reports:
            raise TrioEchoError(f"{printable(name)}: given twice")
        try:
            reports[name] = from_json(_read(place))
        except (OSError, ValueError) as error:  # ValueError: NUL in a path
            reason = error.strerror if isinstance(error, OSError) else error
            raise TrioEchoError(f"{printable(name)}: {reason}") from None
        except TrioEchoError as error:
            raise TrioEchoError(f"{printable(name)}: {error}") from None
    raise typer.Exit(output.end(output.publish(merge(reports))))


def _read(place: str) -> bytes:
    """The bytes of a file, or of standard input."""
    return sys.stdin.buffer.read() if place == "-" else Path(place).read_bytes()
