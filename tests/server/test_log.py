"""What clients send is logged so that it can do nothing, and not too often."""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from logged import capture_logs

from trio_echo.framing import LineTooLongError, encode_prefix
from trio_echo.log import Log
from trio_echo.server.log import LoggedFramer, Throttle
from trio_echo.text import printable

if TYPE_CHECKING:
    from collections.abc import Iterator

    from trio.testing import MockClock


@pytest.fixture
def entries() -> Iterator[list[dict[str, Any]]]:
    """What is logged during a test."""
    with capture_logs() as logged:
        yield logged


@given(
    st.binary(max_size=200),
    st.sampled_from(["", "one", "zwölf zwölf"]),
    st.lists(st.integers(0, 200)),
)
@example(b"\n\n", "one", [])
def test_each_request_is_logged_with_its_response(
    sent: bytes, prefix: str, cuts: list[int]
) -> None:
    """The lines logged are those received and answered, however they arrived."""
    encoded = encode_prefix(prefix)
    framer = LoggedFramer(Log(peer="[::1]:1"), encoded, 65_536)
    places = sorted({0, *(cut for cut in cuts if cut < len(sent)), len(sent)})
    with capture_logs() as entries:
        for start, end in pairwise(places):
            framer.feed(sent[start:end])
        framer.end()

    lines = sent.split(b"\n")
    if not lines[-1]:
        lines.pop()
    expected = [
        {
            "event": event,
            "line": shown,
            "log_level": "info",
            "peer": "[::1]:1",
        }
        for line in lines
        for event, text in (("request", line), ("response", encoded + line))
        for shown in [printable(text.decode(errors="surrogateescape"))]
    ]
    assert entries == expected


def test_the_lines_before_one_that_is_too_long_are_logged() -> None:
    """What is answered is logged, the error line included, and what is not is not."""
    framer = LoggedFramer(Log(), encode_prefix("one"), 3)
    with capture_logs() as entries, pytest.raises(LineTooLongError):
        framer.feed(b"ab\nabcd\n")
    assert [(entry["event"], entry["line"]) for entry in entries] == [
        ("request", "ab"),
        ("response", "one ab"),
        ("response", "error: line longer than 3 bytes"),
    ]


async def test_a_storm_of_warnings_is_counted_not_logged(
    mock_clock: MockClock, entries: list[dict[str, Any]]
) -> None:
    """In a window a burst is logged; the rest is told when it is over."""
    throttle = Throttle(Log(), burst=3, period=10)
    for number in range(1000):
        throttle.warning("storm", number=number)
    assert [entry["number"] for entry in entries] == [0, 1, 2]

    mock_clock.jump(9.9)
    throttle.settle()
    assert len(entries) == 3

    mock_clock.jump(0.2)
    throttle.settle()
    told = {"event": "suppressed", "warning": "storm", "count": 997, "log_level": "warning"}
    assert entries[3:] == [told]
    throttle.settle()
    assert len(entries) == 4  # told once


async def test_the_next_window_starts_afresh(
    mock_clock: MockClock, entries: list[dict[str, Any]]
) -> None:
    """What was suppressed is told before the next warning, with no one to call settle."""
    throttle = Throttle(Log(), burst=1, period=10)
    for number in range(5):
        throttle.warning("storm", number=number)
    mock_clock.jump(10)
    throttle.warning("storm", number=5)
    assert [entry["event"] for entry in entries] == ["storm", "suppressed", "storm"]
    assert entries[1]["count"] == 4
    assert entries[2]["number"] == 5


async def test_one_storm_does_not_hide_another_warning(entries: list[dict[str, Any]]) -> None:
    """Each event has its own window, and the end of the server tells all."""
    throttle = Throttle(Log(), burst=1, period=10)
    for _ in range(3):
        throttle.warning("storm")
    throttle.warning("rare")
    throttle.settle(final=True)
    events = [(entry["event"], entry.get("count")) for entry in entries]
    assert events == [("storm", None), ("rare", None), ("suppressed", 2)]
