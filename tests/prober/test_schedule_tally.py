"""Counting in launch order, whatever the order of arrival."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from reports import drawn, made, ok

from trio_echo.prober.config import ProbeConfig
from trio_echo.prober.counts import Outcome, Result
from trio_echo.prober.remarks import MOST_NAMES
from trio_echo.prober.schedule import Tally
from trio_echo.prober.split import Verdict

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
    assert shuffled.counts.answers == straight.counts.answers
    assert shuffled.counts.outcomes == straight.counts.outcomes
    assert shuffled.counts.late == straight.counts.late


@given(results=RESULTS)
def test_every_answer_is_judged_or_late(results: list[Result]) -> None:
    """Nothing is lost and nothing is counted twice."""
    report = made(results, expect={"one": 50, "two": 50})
    answers = sum(result.name is not None for result in results)
    assert report.counts.answers.total() + sum(report.counts.late.values()) == answers
    assert report.counts.answers.total() == report.counts.outcomes.get(Outcome.OK, 0)
    assert report.connections == sum(report.counts.outcomes.values())


def test_server_with_a_name_for_each_connection_ends_the_probe() -> None:
    """It fills neither memory nor report, and the words say what it is."""
    report = made([f"name {number}" for number in range(1000)], connections=1000)
    assert report.verdict is Verdict.UNMEASURED
    assert report.connections == MOST_NAMES + 1
    text = str(report)
    assert "more than 256 different names answered (name 0, name 1, name 2 and so on): " in text
    assert "have backends named by what all their connections share (--identify)" in text
    assert len(text.splitlines()) == 3
    assert made(["one", *[f"{number}" for number in range(255)]]).verdict is None


def test_names_that_look_alike_stay_two() -> None:
    """An escape and what an escape looks like are two backends, on paper too."""
    report = made(["\x1b]0;owned\x07", "\\x1b]0;owned\\x07"])
    assert list(report.counts.answers) == ["\x1b]0;owned\x07", "\\x1b]0;owned\\x07"]
    shown = str(report)
    assert shown.replace("\n", "").isprintable()
    assert r"\x1b]0;owned\x07" in shown
    assert r"\\x1b]0;owned\\x07" in shown


def test_memory_is_flat() -> None:
    """Twenty thousand connections keep some hundreds of points and buckets."""
    report = made(ok("one" if number % 5 else "two") for number in range(20_000))
    assert len(report.points) <= 401
    assert report.points[-1].total == 20_000
    assert len(report.counts.answer["one"].buckets) == 1


@pytest.mark.parametrize(
    ("results", "settings", "verdict"),
    [
        ([Result(Outcome.REFUSED)], {"expect": {"one": 1}}, Verdict.UNMEASURED),
        (["one", Result(Outcome.REFUSED)], {"expect": {"one": 1}}, Verdict.FAIL),
        ([Result(Outcome.REFUSED), "one"], {"expect": {"one": 1}}, Verdict.FAIL),
        ([Result(Outcome.RESET)], {"expect": {"one": 1}}, Verdict.UNMEASURED),
        ([Result(Outcome.RESET)] * 3, {"expect": {"one": 1}, "max_errors": 3}, Verdict.UNMEASURED),
        ([Result(Outcome.TLS)] * 3, {"expect": {"one": 1}, "max_errors": 3}, Verdict.UNMEASURED),
        ([Result(Outcome.RESET)] * 3, {}, Verdict.UNMEASURED),
        (["one", Result(Outcome.RESET)], {}, None),
        (["one", Result(Outcome.RESET)], {"max_errors": 0}, Verdict.FAIL),
        ([Result(Outcome.REFUSED)], {}, Verdict.UNMEASURED),
        (["one", Result(Outcome.LOCAL)], {"max_errors": 9}, Verdict.UNMEASURED),
        (["one"], {}, None),
        ([], {}, Verdict.UNMEASURED),
    ],
)
def test_failures_and_the_verdict(
    results: list[Result | str], settings: dict[str, Any], verdict: Verdict | None
) -> None:
    """Where nothing answers, nothing is measured; once something did, failures are the route's."""
    assert made(results, **settings).verdict == verdict


@pytest.mark.parametrize("outcome", [Outcome.RESET, Outcome.REFUSED, Outcome.WRONG_ECHO])
@pytest.mark.parametrize("settings", [{}, {"expect": {"one": 1}}])
def test_probe_ends_soon_where_nothing_answers(outcome: Outcome, settings: dict[str, Any]) -> None:
    """Twenty failures of twenty; but a dead canary that comes first is not the whole route."""
    assert made([Result(outcome)] * 100, **settings).connections == 20
    late = made([Result(outcome)] * 19 + ["one"] * 50, **settings)
    assert late.connections > 19
    assert late.verdict is (Verdict.FAIL if settings else None)


def test_another_protocol_is_named_whatever_is_accepted() -> None:
    """Thousands of connections are not fired at a server that speaks something else."""
    report = made([Result(Outcome.WRONG_ECHO)] * 5000, max_errors=5000)
    assert report.connections == 20
    assert "all 20 answers were wrong: the server speaks another protocol" in str(report)
    assert made([Result(Outcome.RESET)] * 500, max_errors=5000).connections == 500


def test_sticky_by_source_does_not_pass() -> None:
    """Ten addresses that each keep their backend are ten draws, however good the sum looks."""
    sources = [f"127.0.0.{number}" for number in range(1, 11)]
    names = ["one"] * 8 + ["two"] * 2
    report = made(
        names * 300, expect={"one": 80, "two": 20}, source_addresses=sources, connections=3000
    )
    assert report.verdict is Verdict.INCONCLUSIVE
    assert "sticky by source address: 10 of 10 addresses always got the same backend" in str(report)
    assert "rotation" not in str(report)
    assert report.counts.sources["127.0.0.9"] == {"two": 300}
    free = made(
        drawn({"one": 80, "two": 20}, 3000, 1),
        expect={"one": 80, "two": 20},
        source_addresses=sources,
    )
    assert free.verdict is Verdict.PASS
    assert free.counts.sources.keys() == set(sources)
