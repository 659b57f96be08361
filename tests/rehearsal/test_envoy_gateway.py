"""Envoy Gateway's own resources: which policy holds where, and what it says."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from manifest_texts import notices, plan
from rehearsal.test_gateway_api import BACKENDS, BOTH, TCP, chains, gateway, route

from trio_echo.errors import ManifestError
from trio_echo.rehearsal.dataplane import configure
from trio_echo.rehearsal.envoy import Machine
from trio_echo.rehearsal.route import Keepalive, Policy

if TYPE_CHECKING:
    from trio_echo.rehearsal.route import Plan

TO_ROUTE = "targetRefs: [{group: gateway.networking.k8s.io, kind: TCPRoute, name: route}]"
TO_GATEWAY = "targetRefs: [{kind: Gateway, name: gateway}]"
TO_LISTENER = "targetRefs: [{kind: Gateway, name: gateway, sectionName: tcp}]"


def policy(spec: str, target: str = TO_ROUTE, kind: str = "Backend", name: str = "policy") -> str:
    """A traffic policy."""
    return f"""
apiVersion: gateway.envoyproxy.io/v1alpha1
kind: {kind}TrafficPolicy
metadata: {{name: {name}}}
spec: {{{target}, {spec}}}
"""


def planned(*policies: str, class_: str = "eg") -> Plan:
    """A plan with these policies."""
    return plan(BACKENDS, gateway(TCP, class_=class_), route(BOTH), *policies)


def held(*policies: str) -> Policy:
    """The one policy that all destinations have."""
    (found,) = {each.policy for chain in chains(planned(*policies)) for each in chain.destinations}
    return found


@pytest.mark.parametrize(
    ("spec", "expected"),
    [
        ("circuitBreaker: {maxConnections: 500}", Policy(max_connections=500)),
        ("timeout: {tcp: {connectTimeout: 3s}}", Policy(connect_timeout=3.0)),
        ("timeout: {tcp: {connectTimeout: 1m500ms}}", Policy(connect_timeout=60.5)),
        ("loadBalancer: {type: RoundRobin}", Policy(balancing="ROUND_ROBIN")),
        ("loadBalancer: {type: Random}", Policy(balancing="RANDOM")),
        (
            "tcpKeepalive: {probes: 3, idleTime: 20m, interval: 60s}",
            Policy(keepalive=Keepalive(time=1200, interval=60, probes=3)),
        ),
        ("tcpKeepalive: {}", Policy(keepalive=Keepalive())),
    ],
)
def test_policy_towards_backends_is_carried_out(spec: str, expected: Policy) -> None:
    """By a reference in the plural and in the singular."""
    assert held(policy(spec)) == expected
    single = "targetRef: {group: gateway.networking.k8s.io, kind: TCPRoute, name: route}"
    assert held(policy(spec, single)) == expected


def limit(number: int, target: str) -> str:
    """A policy that can be told from others by its limit."""
    return policy(f"circuitBreaker: {{maxConnections: {number}}}", target, name=f"limit-{number}")


def test_nearest_policy_counts_whole() -> None:
    """The route's before the listener's before the Gateway's; others hold for nobody here."""
    near, middle, far = limit(1, TO_ROUTE), limit(2, TO_LISTENER), limit(3, TO_GATEWAY)
    elsewhere = limit(4, TO_ROUTE).replace("{name: limit-4}", "{name: limit-4, namespace: other}")
    another = limit(5, "targetRefs: [{kind: TCPRoute, name: another}]")
    for policies, expected in (
        ((far, middle, near, elsewhere), 1),
        ((far, middle), 2),
        ((far, another, elsewhere), 3),
        ((another, elsewhere), None),
    ):
        assert held(*policies).max_connections == expected


def test_policy_towards_clients_is_carried_out() -> None:
    """Beside the one towards backends."""
    idle = policy("timeout: {tcp: {idleTimeout: 20m}}", TO_GATEWAY, "Client")
    assert held(idle, limit(7, TO_ROUTE)) == Policy(idle_timeout=1200.0, max_connections=7)


def test_what_is_not_carried_out_is_said() -> None:
    """A field of a policy; a policy without a Gateway of its own."""
    assert notices(planned(policy("retry: {}")), ["BackendTrafficPolicy policy", "spec.retry"])
    found = planned(policy("retry: {}"), class_="istio")
    assert notices(found, ["BackendTrafficPolicy policy is for Envoy Gateway, which runs no"])


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("loadBalancer: {type: ConsistentHash}", "spec.loadBalancer.type: ConsistentHash is not"),
        ("timeout: {tcp: {connectTimeout: soon}}", "connectTimeout: must be a duration such as"),
        ("timeout: {tcp: {connectTimeout: 3}}", "connectTimeout: "),
        ("circuitBreaker: {maxConnections: -1}", "maxConnections: "),
    ],
)
def test_mistake_in_a_policy_is_named(spec: str, message: str) -> None:
    """With its field."""
    with pytest.raises(ManifestError, match=message):
        planned(policy(spec))


@given(st.sampled_from(["LEAST_REQUEST", "RANDOM", "ROUND_ROBIN"]), st.integers(0, 9))
def test_policy_reaches_envoy(balancing: str, number: int) -> None:
    """Each setting is in the configuration."""
    names = {"LEAST_REQUEST": "LeastRequest", "RANDOM": "Random", "ROUND_ROBIN": "RoundRobin"}
    spec = (
        f"circuitBreaker: {{maxConnections: {number}}}, tcpKeepalive: {{probes: 2}},"
        f" loadBalancer: {{type: {names[balancing]}}}"
    )
    idle = policy("timeout: {tcp: {idleTimeout: 20m}}", TO_GATEWAY, "Client")
    found = planned(policy(spec), idle).route
    addresses = {
        each: ("127.0.0.1", 1)
        for b in found.backends
        for p in (9000, 9443)
        for each in b.endpoints(p)
    }
    made = configure(found, Machine(addresses=addresses, ports={found.listeners[0].name: 0}))
    cluster: dict[str, Any] = made.clusters[0]
    assert cluster["circuit_breakers"]["thresholds"][0]["max_connections"] == number
    assert cluster["upstream_connection_options"]["tcp_keepalive"] == {"keepalive_probes": 2}
    kind = cluster["load_balancing_policy"]["policies"][0]["typed_extension_config"]["name"]
    assert kind.endswith(balancing.lower())
    proxy = made.listeners[0]["filter_chains"][0]["filters"][0]["typed_config"]
    assert proxy["idle_timeout"] == "1200s"


BACKEND = """
apiVersion: gateway.envoyproxy.io/v1alpha1
kind: Backend
metadata: {name: outside}
spec: {endpoints: [%s]}
"""
TO_BACKEND = "{group: gateway.envoyproxy.io, kind: Backend, name: outside}"


@pytest.mark.parametrize(
    ("endpoints", "expected"),
    [
        ("{fqdn: {hostname: example.com, port: 443}}", {"outside": 1}),
        ("{ip: {address: 10.0.0.1, port: 443}}", {"outside": 1}),
        ("{ip: {address: 10.0.0.1, port: 1}}, {ip: {address: 10.0.0.2, port: 2}}", {"outside": 1}),
        ("{fqdn: {hostname: echo-v2.default.svc.cluster.local, port: 7000}}", {"two": 1}),
    ],
)
def test_backend_stands_for_a_service_or_somebody_outside(
    endpoints: str, expected: dict[str, float]
) -> None:
    """By its name in the cluster, else an echo server stands in."""
    found = plan(BACKENDS, gateway(TCP, class_="eg"), route(TO_BACKEND), BACKEND % endpoints)
    (chain,) = chains(found)
    assert found.route.shares(chain) == expected
    assert notices(found, ["Backend outside has no workload"]) == ("outside" in expected)


@pytest.mark.parametrize(
    ("backend", "ref", "class_", "message"),
    [
        ("", TO_BACKEND, "eg", "there is no Backend outside in namespace default"),
        (BACKEND % "", TO_BACKEND, "istio", "only kind Service is supported, got Backend of"),
        (BACKEND % "", TO_BACKEND, "eg", "Backend outside has no address"),
        (BACKEND % "{unix: {path: /x}}", TO_BACKEND, "eg", "Backend outside has no address"),
        (
            BACKEND.replace("endpoints: [%s]", "type: DynamicResolver"),
            TO_BACKEND,
            "eg",
            "Backend outside of type DynamicResolver: that is not supported",
        ),
        (
            BACKEND % "",
            TO_BACKEND.replace("}", ", namespace: other}"),
            "eg",
            "no ReferenceGrant in namespace other .* to refer to Backend outside",
        ),
    ],
)
def test_backend_that_cannot_be_is_named(backend: str, ref: str, class_: str, message: str) -> None:
    """It is not there, not Envoy Gateway's, or has no address to stand in for."""
    with pytest.raises(ManifestError, match=message):
        plan(BACKENDS, gateway(TCP, class_=class_), route(ref), backend)
