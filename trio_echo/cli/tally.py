"""The live tally on stderr: bars on a terminal, plain lines elsewhere."""

from __future__ import annotations

from ipaddress import ip_address
from typing import TYPE_CHECKING

import trio
from rich.console import Console, Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from trio_echo.cli.output import Words
from trio_echo.prober.counts import Outcome
from trio_echo.prober.remarks import connections, duration, percent, shown_name, span
from trio_echo.prober.split import Interval, interval
from trio_echo.text import printable

if TYPE_CHECKING:
    from rich.console import RenderableType

    from trio_echo.prober.schedule import Tally

__all__ = ["follow", "wipe"]

_REDRAW = 0.1
"""Seconds between two pictures on a terminal."""

_SAY = 2.0
"""Seconds between two lines in a log."""

_CELLS = 50
"""Characters that stand for 100 %, at most."""

_NAME_CELLS = 24

_FIGURE_CELLS = len("  100.0 %  0.0 to 100.0 %")
"""Characters of a line beside its name and its bar."""

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
            options = console.options
            shown = picture(tally, width=options.max_width, ascii_only=options.ascii_only)
            _drawn.update(shown, refresh=True)
            await trio.sleep(_REDRAW)


def wipe() -> None:
    """Wipe the picture at once, for who prints before the cancelled task can."""
    if _drawn is not None:
        _drawn.stop()


async def _say(tally: Tally, words: Words) -> None:
    """Print a line now and then, and whenever the phase changes."""
    # A numeric address is not worth a line while it is "resolved".
    phase = "resolving" if _is_numeric(tally.config.host) else ""
    due = trio.current_time() + _SAY
    while True:
        if tally.phase != phase or trio.current_time() >= due:
            fresh = tally.phase != phase
            phase = tally.phase
            due = trio.current_time() + _SAY
            words.print(line(tally, counts=not fresh))
        await trio.sleep(_REDRAW)


def _is_numeric(host: str) -> bool:
    """Whether a host is an address, which nobody has to look up."""
    try:
        ip_address(host.partition("%")[0])
    except ValueError:
        return False
    return True


def line(tally: Tally, *, counts: bool = True) -> str:
    """The tally in one line."""
    total = tally.connections
    if tally.phase in _DOING or not total or not counts:
        return f"{_DOING.get(tally.phase, 'probing')} {_where(tally)}"
    parts = [f"{shown_name(name)} {percent(count / total)}" for name, count in _counts(tally)]
    plural = "s" * ((tally.budget or total) != 1)
    spent = f"{total}{_of(tally)} connection{plural} to {_where(tally)}{_since(tally)}"
    return f"{spent}: {', '.join([*parts, *_failed(tally)])}"


_DOING = {
    "resolving": "resolving",
    "waiting": "waiting for a first answer from",
    "looking": "looking for the cause with some more connections to",
}
"""What it does in the phases that count nothing."""


def _where(tally: Tally) -> str:
    """The address, and the host that it was found by."""
    target = printable(tally.config.target)
    if tally.address in (None, target):
        return target
    return f"{tally.address} ({target.rpartition(':')[0]})"


def _of(tally: Tally) -> str:
    """How many connections there may be."""
    return "" if tally.budget is None else f" of up to {tally.budget}"


def _since(tally: Tally) -> str:
    """How long it has taken so far."""
    if tally.started is None:
        return ""
    return f" in {duration(trio.current_time() - tally.started)}"


def _failed(tally: Tally) -> list[str]:
    """How many connections failed, in each way."""
    outcomes = tally.counts.outcomes.items()
    return [
        f"{outcome} {count}" for outcome, count in outcomes if outcome is not Outcome.OK and count
    ]


def picture(tally: Tally, *, width: int, ascii_only: bool) -> RenderableType:
    """The tally as bars, in so many columns: shares, their intervals, and what is expected.

    Below them stand how far it is, what is probed, and what the bars mean.
    """
    if not tally.connections:
        return _one_line(line(tally))
    expectation = tally.config.expectation
    names = {name: shown_name(name)[:_NAME_CELLS] for name, _ in _counts(tally)}
    cells = width - max(map(len, names.values())) - _FIGURE_CELLS
    table = Table.grid(padding=(0, 1))
    for name, count in _counts(tally):
        low, high = interval(expectation, tally.counts, name)
        expected = expectation.shares.get(name)
        share = count / tally.connections
        table.add_row(
            Text(names[name], style="bold"),
            bar(share, low, high, expected, cells=min(_CELLS, cells), ascii_only=ascii_only),
            Text(f"{percent(share):>7}"),
            Text(span(Interval(low, high)), style="dim"),
        )
    solid, within, beyond, mark = _marks(ascii_only=ascii_only)
    legend = f"true share: {solid} at least, {within} observed, {beyond} at most"
    if expectation.shares:
        legend += f"; {mark} expected"
    below = [_far(tally), line(tally, counts=False), legend]
    return Group(table, *(_one_line(text, style="dim") for text in below))


def _far(tally: Tally) -> str:
    """How many connections were counted, of how many, how many failed, and for how long."""
    total, budget = tally.connections, tally.budget
    far = f"{connections(total)}"
    if budget is not None:
        far = f"{total} of at most {connections(budget)}, {100 * total / budget:.0f} %"
    whole = tally.config.duration
    far += f"{_since(tally)}{'' if whole is None else f' of {duration(whole)}'}"
    return ", ".join([far, *_failed(tally)])


def _one_line(text: str, style: str = "") -> Text:
    """Text that is cut rather than wrapped."""
    return Text(text, style=style, no_wrap=True, overflow="ellipsis")


def _marks(*, ascii_only: bool) -> tuple[str, str, str, str]:
    """What bars are drawn with: surely within the share, observed, perhaps, expected."""
    return ("#", "+", "-", "|") if ascii_only else ("█", "▓", "░", "┃")


def bar(
    share: float,
    low: float,
    high: float,
    expected: float | None,
    *,
    cells: int = _CELLS,
    ascii_only: bool,
) -> Text:
    """One bar: solid up to the interval, shaded within it, a mark at what is expected."""
    solid, within, beyond, mark = _marks(ascii_only=ascii_only)
    drawn = Text(no_wrap=True)
    for cell in range(cells):
        start, end = cell / cells, (cell + 1) / cells
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
