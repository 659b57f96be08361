"""The report as one self-contained SVG, worth putting in a ticket.

Three panels: the shares with their intervals inside or outside the tolerance;
the running share with its narrowing interval, which shows how the verdict came
about; and the latency of each backend. Made by hand: a plotting library would
be a dependency many times the size of this project for three panels.
"""

from __future__ import annotations

import textwrap
from math import log10
from typing import TYPE_CHECKING

from trio_echo.prober import words
from trio_echo.prober.latency import BUCKET_RATIO, SHORTEST
from trio_echo.prober.split import Split, Verdict
from trio_echo.prober.svg import COLOURS, Canvas, decades, steps
from trio_echo.text import printable

if TYPE_CHECKING:
    from trio_echo.prober.latency import Histogram
    from trio_echo.prober.report import Backend, Report

__all__ = ["to_svg"]

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
    if report.counts.total():
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
    remarks = [remark.text for remark in (*words.reasons(report), *words.findings(report))]
    for remark in (*remarks, *report.notices):
        for line in textwrap.wrap(f"· {remark}", 108, subsequent_indent="   "):
            canvas.text(_LEFT, y, line)
            y += 18
    return y


def _draw_shares(canvas: Canvas, backends: list[Backend], y: float) -> float:
    """One row a backend: tolerance band, expectation, interval, share."""
    canvas.text(_LEFT, y, "Share of connections", "title text")
    canvas.text(
        _RIGHT,
        y,
        "band: tolerance · mark: expected · bar: true share · dot: observed",
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
        if backend.tolerance is not None and backend.expected is not None:
            low, high = map(at, backend.tolerance)
            canvas.rect(low, middle - 13, high - low, 26, "band soft")
            canvas.line(
                at(backend.expected), middle - 13, at(backend.expected), middle + 13, "line s-muted"
            )
        low, high = map(at, backend.interval)
        canvas.line(low, middle, high, middle, f"thick s-{colour}")
        canvas.dot(at(backend.share), middle, 5, colour)
        figures = f"{words.percent(backend.share)}, true {words.span(backend.interval)}"
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
        split = Split(report.expect, margin=report.split.margin, alpha=report.split.alpha)
        low, high, share = [], [], []
        for point in report.points:
            split.counts.clear()
            split.counts.update(point.counts)
            split.errors = point.errors
            interval = split.interval(backend.name)
            low.append(at(point.total, interval.low))
            high.append(at(point.total, interval.high))
            share.append(at(point.total, split.counts[backend.name] / point.total))
        canvas.path([*high, *reversed(low)], f"{colour} faint", closed=True)
        canvas.path(share, f"line s-{colour}")
        if backend.expected is not None:
            _, line = at(0, backend.expected)
            canvas.line(left, line, _RIGHT, line, "hair dash s-muted")
    return bottom + 15


def _draw_latency(canvas: Canvas, backends: list[Backend], y: float) -> float:
    """Two curves a backend on one logarithmic axis: connect as a line, answer filled."""
    measured = [
        histogram
        for backend in backends
        for histogram in (backend.timings.connect, backend.timings.answer)
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
        canvas.text(at(tick), bottom + 15, words.duration(tick), "small muted", "middle")
    for number, backend in enumerate(backends):
        base = y + 54 * (number + 1)
        colour = _colour(number)
        canvas.text(_PLOT_LEFT - 12, base - 16, _short(backend.name), "text", "end")
        canvas.line(_PLOT_LEFT, base, _PLOT_RIGHT, base, "hair s-grid")
        for what, histogram, line, style in (
            ("connect", backend.timings.connect, 28, f"line s-{colour}"),
            ("answer", backend.timings.answer, 10, f"{colour} firm"),
        ):
            if not histogram.count:
                continue
            curve = [(at(10**x), base - 42 * height) for x, height in _curve(histogram, low, high)]
            canvas.path(curve, style, closed=what == "answer")
            percentiles = histogram.percentiles()
            figures = ", ".join(
                f"p{depth:g} {words.duration(seconds)}"
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
    name = printable(name) or "(no name)"
    return name if len(name) <= _NAME else name[: _NAME - 1] + "…"
