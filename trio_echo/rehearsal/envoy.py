"""A `Route` as the configuration of Envoy. Pure: values in, JSON-shaped values out.

Envoy gets its listeners and clusters from two files that it watches (its
file-based discovery), so that a route can change while connections are open.
`static` gives the same in one piece, to be read or run by hand.
"""

from __future__ import annotations

import shlex
from typing import TYPE_CHECKING, Any, TypeAlias

from trio_echo.rehearsal.route import Endpoint, manifest_ports

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from trio_echo.rehearsal.route import Chain, Destination, Listener, Outlier, Policy, Route

__all__ = [
    "Addresses",
    "Json",
    "Ports",
    "bootstrap",
    "by_hand",
    "clusters",
    "discovery",
    "listeners",
    "static",
]

Json: TypeAlias = dict[str, Any]
Addresses: TypeAlias = "Mapping[Endpoint, tuple[str, int]]"
Ports: TypeAlias = "Mapping[str, int]"

_TYPES = "type.googleapis.com/envoy."
_CLUSTER = f"{_TYPES}config.cluster.v3.Cluster"
_LISTENER = f"{_TYPES}config.listener.v3.Listener"
_TCP_PROXY = f"{_TYPES}extensions.filters.network.tcp_proxy.v3.TcpProxy"
_TLS_INSPECTOR = f"{_TYPES}extensions.filters.listener.tls_inspector.v3.TlsInspector"
_UNLIMITED = 2**32 - 1
_FIRST_PORT = 20_001


def bootstrap(listeners_file: str, clusters_file: str) -> Json:
    """What Envoy is started with when it gets its route from two files."""
    watched = {
        "lds_config": listeners_file,
        "cds_config": clusters_file,
    }
    return _base() | {
        "dynamic_resources": {
            name: {"path_config_source": {"path": path}, "resource_api_version": "V3"}
            for name, path in watched.items()
        }
    }


def static(route: Route, addresses: Addresses, ports: Ports) -> Json:
    """The whole route in one configuration that needs no other file."""
    return _base() | {
        "static_resources": {
            "listeners": listeners(route, ports),
            "clusters": clusters(route.destinations().values(), addresses),
        }
    }


def discovery(version: str, resources: Iterable[Json], *, of: str) -> Json:
    """The content of a watched file: `resources` as version `version`.

    Args:
        version: what Envoy's ``version_text`` shows once it has taken this in.
        resources: all that the file is to hold from now on.
        of: ``cluster`` or ``listener``.
    """
    kind = {"cluster": _CLUSTER, "listener": _LISTENER}[of]
    return {
        "version_info": version,
        "resources": [{"@type": kind} | resource for resource in resources],
    }


def listeners(route: Route, ports: Ports) -> list[Json]:
    """Envoy's listeners.

    Args:
        route: what is rehearsed.
        ports: the port of this machine for each listener, by its name; 0 for
            any free one.
    """
    return [_listener(listener, ports[listener.name]) for listener in route.listeners]


def clusters(destinations: Iterable[Destination], addresses: Addresses) -> list[Json]:
    """Envoy's clusters.

    Args:
        destinations: each becomes a cluster of its name, also those of weight
            0: a later route may use them.
        addresses: where each endpoint really is, as host and port.
    """
    return [_cluster(destination, addresses) for destination in destinations]


def _base() -> Json:
    """What every configuration has: a name, and an admin address of any free port."""
    return {
        "node": {"id": "trio-echo", "cluster": "rehearsal"},
        "admin": {"address": _address("127.0.0.1", 0)},
    }


def _listener(listener: Listener, port: int) -> Json:
    """One listener on loopback, with a filter chain for each of its chains."""
    config: Json = {
        "name": listener.name,
        "address": _address("127.0.0.1", port),
        # With port reuse, Envoy's default, a second rehearsal on the same port
        # would start without an error and take half of the connections.
        "enable_reuse_port": False,
        "filter_chains": [
            _filter_chain(chain, f"{listener.name}/{number}")
            for number, chain in enumerate(listener.chains)
        ],
    }
    if listener.by_name:
        config["listener_filters"] = [
            {
                "name": "envoy.filters.listener.tls_inspector",
                "typed_config": {"@type": _TLS_INSPECTOR},
            }
        ]
    return config


def _filter_chain(chain: Chain, name: str) -> Json:
    """The connections that a chain is for, and the proxy that splits them."""
    matched: Json = {"filter_chain_match": {"server_names": list(chain.sni)}} if chain.sni else {}
    proxy: Json = {"@type": _TCP_PROXY, "stat_prefix": name}
    used = [destination for destination in chain.destinations if destination.weight]
    if len(used) == 1:
        proxy["cluster"] = used[0].name
    else:
        # Envoy refuses a weight of 0, so those are left out above.
        proxy["weighted_clusters"] = {
            "clusters": [{"name": each.name, "weight": each.weight} for each in used]
        }
    # These two belong to the whole proxy in Envoy; the first destination's
    # count, as in Istio.
    policy = chain.destinations[0].policy
    if policy.idle_timeout is not None:
        proxy["idle_timeout"] = _duration(policy.idle_timeout)
    if policy.max_duration is not None:
        proxy["max_downstream_connection_duration"] = _duration(policy.max_duration)
    return (
        {"name": name}
        | matched
        | {"filters": [{"name": "envoy.filters.network.tcp_proxy", "typed_config": proxy}]}
    )


def _cluster(destination: Destination, addresses: Addresses) -> Json:
    """One destination with its endpoints and its policy."""
    policy = destination.policy
    config: Json = {
        "name": destination.name,
        "type": "STATIC",
        "connect_timeout": _duration(policy.connect_timeout),
        "lb_policy": policy.balancing,
        "load_assignment": {
            "cluster_name": destination.name,
            "endpoints": [
                {
                    "lb_endpoints": [
                        {"endpoint": {"address": _address(*addresses[endpoint])}}
                        for endpoint in destination.endpoints
                    ]
                }
            ],
        },
        # Envoy's own default of 1024 connections would be a limit that no
        # manifest asked for; Istio lifts it too.
        "circuit_breakers": {
            "thresholds": [
                {
                    "max_connections": _given(policy.max_connections, _UNLIMITED),
                    "max_pending_requests": _UNLIMITED,
                    "max_requests": _UNLIMITED,
                }
            ]
        },
    }
    return config | _keepalive(policy) | (_outlier(policy.outlier) if policy.outlier else {})


def _keepalive(policy: Policy) -> Json:
    """TCP keep-alive of the connections to the endpoints."""
    if policy.keepalive is None:
        return {}
    values = {
        "keepalive_time": policy.keepalive.time,
        "keepalive_interval": policy.keepalive.interval,
        "keepalive_probes": policy.keepalive.probes,
    }
    return {"upstream_connection_options": {"tcp_keepalive": _without_none(values)}}


def _outlier(outlier: Outlier) -> Json:
    """Outlier detection; what is counted is enforced, as in Istio."""
    values = {
        "consecutive_5xx": outlier.failures,
        "enforcing_consecutive_5xx": _enforced(outlier.failures),
        "consecutive_gateway_failure": outlier.gateway_failures,
        "enforcing_consecutive_gateway_failure": _enforced(outlier.gateway_failures),
        "consecutive_local_origin_failure": outlier.local_failures,
        "enforcing_consecutive_local_origin_failure": _enforced(outlier.local_failures),
        "split_external_local_origin_errors": outlier.split_local,
        "interval": _optional_duration(outlier.interval),
        "base_ejection_time": _optional_duration(outlier.base_ejection),
        "max_ejection_percent": outlier.max_ejection_percent,
        # The rates need volumes that a probe does not reach evenly.
        "enforcing_success_rate": 0,
    }
    return {
        "outlier_detection": _without_none(values),
        "common_lb_config": {"healthy_panic_threshold": {"value": outlier.min_health_percent}},
    }


def _enforced(limit: int | None) -> int | None:
    """Percent of the ejections that are carried out: all, none at a limit of 0."""
    return None if limit is None else 100 if limit else 0


def _given(value: Any, default: Any, convert: Any = None) -> Any:
    """`value`, converted; `default` where it is None."""
    if value is None:
        return default
    return value if convert is None else convert(value)


def _without_none(values: Json) -> Json:
    """`values` without the keys that have none."""
    return {key: value for key, value in values.items() if value is not None}


def _address(host: str, port: int) -> Json:
    """A TCP address as Envoy writes it."""
    return {"socket_address": {"address": host, "port_value": port}}


def _duration(seconds: float) -> str:
    """Seconds as protobuf's JSON writes a duration: ``1.5s``."""
    return f"{seconds:.9f}".rstrip("0").rstrip(".") + "s"


def _optional_duration(seconds: float | None) -> str | None:
    """The same for a value that may be absent."""
    return None if seconds is None else _duration(seconds)


def by_hand(route: Route) -> str:
    """One YAML file for ``envoy -c``, headed by the backends to start before it.

    Listeners have the manifest's ports; each endpoint has a port of its own,
    counted from 20001, as all run on one machine.
    """
    addresses: dict[Endpoint, tuple[str, int]] = {}
    heading = ["# Start the backends, then: envoy -c FILE"]
    for backend in route.backends:
        config = backend.config
        for replica in range(backend.replicas):
            ports: list[str] = []
            for port in manifest_ports(config):
                number = _FIRST_PORT + len(addresses)
                addresses[Endpoint(backend.name, replica, port)] = ("127.0.0.1", number)
                ports.append(str(number))
            plain, secure = ports[: len(config.ports)], ports[len(config.ports) :]
            command = ["trio-echo", "serve", ",".join(plain), config.prefix]
            if config.tls is not None:
                command += ["--tls-ports", ",".join(secure), "--tls-cert", str(config.tls.cert)]
                command += ["--tls-key", str(config.tls.key)] if config.tls.key else []
            heading.append(f"# {shlex.join(command)}  # {backend.name}, replica {replica + 1}")
    ports_of = {listener.name: listener.port for listener in route.listeners}
    import yaml  # noqa: PLC0415 - an extra

    content = static(route, addresses, ports_of)
    return "\n".join([*heading, yaml.safe_dump(content, sort_keys=False, allow_unicode=True)])
