"""The trial's own arithmetic: it may accuse the probe only with reason."""

from __future__ import annotations

from collections import Counter
from itertools import chain, product, repeat
from math import ceil
from typing import TYPE_CHECKING

import pytest
from balancer import Balancer, weighted
from hypothesis import given
from hypothesis import strategies as st
from profiles import examples
from scipy.stats import binom, binomtest
from trial.__main__ import main
from trial.cases import CASES, Case
from trial.exact import Chances, Question, chances
from trial.figures import (
    Figures,
    chance_of_as_many,
    delays_table,
    exact_table,
    lengths_table,
    peeking_table,
    short_table,
    table,
)
from trial.judging import Judged, endings, fed, over_sockets
from trial.moves import Delays, Lengths, delays, lengths, rejected_from
from trial.peeking import ALPHA, Peeked, peek
from trial.usual import five_in_five_hundred, seen_in_twenty, ten_in_hundred, two_in_ten

from trio_echo.prober.config import ProbeConfig
from trio_echo.prober.counts import Counts, Outcome
from trio_echo.prober.split import Expectation, Verdict, judge

if TYPE_CHECKING:
    from collections.abc import Iterable

    from trial.usual import Draw

ASKED = {"one": 0.8, "two": 0.2}


@given(total=st.integers(1, 400), share=st.floats(0.001, 0.5), data=st.data())
def test_the_binomial_tail_is_scipys(total: int, share: float, data: st.DataObject) -> None:
    """P(X >= hits), from the first to the last."""
    hits = data.draw(st.integers(0, total))
    expected = float(binom.sf(hits - 1, total, share))
    assert chance_of_as_many(hits, total, share) == pytest.approx(expected, rel=1e-6, abs=1e-12)


@examples(0.3)
@given(
    delays=st.dictionaries(st.sampled_from(["one", "two"]), st.floats(0, 1)),
    in_flight=st.integers(1, 20),
    seed=st.integers(0, 9),
)
def test_every_connection_ends_once_and_none_before_its_launch(
    delays: dict[str, float], in_flight: int, seed: int
) -> None:
    """Delays change the order of ending, and neither the draws nor how many are in flight."""
    weights = {"one": 1, "two": 1}
    balancer = Balancer(choose=weighted(weights, seed), delays=delays)
    config = ProbeConfig(target="localhost:1", connections=50, concurrency=in_flight)
    ended = list(endings(balancer, config))
    assert sorted(index for index, _ in ended) == list(range(50))
    choose = weighted(weights, seed)
    assert [result.name for _, result in sorted(ended)] == [choose("") for _ in range(50)]
    assert all(index < turn + in_flight for turn, (index, _) in enumerate(ended))
    if not delays:
        assert [index for index, _ in ended] == list(range(50))


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_fed_and_over_sockets_come_to_the_same(case: Case) -> None:
    """The same verdict and words, after the same number of connections."""
    assert over_sockets(case, 7, margin=0.2, alpha=0.05) == fed(case, 7, margin=0.2, alpha=0.05)


@pytest.mark.parametrize("truth", [0.5, 0.7, 0.8])
def test_chances_are_those_of_all_sequences(truth: float) -> None:
    """Every sequence of a dozen connections, one by one, gives the same chances."""
    budget = 12
    expectation = Expectation({"a": 80, "b": 20}, margin=0.45, alpha=0.3)
    ends = dict.fromkeys(Verdict, 0.0)
    for sequence in product("ab", repeat=budget):
        verdict, looks = Verdict.INCONCLUSIVE, 0
        while verdict is Verdict.INCONCLUSIVE and looks < budget:
            looks += 1
            answers = Counter(sequence[:looks])
            verdict = judge(
                expectation, Counts(answers=answers, outcomes=Counter({Outcome.OK: looks}))
            )
        hits = sequence.count("a")
        ends[verdict] += truth**hits * (1 - truth) ** (budget - hits)
    found = chances(expectation, truth, budget)
    assert found.passes == pytest.approx(ends[Verdict.PASS])
    assert found.fails == pytest.approx(ends[Verdict.FAIL])
    assert found.undecided == pytest.approx(ends[Verdict.INCONCLUSIVE])
    assert min(found.fails, found.undecided) > 0.01


def test_measured_and_computed_agree() -> None:
    """Three hundred runs are what their computed chances make likely."""
    runs = 300
    case = CASES[0]
    failed = sum(
        fed(case, seed, margin=0.15, alpha=0.2).verdict is Verdict.FAIL for seed in range(runs)
    )
    found = chances(Expectation(case.expect, margin=0.15, alpha=0.2), 0.8, 5000)
    assert 0.05 < found.fails < 0.2
    assert binomtest(failed, runs, found.fails).pvalue > 0.001


def test_a_computed_promise_is_broken_by_any_excess() -> None:
    """A false alarm within the tolerance, a miss from the margin on; nothing between."""
    fails, passes = Chances(0.0, 0.0011, 1), Chances(0.0011, 0.0, 1)
    for asked, given_to_it, tolerance, wrong in (
        (80, 80, 0.0, Verdict.FAIL),
        (80, 77, 0.03, Verdict.FAIL),
        (80, 77, 0.02, None),
        (80, 75, 0.0, Verdict.PASS),
        (80, 50, 0.0, Verdict.PASS),
        (99, 98.5, 0.0, Verdict.PASS),
        (99, 98.6, 0.0, None),
    ):
        question = Question(asked=asked, given=given_to_it, tolerance=tolerance)
        assert question.wrong is wrong
        assert question.broken_by(fails) is (wrong is Verdict.FAIL)
        assert question.broken_by(passes) is (wrong is Verdict.PASS)
        assert not question.broken_by(Chances(0.0009, 0.0009, 1))


def figures(*, wrong: Verdict | None, failed: int) -> Figures:
    """A hundred runs, of which some failed."""
    runs = [Judged(Verdict.FAIL, 10, ("drift",))] * failed
    runs += [Judged(Verdict.PASS, 20, ())] * (100 - failed)
    return Figures(
        name="a case", right="accept", wrong=wrong, alpha=0.05, runs=runs, accepted={"usual": 25}
    )


def test_a_promise_is_broken_only_beyond_chance() -> None:
    """Of 100 runs 5 may be wrong; 15 of one case, but not of one of 13, are too many."""
    assert not figures(wrong=Verdict.FAIL, failed=5).broken(1)
    assert figures(wrong=Verdict.FAIL, failed=15).broken(1)
    assert not figures(wrong=Verdict.FAIL, failed=15).broken(13)
    assert figures(wrong=Verdict.FAIL, failed=20).broken(13)
    assert not figures(wrong=None, failed=100).broken(1)


def test_the_tables_say_it() -> None:
    """Promise, verdicts, median, words and the usual check, in a row of Markdown."""
    head, rule, row = table([figures(wrong=Verdict.FAIL, failed=3)]).splitlines()
    assert set(rule) == {"|", "-"}
    assert len(head) == len(rule) == len(row)
    assert [cell.strip() for cell in row.split("|")[1:-1]] == [
        "a case",
        "accept",
        "FAIL <= 5 %",
        "97 %",
        "3 %",
        "20",
        "drift 3 %",
        "25 %",
    ]
    question = Question(asked=80, given=77.6, tolerance=0.03)
    exact = exact_table({question: Chances(0.99915, 0.00051, 1493)}).splitlines()[-1]
    assert [cell.strip() for cell in exact.split("|")[1:-1]] == [
        "80/20, tolerance 3 points",
        "77.6/22.4",
        "FAIL <= 0.1 %",
        "99.915 %",
        "0.051 %",
        "0.034 %",
        "1493",
        "28929",
    ]

    row = short_table([figures(wrong=Verdict.FAIL, failed=97)]).splitlines()[-1]
    assert [cell.strip() for cell in row.split("|")[1:-1]] == ["a case", "75 %", "97 %", "10"]
    row = peeking_table([Peeked(1000, 0.414, 0.0333)]).splitlines()[-1]
    assert [cell.strip() for cell in row.split("|")[1:-1]] == ["1,000", "41.4 %", "3.3 %"]


def test_one_look_keeps_its_promise_and_many_do_not() -> None:
    """One z-test is scipy's binomial; of many looks only the judge's stay below 5 %."""
    once, often = peek(1), peek(300)
    right = binom.cdf(16, 25, 0.8) + binom.sf(23, 25, 0.8)
    assert once.fixed == pytest.approx(float(right))
    assert once.always < often.always < ALPHA < once.fixed < 0.3 < often.fixed


@pytest.mark.parametrize("size", [50, 200, 1000])
def test_a_window_refuses_as_rarely_as_promised(size: int) -> None:
    """By scipy's binomial: one less would be too many false alarms."""
    enough = rejected_from(size)
    for off, kept in ((enough, True), (enough - 1, False)):
        below = float(binom.cdf(ceil(0.8 * size - off), size, 0.8))
        above = float(binom.sf(0.8 * size + off - 1, size, 0.8))
        assert (below + above <= size * 1e-6) is kept


def test_delays_and_lengths_are_measured() -> None:
    """Few runs: the order of magnitude, and what the tables make of it."""
    found = delays("50/50", 3)
    assert found.detector is not None
    assert 20 < found.detector < 120
    assert found.off < 30
    long = lengths(100, 20)
    assert not long.broken
    assert Lengths(100, 50, 5).broken
    row = delays_table([Delays("75/25", 1140, 22.5, (None, 7, 8))]).splitlines()[-1]
    assert [cell.strip() for cell in row.split("|")[1:-1]] == ["75/25", "1140", "22", "-", "7", "8"]
    row = lengths_table([Lengths(100, 119.6, 5.8)]).splitlines()[-1]
    assert [cell.strip() for cell in row.split("|")[1:-1]] == [">= 100", "120", "6"]


def answers(names: Iterable[str | None]) -> Draw:
    """Requests that are answered by these, one after another."""
    following = iter(names)
    return lambda: next(following)


def test_seen_in_twenty_is_content_with_one_of_each() -> None:
    """Nineteen to one is as good as any; who has no weight need not be seen."""
    assert seen_in_twenty(answers(["one"] * 19 + ["two"]), ASKED)
    assert not seen_in_twenty(answers(["one"] * 20 + ["two"]), ASKED)
    assert seen_in_twenty(answers(["one"] * 20), {"one": 1.0, "two": 0.0})


@pytest.mark.parametrize(("hits", "accepts"), [(5, False), (6, True), (10, True)])
def test_two_in_ten_is_content_with_none_of_two(hits: int, accepts: bool) -> None:
    """Ten of ten will do for 80 %."""
    assert two_in_ten(answers(["one"] * hits + ["two"] * (10 - hits)), ASKED) is accepts


@pytest.mark.parametrize(("hits", "accepts"), [(69, False), (70, True), (90, True), (91, False)])
def test_ten_in_hundred_counts_to_ten(hits: int, accepts: bool) -> None:
    """70 of 100 will do for 80, 69 will not."""
    names = ["one"] * hits + ["two"] * (100 - hits)
    assert ten_in_hundred(answers(names), ASKED) is accepts


RIGHT = ["one"] * 400 + ["two"] * 100
WRONG = ["one"] * 374 + ["two"] * 126


@pytest.mark.parametrize(
    ("tries", "accepts"),
    [
        ([RIGHT], True),
        ([WRONG] * 9 + [RIGHT], True),
        ([WRONG] * 10 + [RIGHT], False),
        ([[None, *RIGHT[1:]], RIGHT], True),
        ([[None, *RIGHT[1:]]] * 10, False),
        ([["three", *RIGHT[1:]]] * 10, False),
        ([["one"] * 500] * 10, False),
    ],
)
def test_five_in_five_hundred_forgets_nine_failures(
    tries: list[list[str | None]], accepts: bool
) -> None:
    """The tenth try makes up for all; a failed or unknown answer spoils its own try."""
    names = chain(chain.from_iterable(tries), repeat(None))
    assert five_in_five_hundred(answers(names), ASKED) is accepts


def test_the_trial_runs(capsys: pytest.CaptureFixture[str]) -> None:
    """A small one, in its own processes: a row for each case, and no promise is broken.

    The computed chances are those of every run: that the bound of 1 in 1000
    holds at the defaults is checked here for 80/20. The smaller weights, which
    take a hundred times as long, are left to the whole trial.
    """
    small = ["--runs", "2", "--sockets", "0", "--moves", "2", "--questions", "8"]
    assert main(small) == 0
    printed = capsys.readouterr().out
    assert all(f"| {case.name} " in printed for case in CASES)
    assert "BROKEN PROMISE" not in printed
