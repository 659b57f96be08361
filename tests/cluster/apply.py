"""Every overlay of ``manifests/`` is applied for real, and each command of its README is run."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING

from cluster.processes import run_all

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping

    from cluster.node import Node

MANIFESTS = Path(__file__).parents[2] / "manifests"
NAMESPACE = "trio-echo"
PARTS = ("shared", "common", "weights", "job")
"""Folders that others are made of."""

ELSEWHERE = ("argo-rollouts", "flagger")
"""Folders that take the place of ``istio``: their controllers' checks apply them."""


def overlays() -> list[Path]:
    """The folders that are applied, those that others build upon first."""
    found = [path.parent for path in MANIFESTS.rglob("kustomization.yaml")]
    passed_over = {*PARTS, *ELSEWHERE}
    whole = [path for path in found if passed_over.isdisjoint(path.relative_to(MANIFESTS).parts)]
    component = "kind: Component"
    kept = [
        path
        for path in whole
        if component not in (path / "kustomization.yaml").read_text(encoding="utf-8")
    ]
    order = ("base", "istio", "gateway-api")
    first = [MANIFESTS / name for name in order]
    return [*first, *sorted(path for path in kept if path not in first)]


async def every_overlay_is_applied(node: Node) -> None:
    """Each overlay is taken server-side without a warning, a refusal or a message.

    A kind that is not installed here is told apart from one that is refused: its overlay
    is named and passed over.
    """
    try:
        await _apply_all(node)
    finally:
        await node.kubectl("delete", "namespace", NAMESPACE, "--timeout=90s")


async def _apply_all(node: Node) -> None:
    for path in overlays():
        name = str(path.relative_to(MANIFESTS))
        # Two commands differ in what they do to a Job, which cannot be changed.
        if "probe" in name:
            await run_all(
                "kubectl", "delete", "--ignore-not-found", "-k", str(path), env=node.environment
            )
        try:
            said = await applied(node, path)
        except NotServedError as error:
            print(f"     {name}: not served here: {error}", flush=True)
            continue
        if "gateway.gateway.networking" in said:
            wait = ("wait", "--for=condition=Programmed", "gateway/tcp-echo-gateway")
            await node.kubectl("-n", NAMESPACE, *wait, "--timeout=60s")
        await analyzed(node, path)
    await backends_are_ready(node)
    await nothing_was_violated(node)


class NotServedError(Exception):
    """A kind that is not installed here."""


async def applied(node: Node, path: Path) -> str:
    """Apply a folder as it is. Gives what kubectl said, which is no warning.

    Raises:
        NotServedError: names the kinds that are not installed here.
    """
    code, said = await run_all(
        *("kubectl", "apply", "--server-side", "-k", str(path)), env=node.environment
    )
    absent = re.findall(r'no matches for kind "(\w+)" in version "([^"]+)"', said)
    if absent:
        raise NotServedError(
            ", ".join(f"{version} {kind}" for kind, version in sorted(set(absent)))
        )
    assert code == 0, f"{path}: {said}"
    assert "Warning" not in said, f"{path}: {said}"
    return said


async def analyzed(node: Node, path: Path) -> None:
    """Istio has no complaint about the namespace, a folder applied."""
    _, found = await run_all(
        *("istioctl", "analyze", "--namespace", NAMESPACE, "--failure-threshold", "Info"),
        # The base is for clusters without Istio too: it marks nothing for injection.
        "--suppress=IST0102=Namespace trio-echo",
        env=node.environment,
    )
    assert "No validation issues found" in found, f"{path}: {found}"


async def backends_are_ready(node: Node) -> None:
    """Wait until both versions serve."""
    names = ("deployment/tcp-echo-v1", "deployment/tcp-echo-v2")
    for name in names:
        await node.kubectl("-n", NAMESPACE, "rollout", "status", name, "--timeout=90s")


async def nothing_was_violated(node: Node) -> None:
    """No pod of the namespace was refused, by Pod Security or by anything else."""
    events = await node.api.items(f"/api/v1/namespaces/{NAMESPACE}/events")
    refused = [
        f"{event['involvedObject']['name']}: {event['message']}"
        for event in events
        if event["reason"] == "FailedCreate"
    ]
    assert not refused, refused


CHECKS: Mapping[str, Callable[[Node], Awaitable[None]]] = {
    "every overlay is applied": every_overlay_is_applied,
}
