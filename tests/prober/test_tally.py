"""Counting in launch order, whatever the order of arrival."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from reports import made, ok

from trio_echo.prober import Outcome, ProbeConfig, Tally, Verdict
from trio_echo.prober.outcome import Result
from trio_echo.prober.tally import OTHERS

RESULTS = st.lists(
    st.one_of(
        st.sampled_from(["one", "two", "two", "three"]).map(ok),
        st.sampled_from([Outcome.RESET, Outcome.REFUSED, Outcome.READ_TIMEOUT]).map(Result),
    ),
    max_size=60,
)


@given(results=RESULTS, data=st.data(), limit=st.integers(0, 4))
def test_order_of_arrival_does_not_matter(
    results: list[Result], data: st.DataObject, limit: int
) -> None:
    """Counts and verdict are a function of the launch order alone."""
    config = ProbeConfig(target="x:1", expect={"one": 50, "two": 50}, max_errors=limit)
    straight, shuffled = Tally(config, "run"), Tally(config, "run")
    for index, result in enumerate(results):
        straight.take(index, result)
    for index, result in data.draw(st.permutations(list(enumerate(results)))):
        shuffled.take(index, result)
    assert shuffled.verdict == straight.verdict
    assert shuffled.split.counts == straight.split.counts
    assert shuffled.outcomes == straight.outcomes
    assert shuffled.late == straight.late


@given(results=RESULTS)
def test_every_answer_is_judged_or_late(results: list[Result]) -> None:
    """Nothing is lost and nothing is counted twice."""
    report = made(results, expect={"one": 50, "two": 50})
    answers = sum(result.name is not None for result in results)
    assert report.counts.total() + sum(report.late.values()) == answers
    assert report.counts.total() == report.outcomes.get(Outcome.OK, 0)
    assert report.connections == sum(report.outcomes.values())


def test_names_are_bounded_in_number() -> None:
    """A server with a new name each time fills neither memory nor report."""
    report = made([f"name {number}" for number in range(1000)], connections=1000)
    assert len(report.counts) == 65
    assert report.counts[OTHERS] == 1000 - 64


def test_names_are_bounded_in_length_and_kept_apart() -> None:
    """An escape and what an escape looks like are two backends, on paper too."""
    report = made(["x" * 4000, "\x1b]0;owned\x07", "\\x1b]0;owned\\x07"])
    assert list(report.counts) == ["x" * 255 + "...", "\x1b]0;owned\x07", "\\x1b]0;owned\\x07"]
    shown = str(report)
    assert shown.replace("\n", "").isprintable()
    assert r"\x1b]0;owned\x07" in shown
    assert r"\\x1b]0;owned\\x07" in shown


def test_memory_is_flat() -> None:
    """Twenty thousand connections keep some hundreds of points and buckets."""
    report = made(ok("one" if number % 5 else "two") for number in range(20_000))
    assert len(report.points) <= 401
    assert report.points[-1].total == 20_000
    assert len(report.timings["one"].answer.buckets) == 1


@pytest.mark.parametrize(
    ("results", "settings", "verdict"),
    [
        ([Result(Outcome.REFUSED)], {"expect": {"one": 1}}, Verdict.UNMEASURED),
        (["one", Result(Outcome.REFUSED)], {"expect": {"one": 1}}, Verdict.FAIL),
        ([Result(Outcome.RESET)], {"expect": {"one": 1}}, Verdict.FAIL),
        ([Result(Outcome.REFUSED)] * 3, {"expect": {"one": 1}, "max_errors": 3}, "unreached"),
        ([Result(Outcome.RESET)] * 3, {"expect": {"one": 1}, "max_errors": 3}, "undecided"),
        ([Result(Outcome.RESET)] * 3, {}, Verdict.UNMEASURED),
        (["one", Result(Outcome.RESET)], {}, None),
        ([Result(Outcome.REFUSED)], {}, Verdict.UNMEASURED),
        (["one", Result(Outcome.LOCAL)], {"max_errors": 9}, Verdict.UNMEASURED),
        (["one"], {}, None),
        ([], {}, Verdict.UNMEASURED),
    ],
)
def test_failures_and_the_verdict(
    results: list[Result | str], settings: dict[str, Any], verdict: Verdict | str | None
) -> None:
    """Not reached is not measured; once something answered, failures are the route's."""
    named = {"unreached": Verdict.UNMEASURED, "undecided": Verdict.INCONCLUSIVE}
    expected = named.get(verdict, verdict) if isinstance(verdict, str) else verdict
    assert made(results, **settings).verdict == expected
