"""The routes that are recorded: short YAML in ``routes/``, read into whole documents.

A file of routes maps the name of each case to its documents, KIND/NAME[@NAMESPACE]
to the spec (or to ``metadata`` and ``spec``). What a case does not name comes from
``routes/defaults``; null leaves a default out. ``routes/world.yaml`` is there in every case.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

FOLDER = Path(__file__).parent / "routes"
NAMESPACE = "echo"
VERSIONS = {
    "Service": "v1",
    "ConfigMap": "v1",
    "Deployment": "apps/v1",
    "Sidecar": "networking.istio.io/v1",
    "ServiceEntry": "networking.istio.io/v1",
    "VirtualService": "networking.istio.io/v1",
    "DestinationRule": "networking.istio.io/v1",
    "EnvoyFilter": "networking.istio.io/v1alpha3",
    "AuthorizationPolicy": "security.istio.io/v1",
    "PeerAuthentication": "security.istio.io/v1",
    "TCPRoute": "gateway.networking.k8s.io/v1",
    "TLSRoute": "gateway.networking.k8s.io/v1",
    "ReferenceGrant": "gateway.networking.k8s.io/v1",
    "ListenerSet": "gateway.networking.k8s.io/v1",
    "BackendTrafficPolicy": "gateway.envoyproxy.io/v1alpha1",
    "Backend": "gateway.envoyproxy.io/v1alpha1",
}
GATEWAYS = {
    "gateway": "networking.istio.io/v1",
    "mesh": "networking.istio.io/v1",
    "istio": "gateway.networking.k8s.io/v1",
    "envoy-gateway": "gateway.networking.k8s.io/v1",
}
"""The clients of a case, and which Gateway its documents mean."""

Document = dict[str, Any]


@dataclass(frozen=True)
class Ask:
    """One thing that is asked: which entrance, how, how often."""

    port: int
    host: str = ""
    """In the mesh: the Service's name, ``.NAMESPACE`` where it is not the client's."""
    sni: str = ""
    times: int = 100
    at_once: int = 8

    @property
    def name(self) -> str:
        """Names the question in a record."""
        sni = f" {self.sni}" if self.sni else ""
        return f"{self.host}:{self.port}{sni}"


@dataclass(frozen=True)
class Case:
    """One route, and what is asked of it."""

    name: str
    client: str
    """``gateway`` or ``mesh`` in Istio's dialect; ``istio`` or ``envoy-gateway``: Gateway API."""
    documents: Sequence[Document]
    asks: Sequence[Ask]

    @property
    def text(self) -> str:
        """Its documents and what it leaves of the world's, as one YAML stream."""
        own = [identity(each) for each in self.documents]
        rest = [each for each in world() if identity(each) not in own]
        return yaml.safe_dump_all([*rest, *self.documents], sort_keys=False)


def identity(document: Document) -> tuple[str, str, str]:
    """What tells an object from all others: its kind, namespace and name."""
    metadata = document["metadata"]
    return document["kind"], metadata.get("namespace", ""), metadata["name"]


def world() -> list[Document]:
    """The workloads and Services that every case finds."""
    return _load_all(FOLDER / "world.yaml")


def read_cases(client: str | None = None) -> list[Case]:
    """All cases, or those of one client, in the order of the files' names."""
    cases = []
    for path in sorted(FOLDER.glob("*.yaml")):
        if path.name == "world.yaml":
            continue
        [content] = _load_all(path)
        clients = content.pop("clients")
        for name, given in content.items():
            entry = given or {}
            own_clients = entry.get("clients", clients)
            wanted = [each for each in own_clients if client in (None, each)]
            cases += [_case(f"{each}: {name}", each, entry) for each in wanted]
    names = [case.name for case in cases]
    double = {name for name in names if names.count(name) > 1}
    if double:
        raise ValueError(f"two cases of one name: {', '.join(sorted(double))}")
    return cases


def _case(name: str, client: str, entry: Document) -> Case:
    standard = {"host": "echo", "port": 9000} if client == "mesh" else {"port": 31400}
    asks = [Ask(**{**standard, **ask}) for ask in entry.get("ask", [{}])]
    [content] = _load_all(FOLDER / "defaults" / f"{client}.yaml")
    specs = {key: spec for key, spec in {**content, **entry}.items() if "/" in key}
    documents = [_document(key, spec, client) for key, spec in specs.items() if spec is not None]
    return Case(name, client, documents, asks)


def _document(key: str, content: Mapping[str, Any], client: str) -> Document:
    kind, _, rest = key.partition("/")
    name, _, namespace = rest.partition("@")
    version = GATEWAYS[client] if kind == "Gateway" else VERSIONS[kind]
    body = dict(content) if "spec" in content else {"spec": content}
    metadata = {"name": name, "namespace": namespace or NAMESPACE, **body.pop("metadata", {})}
    return {"apiVersion": version, "kind": kind, "metadata": metadata, **body}


def _load_all(path: Path) -> list[Any]:
    with path.open(encoding="utf-8") as file:
        return list(yaml.safe_load_all(file))
