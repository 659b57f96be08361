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


RESET = Result(Outcome.RESET, detail="Connection reset by peer")


def test_single_failures_are_told_when_they_begin_and_when_they_are_over() -> None:
    """Not each of them; a minute without one ends them, if connections were answered in it."""
    some: list[Result | str] = [*["one"] * 8, RESET, "two", RESET, "one"]
    record, events = fed(some)
    assert [event.kind for event in events] == ["failed"]
    assert events[0].text == "a connection failed: reset, Connection reset by peer"
    record.sample(100.0)
    assert [event.kind for event in events] == ["failed"]
    record, events = fed([*some, *["one", "one", "one", "one", "two"] * 62])
    assert [event.kind for event in events] == ["failed", "answering"]
    assert events[1].text == "no connection failed for 60.8 s; before that, 2 did within 400 ms"
    assert record.outages == 0
    record.take(Result(Outcome.REFUSED), 70.0)
    assert events[2].text == "a connection failed: refused"


def halved(seconds: int, rate: int = 5) -> list[Result | str]:
    """Every other connection fails for so long."""
    return [RESET if number % 2 else "one" for number in range(seconds * rate)]


ONE = Expectation({"one": 1})


def test_connections_that_keep_failing_are_a_fail_and_told() -> None:
    """When it begins and once a minute; the list of events keeps the newest figures alone."""
    record, events = fed(halved(20, 50), ONE, rate=50.0)
    assert [event.kind for event in events] == ["failed", "failing"]
    assert events[1].text == (
        "connections keep failing: 150 of the last 300 (50.0 %), 275 of 549 since 00:00:00: "
        "275 x reset"
    )
    assert record.verdict is Verdict.FAIL
    assert record.headline == (
        "FAIL: connections to echo.test:9000 fail since 00:00:00, 150 of the last 300 (50.0 %)"
    )
    record, events = fed(halved(150), ONE)
    assert [event.kind for event in events] == ["failed", *["failing"] * 3]
    assert [event.kind for event in record.events] == ["failed", "failing"]
    assert events[3].text.startswith("connections still fail: 150 of the last 300 (50.0 %), 3")
    assert events[3].data["share"] == 0.5
    assert events[3].data["outcomes"] == {"reset": events[3].data["failed"]}
    assert record.outages == record.to_json()["outages"] == 1
    record.lose(Loss("one", Outcome.RESET, "", 1.0), 150.0, None)
    record.sample(220.0)
    assert [event.kind for event in record.events] == ["failed", "failing", "lost", "failing"]


def test_a_lasting_part_that_ends_is_told_and_judged_no_more() -> None:
    """The headline leads with it; connections from then on have a verdict of their own."""
    record, events = fed([*halved(30), *["one"] * 300], ONE)
    assert [event.kind for event in events] == ["failed", "failing", "failing", "answering"]
    assert events[3].text == (
        "connections are answered again: 3 of the last 300 (1.0 %) failed; before that, "
        "75 of 149 did within 29.6 s"
    )
    assert record.headline == (
        "FAILED from 00:00:00 for 29.6 s: 75 connections; INCONCLUSIVE since then: "
        "echo.test:9000 not decided yet"
    )
    record, _ = fed([*halved(30), *["one"] * 900], ONE)
    assert record.verdict is Verdict.PASS


def test_a_lasting_part_begins_after_single_failures() -> None:
    """Those that failed now and then for hours before are not counted with it."""
    single: list[Result | str] = [RESET, *["one"] * 99] * 30
    _, events = fed([*single, *halved(30)], ONE)
    assert [event.kind for event in events] == ["failed", "failing"]
    since = datetime.fromisoformat(events[1].data["since"])
    assert timedelta(seconds=0) < events[1].at - since < timedelta(seconds=60)
    assert events[1].data["connections"] <= WINDOW


@given(at=st.integers(0, 100), failed=st.integers(1, 49))
def test_a_restart_is_no_lasting_part(at: int, failed: int) -> None:
    """All connections of less than ten seconds may fail."""
    record, _ = fed([*["one"] * at, *[RESET] * failed, *["one"] * 200], ONE)
    assert record.outages == 0


def test_a_headline_says_the_day_of_what_happened_on_another_one() -> None:
    """A watch runs for weeks."""
    clock = Clock()
    record = Record(ONE, "echo.test:9000", clock=clock)
    record.take(ok("two"), 0.0)
    assert record.headline.startswith("CHANGED at 00:00:00: two from 0.0 % to 100.0 %; ")
    clock.now += timedelta(days=2)
    assert record.headline.startswith("CHANGED at 2026-01-01 00:00:00: two from ")


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
            (
                "CHANGED at 00:00:00: one from 100.0 % to 49.2 %; FAIL since then: echo.test:9000 "
                "does not split as expected"
            ),
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
