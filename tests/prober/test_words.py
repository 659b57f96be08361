"""The report in plain words: the verdict first, and every figure with its unit."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from typing import Any

import pytest
from reports import drawn, made, ok

from trio_echo.prober.counts import Clue, Counts, Outcome, Result
from trio_echo.prober.remarks import duration, findings
from trio_echo.prober.words import Report

EIGHTY_TWENTY = {"one": 80.0, "two": 20.0}


def test_pass_reads_well() -> None:
    """The whole text, as a user sees it."""
    report = made(["one", "one", "one", "one", "two"] * 400, expect=EIGHTY_TWENTY)
    lines = str(report).splitlines()
    assert lines[0] == ("PASS: 127.0.0.1:9000 (echo.test) splits as expected: one 80 %, two 20 %")
    assert lines[1] == (
        f"  {report.connections} connections in 1.5 s; "
        "a share off by 5 points or more passes with a chance of 0.001 at most"
    )
    assert "  backend  expected   share      true share  answered" in lines
    assert any(line.startswith("  one          80 %  80.") for line in lines)
    assert any(line.startswith("  answer       one  4 ms") for line in lines)


@pytest.mark.parametrize(
    ("results", "settings", "words"),
    [
        (
            ["one"] * 53,
            {"expect": EIGHTY_TWENTY},
            "all 53 to one, none to two: it is down or not in the route, or answers go by the",
        ),
        (
            drawn({"one": 20, "two": 80}, 100, 1),
            {"expect": EIGHTY_TWENTY},
            "the counts fit the weights of one and two swapped",
        ),
        (
            drawn({"one": 50, "two": 50}, 400, 1),
            {"expect": EIGHTY_TWENTY},
            ", expected 80 %",
        ),
        (["three"], {"expect": EIGHTY_TWENTY}, "three answered 1 of 1, but was not expected"),
        (["two"], {"expect": {"one": 1, "two": 0}}, "two answered 1 of 1, but has weight 0"),
        (
            [ok("one", mixed=True)] * 2,
            {"expect": EIGHTY_TWENTY},
            "more than one backend answered 1 connection:",
        ),
        (
            ["one", Result(Outcome.RESET, detail="Connection reset by peer")],
            {"expect": EIGHTY_TWENTY},
            "1 x reset (Connection reset by peer): two is down, or not reachable from the proxy",
        ),
        (
            ["one", Result(Outcome.RESET)],
            {"max_errors": 0},
            "2 connections in 1.5 s; 0 may fail, and 1 did",
        ),
        ([], {"expect": EIGHTY_TWENTY}, "COULD NOT MEASURE 127.0.0.1:9000 (echo.test)"),
        (["one"], {}, "no split was expected, so there is no verdict on it"),
        (["one"], {"target": "127.0.0.1:9000"}, "MEASURED: 127.0.0.1:9000\n"),
    ],
)
def test_what_is_said(results: list[str | Result], settings: dict[str, Any], words: str) -> None:
    """Each finding in its words."""
    assert words in str(made(results, **settings))


def test_right_splits_are_not_commented() -> None:
    """A PASS comes without suspicions."""
    for seed in range(30):
        report = made(drawn(EIGHTY_TWENTY, 3000, seed), expect=EIGHTY_TWENTY)
        assert not list(findings(report))


def ending(outcome: Outcome, took: float = 0.0) -> Result:
    """A connection that failed after so many seconds."""
    return Result(outcome, took=took)


RESET = ending(Outcome.RESET)


@pytest.mark.parametrize(
    ("results", "says", "not_said"),
    [
        ([RESET] * 20, "no backend is healthy behind the proxy, a policy refuses", "limit"),
        ([RESET, *["one", "two"] * 50], "a limit (of connections or of their rate", "healthy"),
        (
            [*["one"] * 40, RESET],
            ": two is down, or not reachable from the proxy: it never answered",
            "healthy",
        ),
        (
            ["one", "one", "one", "one", RESET] * 40,
            "it never answered, and 20.0 % of 200 failed, about its 20 %",
            "limit",
        ),
        (["one", RESET] * 90, "cut by the other side: a limit", "two never answered"),
        (["one", *[ending(Outcome.WRONG_ECHO)] * 9], "mixed up on the way", "two is down"),
        (
            [*["one", "two"] * 9, *[ending(Outcome.RESET, 0.1 + n / 1e3) for n in range(9)]],
            "reset, after about 104 ms each: a timeout of the proxy",
            "healthy",
        ),
        (
            [*["one", "two"] * 9, *[ending(Outcome.RESET, 0.1 + n / 10) for n in range(9)]],
            "cut by the other side: a limit",
            "timeout",
        ),
        (
            [*["one", "two"] * 9, *[ending(Outcome.READ_TIMEOUT, 5.0) for n in range(9)]],
            "a backend hangs or is overloaded",
            "looks like a timeout",
        ),
    ],
)
def test_failures_are_explained_by_the_whole_sample(
    results: list[str | Result], says: str, not_said: str
) -> None:
    """Whether others were answered, by whom, how many failed, and after how long."""
    text = str(made(results, expect=EIGHTY_TWENTY, max_errors=9999, margin=0.04))
    assert says in text
    assert not_said not in text


def looked(report: Report, alone: dict[str, int], clues: dict[Clue, int]) -> Report:
    """The same report after a second look."""
    found = Counts(alone=Counter(alone), clues=Counter(clues))
    return Report(report.expectation, (replace(report.runs[0], counts=report.counts + found),))


TEN_TIMES = [ending(Outcome.EOF_BEFORE_ANSWER, 0.1)] * 10
MIXED = ["one", "one", "two"] * 9


@pytest.mark.parametrize(
    ("results", "alone", "clues", "says"),
    [
        (
            [*MIXED, RESET],
            {},
            {Clue.FAILED_ALONE: 60},
            (
                ": a limit on the rate of connections, or everything behind the proxy is down: "
                "of 60 more, one at a time, 60 failed"
            ),
        ),
        (
            [*MIXED, RESET],
            {"one": 4, "two": 1},
            {Clue.FAILED_ALONE: 55},
            ": a limit on the rate of connections: of 60 more, one at a time, 55 failed",
        ),
        (
            [*MIXED, *[RESET] * 20],
            {"one": 48, "two": 12},
            {},
            (
                ": a limit on open connections (maxconn, limit_conn, a circuit breaker): "
                "of 60 more, one at a time, none failed"
            ),
        ),
        (
            [*MIXED, RESET],
            {"one": 58, "two": 1},
            {Clue.FAILED_ALONE: 1},
            ": cut by the other side: a limit (of connections or of their rate",
        ),
        (
            [*MIXED, RESET],
            {"one": 47},
            {Clue.FAILED_ALONE: 13},
            (
                ": two is down, or not reachable from the proxy: it answered before, and 21.7 % of "
                "60 more, one at a time, failed, about its 20 %"
            ),
        ),
        (
            ["one", *TEN_TIMES[:1]],
            {"one": 4},
            {Clue.FAILED_ALONE: 1},
            (
                ", after about 100 ms: two is slower than the proxy's timeout of about 100 ms, "
                "down, or not reachable from the proxy: no answer so far"
            ),
        ),
        (TEN_TIMES, {}, {Clue.WAITS: 1}, "100 ms each: the proxy gives up: its timeout is"),
        ([RESET] * 20, {}, {Clue.ENDS_UNASKED: 1}, ": no backend is healthy behind the proxy, or"),
        ([RESET] * 20, {}, {Clue.WAITS: 1}, ": a policy refuses this client (RBAC"),
        (
            [ending(Outcome.READ_TIMEOUT)] * 20,
            {},
            {Clue.WAITS: 1},
            "no answer in time: a backend hangs, or it speaks another protocol",
        ),
        (
            [ending(Outcome.WRONG_ECHO)] * 20,
            {},
            {Clue.WANTS_NO_PROXY: 1},
            ": the listener wants no PROXY header: leave out --proxy-protocol",
        ),
        (
            [*[RESET] * 10, *[ending(Outcome.EOF_BEFORE_ANSWER)] * 10],
            {},
            {Clue.ENDS_UNASKED: 1},
            "10 x eof-before-answer: as with reset",
        ),
    ],
)
def test_a_second_look_tells_causes_apart(
    results: list[str | Result], alone: dict[str, int], clues: dict[Clue, int], says: str
) -> None:
    """One connection at a time, or in another way."""
    report = made(results, expect=EIGHTY_TWENTY, max_errors=9999)
    assert says in str(looked(report, alone, clues))


@pytest.mark.parametrize("outcome", [Outcome.RESET, Outcome.READ_TIMEOUT])
def test_a_header_that_was_sent_is_not_asked_for(outcome: Outcome) -> None:
    """It may be what the server does not take."""
    report = made([ending(outcome)] * 20, expect=EIGHTY_TWENTY, proxy_protocol="v2")
    assert "does not take the PROXY header that you send" in str(report)
    assert "wants TLS or a PROXY header" not in str(report)


def test_several_dead_backends_are_counted_together() -> None:
    """Their shares add up."""
    weights = {"a": 60.0, "b": 20.0, "c": 20.0}
    report = made(["a", "a", "a", RESET, RESET] * 20, expect=weights, max_errors=9999)
    words = "b and c are down, or not reachable from the proxy: they never answered, and 40.0 %"
    assert words in str(report)


ALTERNATING = ["one", "two"] * 300
BUNCHED = (["one"] * 12 + ["two"] * 3) * 100


@pytest.mark.parametrize(
    ("results", "alone", "changed", "codes"),
    [
        (drawn({"one": 95, "two": 5}, 600, 1), {"one": 30, "two": 30}, 59, ["by-load"]),
        (drawn({"one": 95, "two": 5}, 600, 1), {"one": 57, "two": 3}, 6, []),
        (ALTERNATING, {"one": 30, "two": 30}, 59, ["even", "rotation"]),
        (BUNCHED, {"one": 60}, 0, ["sticky"]),
        (BUNCHED, {"one": 30, "two": 30}, 59, ["by-load"]),
        (BUNCHED, {"one": 30, "two": 30}, 9, ["sticky"]),
    ],
)
def test_least_connections_shows_with_one_connection_at_a_time(
    results: list[str | Result], alone: dict[str, int], changed: int, codes: list[str]
) -> None:
    """Its shares depend on how many are open, and its answers do not stick together."""
    report = made(results, expect={"one": 70, "two": 30}, alpha=1e-9, margin=0.1)
    report = looked(report, alone, {Clue.CHANGED_ALONE: changed})
    assert [remark.code for remark in findings(report)] == codes
    if "by-load" in codes:
        assert ": the balancer goes by open connections (least connections)" in str(report)
    if "even" in codes:
        assert "in force, or does it go by open connections (least connections)?" in str(report)


def test_backend_that_stopped_is_named() -> None:
    """No weights were moved: one of them is gone."""
    gone = drawn(EIGHTY_TWENTY, 300, 1) + ["one"] * 200
    text = str(made(gone, expect={"one": 85, "two": 15}, margin=0.01, alpha=1e-9))
    assert "two has 21.3 % of" in text
    assert "of the first 296 connections and none of the 204 after: it stopped" in text
    assert "were weights moved" not in text
    assert "stopped" not in str(made(drawn(EIGHTY_TWENTY, 500, 1), expect=EIGHTY_TWENTY))


def test_several_that_never_answered_are_listed() -> None:
    """In one sentence."""
    text = str(made(["a"] * 500, expect={"a": 4, "b": 3, "c": 3, "d": 3}))
    assert "to a, none to b, c and d: they are down or not in the route" in text


def test_uneven_swap_is_no_swap() -> None:
    """Two that are both off need not have each other's share."""
    report = made(drawn({"one": 50, "two": 50}, 400, 1), expect=EIGHTY_TWENTY)
    assert "swapped" not in str(report)


def test_names_and_targets_are_escaped() -> None:
    """Nothing that came from outside reaches a terminal as it is."""
    report = made(["\x1b[31mred\n"], target="\x1b[2J:9", expect={"\x07": 1})
    assert str(report).replace("\n", "").isprintable()


@pytest.mark.parametrize(
    ("seconds", "words"),
    [(0, "0 µs"), (25e-6, "25 µs"), (0.00123, "1.23 ms"), (0.25, "250 ms"), (75.04, "75.0 s")],
)
def test_durations(seconds: float, words: str) -> None:
    """In the unit that suits them."""
    assert duration(seconds) == words


def test_a_known_cause_leaves_no_guess() -> None:
    """Whoever asked knew why: that comes first, and failures are only counted."""
    failed = made(["one", Result(Outcome.RESET)], expect={"one": 80, "two": 20})
    report = replace(failed, cause="there is no Service two")
    first, second = str(report).splitlines()[2:4]
    assert first == "  - there is no Service two"
    assert second == "  - 1 x reset"
