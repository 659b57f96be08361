"""The chart of the benchmark, from the tables of its page."""

from __future__ import annotations

import re

from documenting.pages import ROOT

from trio_echo.prober.picture import Canvas

__all__ = ["chart"]

OURS = "trio-echo"

_WIDTH = 860.0
_LEFT, _COLUMN, _BAR = 104.0, 252.0, 180.0
"""Where the first column begins, and how wide a column and its longest bar are."""

_ROW = 24.0


def chart() -> str:
    """CPU time per line of each server under each load, as bars."""
    loads = _measured((ROOT / "docs" / "benchmarks.md").read_text(encoding="utf-8"))
    title = "CPU time per line, µs: less is better"
    canvas = Canvas(_WIDTH, title, _in_words(loads))
    canvas.text(30, 36, title, "head text")
    servers = list(next(iter(loads.values())))
    for number, server in enumerate(servers):
        style = "title text" if server == OURS else "text"
        canvas.text(_LEFT - 10, _middle(number) + 5, server, style, "end")
    for column, (load, times) in enumerate(loads.items()):
        left = _LEFT + column * _COLUMN
        canvas.text(left, 68, load, "title text")
        longest = max(times.values())
        for number, server in enumerate(servers):
            length = times[server] / longest * _BAR
            middle = _middle(number)
            canvas.rect(left, middle - 8, length, 16, "c0" if server == OURS else "band")
            canvas.text(left + length + 6, middle + 5, f"{times[server]:g}")
    return canvas.finish(_middle(len(servers)) + 10)


def _middle(number: int) -> float:
    """Where a row of the chart is."""
    return 94 + number * _ROW


def _measured(page: str) -> dict[str, dict[str, float]]:
    """The first figure of each server in the tables of CPU time, by load."""
    return {
        load.rpartition(", ")[0]: {
            server: float(figure)
            for server, figure in re.findall(r"^\| ([\w-]+) +\| +([\d.]+) \|", table, re.MULTILINE)
        }
        for load, table in re.findall(
            r"^## (.*)\n\n(\| server +\| CPU .*\n(?:\|.*\n)*)", page, re.MULTILINE
        )
    }


def _in_words(loads: dict[str, dict[str, float]]) -> str:
    """The same for those who cannot see it."""
    return "; ".join(
        f"{load}: " + ", ".join(f"{server} {time:g}" for server, time in times.items())
        for load, times in loads.items()
    )
