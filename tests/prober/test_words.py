"""The report in plain words: the verdict first, and every figure with its unit."""

from __future__ import annotations

from typing import Any

import pytest
from reports import drawn, made, ok

from trio_echo.prober.counts import Outcome, Result
from trio_echo.prober.remarks import duration, findings

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
            "1 x reset (Connection reset by peer): cut by the other side",
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
        ([*["one"] * 40, RESET], "or two is down, with no answer so far", "healthy"),
        (
            ["one", "one", "one", "one", RESET] * 40,
            "two never answered and should have had 20 %, about the 20.0 % that failed: down",
            "limit",
        ),
        (["one", RESET] * 90, "cut by the other side: a limit", "two never answered"),
        (["one", *[ending(Outcome.WRONG_ECHO)] * 9], "mixed up on the way", "two is down"),
        (
            [*["one", "two"] * 9, *[ending(Outcome.RESET, 0.1 + n / 1e3) for n in range(9)]],
            "reset, each after about 104 ms, which looks like a timeout: cut",
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
