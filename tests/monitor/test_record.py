"""What a watch has seen: counts agree, everything is bounded, events are in words."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from itertools import islice
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st
from reports import drawn, ok

from trio_echo.monitor.record import OTHERS, WINDOW, Event, Loss, Record, lasting
from trio_echo.prober.counts import Outcome, Result
from trio_echo.prober.remarks import MOST_NAMES
from trio_echo.prober.split import Expectation, Verdict

if TYPE_CHECKING:
    from collections.abc import Iterable

TWO = Expectation({"one": 80, "two": 20})

RESULTS = st.one_of(
    st.sampled_from(["one", "two", "three", ""]).map(ok),
    st.sampled_from([Outcome.RESET, Outcome.REFUSED]).map(Result),
)


class Clock:
    """A time of day that follows the record's seconds."""

    def __init__(self) -> None:
        self.now = datetime(2026, 1, 1, tzinfo=UTC)

    def __call__(self) -> datetime:
        """The time of day."""
        return self.now


def fed(
    results: Iterable[Result | str], expectation: Expectation = TWO, *, rate: float = 5.0
) -> tuple[Record, list[Event]]:
    """A record of these connections at a rate, sampled once a second, and what it told."""
    clock, events = Clock(), list[Event]()
    record = Record(expectation, "echo.test:9000", events.append, clock)
    record.sample(0.0)
    for number, result in enumerate(results):
        elapsed = number / rate
        clock.now = record.began + timedelta(seconds=elapsed)
        record.take(ok(result) if isinstance(result, str) else result, elapsed)
        if number % rate == rate - 1:
            record.sample(elapsed)
    return record, events


@given(results=st.lists(RESULTS, max_size=60))
def test_every_connection_is_counted_once(results: list[Result]) -> None:
    """In the counts, in the window while it is short, and in the shares, failures included."""
    record, _ = fed(results)
    assert record.counts.total == len(results) == record.window
    answered = [result.name for result in results if result.name is not None]
    assert record.counts.answers.total() == len(answered)
    for share in record.shares:
        assert share.answers == answered.count(share.name)
        if results:
            assert share.share == pytest.approx(answered.count(share.name) / len(results))
    if results:
        assert sum(share.share for share in record.shares) + record.failed == pytest.approx(1)


@given(results=st.lists(RESULTS, max_size=40))
def test_where_things_stand_is_json_and_one_line(results: list[Result]) -> None:
    """Whatever came; the object is read back as it was."""
    record, events = fed(results)
    assert json.loads(json.dumps(record.to_json(), allow_nan=False)) == record.to_json()
    assert "\n" not in str(record)
    assert "\n" not in record.headline
    for event in events:
        assert json.loads(json.dumps(event.to_json(), allow_nan=False))["kind"] == event.kind


def test_the_window_slides() -> None:
    """What is further back than its length is forgotten, failures too."""
    names: list[Result | str] = [Result(Outcome.RESET)] * 5 + ["one"] * WINDOW + ["two"] * 100
    record, _ = fed(names)
    assert record.window == WINDOW
    assert record.failed == 0
    assert {share.name: share.share for share in record.shares} == pytest.approx(
        {"one": 1 - 100 / WINDOW, "two": 100 / WINDOW}
    )


def test_everything_is_bounded() -> None:
    """A day of samples, and more names than anybody has: the record stays small."""
    record, _ = fed([])
    for second in range(90_000):
        record.sample(float(second))
    assert len(record.moments) <= 400
    assert record.moments[0].elapsed == 0
    assert record.moments[-1].elapsed > 89_000
    assert len(record.recent) == 600
    for number in range(2 * MOST_NAMES):
        record.take(ok(f"name-{number}"), 0.0)
    assert len(record.counts.answers) == MOST_NAMES + 1
    assert record.counts.answers[OTHERS] == MOST_NAMES
    record.take(ok("name-3"), 0.0)
    assert record.counts.answers["name-3"] == 2
    assert str(record).endswith(", 251 more")
    [told] = [event for event in record.events if event.kind == "names"]
    assert "more than 256 different names answered, name-256 the last" in told.text
    for _ in range(2000):
        record.lose(Loss("one", Outcome.RESET, "", 1.0), 0.0, ("one", 0.1))
    assert len(record.events) == 500
    assert record.lost == {Outcome.RESET: 2000}


def test_a_change_is_said_with_its_time_and_both_shares() -> None:
    """The moment is that of the connection at which it happened, seconds before the alarm."""
    names = drawn({"one": 80, "two": 20}, 1000, 1) + drawn({"one": 30, "two": 70}, 100, 2)
    record, events = fed(names)
    [change] = events
    assert change.kind == "change"
    assert record.changes == 1
    moved = record.began + timedelta(seconds=200)
    told = datetime.fromisoformat(change.data["changed_at"])
    assert abs(told - moved) < timedelta(seconds=5)
    assert moved < change.at < moved + timedelta(seconds=20)
    assert f"the split changed at about {told:%H:%M:%S}, " in change.text
    assert "one from 7" in change.text
    assert "two from 2" in change.text
    first = change.data["backends"][0]
    low, high = first["before_interval"]
    assert low <= first["before"] <= high
    assert record.since.total < 100


def test_a_change_long_ago_happened_at_the_start_at_the_earliest() -> None:
    """Nothing was sampled before: the start stands for it."""
    record, events = fed(["two"] * 30)
    assert events[0].data["changed_at"] == record.began.isoformat(timespec="milliseconds")


def test_a_single_answer_is_said_in_the_singular() -> None:
    """A backend from nowhere is a change by itself."""
    _, events = fed(["one", "stray"])
    assert "1 answer ago: stray from 0.0 %" in events[0].text


def test_failures_are_told_when_they_begin_and_when_they_are_over() -> None:
    """Not each of them; a minute without one ends them."""
    reset = Result(Outcome.RESET, detail="Connection reset by peer")
    record, events = fed([*["one"] * 8, reset, "two", reset, "one"])
    assert [event.kind for event in events] == ["failing"]
    assert events[0].text == "a connection failed: reset, Connection reset by peer"
    for second in range(3, 65):
        record.sample(float(second))
    assert [event.kind for event in events] == ["failing", "answering"]
    assert events[1].text == ("no connection failed for 60.0 s; before that, 2 did within 400 ms")
    record.take(Result(Outcome.REFUSED), 70.0)
    assert events[2].text == "a connection failed: refused"


def test_a_lost_connection_is_said_with_age_reason_and_replacement() -> None:
    """And where nobody answered in time, the replacement is an event of its own."""
    record, events = fed([])
    loss = Loss("o\x1bne", Outcome.RESET, "Connection reset by peer", 45.13)
    record.lose(loss, 50.0, ("two", 0.0021))
    record.lose(Loss("one", Outcome.EOF_BEFORE_ANSWER, "", 200.0), 60.0, None)
    record.replace("two", 8.0, 68.0)
    assert [event.text for event in events] == [
        (
            r"held connection to o\x1bne lost after 45.1 s: reset, Connection reset by peer; "
            "two answered its replacement after 2.1 ms"
        ),
        (
            "held connection to one lost after 3 min: closed by the other side; "
            "no replacement was answered yet"
        ),
        "two answered the replacement of a held connection 8.0 s after it was lost",
    ]
    assert events[0].data["replaced_after"] == 0.0021
    assert "replacement" not in events[1].data
    assert events[2].data == {"replacement": "two", "replaced_after": 8.0}
    assert "0 held, 2 lost" in str(record)


@pytest.mark.parametrize(
    ("results", "expectation", "verdict", "headline"),
    [
        ([], TWO, Verdict.UNMEASURED, "echo.test:9000: nobody has answered yet"),
        (
            ["one", "two"],
            TWO,
            Verdict.INCONCLUSIVE,
            "INCONCLUSIVE so far: echo.test:9000 not decided yet",
        ),
        (
            ["one", "one", "one", "one", "two"] * 300,
            TWO,
            Verdict.PASS,
            "PASS so far: echo.test:9000 splits as expected",
        ),
        (
            ["one", "two"] * 500,
            TWO,
            Verdict.FAIL,
            "FAIL since the last change: echo.test:9000 does not split as expected",
        ),
        (
            ["one", "two"] * 10,
            Expectation({}),
            Verdict.INCONCLUSIVE,
            "echo.test:9000: watched for changes of its split, nothing is expected of it",
        ),
    ],
)
def test_the_verdict_so_far(
    results: list[Result | str], expectation: Expectation, verdict: Verdict, headline: str
) -> None:
    """Since the last change, in words."""
    record, _ = fed(results, expectation)
    assert record.verdict is verdict
    assert record.headline == headline


def test_one_line_says_where_things_stand() -> None:
    """Expected shares, and those off by more than the margin."""
    record, _ = fed(["one", "one", "three", Result(Outcome.RESET)])
    assert str(record) == (
        "4 connections, 1 failed, 1 change of the split; of the last 4: one 50.0 % (expected "
        "80.0 %, off by more than the margin), two 0.0 % (expected 20.0 %, off by more than the "
        "margin), three 25.0 %"
    )
    empty, _ = fed([], Expectation({}))
    assert str(empty).endswith("of the last 0: nobody answered")


def test_a_mixed_connection_is_a_fail() -> None:
    """Balancing by request is not what a TCP route does."""
    names = islice(drawn({"one": 80, "two": 20}, 2000, 1), 2000)
    record, _ = fed(names)
    before = record.verdict
    record.take(ok("one", mixed=True), 400.0)
    assert (before, record.verdict) == (Verdict.PASS, Verdict.FAIL)
    assert record.counts.mixed == 1


@pytest.mark.parametrize(
    ("seconds", "words"),
    [(0.0021, "2.1 ms"), (45, "45.0 s"), (600, "10 min"), (9000, "2 h"), (400_000, "4.6 days")],
)
def test_stretches_of_time_are_said_as_people_do(seconds: float, words: str) -> None:
    """From milliseconds to days."""
    assert lasting(seconds) == words
