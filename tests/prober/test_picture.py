"""The picture: one self-contained SVG, whatever was measured and by whatever names."""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING
from xml.etree import ElementTree as ET

import pytest
from hypothesis import given
from hypothesis import strategies as st
from profiles import examples
from reports import drawn, made, ok

from trio_echo.prober.counts import Outcome, Result
from trio_echo.prober.picture import steps, to_svg

if TYPE_CHECKING:
    from trio_echo.prober.words import Report

EIGHTY_TWENTY = {"one": 80.0, "two": 20.0}
PLACES = {"cx", "cy", "d", "height", "points", "r", "width", "x", "x1", "x2", "y", "y1", "y2"}
SVG = "{http://www.w3.org/2000/svg}"


def drawn_picture(report: Report) -> ET.Element:
    """The picture, parsed; every shape lies within it and no figure is broken."""
    text = to_svg(report)
    root = ET.fromstring(text)  # noqa: S314 - written by the code under test
    assert root.tag == f"{SVG}svg"
    figures = [value for shape in root.iter() for name, value in shape.items() if name in PLACES]
    assert not [value for value in figures if "nan" in value or "inf" in value]
    height = float(root.get("height", ""))
    for line in root.iter(f"{SVG}line"):
        assert 0 <= float(line.get("y1", "")) <= height
        assert 0 <= float(line.get("x2", "")) <= 860
    return root


@pytest.mark.parametrize(
    ("report", "style"),
    [
        (made(drawn(EIGHTY_TWENTY, 3000, 1), expect=EIGHTY_TWENTY), "pass"),
        (made(["two"] * 60, expect=EIGHTY_TWENTY), "fail"),
        (made(["one"] * 5, expect=EIGHTY_TWENTY), "open"),
        (made([Result(Outcome.REFUSED)], expect=EIGHTY_TWENTY), "open"),
        (made([Result(Outcome.RESET), *["one"] * 20]), "text"),
        (made([ok("one")]), "text"),
    ],
    ids=["pass", "fail", "inconclusive", "unmeasured", "errors", "single"],
)
def test_every_verdict_is_drawn_in_its_colour(report: Report, style: str) -> None:
    """The headline stands on top, and says it in colour and in words."""
    root = drawn_picture(report)
    headline = next(root.iter(f"{SVG}text"))
    assert headline.get("class") == f"head {style}"
    assert (headline.text or "").startswith(str(report)[:20])
    assert (root.findtext(f"{SVG}desc") or "").strip() == str(report).strip()


def test_shares_lie_where_the_figures_say() -> None:
    """The dots are at the shares, within the bars of their intervals."""
    report = made(drawn(EIGHTY_TWENTY, 3000, 1), expect=EIGHTY_TWENTY)
    root = drawn_picture(report)
    dots = [float(dot.get("cx", "")) for dot in root.iter(f"{SVG}circle")]
    expected = [150 + backend.share * 450 for backend in report.backends]
    assert dots == pytest.approx(expected, abs=0.1)
    bars = [line for line in root.iter(f"{SVG}line") if "thick" in (line.get("class") or "")]
    for dot, bar in zip(dots, bars, strict=True):
        assert float(bar.get("x1", "")) <= dot <= float(bar.get("x2", ""))


def test_nothing_is_loaded_from_anywhere() -> None:
    """No script, no link, no image, no foreign font: safe in a ticket."""
    root = drawn_picture(made(["one"] * 60, expect=EIGHTY_TWENTY))
    tags = {element.tag.removeprefix(SVG) for element in root.iter()}
    assert tags <= {"svg", "title", "desc", "style", "rect", "text", "line", "circle", "path"}
    style = root.findtext(f"{SVG}style") or ""
    assert "url(" not in style
    assert "@import" not in style
    assert "prefers-color-scheme:dark" in style


def test_size_is_bounded() -> None:
    """Thousands of connections and a crowd of backends stay one small picture."""
    names = [f"the backend number {number % 40}" for number in range(5_000)]
    text = to_svg(made(names, connections=10_000))
    assert len(text) < 200_000
    assert "the backend num…" in text


@examples(0.3)
@given(names=st.lists(st.text(max_size=30), min_size=1, max_size=12), expected=st.text(max_size=3))
def test_any_name_is_drawn(names: list[str], expected: str) -> None:
    """Whatever the peer calls itself, the picture stays well-formed."""
    drawn_picture(made(names, expect={expected: 1}, target="x:1"))


@given(low=st.floats(0, 10), span=st.floats(1e-3, 1e7), most=st.integers(2, 10))
def test_steps_are_round_and_few(low: float, span: float, most: int) -> None:
    """Ticks lie within the axis, evenly, and are not too many."""
    ticks = steps(low, low + span, most)
    assert len(ticks) <= most + 1
    for tick in ticks:
        assert low - span * 1e-6 <= tick <= low + span * (1 + 1e-6)
    assert len({round((after - before) / span, 6) for before, after in pairwise(ticks)}) <= 1
