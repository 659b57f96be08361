"""The live tally on stderr: bars on a terminal, plain lines elsewhere."""

from __future__ import annotations

from typing import TYPE_CHECKING

import trio
from rich.console import Console
from rich.live import Live
from rich.table import Table
from rich.text import Text

from trio_echo.cli.output import Words
from trio_echo.prober.counts import Outcome
from trio_echo.prober.remarks import duration, percent, shown_name
from trio_echo.prober.split import interval
from trio_echo.text import printable

if TYPE_CHECKING:
    from trio_echo.prober.schedule import Tally

__all__ = ["follow", "wipe"]

_REDRAW = 0.1
"""Seconds between two pictures on a terminal."""

_SAY = 2.0
"""Seconds between two lines in a log."""

_CELLS = 50
"""Characters that stand for 100 %."""

_NAME_CELLS = 24

_drawn: Live | None = None
"""The picture on the terminal, of which there is one."""


async def follow(tally: Tally) -> None:
    """Show how the tally grows, on stderr, until cancelled.

    On a terminal the picture is wiped at the end, as the report says it all.
    """
    words = Words(stderr=True)
    if words.terminal:
        await _draw(tally, Console(stderr=True))
    else:
        await _say(tally, words)


async def _draw(tally: Tally, console: Console) -> None:
    """Redraw bars in place. No thread: this task does it."""
    global _drawn
    with Live(console=console, auto_refresh=False, transient=True) as _drawn:
        while True:
            _drawn.update(picture(tally, ascii_only=console.options.ascii_only), refresh=True)
            await trio.sleep(_REDRAW)


def wipe() -> None:
    """Wipe the picture at once, for who prints before the cancelled task can."""
    if _drawn is not None:
        _drawn.stop()


async def _say(tally: Tally, words: Words) -> None:
    """Print a line now and then, and whenever the phase changes."""
    phase = ""
    due = 0.0
    while True:
        if tally.phase != phase or trio.current_time() >= due:
            fresh = tally.phase != phase
            phase = tally.phase
            due = trio.current_time() + _SAY
            words.print(line(tally, counts=not fresh))
        await trio.sleep(_REDRAW)


def line(tally: Tally, *, counts: bool = True) -> str:
    """The tally in one line."""
    target = printable(tally.config.target)
    if tally.address not in (None, target):
        target = f"{tally.address} ({target.rpartition(':')[0]})"
    if tally.phase == "resolving":
        return f"resolving {target}"
    if tally.phase == "waiting":
        return f"waiting for a first answer from {target}"
    if tally.phase == "looking":
        return f"asking {target} some times more, for the cause"
    total = tally.connections
    if not total or not counts:
        return f"probing {target}"
    parts = [f"{shown_name(name)} {percent(count / total)}" for name, count in _counts(tally)]
    parts += [
        f"{outcome} {count}"
        for outcome, count in tally.counts.outcomes.items()
        if outcome is not Outcome.OK and count
    ]
    plural = "s" * ((tally.budget or total) != 1)
    spent = f"{total}{_of(tally)} connection{plural} to {target}{_since(tally)}"
    return f"{spent}: {', '.join(parts)}"


def _of(tally: Tally) -> str:
    """How many connections there may be."""
    return "" if tally.budget is None else f" of up to {tally.budget}"


def _since(tally: Tally) -> str:
    """How long it has taken so far."""
    if tally.started is None:
        return ""
    return f" in {duration(trio.current_time() - tally.started)}"


def picture(tally: Tally, *, ascii_only: bool) -> Table | Text:
    """The tally as bars: the share, its interval, and where it should be."""
    if not tally.connections:
        return Text(line(tally))
    expectation = tally.config.expectation
    table = Table.grid(padding=(0, 1))
    for name, count in _counts(tally):
        low, high = interval(expectation, tally.counts, name)
        share = count / tally.connections
        table.add_row(
            Text(shown_name(name)[:_NAME_CELLS], style="bold"),
            bar(share, low, high, expectation.shares.get(name), ascii_only=ascii_only),
            Text(percent(share), justify="right"),
            Text(f"{100 * low:.1f} to {100 * high:.1f} %", style="dim"),
        )
    solid, within, beyond, mark = _marks(ascii_only=ascii_only)
    legend = f"true share: {solid} at least, {within} observed, {beyond} at most"
    if expectation.shares:
        legend += f"; {mark} expected"
    table.caption = Text(f"{line(tally)}\n{legend}", style="dim")
    table.caption_justify = "left"
    return table


def _marks(*, ascii_only: bool) -> tuple[str, str, str, str]:
    """What bars are drawn with: surely within the share, observed, perhaps, expected."""
    return ("#", "+", "-", "|") if ascii_only else ("█", "▓", "░", "┃")


def bar(share: float, low: float, high: float, expected: float | None, *, ascii_only: bool) -> Text:
    """One bar: solid up to the interval, shaded within it, a mark at what is expected."""
    solid, within, beyond, mark = _marks(ascii_only=ascii_only)
    drawn = Text()
    for cell in range(_CELLS):
        start, end = cell / _CELLS, (cell + 1) / _CELLS
        if expected is not None and (start <= expected < end or (expected == end == 1)):
            drawn.append(mark, style="bold yellow")
        elif end <= low:
            drawn.append(solid, style="cyan")
        elif start < share:
            drawn.append(within, style="cyan")
        elif start < high:
            drawn.append(beyond, style="cyan")
        else:
            drawn.append(" ")
    return drawn


def _counts(tally: Tally) -> list[tuple[str, int]]:
    """Each backend's count; an expected one that never answered counts too."""
    answers = tally.counts.answers
    names = dict.fromkeys((*tally.config.expectation.shares, *answers))
    return [(name, answers[name]) for name in names]
