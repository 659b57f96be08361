"""The words of Envoy's configuration, and what a data plane says in them. Pure.

Envoy gets its listeners, clusters and endpoints from files that it
watches (its file-based discovery), so that a route can change while
connections are open. What stands in them is up to the data plane that is
rehearsed: see `Plane`.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from hashlib import sha256
from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from trio_echo.rehearsal.route import Chain, Endpoint, Listener, Policy, Route

__all__ = [
    "Configuration",
    "Json",
    "Machine",
    "Plane",
    "address",
    "base",
    "bootstrap",
    "discovery",
    "duration",
    "endpoint",
    "filter_chain",
    "keepalive",
    "listener",
    "shown",
    "watch",
    "without_none",
]

Json: TypeAlias = dict[str, Any]

_TYPES = "type.googleapis.com/envoy."
_RESOURCES = {
    "cluster": f"{_TYPES}config.cluster.v3.Cluster",
    "endpoint": f"{_TYPES}config.endpoint.v3.ClusterLoadAssignment",
    "listener": f"{_TYPES}config.listener.v3.Listener",
}
_TCP_PROXY = f"{_TYPES}extensions.filters.network.tcp_proxy.v3.TcpProxy"
_TLS_INSPECTOR = f"{_TYPES}extensions.filters.listener.tls_inspector.v3.TlsInspector"
_TLS = f"{_TYPES}extensions.transport_sockets.tls.v3.DownstreamTlsContext"


class Configuration(NamedTuple):
    """What Envoy is told.

    Attributes:
        listeners: the ports that clients connect to.
        clusters: where their connections may go.
        endpoints: the endpoints of clusters of type ``EDS``; the others have
            theirs within.
    """

    listeners: list[Json]
    clusters: list[Json]
    endpoints: list[Json]


@dataclass(frozen=True, slots=True, kw_only=True)
class Machine:
    """Where things are on this machine.

    Attributes:
        addresses: host and port of each endpoint.
        ports: the port of each listener, by its name; 0 for any free one.
        folder: where the files are with the endpoints of clusters of type ``EDS``.
        certificate: PEM file with key and certificate of a gateway that ends TLS.
        authority: PEM file with the authority of the clients' certificates.
        client: PEM file with key and certificate that endpoints are shown.
    """

    addresses: Mapping[Endpoint, tuple[str, int]]
    ports: Mapping[str, int]
    folder: str = "."
    certificate: str = "gateway.pem"
    authority: str = "authority.pem"
    client: str = "client.pem"

    def endpoints_file(self, cluster: str) -> str:
        """The file with the endpoints of one cluster: Envoy wants one for each."""
        return f"{self.folder}/endpoint-{sha256(cluster.encode()).hexdigest()[:16]}.json"


@dataclass(frozen=True, slots=True, kw_only=True)
class Plane:
    """A data plane: who runs the Envoy, and so what a route becomes in it.

    Attributes:
        name: as ``--as`` has it.
        title: in words.
        way: how it chooses for each connection, in words.
        classes: names of GatewayClasses that are known to be its own.
        controllers: what the GatewayClass document calls it.
        pools: whether the destinations of a route are localities of one
            cluster, so that connections take turns, and a shift moves
            endpoints; else they are clusters that each connection draws from.
        configure: the configuration of Envoy for a route that it runs whole.
    """

    name: str
    title: str
    way: str
    classes: frozenset[str]
    controllers: frozenset[str]
    pools: bool
    configure: Callable[[Route, Machine], Configuration] = field(repr=False)


def bootstrap(listeners_file: str, clusters_file: str) -> Json:
    """What Envoy is started with when it gets its route from files."""
    watched = {
        "lds_config": listeners_file,
        "cds_config": clusters_file,
    }
    return base() | {
        "dynamic_resources": {name: watch(path) for name, path in watched.items()},
    }


def watch(path: str) -> Json:
    """A source of configuration: a file that Envoy watches."""
    return {"path_config_source": {"path": path}, "resource_api_version": "V3"}


def base() -> Json:
    """What every configuration has: a name, and an admin address of any free port."""
    return {
        "node": {"id": "trio-echo", "cluster": "rehearsal"},
        "admin": {"address": address("127.0.0.1", 0)},
    }


def discovery(version: str, resources: Iterable[Json], *, of: str) -> Json:
    """The content of a watched file: `resources` as version `version`.

    Args:
        version: what Envoy's ``version_text`` shows once it has taken this in.
        resources: all that the file is to hold from now on.
        of: ``cluster``, ``endpoint`` or ``listener``.
    """
    return {
        "version_info": version,
        "resources": [{"@type": _RESOURCES[of]} | resource for resource in resources],
    }


def listener(given: Listener, port: int, filter_chains: Sequence[Json]) -> Json:
    """One listener on loopback.

    Args:
        given: what it is for.
        port: the port of this machine, 0 for any free one.
        filter_chains: one for each of its chains.
    """
    config: Json = {
        "name": given.name,
        "address": address("127.0.0.1", port),
        # With port reuse, Envoy's default, a second rehearsal on the same port
        # would start without an error and take half of the connections.
        "enable_reuse_port": False,
        "filter_chains": list(filter_chains),
    }
    if given.by_name:
        config["listener_filters"] = [
            {
                "name": "envoy.filters.listener.tls_inspector",
                "typed_config": {"@type": _TLS_INSPECTOR},
            }
        ]
    return config


def filter_chain(chain: Chain, name: str, proxy: Json, machine: Machine) -> Json:
    """The connections that a chain is for, and the proxy that takes them.

    Args:
        chain: which connections, and whether their TLS ends here.
        name: unique in the listener.
        proxy: the cluster or clusters, and what else the data plane sets.
        machine: where the certificates are.
    """
    config: Json = {"name": name}
    if chain.sni:
        config["filter_chain_match"] = {"server_names": list(chain.sni)}
    if chain.tls is not None:
        common = shown(machine.certificate)
        if chain.tls.asks_client:
            common["validation_context"] = {"trusted_ca": {"filename": machine.authority}}
        config["transport_socket"] = {
            "name": "envoy.transport_sockets.tls",
            "typed_config": {
                "@type": _TLS,
                "common_tls_context": common,
                "require_client_certificate": chain.tls.asks_client,
            },
        }
    typed = {"@type": _TCP_PROXY, "stat_prefix": name} | proxy
    config["filters"] = [{"name": "envoy.filters.network.tcp_proxy", "typed_config": typed}]
    return config


def shown(file: str) -> Json:
    """The part of a TLS context with the certificate that is shown, which has its key beside it."""
    one = {"certificate_chain": {"filename": file}, "private_key": {"filename": file}}
    return {"tls_certificates": [one]}


def keepalive(policy: Policy) -> Json:
    """TCP keep-alive of the connections to the endpoints."""
    if policy.keepalive is None:
        return {}
    values = {
        "keepalive_time": policy.keepalive.time,
        "keepalive_interval": policy.keepalive.interval,
        "keepalive_probes": policy.keepalive.probes,
    }
    return {"upstream_connection_options": {"tcp_keepalive": without_none(values)}}


def without_none(values: Json) -> Json:
    """`values` without the keys that have none."""
    return {key: value for key, value in values.items() if value is not None}


def endpoint(where: tuple[str, int]) -> Json:
    """One endpoint of a cluster."""
    return {"endpoint": {"address": address(*where)}}


def address(host: str, port: int) -> Json:
    """A TCP address as Envoy writes it."""
    return {"socket_address": {"address": host, "port_value": port}}


def duration(seconds: float) -> str:
    """Seconds as protobuf's JSON writes a duration: ``1.5s``."""
    return f"{seconds:.9f}".rstrip("0").rstrip(".") + "s"
