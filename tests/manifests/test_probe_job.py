"""The Job that judges: it asks for what the route says, at an address that exists."""

from __future__ import annotations

import pytest
from kustomized import container, every, matches, pick, render

from trio_echo.cli.output import ExitCode

PLACES = {
    "probe": "istio-ingressgateway.istio-system:31400",
    "probe/gateway-api": "tcp-echo-gateway-istio:31400",
    "probe/mesh": "tcp-echo:9000",
}


@pytest.mark.parametrize(("folder", "target"), PLACES.items())
def test_the_job_asks_at_the_entrance_of_the_route(folder: str, target: str) -> None:
    """The target is the gateway's address, or the Service inside the mesh."""
    main = container(pick(render(folder), "Job"))

    assert main["command"] == ["trio-echo", "probe"]
    assert main["args"][0] == target


def test_the_targets_are_those_that_the_routes_open() -> None:
    """Ports and names follow the Gateway's and the Service's."""
    istio = pick(render("istio"), "Gateway")["spec"]["servers"][0]["port"]["number"]
    gateway = pick(render("gateway-api"), "Gateway")
    service = pick(render("base"), "Service")

    assert PLACES["probe"].endswith(f":{istio}")
    # Istio names what it deploys for a Gateway after the Gateway and its class.
    name = f"{gateway['metadata']['name']}-{gateway['spec']['gatewayClassName']}"
    assert PLACES["probe/gateway-api"] == f"{name}:{gateway['spec']['listeners'][0]['port']}"
    address = f"{service['metadata']['name']}:{service['spec']['ports'][0]['port']}"
    assert PLACES["probe/mesh"] == address


@pytest.mark.parametrize("folder", PLACES)
def test_the_job_expects_what_the_route_says(folder: str) -> None:
    """A probe with other weights in mind would call the right split wrong."""
    [route] = pick(render("istio"), "VirtualService")["spec"]["tcp"]
    prefixes = {
        d["spec"]["template"]["metadata"]["labels"]["version"]: container(d)["args"][1]
        for d in every(render("base"), "Deployment")
    }
    expected = {
        f"--expect={prefixes[leg['destination']['subset']]}={leg['weight']}"
        for leg in route["route"]
    }

    args = container(pick(render(folder), "Job"))["args"]

    assert {arg for arg in args if arg.startswith("--expect")} == expected


@pytest.mark.parametrize("folder", PLACES)
def test_a_wrong_split_fails_the_job_once(folder: str) -> None:
    """No retry until chance says yes, and an end to waiting."""
    job = pick(render(folder), "Job")["spec"]
    [wait] = [arg for arg in container({"spec": job})["args"] if arg.startswith("--wait=")]

    assert job["backoffLimit"] == 0
    assert job["template"]["spec"]["restartPolicy"] == "Never"
    assert job["activeDeadlineSeconds"] > float(wait.removeprefix("--wait="))


@pytest.mark.parametrize("folder", PLACES)
def test_an_eviction_is_no_verdict(folder: str) -> None:
    """It is looked at first: an evicted probe ends with a code of its own."""
    ignore, fail = pick(render(folder), "Job")["spec"]["podFailurePolicy"]["rules"]

    assert ignore["action"] == "Ignore"
    assert ignore["onPodConditions"] == [{"type": "DisruptionTarget", "status": "True"}]
    assert fail["action"] == "FailJob"
    told = {*fail["onExitCodes"]["values"]}
    assert told == {*ExitCode} - {ExitCode.PASS, ExitCode.INTERRUPTED}


def test_only_the_mesh_probe_asks_for_a_sidecar() -> None:
    """Between pods it is the client's sidecar that draws the backend."""
    labels = {
        folder: pick(render(folder), "Job")["spec"]["template"]["metadata"]["labels"]
        for folder in PLACES
    }

    assert labels["probe/mesh"]["sidecar.istio.io/inject"] == "true"
    assert "sidecar.istio.io/inject" not in labels["probe"] | labels["probe/gateway-api"]


@pytest.mark.parametrize("folder", PLACES)
def test_nobody_calls_the_probe_and_nobody_takes_it_for_a_backend(folder: str) -> None:
    """Its pods are outside of every selector of the base."""
    documents = render(folder)
    labels = pick(documents, "Job")["spec"]["template"]["metadata"]["labels"]
    policy = pick(documents, "NetworkPolicy")["spec"]

    assert matches(policy["podSelector"]["matchLabels"], labels)
    assert policy["policyTypes"] == ["Ingress"]
    assert "ingress" not in policy
    for service in every(render("base", "gateway-api"), "Service"):
        assert not matches(service["spec"]["selector"], labels)
