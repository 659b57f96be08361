"""Several runs as one: what adds up, what is refused, and what the sum may claim."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from profiles import examples
from reports import drawn, made

from trio_echo.errors import TrioEchoError
from trio_echo.prober.counts import Counts, Outcome, Result
from trio_echo.prober.document import from_json, merge, to_json
from trio_echo.prober.split import Verdict, judge

if TYPE_CHECKING:
    from collections.abc import Sequence

    from trio_echo.prober.words import Report

EIGHTY_TWENTY = {"one": 80.0, "two": 20.0}


def runs(*parts: Sequence[str | Result], **kind: Any) -> dict[str, Report]:
    """Reports of runs that met these results, by the name of their file."""
    kind = {"expect": EIGHTY_TWENTY, **kind}
    return {
        f"{number}.json": made(part, run=f"run {number}", **kind)
        for number, part in enumerate(parts)
    }


@examples(0.3)
@given(
    parts=st.lists(
        st.lists(st.sampled_from(["one", "two", "two"]), max_size=30), min_size=1, max_size=4
    )
)
def test_counts_add_up(parts: list[list[str]]) -> None:
    """Nothing is lost, and the sum can be written and read like any report."""
    reports = runs(*parts, expect={})
    merged = merge(reports)
    assert merged.counts == sum((report.counts for report in reports.values()), Counts())
    assert merged.connections == sum(report.connections for report in reports.values())
    assert merged.points[-1].total == merged.connections
    for name, histogram in merged.counts.answer.items():
        assert histogram.count == merged.counts.answers[name]
    assert to_json(from_json(to_json(merged))) == to_json(merged)


def test_undecided_runs_decide_together() -> None:
    """Four runs of 600 say what none of them could."""
    reports = runs(*(drawn(EIGHTY_TWENTY, 600, seed) for seed in range(4)))
    assert {report.verdict for report in reports.values()} == {Verdict.INCONCLUSIVE}
    merged = merge(reports)
    assert merged.verdict is Verdict.PASS
    assert "2400 connections" in str(merged)
    assert "4 runs" in str(merged)
    assert merged.drift is None


def test_wrong_split_fails_together() -> None:
    """The same for a split that is off by a little."""
    reports = runs(*(drawn({"one": 74, "two": 26}, 500, seed) for seed in range(6)))
    assert merge(reports).verdict is Verdict.FAIL


def test_one_run_is_itself() -> None:
    """A single report goes through unchanged."""
    reports = runs(drawn(EIGHTY_TWENTY, 100, 1))
    assert merge(reports) is reports["0.json"]


def test_weights_in_another_unit_are_the_same_expectation() -> None:
    """80 and 20 are 4 and 1."""
    reports = runs(["one"])
    reports |= {"b.json": made(["two"], run="b", expect={"two": 1, "one": 4})}
    assert merge(reports).connections == 2


@pytest.mark.parametrize(
    ("other", "words"),
    [
        (
            {"expect": {"one": 50, "two": 50}},
            "b.json: expects shares 'one' 50 %, 'two' 50 %, but 0.json expects 'one' 80 %",
        ),
        ({"expect": {}}, "b.json: expects shares of nobody, but 0.json expects 'one' 80 %"),
        ({"expect": EIGHTY_TWENTY, "margin": 0.1}, "b.json: expects --margin 0.1"),
        ({"expect": EIGHTY_TWENTY, "tolerance": 0.01}, "b.json: expects --tolerance 0.01"),
        ({"expect": EIGHTY_TWENTY, "alpha": 0.1}, "b.json: expects --alpha 0.1"),
    ],
)
def test_other_expectations_are_refused_by_name(other: dict[str, Any], words: str) -> None:
    """Only runs that were to show the same thing can be added up."""
    reports = runs(["one"]) | {"b.json": made(["one"], run="b", **other)}
    with pytest.raises(TrioEchoError) as refused:
        merge(reports)
    assert words in str(refused.value)


def test_same_run_twice_is_refused() -> None:
    """Counting a run twice would double its weight; also inside of a sum."""
    reports = runs(["one"], ["two"])
    with pytest.raises(TrioEchoError, match=r"c.json: holds the same run as 0.json"):
        merge(reports | {"c.json": reports["0.json"]})
    with pytest.raises(TrioEchoError, match=r"c.json: holds the same run as 0.json"):
        merge(reports | {"c.json": merge(reports)})


def test_sum_does_not_hide_runs_that_disagree() -> None:
    """Half of the runs all to one and half all to two are no even split."""
    # Each stopped after a few connections; enough such runs make a perfect sum.
    reports = runs(*[["one"] * 40, ["two"] * 40] * 80, expect={"one": 50, "two": 50})
    assert {report.verdict for report in reports.values()} == {Verdict.FAIL}
    merged = merge(reports)
    assert judge(merged.expectation, merged.counts) is Verdict.PASS
    assert merged.verdict is Verdict.INCONCLUSIVE
    assert "0.json: failed by itself" in str(merged)
    assert "more --connections" not in str(merged)


def test_run_that_could_not_measure_leaves_a_hole() -> None:
    """The others may have proven it; a PASS would hide that one of them was blind."""
    good = [drawn(EIGHTY_TWENTY, 2500, seed) for seed in range(2)]
    merged = merge(runs(*good, [Result(Outcome.REFUSED, detail="Connection refused")]))
    assert judge(merged.expectation, merged.counts) is Verdict.PASS
    assert merged.verdict is Verdict.UNMEASURED
    assert "2.json: could not measure" in str(merged)
    assert merged.examples == {Outcome.REFUSED: "Connection refused"}


def test_run_with_too_many_failures_fails_the_sum() -> None:
    """What one run had left to spend does not pay for another."""
    good: list[str | Result] = [*drawn(EIGHTY_TWENTY, 2500, 1)]
    bad: list[str | Result] = ["one", *[Result(Outcome.RESET)] * 4]
    reports = runs(good, good, bad, max_errors=3)
    assert [report.verdict for report in reports.values()] == ["PASS", "PASS", "FAIL"]
    merged = merge(reports)
    assert merged.error_limit == 9
    assert merged.verdict is Verdict.FAIL
    assert "2.json: 4 of its connections failed" in str(merged)
    assert str(merged).startswith("FAIL: connections to 127.0.0.1:9000 (echo.test) failed")


def test_interrupted_run_counts_and_is_said() -> None:
    """Its connections are as good as any."""
    reports = runs(drawn(EIGHTY_TWENTY, 300, 1), drawn(EIGHTY_TWENTY, 300, 2))
    document = to_json(reports["1.json"]).replace('"interrupted": false', '"interrupted": true')
    merged = merge({**reports, "1.json": from_json(document)})
    assert merged.connections == 600
    assert merged.verdict is Verdict.INCONCLUSIVE
    assert "1.json: was interrupted after 300 connections" in str(merged)


def test_nothing_expected_has_no_verdict() -> None:
    """Shares and latencies add up all the same."""
    merged = merge(runs(["one"], ["two", "two"], expect={}))
    assert merged.verdict is None
    assert merged.counts.answers == {"one": 1, "two": 2}


def test_different_targets_are_all_named() -> None:
    """Two clusters with one expectation may be added up; the sum says both."""
    reports = runs(drawn(EIGHTY_TWENTY, 100, 1))
    reports |= {"b.json": made(["one"], run="b", expect=EIGHTY_TWENTY, target="other.test:9000")}
    merged = merge(reports)
    assert merged.address == "127.0.0.1:9000"
    assert merged.target == "echo.test:9000, other.test:9000"
    [run] = reports["b.json"].runs
    reports["b.json"] = replace(reports["b.json"], runs=(replace(run, address="127.0.0.2:9000"),))
    assert "echo.test:9000, other.test:9000 may or may not" in str(merge(reports))


def test_runs_that_ask_alike_add_up() -> None:
    """One name stands for one backend only where it was found in the same way."""
    asking = {"identify": r"version:(\S+)", "send": b"INFO\r\n"}
    pytest.importorskip("re2", reason="google-re2 is not installed: pip install google-re2")
    reports = runs(["one"], ["one"], **asking)
    merged = merge({name: from_json(to_json(report)) for name, report in reports.items()})
    assert merged.counts.answers == {"one": 2}
    assert merged.runs[0].asked == {"send": r"INFO\r\n", "identify": r"version:(\S+)"}
    reports["2.json"] = made(["one"], run="run 2", expect=EIGHTY_TWENTY)
    with pytest.raises(TrioEchoError) as refused:
        merge(reports)
    assert str(refused.value) == (
        "2.json: its backends were named by their echo, but those of 0.json by --identify "
        r"'version:(\S+)' --send 'INFO\r\n'; only runs that ask in the same way can be added up"
    )


def test_a_report_from_before_other_protocols_is_read() -> None:
    """It says nothing of how backends were asked, since all were echoes."""
    document = json.loads(to_json(made(["one"])))
    del document["runs"][0]["asked"]
    assert from_json(json.dumps(document)).runs[0].asked == {}
