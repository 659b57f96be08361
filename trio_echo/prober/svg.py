"""Drawing: the few shapes, scales and colours that the report's picture is made of."""

from __future__ import annotations

from math import ceil, floor, log10
from typing import TYPE_CHECKING
from xml.etree import ElementTree as ET

from trio_echo.text import xml_text

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

__all__ = ["COLOURS", "Canvas", "decades", "steps"]

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
