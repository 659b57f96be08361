"""A walk as one self-contained SVG: the shares over time, step by step."""

from __future__ import annotations

from typing import TYPE_CHECKING

from trio_echo.prober.svg import COLOURS, Canvas, steps
from trio_echo.prober.words import percent

if TYPE_CHECKING:
    from collections.abc import Iterator

    from trio_echo.rehearsal.shift import Sample, Step, Walk

__all__ = ["walk_to_svg"]

_WIDTH = 860.0
_LEFT, _RIGHT = 70.0, 830.0
_TOP, _HEIGHT = 100.0, 260.0
_WINDOW = 40
"""Connections behind each point of a line: fewer would be noise, more would hide
how fast the traffic moves."""

_COLUMNS = 6
"""Steps side by side in the table."""

_ROWS = 6
"""Backends in the table; the report in words has them all."""

_STYLES = {"PASS": "pass", "FAIL": "fail"}


def walk_to_svg(walk: Walk) -> str:
    """Draw the walk. Text in it is escaped, and it loads nothing from anywhere."""
    verdicts = [str(step.report.verdict or "no verdict") for step in walk.steps]
    title = f"Traffic shifted in {len(walk.steps)} steps: {', '.join(verdicts)}"
    canvas = Canvas(_WIDTH, title, str(walk))
    style = "pass" if set(verdicts) == {"PASS"} and not walk.lost else "fail"
    canvas.text(30, 38, title, f"head {style}")
    canvas.text(30, 62, str(walk), "muted")
    names = list(dict.fromkeys(name for step in walk.steps for name in step.weights))
    end = _Plot(canvas, walk, names).draw()
    return canvas.finish(end + 22)


class _Plot:
    """The shares over time."""

    def __init__(self, canvas: Canvas, walk: Walk, names: list[str]) -> None:
        self._canvas = canvas
        self._walk = walk
        self._names = names
        self._last = max(step.ended for step in walk.steps)

    def draw(self) -> float:
        """Draw scales, steps, lines, table and legend. Returns where that ends."""
        canvas = self._canvas
        for tick in steps(0, 1, 6):
            y = self._y(tick)
            canvas.line(_LEFT, y, _RIGHT, y, "hair s-grid")
            canvas.text(_LEFT - 8, y + 4, f"{100 * tick:.0f} %", "small muted", "end")
        bottom = _TOP + _HEIGHT
        for tick in steps(0, self._last, 10):
            canvas.text(self._x(tick), bottom + 16, f"{tick:g} s", "small muted", "middle")
        for number, step in enumerate(self._walk.steps, start=1):
            self._draw_step(number, step)
        for number, name in enumerate(self._names):
            points = [(self._x(time), self._y(share)) for time, share in self._shares(name)]
            if points:
                canvas.path(points, f"line s-{_colour(number)}")
        end = self._draw_table(bottom + 44)
        self._draw_legend(end + 12)
        return end + 12

    def _draw_step(self, number: int, step: Step) -> None:
        """What was expected while a step lasted."""
        canvas = self._canvas
        left, right = self._x(step.began), self._x(step.ended)
        canvas.line(left, _TOP - 8, left, _TOP + _HEIGHT, "hair dash s-muted")
        canvas.text(left + 4, _TOP - 4, str(number), "small muted")
        for place, name in enumerate(self._names):
            low, high = step.report.split.tolerance(name)
            colour = _colour(place)
            height = self._y(low) - self._y(high)
            canvas.rect(left, self._y(high), right - left, height, f"{colour} faint")
            expected = self._y(step.report.split.shares[name])
            canvas.line(left, expected, right, expected, f"hair dash s-{colour}")

    def _draw_table(self, y: float) -> float:
        """Each step's verdict and shares, in columns. Returns where that ends."""
        canvas = self._canvas
        width = (_RIGHT - _LEFT) / min(len(self._walk.steps), _COLUMNS)
        height = 24 + 15 * min(len(self._names), _ROWS)
        for number, step in enumerate(self._walk.steps):
            row, column = divmod(number, _COLUMNS)
            x, top = _LEFT + column * width, y + row * height
            verdict = str(step.report.verdict or "no verdict")
            words = f"{number + 1}: {verdict} after {step.report.connections}"
            canvas.text(x, top, words, f"small {_STYLES.get(verdict, 'open')}")
            for line, backend in enumerate(step.report.backends[:_ROWS]):
                colour = (
                    _colour(self._names.index(backend.name))
                    if backend.name in self._names
                    else "muted"
                )
                words = f"{backend.name[:12]} {percent(backend.share)}"
                canvas.text(x, top + 15 * (line + 1), words, f"small {colour}")
        rows = -(-len(self._walk.steps) // _COLUMNS)
        return y + rows * height

    def _draw_legend(self, y: float) -> None:
        """Which line is whose."""
        x = _LEFT
        for number, name in enumerate(self._names[:COLOURS]):
            self._canvas.line(x, y - 4, x + 18, y - 4, f"line s-{_colour(number)}")
            self._canvas.text(x + 24, y, name[:16])
            x += 24 + 8 * len(name[:16]) + 28
        note = f"line: share of {_WINDOW} connections at a time · band: tolerance"
        self._canvas.text(_RIGHT, y, note, "small muted", "end")

    def _shares(self, name: str) -> Iterator[tuple[float, float]]:
        """The share of a backend at moments, each over a window of connections."""
        samples = self._walk.samples
        first = 0
        for sample in samples:
            while first + 1 < len(samples) and _answered(samples[first + 1], sample) >= _WINDOW:
                first += 1
            answered = _answered(samples[first], sample)
            if answered >= _WINDOW:
                earlier = samples[first].counts.get(name, 0)
                yield sample.time, (sample.counts.get(name, 0) - earlier) / answered

    def _x(self, time: float) -> float:
        """Where a moment is."""
        return _LEFT + min(time, self._last) / self._last * (_RIGHT - _LEFT)

    def _y(self, share: float) -> float:
        """Where a share is."""
        return _TOP + (1 - share) * _HEIGHT


def _answered(earlier: Sample, later: Sample) -> int:
    """Connections that were answered between two moments."""
    return sum(later.counts.values()) - sum(earlier.counts.values())


def _colour(number: int) -> str:
    """The colour of a backend."""
    return f"c{min(number, COLOURS)}"
