"""Istio's dialect: what is carried out, what is noticed, and what is an error in words."""

from __future__ import annotations

import re

import pytest
from manifest_texts import (
    ALL_V1,
    BACKENDS,
    GATEWAY,
    ISTIO,
    RULE,
    SERVICE,
    V2_20,
    deployment,
    notices,
    plan,
    shares,
    virtual_service,
)

from trio_echo.errors import ManifestError
from trio_echo.rehearsal.route import Keepalive, Outlier, Policy

DESTINATION = "destination: {host: tcp-echo, port: {number: 9000}"


def tcp(*rules: str) -> str:
    """The rules of a VirtualService."""
    return "  tcp:\n" + "\n".join(rules)


def test_traffic_shifting_as_published() -> None:
    """Istio's samples work as they are: all to v1, then 20 % to v2."""
    assert shares(plan(BACKENDS, GATEWAY, RULE, V2_20)) == [(31400, (), {"one": 80, "two": 20})]
    assert shares(plan(BACKENDS, GATEWAY, RULE, ALL_V1)) == [(31400, (), {"one": 100})]
    found = plan(ISTIO)
    assert notices(found, ["Gateway tcp-echo-gateway", "spec.selector"])
    assert [backend.config.ports for backend in found.route.backends] == [[9000, 9001, 9002]] * 2


@pytest.mark.parametrize("version", ["v1", "v1beta1", "v1alpha3"])
def test_every_served_version_is_read(version: str) -> None:
    """Three API versions mean the same."""
    text = ISTIO.replace("networking.istio.io/v1", f"networking.istio.io/{version}")
    assert shares(plan(text)) == shares(plan(ISTIO))


def test_version_that_is_not_served_is_an_error() -> None:
    """An API server would refuse it, so the rehearsal does."""
    with pytest.raises(ManifestError, match=r"apiVersion: networking.istio.io/v2 is not served"):
        plan(ISTIO.replace("networking.istio.io/v1", "networking.istio.io/v2"))


@pytest.mark.parametrize(
    ("weights", "expected"),
    [
        ("weight: 0|weight: 100", {"one": 0, "two": 100}),
        ("weight: 3|weight: 1", {"one": 3, "two": 1}),
        ("|weight: 1", {"one": 0, "two": 1}),
    ],
)
def test_weights_are_relative_and_may_be_zero(weights: str, expected: dict[str, int]) -> None:
    """A weight that is not given beside others is 0."""
    first, second = weights.split("|")
    text = V2_20.replace("weight: 80", first).replace("weight: 20", second)
    assert shares(plan(BACKENDS, GATEWAY, RULE, text)) == [(31400, (), expected)]


def test_single_route_needs_no_weight() -> None:
    """One that stands alone gets all, even with weight 0."""
    text = virtual_service(tcp("  - route:\n    - {" + DESTINATION + ", subset: v2}, weight: 0}"))
    assert shares(plan(BACKENDS, GATEWAY, RULE, text)) == [(31400, (), {"two": 100})]


def test_several_servers_and_rules() -> None:
    """Rules are matched by port; the first that matches counts; the rest is noticed."""
    gateway = GATEWAY.replace(
        "  servers:\n",
        "  servers:\n"
        '  - {port: {number: 9001, name: other, protocol: TCP}, hosts: ["*"]}\n'
        '  - {port: {number: 80, name: http, protocol: HTTP}, hosts: ["*"]}\n',
    )
    text = virtual_service(
        tcp(
            "  - match: [{port: 9001}]\n    route: [{" + DESTINATION + ", subset: v2}}]",
            "  - match: [{port: 9002}]\n    route: [{" + DESTINATION + ", subset: v2}}]",
            "  - route: [{" + DESTINATION + ", subset: v1}}]",
        )
    )
    found = plan(BACKENDS, gateway, RULE, text)
    assert shares(found) == [(9001, (), {"two": 100}), (31400, (), {"one": 100})]
    assert notices(found, ["spec.servers[1], port 80 of HTTP"])
    assert notices(found, ["spec.tcp[1].match[0], which is for no port"])
    assert notices(found, ["spec.tcp[2].match[0] at Gateway", "an earlier rule matches"])


def test_mesh_listens_at_the_port_of_the_service() -> None:
    """East-west the route applies where the Service is, by any form of its name."""
    for host in ("tcp-echo", "tcp-echo.default", "tcp-echo.default.svc.cluster.local"):
        text = V2_20.replace('["*"]', f"[{host}]").replace("[tcp-echo-gateway]", "[mesh]")
        text = text.replace("port: 31400", "port: 9000")
        assert shares(plan(BACKENDS, RULE, text)) == [(9000, (), {"one": 80, "two": 20})]
        no_gateways = text.replace("gateways: [mesh]", "")
        assert shares(plan(BACKENDS, RULE, no_gateways)) == shares(plan(BACKENDS, RULE, text))


def test_rules_for_mesh_and_gateway_apart() -> None:
    """``match.gateways`` says where a rule counts."""
    text = virtual_service(
        tcp(
            "  - match: [{gateways: [mesh], port: 9000}]\n"
            "    route: [{" + DESTINATION + ", subset: v1}}]",
            "  - match: [{gateways: [tcp-echo-gateway]}]\n"
            "    route: [{" + DESTINATION + ", subset: v2}}]",
        ),
        hosts="[tcp-echo]",
        gateways="[mesh, default/tcp-echo-gateway]",
    )
    assert shares(plan(BACKENDS, GATEWAY, RULE, text)) == [
        (31400, (), {"two": 100}),
        (9000, (), {"one": 100}),
    ]


TLS_GATEWAY = """
apiVersion: networking.istio.io/v1
kind: Gateway
metadata: {name: secure}
spec:
  servers:
  - port: {number: 443, name: tls, protocol: TLS}
    hosts: ["*.example.com"]
    tls: {mode: PASSTHROUGH}
"""

TLS_BACKENDS = (
    SERVICE.replace("port: 9001", "port: 9443")
    + "---"
    + deployment(
        "v1", "v1", '["9000", "one", "--tls-ports", "9443", "--tls-cert", "/etc/certs/tls.crt"]'
    )
    + "---"
    + deployment(
        "v2", "v2", '["9000", "two", "--tls-ports", "9443", "--tls-cert", "/etc/certs/tls.crt"]'
    )
)


def test_server_names_choose_the_route() -> None:
    """TLS that is passed through is routed by the name it asks for."""
    text = virtual_service(
        """
  tls:
  - match: [{port: 443, sniHosts: [one.example.com]}]
    route: [{destination: {host: tcp-echo, port: {number: 9443}, subset: v1}}]
  - match: [{sniHosts: ["*.both.example.com"]}]
    route:
    - {destination: {host: tcp-echo, port: {number: 9443}, subset: v1}, weight: 1}
    - {destination: {host: tcp-echo, port: {number: 9443}, subset: v2}, weight: 1}
""",
        hosts='["*.example.com"]',
        gateways="[secure]",
    )
    found = plan(TLS_BACKENDS, TLS_GATEWAY, RULE, text)
    assert shares(found) == [
        (443, ("one.example.com",), {"one": 100}),
        (443, ("*.both.example.com",), {"one": 1, "two": 1}),
    ]
    assert notices(found, ["default/v1 shows a throw-away certificate", "/etc/certs/tls.crt"])


def test_policy_is_carried_out() -> None:
    """The connection pool and outlier detection become the destination's policy."""
    text = (
        RULE
        + """
  trafficPolicy:
    loadBalancer: {simple: ROUND_ROBIN}
    tls: {mode: ISTIO_MUTUAL}
    connectionPool:
      http: {maxRetries: 3}
      tcp:
        maxConnections: 100
        connectTimeout: 30ms
        idleTimeout: 1h30m
        maxConnectionDuration: 2h
        tcpKeepalive: {probes: 3, time: 7200s, interval: 75s}
    outlierDetection:
      consecutive5xxErrors: 7
      consecutiveGatewayErrors: 0
      consecutiveLocalOriginFailures: 4
      splitExternalLocalOriginErrors: true
      interval: 5m
      baseEjectionTime: 15m
      maxEjectionPercent: 50
      minHealthPercent: 20
"""
    )
    found = plan(BACKENDS, GATEWAY, text, V2_20)
    for destination in found.route.destinations().values():
        assert destination.policy == Policy(
            balancing="ROUND_ROBIN",
            max_connections=100,
            connect_timeout=0.03,
            idle_timeout=5400.0,
            max_duration=7200.0,
            keepalive=Keepalive(time=7200, interval=75, probes=3),
            outlier=Outlier(
                failures=7,
                gateway_failures=0,
                local_failures=4,
                split_local=True,
                interval=300.0,
                base_ejection=900.0,
                max_ejection_percent=50,
                min_health_percent=20,
            ),
        )
    assert notices(found, ["spec.trafficPolicy.connectionPool.http", "spec.trafficPolicy.tls.mode"])


def test_policies_are_merged_as_istio_does() -> None:
    """A subset's part wins over the host's; a port's settings replace all others."""
    text = (
        RULE.replace(
            "      version: v2",
            "      version: v2\n    trafficPolicy: {connectionPool: {tcp: {connectTimeout: 2s}}}",
        )
        + """
  trafficPolicy:
    connectionPool: {tcp: {connectTimeout: 1s, maxConnections: 5}}
    loadBalancer: {simple: RANDOM}
"""
    )
    first, second = plan(BACKENDS, GATEWAY, text, V2_20).route.destinations().values()
    assert first.policy == Policy(balancing="RANDOM", connect_timeout=1.0, max_connections=5)
    assert second.policy == Policy(balancing="RANDOM", connect_timeout=2.0)
    by_port = text + "    portLevelSettings: [{port: {number: 9000}, tls: {mode: DISABLE}}]\n"
    first, second = plan(BACKENDS, GATEWAY, by_port, V2_20).route.destinations().values()
    assert first.policy == Policy()
    assert second.policy == Policy(connect_timeout=2.0)


def edited(text: str, old: str, new: str) -> str:
    """A manifest with one edit, which must be one."""
    assert old in text
    return text.replace(old, new, 1)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        (
            "weight: 80",
            "weigth: 80",
            (
                r"1.yaml:\d+, document 6 \(VirtualService tcp-echo\):"
                r" spec.tcp\[0\].route\[0\].weigth: there is no such field; is it weight\?"
            ),
        ),
        (
            "weight: 80",
            "weight: -1",
            r"spec.tcp\[0\].route\[0\].weight: must be at least 0, got -1",
        ),
        ("weight: 80", "weight: '80'", r"weight: must be a whole number, got '80'"),
        ("weight: 80", "weight: 4294967295", r"weight: must be at most 2147483647"),
        ("subset: v2", "subset: v3", r"no subset v3 of host tcp-echo .* subsets found: v1, v2"),
        (
            "version: v2\n\n---",
            "version: v3\n\n---",
            r"spec.subsets\[1\].labels: subset v2 selects no Deployment; versions found: v1, v2",
        ),
        ("host: tcp-echo\n        port", "host: other\n        port", "there is no Service other"),
        ("number: 9000\n        subset: v1", "number: 70\n        subset: v1", "has no port 70"),
        ("[tcp-echo-gateway]", "[other]", "there is no Gateway other .* default/tcp-echo-gateway"),
        ("kind: DestinationRule", "kind: Unheard", "no subset v1 .* in any DestinationRule"),
        ("port: 31400", "sourceSubnet: 10.0.0.0/8", r"match\[0\].sourceSubnet: .* not carry out"),
        ("tcp:\n", "http: []\n  tcp:\n", "spec.http: the rehearsal does not carry out"),
        ("hosts:\n    -", "bind: 1.2.3.4\n    hosts:\n    -", r"spec.servers\[0\].bind"),
        ("protocol: TCP", "protocol: TLS", r"spec.servers\[0\].tls.mode: only PASSTHROUGH"),
        ("name: tcp-echo-v2", "name: tcp-echo-v1", "metadata.name: is also at 1.yaml:"),
        ("matchLabels: {app: tcp-echo, version: v1}", "matchLabels: {app: x}", "does not match"),
        ('"one" ]', '"one", "--bogus" ]', r"containers\[0\].args: No such option: --bogus"),
        ('"9000,9001,9002", "one"', '"nine", "one"', r"containers\[0\].args: ports: must be"),
        ('"9000,9001,9002", "one"', '"0", "one"', "needs ports that are given"),
        ('"9000,9001,9002", "one"', '"7000", "one"', "which listens on 7000"),
        ("selector: {app: tcp-echo}", "selector: {app: nobody}", "selects no pod"),
        ("selector: {app: tcp-echo}", "type: ExternalName", "selects no pod"),
    ],
)
def test_mistake_is_named_with_file_document_and_field(old: str, new: str, message: str) -> None:
    """Each mistake is an error in words, at its place."""
    with pytest.raises(ManifestError) as caught:
        plan(edited(ISTIO, old, new))
    assert re.search(message, str(caught.value)), caught.value
    assert "\n" not in str(caught.value)
    assert str(caught.value).startswith("1.yaml:")


@pytest.mark.parametrize(
    ("policy", "message"),
    [
        ("{connectionPool: {tcp: {connectTimeout: soon}}}", "connectTimeout: must be a duration"),
        ("{connectionPool: {tcp: {connectTimeout: 0s}}}", "connectTimeout: must be a duration"),
        ("{connectionPool: {tcp: {connectTimeout: 9999999h}}}", "must be a duration"),
        ("{loadBalancer: {consistentHash: {useSourceIp: true}}}", "loadBalancer.consistentHash"),
        ("{tls: {mode: SIMPLE}}", r"trafficPolicy.tls.mode: cannot be 'SIMPLE'"),
        ("{proxyProtocol: {version: V1}}", "trafficPolicy.proxyProtocol"),
        (
            "{portLevelSettings: [{port: {number: 1}, outlierDetection: {interval: 1d}}]}",
            r"portLevelSettings\[0\].outlierDetection.interval: must be a duration",
        ),
    ],
)
def test_policy_that_cannot_be_is_named(policy: str, message: str) -> None:
    """Also where no route asks for it."""
    with pytest.raises(ManifestError, match=message):
        plan(BACKENDS, GATEWAY, RULE + f"  trafficPolicy: {policy}\n", V2_20)


def test_two_virtual_services_on_one_port_are_an_error() -> None:
    """Which of them wins in a cluster depends on their age."""
    other = V2_20.replace("name: tcp-echo\n", "name: other\n", 1)
    with pytest.raises(ManifestError, match="is already routed by VirtualService tcp-echo"):
        plan(ISTIO, other)


def test_mesh_needs_the_name_of_a_service() -> None:
    """A wildcard is for gateways."""
    with pytest.raises(ManifestError, match=r"spec.hosts\[0\]: there is no Service \*"):
        plan(BACKENDS, RULE, V2_20.replace("[tcp-echo-gateway]", "[mesh]"))


def test_server_name_outside_the_hosts_is_an_error() -> None:
    """Istio refuses it too."""
    text = virtual_service(
        "  tls:\n  - match: [{sniHosts: [a.test]}]\n    route: [{" + DESTINATION + "}}]",
        hosts="[b.test]",
        gateways="[secure]",
    )
    with pytest.raises(ManifestError, match=r"sniHosts: a.test is none of spec.hosts"):
        plan(BACKENDS, TLS_GATEWAY, RULE, text)


def test_rule_for_no_service_is_noticed() -> None:
    """A DestinationRule may be for another part of the mesh."""
    other = RULE.replace("host: tcp-echo", "host: '*.elsewhere.svc.cluster.local'")
    found = plan(ISTIO, other.replace("tcp-echo-destination", "other"))
    assert notices(found, ["DestinationRule other", "of which there is no Service"])


def test_wildcard_rule_comes_after_one_by_name() -> None:
    """The more specific rule counts."""
    wild = RULE.replace("host: tcp-echo", "host: '*'").replace("tcp-echo-destination", "wild")
    wild += "  trafficPolicy: {loadBalancer: {simple: RANDOM}}\n"
    route = plan(BACKENDS, wild, GATEWAY, RULE, V2_20).route
    assert {each.policy for each in route.destinations().values()} == {Policy()}
    route = plan(BACKENDS, wild, GATEWAY, V2_20).route
    assert {each.policy for each in route.destinations().values()} == {Policy(balancing="RANDOM")}


def test_unrouted_gateway_port_is_noticed() -> None:
    """A Gateway without a VirtualService listens to nothing."""
    found = plan(ISTIO, GATEWAY.replace("tcp-echo-gateway", "idle"))
    assert notices(found, ["Gateway idle", "port 31400, to which no VirtualService binds"])
    strict = V2_20.replace('["*"]', "[tcp-echo.example]")
    closed = GATEWAY.replace('- "*"', "- team/other.example")
    with pytest.raises(ManifestError, match="no route found"):
        plan(BACKENDS, closed, RULE, strict)


def test_replicas_and_mixed_destinations() -> None:
    """Every replica is an endpoint; a Service over both versions splits by their number."""
    text = virtual_service(tcp("  - route: [{" + DESTINATION + "}}]"))
    backends = BACKENDS.replace("replicas: 1", "replicas: 3", 1)
    found = plan(backends, GATEWAY, text)
    assert shares(found) == [(31400, (), {"one": 75, "two": 25})]


def test_weights_must_add_up_to_something() -> None:
    """Istio refuses it too."""
    text = V2_20.replace("weight: 80", "weight: 0").replace("weight: 20", "weight: 0")
    with pytest.raises(ManifestError, match=r"spec.tcp\[0\].route: the weights add up to 0"):
        plan(BACKENDS, GATEWAY, RULE, text)


def test_host_of_another_domain_is_no_service() -> None:
    """Only the cluster's own names are Services."""
    text = V2_20.replace("host: tcp-echo", "host: tcp-echo.default.example.com")
    with pytest.raises(ManifestError, match=r"there is no Service tcp-echo.default.example.com;"):
        plan(BACKENDS, GATEWAY, RULE, text)


def test_what_is_not_carried_out_of_a_virtual_service_is_noticed() -> None:
    """Its visibility; and two of them may speak of one Service of the mesh, apart."""
    text = V2_20.replace('["*"]', "[tcp-echo]").replace("[tcp-echo-gateway]", "[mesh]")
    text = text.replace("port: 31400", "port: 9000").replace("spec:", "spec:\n  exportTo: ['.']")
    other = text.replace("name: tcp-echo\n", "name: second\n", 1).replace(
        "port: 9000", "port: 9001"
    )
    found = plan(BACKENDS, RULE, text, other)
    assert [port for port, _, _ in shares(found)] == [9000, 9001]
    assert notices(found, ["VirtualService tcp-echo", "spec.exportTo"])


def test_rule_names_its_host_in_any_form() -> None:
    """Short, with its namespace, or fully qualified."""
    for host in ("tcp-echo.default", "tcp-echo.default.svc", "tcp-echo.default.svc.cluster.local"):
        rule = RULE.replace("host: tcp-echo", f"host: {host}")
        assert shares(plan(BACKENDS, GATEWAY, rule, V2_20)) == shares(plan(ISTIO))
