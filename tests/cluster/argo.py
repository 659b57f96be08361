"""Argo Rollouts' controller on the node: it walks a Rollout, and the judge looks at each step."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import trio
import yaml
from cluster.cases import read_cases
from cluster.judge import probe
from cluster.record import entrance, settled

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping

    from cluster.node import Node

MANIFEST = Path(__file__).with_suffix(".yaml")
NAMESPACE = "argo-rollouts"
ROLLOUT = "/apis/argoproj.io/v1alpha1/namespaces/rollout/rollouts/echo"


async def install(node: Node) -> None:
    """Install the controller as its own manifest has it, and wait until it runs."""
    text = node.programs["argo-rollouts.yaml"].read_text(encoding="utf-8")
    space = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NAMESPACE}}
    for document in [space, *yaml.safe_load_all(text)]:
        document["metadata"].setdefault("namespace", NAMESPACE)
        await node.api.apply(document)
    deployment = "deployment/argo-rollouts"
    await node.kubectl("-n", NAMESPACE, "rollout", "status", deployment, "--timeout=60s")


async def a_rollout_moves_the_weights(node: Node) -> None:
    """80/20 while it pauses at 20, and all to the new version when it is promoted."""
    await install(node)
    documents = [*yaml.safe_load_all(MANIFEST.read_text(encoding="utf-8"))]
    try:
        for document in documents:
            await node.api.apply(document)
        await _until(node, lambda status: status.get("phase") == "Healthy")
        await node.api.merge(ROLLOUT, _template("two"))
        await _until(node, lambda status: status.get("phase") == "Paused")
        await _judged(node, "one=80 two=20")
        await node.api.merge(f"{ROLLOUT}/status", {"status": {"pauseConditions": None}})
        await _until(
            node,
            lambda status: (
                status.get("phase") == "Healthy"
                and status.get("stableRS") == status.get("currentPodHash")
            ),
        )
        await _judged(node, "two=100")
    finally:
        await node.kubectl("delete", "namespace", "rollout", "--timeout=90s")


async def _judged(node: Node, expected: str) -> None:
    place = await entrance(node, read_cases("gateway")[0])
    assert place is not None
    network, host = place
    await settled(node, "gateway", network)
    code, said = await probe(node, f"{host}:31400", expected, "")
    assert code == 0, f"{expected}: exit code {code}\n{said}"


async def _until(node: Node, true: Callable[[Mapping[str, Any]], bool]) -> None:
    status: dict[str, Any] = {}
    with trio.move_on_after(60):
        while not true(status):
            await trio.sleep(0.2)
            status = (await node.api.get(ROLLOUT)).get("status") or {}
    assert true(status), status


def _template(prefix: str) -> dict[str, Any]:
    container = {"name": "echo", "image": "trio-echo", "args": ["9000", prefix]}
    return {"spec": {"template": {"spec": {"containers": [container]}}}}


CHECKS: Mapping[str, Callable[[Node], Awaitable[None]]] = {
    "argo: a Rollout moves the weights": a_rollout_moves_the_weights,
}
