"""The whole node: network, containers' root, control plane, kubelet, Services."""

from __future__ import annotations

import shutil
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

import trio
from cluster.container import RUN, make_root
from cluster.control_plane import control_plane
from cluster.kubelet import Image, Kubelet
from cluster.network import set_up_node
from cluster.processes import run
from cluster.services import Services

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping
    from pathlib import Path

    from cluster.api import Api

PLAIN_ENVOY = {
    # Envoy as its own project builds it has none of Istio's filters: without these
    # istiod would send configuration that such an Envoy refuses.
    "PILOT_ENABLE_METADATA_EXCHANGE": "false",
    "PILOT_ENABLE_ALPN_FILTER": "false",
}


@dataclass
class Node:
    """What a check needs of the node."""

    api: Api
    kubelet: Kubelet
    services: Services
    programs: Mapping[str, Path]
    logs: Path

    async def kubectl(self, *arguments: str, stdin: str = "") -> str:
        """What a kubectl command prints."""
        return await run("kubectl", *arguments, stdin=stdin, env=self.environment)

    @property
    def environment(self) -> dict[str, str]:
        """Leads kubectl, istioctl and the like to this cluster."""
        # What another cluster served at the same address is not remembered.
        cache = str(RUN / "kubectl-cache")
        return {"KUBECONFIG": str(RUN / "pki/kubeconfig"), "KUBECACHEDIR": cache}


@asynccontextmanager
async def node(programs: Mapping[str, Path], logs: Path) -> AsyncIterator[Node]:
    """A cluster of one node that runs pods. Everything in it ends with the block.

    It changes mounts and the network of its namespaces, and expects its own.
    """
    await set_up_node()
    files = {
        **{f"/usr/local/bin/{name}": path for name, path in programs.items() if not path.suffix},
        "/var/lib/istio/envoy/envoy_bootstrap_tmpl.json": programs["envoy_bootstrap.json"],
    }
    await make_root(files)
    shutil.rmtree(logs, ignore_errors=True)
    async with control_plane(programs, RUN / "pki", logs) as api, trio.open_nursery() as nursery:
        services = Services(api, RUN / "hosts")
        images = {
            "trio-echo": Image(["trio-echo", "serve"]),
            "tcp-echo-server": Image(["trio-echo", "serve"]),
            "pilot": Image(["pilot-discovery"], PLAIN_ENVOY),
            "proxyv2": Image(["pilot-agent"]),
            "install-cni": Image([]),
            "gateway": Image(["envoy-gateway"]),
            "envoy": Image(["envoy"]),
            "argo-rollouts": Image(["rollouts-controller"]),
            "flagger": Image(["flagger"]),
        }

        def image(reference: str) -> Image | None:
            name = reference.split("@", maxsplit=1)[0].rsplit("/", 1)[-1].split(":", maxsplit=1)[0]
            return images.get(name)

        kubelet = Kubelet(api, image, services.hosts, RUN, logs / "pods")
        nursery.start_soon(services.run)
        nursery.start_soon(kubelet.run)
        yield Node(api, kubelet, services, programs, logs)
        nursery.cancel_scope.cancel()
