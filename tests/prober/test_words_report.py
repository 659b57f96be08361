"""What no report may claim, whatever was counted, weighed, allowed and added up."""

from __future__ import annotations

import json
import re
from collections import Counter
from dataclasses import replace

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from reports import drawn, made, summed

from trio_echo.prober.counts import Counts, Outcome
from trio_echo.prober.document import from_json, merge, to_json
from trio_echo.prober.latency import Histogram
from trio_echo.prober.remarks import findings, reasons
from trio_echo.prober.split import Expectation, Verdict, off, silent, unexpected
from trio_echo.prober.words import basis, headline

FAILURES = sorted(set(Outcome) - {Outcome.OK})
EIGHTY_TWENTY = {"one": 80.0, "two": 20.0}


def counted(answers: dict[str, int], failures: dict[Outcome, int], mixed: int = 0) -> Counts:
    """Counts that agree with each other."""
    return Counts(
        answers=Counter(answers),
        outcomes=Counter({Outcome.OK: sum(answers.values()), **failures}),
        mixed=mixed,
        answer={name: Histogram({7: count}) for name, count in answers.items() if count},
    )


@st.composite
def expectations(draw: st.DrawFn) -> Expectation:
    """Any weights, margin, tolerance and accepted chance."""
    weights = draw(st.dictionaries(st.sampled_from("abcd"), st.integers(0, 100), max_size=4))
    if not any(weights.values()):
        weights = dict.fromkeys(weights, 1)
    margin = draw(st.none() | st.floats(0.001, 0.9))
    plain = Expectation(weights, margin=margin)
    tolerance = draw(st.just(0.0) | st.floats(0, 0.99).map(lambda part: part * plain.margin))
    alpha = draw(st.sampled_from([1e-6, 0.001, 0.05, 0.3]))
    return Expectation(weights, margin=margin, tolerance=tolerance, alpha=alpha)


COUNTS = st.builds(
    counted,
    st.dictionaries(st.sampled_from("abcde"), st.integers(0, 3000), max_size=5),
    st.dictionaries(st.sampled_from(FAILURES), st.integers(1, 400), max_size=2),
    st.sampled_from([0, 0, 0, 1]),
)


@st.composite
def near(draw: st.DrawFn) -> tuple[Expectation, Counts]:
    """An expectation, and counts that are as expected but for a few."""
    expectation = draw(expectations())
    total = draw(st.integers(0, 20_000))
    answers = {
        name: max(0, round(share * total) + draw(st.integers(-20, 20)))
        for name, share in expectation.shares.items()
    }
    failures = draw(st.dictionaries(st.sampled_from(FAILURES), st.integers(1, 9), max_size=1))
    return expectation, counted(answers, failures)


CASES = st.one_of(near(), st.tuples(expectations(), COUNTS))
LIMITS = st.none() | st.integers(0, 500)


@given(case=CASES, limit=LIMITS, interrupted=st.booleans())
def test_pass_and_fail_say_what_they_say(
    case: tuple[Expectation, Counts], limit: int | None, interrupted: bool
) -> None:
    """No PASS unless every weighted backend answered and nobody else; no FAIL without a reason."""
    expectation, counts = case
    report = summed(counts, expectation, error_limit=limit, interrupted=interrupted)
    overspent = limit is not None and counts.errors > limit
    foul = counts.mixed or unexpected(expectation, counts)
    if report.verdict is Verdict.PASS:
        assert counts.answers.total() > 0
        assert not silent(expectation, counts)
        assert not overspent
        assert not foul
    if report.verdict is Verdict.FAIL:
        assert counts.answers.total() > 0
        assert overspent or (expectation.shares and (foul or off(expectation, counts)))
    if not expectation.shares:
        assert report.verdict in {None, Verdict.UNMEASURED} or overspent
    if not counts.answers.total():
        assert report.verdict in {None, Verdict.UNMEASURED}
    assert headline(report)
    assert basis(report)


@given(case=CASES, limit=LIMITS, lie=st.sampled_from([*Verdict, None]))
def test_a_report_read_back_is_judged_by_its_counts(
    case: tuple[Expectation, Counts], limit: int | None, lie: Verdict | None
) -> None:
    """Whatever verdict stands in the file, and the words are the same."""
    expectation, counts = case
    report = summed(counts, expectation, error_limit=limit)
    document = json.loads(to_json(report)) | {"verdict": lie}
    again = from_json(json.dumps(document))
    assert again.verdict == report.verdict
    assert again.counts == report.counts
    assert str(again) == str(report)


@given(data=st.data(), expectation=expectations(), parts=st.lists(COUNTS, min_size=2, max_size=4))
def test_runs_add_up_the_same_in_any_order(
    data: st.DataObject, expectation: Expectation, parts: list[Counts]
) -> None:
    """Added in another order, or some of them first, a sum says the same."""
    reports = {
        f"{number}.json": summed(
            part, expectation, tag=str(number), error_limit=data.draw(st.integers(0, 400))
        )
        for number, part in enumerate(parts)
    }
    whole = merge(reports)
    shuffled = dict(data.draw(st.permutations(list(reports.items()))))
    assert str(merge(shuffled)) == str(whole)
    assert merge(shuffled).verdict == whole.verdict
    (label, first), *others = shuffled.items()
    some = merge({label: first, **dict(others[:1])})
    nested = merge({"some.json": from_json(to_json(some)), **dict(others[1:])})
    assert nested.verdict == whole.verdict
    assert nested.counts == whole.counts
    if whole.verdict is Verdict.PASS:
        assert Verdict.FAIL not in {report.verdict for report in reports.values()}


@given(case=CASES, unit=st.sampled_from([2.0, 0.5, 1024.0]))
@example(case=(Expectation({"a": 80, "b": 20}), counted({"a": 776, "b": 224}, {})), unit=2.0)
def test_the_unit_of_the_weights_does_not_matter(
    case: tuple[Expectation, Counts], unit: float
) -> None:
    """80 and 20 are 4 and 1."""
    expectation, counts = case
    scaled = Expectation(
        {name: unit * weight for name, weight in expectation.weights.items()},
        margin=expectation.margin,
        tolerance=expectation.tolerance,
        alpha=expectation.alpha,
    )
    assert str(summed(counts, scaled)) == str(summed(counts, expectation))


def test_a_fault_outside_the_counts_leaves_no_verdict() -> None:
    """Who finds that the counts cannot be trusted says so, and it is read back."""
    report = made(drawn(EIGHTY_TWENTY, 3000, 1), expect=EIGHTY_TWENTY)
    assert report.verdict is Verdict.PASS
    doubted = report.unmeasured("somebody else connects")
    assert doubted.verdict is Verdict.UNMEASURED
    assert "  - somebody else connects" in str(from_json(to_json(doubted)))
    other = [replace(run, tag="other") for run in report.runs]
    total = merge({"a": doubted, "b": replace(report, runs=tuple(other))})
    assert total.verdict is Verdict.UNMEASURED
    assert "a: somebody else connects" in str(total)


def test_sum_over_addresses_that_stick_does_not_pass() -> None:
    """Two runs that each had too little to tell may tell it together."""
    sources = [f"127.0.0.{number}" for number in range(1, 11)]
    names = ["one"] * 8 + ["two"] * 2
    reports = {
        tag: made(
            names * 60,
            run=tag,
            expect=EIGHTY_TWENTY,
            source_addresses=sources,
            connections=600,
        )
        for tag in "abcd"
    }
    total = merge(reports)
    assert total.connections == 2400
    assert total.verdict is Verdict.INCONCLUSIVE
    assert "sticky by source address" in str(total)


def test_a_report_is_its_words_wherever_it_is_shown() -> None:
    """As the message of a failed assertion too, which shows 240 characters of its repr."""
    report = made(["two"] * 60, expect=EIGHTY_TWENTY)
    assert repr(report).startswith(
        "FAIL: 127.0.0.1:9000 (echo.test) does not split as expected: one 80 %, two 20 %; "
        "one has 0.0 % of 10, expected 80 %: the true share is 0.0 to 79.2 %"
    )
    assert len(repr(report)) <= 240
    assert repr(made(["one"])) == "MEASURED: 127.0.0.1:9000 (echo.test)"


@pytest.mark.parametrize(
    ("answers", "failures", "asked", "code", "words"),
    [
        (
            {"one": 2888, "two": 862},
            {},
            {},
            "share",
            (
                "one has 77.0 % of 3750, expected 80 %: the true share is 73.9 to 79.97 %, "
                "which is inside the margin of 5 points: if the balancer rounds shares, "
                "accept it with --tolerance"
            ),
        ),
        (
            {"one": 50, "two": 50},
            {},
            {},
            "share",
            ("one has 50.0 % of 100, expected 80 %: the true share is 28.9 to 71.1 %"),
        ),
        (
            {"one": 240, "two": 60},
            {},
            {},
            "undecided",
            "about 1400 connections with these shares would decide it",
        ),
        (
            {"one": 800},
            {Outcome.RESET: 200},
            {},
            "undecided",
            (
                "the 200 connections that failed may have been meant for any backend: "
                "fix these failures first, more connections would not decide it"
            ),
        ),
        (
            {"one": 75, "two": 25},
            {},
            {"margin": 0.06, "tolerance": 0.05},
            "undecided",
            "about 43000 connections with these shares would decide it",
        ),
        (
            {"one": 75, "two": 25},
            {},
            {"margin": 0.05, "tolerance": 0.0499999},
            "undecided",
            "more connections with these shares would not decide it: another --margin would",
        ),
    ],
)
def test_what_would_bring_a_verdict(
    answers: dict[str, int],
    failures: dict[Outcome, int],
    asked: dict[str, float],
    code: str,
    words: str,
) -> None:
    """How far off a share is, how many connections would do, and what is in the way."""
    report = summed(counted(answers, failures), Expectation(EIGHTY_TWENTY, **asked))
    texts = [remark.text for remark in reasons(report) if remark.code == code]
    assert any(words in text for text in texts), texts


@given(
    total=st.integers(1, 5000),
    part=st.floats(0, 1),
    weight=st.integers(0, 100),
    tolerance=st.sampled_from([0.0, 0.001]),
)
def test_an_expected_share_is_seen_to_lie_outside(
    total: int, part: float, weight: int, tolerance: float
) -> None:
    """However near it is, the interval in words does not hold what is accepted."""
    ones = int(total * part)
    expectation = Expectation({"one": weight, "two": 100 - weight}, tolerance=tolerance)
    report = summed(counted({"one": ones, "two": total - ones}, {}), expectation)
    for remark in reasons(report):
        if remark.code == "share" and remark.backend is not None:
            found = re.search(r"the true share is ([\d.]+) to ([\d.]+) %", remark.text)
            assert found is not None
            expected = 100 * expectation.shares[remark.backend]
            low, high = float(found[1]), float(found[2])
            assert low > expected + 100 * tolerance or high < expected - 100 * tolerance


def test_a_tolerance_is_said_with_the_expected_share() -> None:
    """What the interval lies outside of."""
    expectation = Expectation(EIGHTY_TWENTY, tolerance=0.03)
    first, _ = reasons(summed(counted({"one": 600, "two": 400}, {}), expectation))
    assert first.text == (
        "one has 60.0 % of 1000, expected 80 % (tolerance 3 points): "
        "the true share is 52.9 to 66.8 %"
    )


@pytest.mark.parametrize(("count", "said"), [(1, False), (14, False), (15, True)])
def test_few_connections_show_no_pattern(count: int, said: bool) -> None:
    """That all went to one is nothing to guess from where all is one."""
    report = summed(counted({"two": count}, {}), Expectation({"one": 1}))
    assert ("all-to-one" in [each.code for each in findings(report)]) is said


def test_tolerance_passes_what_a_balancer_rounds() -> None:
    """77.6 % for 80 % is no longer a coin toss, and the words say what was promised."""
    counts = counted({"one": 2888, "two": 862}, {})
    assert summed(counts, Expectation(EIGHTY_TWENTY)).verdict is Verdict.FAIL
    tolerant = Expectation(EIGHTY_TWENTY, tolerance=0.03)
    assert summed(counts, tolerant).verdict is Verdict.INCONCLUSIVE
    more = counted({"one": 7760, "two": 2240}, {})
    assert summed(more, tolerant).verdict is Verdict.PASS
    wrong = summed(
        counted({"one": 600, "two": 400}, {}), Expectation(EIGHTY_TWENTY, tolerance=0.03)
    )
    assert wrong.verdict is Verdict.FAIL
    assert "a split off by 3 points or less fails with a chance of 0.001 at most" in str(wrong)


def test_dead_canary_fails_at_every_weight() -> None:
    """It is small, so it takes long; it never passes on the way."""
    for weight in (5, 1):
        expect = {"one": 100.0 - weight, "two": float(weight)}
        report = made(["one"] * 50_000, expect=expect)
        assert report.verdict is Verdict.FAIL
        assert report.connections < 1200
