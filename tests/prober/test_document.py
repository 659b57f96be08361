"""The report as JSON: valid whatever happened, and the same when read back."""

from __future__ import annotations

import json
from contextlib import suppress
from importlib.resources import files
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from jsonschema import Draft202012Validator
from profiles import examples
from reports import drawn, made, ok

from trio_echo.errors import TrioEchoError
from trio_echo.prober.counts import Outcome, Result
from trio_echo.prober.document import from_json, to_json
from trio_echo.prober.split import Verdict

if TYPE_CHECKING:
    from trio_echo.prober.words import Report

SCHEMA = json.loads(files("trio_echo.prober").joinpath("report.schema.json").read_text("utf-8"))
EIGHTY_TWENTY = {"one": 80.0, "two": 20.0}


def checked(report: Report) -> dict[str, Any]:
    """The report's JSON, valid by the schema, in ASCII, one object on one line."""
    text = to_json(report)
    assert text.isascii()
    assert text.count("\n") == 1
    document: dict[str, Any] = json.loads(text)
    Draft202012Validator(SCHEMA).validate(document)
    return document


def test_schema_is_one() -> None:
    """The schema itself is valid, and knows every outcome and verdict."""
    Draft202012Validator.check_schema(SCHEMA)
    assert set(SCHEMA["properties"]["outcomes"]["required"]) == {word.value for word in Outcome}
    assert set(SCHEMA["properties"]["verdict"]["enum"]) == {*Verdict, None}


@pytest.mark.parametrize(
    "report",
    [
        made(drawn(EIGHTY_TWENTY, 3000, 1), expect=EIGHTY_TWENTY),
        made(drawn({"one": 1, "two": 1}, 3000, 1), expect=EIGHTY_TWENTY),
        made(drawn(EIGHTY_TWENTY, 50, 1), expect=EIGHTY_TWENTY),
        made(drawn(EIGHTY_TWENTY, 50, 1), rate=100),
        made([Result(Outcome.RESOLVE, detail="no")]),
        made([ok("one"), Result(Outcome.LOCAL, detail="out of ports")]),
        made([ok("one", mixed=True)], expect=EIGHTY_TWENTY),
        made(["\x00\ud800\U0010ffff"], expect={"": 1, "\x1b": 0}),
        made([]),
    ],
    ids=["pass", "fail", "open", "rate", "resolve", "local", "mixed", "hostile", "empty"],
)
def test_valid_and_the_same_when_read_back(report: Report) -> None:
    """Every ending gives a valid object, and nothing that a merge needs is lost."""
    document = checked(report)
    again = from_json(json.dumps(document))
    assert checked(again) == document
    assert str(again) == str(report)


@examples(0.2)
@given(names=st.lists(st.text(max_size=5), max_size=20), expected=st.text(max_size=5))
def test_any_name_survives(names: list[str], expected: str) -> None:
    """Whatever backends call themselves."""
    report = made(names, expect={expected: 1})
    document = checked(report)
    assert checked(from_json(json.dumps(document))) == document


def test_figures_are_there_for_others() -> None:
    """A reader without statistics finds shares, intervals and percentiles."""
    document = checked(made(drawn(EIGHTY_TWENTY, 3000, 1), expect=EIGHTY_TWENTY))
    assert document["verdict"] == "PASS"
    one = document["backends"][0]
    assert one["name"] == "one"
    assert one["interval"][0] < one["share"] < one["interval"][1]
    assert one["band"] == pytest.approx([0.75, 0.85])
    assert one["answer"]["50"] == pytest.approx(0.004, rel=0.01)
    [run] = document["runs"]
    assert run["running"]["names"] == ["one", "two"]
    assert run["running"]["points"][-1][0] == document["connections"]


@pytest.mark.parametrize("text", ["", "[]", "null", "{}", '{"format": []', "[" * 100_000, b"\xff"])
def test_other_things_are_refused(text: str | bytes) -> None:
    """Whatever is no report of ours."""
    with pytest.raises(TrioEchoError, match="not a report of trio-echo"):
        from_json(text)


def test_other_formats_are_refused() -> None:
    """A report of another version is named as such."""
    with pytest.raises(TrioEchoError, match="a report of format 1; this version reads format 2"):
        from_json('{"format": 1}')


@examples(0.5)
@given(data=st.data())
def test_damage_is_refused(data: st.DataObject) -> None:
    """A field gone or of another kind gives one clear error, never a traceback."""
    document = json.loads(to_json(made(drawn(EIGHTY_TWENTY, 50, 1), expect=EIGHTY_TWENTY)))
    place: Any = document
    path = [data.draw(st.sampled_from(sorted(set(place) - {"format"})))]
    while isinstance(place[path[-1]], dict) and place[path[-1]]:
        place = place[path[-1]]
        path.append(data.draw(st.sampled_from(sorted(place))))
    if data.draw(st.booleans()):
        del place[path[-1]]
    else:
        place[path[-1]] = data.draw(st.sampled_from([-1, "x", [1], {}, None, 1e400]))
    # Some values do no harm (a field that is text anyway); the rest must be refused.
    with suppress(TrioEchoError):
        str(from_json(json.dumps(document)))


def test_counts_are_counted_not_believed() -> None:
    """A count that is none is named."""
    document = json.loads(to_json(made(["one"])))
    counts = document["runs"][0]["counts"]
    counts["mixed"] = -1
    with pytest.raises(TrioEchoError, match=r"damaged report: ValueError.*-1 is no count"):
        from_json(json.dumps(document))
    counts["mixed"] = 0
    document["expectation"]["margin"] = 7
    with pytest.raises(TrioEchoError, match="damaged report: must be more than 0 and less than 1"):
        from_json(json.dumps(document))


def test_counts_that_do_not_agree_are_refused() -> None:
    """Numbers changed by hand do not go unnoticed."""
    document = json.loads(to_json(made(["one"])))
    document["runs"][0]["counts"]["answers"]["one"] = 2
    with pytest.raises(TrioEchoError, match="its counts do not agree"):
        from_json(json.dumps(document))
