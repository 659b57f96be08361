"""The report as one self-contained SVG, worth putting in a ticket. Pure.

Three panels: the shares with their intervals inside or outside the margin;
the running share with its narrowing interval, which shows how the verdict came
about; and the latency of each backend. Made by hand: a plotting library would
be a dependency many times the size of this project for three panels. Other
pictures are drawn on the same `Canvas`.
"""

from __future__ import annotations

import textwrap
from collections import Counter
from math import ceil, floor, log10
from typing import TYPE_CHECKING
from xml.etree import ElementTree as ET

from trio_echo.prober import remarks, words
from trio_echo.prober.counts import Counts, Outcome
from trio_echo.prober.latency import BUCKET_RATIO, SHORTEST
from trio_echo.prober.split import Verdict, interval
from trio_echo.text import visible, xml_text

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from trio_echo.prober.latency import Histogram
    from trio_echo.prober.order import Point
    from trio_echo.prober.words import Backend, Report

__all__ = ["COLOURS", "Canvas", "decades", "steps", "to_svg"]

_WIDTH = 860.0
_LEFT, _RIGHT = 30.0, 830.0
_PLOT_LEFT, _PLOT_RIGHT = 150.0, 600.0
_NAME = 16
"""Characters of a name that fit beside a plot."""

_MOST = 8
"""Backends that are drawn; the report in words has them all."""

_BINS = 90
"""Steps of a latency curve."""

_VERDICTS = {Verdict.PASS: "pass", Verdict.FAIL: "fail", None: "text"}


def to_svg(report: Report) -> str:
    """Draw the report. Text in it is escaped, and it loads nothing from anywhere."""
    canvas = Canvas(_WIDTH, words.headline(report), str(report))
    y = _draw_words(canvas, report, 38)
    backends = report.backends[:_MOST]
    if report.counts.answers:
        y = _draw_shares(canvas, backends, y + 18)
        y = _draw_running(canvas, report, backends, y + 40)
        y = _draw_latency(canvas, backends, y + 46)
    return canvas.finish(y + 20)


def _draw_words(canvas: Canvas, report: Report, y: float) -> float:
    """The verdict, what it rests on, and why. Returns where it ends."""
    style = "text" if report.interrupted else _VERDICTS.get(report.verdict, "open")
    for line in textwrap.wrap(words.headline(report), 76):
        canvas.text(_LEFT, y, line, f"head {style}")
        y += 24
    for line in textwrap.wrap(words.basis(report), 108):
        canvas.text(_LEFT, y, line, "muted")
        y += 19
    said = [each.text for each in (*remarks.reasons(report), *remarks.findings(report))]
    for remark in (*said, *map(visible, report.notices)):
        for line in textwrap.wrap(f"· {remark}", 108, subsequent_indent="   "):
            canvas.text(_LEFT, y, line)
            y += 18
    return y


def _draw_shares(canvas: Canvas, backends: list[Backend], y: float) -> float:
    """One row a backend: the band of the margin, expectation, interval, share."""
    canvas.text(_LEFT, y, "Share of connections", "title text")
    canvas.text(
        _RIGHT,
        y,
        "band: margin · mark: expected · bar: true share · dot: observed",
        "small muted",
        "end",
    )
    y += 12
    bottom = y + 34 * len(backends)

    def at(share: float) -> float:
        return _PLOT_LEFT + share * (_PLOT_RIGHT - _PLOT_LEFT)

    for tick in steps(0, 1, 6):
        canvas.line(at(tick), y, at(tick), bottom, "hair s-grid")
        canvas.text(at(tick), bottom + 15, f"{100 * tick:.0f} %", "small muted", "middle")
    for number, backend in enumerate(backends):
        middle = y + 34 * number + 17
        colour = _colour(number)
        canvas.text(_PLOT_LEFT - 12, middle + 4, _short(backend.name), "text", "end")
        if backend.band is not None and backend.expected is not None:
            low, high = map(at, backend.band)
            canvas.rect(low, middle - 13, high - low, 26, "band soft")
            canvas.line(
                at(backend.expected), middle - 13, at(backend.expected), middle + 13, "line s-muted"
            )
        low, high = map(at, backend.interval)
        canvas.line(low, middle, high, middle, f"thick s-{colour}")
        canvas.dot(at(backend.share), middle, 5, colour)
        figures = f"{remarks.percent(backend.share)}, true {remarks.span(backend.interval)}"
        canvas.text(_PLOT_RIGHT + 16, middle + 4, figures)
    return bottom + 15


def _draw_running(canvas: Canvas, report: Report, backends: list[Backend], y: float) -> float:
    """Shares over connections, each with its interval as a ribbon."""
    canvas.text(_LEFT, y, "Share as connections came in", "title text")
    top, bottom, left = y + 14, y + 214, _LEFT + 40
    last = report.points[-1].total

    def at(total: float, share: float) -> tuple[float, float]:
        return left + total / last * (_RIGHT - left), bottom - share * (bottom - top)

    for tick in steps(0, 1, 6):
        _, line = at(0, tick)
        canvas.line(left, line, _RIGHT, line, "hair s-grid")
        canvas.text(left - 8, line + 4, f"{100 * tick:.0f} %", "small muted", "end")
    for tick in steps(0, last, 8):
        x, _ = at(tick, 0)
        canvas.text(x, bottom + 15, f"{tick:.0f}", "small muted", "middle")
    for number, backend in enumerate(backends):
        colour = _colour(number)
        low, high, share = [], [], []
        for point in report.points:
            counts = _counts_at(point)
            ends = interval(report.expectation, counts, backend.name)
            low.append(at(point.total, ends.low))
            high.append(at(point.total, ends.high))
            share.append(at(point.total, counts.answers[backend.name] / point.total))
        canvas.path([*high, *reversed(low)], f"{colour} faint", closed=True)
        canvas.path(share, f"line s-{colour}")
        if backend.expected is not None:
            _, line = at(0, backend.expected)
            canvas.line(left, line, _RIGHT, line, "hair dash s-muted")
    return bottom + 15


def _counts_at(point: Point) -> Counts:
    """What had been counted by then, as far as intervals ask."""
    outcomes = Counter({Outcome.OK: point.answered, Outcome.RESET: point.errors})
    return Counts(answers=Counter(point.counts), outcomes=outcomes)


def _draw_latency(canvas: Canvas, backends: list[Backend], y: float) -> float:
    """Two curves a backend on one logarithmic axis: connect as a line, answer filled."""
    measured = [
        histogram
        for backend in backends
        for histogram in (backend.connect, backend.answer)
        if histogram.count
    ]
    canvas.text(_LEFT, y, "Latency", "title text")
    canvas.text(
        _RIGHT,
        y,
        "line: until connected · filled: from the line sent to its answer",
        "small muted",
        "end",
    )
    y += 8
    ticks = decades(
        min(SHORTEST * BUCKET_RATIO ** min(histogram.buckets) for histogram in measured),
        max(SHORTEST * BUCKET_RATIO ** (max(histogram.buckets) + 1) for histogram in measured),
    )
    low, high = log10(ticks[0]), log10(ticks[-1])
    bottom = y + 54 * len(backends)

    def at(seconds: float) -> float:
        return _PLOT_LEFT + (log10(seconds) - low) / (high - low) * (_PLOT_RIGHT - _PLOT_LEFT)

    for tick in ticks:
        canvas.line(at(tick), y, at(tick), bottom, "hair s-grid")
        canvas.text(at(tick), bottom + 15, remarks.duration(tick), "small muted", "middle")
    for number, backend in enumerate(backends):
        base = y + 54 * (number + 1)
        colour = _colour(number)
        canvas.text(_PLOT_LEFT - 12, base - 16, _short(backend.name), "text", "end")
        canvas.line(_PLOT_LEFT, base, _PLOT_RIGHT, base, "hair s-grid")
        for what, histogram, line, style in (
            ("connect", backend.connect, 28, f"line s-{colour}"),
            ("answer", backend.answer, 10, f"{colour} firm"),
        ):
            if not histogram.count:
                continue
            curve = [(at(10**x), base - 42 * height) for x, height in _curve(histogram, low, high)]
            canvas.path(curve, style, closed=what == "answer")
            percentiles = histogram.percentiles()
            figures = ", ".join(
                f"p{depth:g} {remarks.duration(seconds)}"
                for depth, seconds in (percentiles[0], *percentiles[1:][-1:])
            )
            canvas.text(_PLOT_RIGHT + 16, base - line, f"{what} {figures}", "small text")
    return bottom + 15


def _curve(histogram: Histogram, low: float, high: float) -> list[tuple[float, float]]:
    """Where the durations lie: (log10 of seconds, height from 0 to 1), from end to end."""
    heights = [0] * _BINS
    for bucket, count in histogram.buckets.items():
        middle = log10(SHORTEST) + (bucket + 0.5) * log10(BUCKET_RATIO)
        heights[min(_BINS - 1, int((middle - low) / (high - low) * _BINS))] += count
    highest = max(heights)
    step = (high - low) / _BINS
    inside = [
        (low + (number + 0.5) * step, height / highest) for number, height in enumerate(heights)
    ]
    return [(low, 0.0), *inside, (high, 0.0)]


def _colour(number: int) -> str:
    return f"c{min(number, COLOURS)}"


def _short(name: str) -> str:
    """A name that fits beside a plot."""
    name = remarks.shown_name(name)
    return name if len(name) <= _NAME else name[: _NAME - 1] + "…"


COLOURS = 6
"""Backends that have a colour of their own; more look grey."""

# Light, then dark. Hues far apart also for the colour-blind (after Okabe and
# Ito), moved in lightness until each stands out on its ground.
_INK = {
    "ground": ("#ffffff", "#0d1117"),
    "text": ("#1f2328", "#e6edf3"),
    "muted": ("#59636e", "#9198a1"),
    "grid": ("#d8dee4", "#2b313a"),
    "band": ("#8c959f", "#8b949e"),
    "pass": ("#1a7f37", "#3fb950"),
    "fail": ("#cf222e", "#f85149"),
    "open": ("#9a6700", "#d29922"),
    "c0": ("#0969da", "#58a6ff"),
    "c1": ("#d9730d", "#ffa657"),
    "c2": ("#1b8a6b", "#56d4b0"),
    "c3": ("#8250df", "#bc8cff"),
    "c4": ("#bf3989", "#ff7bc0"),
    "c5": ("#7d6a00", "#e3c341"),
    "c6": ("#6e7781", "#8b949e"),
}


def _style() -> str:
    """The style sheet: light, and dark where the reader prefers it.

    Plain classes with their values, no CSS variables, which several renderers
    (librsvg among them) do not know.
    """
    rules = []
    for shade in (0, 1):
        block = "".join(
            f".{name}{{fill:{values[shade]}}}.s-{name}{{stroke:{values[shade]}}}"
            for name, values in _INK.items()
        )
        rules.append(f"@media (prefers-color-scheme:dark){{{block}}}" if shade else block)
    return (
        "text{font:13px system-ui,-apple-system,'Segoe UI',Roboto,'DejaVu Sans',sans-serif}"
        ".head{font-size:18px;font-weight:600}.title{font-weight:600}.small{font-size:11px}"
        ".line{fill:none;stroke-width:2;stroke-linejoin:round}.hair{fill:none;stroke-width:1}"
        ".dash{stroke-dasharray:4 3}.soft{fill-opacity:.18}.faint{fill-opacity:.14}"
        ".firm{fill-opacity:.55}.thick{stroke-width:6;stroke-opacity:.45}" + "".join(rules)
    )


class Canvas:
    """An SVG in the making. Lengths are in pixels, from the upper left corner.

    Args:
        width: of the picture.
        title: what it shows, for those who cannot see it.
        description: the same at length.
    """

    def __init__(self, width: float, title: str, description: str) -> None:
        self.width = width
        self._root = ET.Element("svg", xmlns="http://www.w3.org/2000/svg", role="img")
        ET.SubElement(self._root, "title").text = xml_text(title)
        ET.SubElement(self._root, "desc").text = xml_text(description)
        ET.SubElement(self._root, "style").text = _style()
        self._ground = ET.SubElement(self._root, "rect", {"class": "ground"})

    def text(
        self, x: float, y: float, words: str, style: str = "text", anchor: str = "start"
    ) -> None:
        """Write words, their baseline at `y`."""
        self._add("text", {"x": x, "y": y, "class": style, "text-anchor": anchor}).text = xml_text(
            words
        )

    def rect(self, x: float, y: float, width: float, height: float, style: str) -> None:
        """Fill a rectangle."""
        self._add("rect", {"x": x, "y": y, "width": width, "height": height, "class": style})

    def line(self, x1: float, y1: float, x2: float, y2: float, style: str) -> None:
        """Draw a straight line."""
        self._add("line", {"x1": x1, "y1": y1, "x2": x2, "y2": y2, "class": style})

    def dot(self, x: float, y: float, radius: float, style: str) -> None:
        """Fill a circle."""
        self._add("circle", {"cx": x, "cy": y, "r": radius, "class": style})

    def path(
        self, points: Iterable[tuple[float, float]], style: str, *, closed: bool = False
    ) -> None:
        """Draw through points in order; filled if `closed`."""
        steps = " L".join(f"{x:.1f} {y:.1f}" for x, y in points)
        self._add("path", {"d": f"M{steps}" + ("Z" if closed else ""), "class": style})

    def finish(self, height: float) -> str:
        """The picture as a text, cut to `height`."""
        for element in (self._root, self._ground):
            element.set("width", f"{self.width:g}")
            element.set("height", f"{height:g}")
        self._root.set("viewBox", f"0 0 {self.width:g} {height:g}")
        return ET.tostring(self._root, encoding="unicode") + "\n"

    def _add(self, tag: str, attributes: dict[str, float | str]) -> ET.Element:
        """One more shape, on top of those before."""
        shown = {
            name: value if isinstance(value, str) else f"{value:.1f}"
            for name, value in attributes.items()
        }
        return ET.SubElement(self._root, tag, shown)


def steps(low: float, high: float, most: int) -> Sequence[float]:
    """Round values from `low` to `high`, at most `most` of them, for the ticks of an axis."""
    size = 10.0 ** floor(log10((high - low) / most))
    fitting = (
        size * factor for factor in (1, 2, 5, 10, 20) if (high - low) / (size * factor) < most
    )
    step = next(fitting)
    return [
        number * step for number in range(ceil(low / step - 1e-9), floor(high / step + 1e-9) + 1)
    ]


def decades(low: float, high: float) -> Sequence[float]:
    """Powers of ten around a range of positive values, for a logarithmic axis."""
    return [10.0**power for power in range(floor(log10(low)), ceil(log10(high)) + 1)]
