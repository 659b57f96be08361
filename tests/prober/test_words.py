"""The report in plain words: the verdict first, and every figure with its unit."""

from __future__ import annotations

from typing import Any

import pytest
from reports import drawn, made, ok

from trio_echo.prober.counts import Outcome, Result
from trio_echo.prober.words import duration, findings

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
            "all 53 to one: session affinity or source-IP hashing?",
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
