"""What a command leaves behind: the report in words, as files, and an exit code."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from trio_echo.cli.console import Words, write_out
from trio_echo.errors import ConfigError
from trio_echo.prober.document import to_json
from trio_echo.prober.junit import to_junit
from trio_echo.prober.picture import to_svg
from trio_echo.prober.split import Verdict

if TYPE_CHECKING:
    from trio_echo.prober.words import Report

__all__ = ["Files", "JSONOption", "JUnitOption", "SVGOption", "exit_code", "publish"]

JSONOption = Annotated[
    str | None,
    typer.Option("--json", metavar="FILE", help="Write the report as JSON; - for stdout."),
]
JUnitOption = Annotated[
    Path | None, typer.Option("--junit", metavar="FILE", help="Write the verdict as JUnit XML.")
]
SVGOption = Annotated[
    Path | None, typer.Option("--svg", metavar="FILE", help="Write the report as one picture.")
]

_STYLES = {Verdict.PASS: "bold green", Verdict.FAIL: "bold red"}


class Files:
    """Where the report goes, checked before anything is measured.

    Args:
        json: a path, ``-`` for stdout, or None.
        junit: a path or None.
        svg: a path or None.

    Raises:
        ConfigError: a file cannot be written there.
    """

    def __init__(self, json: str | None, junit: Path | None, svg: Path | None) -> None:
        self.json = json
        self.junit = junit
        self.svg = svg
        for field, path in (("json", json), ("junit", junit), ("svg", svg)):
            if path is None or path == "-":
                continue
            place = Path(path)
            target = place if place.exists() else place.parent
            if place.is_dir() or not target.exists() or not os.access(target, os.W_OK):
                raise ConfigError(field, f"cannot write {str(path)!r}")

    @property
    def words(self) -> Words:
        """Where the words go: to stderr where stdout is for JSON alone."""
        return Words(stderr=self.json == "-")


def publish(report: Report, files: Files) -> int:
    """Print the report, write its files, and return the exit code.

    Raises:
        ConfigError: a file could not be written after all.
    """
    headline, *rest = str(report).splitlines()
    style = None if report.verdict is None else _STYLES.get(report.verdict, "bold yellow")
    words = files.words
    words.print(headline, style=style, soft_wrap=True)
    for line in rest:
        words.print(line, soft_wrap=True)
    if files.json == "-":
        write_out(to_json(report))
    elif files.json is not None:
        _write("json", Path(files.json), to_json(report))
    if files.junit is not None:
        _write("junit", files.junit, to_junit(report))
    if files.svg is not None:
        _write("svg", files.svg, to_svg(report))
    return exit_code(report)


def exit_code(report: Report) -> int:
    """0 for PASS or no verdict asked for, 1 FAIL, 3 INCONCLUSIVE, 4 unmeasured, 130 stopped."""
    if report.interrupted:
        return 130
    match report.verdict:
        case Verdict.FAIL:
            return 1
        case Verdict.INCONCLUSIVE:
            return 3
        case Verdict.UNMEASURED:
            return 4
        case _:
            return 0


def _write(field: str, path: Path, text: str) -> None:
    try:
        path.write_text(text, encoding="utf-8")
    except OSError as error:
        raise ConfigError(field, f"cannot write '{path}': {error.strerror}") from None
