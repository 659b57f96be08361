"""YAML: what cannot be read is named with its place, whatever it is."""

from __future__ import annotations

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from manifest_texts import ISTIO, notices, plan

from trio_echo.errors import ManifestError
from trio_echo.rehearsal.documents import Document, parse


@given(st.text())
def test_any_text_is_read_or_refused(text: str) -> None:
    """Never a traceback: documents that know their place, or one line."""
    complaint = ""
    documents: list[Document] = []
    try:
        documents = parse(text, "file.yaml")
    except ManifestError as error:
        complaint = str(error)
    assert not complaint or complaint.startswith("file.yaml")
    assert complaint.isprintable()
    for document in documents:
        assert isinstance(document.content, dict)
        assert str(document.error("a.b[0]", "wrong")).startswith("file.yaml:")


@given(st.recursive(st.none() | st.booleans() | st.integers() | st.text("ab\n:#é"), st.lists))
def test_what_yaml_can_hold_but_a_manifest_cannot(value: object) -> None:
    """A document must be a mapping; nothing at all is no document."""
    text = yaml.safe_dump(value)
    if value is None:
        assert parse(text, "x") == []
    else:
        with pytest.raises(ManifestError, match="must be a mapping"):
            parse(text, "x")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a: b: c", "f:1:5: mapping values are not allowed here"),
        ("a: 1\nb: [1\nc: 2", "f:3:2: expected"),
        ("a: 1\na: 2", "f:2:1: a is there twice"),
        ("a: {b: 1}\nc: {d: 1, d: 2}", "f:2:11: d is there twice"),
        ("a: &a [*a]", "f:1:4: an alias inside the value"),
        ("a: *nobody", "f:1:4: found undefined alias"),
        ("a: !python/object:os.system x", "could not determine a constructor"),
        ("? [1]\n: 2", "unhashable key"),
        ("- 1", "f:1, document 1: must be a mapping with apiVersion and kind, got list"),
        ("a: 1\n---\nwords", "f:3, document 2: must be a mapping"),
        ("\x00", "f: "),
        ("[" * 500, "f: nested too deeply"),
        ("a: " + "9" * 5000, "f: "),
        ("kind: List\nitems: [1]", "f:2, document 1: must be a mapping"),
    ],
)
def test_broken_yaml_names_line_and_column(text: str, message: str) -> None:
    """Where it is, and what it is."""
    with pytest.raises(ManifestError) as caught:
        parse(text, "f")
    assert message in str(caught.value)


def test_dates_are_strings() -> None:
    """As in Kubernetes, where YAML becomes JSON first."""
    (document,) = parse("a: 2026-01-31", "f")
    assert document.content == {"a": "2026-01-31"}


def test_list_is_opened() -> None:
    """What ``kubectl get -o yaml`` prints can be read too."""
    text = "kind: List\nitems:\n- {kind: A, metadata: {name: one}}\n- {kind: B}"
    first, second = parse(text, "f")
    assert (first.kind, first.name, second.kind, second.name) == ("A", "one", "B", "")
    assert second.place() == "f:4, document 1 (B)"
    assert first.place("metadata.name") == "f:3, document 1 (A one)"


def test_place_of_what_is_missing_is_where_it_should_be() -> None:
    """The line of the nearest part that is there."""
    (document,) = parse("kind: A\nspec:\n  list:\n  - x: 1\n  - y: 2", "f")
    assert (
        str(document.error("spec.list[1].y", "wrong"))
        == "f:5, document 1 (A): spec.list[1].y: wrong"
    )
    assert document.place("spec.list[1].z") == "f:5, document 1 (A)"
    assert document.place("spec.list[7].z") == "f:4, document 1 (A)"
    assert document.place("nowhere") == "f:1, document 1 (A)"


def test_unknown_kinds_are_noticed() -> None:
    """What a rehearsal does not know is not passed over in silence."""
    unknown = "apiVersion: policy/v1\nkind: PodDisruptionBudget\nmetadata: {name: x}"
    found = plan(ISTIO, f"{unknown}\n---\n---\n{{}}")
    assert notices(found, ["not carried out: PodDisruptionBudget x"])
    with pytest.raises(ManifestError, match=r"no route found: .*; found: nothing"):
        plan("")
    with pytest.raises(ManifestError, match=r"no route found: .*; found: PodDisruptionBudget x"):
        plan(unknown)
