"""Destinations of a route that lead to the same pods, and pods that no route leads to."""

from __future__ import annotations

import pytest
from manifest_texts import (
    ALL_V1,
    BACKENDS,
    GATEWAY,
    GATEWAY_API,
    ISTIO,
    RULE,
    V2_20,
    notices,
    plan,
    warned,
)

V2 = "  - name: v2\n    labels:\n      version: v2\n"
SAME = (
    "subsets v1 and v2 of DestinationRule tcp-echo-destination select the same pods:"
    " Deployment tcp-echo-v2 gets no connection"
)
V1 = V2.replace("v2", "v1")


@pytest.mark.parametrize(
    ("old", "new", "words", "line"),
    [
        (
            V2,
            V2.replace("version: v2", "version: v1"),
            SAME,
            "v2",
        ),
        (
            V1,
            V1.replace("version: v1", "app: tcp-echo"),
            "subset v1 of DestinationRule tcp-echo-destination selects pods of subset v2 too",
            "v1",
        ),
        (
            "        subset: v1\n",
            "",
            "Service tcp-echo selects pods of subset v2 of DestinationRule tcp-echo-destination",
            "",
        ),
    ],
)
def test_destinations_that_select_the_same_pods_are_warned_of(
    old: str, new: str, words: str, line: str
) -> None:
    """A copied label makes a split that is none; the place is that of the wider selector."""
    assert old in ISTIO
    found = plan(ISTIO.replace(old, new))
    (warning,) = found.warnings
    assert words in warning.text
    assert warning.file == "1.yaml"
    text = ISTIO.replace(old, new).splitlines()
    at = text[(warning.line or 0) - 1]
    assert at.strip() == (" ".join(new.split()[-2:]) or "selector: {app: tcp-echo}")
    if line:
        assert text[(warning.line or 0) - 3].strip() == f"- name: {line}"
    # What is told as a warning is told once.
    assert not notices(found, ["no route leads to it"])


def test_subsets_of_different_routes_may_overlap() -> None:
    """A subset for all beside one for a version is a choice where no route splits between them."""
    rule = RULE.replace(V2, V2.replace("version: v2", "app: tcp-echo"))
    assert not plan(BACKENDS, GATEWAY, rule, ALL_V1).warnings
    both = V2_20.replace("subset: v2", "subset: v1")
    assert not plan(BACKENDS, GATEWAY, RULE, both).warnings


def test_workload_that_no_route_leads_to_is_noted() -> None:
    """Its Service is routed, so that somebody may expect connections to it."""
    found = plan(BACKENDS, GATEWAY, RULE, ALL_V1)
    assert notices(
        found, ["Deployment tcp-echo-v2 is behind Service tcp-echo, and no route leads to it"]
    )
    assert not notices(plan(ISTIO), ["no route leads to it"])
    assert not warned(found, [""])


def test_services_that_select_the_same_pods_are_warned_of() -> None:
    """As with subsets, by whatever dialect they are routed."""
    found = plan(GATEWAY_API.replace("selector: {version: v2}", "selector: {version: v1}"))
    assert warned(
        found,
        ["Service my-foo-service and Service my-bar-service select the same pods"],
    )
