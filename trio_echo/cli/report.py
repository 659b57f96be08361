"""``trio-echo report``: several runs added up to one verdict."""

from __future__ import annotations

from pathlib import Path  # noqa: TC003 - typer reads the annotations at run time
from typing import Annotated

import typer

from trio_echo.cli.output import JSONOption, JUnitOption, Output, SVGOption
from trio_echo.errors import TrioEchoError
from trio_echo.prober.document import from_json, merge

__all__ = ["report"]


def report(
    files: Annotated[
        list[Path],
        typer.Argument(metavar="FILE...", help="Reports that `probe --json` wrote."),
    ],
    *,
    json: JSONOption = None,
    junit: JUnitOption = None,
    svg: SVGOption = None,
) -> None:
    """Add up runs with one expectation, and judge the sum.

    Give every run there is: leaving out those that one does not like is the
    one thing that no statistics survive. Exit codes are those of probe.
    """
    output = Output(json, junit, svg)
    reports = {}
    for path in files:
        if str(path) in reports:
            raise TrioEchoError(f"{path}: given twice")
        try:
            reports[str(path)] = from_json(path.read_bytes())
        except OSError as error:
            raise TrioEchoError(f"{path}: {error.strerror}") from None
        except TrioEchoError as error:
            raise TrioEchoError(f"{path}: {error}") from None
    raise typer.Exit(output.end(output.publish(merge(reports))))
