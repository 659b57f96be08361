"""Istio's data plane: each connection draws its cluster. Pure.

What istiod makes of a TCP route (``networkfilter.go``): one cluster for each
destination, and the weights in the listener. New weights are thus a new
filter chain, and the connections of the former one are cut after the drain
time.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from trio_echo.rehearsal.envoy import (
    Configuration,
    Json,
    Machine,
    Plane,
    duration,
    endpoint,
    filter_chain,
    keepalive,
    listener,
    shown,
    without_none,
)

if TYPE_CHECKING:
    from trio_echo.rehearsal.route import Chain, Destination, Outlier, Route

__all__ = ["ISTIO"]

_UNLIMITED = 2**32 - 1
_UPSTREAM_TLS = "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.UpstreamTlsContext"


def configure(route: Route, machine: Machine) -> Configuration:
    """Envoy's configuration for a route."""
    return Configuration(
        listeners=[
            listener(
                each,
                machine.ports[each.name],
                [
                    filter_chain(chain, each.chain_name(chain), _proxy(chain), machine)
                    for chain in each.chains
                ],
            )
            for each in route.listeners
        ],
        # Those of weight 0 too: a later route may use them.
        clusters=[_cluster(each, machine) for each in route.destinations().values()],
        endpoints=[],
    )


def _proxy(chain: Chain) -> Json:
    """The proxy that splits a chain's connections."""
    used = [destination for destination in chain.destinations if destination.weight]
    proxy: Json = {}
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
        proxy["idle_timeout"] = duration(policy.idle_timeout)
    if policy.max_duration is not None:
        proxy["max_downstream_connection_duration"] = duration(policy.max_duration)
    return proxy


def _cluster(destination: Destination, machine: Machine) -> Json:
    """One destination with its endpoints and its policy."""
    policy = destination.policy
    where = machine.addresses
    found = [endpoint(where[each]) for each in destination.endpoints]
    config: Json = {
        "name": destination.name,
        "type": "STATIC",
        "connect_timeout": duration(policy.connect_timeout),
        "lb_policy": policy.balancing,
        "load_assignment": {
            "cluster_name": destination.name,
            "endpoints": [{"lb_endpoints": found}],
        },
        # Envoy's own default of 1024 connections would be a limit that no
        # manifest asked for; Istio lifts it.
        "circuit_breakers": {
            "thresholds": [
                {
                    "max_connections": policy.max_connections or _UNLIMITED,
                    "max_pending_requests": policy.max_pending or _UNLIMITED,
                    "max_requests": _UNLIMITED,
                }
            ]
        },
    }
    if policy.tls:
        # The certificates here are throw-away ones: to verify them would show nothing.
        context: Json = {"@type": _UPSTREAM_TLS}
        if policy.certified:
            context["common_tls_context"] = shown(machine.client)
        config["transport_socket"] = {
            "name": "envoy.transport_sockets.tls",
            "typed_config": context,
        }
    return config | keepalive(policy) | (_outlier(policy.outlier) if policy.outlier else {})


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
        "outlier_detection": without_none(values),
        "common_lb_config": {"healthy_panic_threshold": {"value": outlier.min_health_percent}},
    }


def _enforced(limit: int | None) -> int | None:
    """Percent of the ejections that are carried out: all, none at a limit of 0."""
    return None if limit is None else 100 if limit else 0


def _optional_duration(seconds: float | None) -> str | None:
    """A duration that may be absent."""
    return None if seconds is None else duration(seconds)


ISTIO = Plane(
    name="istio",
    title="Istio",
    way="each connection is drawn",
    classes=frozenset({"istio", "istio-remote", "istio-waypoint", "istio-east-west"}),
    controllers=frozenset(
        {
            "istio.io/gateway-controller",
            "istio.io/unmanaged-gateway",
            "istio.io/mesh-controller",
            "istio.io/eastwest-controller",
        }
    ),
    pools=False,
    configure=configure,
)
