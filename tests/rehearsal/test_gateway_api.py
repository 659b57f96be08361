"""Gateway API's dialect: what is carried out, what is noticed, and what is an error in words."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import TYPE_CHECKING

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
    warned,
)

from trio_echo.errors import ManifestError
from trio_echo.rehearsal.route import Policy, Termination

if TYPE_CHECKING:
    from collections.abc import Mapping

    from trio_echo.rehearsal.route import Chain, Plan


def chains(found: Plan) -> list[Chain]:
    """Every chain of every listener."""
    return [chain for listener in found.route.listeners for chain in listener.chains]


def test_tcp_routing_as_published() -> None:
    """The guide's Gateway with two listeners and a route for each, in both versions."""
    found = plan(GATEWAY_API)
    assert shares(found) == [(8080, (), {"one": 1}), (8090, (), {"one": 80, "two": 20})]


def test_version_that_no_release_serves_is_an_error() -> None:
    """As an API server would have it."""
    text = GATEWAY_API.replace("networking.k8s.io/v1alpha2", "networking.k8s.io/v1beta1")
    with pytest.raises(ManifestError, match=r"apiVersion: .*/v1beta1 is not served; served: "):
        plan(text)


def test_both_dialects_beside_each_other() -> None:
    """One testbed for all that the manifests hold."""
    assert len(plan(ISTIO, GATEWAY_API).route.listeners) == 3


def test_listener_without_route_is_noticed() -> None:
    """Nobody would answer there."""
    idle = "  - {name: idle, port: 1, protocol: TCP}\n  - name: bar"
    found = plan(GATEWAY_API.replace("  - name: bar", idle))
    assert notices(found, ["listener idle, to which no route attaches"])


def test_fields_that_decide_nothing_here_are_noticed() -> None:
    """Of each kind of document."""
    texts = [gateway(WEB, more=ALLOWED), LISTENER_SET, route(BOTH, AT_SET)]
    for kind, text in zip(("Gateway", "ListenerSet", "TCPRoute"), texts, strict=True):
        others = [each for each in texts if each is not text]
        assert notices(plan(BACKENDS, *others, f"{text}extra: {{}}\n"), [kind, "extra"])


def test_route_attaches_to_every_listener_that_takes_it() -> None:
    """A parent without a section means all of them, read once."""
    two = f"{TCP}, {{name: more, protocol: TCP, port: 9001}}"
    found = plan(BACKENDS, gateway(two), route(BOTH))
    assert [port for port, _, _ in shares(found)] == [9000, 9001]


def test_istios_policies_hold_for_its_routes() -> None:
    """A DestinationRule shapes the Services of a TCPRoute too, but not with Envoy Gateway."""
    rule = """
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {name: limit}
spec:
  host: my-foo-service
  trafficPolicy: {connectionPool: {tcp: {maxConnections: 7}}}
"""
    found = chains(plan(GATEWAY_API, rule))[0].destinations
    assert [each.policy.max_connections for each in found] == [7]
    found = chains(plan(GATEWAY_API, rule, plane="envoy-gateway"))[0].destinations
    assert [each.policy for each in found] == [Policy()]


BACKENDS = documents(
    deployment("echo-1", "v1", '["9000", "one", "--tls-ports", "9443", "--tls-cert", "/c.pem"]'),
    deployment("echo-2", "v2", '["9000", "two", "--tls-ports", "9443", "--tls-cert", "/c.pem"]'),
    *(
        service(name, selector, f"[{{name: t, port: 7000, targetPort: 9000}}, {secure}]")
        for secure in ["{name: s, port: 443, targetPort: 9443}"]
        for name, selector in [
            ("echo", "{app: tcp-echo}"),
            ("echo-v1", "{version: v1}"),
            ("echo-v2", "{version: v2}"),
        ]
    ),
)


def gateway(listeners: str, name: str = "gateway", class_: str = "istio", more: str = "") -> str:
    """A Gateway with these listeners."""
    return f"""
apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata: {{name: {name}}}
spec:
  gatewayClassName: {class_}
  listeners: [{listeners}]
{more}
"""


def route(
    refs: str,
    parents: str = "{name: gateway}",
    *,
    kind: str = "TCPRoute",
    version: str = "v1",
    more: str = "",
) -> str:
    """A route with one rule."""
    return f"""
apiVersion: gateway.networking.k8s.io/{version}
kind: {kind}
metadata: {{name: route}}
spec:
  parentRefs: [{parents}]
  rules: [{{backendRefs: [{refs}]}}]
{more}
"""


def called(name: str, text: str) -> str:
    """The same route by another name."""
    return text.replace("{name: route}", f"{{name: {name}}}")


TCP = "{name: tcp, protocol: TCP, port: 9000}"
BOTH = "{name: echo-v1, port: 7000, weight: 80}, {name: echo-v2, port: 7000, weight: 20}"


def test_route_of_the_mesh_listens_at_the_service() -> None:
    """A Service as parent: the route applies at its port."""
    parent = '{group: "", kind: Service, name: echo, port: 7000}'
    assert shares(plan(BACKENDS, route(BOTH, parent))) == [(7000, (), {"one": 80, "two": 20})]


def test_envoy_gateway_has_no_mesh_and_no_virtual_services() -> None:
    """What is Istio's own is said to be."""
    parent = '{group: "", kind: Service, name: echo, port: 7000}'
    with pytest.raises(ManifestError, match="Envoy Gateway has no mesh for a Service"):
        plan(BACKENDS, route(BOTH, parent), plane="envoy-gateway")
    found = plan(ISTIO, plane="envoy-gateway")
    assert {each.plane for each in found.route.listeners} == {"istio"}
    assert notices(found, ["VirtualServices are Istio's own"])


@pytest.mark.parametrize(
    ("port", "more", "taken"),
    [
        ("port: 7000", "", "TCPRoute TLSRoute"),
        ("port: 7000, name: mysql", "", "TCPRoute TLSRoute"),
        ("port: 7000, name: https-web", "", "TLSRoute"),
        ("port: 7000, name: http-web", "", ""),
        ("port: 7000, name: tcp, appProtocol: kubernetes.io/h2c", "", ""),
        ("port: 7000", ", clusterIP: None", ""),
    ],
)
def test_port_of_the_mesh_takes_what_istio_carries_out_there(
    port: str, more: str, taken: str
) -> None:
    """By the port's name or appProtocol; at a headless Service none."""
    text = service("mesh", "{app: x}", f"[{{{port}}}]{more}")
    parent = '{group: "", kind: Service, name: mesh}'
    for kind, names in (("TCPRoute", ""), ("TLSRoute", "  hostnames: [a.com]")):
        if kind in taken:
            assert plan(BACKENDS, text, route(BOTH, parent, kind=kind, more=names)).route.listeners
        else:
            with pytest.raises(ManifestError, match=f"Service default/mesh takes no {kind} at"):
                plan(BACKENDS, text, route(BOTH, parent, kind=kind, more=names))


@pytest.mark.parametrize(
    ("class_", "document", "option", "plane", "said"),
    [
        ("istio", None, None, "istio", None),
        ("istio-remote", None, None, "istio", None),
        ("eg", None, None, "envoy-gateway", None),
        ("mine", "gateway.envoyproxy.io/gatewayclass-controller", None, "envoy-gateway", None),
        ("mine", "istio.io/gateway-controller", None, "istio", None),
        ("mine", "example.com/mine", None, "istio", "GatewayClass mine of example.com/mine is not"),
        ("mine", None, None, "istio", "GatewayClass mine is not known here"),
        ("mine", None, "envoy-gateway", "envoy-gateway", None),
        ("eg", None, "istio", "istio", None),
    ],
)
def test_class_chooses_the_data_plane(
    class_: str, document: str | None, option: str | None, plane: str, said: str | None
) -> None:
    """By its document, by its name, or by the option; an unknown one is said once."""
    texts = [BACKENDS, gateway(TCP, class_=class_), route(BOTH)]
    texts.append(gateway("{name: h, protocol: HTTP, port: 80}", "other", class_))
    if document:
        texts.append(f"""
apiVersion: gateway.networking.k8s.io/v1
kind: GatewayClass
metadata: {{name: {class_}}}
spec: {{controllerName: {document}}}
""")
    found = plan(*texts, plane=option)
    assert [each.plane for each in found.route.listeners] == [plane]
    assert [each.pooled for each in chains(found)] == [plane == "envoy-gateway"]
    assert sum("not known here" in each.text for each in found.notices) == bool(said)
    assert said is None or notices(found, [said, "--as"])


GONE = "{name: gone, port: 1, weight: 50}"
HALF = "{name: echo-v1, port: 7000, weight: 50}"
ELSEWHERE = """
apiVersion: v1
kind: Service
metadata: {name: echo-v2, namespace: other}
spec: {ports: [{port: 7000, targetPort: 9000}], selector: {version: v2}}
---
apiVersion: v1
kind: Pod
metadata: {name: echo-v2, namespace: other, labels: {version: v2}}
spec: {containers: [{name: c, image: trio-echo, args: ["9000", two]}]}
"""
TWICE = "{name: echo-v1, port: 7000}, {name: echo-v1, port: 7000}, {name: echo-v2, port: 7000}"


@pytest.mark.parametrize(
    ("refs", "meant", "reached", "words"),
    [
        (f"{HALF}, {GONE}", {"one": 50, "gone": 50}, {"one": 50}, "there is no Service gone in"),
        (
            f"{HALF}, {{name: echo-v2, port: 8, weight: 50}}",
            {"one": 50, "echo-v2": 50},
            {"one": 50},
            "Service echo-v2 has no port 8",
        ),
        (
            f"{HALF}, {{name: echo-v2, kind: Bucket, group: x.io, port: 1, weight: 50}}",
            {"one": 50, "echo-v2": 50},
            {"one": 50},
            "only kind Service is supported, got Bucket of x.io",
        ),
        (
            f"{HALF}, {{name: echo-v2, namespace: other, port: 7000, weight: 50}}",
            {"one": 50, "two": 50},
            {"one": 50},
            "no ReferenceGrant in namespace other allows a TCPRoute of namespace default",
        ),
        (TWICE, {"one": 2, "two": 1}, {"one": 1, "two": 1}, None),
        (f"{HALF}, {{name: echo-v2, port: 7000, weight: 0}}", {"one": 50, "two": 0}, None, None),
    ],
)
def test_backend_that_leads_nowhere_is_what_the_data_plane_makes_of_it(
    refs: str, meant: Mapping[str, int], reached: Mapping[str, int] | None, words: str | None
) -> None:
    """Said loudly: with Istio its share is reset, with Envoy Gateway the others get it.

    What the manifests ask for stays what the verdict is about.
    """
    for plane, fate in (
        ("istio", "with Istio its share is reset"),
        ("envoy-gateway", "with Envoy Gateway its share goes to the oth"),
    ):
        texts = [BACKENDS, ELSEWHERE, gateway(TCP), route(refs)]
        found = plan(*texts, plane=plane)
        assert shares(found) == [(9000, (), meant)]
        (chain,) = chains(found)
        as_it_is = replace(chain, destinations=chain.reached(), expected=None)
        if plane == "envoy-gateway" or words:
            assert found.route.shares(as_it_is) == (reached or meant)
        assert words is None or warned(found, ["TCPRoute route", "backendRefs[1]", words, fate])
        told = words is not None or "echo-v1, port: 7000}, {name: echo-v1" in refs
        causes = [each.cause for each in chain.destinations if each.cause]
        assert bool(causes) == (told and (words is not None or chain.pooled))
        assert all(each.startswith("4.yaml:") for each in causes)


def test_equal_services_are_said() -> None:
    """Envoy Gateway's cluster holds an endpoint once."""
    found = plan(BACKENDS, gateway(TCP), route(TWICE), plane="envoy-gateway")
    assert warned(found, ["backendRefs[1] leads to endpoints of an earlier", "weight 1 is lost"])
    overlap = "{name: echo-v1, port: 7000}, {name: echo, port: 7000}"
    found = plan(BACKENDS, gateway(TCP), route(overlap), plane="envoy-gateway")
    assert warned(found, ["its weight 1 is for fewer"])
    assert shares(found) == [(9000, (), {"one": 1.5, "two": 0.5})]
    assert warned(found, ["Service echo selects pods of Service echo-v1 too"])


GRANT = """
apiVersion: gateway.networking.k8s.io/v1beta1
kind: ReferenceGrant
metadata: {name: grant, namespace: default}
spec:
  from: [{group: gateway.networking.k8s.io, kind: TCPRoute, namespace: apps}]
  to: [{group: "", kind: Service, name: echo-v1}]
"""
ABROAD = route(
    "{name: echo-v1, namespace: default, port: 7000}", "{name: gateway, namespace: default}"
).replace("{name: route}", "{name: route, namespace: apps}")
OPEN = "{name: tcp, protocol: TCP, port: 9000, allowedRoutes: {namespaces: {from: All}}}"


@pytest.mark.parametrize(
    ("old", "new", "allowed"),
    [
        ("", "", True),
        (", name: echo-v1}]", "}]", True),
        ("namespace: default}", "namespace: apps}", False),
        ("group: gateway.networking.k8s.io,", "group: other,", False),
        ("kind: TCPRoute", "kind: TLSRoute", False),
        ("namespace: apps}]", "namespace: other}]", False),
        ('group: "", kind', "group: other, kind", False),
        ("kind: Service", "kind: Secret", False),
        ("name: echo-v1", "name: echo-v2", False),
    ],
)
def test_reference_grant_decides_what_may_be_referred_to(
    old: str, new: str, *, allowed: bool
) -> None:
    """From group, kind and namespace, to group, kind and perhaps name, in the right place."""
    assert old in GRANT
    texts = [BACKENDS, gateway(OPEN), ABROAD, GRANT.replace(old, new)]
    if allowed:
        assert shares(plan(*texts)) == [(9000, (), {"one": 1})]
    else:
        with pytest.raises(ManifestError, match="no ReferenceGrant in namespace default allows"):
            plan(*texts)


SELECT = "{name: tcp, protocol: TCP, port: 9000, allowedRoutes: {namespaces: {from: Selector, %s}}}"


@pytest.mark.parametrize(
    ("selector", "admitted"),
    [
        ("selector: {matchLabels: {team: a}}", True),
        ("selector: {matchLabels: {team: b}}", False),
        ("selector: {matchLabels: {kubernetes.io/metadata.name: apps}}", True),
        ("selector: {matchExpressions: [{key: team, operator: In, values: [a, b]}]}", True),
        ("selector: {matchExpressions: [{key: team, operator: In, values: [b]}]}", False),
        ("selector: {matchExpressions: [{key: team, operator: NotIn, values: [b]}]}", True),
        ("selector: {matchExpressions: [{key: other, operator: NotIn, values: [b]}]}", True),
        ("selector: {matchExpressions: [{key: team, operator: Exists}]}", True),
        ("selector: {matchExpressions: [{key: other, operator: Exists}]}", False),
        ("selector: {matchExpressions: [{key: other, operator: DoesNotExist}]}", True),
        ("selector: {matchExpressions: [{key: team, operator: DoesNotExist}]}", False),
    ],
)
def test_namespaces_are_selected_by_their_labels(selector: str, *, admitted: bool) -> None:
    """Those of the Namespace documents, and the name that Kubernetes adds."""
    namespace = "{apiVersion: v1, kind: Namespace, metadata: {name: apps, labels: {team: a}}}"
    texts = [BACKENDS, gateway(SELECT % selector), ABROAD, GRANT, namespace]
    if admitted:
        assert shares(plan(*texts)) == [(9000, (), {"one": 1})]
    else:
        with pytest.raises(ManifestError, match="admits no route of namespace apps"):
            plan(*texts)


def test_older_route_has_the_listener() -> None:
    """By its time of creation where it is given, else by name; the other one is said."""
    one, two = "{name: echo-v1, port: 7000}", "{name: echo-v2, port: 7000}"
    texts = [BACKENDS, gateway(TCP), called("b", route(one)), called("a", route(two))]
    found = plan(*texts)
    assert shares(found) == [(9000, (), {"two": 1})]
    assert warned(found, ["TCPRoute b gets nothing", "TCPRoute a is older"])
    texts[2] = texts[2].replace("{name: b}", "{name: b, creationTimestamp: 2024-01-01T00:00:00Z}")
    assert shares(plan(*texts)) == [(9000, (), {"one": 1})]


def test_several_rules_are_what_the_data_plane_makes_of_them() -> None:
    """Only v1alpha2 allows them, and nobody can tell them apart."""
    more = "  - {backendRefs: [{name: echo-v2, port: 7000}]}"
    text = route("{name: echo-v1, port: 7000}", version="v1alpha2").rstrip()
    text = text.replace("rules: [{", "rules:\n  - {").replace("]}]", "]}") + f"\n{more}\n"
    found = plan(BACKENDS, gateway(TCP), text)
    assert shares(found) == [(9000, (), {"one": 1})]
    assert warned(found, ["spec.rules[1] and later ones get nothing", "Istio takes the first"])
    with pytest.raises(ManifestError, match="Envoy Gateway supports one and only one rule"):
        plan(BACKENDS, gateway(TCP), text, plane="envoy-gateway")
    with pytest.raises(ManifestError, match="must have at most one entry"):
        plan(BACKENDS, gateway(TCP), text.replace("v1alpha2", "v1"))
    text = text.replace("kind: TCPRoute", "kind: TLSRoute").replace("7000", "443")
    found = plan(BACKENDS, gateway(PASSTHROUGH), text, plane="envoy-gateway")
    assert shares(found) == [(443, ("*.com",), {"one": 1, "two": 1})]
    assert notices(found, ["Envoy Gateway takes the backends of all its rules together"])


LISTENER_SET = """
apiVersion: gateway.networking.k8s.io/v1
kind: ListenerSet
metadata: {name: more}
spec:
  parentRef: {name: gateway, kind: Gateway, group: gateway.networking.k8s.io}
  listeners: [{name: extra, protocol: TCP, port: 18083}]
"""
WEB = "{name: web, protocol: HTTP, port: 80}"
ALLOWED = "  allowedListeners: {namespaces: {from: Same}}"
AT_SET = "{name: more, kind: ListenerSet, sectionName: extra}"


@pytest.mark.parametrize("experimental", [False, True])
def test_listener_set_adds_listeners(*, experimental: bool) -> None:
    """A Gateway that allows it gets more listeners, to which routes attach by the set."""
    listener_set, parent = LISTENER_SET, AT_SET
    if experimental:
        listener_set = listener_set.replace("gateway.networking.k8s.io/v1", "X/v1alpha1")
        listener_set = listener_set.replace("X/", "gateway.networking.x-k8s.io/")
        listener_set = listener_set.replace("kind: ListenerSet", "kind: XListenerSet")
        parent = "{group: gateway.networking.x-k8s.io, name: more, kind: XListenerSet}"
    texts = [BACKENDS, gateway(WEB, more=ALLOWED), listener_set, route(BOTH, parent)]
    assert shares(plan(*texts)) == [(18083, (), {"one": 80, "two": 20})]


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        (ALLOWED, "", "allows no ListenerSet of namespace default: .*from is None"),
        ("parentRef: {name: gateway", "parentRef: {name: x", "no Gateway default/x; found: def"),
        ("sectionName: extra", "sectionName: other", "has no listener other; found: extra"),
        ("port: 18083", "port: 80", "conflicts with web"),
    ],
)
def test_mistake_with_a_listener_set_is_named(old: str, new: str, message: str) -> None:
    """A set that is not allowed, or not there."""
    text = documents(gateway(WEB, more=ALLOWED), LISTENER_SET, route(BOTH, AT_SET))
    assert old in text
    with pytest.raises(ManifestError, match=message):
        plan(BACKENDS, text.replace(old, new))


def test_routes_of_both_kinds_at_one_service_that_is_nowhere() -> None:
    """They share what stands in: a port of the mesh takes both."""
    parent = '{group: "", kind: Service, name: nowhere}'
    refs = "{name: other, port: 80}"
    found = plan(
        called("a", route(refs, parent)),
        called("b", route(refs, parent, kind="TLSRoute", more="  hostnames: [a.com]")),
    )
    assert shares(found) == [(80, (), {"other": 1}), (80, ("a.com",), {"other": 1})]
    found = plan(
        called("a", route("{name: x, port: 1}", "{name: g}")),
        called("b", route("{name: x, port: 2}", "{name: g, sectionName: s}")),
    )
    assert [port for port, _, _ in shares(found)] == [1, 2]


def test_what_is_in_none_of_the_documents_stands_in() -> None:
    """A bare route: its Gateway is somewhere else."""
    found = plan(BACKENDS, route(BOTH))
    assert shares(found) == [(7000, (), {"one": 80, "two": 20})]
    assert notices(found, ["Gateway default/gateway is in none of the documents", "stands in"])
    found = plan(BACKENDS, route(BOTH, "{name: gateway, sectionName: tcp, port: 1883}"))
    assert [port for port, _, _ in shares(found)] == [1883]
    with pytest.raises(ManifestError, match="there is no Gateway default/gateway; found: def"):
        plan(BACKENDS, gateway(TCP, "other"), route(BOTH))
    with pytest.raises(ManifestError, match="there is no Service default/nope; found: "):
        plan(BACKENDS, route(BOTH, '{group: "", kind: Service, name: nope}'))


PASSTHROUGH = '{name: tls, protocol: TLS, port: 443, hostname: "*.com", tls: {mode: Passthrough}}'
TERMINATE = (
    "{name: end, protocol: TLS, port: 8443, tls: {mode: Terminate, certificateRefs: [{name: c}]}}"
)
SECURE = "{name: echo-v1, port: 443}"


@pytest.mark.parametrize(
    ("hostnames", "hostname", "expected"),
    [
        ("[one.example.com, other.test]", '"*.example.com"', ("one.example.com",)),
        ('["*.one.example.com"]', '"*.example.com"', ("*.one.example.com",)),
        ('["*.example.com"]', "one.example.com", ("one.example.com",)),
        ("[one.example.com]", "one.example.com", ("one.example.com",)),
        ("[one.example.com, other.test]", None, ("one.example.com", "other.test")),
        (None, "one.example.com", ("one.example.com",)),
        (None, None, ()),
        ('["*.com"]', None, ("*.com",)),
        ("[example.com]", '"*.example.com"', None),
        ("[other.test]", '"*.example.com"', None),
    ],
)
def test_server_names_are_what_both_sides_have(
    hostnames: str | None, hostname: str | None, expected: tuple[str, ...] | None
) -> None:
    """A route counts for the names that its listener is for too; v1alpha2 needs none."""
    more = f"  hostnames: {hostnames}" if hostnames else ""
    listener = PASSTHROUGH.replace(
        ' hostname: "*.com",', f" hostname: {hostname}," * bool(hostname)
    )
    text = documents(
        gateway(f"{listener}, {WEB}"),
        route(SECURE, kind="TLSRoute", version="v1alpha2", more=more),
    )
    if expected is None:
        with pytest.raises(ManifestError, match=r"spec\.hostnames: none falls under"):
            plan(BACKENDS, text)
    else:
        found = plan(BACKENDS, text)
        assert shares(found) == [(443, expected, {"one": 1})]
        assert [each.passthrough for each in chains(found)] == [True]
        assert notices(found, ["spec.listeners[1], port 80 of HTTP"])


def test_two_routes_share_a_listener_by_their_names() -> None:
    """Each server name has its route; of one that both name, the first by name has it."""
    listener = PASSTHROUGH.replace(' hostname: "*.com",', "")
    for names, expected in (
        ("[two.com]", [("one.com",), ("two.com",)]),
        ("[one.com, two.com]", [("one.com",), ("two.com",)]),
        ("[one.com]", [("one.com",)]),
    ):
        found = plan(
            BACKENDS,
            gateway(listener),
            called("a", route(SECURE, kind="TLSRoute", more="  hostnames: [one.com]")),
            called("b", route(SECURE, kind="TLSRoute", more=f"  hostnames: {names}")),
        )
        assert [sni for _, sni, _ in shares(found)] == expected
        assert warned(found, ["TLSRoute b gets nothing", "for one.com"]) == ("one" in names)


def test_listeners_of_one_port_are_one() -> None:
    """Told apart by server name; the narrower listener has a name that both could have."""
    ends = TERMINATE.replace("port: 8443", 'port: 443, hostname: "a.com"')
    rest = PASSTHROUGH.replace(' hostname: "*.com",', "").replace("name: tls", "name: rest")
    found = plan(
        BACKENDS,
        gateway(f"{rest}, {PASSTHROUGH}, {ends}"),
        called("a", route(SECURE, kind="TLSRoute", more="  hostnames: [a.com, b.com, c.org]")),
    )
    (listener,) = found.route.listeners
    assert listener.title.endswith("port 443 (rest, tls, end)")
    names = [(chain.sni, chain.tls is not None) for chain in listener.chains]
    assert names == [(("a.com",), True), (("b.com",), False), (("c.org",), False)]
    found = plan(
        BACKENDS,
        gateway(f"{rest}, {ends}"),
        *(
            called(
                section,
                route(
                    SECURE,
                    f"{{name: gateway, sectionName: {section}}}",
                    kind="TLSRoute",
                    more="  hostnames: [a.com]",
                ),
            )
            for section in ("rest", "end")
        ),
    )
    assert [chain.tls is not None for chain in chains(found)] == [True]


@pytest.mark.parametrize(
    ("listener", "more", "termination"),
    [
        (TERMINATE, "", Termination()),
        (
            TERMINATE.replace(
                "mode:", "options: {gateway.istio.io/tls-terminate-mode: MUTUAL}, m:"
            ).replace("m: Terminate", "mode: Terminate"),
            "",
            Termination(asks_client=True),
        ),
        (
            TERMINATE,
            "  tls: {frontend: {default: {validation: {caCertificateRefs: []}}}}",
            Termination(asks_client=True),
        ),
    ],
)
@pytest.mark.parametrize("kind", ["TCPRoute", "TLSRoute"])
def test_tls_that_ends_at_the_gateway(
    listener: str, more: str, termination: Termination, kind: str
) -> None:
    """For routes of both kinds, with a certificate of our own."""
    names = "  hostnames: [a.com]" if kind == "TLSRoute" else ""
    found = plan(
        BACKENDS,
        gateway(listener, more=more),
        route("{name: echo-v1, port: 7000}", kind=kind, more=names),
    )
    assert [chain.tls for chain in chains(found)] == [termination]
    assert [chain.passthrough for chain in chains(found)] == [False]
    assert notices(found, ["listener end: shows a throw-away certificate in place of c"])


def test_certificate_of_another_namespace_needs_a_grant() -> None:
    """As a Service does."""
    listener = TERMINATE.replace("{name: c}", "{name: c, namespace: certs}")
    texts = [BACKENDS, gateway(listener), route("{name: echo-v1, port: 7000}")]
    with pytest.raises(ManifestError, match=r"certificateRefs\[0\]: no ReferenceGrant in namespa"):
        plan(*texts)
    grant = GRANT.replace("namespace: default}", "namespace: certs}")
    grant = grant.replace("kind: TCPRoute, namespace: apps", "kind: Gateway, namespace: default")
    grant = grant.replace("kind: Service, name: echo-v1", "kind: Secret")
    assert shares(plan(*texts, grant)) == [(8443, (), {"one": 1})]


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("weight: 80", "weight: 1000001", r"backendRefs\[0\].weight: "),
        ("weight: 80", "weight: -1", r"backendRefs\[0\].weight: "),
        ("weight: 80", 'weight: "80"', r"backendRefs\[0\].weight: "),
        ("weight: 80", "wait: 80", r"spec.rules\[0\].backendRefs\[0\].wait: "),
        ("weight: 80", "weight: 0", "weights add up to 0: every connection is rejected"),
        (
            "      port: 6000\n      weight: 20",
            "      weight: 20",
            "must have port for Service ref",
        ),
        ("sectionName: bar", "sectionName: baz", r"parentRefs\[0\].sectionName: Gateway .* has no"),
        ("sectionName: bar", "port: 1", r"parentRefs\[0\].port: .* has no listener 1; found: foo"),
        ("sectionName: bar", "sectionName: bar\n    port: 8080", r"parentRefs\[0\].port: .* 8080"),
        ("sectionName: bar", "kind: Proxy", "a parent of kind Proxy of gateway.networking.k8s.io"),
        ("sectionName: bar", 'kind: Proxy\n    group: ""', "kind Proxy is not supported"),
        ("sectionName: bar", "namespace: other", r"no Gateway other/my-tcp-gateway; found: def"),
        (
            "sectionName: bar",
            "sectionName: bar\n  - name: my-tcp-gateway\n    sectionName: bar",
            r"parentRefs\[1\]: refers to Gateway my-tcp-gateway as another does: sectionName",
        ),
        (
            "sectionName: bar",
            "sectionName: bar\n  - name: my-tcp-gateway",
            r"parentRefs\[1\]: .* sectionName must be specified in both, and unique",
        ),
        ("name: my-foo-service\n      port", "name: gone\n      port", "there is no Service gone"),
        ("protocol: TCP", "protocol: TLS", r"listeners\[0\].tls: must be set for protocol TLS"),
        ("protocol: TCP", "protocol: HTTP", r"takes no TCPRoute at: foo \(HTTP, port 8080\)"),
        ("port: 8090", "port: 80900", r"listeners\[1\].port: "),
        ("  - name: bar", "  - name: foo", r"listeners\[1\].name: foo must be unique"),
        ("  - name: foo", "  - name: Foo", r"listeners\[0\].name: must be lower case"),
        ("port: 8090", "port: 8080", r"listeners\[1\]: the combination of port, protocol and host"),
        ("port: 8090", "port: 8090\n    hostname: a.com", r"hostname: must not be specified for"),
        (
            "port: 8090",
            "port: 8090\n    tls: {mode: Passthrough}",
            r"1\].tls: must not be spec",
        ),
        ("kind: TCPRoute\n  - name", "kind: TLSRoute\n  - name", r"takes no TCPRoute at: foo"),
        ("  parentRefs:", "  hostnames: [a]\n  parentRefs:", "a TCPRoute has no hostnames"),
        ("parentRefs:\n  - name: my-tcp-gateway\n    sectionName: bar", "a: 1", r"spec.a: "),
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


ENTRY = """
apiVersion: networking.istio.io/v1
kind: ServiceEntry
metadata: {name: outside}
spec: {hosts: [example.com, other.com], ports: [{number: 443, name: tcp, protocol: TCP}]}
extra: {}
"""


def test_hosts_outside_the_cluster() -> None:
    """As a parent, a ServiceEntry with a listener for each host; as a backend, a Hostname."""
    outside = "{group: networking.istio.io, kind: Hostname, name: example.com, port: 443}"
    parent = "{group: networking.istio.io, kind: ServiceEntry, name: outside}"
    found = plan(BACKENDS, ENTRY, route(outside, parent))
    assert shares(found) == [(443, (), {"example.com": 1})] * 2
    assert notices(found, ["ServiceEntry outside", "extra"])
    with pytest.raises(ManifestError, match="got Hostname of networking"):
        plan(BACKENDS, ENTRY, gateway(TCP), route(outside), plane="envoy-gateway")


def test_route_has_parents_in_several_gateways() -> None:
    """Each is a parent of its own."""
    gateways = [gateway(TCP), gateway(TCP, "second")]
    found = plan(BACKENDS, *gateways, route(BOTH, "{name: gateway}, {name: second}"))
    assert [port for port, _, _ in shares(found)] == [9000, 9000]


def test_parts_of_one_parent_are_told_apart() -> None:
    """By their sections; in v1alpha2 by their ports too."""
    two = f"{TCP}, {{name: more, protocol: TCP, port: 9001}}"
    sections = "{name: gateway, sectionName: tcp}, {name: gateway, sectionName: more}"
    ports = "{name: gateway, port: 9000}, {name: gateway, port: 9001}"
    for parents, version in ((sections, "v1"), (ports, "v1alpha2")):
        found = plan(BACKENDS, gateway(two), route(BOTH, parents, version=version))
        assert [port for port, _, _ in shares(found)] == [9000, 9001]
    with pytest.raises(ManifestError, match="sectionName must be specified in both"):
        plan(BACKENDS, gateway(two), route(BOTH, ports))


def test_routes_for_http_alone_are_named() -> None:
    """Nothing is left to rehearse, and that is why."""
    web = route(BOTH, kind="HTTPRoute")
    own = """
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: web}
spec: {hosts: [web], http: []}
"""
    words = "only TCP and TLS are rehearsed, not HTTP: HTTPRoute route, VirtualService web"
    with pytest.raises(ManifestError, match=words):
        plan(BACKENDS, web, own)


def test_nothing_is_noted_of_what_an_echo_server_stands_in_for() -> None:
    """Its fields do not matter; those of two objects of one name are noted once."""
    stranger = deployment("other", "v1", "[a]").replace("istio/tcp-echo-server", "redis")
    assert not notices(plan(GATEWAY_API, stranger), ["Deployment other"])
    own = deployment("other", "v1", '["9000", "x"]')
    again = own.replace("  name: other", "  name: other\n  namespace: else", 1)
    found = plan(GATEWAY_API, own, again)
    assert notices(found, ["Deployment echo-1, echo-2, other: ignored: spec.templ"])


@pytest.mark.parametrize("metadata", ["metadata: {}", "metadata: []", "metadata: null", ""])
@pytest.mark.parametrize("kind", ["TCPRoute", "Gateway", "GatewayClass", "ListenerSet"])
def test_document_without_a_name_is_an_error(kind: str, metadata: str) -> None:
    """Of every kind, in words."""
    text = f"apiVersion: gateway.networking.k8s.io/v1\nkind: {kind}\n{metadata}\nspec: {{}}\n"
    with pytest.raises(ManifestError, match=r"1\.yaml:"):
        plan(text, GATEWAY_API)


def test_route_without_parents_attaches_nowhere() -> None:
    """Valid, and of no use."""
    with pytest.raises(ManifestError, match="has no parentRefs: the route attaches nowhere"):
        plan(BACKENDS, gateway(TCP), route(BOTH, ""))


@pytest.mark.parametrize(
    ("listener", "names", "message"),
    [
        (PASSTHROUGH, "", "a TLSRoute must have at least one"),
        (PASSTHROUGH, "  hostnames: ['http://a<']", r"hostnames\[0\]: must be a host name such as"),
        (PASSTHROUGH, "  hostnames: [10.0.0.1]", r"hostnames\[0\]: must be a host name such as"),
        (PASSTHROUGH.replace("*.com", "*"), "  hostnames: [a.com]", r"\[0\].hostname: must be a h"),
        (TERMINATE.replace(", certificateRefs: [{name: c}]", ""), "", "certificateRefs or options"),
        (
            PASSTHROUGH.replace("protocol: TLS", "protocol: HTTPS"),
            "  hostnames: [a.com]",
            "must be Terminate for protocol HTTPS",
        ),
        (f"{TCP.replace('9000', '80')}, {WEB}", "", r"web \(HTTP, port 80\) conflicts with tcp"),
        (
            PASSTHROUGH.replace(
                "port: 443", "port: 443, allowedRoutes: {kinds: [{kind: TCPRoute}]}"
            ),
            "  hostnames: [a.com]",
            "takes no TLSRoute at: tls",
        ),
        (
            PASSTHROUGH.replace(
                "port: 443", "port: 443, allowedRoutes: {kinds: [{kind: TLSRoute, group: x}]}"
            ),
            "  hostnames: [a.com]",
            "takes no TLSRoute at: tls",
        ),
    ],
)
def test_mistake_with_server_names_is_named(listener: str, names: str, message: str) -> None:
    """The same for TLS."""
    with pytest.raises(ManifestError, match=message):
        plan(BACKENDS, gateway(listener), route(SECURE, kind="TLSRoute", more=names))


def test_udp_has_ports_of_its_own() -> None:
    """A DNS server listens on one number for both."""
    both = f"{{name: udp, protocol: UDP, port: 9000}}, {TCP}"
    (listener,) = plan(BACKENDS, gateway(both), route(BOTH)).route.listeners
    assert listener.title == "Gateway default/gateway port 9000 (tcp)"


def test_service_of_a_gateway_is_known() -> None:
    """Istio makes one for each Gateway, and traffic out of the mesh goes through it."""
    to = "{name: gateway-istio, port: 9000}"
    through = route(to, "{name: echo, kind: Service, group: '', port: 7000}")
    found = plan(BACKENDS, gateway(TCP), through, called("in", route(BOTH)))
    assert shares(found)[1] == (7000, (), {"gateway-istio": 1})
    own = service("gateway-istio", "{version: v1}", "[{port: 9000}]")
    found = plan(BACKENDS, gateway(TCP), own, through, called("in", route(BOTH)))
    assert shares(found)[1] == (7000, (), {"one": 1})
    with pytest.raises(ManifestError, match="there is no Service gateway-eg in namespace default"):
        plan(BACKENDS, gateway(TCP, class_="eg"), route(to.replace("-istio", "-eg")))
