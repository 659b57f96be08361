"""What clients send is logged so that it can do nothing, and not too often."""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING

import pytest
import structlog
from hypothesis import example, given
from hypothesis import strategies as st
from structlog.testing import LogCapture

from trio_echo.framing import LineTooLongError, encode_prefix
from trio_echo.server.log import LoggedFramer, Throttle
from trio_echo.text import printable

if TYPE_CHECKING:
    from structlog.typing import FilteringBoundLogger
    from trio.testing import MockClock


def captured() -> tuple[FilteringBoundLogger, LogCapture]:
    """Make a logger, and what it has logged."""
    capture = LogCapture()
    log: FilteringBoundLogger = structlog.wrap_logger(
        None, processors=[capture], wrapper_class=structlog.make_filtering_bound_logger(0)
    )
    return log, capture


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
    log, capture = captured()
    encoded = encode_prefix(prefix)
    framer = LoggedFramer(log.bind(peer="[::1]:1"), encoded, 65_536)
    places = sorted({0, *(cut for cut in cuts if cut < len(sent)), len(sent)})
    for start, end in pairwise(places):
        framer.feed(sent[start:end])
    framer.end()

    lines = sent.split(b"\n")
    if not lines[-1]:
        lines.pop()
    expected = [
        {
            "event": event,
            "line": printable(text.decode(errors="surrogateescape")),
            "log_level": "info",
            "peer": "[::1]:1",
        }
        for line in lines
        for event, text in (("request", line), ("response", encoded + line))
        for shown in [printable(text.decode(errors="surrogateescape"))]
    ]
    assert capture.entries == expected


def test_the_lines_before_one_that_is_too_long_are_logged() -> None:
    """What is answered is logged, the error line included, and what is not is not."""
    log, capture = captured()
    framer = LoggedFramer(log, encode_prefix("one"), 3)
    with pytest.raises(LineTooLongError):
        framer.feed(b"ab\nabcd\n")
    assert [(entry["event"], entry["line"]) for entry in capture.entries] == [
        ("request", "ab"),
        ("response", "one ab"),
        ("response", "error: line longer than 3 bytes"),
    ]


async def test_a_storm_of_warnings_is_counted_not_logged(mock_clock: MockClock) -> None:
    """In a window a burst is logged; the rest is told when it is over."""
    log, capture = captured()
    throttle = Throttle(log, burst=3, period=10)
    for number in range(1000):
        throttle.warning("storm", number=number)
    assert [entry["number"] for entry in capture.entries] == [0, 1, 2]

    mock_clock.jump(9.9)
    throttle.settle()
    assert len(capture.entries) == 3

    mock_clock.jump(0.2)
    throttle.settle()
    told = {"event": "suppressed", "warning": "storm", "count": 997, "log_level": "warning"}
    assert capture.entries[3:] == [told]
    throttle.settle()
    assert len(capture.entries) == 4  # told once


async def test_the_next_window_starts_afresh(mock_clock: MockClock) -> None:
    """What was suppressed is told before the next warning, with no one to call settle."""
    log, capture = captured()
    throttle = Throttle(log, burst=1, period=10)
    for number in range(5):
        throttle.warning("storm", number=number)
    mock_clock.jump(10)
    throttle.warning("storm", number=5)
    assert [entry["event"] for entry in capture.entries] == ["storm", "suppressed", "storm"]
    assert capture.entries[1]["count"] == 4
    assert capture.entries[2]["number"] == 5


async def test_one_storm_does_not_hide_another_warning() -> None:
    """Each event has its own window, and the end of the server tells all."""
    log, capture = captured()
    throttle = Throttle(log, burst=1, period=10)
    for _ in range(3):
        throttle.warning("storm")
    throttle.warning("rare")
    throttle.settle(final=True)
    events = [(entry["event"], entry.get("count")) for entry in capture.entries]
    assert events == [("storm", None), ("rare", None), ("suppressed", 2)]
