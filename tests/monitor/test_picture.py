"""The picture and the page of a watch: well-formed, escaped, nothing from elsewhere."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from html.parser import HTMLParser
from xml.etree import ElementTree as ET

import pytest
from hypothesis import given
from hypothesis import strategies as st
from reports import drawn, ok

from trio_echo.monitor.picture import PAGE_POLICY, fragment, page, to_svg
from trio_echo.monitor.record import Loss, Record
from trio_echo.prober.counts import Outcome, Result
from trio_echo.prober.split import Expectation

HOSTILE = [
    "<script>alert(1)</script>",
    "&amp;",
    '"><img src=x onerror=alert(1)>',
    "\x1b]0;owned\x07",
    "\u202eevil",
    "a\x00b\x0bc\ud800",
    "</style></svg><script>",
    "",
    "x" * 300,
]


def watched(seconds: int = 30, names: tuple[str, ...] = ("one", "two")) -> Record:
    """A record of a move from 80/20 to 20/80 in the middle, at five a second, with failures."""
    now = datetime(2026, 1, 1, tzinfo=UTC)
    record = Record(Expectation({names[0]: 80, names[1]: 20}), "echo.test:9000", clock=lambda: now)
    half = 5 * seconds // 2
    answers = drawn({names[0]: 80, names[1]: 20}, half, 1) + drawn(
        {names[0]: 20, names[1]: 80}, half, 2
    )
    for number, name in enumerate(answers):
        elapsed = number / 5
        now = record.began + timedelta(seconds=elapsed)
        failed = number % 50 == 49
        record.take(Result(Outcome.RESET, detail=names[0]) if failed else ok(name), elapsed)
        if not number % 5:
            record.sample(elapsed)
    for name in names[2:]:
        record.take(ok(name), seconds)
    record.lose(Loss(names[0], Outcome.RESET, "", 12.0), seconds - 2, (names[1], 0.1))
    record.sample(seconds)
    return record


class Elements(HTMLParser):
    """The elements of a page, with their attributes, and its text."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Take note of an element."""
        self.found.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        """Take note of text."""
        self.text += data


def test_the_picture_shows_the_move() -> None:
    """Lines, bands, the upright of the change with its time, failures, the tick of a loss."""
    record = watched(200)
    root = ET.fromstring(to_svg(record))  # noqa: S314 - made here
    texts = [element.text for element in root.iter("{http://www.w3.org/2000/svg}text")]
    assert any(str(text).startswith("CHANGED at 00:01:") for text in texts)
    assert "Since the start" in texts
    assert "The last ten minutes" not in texts
    changes = [event for event in record.events if event.kind == "change"]
    assert f"{changes[0].at:%H:%M:%S}" in texts
    classes = [element.get("class") for element in root.iter()]
    assert "c0 faint" in classes
    assert "fail firm" in classes
    assert any("red area: failed part" in str(text) for text in texts)
    assert "line s-fail" in classes
    assert "line s-c1" in classes


def test_after_ten_minutes_there_are_two_panels() -> None:
    """The last ten minutes second by second, and the whole time."""
    svg = to_svg(watched(1300))
    assert "The last ten minutes" in svg
    assert "Since the start" in svg


@pytest.mark.parametrize("expectation", [Expectation({}), Expectation({"one": 1})])
def test_a_watch_that_has_just_begun_has_a_picture(expectation: Expectation) -> None:
    """And so before its first sample; nothing need be expected."""
    record = Record(expectation, "echo.test:9000")
    ET.fromstring(to_svg(record))  # noqa: S314 - made here
    record.sample(0.0)
    ET.fromstring(to_svg(record))  # noqa: S314 - made here
    assert "nobody has answered yet" in page(record)
    assert "none so far" in fragment(record)
    record.take(ok("one"), 0.1)
    ET.fromstring(to_svg(record))  # noqa: S314 - made here


def test_many_backends_get_a_legend_of_several_lines() -> None:
    """More than eight are not drawn; the table has all."""
    names = tuple(f"backend-number-{number:02}-of-many" for number in range(12))
    record = watched(30, names)
    svg = to_svg(record)
    assert "backend-number-00-of-ma…" in svg
    assert svg.count("<circle") == 8
    assert "4 more" in svg
    assert "backend-number-11-of-many" in fragment(record)


@given(names=st.lists(st.one_of(st.text(), st.sampled_from(HOSTILE)), min_size=2, unique=True))
def test_what_backends_call_themselves_is_escaped(names: list[str]) -> None:
    """Whatever it is: the picture is XML, the page has the elements that it always has."""
    record = watched(20, tuple(names[:4]))
    ET.fromstring(to_svg(record))  # noqa: S314 - made here
    allowed = {"h1", "dl", "dt", "dd", "svg", "title", "desc", "style", "rect", "text", "line"}
    allowed |= {"circle", "path", "table", "thead", "tbody", "tr", "th", "td", "h2", "ul", "li"}
    allowed |= {"time", "div"}
    elements = Elements(fragment(record)).found
    assert {tag for tag, _ in elements} <= allowed
    assert not any(name.startswith("on") for _, attributes in elements for name in attributes)
    assert not re.search(r"[\x00-\x09\x0b-\x1f\x7f-\x9f\u202a-\u202e\ud800-\udfff]", page(record))


def test_the_page_loads_nothing_from_elsewhere() -> None:
    """One script, its own, which the policy names by its hash; no address but its own."""
    html = page(watched())
    elements = Elements(html).found
    assert [attributes for tag, attributes in elements if tag == "script"] == [{}]
    addresses = {"src", "href", "data", "action", "poster", "srcset"}
    assert not any(addresses & attributes.keys() for _, attributes in elements)
    assert not any(
        tag in {"link", "img", "iframe", "object", "base", "form"} for tag, _ in elements
    )
    outside = re.findall(r"https?://[^\"' )]+", html)
    assert set(outside) <= {"http://www.w3.org/2000/svg"}
    assert "url(" not in html
    assert "@import" not in html
    assert "default-src 'none'" in PAGE_POLICY
    assert "unsafe-inline' script" not in PAGE_POLICY
    assert "prefers-color-scheme: dark" in html


def test_lost_connections_are_counted_where_they_stand() -> None:
    """Those that end together are one mark with their number."""
    record = watched()
    for elapsed in (50.0, 50.1, 50.2):
        record.lose(Loss("one", Outcome.RESET, "", 5.0), elapsed, None)
    record.sample(60)
    words = [each.text for each in ET.fromstring(to_svg(record)).iter() if each.text]  # noqa: S314 - ours
    assert [word for word in words if re.fullmatch("[0-9]+ lost", word)] == ["1 lost", "3 lost"]
