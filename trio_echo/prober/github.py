"""Reports and complaints in the forms that GitHub Actions shows. Pure.

An annotation is a workflow command, one line that the runner takes from a step's
stdout or stderr. The runner undoes ``%25``, ``%0D`` and ``%0A`` in its text, and
``%3A`` and ``%2C`` in its properties too (``command.ts`` of actions/toolkit). The
summary is GitHub's Markdown, in which a backslash takes the meaning from any ASCII
punctuation.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Literal

from trio_echo.prober import remarks, words
from trio_echo.prober.split import Verdict
from trio_echo.text import visible

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from trio_echo.prober.words import Report

__all__ = ["annotation", "complaints", "summary"]

_LEVELS: dict[Verdict | None, Literal["error", "warning"]] = {
    Verdict.FAIL: "error",
    Verdict.UNMEASURED: "error",
    Verdict.INCONCLUSIVE: "warning",
}
"""A verdict that is not among them needs no annotation."""

_ROWS = 50
"""Backends in a table of the summary. GitHub refuses a summary of more than 1 MiB."""

_PUNCTUATION = re.compile(r"[!-/:-@\[-`{-~]")


def annotation(
    level: Literal["error", "warning"],
    message: str,
    *,
    title: str,
    file: str = "",
    line: int | None = None,
) -> str:
    """The workflow command, one line without LF, for an annotation.

    Args:
        level: how it looks.
        message: its text; LF is between lines.
        title: in front of the text.
        file: from the root of the repository; empty where no file is meant.
        line: in the file.
    """
    properties = {"file": file, "line": "" if line is None else f"{line}", "title": title}
    given = ",".join(
        f"{name}={_data(value).replace(':', '%3A').replace(',', '%2C')}"
        for name, value in properties.items()
        if value.strip()
    )
    return f"::{level} {given}::{_data(message)}"


def complaints(cases: Mapping[str, Report], fault: str = "") -> list[str]:
    """An annotation for each report with a verdict that is no PASS.

    Args:
        cases: reports by their names, which may be empty.
        fault: what is wrong beside them; empty for nothing.
    """
    written = [
        annotation(
            _LEVELS[report.verdict],
            "\n".join([words.headline(report), *(each.text for each in remarks.reasons(report))]),
            title=": ".join(filter(None, ["trio-echo", name])),
        )
        for name, report in cases.items()
        if report.verdict in _LEVELS
    ]
    return [*written, annotation("error", fault, title="trio-echo")] if fault else written


def summary(cases: Mapping[str, Report], more: Iterable[str] = ()) -> str:
    """Reports as Markdown: of each the verdict, the shares and why.

    Args:
        cases: reports by their names, which may be empty.
        more: lines about all of them.
    """
    parts: list[str] = []
    for name, report in cases.items():
        parts.append(f"### {_markdown(words.headline(report))}")
        parts += [_markdown(name)] if name else []
        parts.append(_markdown(words.basis(report)))
        if report.counts.answers:
            parts.append(_table(words.shares(report)))
        said = [each.text for each in (*remarks.reasons(report), *remarks.findings(report))]
        parts.append(_list([*said, *report.notices]))
    parts.append(_list(more))
    return "\n\n".join(filter(None, parts)) + "\n"


def _table(rows: Sequence[tuple[str, ...]]) -> str:
    """A table, its head first; names to the left, figures to the right."""
    head, *body = (f"| {' | '.join(map(_markdown, row))} |" for row in rows[: _ROWS + 1])
    marks = f"| --- |{' ---: |' * (len(rows[0]) - 1)}"
    left_out = len(rows) - 1 - len(body)
    lines = [head, marks, *body]
    return "\n".join(lines) + (f"\n\nand {left_out} more" if left_out else "")


def _list(lines: Iterable[str]) -> str:
    return "\n".join(f"- {_markdown(line)}" for line in lines)


def _markdown(text: str) -> str:
    """Text as Markdown that shows it and does nothing else."""
    return _PUNCTUATION.sub(r"\\\g<0>", visible(text.strip()))


def _data(text: str) -> str:
    """Text as the runner reads it; its lines can do nothing to a terminal."""
    safe = "\n".join(map(visible, text.split("\n")))
    return safe.replace("%", "%25").replace("\r", "%0D").replace("\n", "%0A")
