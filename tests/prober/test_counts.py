"""Counts as one value: a sum in any order, and the same when read back."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import fields, replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trio_echo.prober.counts import Clue, Counts, Outcome
from trio_echo.prober.latency import Histogram

NUMBERS = st.integers(0, 1000)
NAMES = st.sampled_from(["one", "two", "", "three"])
HISTOGRAMS = st.dictionaries(NUMBERS, st.integers(1, 9), max_size=3).map(Histogram)
COUNTERS = st.dictionaries(NAMES, NUMBERS, max_size=3).map(Counter)
BY_TYPE: dict[str, st.SearchStrategy[Any]] = {
    "int": NUMBERS,
    "Counter[str]": COUNTERS,
    "Counter[Outcome]": st.dictionaries(st.sampled_from(Outcome), NUMBERS, max_size=3).map(Counter),
    "Counter[Clue]": st.dictionaries(st.sampled_from(Clue), NUMBERS, max_size=3).map(Counter),
    "Histogram": HISTOGRAMS,
    "dict[str, Counter[str]]": st.dictionaries(NAMES, COUNTERS, max_size=2),
    "dict[Outcome, Histogram]": st.dictionaries(st.sampled_from(Outcome), HISTOGRAMS, max_size=2),
    "dict[str, Histogram]": st.dictionaries(NAMES, HISTOGRAMS, max_size=2),
}
ANY = st.builds(Counts, **{each.name: BY_TYPE[str(each.type)] for each in fields(Counts)})


@st.composite
def agreeing(draw: st.DrawFn) -> Counts:
    """Counts as a probe makes them, answered and failed connections in one sum."""
    counts = draw(ANY)
    answers = draw(COUNTERS)
    outcomes = counts.outcomes.copy()
    outcomes[Outcome.OK] = answers.total()
    times = {name: Histogram({7: count}) for name, count in answers.items() if count}
    sources = {"127.0.0.1": answers} if draw(st.booleans()) else {}
    return replace(counts, answers=answers, outcomes=outcomes, sources=sources, answer=times)


@given(one=ANY, two=ANY, three=ANY)
def test_sum_is_the_same_in_any_order(one: Counts, two: Counts, three: Counts) -> None:
    """Associative, commutative, and nothing added changes nothing."""
    assert one + two == two + one
    assert (one + two) + three == one + (two + three)
    assert one + Counts() == Counts() + one == one
    assert (one + two).total == one.total + two.total
    assert (one + two).errors == one.errors + two.errors


@given(one=ANY)
def test_sum_shares_nothing(one: Counts) -> None:
    """What a tally lets grow later is not in a sum that was made before."""
    both = one + Counts()
    one.answers["new"] += 1
    one.outcomes[Outcome.OK] += 1
    one.lag.add(1)
    assert both != one
    assert "new" not in both.answers


@given(counts=agreeing())
def test_the_same_when_read_back(counts: Counts) -> None:
    """Through JSON nothing is lost."""
    assert Counts.from_json(json.loads(json.dumps(counts.to_json()))) == counts


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("mixed", -1),
        ("mixed", True),
        ("mixed", "1"),
        ("launched", 1.5),
        ("answers", {"one": 1}),
        ("answers", []),
        ("outcomes", {"no such": 1}),
        ("outcomes", {"ok": 1}),
        ("sources", {"::1": {"one": 1}}),
        ("sources", {"::1": 1}),
        ("answer", {"one": {"buckets": [[3, 1]]}}),
        ("lag", {"buckets": [[-1, 1]]}),
        ("lag", {"buckets": [[1, 0]]}),
        ("lag", {}),
    ],
)
def test_damage_is_seen(field: str, value: object) -> None:
    """Counts that cannot be, or that do not agree with each other, are refused."""
    document = {**Counts().to_json(), field: value}
    with pytest.raises((LookupError, TypeError, ValueError, AttributeError)):
        Counts.from_json(document)


def test_a_field_more_is_declared_once() -> None:
    """Sum and JSON go by the fields: none is named again."""
    assert list(Counts().to_json()) == [each.name for each in fields(Counts)]
