"""``trio-echo report``: several runs added up to one verdict."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from trio_echo.cli.options import (  # noqa: TC001 - typer reads them at run time
    JSONOption,
    JUnitOption,
    SVGOption,
)
from trio_echo.cli.output import Output
from trio_echo.cli.signals import interruptible
from trio_echo.errors import TrioEchoError
from trio_echo.prober.document import from_json, merge
from trio_echo.text import printable

__all__ = ["report"]


def report(
    files: Annotated[
        list[str],
        typer.Argument(
            metavar="FILE", help="Reports that `probe --json` wrote; - for standard input."
        ),
    ],
    *,
    json: JSONOption = None,
    junit: JUnitOption = None,
    svg: SVGOption = None,
) -> None:
    """Add up the reports of several probes to one verdict.

    The sum is judged anew from its counts. Include every run; leaving out
    unwelcome ones makes the result worthless. Exit codes are those of probe.

    Examples:
    trio-echo report run-*.json
    kubectl logs job/probe | trio-echo report -
    """
    output = Output(json, junit, svg)
    reports = {}
    for place in files:
        name = "standard input" if place == "-" else place
        if name in reports:
            raise TrioEchoError(f"{printable(name)}: given twice")
        try:
            with interruptible():
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
