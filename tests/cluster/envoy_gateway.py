"""Envoy Gateway on the node, as its Helm chart installs it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

if TYPE_CHECKING:
    from cluster.node import Node

VERSION = "v1.9.1"
NAMESPACE = "envoy-gateway-system"
ADMIN_PORT = 19000
OWN_PORTS = {19001, 19003}
MANIFEST = Path(__file__).with_suffix(".yaml")


async def install(node: Node) -> None:
    """Install Envoy Gateway and its custom resources, and wait until it is there."""
    text = node.programs["envoy-gateway-crds.yaml"].read_text(encoding="utf-8")
    documents: list[dict[str, Any]] = [*yaml.safe_load_all(text)]
    for document in [*documents, *yaml.safe_load_all(MANIFEST.read_text(encoding="utf-8"))]:
        if document:
            await node.api.apply(document)
    deployment = "deployment/envoy-gateway"
    await node.kubectl("-n", NAMESPACE, "rollout", "status", deployment, "--timeout=60s")
