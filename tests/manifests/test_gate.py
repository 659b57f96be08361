"""The gate: who reaches it, what it may probe, and how it leaves."""

from __future__ import annotations

import pytest
from kustomized import container, every, matches, pick, render

from trio_echo.monitor.request import Allowed, NotAllowedError, Terms, read_words

DEPLOYMENT = pick(render("gate"), "Deployment")
ARGUMENTS = container(DEPLOYMENT)["args"]

PROBED = [
    container(pick(render(folder), "Job"))["args"][0]
    for folder in ("probe", "probe/gateway-api", "probe/mesh")
]
"""Where the probe Job asks."""


def arguments(name: str) -> list[str]:
    """The values of an option."""
    return [each.partition("=")[2] for each in ARGUMENTS if each.startswith(f"--{name}=")]


def test_the_service_reaches_the_port_that_it_listens_on() -> None:
    """By label, by port and by the port's name, with the protocol said."""
    [port] = pick(render("gate"), "Service")["spec"]["ports"]
    [listened] = container(DEPLOYMENT)["ports"]

    assert container(DEPLOYMENT)["command"][-2:] == ["trio-echo", "gate"]
    assert arguments("listen") == [str(listened["containerPort"])]
    assert (port["targetPort"], port["appProtocol"]) == (listened["name"], "http")
    labels = DEPLOYMENT["spec"]["template"]["metadata"]["labels"]
    assert matches(pick(render("gate"), "Service")["spec"]["selector"], labels)
    policy = pick(render("gate"), "NetworkPolicy")["spec"]
    assert matches(policy["podSelector"]["matchLabels"], labels)
    [rule] = policy["ingress"]
    assert {each["port"] for each in rule["ports"]} == {listened["containerPort"], 15008, 15020}


@pytest.mark.parametrize("target", [*PROBED, "tcp-echo-canary:9000"])
def test_the_entrances_of_the_routes_are_allowed(target: str) -> None:
    """Each that the probe Job has, and the Services that a controller adds."""
    terms = Terms(allow=[Allowed(pattern) for pattern in arguments("allow")])

    assert read_words({"target": target, "expect": "one=1"}, terms).config.target == target


@pytest.mark.parametrize(
    "target", ["kubernetes.default:443", "10.0.0.1:9000", "tcp-echo:22", "istio-pilot.a.b:31400"]
)
def test_nothing_else_is(target: str) -> None:
    """Least of all the API server."""
    terms = Terms(allow=[Allowed(pattern) for pattern in arguments("allow")])

    with pytest.raises(NotAllowedError):
        read_words({"target": target, "expect": "one=1"}, terms)


def test_a_pod_has_time_to_leave() -> None:
    """The kubelet kills only what preStop and the drain together could not end."""
    spec = DEPLOYMENT["spec"]["template"]["spec"]
    pause = container(DEPLOYMENT)["lifecycle"]["preStop"]["sleep"]["seconds"]
    [drain] = arguments("drain-timeout")

    assert pause > 0
    assert spec["terminationGracePeriodSeconds"] > pause + float(drain) + 1


def test_nobody_takes_it_for_a_backend() -> None:
    """Its pods are outside of every selector of the base."""
    labels = DEPLOYMENT["spec"]["template"]["metadata"]["labels"]
    for service in every(render("base", "gateway-api"), "Service"):
        assert not matches(service["spec"]["selector"], labels)
