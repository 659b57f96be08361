"""The probe's Jobs where pods are evicted: that says nothing about the split."""

from __future__ import annotations

from contextlib import asynccontextmanager
from functools import partial
from typing import TYPE_CHECKING

import trio
from cluster.apply import MANIFESTS, NAMESPACE

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping

    from cluster.api import Document
    from cluster.node import Node

PODS = f"/api/v1/namespaces/{NAMESPACE}/pods"
JOB = f"/apis/batch/v1/namespaces/{NAMESPACE}/jobs/tcp-echo-probe"
WAIT = ("wait", "job/tcp-echo-probe", "--timeout=120s")
INDEX = "batch.kubernetes.io/job-completion-index"


async def evicted_pod_is_replaced(node: Node, folder: str) -> None:
    """The probe waits for a route that is not there yet; its pod is evicted meanwhile.

    Another pod takes its place, and once the route is there the Job is complete.
    """
    async with waiting_job(node, folder) as before:
        eviction = {"apiVersion": "policy/v1", "kind": "Eviction", "metadata": {"name": before}}
        await node.api.create(f"{PODS}/{before}/eviction", eviction)
        await running(node, but=before)
        job = await node.api.get(JOB)
        assert not job["status"].get("failed"), job["status"]
        await node.kubectl("apply", "-k", str(MANIFESTS / "istio"))
        await node.kubectl("-n", NAMESPACE, *WAIT, "--for=condition=complete")


async def other_end_fails_the_job(node: Node) -> None:
    """A pod that somebody deletes is not replaced."""
    async with waiting_job(node, "probe") as pod:
        await node.api.delete(f"{PODS}/{pod}")
        await node.kubectl("-n", NAMESPACE, *WAIT, "--for=condition=failed")


@asynccontextmanager
async def waiting_job(node: Node, folder: str) -> AsyncGenerator[str]:
    """Start a Job that waits for its route; yields the name of a pod."""
    await node.kubectl("apply", "-k", str(MANIFESTS / "base"))
    try:
        await node.kubectl("apply", "-k", str(MANIFESTS / folder))
        yield await running(node)
    finally:
        await node.kubectl("delete", "namespace", NAMESPACE, "--timeout=90s")


async def running(node: Node, *, but: str = "") -> str:
    """Wait until a pod of the Job's first index, or of a Job without any, runs.

    Args:
        node: the node.
        but: a pod that is not meant.

    Returns:
        Its name.
    """
    with trio.fail_after(60):
        while True:
            for pod in await node.api.items(PODS, labelSelector="job-name=tcp-echo-probe"):
                if pod["metadata"]["name"] != but and _runs(pod):
                    name: str = pod["metadata"]["name"]
                    return name
            await trio.sleep(0.2)


def _runs(pod: Document) -> bool:
    metadata = pod["metadata"]
    first = metadata.get("annotations", {}).get(INDEX, "0") == "0"
    return first and pod["status"]["phase"] == "Running" and "deletionTimestamp" not in metadata


CHECKS: Mapping[str, Callable[[Node], Awaitable[None]]] = {
    **{
        f"jobs: an evicted pod of manifests/{folder} is replaced": partial(
            evicted_pod_is_replaced, folder=folder
        )
        for folder in ("probe", "probe/indexed")
    },
    "jobs: any other end of a pod fails the Job": other_end_fails_the_job,
}
