"""Envoy Gateway's own resources: traffic policies, and Backends in the place of Services. Pure.

They hold only for Gateways that Envoy Gateway runs. A policy is for the route,
the listener or the Gateway that it targets, in this order, and the nearest one
counts whole.
"""

from __future__ import annotations

import re
from dataclasses import replace
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal, TypeVar

import msgspec

from trio_echo.rehearsal.documents import Lenient, Metadata
from trio_echo.rehearsal.route import Keepalive, Policy

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from trio_echo.rehearsal.documents import Document

__all__ = ["ENVOY_GATEWAY_GROUP", "KINDS", "Backend", "Policies"]

ENVOY_GATEWAY_GROUP = "gateway.envoyproxy.io"
KINDS = ("Backend", "BackendTrafficPolicy", "ClientTrafficPolicy")
"""The kinds that are carried out."""

_UNITS = {"h": 3600.0, "m": 60.0, "s": 1.0, "ms": 0.001}
_DURATION = re.compile(r"(?:\d{1,5}(?:h|ms|m|s)){1,4}")
_PART = re.compile(r"(\d+)(h|ms|m|s)")
_BALANCERS = {
    "LeastRequest": "LEAST_REQUEST",
    "RoundRobin": "ROUND_ROBIN",
    "Random": "RANDOM",
}

Count = Annotated[int, msgspec.Meta(ge=0, le=2**32 - 1)]
Port = Annotated[int, msgspec.Meta(ge=1, le=65_535)]


class Target(Lenient):
    """What a policy is for."""

    kind: str
    name: str
    group: str = "gateway.networking.k8s.io"
    section_name: str | None = None


class KeepaliveSpec(Lenient):
    """TCP keep-alive; times as durations."""

    probes: Count | None = None
    idle_time: str | None = None
    interval: str | None = None


class BackendTcp(Lenient):
    """Timeouts towards endpoints."""

    connect_timeout: str | None = None


class BackendTimeout(Lenient):
    """The same, by protocol."""

    noted: ClassVar[frozenset[str]] = frozenset({"http"})
    tcp: BackendTcp = msgspec.field(default_factory=BackendTcp)
    http: Any = None


class Breaker(Lenient):
    """Limits towards endpoints."""

    max_connections: Count | None = None


class Balancer(Lenient):
    """Which endpoint of a locality gets a connection."""

    type: Literal["ConsistentHash", "LeastRequest", "Random", "RoundRobin"] = "LeastRequest"


class BackendPolicySpec(Lenient):
    """What holds between the gateway and its backends."""

    target_ref: Target | None = None
    target_refs: list[Target] | None = None
    circuit_breaker: Breaker = msgspec.field(default_factory=Breaker)
    timeout: BackendTimeout = msgspec.field(default_factory=BackendTimeout)
    load_balancer: Balancer = msgspec.field(default_factory=Balancer)
    tcp_keepalive: KeepaliveSpec | None = None


class BackendPolicy(Lenient):
    """The whole document."""

    api_version: str
    kind: str
    metadata: Metadata
    spec: BackendPolicySpec


class ClientTcp(Lenient):
    """Timeouts towards clients."""

    idle_timeout: str | None = None


class ClientTimeout(Lenient):
    """The same, by protocol."""

    noted: ClassVar[frozenset[str]] = frozenset({"http"})
    tcp: ClientTcp = msgspec.field(default_factory=ClientTcp)
    http: Any = None


class ClientPolicySpec(Lenient):
    """What holds between clients and the gateway."""

    target_ref: Target | None = None
    target_refs: list[Target] | None = None
    timeout: ClientTimeout = msgspec.field(default_factory=ClientTimeout)


class ClientPolicy(Lenient):
    """The whole document."""

    api_version: str
    kind: str
    metadata: Metadata
    spec: ClientPolicySpec


class HostAddress(Lenient):
    """A name and a port."""

    hostname: str
    port: Port


class IPAddress(Lenient):
    """An address and a port."""

    address: str
    port: Port


class BackendEndpoint(Lenient):
    """One address of a Backend."""

    fqdn: HostAddress | None = None
    ip: IPAddress | None = None

    @property
    def host(self) -> str:
        """Its name or address; empty for a path in the file system."""
        return self.fqdn.hostname if self.fqdn else self.ip.address if self.ip else ""

    @property
    def port(self) -> int | None:
        """Its port, where it has one."""
        found = self.fqdn or self.ip
        return found.port if found else None


class BackendSpec(Lenient):
    """Where a Backend is."""

    type: str = "Endpoints"
    endpoints: list[BackendEndpoint] | None = None


class Backend(Lenient):
    """The whole document."""

    api_version: str
    kind: str
    metadata: Metadata
    spec: BackendSpec


_Spec = TypeVar("_Spec", BackendPolicySpec, ClientPolicySpec)


class Policies:
    """All traffic policies of Envoy Gateway."""

    def __init__(
        self, documents: Iterable[Document], note: Callable[[Document, str], None]
    ) -> None:
        """Read those among `documents`; `note` takes what is not carried out.

        Raises:
            ManifestError: one of them is wrong.
        """
        self._backends: list[tuple[Document, BackendPolicySpec]] = []
        self._clients: list[tuple[Document, ClientPolicySpec]] = []
        for document in documents:
            read: BackendPolicy | ClientPolicy
            if document.kind == "BackendTrafficPolicy":
                read = document.read(BackendPolicy)
                self._backends.append((document, read.spec))
            elif document.kind == "ClientTrafficPolicy":
                read = document.read(ClientPolicy)
                self._clients.append((document, read.spec))
            else:
                continue
            for path in document.unread(read):
                note(document, path)

    def policy(self, route: Document, gateway: tuple[str, str], section: str | None) -> Policy:
        """How connections of a route are made and kept.

        Args:
            route: the TCPRoute or TLSRoute.
            gateway: namespace and name of the Gateway that it is attached to.
            section: the listener's name.

        Raises:
            ManifestError: a policy chooses backends in a way that is not carried out.
        """
        place, name = gateway
        found = _nearest(
            self._backends,
            [
                (route.namespace, route.kind, route.name, None),
                (place, "Gateway", name, section),
                (place, "Gateway", name, None),
            ],
        )
        client = _nearest(
            self._clients, [(place, "Gateway", name, section), (place, "Gateway", name, None)]
        )
        policy = _backend_policy(*found) if found else Policy()
        if client is not None:
            text = client[1].timeout.tcp.idle_timeout
            idle = _seconds(client[0], "spec.timeout.tcp.idleTimeout", text)
            policy = replace(policy, idle_timeout=idle)
        return policy


def _nearest(
    policies: Sequence[tuple[Document, _Spec]],
    places: Iterable[tuple[str, str, str, str | None]],
) -> tuple[Document, _Spec] | None:
    """The policy for the first of these that one targets.

    Args:
        policies: by their documents.
        places: namespace, kind, name and section of what may be targeted.
    """
    for namespace, *wanted in places:
        for found in policies:
            targets = [[each.kind, each.name, each.section_name] for each in _targets(found[1])]
            if found[0].namespace == namespace and list(wanted) in targets:
                return found
    return None


def _targets(spec: BackendPolicySpec | ClientPolicySpec) -> list[Target]:
    """What a policy is for, in the plural or in the singular."""
    return [*(spec.target_refs or ()), *([spec.target_ref] if spec.target_ref else ())]


def _backend_policy(document: Document, spec: BackendPolicySpec) -> Policy:
    """A BackendTrafficPolicy as far as it holds for TCP."""
    balancer = spec.load_balancer.type
    if balancer not in _BALANCERS:
        raise document.error(
            "spec.loadBalancer.type", f"{balancer} is not supported: it leaves weights aside"
        )
    alive = spec.tcp_keepalive
    connect = _seconds(
        document, "spec.timeout.tcp.connectTimeout", spec.timeout.tcp.connect_timeout
    )
    return Policy(
        balancing=_BALANCERS[balancer],
        max_connections=spec.circuit_breaker.max_connections,
        connect_timeout=Policy().connect_timeout if connect is None else connect,
        keepalive=None
        if alive is None
        else Keepalive(
            time=_whole(document, "spec.tcpKeepalive.idleTime", alive.idle_time),
            interval=_whole(document, "spec.tcpKeepalive.interval", alive.interval),
            probes=alive.probes,
        ),
    )


def _seconds(document: Document, path: str, text: str | None) -> float | None:
    """A duration as Gateway API writes it, such as ``1h30m`` or ``250ms``."""
    if text is None:
        return None
    if not _DURATION.fullmatch(text):
        raise document.error(path, f"must be a duration such as 30s or 1h30m, got {text!r}")
    return sum(int(number) * _UNITS[unit] for number, unit in _PART.findall(text))


def _whole(document: Document, path: str, text: str | None) -> int | None:
    """The same in whole seconds."""
    seconds = _seconds(document, path, text)
    return None if seconds is None else int(seconds)
