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
from trio_echo.prober.document import error_json, from_json, merge, to_json
from trio_echo.prober.junit import to_junit
from trio_echo.prober.picture import to_svg
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


def places(value: object) -> list[Any]:
    """The fields of an object, the places of a list; none for all else."""
    if isinstance(value, dict):
        return sorted(set(value) - {"format"})
    return list(range(len(value))) if isinstance(value, list) else []


@examples(0.5)
@given(data=st.data())
def test_damage_is_refused(data: st.DataObject) -> None:
    """A field gone or of another kind gives one clear error, never a traceback."""
    document = json.loads(to_json(made(drawn(EIGHTY_TWENTY, 50, 1), expect=EIGHTY_TWENTY)))
    place: Any = document
    while True:
        at = data.draw(st.sampled_from(places(place)))
        if not places(place[at]) or data.draw(st.integers(0, 9)) == 0:
            break
        place = place[at]
    if data.draw(st.booleans()):
        del place[at]
    else:
        place[at] = data.draw(st.sampled_from([-1, 0.5, "x", [1], {"a": 1}, {}, None, True, 1e400]))
    # Some values do no harm (a field that is text anyway); the rest must be refused.
    with suppress(TrioEchoError):
        report = from_json(json.dumps(document))
        assert str(merge({"a": report})) == str(report)
        to_svg(report)
        to_junit(report)


def test_counts_are_counted_not_believed() -> None:
    """A count that is none is named."""
    document = json.loads(to_json(made(["one"])))
    counts = document["runs"][0]["counts"]
    counts["mixed"] = -1
    with pytest.raises(TrioEchoError, match=r"damaged report: runs\[0\]\.counts: -1 is no count"):
        from_json(json.dumps(document))
    counts["mixed"] = 0
    document["expectation"]["margin"] = 7
    reason = "damaged report: expectation: must be more than 0 and less than 1"
    with pytest.raises(TrioEchoError, match=reason):
        from_json(json.dumps(document))


def test_counts_that_do_not_agree_are_refused() -> None:
    """Numbers changed by hand do not go unnoticed."""
    document = json.loads(to_json(made(["one"])))
    document["runs"][0]["counts"]["answers"]["one"] = 2
    with pytest.raises(TrioEchoError, match="its counts do not agree"):
        from_json(json.dumps(document))


@pytest.mark.parametrize(
    ("place", "value"),
    [
        (("began",), "yesterday"),
        (("began",), "2026-08-01"),
        (("began",), {"x": 1}),
        (("tag",), None),
        (("address",), ["x" * 10_000]),
        (("examples",), 1),
        (("elapsed",), -1),
        (("elapsed",), 1e300),
        (("max_errors",), -1),
        (("max_errors",), 0.5),
        (("changes",), {"changes": 1, "expected": 1e400, "variance": 1}),
        (("running", "points"), [{"a": 1}]),
        (("running", "points"), []),
        (("running", "points"), [[1, 0, 1.0]]),
        (("running", "points"), [[1, 1, 1]]),
        (("running", "points"), [[2, 0, 2], [1, 0, 1]]),
        (("counts", "answers", "one"), 2**80),
        (("counts", "lag"), {"buckets": [[10**6, 1]]}),
    ],
)
def test_damage_is_named(place: tuple[str, ...], value: object) -> None:
    """One short line that says so and names the field, whatever is wrong."""
    document = json.loads(to_json(made(["one"])))
    at = document["runs"][0]
    for name in place[:-1]:
        at = at[name]
    at[place[-1]] = value
    with pytest.raises(TrioEchoError, match="a damaged report: ") as refused:
        from_json(json.dumps(document))
    message = str(refused.value)
    assert f"runs[0].{place[0]}" in message
    assert "\n" not in message
    assert len(message) < 300
    del document["runs"][0][place[0]]
    with pytest.raises(TrioEchoError, match=rf"a damaged report: runs\[0\]\.{place[0]} is missing"):
        from_json(json.dumps(document))


def test_run_twice_or_never_is_damage() -> None:
    """Within one file, too."""
    document = json.loads(to_json(made(["one"])))
    document["runs"] *= 2
    with pytest.raises(TrioEchoError, match="it holds no run, or one twice"):
        from_json(json.dumps(document))
    document["runs"] = []
    with pytest.raises(TrioEchoError, match="it holds no run, or one twice"):
        from_json(json.dumps(document))


@pytest.mark.parametrize("interrupted", [False, True])
def test_an_error_is_an_object_as_well(interrupted: bool) -> None:
    """Valid by the same schema; who adds it up is told what it is."""
    text = error_json("--tls-ca: cannot use \x1b[2J.pem", interrupted=interrupted)
    assert text.isascii()
    document = json.loads(text)
    Draft202012Validator(SCHEMA).validate(document)
    assert document["verdict"] == (None if interrupted else "UNMEASURED")
    assert document["error"] == "--tls-ca: cannot use \\x1b[2J.pem"
    with pytest.raises(TrioEchoError, match="holds no report but an error: --tls-ca: cannot use"):
        from_json(text)


def test_names_that_json_cannot_carry_stay_two() -> None:
    """Bytes that are no UTF-8 come as their hexadecimal, and so does what looks like it."""
    names = ["\udcff", "hex:edb3bf", "\ufffd", "\\xff", "\ud800"]
    document = checked(made(names))
    assert [backend["name"] for backend in document["backends"]] == [
        "hex:edb3bf",
        "hex:6865783a656462336266",
        "\ufffd",
        "\\xff",
        "hex:eda080",
    ]
    assert list(from_json(json.dumps(document)).counts.answers) == names
    document["runs"][0]["running"]["names"][0] = "hex:zz"
    with pytest.raises(TrioEchoError, match="damaged"):
        from_json(json.dumps(document))
