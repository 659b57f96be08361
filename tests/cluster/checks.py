"""What is checked on the node, by name and in order."""

from __future__ import annotations

from typing import TYPE_CHECKING

import yaml
from cluster import apply, argo, changes, envoy_gateway, flagger, istio, jobs, judge, readme

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping

    from cluster.node import Node

CHECKS: Mapping[str, Callable[[Node], Awaitable[None]]] = {
    **apply.CHECKS,
    **jobs.CHECKS,
    **judge.CHECKS,
    **changes.CHECKS,
    **argo.CHECKS,
    **flagger.CHECKS,
    # Last: it ends with removing everything.
    **readme.CHECKS,
}


async def install(node: Node) -> None:
    """Install the Gateway API, Istio and Envoy Gateway."""
    text = node.programs["gateway-api.yaml"].read_text(encoding="utf-8")
    for document in yaml.safe_load_all(text):
        if document:
            await node.api.apply(document)
    await istio.install(node)
    await envoy_gateway.install(node)
