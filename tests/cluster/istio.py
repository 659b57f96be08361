"""Istio on the node: installed by its own command, its gateway and sidecars read from Envoy."""

from __future__ import annotations

from typing import TYPE_CHECKING

import trio
from cluster.asking import get_json
from cluster.processes import run

if TYPE_CHECKING:
    from collections.abc import Sequence

    from cluster.node import Node

INSTALL = (
    *("istioctl", "install", "--skip-confirmation", "--set", "profile=demo"),
    # For the gateways that Istio makes in a namespace of restricted Pod Security.
    *("--set", "values.gateways.seccompProfile.type=RuntimeDefault"),
    # For sidecars in such a namespace: their init container would want capabilities.
    *("--set", "components.cni.enabled=true"),
)
PLAIN_ENVOY = ("--set", "values.telemetry.enabled=false", "--set", "meshConfig.accessLogFile=")
"""What has to be added here, since an Envoy without Istio's own filters cannot count for it."""

ADMIN_PORT = 15000
GATEWAY = {15012, 15021, 15090, 15443}
SIDECAR = {15001, 15006, 15021, 15090}


async def install(node: Node, command: Sequence[str] = INSTALL) -> str:
    """Install Istio as its users do. Gives what the command said."""
    return await run(*command, *PLAIN_ENVOY, env=node.environment)


async def version() -> str:
    """The version that istioctl says it has."""
    return (await run("istioctl", "version", "--remote=false", "--short")).split()[-1]


async def until_cluster(network: str, name: str, limit: float = 30) -> None:
    """Wait until the Envoy in a network knows a cluster.

    Raises:
        trio.TooSlowError: It did not, within the limit in seconds.
    """
    with trio.fail_after(limit):
        while True:
            page = await get_json(
                "127.0.0.1",
                ADMIN_PORT,
                "/config_dump?resource=dynamic_active_clusters&mask=cluster.name",
                namespace=network,
            )
            known = {entry["cluster"]["name"] for entry in page.get("configs", [])}
            if any(name in each for each in known):
                return
            await trio.sleep(0.1)
