"""A watch as a picture of its time, and as a page for people. Pure.

The page holds no script, style, image or font from elsewhere. Its own script
asks for the live part again every other second; that part is made here, where
what backends call themselves is escaped.
"""

from __future__ import annotations

import textwrap
from base64 import b64encode
from bisect import bisect_left
from hashlib import sha256
from html import escape
from typing import TYPE_CHECKING

from trio_echo.monitor.record import WINDOW
from trio_echo.prober.counts import Outcome
from trio_echo.prober.picture import COLOURS, Canvas, steps
from trio_echo.prober.remarks import percent, shown_name, span
from trio_echo.prober.split import Verdict

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from trio_echo.monitor.record import Event, Moment, Record, Share

__all__ = ["PAGE_POLICY", "fragment", "page", "to_svg"]

_WIDTH = 860.0
_LEFT, _RIGHT = 70.0, 830.0
_HEIGHT = 220.0
_MOST = 8
"""Backends that are drawn; the table has them all."""

_SHOWN_EVENTS = 50

_APART = 44.0
"""Pixels between two marks of lost connections; nearer ones are counted together."""

_LONG = 600.0
"""Seconds from which the whole time is drawn below the last ten minutes."""

_STYLES = {Verdict.PASS: "pass", Verdict.FAIL: "fail"}


def to_svg(record: Record) -> str:
    """Draw the shares over time. Text in it is escaped, and it loads nothing from anywhere."""
    canvas = Canvas(_WIDTH, record.headline, str(record))
    verdict = record.verdict if record.expectation.shares else None
    style = "text" if verdict is None else _STYLES.get(verdict, "open")
    y = 38.0
    for line in textwrap.wrap(record.headline, 76):
        canvas.text(30, y, line, f"head {style}")
        y += 24
    for line in textwrap.wrap(str(record), 116):
        canvas.text(30, y, line, "muted")
        y += 18
    shares = record.shares[:_MOST]
    y = _legend(canvas, shares, y + 14)
    recent = list(record.recent)
    stretches = {"Since the start": recent}
    if record.elapsed > _LONG:
        whole = [*record.moments, *recent[-1:]]
        stretches = {"The last ten minutes": recent, "Since the start": whole}
    for title, moments in stretches.items():
        if moments:
            canvas.text(30, y + 28, title, "title text")
            panel = _Panel(canvas, moments, y + 40)
            panel.axes()
            panel.failures()
            panel.shares(shares)
            panel.events(record.events)
            y = panel.bottom + 15
    return canvas.finish(y + 24)


def _legend(canvas: Canvas, shares: Iterable[Share], y: float) -> float:
    """Which colour is which backend. Returns where it ends."""
    x = 30.0
    for number, share in enumerate(shares):
        words = f"{_short(share.name)} {percent(share.share)}"
        if share.expected is not None:
            words += f" (expected {percent(share.expected)})"
        if x > 30 and x + 8 * len(words) + 24 > _RIGHT:  # noqa: PLR2004 - the left edge
            x, y = 30.0, y + 20
        canvas.dot(x + 5, y - 4, 5, _colour(number))
        canvas.text(x + 16, y, words)
        x += 8 * len(words) + 36
    canvas.text(
        _RIGHT,
        y + 20,
        f"line: share of the last {WINDOW} connections · band: margin · red area: failed part · "
        "upright: change · tick: held connection lost",
        "small muted",
        "end",
    )
    return y + 20


class _Panel:
    """Shares over one stretch of time.

    Args:
        canvas: to draw on.
        moments: the stretch, one at least.
        top: where the panel begins.
    """

    def __init__(self, canvas: Canvas, moments: Sequence[Moment], top: float) -> None:
        self._canvas = canvas
        self._moments = moments
        self._top = top
        self.bottom = top + _HEIGHT
        self._first = moments[0].elapsed
        self._last = max(moments[-1].elapsed, self._first + 1)

    def _at(self, elapsed: float, share: float) -> tuple[float, float]:
        """Where a share at one time stands."""
        across = (elapsed - self._first) / (self._last - self._first)
        return _LEFT + across * (_RIGHT - _LEFT), self.bottom - share * _HEIGHT

    def axes(self) -> None:
        """Draw the grid, shares to the left and times of day below."""
        canvas = self._canvas
        for tick in steps(0, 1, 6):
            _, y = self._at(self._first, tick)
            canvas.line(_LEFT, y, _RIGHT, y, "hair s-grid")
            canvas.text(_LEFT - 8, y + 4, f"{100 * tick:.0f} %", "small muted", "end")
        ticks = [self._first + tick for tick in steps(0, self._last - self._first, 8)]
        times = [moment.elapsed for moment in self._moments]
        for tick in ticks:
            moment = self._moments[min(bisect_left(times, tick), len(times) - 1)]
            x, _ = self._at(tick, 0)
            canvas.text(x, self.bottom + 15, f"{moment.at:%H:%M:%S}", "small muted", "middle")

    def shares(self, shares: Sequence[Share]) -> None:
        """Draw each backend's margin as a band, what is expected, and its share."""
        canvas = self._canvas
        for number, share in enumerate(shares):
            if share.band is not None and share.expected is not None:
                low, high, y = (
                    self._at(self._first, edge)[1] for edge in (*share.band, share.expected)
                )
                canvas.rect(_LEFT, high, _RIGHT - _LEFT, low - high, f"{_colour(number)} faint")
                canvas.line(_LEFT, y, _RIGHT, y, "hair dash s-muted")
        for number, share in enumerate(shares):
            drawn = [
                self._at(moment.elapsed, moment.shares.get(share.name, 0.0))
                for moment in self._moments
                if moment.shares or moment.failed
            ]
            if drawn:
                canvas.path(drawn, f"line s-{_colour(number)}")

    def failures(self) -> None:
        """Fill the part of the connections that failed, from below."""
        if any(moment.failed for moment in self._moments):
            edge = [self._at(moment.elapsed, moment.failed) for moment in self._moments]
            corners = self._at(self._first, 0), self._at(self._last, 0)
            self._canvas.path([corners[0], *edge, corners[1]], "fail firm", closed=True)

    def events(self, events: Iterable[Event]) -> None:
        """Mark changes of the split with their times, and lost connections with their number."""
        lost: list[list[float]] = []
        for event in events:
            if not self._first <= event.elapsed <= self._last:
                continue
            x, _ = self._at(event.elapsed, 0)
            if event.kind == "change":
                self._canvas.line(x, self._top, x, self.bottom, "hair s-text")
                time = f"{event.at:%H:%M:%S}"
                self._canvas.text(x, self._top - 3, time, "small text", "middle")
            elif event.kind == "lost":
                if not lost or x - lost[-1][0] > _APART:
                    lost.append([])
                lost[-1].append(x)
                self._canvas.line(x, self.bottom - 14, x, self.bottom, "line s-fail")
        for near in lost:
            words = f"{len(near)} lost"
            self._canvas.text(near[0], self.bottom - 18, words, "small fail", "middle")


def fragment(record: Record) -> str:
    """The live part of the page, as HTML."""
    shares = "".join(map(_row, record.shares))
    events = "".join(map(_item, list(record.events)[: -_SHOWN_EVENTS - 1 : -1]))
    failures = ", ".join(
        f"{outcome} {count}"
        for outcome, count in record.counts.outcomes.items()
        if outcome is not Outcome.OK
    )
    lost = ", ".join(f"{outcome} {count}" for outcome, count in record.lost.items())
    facts = [
        ("connections", str(record.counts.total)),
        ("failed", failures or "none"),
        ("changes of the split", str(record.changes)),
        ("held connections", f"{record.held} open; lost: {lost or 'none'}"),
        ("since", f"{record.began:%Y-%m-%d %H:%M:%S} UTC"),
    ]
    said = "".join(f"<dt>{escape(name)}<dd>{escape(value)}" for name, value in facts)
    return (
        f"<h1>{escape(record.headline)}</h1><div class=wide>{to_svg(record)}</div><dl>{said}</dl>"
        "<div class=wide><table><thead><tr><th>backend<th>expected"
        f"<th>share of the last {record.window}<th>true share<th>answers</thead>"
        f"<tbody>{shares}</tbody></table></div>"
        f"<h2>Events</h2><ul>{events or '<li>none so far'}</ul>"
    )


def _row(share: Share) -> str:
    """A backend in the table."""
    expected = "" if share.expected is None else percent(share.expected)
    out = share.band is not None and not share.band.low <= share.share <= share.band.high
    return (
        f"<tr><td>{escape(shown_name(share.name))}<td>{expected}"
        f"<td{' class=out' if out else ''}>{percent(share.share)}"
        f"<td>{span(share.interval)}<td>{share.answers}"
    )


def _item(event: Event) -> str:
    """An event in the list."""
    return f"<li class={event.kind}><time>{event.at:%Y-%m-%d %H:%M:%S}</time> {escape(event.text)}"


_SCRIPT = """
const live = document.getElementById("live"), state = document.getElementById("state");
async function renew() {
  try {
    const answer = await fetch("live", {cache: "no-store"});
    if (!answer.ok) throw new Error(answer.status);
    live.innerHTML = await answer.text();
    document.title = live.querySelector("h1").textContent;
    state.textContent = "";
  } catch (error) {
    state.textContent = "The watch does not answer any more; this is what it showed last.";
  }
  setTimeout(renew, 2000);
}
setTimeout(renew, 2000);
"""

_STYLE = """
:root { color-scheme: light dark; }
body { font: 15px system-ui, -apple-system, "Segoe UI", Roboto, sans-serif; margin: 1.5rem auto;
  max-width: 60rem; padding: 0 1rem; background: #fff; color: #1f2328; }
h1 { position: absolute; clip-path: inset(50%); } h2 { font-size: 1.05rem; }
.wide { overflow-x: auto; } svg { max-width: 100%; height: auto; }
dl { display: grid; grid-template-columns: max-content 1fr; gap: .2rem 1rem; }
dt { color: #59636e; } dd { margin: 0; overflow-wrap: anywhere; }
table { border-collapse: collapse; }
th, td { text-align: right; padding: .25rem .75rem; white-space: nowrap; }
th:first-child, td:first-child { text-align: left; white-space: normal; min-width: 8em;
  overflow-wrap: anywhere; }
tbody tr { border-top: 1px solid #d8dee4; }
td.out { color: #cf222e; font-weight: 600; }
li { margin: .3rem 0; overflow-wrap: anywhere; } time { color: #59636e; }
li.change { font-weight: 600; } #state { color: #cf222e; }
@media (max-width: 40rem) {
  h1 { position: static; clip-path: none; font-size: 1.2rem; overflow-wrap: anywhere; }
  svg { max-width: none; width: 40rem; }
}
@media (prefers-color-scheme: dark) {
  body { background: #0d1117; color: #e6edf3; } dt, time { color: #9198a1; }
  tbody tr { border-color: #2b313a; } td.out, #state { color: #f85149; }
}
"""

PAGE_POLICY = (
    "default-src 'none'; connect-src 'self'; style-src 'unsafe-inline'; script-src "
    f"'sha256-{b64encode(sha256(_SCRIPT.encode()).digest()).decode()}'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
"""The Content-Security-Policy of the page: its own script, and nothing from elsewhere.
The picture brings its style inline."""


def page(record: Record) -> str:
    """The page, with the live part as it is now."""
    return (
        "<!doctype html><html lang=en><meta charset=utf-8>"
        '<meta name=viewport content="width=device-width">'
        f"<title>{escape(record.headline)}</title><style>{_STYLE}</style>"
        f"<main id=live>{fragment(record)}</main><p id=state></p><script>{_SCRIPT}</script>\n"
    )


def _colour(number: int) -> str:
    return f"c{min(number, COLOURS)}"


def _short(name: str) -> str:
    """A name that fits into the legend."""
    name = shown_name(name)
    return name if len(name) <= 24 else f"{name[:23]}…"  # noqa: PLR2004 - as said
