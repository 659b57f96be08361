"""Argo Rollouts' controller on the node: it walks the project's Rollout, and the gate decides."""

from __future__ import annotations

import copy
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import trio
import yaml
from cluster.apply import MANIFESTS, NAMESPACE, analyzed, applied, nothing_was_violated

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Mapping

    from cluster.node import Node

CONTROLLER = "argo-rollouts"
ARGO = f"/apis/argoproj.io/v1alpha1/namespaces/{NAMESPACE}"
ROLLOUT = f"{ARGO}/rollouts/tcp-echo-rollout"
TEMPLATE = f"{ARGO}/analysistemplates/tcp-echo-split"
WEIGHTS = [5, 20, 50, 100]


async def install(node: Node) -> None:
    """Install the controller as its own manifest has it, and wait until it runs."""
    text = node.programs["argo-rollouts.yaml"].read_text(encoding="utf-8")
    space = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": CONTROLLER}}
    for document in [space, *yaml.safe_load_all(text)]:
        document["metadata"].setdefault("namespace", CONTROLLER)
        await node.api.apply(document)
    deployment = "deployment/argo-rollouts"
    await node.kubectl("-n", CONTROLLER, "rollout", "status", deployment, "--timeout=60s")


@asynccontextmanager
async def rolled_out(node: Node, folder: str) -> AsyncIterator[None]:
    """A folder of the manifests is applied as it is, its first version serves."""
    await install(node)
    try:
        await applied(node, MANIFESTS / folder)
        if folder == "argo-rollouts":
            gate = ("rollout", "status", "deployment/tcp-echo-gate", "--timeout=60s")
            await node.kubectl("-n", NAMESPACE, *gate)
        await _until(node, lambda status: status.get("phase") == "Healthy")
        await analyzed(node, MANIFESTS / folder)
        yield
        await nothing_was_violated(node)
    finally:
        await node.kubectl("delete", "namespace", NAMESPACE, "--timeout=120s")


async def a_release_is_promoted(node: Node) -> None:
    """The gate says PASS at each step, and the new version becomes the stable one."""
    async with rolled_out(node, "argo-rollouts"):
        old = (await node.api.get(ROLLOUT))["status"]["stableRS"]
        await _release(node)
        await _until(node, _promoted)
        assert await _judged(node) == [(weight, "Successful") for weight in WEIGHTS]
        assert (await node.api.get(ROLLOUT))["status"]["stableRS"] != old


async def a_route_that_does_not_follow_aborts(node: Node) -> None:
    """An older VirtualService owns the port, so the canary gets nothing, whatever is set."""
    async with rolled_out(node, "argo-rollouts"):
        service = "/apis/networking.istio.io/v1/namespaces/trio-echo/virtualservices"
        ours = await node.api.get(f"{service}/tcp-echo-rollout")
        bare = {key: ours[key] for key in ("apiVersion", "kind", "spec")}
        await node.api.apply({**bare, "metadata": {"name": "older", "namespace": NAMESPACE}})
        await trio.sleep(1.1)  # a creation time has whole seconds
        await node.api.delete(f"{service}/tcp-echo-rollout")
        named = {"name": "tcp-echo-rollout", "namespace": NAMESPACE}
        await node.api.apply({**bare, "metadata": named})
        await _release(node)
        await _until(node, lambda status: status.get("phase") == "Degraded")
        status = (await node.api.get(ROLLOUT))["status"]
        assert status["abort"], status
        assert await _judged(node) == [(WEIGHTS[0], "Failed")]


async def an_inconclusive_verdict_pauses(node: Node) -> None:
    """Too few connections to judge by: it waits for people, and goes on when promoted."""
    async with rolled_out(node, "argo-rollouts"):
        whole = await node.api.get(TEMPLATE)
        metrics = copy.deepcopy(whole["spec"]["metrics"])
        web = metrics[0]["provider"]["web"]
        web["body"] = web["body"].replace('"settle": 30', '"connections": 40, "settle": 5')
        await node.api.merge(TEMPLATE, {"spec": {"metrics": metrics}})
        await _release(node)
        await _until(node, lambda status: status.get("phase") == "Paused")
        assert await _judged(node) == [(WEIGHTS[0], "Inconclusive")]
        status = (await node.api.get(ROLLOUT))["status"]
        assert status["pauseConditions"][0]["reason"] == "InconclusiveAnalysisRun", status
        await node.api.merge(TEMPLATE, {"spec": {"metrics": whole["spec"]["metrics"]}})
        # What `kubectl argo rollouts promote` writes.
        step = status["currentStepIndex"] + 1
        promoted = {"pauseConditions": None, "controllerPause": False, "currentStepIndex": step}
        await node.api.merge(f"{ROLLOUT}/status", {"status": promoted})
        await _until(node, _promoted)
        then = [(weight, "Successful") for weight in WEIGHTS[1:]]
        assert await _judged(node) == [(WEIGHTS[0], "Inconclusive"), *then]


async def a_job_decides(node: Node) -> None:
    """Without a gate: each analysis is a Job that runs the probe."""
    async with rolled_out(node, "argo-rollouts/job"):
        await _release(node)
        await _until(node, _promoted)
        assert await _judged(node) == [(weight, "Successful") for weight in WEIGHTS]


async def _release(node: Node) -> None:
    """Change the pod template in nothing but an annotation."""
    template = {"metadata": {"annotations": {"release": "2"}}}
    await node.api.merge(ROLLOUT, {"spec": {"template": template}})


async def _judged(node: Node) -> list[tuple[int, str]]:
    """The canary's weight and the outcome of each analysis, in the order of their start."""
    runs = await node.api.items(f"{ARGO}/analysisruns")
    runs.sort(key=lambda run: run["status"]["startedAt"])
    return [
        (
            next(
                int(arg["value"]) for arg in run["spec"]["args"] if arg["name"] == "canary-weight"
            ),
            run["status"]["phase"],
        )
        for run in runs
    ]


def _promoted(status: Mapping[str, Any]) -> bool:
    return status.get("phase") == "Healthy" and status.get("stableRS") == status.get(
        "currentPodHash"
    )


async def _until(node: Node, true: Callable[[Mapping[str, Any]], bool]) -> None:
    status: dict[str, Any] = {}
    with trio.move_on_after(240):
        while not true(status):
            await trio.sleep(0.2)
            whole = await node.api.get(ROLLOUT)
            seen = whole["metadata"]["generation"]
            status = whole.get("status") or {}
            # A status of before the last change says nothing about it.
            if status.get("observedGeneration") != str(seen):
                status = {}
    assert true(status), (status, await node.api.items(f"{ARGO}/analysisruns"))


CHECKS: Mapping[str, Callable[[Node], Awaitable[None]]] = {
    "argo: a release is promoted": a_release_is_promoted,
    "argo: a route that does not follow aborts": a_route_that_does_not_follow_aborts,
    "argo: an inconclusive verdict pauses": an_inconclusive_verdict_pauses,
    "argo: a Job decides": a_job_decides,
}
