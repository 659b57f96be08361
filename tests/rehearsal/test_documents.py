"""YAML: what cannot be read is named with its place, whatever it is."""

from __future__ import annotations

import time
from typing import Annotated, Literal

import msgspec
import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from manifest_texts import ISTIO, SERVICE, deployment, notices, plan

from trio_echo.errors import ManifestError
from trio_echo.rehearsal.documents import MOST_BYTES, Document, Strict, listed, parse


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
        ("a: b: c", "f:1:5: mapping values are not allowed in this context"),
        ("a: 1\nb: [1\nc: 2", "f:3:2: did not find expected"),
        ("a: 1\na: 2", "f:2:1: a is there twice"),
        ("a: {b: 1}\nc: {d: 1, d: 2}", "f:2:11: d is there twice"),
        ("a: &a [*a]", "f:1:4: an alias inside the value"),
        ("a: *nobody", "f:1:4: found undefined alias"),
        ("? [1]\n: 2", "f:1:3: a key must be text, not a list or mapping"),
        ("a: &x 1\n*x : 2", "f:2:1: an alias cannot be a key"),
        ("a: {{ .Values.a }}", "{{ }} is a template: render it first, as helm template CHART"),
        ("a: {<<: 1}", "f:1:9: << must stand before a mapping, or a list of mappings"),
        ("a: !!int ''", "f:1:4: !!int cannot be ''"),
        ("a: !!float ''", "f:1:4: !!float cannot be ''"),
        ("a: !!bool x", "f:1:4: !!bool cannot be 'x'"),
        ("a: !!int yes", "f:1:4: !!int cannot be 'yes'"),
        ("- 1", "f:1, document 1: must be a mapping with apiVersion and kind, got a list"),
        ("5", "f:1, document 1: must be a mapping with apiVersion and kind, got 5"),
        ("a: 1\n---\nwords", "f:3, document 2: must be a mapping"),
        ("\x00", "f: "),
        ("[" * 101, "f:1:101: nested more than 100 deep"),
        ("[" * 50_000, "f:1:1001: exceeded maximum nesting depth"),
        ("kind: List\nitems: [1]", "f:2, document 1: must be a mapping"),
    ],
)
def test_broken_yaml_names_line_and_column(text: str, message: str) -> None:
    """Where it is, and what it is."""
    with pytest.raises(ManifestError) as caught:
        parse(text, "f")
    assert message in str(caught.value)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("2026-01-31", "2026-01-31"),
        ("22:22", "22:22"),
        ("!!timestamp x", "x"),
        ("!mine x", "x"),
        ("'5'", "5"),
        ("!!str 5", "5"),
        ("5", 5),
        ("!!int 5", 5),
        ("!!float 5", 5),
        ("1_000", 1000),
        ("0755", 493),
        ("0o17", 15),
        ("-0x1F", -31),
        ("0b11", 3),
        ("0", 0),
        ("09", 9.0),
        ("-1.5e3", -1500.0),
        (".5", 0.5),
        ("", None),
        (".", "."),
        ("yes", True),
        ("Off", False),
        ("!!bool no", False),
        ("~", None),
        ("!!null ''", None),
        (".inf", float("inf")),
        ("9" * 5000, float("inf")),
    ],
)
def test_values_are_those_of_kubernetes_reader(text: str, value: object) -> None:
    """YAML 1.1's words for true and false, and neither its dates nor its base 60."""
    (document,) = parse("a: " + text, "f")
    assert document.content == {"a": value}


def test_merge_keys_are_carried_out() -> None:
    """A key of one's own wins, then the first of several."""
    (document,) = parse(
        "a: &a {x: 1, y: 1}\nb: &b {y: 2, z: 2}\nc: {z: 3, <<: [*a, *b]}\nd: {<<: *b}", "f"
    )
    assert document.content["c"] == {"x": 1, "y": 1, "z": 3}
    assert document.content["d"] == {"y": 2, "z": 2}


def test_aliases_stand_for_scalars_lists_and_keys() -> None:
    """Each is what its anchor was."""
    (document,) = parse("&k a: &s 1\nb: &l [*s, *k]\nc: *l", "f")
    assert document.content == {"a": 1, "b": [1, "a"], "c": [1, "a"]}


@pytest.mark.parametrize(
    "text",
    [
        "a0: &a0 ["
        + "x," * 9
        + "]\n"
        + "".join(f"a{n}: &a{n} [" + f"*a{n - 1}," * 9 + "]\n" for n in range(1, 13)),
        "a: &a0 {x: 1}\n" + "".join(f"b{n}: &a{n + 1} {{<<: [*a{n}, *a{n}]}}\n" for n in range(30)),
    ],
)
def test_alias_bombs_are_refused_unexploded(text: str) -> None:
    """Aliases are counted as what they stand for, and never copied."""
    with pytest.raises(ManifestError, match="more than 2,000,000 values, aliases counted in full"):
        parse(text, "f")


def test_text_longer_than_the_bound_is_refused() -> None:
    """Before it is read."""
    with pytest.raises(ManifestError, match="f: is longer than 16 MiB"):
        parse(" " * (MOST_BYTES + 1), "f")


def test_complaint_is_cut_where_it_quotes_too_much() -> None:
    """One line of some hundred characters, whatever the file holds."""
    (document,) = parse(f"kind: A\nname: {'x' * 5000}", "f")
    assert len(str(document.error("name", document.content["name"]))) == 400
    many = str(document.error("", listed([f"n{number}" for number in range(1000)])))
    assert many.endswith("n11, and 988 more")


def test_large_texts_are_read_fast() -> None:
    """A megabyte in less than two seconds, where tests are traced: five in one without that."""
    fields = "".join(f"  field{n}: {{type: string, description: of it}}\n" for n in range(50))
    one = f"kind: A\nmetadata: {{name: n}}\nspec:\n{fields}"
    text = "---\n".join([one] * (2**20 // len(one)))
    began = time.process_time()
    assert len(parse(text, "f")) > 300
    assert time.process_time() - began < 2


def test_large_workloads_are_planned_fast() -> None:
    """A megabyte of variables, each of which is looked at, and a List of them."""
    variables = "".join(f"        - {{name: A{n}, value: '{n}'}}\n" for n in range(300))
    echo = deployment("echo", "v3", '["9000", "x"]', more=f"        env:\n{variables}")
    many = [echo.replace("name: echo", f"name: echo-{n}") for n in range(100)]
    items = "".join(f"- {each.strip()}\n".replace("\n", "\n  ").rstrip(" ") for each in many)
    began = time.process_time()
    found = plan(ISTIO, *many[:50], f"kind: List\nitems:\n{items}")
    assert notices(found, ["echo-99"])
    assert time.process_time() - began < 2


class Port(Strict):
    """A part of it."""

    name: str
    number: int | str = 0
    open: bool = False
    kinds: Annotated[list[str], msgspec.Meta(min_length=1, max_length=2)] | None = None
    mode: Literal["a", "b"] = "a"


class Spec(Strict):
    """What a test reads."""

    ports: list[Port] | None = None
    size: Annotated[int, msgspec.Meta(ge=1, le=5)] | None = None
    labels: dict[str, str] | None = None


class Whole(Strict):
    """All of it."""

    spec: Spec
    kind: str = ""


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("spec: {portz: []}", "spec.portz: there is no such field; is it ports?"),
        (
            "spec: {ports: [{name: a, nmae: b}]}",
            "spec.ports[0].nmae: there is no such field; is it name?",
        ),
        ("spec: {elsewhere: []}", "spec.elsewhere: the rehearsal does not support this field"),
        ("spec: {ports: [{}]}", "spec.ports[0].name: is missing"),
        ("kind: A", "spec: is missing"),
        ("kind: [A]\nspec: {}", "kind: must be text, got a list"),
        ("spec: {labels: {a: b, c: 5}}", "spec.labels.c: must be text, got 5"),
        ("spec: {ports: [{name: 5}]}", "spec.ports[0].name: must be text, got 5"),
        ("spec: {ports: 5}", "spec.ports: must be a list, got 5"),
        (
            "spec: {ports: [{name: a, number: [1]}]}",
            "number: must be a whole number or text, got a list",
        ),
        ("spec: {ports: [{name: a, open: {}}]}", "open: must be true or false, got a mapping"),
        ("spec: {ports: [{name: }]}", "name: must be text, got nothing"),
        ("spec: {ports: [{name: a, kinds: []}]}", "kinds: must have at least one entry"),
        ("spec: {ports: [{name: a, kinds: [a, b, c]}]}", "kinds: must have at most 2 entries"),
        ("spec: {ports: [{name: a, mode: c}]}", "mode: cannot be 'c'"),
        ("spec: {size: 0}", "spec.size: must be at least 1, got 0"),
        ("spec: {size: 6}", "spec.size: must be at most 5, got 6"),
        ("spec: {size: '5'}", "spec.size: must be a whole number, got '5'"),
    ],
)
def test_what_does_not_fit_is_told_in_words(text: str, message: str) -> None:
    """No word of the library that converts it."""
    (document,) = parse(text, "f")
    with pytest.raises(ManifestError) as caught:
        document.read(Whole)
    assert str(caught.value).endswith(message)
    assert caught.value.origin == "f"
    assert caught.value.line == 1


def test_what_the_cluster_adds_is_not_noticed() -> None:
    """Documents as ``kubectl get -o yaml`` prints them."""
    found = plan(ISTIO.replace("name: tcp-echo-v1\n", "name: tcp-echo-v1\n  uid: x\n", 1))
    assert found.notices == plan(ISTIO).notices
    status = SERVICE.strip() + "\nstatus: {loadBalancer: {}}"
    assert not notices(plan(ISTIO.replace(SERVICE.strip(), status)), ["status"])


def test_list_is_opened() -> None:
    """What ``kubectl get -o yaml`` prints can be read too."""
    text = "kind: List\nitems:\n- {kind: A, metadata: {name: one}}\n- {kind: B}"
    first, second = parse(text, "f")
    assert (first.kind, first.name, second.kind, second.name) == ("A", "one", "B", "")
    assert second.place() == "f:4, document 1 (B)"
    assert first.place("metadata.name") == "f:3, document 1 (A one)"
    written = """
apiVersion: v1
items:
  - kind: A
    metadata:
      name: one

  - kind: B
    # é
    spec: {x: [1]}
kind: List
"""
    first, second = parse(written.replace("\n", "\r\n"), "f")
    assert first.place("metadata.name") == "f:6, document 1 (A one)"
    assert second.place("spec.x[0]") == "f:10, document 1 (B)"
    assert second.place() == "f:8, document 1 (B)"
    (item,) = parse("x: &x\n  kind: A\n  b: 1\nkind: List\nitems: [*x]", "f")
    assert item.place("b") == "f:1, document 1 (A)"  # the place of what holds it


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


def test_line_of_a_field_in_a_long_document_is_found_fast() -> None:
    """Only what comes before it is looked at, and nothing is built of it."""
    rows = "".join(f"- {{x: {n}, y: [text]}}\n" for n in range(30_000))
    (document,) = parse(f"kind: A\nrows:\n{rows}spec: {{a: 1}}", "f")
    began = time.process_time()
    assert document.place("rows[3].y[0]") == "f:6, document 1 (A)"
    assert document.place("spec.a") == "f:30003, document 1 (A)"
    assert document.place("rows[0].x.deeper") == "f:3, document 1 (A)"
    assert time.process_time() - began < 2


def test_unknown_kinds_are_noticed() -> None:
    """What a rehearsal does not know is not passed over in silence."""
    unknown = "apiVersion: policy/v1\nkind: PodDisruptionBudget\nmetadata: {name: x}"
    found = plan(ISTIO, f"{unknown}\n---\n---\n{{}}")
    assert notices(found, ["ignored: PodDisruptionBudget x"])
    values = "1.yaml:2, document 1: must have apiVersion and kind; fields found: replicas"
    with pytest.raises(ManifestError, match=values):
        plan("# of a chart\nreplicas: 1", ISTIO)
    role = "apiVersion: rbac.authorization.k8s.io/v1\nkind: ClusterRole\nmetadata: {name: system:x}"
    assert notices(plan(ISTIO, role), ["ignored: ClusterRole system:x"])
    policy = "apiVersion: security.istio.io/v1\nkind: AuthorizationPolicy\nmetadata: {name: p}"
    with pytest.raises(ManifestError, match=r"no route found: .*; found: AuthorizationPolicy p"):
        plan(policy)
    with pytest.raises(ManifestError, match=r"got 'echo-\{\{ .x \}\}'; \{\{ \}\} is a template"):
        plan(ISTIO.replace("name: tcp-echo-v1", "name: 'echo-{{ .x }}'", 1))
    with pytest.raises(ManifestError, match=r"no route found: .*; found: nothing"):
        plan("")
    with pytest.raises(ManifestError, match=r"no route found: .*; found: PodDisruptionBudget x"):
        plan(unknown)


def test_objects_of_json_in_a_row_are_documents() -> None:
    """As ``kubectl`` takes them; each has its own lines."""
    first, second = parse('{"kind": "A",\n "x": {}}\n\n{"kind": "B",\n "y": [1]}\n', "f")
    assert first.place("x") == "f:2, document 1 (A)"
    assert second.place("y[0]") == "f:5, document 2 (B)"
    with pytest.raises(ManifestError, match=r"f:1:15: did not find expected <document start>"):
        parse('{"kind": "A"} {"kind": ', "f")


def test_numbers_that_json_has_no_other_form_for_are_whole() -> None:
    """A weight of 80.0 is 80 for an API server."""
    halves = ISTIO.replace("weight: 80", "weight: 80.0").replace("weight: 20", "weight: 2e1")
    assert plan(halves).route == plan(ISTIO).route
    with pytest.raises(ManifestError, match=r"must be a whole number, got 80\.5"):
        plan(ISTIO.replace("weight: 80", "weight: 80.5"))


@pytest.mark.parametrize(
    ("right", "wrong"),
    [
        ("kind: Service", "kind: service"),
        ("kind: Deployment", "kind: Deployments"),
        ("kind: DestinationRule", "kind: DestinationRules"),
        ("kind: Gateway", "kind: Gatway"),
    ],
)
def test_slip_in_a_kind_is_told(right: str, wrong: str) -> None:
    """An API server knows no such kind; a note would let a stand-in pass for it."""
    message = f"is it {right.removeprefix('kind: ')}\\?"
    with pytest.raises(ManifestError, match=message):
        plan(ISTIO.replace(right, wrong, 1))
    other = "apiVersion: gateway.networking.k8s.io/v1\nkind: HTTPRoute\nmetadata: {name: web}"
    assert notices(plan(ISTIO, other), ["ignored: HTTPRoute web"])
