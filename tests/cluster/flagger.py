"""Flagger on the node: it carries out the project's Canaries, and the gate decides."""

from __future__ import annotations

import json
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import trio
import yaml
from cluster.apply import MANIFESTS, NAMESPACE, applied, nothing_was_violated
from cluster.programs import FLAGGER

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Mapping

    from cluster.node import Node

NAME = "tcp-echo-flagger"
CANARY = f"/apis/flagger.app/v1beta1/namespaces/{NAMESPACE}/canaries/{NAME}"
DEPLOYMENT = f"/apis/apps/v1/namespaces/{NAMESPACE}/deployments/{NAME}"
GATEWAY = "istio-ingressgateway.istio-system:31400"


async def install(node: Node) -> None:
    """Install Flagger with its own definitions and rights, and wait until it runs."""
    for name in ("flagger-crds.yaml", "flagger-account.yaml"):
        for document in yaml.safe_load_all(node.programs[name].read_text(encoding="utf-8")):
            await node.api.apply(document)
    labels = {"app": "flagger"}
    pod = {
        "serviceAccountName": "flagger",
        "containers": [
            {
                "name": "flagger",
                "image": f"ghcr.io/fluxcd/flagger:{FLAGGER.removeprefix('v')}",
                # Its own manifest looks for a new Canary every ten seconds.
                "args": ["-log-level=info", "-control-loop-interval=1s"],
            }
        ],
    }
    await node.api.apply(
        {
            "apiVersion": "apps/v1",
            "kind": "Deployment",
            "metadata": {"name": "flagger", "namespace": "default"},
            "spec": {
                "selector": {"matchLabels": labels},
                "template": {"metadata": {"labels": labels}, "spec": pod},
            },
        }
    )
    await node.kubectl("-n", "default", "rollout", "status", "deployment/flagger", "--timeout=60s")


@asynccontextmanager
async def carried_out(node: Node, folder: str) -> AsyncIterator[None]:
    """A folder of the manifests is applied as it is, its first version serves."""
    await install(node)
    try:
        await applied(node, MANIFESTS / folder)
        gate = ("rollout", "status", "deployment/tcp-echo-gate", "--timeout=60s")
        await node.kubectl("-n", NAMESPACE, *gate)
        # Minutes between two rounds are for people.
        await node.api.merge(CANARY, {"spec": {"analysis": {"interval": "10s"}}})
        await _until(node, "Initialized")
        yield
        await nothing_was_violated(node)
    finally:
        await node.kubectl("delete", "namespace", NAMESPACE, "--timeout=120s")


async def a_release_is_promoted(node: Node) -> None:
    """The gate says PASS to both webhooks, and the new version becomes the primary one."""
    async with carried_out(node, "flagger"):
        await _release(node)
        await _until(node, "Succeeded")
        judged = await _judged(node)
        assert judged[:2] == [(f"{NAME}-canary:9000", "PASS"), (GATEWAY, "PASS")], judged
        primary = await node.api.get(f"{DEPLOYMENT}-primary")
        assert primary["spec"]["template"]["metadata"]["annotations"]["release"] == "2"


async def a_route_that_does_not_follow_is_rolled_back(node: Node) -> None:
    """An older VirtualService owns the port: the canary gets nothing, whatever Flagger sets."""
    space = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NAMESPACE}}
    await node.api.apply(space)
    destination = {"host": f"{NAME}-primary", "port": {"number": 9000}}
    older = {
        "apiVersion": "networking.istio.io/v1",
        "kind": "VirtualService",
        "metadata": {"name": "older", "namespace": NAMESPACE},
        "spec": {
            "hosts": ["*"],
            "gateways": [NAME],
            "tcp": [{"route": [{"destination": destination}]}],
        },
    }
    await node.api.apply(older)
    await trio.sleep(1.1)  # a creation time has whole seconds
    async with carried_out(node, "flagger"):
        await _release(node)
        await _until(node, "Failed")
        judged = await _judged(node)
        assert judged == [(f"{NAME}-canary:9000", "PASS"), (GATEWAY, "FAIL"), (GATEWAY, "FAIL")]
        # The words are where people look.
        events = await node.kubectl("-n", NAMESPACE, "get", "events", "-o", "json")
        said = [each["message"] for each in json.loads(events)["items"]]
        assert any("the gateway splits 80 to 20 failed FAIL: " in each for each in said), said


async def a_release_without_a_mesh_is_promoted(node: Node) -> None:
    """The new version answers at its own Service, and nobody else gets it."""
    async with carried_out(node, "flagger/blue-green"):
        await _release(node)
        await _until(node, "Succeeded")
        judged = await _judged(node)
        both = [(f"{NAME}-canary:9000", "PASS"), (f"{NAME}:9000", "PASS")]
        assert judged[:2] == both, judged
        assert {verdict for _, verdict in judged} == {"PASS"}, judged


async def _release(node: Node) -> None:
    """Change the pod template in nothing but an annotation."""
    template = {"metadata": {"annotations": {"release": "2"}}}
    await node.api.merge(DEPLOYMENT, {"spec": {"template": template}})


async def _judged(node: Node) -> list[tuple[str, str]]:
    """The target and the verdict of each request of Flagger's, by the gate's log."""
    log = await node.kubectl("-n", NAMESPACE, "logs", "deployment/tcp-echo-gate")
    entries: list[dict[str, Any]] = [json.loads(line) for line in log.splitlines()]
    return [(each["target"], each["verdict"]) for each in entries if each.get("path") == "/flagger"]


async def _until(node: Node, phase: str) -> None:
    status: Mapping[str, Any] = {}
    with trio.move_on_after(180):
        while status.get("phase") != phase:
            await trio.sleep(0.2)
            status = (await node.api.get(CANARY)).get("status") or {}
    assert status.get("phase") == phase, status


CHECKS: Mapping[str, Callable[[Node], Awaitable[None]]] = {
    "flagger: a release is promoted": a_release_is_promoted,
    "flagger: a route that does not follow is rolled back": (
        a_route_that_does_not_follow_is_rolled_back
    ),
    "flagger: a release without a mesh is promoted": a_release_without_a_mesh_is_promoted,
}
