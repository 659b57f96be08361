"""Envoy Gateway's data plane: connections take turns in one cluster. Pure.

What Envoy Gateway makes of a TCPRoute or TLSRoute: one cluster for the whole
route, with a locality for each backend reference, whose weight is the
locality's. Envoy picks localities by a deterministic schedule, so that 80/20
is ``ooootooootooooto...``. The weights stand with the endpoints: a shift
replaces neither listener nor cluster, and open connections stay.
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
    listener,
    watch,
)

if TYPE_CHECKING:
    from trio_echo.rehearsal.route import Chain, Listener, Route

__all__ = ["ENVOY_GATEWAY"]

_POLICY = "envoy.load_balancing_policies.least_request"
_LEAST_REQUEST = (
    "type.googleapis.com/envoy.extensions.load_balancing_policies.least_request.v3.LeastRequest"
)
_BUFFER = 32_768


def configure(route: Route, machine: Machine) -> Configuration:
    """Envoy's configuration for a route."""
    chains = [
        (f"{each.name}/{number}", chain)
        for each in route.listeners
        for number, chain in enumerate(each.chains)
    ]
    return Configuration(
        listeners=[_listener(each, machine) for each in route.listeners],
        clusters=[_cluster(name, chain, machine) for name, chain in chains],
        endpoints=[_localities(name, chain, machine) for name, chain in chains],
    )


def _listener(each: Listener, machine: Machine) -> Json:
    """One listener, in which nothing tells of the weights."""
    names = [f"{each.name}/{number}" for number in range(len(each.chains))]
    filter_chains = [
        filter_chain(chain, name, {"cluster": name}, machine)
        for name, chain in zip(names, each.chains, strict=True)
    ]
    made = listener(each, machine.ports[each.name], filter_chains)
    return made | {"per_connection_buffer_limit_bytes": _BUFFER}


def _cluster(name: str, chain: Chain, machine: Machine) -> Json:
    """The cluster of a whole route.

    Its circuit breakers are Envoy's own: 1024 connections.
    """
    return {
        "name": name,
        "type": "EDS",
        "connect_timeout": duration(chain.destinations[0].policy.connect_timeout),
        "per_connection_buffer_limit_bytes": _BUFFER,
        "ignore_health_on_host_removal": True,
        "circuit_breakers": {"thresholds": [{"max_retries": 1024}]},
        "eds_cluster_config": {"eds_config": watch(machine.endpoints_file(name))},
        "load_balancing_policy": {
            "policies": [
                {
                    "typed_extension_config": {
                        "name": _POLICY,
                        "typed_config": {
                            "@type": _LEAST_REQUEST,
                            "locality_lb_config": {"locality_weighted_lb_config": {}},
                        },
                    }
                }
            ]
        },
    }


def _localities(name: str, chain: Chain, machine: Machine) -> Json:
    """A locality for each backend reference that can be reached."""
    where = machine.addresses
    return {
        "cluster_name": name,
        "endpoints": [
            {
                "locality": {"region": f"{name}/backend/{number}"},
                "load_balancing_weight": each.weight,
                "lb_endpoints": [
                    endpoint(where[one]) | {"load_balancing_weight": 1} for one in each.endpoints
                ],
            }
            for number, each in enumerate(chain.reached())
            if each.weight
        ],
    }


ENVOY_GATEWAY = Plane(
    name="envoy-gateway",
    title="Envoy Gateway",
    way="connections take turns",
    classes=frozenset({"eg", "envoy-gateway"}),
    controllers=frozenset({"gateway.envoyproxy.io/gatewayclass-controller"}),
    pools=True,
    configure=configure,
)
