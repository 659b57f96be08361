"""Gateway API's dialect: what is carried out, what is noticed, and what is an error in words."""

from __future__ import annotations

import re

import pytest
from manifest_texts import (
    GATEWAY_API,
    ISTIO,
    deployment,
    documents,
    notices,
    plan,
    service,
    shares,
)

from trio_echo.errors import ManifestError


def test_tcp_routing_as_published() -> None:
    """The guide's Gateway with two listeners and a route for each, in both versions."""
    found = plan(GATEWAY_API)
    assert shares(found) == [(8080, (), {"one": 1}), (8090, (), {"one": 80, "two": 20})]
    assert notices(found, ["Gateway my-tcp-gateway", "spec.gatewayClassName"])


def test_version_that_no_release_serves_is_an_error() -> None:
    """As an API server would have it."""
    text = GATEWAY_API.replace("networking.k8s.io/v1alpha2", "networking.k8s.io/v1beta1")
    with pytest.raises(ManifestError, match=r"apiVersion: .*/v1beta1 is not served; served: "):
        plan(text)


def test_route_of_the_mesh_listens_at_the_service() -> None:
    """A Service as parent: the route applies at its port."""
    text = documents(
        deployment("echo-1", "v1", '["9000", "one"]'),
        deployment("echo-2", "v2", '["9000", "two"]'),
        service("echo", "{app: tcp-echo}", "[{port: 7000, targetPort: 9000}]"),
        service("echo-v1", "{version: v1}", "[{port: 7000, targetPort: 9000}]"),
        service("echo-v2", "{version: v2}", "[{port: 7000, targetPort: 9000}]"),
        """
apiVersion: gateway.networking.k8s.io/v1
kind: TCPRoute
metadata: {name: split}
spec:
  parentRefs: [{group: "", kind: Service, name: echo, port: 7000}]
  rules:
  - backendRefs:
    - {name: echo-v1, port: 7000, weight: 9}
    - {name: echo-v2, port: 7000}
""",
    )
    assert shares(plan(text)) == [(7000, (), {"one": 9, "two": 1})]


TLS = documents(
    deployment("echo-1", "v1", '["9000", "one", "--tls-ports", "9443", "--tls-cert", "/c.pem"]'),
    service("echo", "{app: tcp-echo}", "[{port: 443, targetPort: 9443}]"),
    """
apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata: {name: secure, namespace: infra}
spec:
  gatewayClassName: any
  listeners:
  - name: tls
    port: 443
    protocol: TLS
    hostname: "*.example.com"
    tls: {mode: Passthrough}
    allowedRoutes: {namespaces: {from: All}}
  - {name: web, port: 80, protocol: HTTP}
""",
    """
apiVersion: gateway.networking.k8s.io/v1
kind: TLSRoute
metadata: {name: secure}
spec:
  hostnames: [one.example.com, other.test]
  parentRefs: [{name: secure, namespace: infra, sectionName: tls, port: 443}]
  rules: [{name: only, backendRefs: [{name: echo, port: 443}]}]
""",
)


@pytest.mark.parametrize(
    ("hostnames", "hostname", "expected"),
    [
        ("[one.example.com, other.test]", '"*.example.com"', ("one.example.com",)),
        ('["*.one.example.com"]', '"*.example.com"', ("*.one.example.com",)),
        ('["*.example.com"]', "one.example.com", ("one.example.com",)),
        ("[one.example.com]", "one.example.com", ("one.example.com",)),
    ],
)
def test_server_names_are_what_both_sides_have(
    hostnames: str, hostname: str, expected: tuple[str, ...]
) -> None:
    """A route counts for the names that its listener is for too."""
    text = TLS.replace("[one.example.com, other.test]", hostnames)
    found = plan(text.replace('"*.example.com"\n    tls', f"{hostname}\n    tls"))
    assert shares(found) == [(443, expected, {"one": 1})]
    assert notices(found, ["spec.listeners[1], port 80 of HTTP"])


def test_listener_without_hostname_takes_every_name() -> None:
    """No hostname is no condition."""
    text = TLS.replace('    hostname: "*.example.com"\n', "")
    assert shares(plan(text)) == [(443, ("one.example.com", "other.test"), {"one": 1})]


def test_both_dialects_beside_each_other() -> None:
    """One testbed for all that the manifests hold."""
    assert len(plan(ISTIO, GATEWAY_API).route.listeners) == 3


def test_listener_without_route_is_noticed() -> None:
    """Nobody would answer there."""
    idle = "  - {name: idle, port: 1, protocol: TCP}\n  - name: bar"
    found = plan(GATEWAY_API.replace("  - name: bar", idle))
    assert notices(found, ["listener idle, to which no route attaches"])


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("weight: 80", "weight: 1000001", r"backendRefs\[0\].weight: must be at most 1000000"),
        (
            "weight: 80",
            "wait: 80",
            r"spec.rules\[0\].backendRefs\[0\].wait: ",
        ),
        ("weight: 80", "weight: 0", "weights add up to 0"),
        ("sectionName: bar", "sectionName: baz", r"my-tcp-gateway has no such port; found: foo"),
        (
            "sectionName: bar",
            "port: 1",
            r"parentRefs\[0\]: Gateway my-tcp-gateway has no such",
        ),
        ("sectionName: bar", "sectionName: foo", "is already routed by TCPRoute tcp-app-1"),
        ("sectionName: bar", "kind: Proxy", "a parent of kind Proxy is not carried out"),
        (
            "sectionName: bar",
            "namespace: other",
            r"no Gateway other/my-tcp-gateway .* found: def",
        ),
        ("name: my-bar-service\n      port", "name: gone\n      port", "there is no Service gone"),
        ("      port: 6000\n      weight: 20", "      port: 1\n      weight: 20", "has no port 1"),
        ("      weight: 20", "      kind: Bucket\n      weight: 20", "only Service is carried out"),
        ("      weight: 20", "      namespace: other\n      weight: 20", "needs a ReferenceGrant"),
        ("protocol: TCP", "protocol: TLS", "only Passthrough is rehearsed, got Terminate"),
        ("kind: TCPRoute\n  - name", "kind: TLSRoute\n  - name", "admits no TCPRoute from here at"),
        ("  parentRefs:", "  hostnames: [a]\n  parentRefs:", "a TCPRoute has no hostnames"),
        (
            "  rules:",
            "  rules:\n  - backendRefs: [{name: my-foo-service}]",
            "must have at most one entry",
        ),
    ],
)
def test_mistake_is_named_with_file_document_and_field(old: str, new: str, message: str) -> None:
    """Each mistake is an error in words, at its place."""
    assert old in GATEWAY_API
    text = GATEWAY_API.replace(old, new)
    if old == "weight: 80" and new == "weight: 0":
        text = text.replace("weight: 20", "weight: 0")
    with pytest.raises(ManifestError) as caught:
        plan(text)
    assert re.search(message, str(caught.value)), caught.value
    assert "\n" not in str(caught.value)
    assert str(caught.value).startswith("1.yaml:")


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("[one.example.com, other.test]", "[other.test]", r"none falls under \*.example.com"),
        ("  hostnames: [one.example.com, other.test]\n", "", "a TLSRoute must have at least one"),
        ("{namespaces: {from: All}}", "{}", "admits no TLSRoute from here"),
        ("{from: All}", "{from: Selector}", "namespaces.from: cannot be"),
    ],
)
def test_mistake_with_server_names_is_named(old: str, new: str, message: str) -> None:
    """The same for TLS."""
    assert old in TLS
    with pytest.raises(ManifestError, match=message):
        plan(TLS.replace(old, new))


def test_two_routes_share_a_listener_by_their_names() -> None:
    """Each server name has its route."""
    second = TLS.rpartition("---")[2].replace("name: secure}\nspec", "name: second}\nspec")
    second = second.replace("[one.example.com, other.test]", "[two.example.com]")
    assert [sni for _, sni, _ in shares(plan(TLS, second))] == [
        ("one.example.com",),
        ("two.example.com",),
    ]
