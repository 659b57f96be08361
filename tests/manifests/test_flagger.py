"""Flagger's Canaries: their webhooks ask the gate for what Flagger and the pods make true."""

from __future__ import annotations

import json
import re

import pytest
from kustomized import Document, container, every, pick, render

from trio_echo.monitor.request import Allowed, Terms, read_flagger

FOLDERS = ("flagger", "flagger/blue-green")
SECONDS = {"s": 1, "m": 60}


def canary(folder: str) -> Document:
    """The one Canary of a folder."""
    return pick(render(folder), "Canary")


def webhooks(folder: str) -> list[Document]:
    """What Flagger asks."""
    found: list[Document] = canary(folder)["spec"]["analysis"]["webhooks"]
    return found


def seconds(duration: str) -> int:
    """A duration as the Canary writes it."""
    match = re.fullmatch("([0-9]+)([sm])", duration)
    assert match is not None
    return int(match[1]) * SECONDS[match[2]]


def gate_terms(folder: str) -> Terms:
    """What the gate of a folder allows."""
    arguments = container(pick(render(folder), "Deployment", "tcp-echo-gate"))["args"]
    allowed = [Allowed(each[8:]) for each in arguments if each.startswith("--allow=")]
    return Terms(allow=allowed)


@pytest.mark.parametrize("folder", FOLDERS)
def test_the_gate_reads_each_webhook(folder: str) -> None:
    """Sent as Flagger sends it, each asks for something that the gate allows."""
    [port] = pick(render(folder), "Service", "tcp-echo-gate")["spec"]["ports"]
    namespace = pick(render(folder), "Namespace")["metadata"]["name"]
    for hook in webhooks(folder):
        assert hook["url"] == f"http://tcp-echo-gate.{namespace}:{port['port']}/flagger"
        body = {"name": "a", "namespace": "b", "phase": "Progressing", "checksum": "1"}
        body["metadata"] = hook["metadata"]
        asked = read_flagger(json.dumps(body).encode(), gate_terms(folder))
        # The gate's time, and a little for the way.
        assert seconds(hook["timeout"]) > gate_terms(folder).max_seconds
        assert asked.config.expect


@pytest.mark.parametrize("folder", FOLDERS)
def test_each_asks_for_the_names_that_answer(folder: str) -> None:
    """Flagger adds -primary to the label that the pods' prefix is."""
    deployment = pick(render(folder), "Deployment", "tcp-echo-flagger")
    [prefix] = [e for e in container(deployment)["env"] if e["name"] == "TRIO_ECHO_PREFIX"]
    assert prefix["valueFrom"]["fieldRef"]["fieldPath"] == "metadata.labels['app']"
    name = deployment["spec"]["template"]["metadata"]["labels"]["app"]
    assert deployment["spec"]["selector"]["matchLabels"] == {"app": name}

    for hook in webhooks(folder):
        asked = read_flagger(
            json.dumps({"metadata": hook["metadata"]}).encode(), gate_terms(folder)
        )
        assert {*asked.config.expect} <= {name, f"{name}-primary"}


def test_the_split_is_the_weight_that_flagger_sets() -> None:
    """The only one: a webhook is not told which it is."""
    [weight] = canary("flagger")["spec"]["analysis"]["stepWeights"]
    [hook] = [hook for hook in webhooks("flagger") if hook["type"] == "rollout"]
    name = canary("flagger")["spec"]["targetRef"]["name"]

    assert hook["metadata"]["expect"] == f"{name}-primary={100 - weight},{name}={weight}"


@pytest.mark.parametrize("folder", FOLDERS)
def test_a_round_has_time_for_its_webhooks(folder: str) -> None:
    """The sum of the timeouts of all rollout webhooks is below the interval, as Flagger wants."""
    rounds = [seconds(hook["timeout"]) for hook in webhooks(folder) if hook["type"] == "rollout"]

    assert sum(rounds) < seconds(canary(folder)["spec"]["analysis"]["interval"])


@pytest.mark.parametrize("folder", FOLDERS)
def test_no_webhook_lets_a_verdict_roll_back(folder: str) -> None:
    """A rollback hook rolls back at 200, which is PASS; an event hook asks for nothing."""
    assert {hook["type"] for hook in webhooks(folder)} <= {"pre-rollout", "rollout"}


def test_the_route_is_one_of_tcp_at_the_gateway() -> None:
    """Flagger writes a TCP route where the protocol is TCP; at the gateway of this folder."""
    documents = render("flagger")
    service = canary("flagger")["spec"]["service"]
    gateway = pick(documents, "Gateway")
    [server] = gateway["spec"]["servers"]
    target = next(hook for hook in webhooks("flagger") if hook["type"] == "rollout")

    assert service["appProtocol"] == "TCP"
    assert service["gateways"] == [gateway["metadata"]["name"]]
    assert server["port"]["protocol"] == "TCP"
    assert target["metadata"]["target"].endswith(f":{server['port']['number']}")


@pytest.mark.parametrize("folder", FOLDERS)
def test_the_network_policy_holds_for_both_deployments(folder: str) -> None:
    """Flagger changes the label app for the primary, and leaves the others."""
    documents = render(folder)
    policy = pick(documents, "NetworkPolicy", "tcp-echo-flagger")["spec"]["podSelector"]
    labels = pick(documents, "Deployment", "tcp-echo-flagger")["spec"]["template"]["metadata"]

    assert "app" not in policy["matchLabels"]
    assert policy["matchLabels"].items() <= labels["labels"].items()
    assert not every(documents, "Service", "tcp-echo-flagger"), "Flagger makes the Services"
