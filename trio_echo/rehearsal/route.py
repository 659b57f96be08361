"""What is rehearsed, in one vocabulary for every dialect: listeners, weights, endpoints.

Pure data. Istio's documents and Gateway API's both become a `Route`; a `Route`
becomes the configuration of Envoy (`trio_echo.rehearsal.dataplane`).
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field, replace
from fractions import Fraction
from typing import TYPE_CHECKING

from trio_echo.server.config import ServerConfig

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

__all__ = [
    "Backend",
    "Chain",
    "Destination",
    "Endpoint",
    "Keepalive",
    "Listener",
    "Notice",
    "Outlier",
    "Plan",
    "Policy",
    "Route",
    "Termination",
    "built_in",
    "manifest_ports",
]

DRAIN = 45
"""Seconds from the change of a listener to the end of its connections: Istio's default."""

BUILT_IN_PORT = 31_400
"""Where the built-in route listens: the TCP port of Istio's demonstration."""


@dataclass(frozen=True, slots=True)
class Endpoint:
    """One port of one replica of a backend.

    Attributes:
        backend: the name of its backend.
        replica: which of the backend's replicas, counted from 0.
        port: the port as the manifest gives it; on this machine it is another.
    """

    backend: str
    replica: int
    port: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Backend:
    """Servers that answer with one prefix: what a Deployment runs.

    Attributes:
        name: the Deployment's name, with its namespace in front.
        config: what the manifest tells each of its servers.
        replicas: how many servers run.
    """

    name: str
    config: ServerConfig
    replicas: int = 1

    def endpoints(self, port: int) -> tuple[Endpoint, ...]:
        """Every replica's endpoint at the manifest's `port`."""
        return tuple(Endpoint(self.name, replica, port) for replica in range(self.replicas))


@dataclass(frozen=True, slots=True, kw_only=True)
class Keepalive:
    """TCP keep-alive towards the endpoints; None leaves a value to the system.

    Attributes:
        time: idle seconds before the first probe.
        interval: seconds between probes.
        probes: unanswered probes before the connection counts as dead.
    """

    time: int | None = None
    interval: int | None = None
    probes: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Outlier:
    """When an endpoint that fails is left out, as Envoy's outlier detection has it.

    Attributes:
        failures: consecutive failed connections before ejection; 0 is never,
            None is Envoy's own default.
        gateway_failures: the same for what counts as a gateway error.
        local_failures: the same for failures of local origin, when split.
        split_local: count failures of local origin apart.
        interval: seconds between sweeps.
        base_ejection: seconds of a first ejection.
        max_ejection_percent: how many of the endpoints may be out at once.
        min_health_percent: below this share of healthy endpoints all are used.
    """

    failures: int | None = None
    gateway_failures: int | None = None
    local_failures: int | None = None
    split_local: bool = False
    interval: float | None = None
    base_ejection: float | None = None
    max_ejection_percent: int | None = None
    min_health_percent: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Policy:
    """How connections to a destination are made and kept; times in seconds.

    Attributes:
        balancing: Envoy's name of the balancer among the endpoints.
        max_connections: open connections beyond which new ones are refused.
        connect_timeout: the longest that dialling an endpoint may take.
        idle_timeout: quiet time after which a connection is ended; 0 is never.
        max_duration: age at which a connection is ended, whatever it does.
        keepalive: TCP keep-alive, or None for none.
        outlier: outlier detection, or None for none.
        max_pending: connections that may wait for an endpoint's.
        tls: whether TLS is begun towards the endpoints.
        certified: whether a certificate is shown to them.
    """

    balancing: str = "LEAST_REQUEST"
    max_connections: int | None = None
    connect_timeout: float = 10.0
    idle_timeout: float | None = None
    max_duration: float | None = None
    keepalive: Keepalive | None = None
    outlier: Outlier | None = None
    max_pending: int | None = None
    tls: bool = False
    certified: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Destination:
    """Where a weighted part of the connections goes: one cluster of Envoy's.

    Attributes:
        name: unique for its endpoints and policy; Envoy's cluster name.
        weight: its part, relative to the other destinations of its chain.
        endpoints: none where nothing can be reached by it.
        policy: how connections are made and kept.
        missing: what the manifests call it, where nothing that runs can answer.
        cause: why connections do not get there as the manifests mean, where
            that is known; for the reasons of a verdict.
    """

    name: str
    weight: int
    endpoints: tuple[Endpoint, ...]
    policy: Policy = field(default_factory=Policy)
    missing: str = ""
    cause: str = field(default="", compare=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class Termination:
    """TLS that ends at the gateway.

    Attributes:
        asks_client: whether clients must show a certificate.
    """

    asks_client: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Chain:
    """The connections of a listener that are routed alike.

    Attributes:
        destinations: with weights of which at least one is above 0.
        sni: the TLS server names it is for, a leading ``*.`` allowed; none
            means every connection, TLS or not.
        tls: how TLS ends at the gateway; None where it does not.
        passthrough: whether clients speak TLS with the endpoints, whatever
            name they ask for; with server names it is a matter of course.
        pooled: whether the destinations are localities of one cluster. Then
            one without endpoints leaves its share to the others, and an
            endpoint of several counts for the first of them only.
        expected: what the manifests mean, where the data plane does another thing.
    """

    destinations: tuple[Destination, ...]
    sni: tuple[str, ...] = ()
    tls: Termination | None = None
    passthrough: bool = False
    pooled: bool = False
    expected: tuple[Destination, ...] | None = None

    @property
    def server_name(self) -> str:
        """A TLS server name that this chain is for, and that a certificate can be made for."""
        return self.sni[0].replace("*", "rehearsal", 1) if self.sni else "localhost"

    def reached(self) -> tuple[Destination, ...]:
        """The destinations, each with the endpoints that connections reach by it."""
        if not self.pooled:
            return self.destinations
        taken: set[Endpoint] = set()
        found: list[Destination] = []
        for each in self.destinations:
            own = tuple(one for one in each.endpoints if not each.weight or one not in taken)
            taken.update(own if each.weight else ())
            found.append(replace(each, endpoints=own))
        return tuple(found)

    def weighted(self, weights: Sequence[int]) -> Chain:
        """The same chain with other weights, in the order of its destinations."""
        pairs = zip(self.destinations, weights, strict=True)
        weighted = tuple(replace(d, weight=w) for d, w in pairs)
        meant = self.expected
        if meant is not None and len(meant) == len(weights):
            meant = tuple(replace(d, weight=w) for d, w in zip(meant, weights, strict=True))
        return replace(self, destinations=weighted, expected=meant)


@dataclass(frozen=True, slots=True, kw_only=True)
class Listener:
    """One port that clients connect to.

    Attributes:
        name: what it belongs to and its port, in words; unique in its route.
        port: as the manifest gives it.
        chains: at least one; no server name is in two of them.
        plane: the data plane that runs it, by its name.
        label: what the manifest calls it; no data plane looks at that.
    """

    name: str
    port: int
    chains: tuple[Chain, ...]
    plane: str = "istio"
    label: str = field(default="", compare=False)

    @property
    def title(self) -> str:
        """All that tells it from others, in words."""
        return f"{self.name} ({self.label})" if self.label else self.name

    def chain_name(self, chain: Chain) -> str:
        """The name of one of its chains; unique, and the same while its server names are."""
        return f"{self.name}/{','.join(chain.sni)}"

    @property
    def by_name(self) -> bool:
        """Whether any connection is routed by its TLS server name."""
        return any(chain.sni for chain in self.chains)


@dataclass(frozen=True, slots=True, kw_only=True)
class Route:
    """Everything that is rehearsed at one time.

    Attributes:
        listeners: none only where all that was routed has been deleted.
        backends: all that the listeners' endpoints name, in any order.
    """

    listeners: tuple[Listener, ...]
    backends: tuple[Backend, ...]

    def destinations(self) -> dict[str, Destination]:
        """Every destination of every listener, once, by name."""
        chains = (chain for listener in self.listeners for chain in listener.chains)
        return {each.name: each for chain in chains for each in chain.destinations}

    def prefixes(self) -> dict[str, str]:
        """The prefix that each backend answers with, by the backend's name."""
        return {backend.name: backend.config.prefix for backend in self.backends}

    def shares(self, chain: Chain) -> dict[str, float]:
        """The weight that the manifests give each prefix of the chain's connections.

        A destination's weight is spread evenly over its endpoints, and a
        prefix gets what its endpoints get. Whole numbers stay as the manifest
        wrote them. What the data plane makes of them is `Chain.reached`.
        """
        prefixes = self.prefixes()
        total: Counter[str] = Counter()
        exact: dict[str, Fraction] = {}
        for destination in chain.expected or chain.destinations:
            total.clear()
            total.update(prefixes[endpoint.backend] for endpoint in destination.endpoints)
            if destination.missing:
                total[destination.missing] = 1
            for prefix, count in total.items():
                part = Fraction(destination.weight * count, total.total())
                exact[prefix] = exact.get(prefix, Fraction()) + part
        return {prefix: float(share) for prefix, share in exact.items()}


@dataclass(frozen=True, slots=True)
class Notice:
    """A note or a warning, and the place in the manifests that it is about.

    Attributes:
        text: what is said, in one line.
        file: as the user named it; empty where no one file is meant.
        line: in the file, counted from 1; None where no one line is meant.
    """

    text: str
    file: str = ""
    line: int | None = None

    def __str__(self) -> str:
        """What is said."""
        return self.text

    @property
    def placed(self) -> str:
        """What is said, with file and line in front where they are known."""
        return f"{self.file}:{self.line}: {self.text}" if self.line else self.text


@dataclass(frozen=True, slots=True)
class Plan:
    """What is rehearsed.

    Attributes:
        route: the listeners, weights and backends.
        notices: what the documents say that is not carried out.
        files: every file and folder that it was read from.
        warnings: what the data plane does in silence, and nobody means.
        steps: the canary's weights that a Rollout goes through; None without one.
        drain: seconds after which connections of a replaced listener are cut.
    """

    route: Route
    notices: tuple[Notice, ...] = ()
    files: frozenset[Path] = frozenset()
    warnings: tuple[Notice, ...] = ()
    steps: tuple[int, ...] | None = None
    drain: int = DRAIN


def manifest_ports(config: ServerConfig) -> list[int]:
    """The ports of a server as the manifest gives them, plain ones first."""
    return [*config.ports, *(config.tls.ports if config.tls else ())]


def built_in(weights: Mapping[str, int], *, port: int = BUILT_IN_PORT) -> Route:
    """The rehearsal without a manifest: one backend for each name, one listener.

    Args:
        weights: the weight of each backend, by the prefix it answers with.
        port: where clients connect, if it is free.
    """
    backends = tuple(
        Backend(name=name, config=ServerConfig(ports=[9000], prefix=name)) for name in weights
    )
    destinations = tuple(
        Destination(name=backend.name, weight=weight, endpoints=backend.endpoints(9000))
        for backend, weight in zip(backends, weights.values(), strict=True)
    )
    listener = Listener(name="built-in", port=port, chains=(Chain(destinations=destinations),))
    return Route(listeners=(listener,), backends=backends)
