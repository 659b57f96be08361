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
    keepalive,
    listener,
    watch,
)

if TYPE_CHECKING:
    from trio_echo.rehearsal.route import Chain, Listener, Route

__all__ = ["ENVOY_GATEWAY"]

_POLICIES = "envoy.load_balancing_policies."
_BALANCERS = {
    "LEAST_REQUEST": ("least_request", "least_request.v3.LeastRequest"),
    "RANDOM": ("random", "random.v3.Random"),
    "ROUND_ROBIN": ("round_robin", "round_robin.v3.RoundRobin"),
}
_EXTENSIONS = "type.googleapis.com/envoy.extensions.load_balancing_policies."
_BUFFER = 32_768


def configure(route: Route, machine: Machine) -> Configuration:
    """Envoy's configuration for a route."""
    chains = [(each.chain_name(chain), chain) for each in route.listeners for chain in each.chains]
    return Configuration(
        listeners=[_listener(each, machine) for each in route.listeners],
        clusters=[_cluster(name, chain, machine) for name, chain in chains],
        endpoints=[_localities(name, chain, machine) for name, chain in chains],
    )


def _listener(each: Listener, machine: Machine) -> Json:
    """One listener, in which nothing tells of the weights."""
    filter_chains: list[Json] = []
    for chain in each.chains:
        name = each.chain_name(chain)
        proxy: Json = {"cluster": name}
        idle = chain.destinations[0].policy.idle_timeout
        if idle is not None:
            proxy["idle_timeout"] = duration(idle)
        filter_chains.append(filter_chain(chain, name, proxy, machine))
    made = listener(each, machine.ports[each.name], filter_chains)
    return made | {"per_connection_buffer_limit_bytes": _BUFFER}


def _cluster(name: str, chain: Chain, machine: Machine) -> Json:
    """The cluster of a whole route.

    Its circuit breakers are Envoy's own, 1024 connections, unless a policy says
    otherwise.
    """
    policy = chain.destinations[0].policy
    limits: Json = {"max_retries": 1024}
    if policy.max_connections is not None:
        limits["max_connections"] = policy.max_connections
    balancer, kind = _BALANCERS[policy.balancing]
    return keepalive(policy) | {
        "name": name,
        "type": "EDS",
        "connect_timeout": duration(policy.connect_timeout),
        "per_connection_buffer_limit_bytes": _BUFFER,
        "ignore_health_on_host_removal": True,
        "circuit_breakers": {"thresholds": [limits]},
        "eds_cluster_config": {"eds_config": watch(machine.endpoints_file(name))},
        "load_balancing_policy": {
            "policies": [
                {
                    "typed_extension_config": {
                        "name": f"{_POLICIES}{balancer}",
                        "typed_config": {
                            "@type": f"{_EXTENSIONS}{kind}",
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
