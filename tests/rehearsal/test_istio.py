"""Istio's dialect: what is carried out, what is noticed, and what is an error in words."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

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
from trio_echo.rehearsal.route import Keepalive, Outlier, Policy, Termination

if TYPE_CHECKING:
    from trio_echo.rehearsal.route import Plan

DESTINATION = "destination: {host: tcp-echo, port: {number: 9000}"


def tcp(*rules: str) -> str:
    """The rules of a VirtualService."""
    return "  tcp:\n" + "\n".join(rules)


def test_traffic_shifting_as_published() -> None:
    """Istio's samples work as they are: all to v1, then 20 % to v2."""
    assert shares(plan(BACKENDS, GATEWAY, RULE, V2_20)) == [(31400, (), {"one": 80, "two": 20})]
    assert shares(plan(BACKENDS, GATEWAY, RULE, ALL_V1)) == [(31400, (), {"one": 100})]
    found = plan(ISTIO)
    assert not notices(found, ["Gateway tcp-echo-gateway"])
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


def test_weights_that_do_not_add_up_to_100_are_noted() -> None:
    """Istio reads them as parts of their sum."""
    found = plan(BACKENDS, GATEWAY, RULE, V2_20.replace("weight: 20", "weight: 10"))
    (note,) = (each for each in found.notices if "add up" in each.text)
    assert note.text.endswith("spec.tcp[0]: weights add up to 90: read as 88.9 % and 11.1 %")
    assert (note.file, note.line) == ("4.yaml", 14)
    assert not notices(plan(ISTIO), ["add up"])


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
      http: {maxRetries: 3, http1MaxPendingRequests: 9}
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
            max_pending=9,
            tls=True,
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
    assert notices(found, ["spec.trafficPolicy.connectionPool.http.maxRetries"])


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


def warned(found: Plan, words: str) -> bool:
    """Whether one warning has these words."""
    return any(words in warning.text for warning in found.warnings)


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
            r"spec.subsets\[1\].labels: subset v2 selects no workload; versions found: v1, v2",
        ),
        ("host: tcp-echo\n        port", "host: other\n        port", "there is no Service other"),
        ("number: 9000\n        subset: v1", "number: 70\n        subset: v1", "has no port 70"),
        ("[tcp-echo-gateway]", "[other]", "there is no Gateway other .* default/tcp-echo-gateway"),
        ("kind: DestinationRule", "kind: Unheard", "no subset v1 .* in any DestinationRule"),
        (
            "port: 31400",
            "port: 31402",
            r"no route is left: 1.yaml:\d+: .*: port 31402 is matched, but Gateway .* on 31400",
        ),
        (
            "protocol: TCP",
            "protocol: HTTP",
            r"no route is left: 1.yaml:\d+: Gateway .* port 31400 is HTTP, which carries no tcp",
        ),
        (
            '- "*"',
            "- tcp-echo",
            r"refuses short names here; write tcp-echo.default.svc.cluster.local",
        ),
        (
            '- "*"',
            '- "a*.test"',
            r"hosts\[0\]: \* can only be the first part of a host, got a\*.test",
        ),
        ('hosts: ["*"]', 'hosts: ["a*.test"]', r"spec.hosts\[0\]: \* can only be the first part"),
        ("hosts:\n    -", "bind: 1.2.3.4\n    hosts:\n    -", r"spec.servers\[0\].bind"),
        ("protocol: TCP", "protocol: TLS", r"spec.servers\[0\].tls: is missing: Istio refuses TLS"),
        (
            "hosts:\n    -",
            "tls: {mode: SIMPLE}\n    hosts:\n    -",
            "Istio refuses it for protocol TCP",
        ),
        ("name: tcp-echo-v2", "name: Tcp_Echo", "metadata.name: must be lower-case letters"),
        (
            "name: tcp-echo-v2",
            "namespace: 'a b'\n  name: x",
            "metadata.namespace: must be lower-case",
        ),
        ("matchLabels: {app: tcp-echo, version: v1}", "matchLabels: {app: x}", "does not match"),
        ('"one" ]', '"one", "--bogus" ]', r"containers\[0\].args: No such option: --bogus"),
        ('"9000,9001,9002", "one"', '"nine", "one"', r"containers\[0\].args: ports: must be"),
        ('"9000,9001,9002", "one"', '"0", "one"', "needs ports that are given"),
        ('"9000,9001,9002", "one"', '"7000", "one"', "which listens on 7000"),
        ("selector: {app: tcp-echo}", "selector: {app: nobody}", "selects no pod"),
    ],
)
def test_mistake_is_named_with_file_document_and_field(old: str, new: str, message: str) -> None:
    """Each mistake is an error in words, at its place."""
    with pytest.raises(ManifestError) as caught:
        plan(edited(ISTIO, old, new))
    assert re.search(message, str(caught.value)), caught.value
    assert "\n" not in str(caught.value)
    assert str(caught.value).startswith(("1.yaml:", "no route is left: 1.yaml:"))


@pytest.mark.parametrize(
    ("policy", "message"),
    [
        ("{connectionPool: {tcp: {connectTimeout: soon}}}", "connectTimeout: must be a duration"),
        ("{connectionPool: {tcp: {connectTimeout: 0s}}}", "connectTimeout: must be a duration"),
        ("{connectionPool: {tcp: {connectTimeout: 9999999h}}}", "must be a duration"),
        ("{loadBalancer: {simple: PASSTHROUGH}}", "loadBalancer.simple: cannot be 'PASSTHROUGH'"),
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


def test_first_virtual_service_of_a_port_wins() -> None:
    """Istio says nothing of it."""
    other = V2_20.replace("name: tcp-echo\n", "name: other\n", 1).replace("weight: 80", "weight: 1")
    found = plan(ISTIO, other)
    assert shares(found) == shares(plan(ISTIO))
    assert warned(found, "is routed by tcp-echo, and spec.tcp[0].match[0] of VirtualService other")


def test_mesh_needs_the_name_of_a_service() -> None:
    """A wildcard is for gateways."""
    with pytest.raises(ManifestError, match=r"spec.hosts\[0\]: Istio refuses \* in the mesh"):
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
    found = plan(ISTIO, GATEWAY.replace("tcp-echo-gateway", "idle").replace("31400", "31401"))
    assert notices(found, ["Gateway idle", "port 31401, to which no VirtualService binds"])
    strict = V2_20.replace('["*"]', "[tcp-echo.example]")
    closed = GATEWAY.replace('- "*"', "- team/other.example")
    with pytest.raises(ManifestError, match="no route found"):
        plan(BACKENDS, closed, RULE, strict)


@pytest.mark.parametrize(
    ("edits", "warning", "fails"),
    [
        (
            {"host: tcp-echo\n        port": "host: tcp-echo.default\n        port"},
            "tcp-echo.default is no Service to it; write tcp-echo.default.svc.cluster.local",
            1,
        ),
        (
            {"host: tcp-echo\n  subsets": "host: tcp-echo.default.svc\n  subsets"},
            "does not look at DestinationRule tcp-echo-destination: its host tcp-echo.default.svc",
            2,
        ),
        (
            {"  host: tcp-echo\n  subsets": "  exportTo: ['.']\n  host: tcp-echo\n  subsets"},
            "its exportTo hides it from namespace istio-system",
            2,
        ),
        (
            {"  host: tcp-echo\n  subsets": "  workloadSelector: {}\n  host: tcp-echo\n  subsets"},
            "its workloadSelector does not hold for a gateway",
            2,
        ),
        (
            {
                "name: tcp-echo-destination": "name: x\n  namespace: far",
                "host: tcp-echo\n  subsets": "host: tcp-echo.default.svc.cluster.local\n  subsets",
            },
            "it is in namespace far: Istio looks in the namespace of the client",
            2,
        ),
        (
            {
                "name: tcp-echo\n  labels: {": "name: tcp-echo\n  annotations:"
                " {networking.istio.io/exportTo: '.'}\n  labels: {"
            },
            "exportTo of tcp-echo hides it from namespace istio-system",
            2,
        ),
    ],
)
def test_what_istio_does_not_find_fails_loudly(
    edits: dict[str, str], warning: str, fails: int
) -> None:
    """The destinations lead nowhere; what was meant is expected all the same."""
    text = ISTIO
    for old, new in edits.items():
        text = edited(text, old, new)
    found = plan(text)
    assert warned(found, warning)
    ((chain,),) = (listener.chains for listener in found.route.listeners)
    assert [bool(each.endpoints) for each in chain.destinations].count(False) == fails
    assert shares(found) == [(31400, (), {"one": 80, "two": 20})]


@pytest.mark.parametrize(
    ("old", "new", "warning"),
    [
        (
            "spec:\n  hosts",
            "spec:\n  exportTo: [other]\n  hosts",
            "gateway does not see VirtualService",
        ),
        ('- "*"', "- other/*", "admits VirtualServices of namespace other only"),
    ],
)
def test_virtual_service_that_the_gateway_does_not_see(old: str, new: str, warning: str) -> None:
    """It is not carried out, and the error says why."""
    with pytest.raises(ManifestError, match=re.escape(warning)):
        plan(edited(ISTIO, old, new))


@pytest.mark.parametrize("seen", ["['*']", "[istio-ingress]", "[my-gateways, other]"])
def test_virtual_service_that_is_exported_to_the_gateway(seen: str) -> None:
    """To everybody, or to a namespace that is called like one of gateways."""
    found = plan(edited(ISTIO, "spec:\n  hosts", f"spec:\n  exportTo: {seen}\n  hosts"))
    assert shares(found) == shares(plan(ISTIO))
    assert not found.warnings


@pytest.mark.parametrize("host", ["./*", "default/*", "*/*"])
def test_gateway_admits_its_own_namespace(host: str) -> None:
    """By its name or a dot."""
    assert shares(plan(edited(ISTIO, '"*"\n', f'"{host}"\n'))) == shares(plan(ISTIO))


MESH = (
    V2_20.replace('["*"]', "[tcp-echo]")
    .replace("[tcp-echo-gateway]", "[mesh]")
    .replace("port: 31400", "port: 9000")
)


@pytest.mark.parametrize(
    ("old", "new", "warning", "even"),
    [
        ("name: tcp\n", "name: http-echo\n", "its protocol is http-echo", False),
        (
            "port: 9000\n",
            "port: 9000\n    appProtocol: kubernetes.io/h2c\n",
            "its protocol is",
            False,
        ),
        ("name: tcp\n", "name: tls-echo\n", "its protocol is tls-echo", True),
        ("  selector: {app", "  clusterIP: None\n  selector: {app", "it is headless", True),
    ],
)
def test_mesh_ports_that_take_no_tcp_rule(old: str, new: str, warning: str, even: bool) -> None:
    """By their protocol, or as each pod has its own address."""
    found = plan(edited(BACKENDS, old, new), RULE, MESH)
    assert warned(found, warning)
    ((chain,),) = (listener.chains for listener in found.route.listeners)
    assert [len(each.endpoints) for each in chain.destinations] == [2 if even else 0]
    assert shares(found) == [(9000, (), {"one": 80, "two": 20})]


def test_weights_of_what_is_meant_change_too() -> None:
    """In a walk, where the destinations lead nowhere."""
    broken = edited(ISTIO, "host: tcp-echo\n        port", "host: tcp-echo.default\n        port")
    route = plan(broken).route
    assert route.shares(route.listeners[0].chains[0].weighted((1, 3))) == {"one": 1, "two": 3}


def test_mesh_host_that_is_not_completed_splits_evenly() -> None:
    """Istio drops the rule in silence; a wildcard and the whole name are right."""
    found = plan(BACKENDS, RULE, MESH.replace("[tcp-echo]", "[tcp-echo.default]"))
    assert warned(found, "its rules do not count in the mesh; write tcp-echo.default.svc")
    ((chain,),) = (listener.chains for listener in found.route.listeners)
    assert [len(each.endpoints) for each in chain.destinations] == [2]
    wild = plan(BACKENDS, RULE, MESH.replace("[tcp-echo]", '["*.default.svc.cluster.local"]'))
    assert shares(wild) == [(9000, (), {"one": 80, "two": 20})]
    assert not wild.warnings


def test_second_rule_of_an_unrouted_mesh_port_changes_nothing() -> None:
    """The port does what it does without any."""
    more = MESH + "  - route: [{" + DESTINATION + "}}]\n"
    found = plan(edited(BACKENDS, "name: tcp\n", "name: http\n"), RULE, more)
    assert shares(found) == [(9000, (), {"one": 80, "two": 20}), (9001, (), {"one": 50, "two": 50})]


@pytest.mark.parametrize("field", ["sourceLabels: {a: b}", "sourceNamespace: x"])
def test_matches_by_client(field: str) -> None:
    """A gateway ignores them; in the mesh they decide, and are not carried out."""
    found = plan(edited(ISTIO, "port: 31400", f"{field}"))
    assert shares(found) == shares(plan(ISTIO))
    assert notices(found, ["which a gateway ignores"])
    with pytest.raises(ManifestError, match="depends on the client"):
        plan(BACKENDS, RULE, edited(MESH, "- port: 9000", f"- {field}"))


def test_one_port_has_one_owner() -> None:
    """Another Gateway's server gets nothing, unless its selector means other pods."""
    second = GATEWAY.replace("tcp-echo-gateway", "second")
    route = V2_20.replace("tcp-echo-gateway", "second").replace("name: tcp-echo\n", "name: b\n", 1)
    found = plan(ISTIO, second, route)
    assert shares(found) == shares(plan(ISTIO))
    assert warned(found, "Istio gives port 31400 to the first server that wants it")
    apart = plan(ISTIO, second.replace("istio: ingressgateway", "istio: other"), route)
    assert len(shares(apart)) == 2
    assert notices(apart, ["the cluster needs gateway pods with the labels istio=other"])
    web = second.replace("protocol: TCP", "protocol: HTTP")
    assert not plan(ISTIO, web).warnings


def test_servers_for_tls_share_a_port() -> None:
    """Each with its own names."""
    rule = """
  tls:
  - match: [{sniHosts: [NAME]}]
    route: [{destination: {host: tcp-echo, port: {number: 9443}, subset: v1}}]
"""
    second = TLS_GATEWAY.replace("name: secure", "name: more").replace("*.example.com", "*.test")
    routes = [
        virtual_service(
            rule.replace("NAME", name), hosts=f"[{name}]", gateways=f"[{gateway}]", name=gateway
        )
        for name, gateway in (("a.example.com", "secure"), ("b.test", "more"))
    ]
    found = plan(TLS_BACKENDS, TLS_GATEWAY, second, RULE, *routes)
    assert shares(found) == [
        (443, ("a.example.com",), {"one": 100}),
        (443, ("b.test",), {"one": 100}),
    ]


@pytest.mark.parametrize(("mode", "asks"), [("SIMPLE", False), ("MUTUAL", True)])
def test_tls_can_end_at_the_gateway(mode: str, asks: bool) -> None:
    """The rules for TCP count behind it, for the server's names."""
    gateway = TLS_GATEWAY.replace("PASSTHROUGH}", f"{mode}, credentialName: x}}")
    text = V2_20.replace("port: 31400", "port: 443").replace("[tcp-echo-gateway]", "[secure]")
    found = plan(BACKENDS, gateway, RULE, text)
    assert shares(found) == [(443, ("*.example.com",), {"one": 80, "two": 20})]
    ((chain,),) = (listener.chains for listener in found.route.listeners)
    assert chain.tls == Termination(asks_client=asks)
    assert not chain.passthrough
    assert notices(found, ["Gateway secure", "spec.servers[0].tls.credentialName"])


def test_tls_for_any_name() -> None:
    """All names, passed through."""
    text = virtual_service(
        "  tls:\n  - match: [{sniHosts: ['*']}]\n    route: [{destination: {host: tcp-echo,"
        " port: {number: 9443}, subset: v1}}]",
        gateways="[secure]",
    )
    found = plan(TLS_BACKENDS, TLS_GATEWAY.replace('"*.example.com"', '"*"'), RULE, text)
    assert shares(found) == [(443, (), {"one": 100})]
    assert found.route.listeners[0].chains[0].passthrough


def test_other_servers_are_notes() -> None:
    """HTTP and HTTPS beside TCP, and what is for other clusters."""
    more = (
        "  servers:\n"
        '  - {port: {number: 80, name: http, protocol: HTTP}, hosts: ["*"]}\n'
        '  - {port: {number: 443, name: https, protocol: HTTPS}, hosts: ["*"],'
        " tls: {mode: SIMPLE, credentialName: c}}\n"
        "  - {port: {number: 15443, name: x, protocol: TLS}, hosts: ['*'],"
        " tls: {mode: AUTO_PASSTHROUGH}}\n"
    )
    found = plan(BACKENDS, edited(GATEWAY, "  servers:\n", more), RULE, V2_20)
    assert shares(found) == shares(plan(ISTIO))
    assert notices(found, ["port 443 of HTTPS"])
    assert notices(found, ["port 15443 of TLS with AUTO_PASSTHROUGH, for other clusters"])


@pytest.mark.parametrize("protocol", ["MONGO", "mysql", "REDIS", "UDP"])
def test_protocols_that_carry_tcp(protocol: str) -> None:
    """All that Istio does not look into."""
    assert shares(plan(edited(ISTIO, "protocol: TCP", f"protocol: {protocol}"))) == shares(
        plan(ISTIO)
    )


def test_subsets_of_several_rules_are_merged() -> None:
    """And the policy is that of the first that has one."""
    first = RULE.replace("  - name: v2\n    labels:\n      version: v2\n", "")
    second = (
        RULE.replace("tcp-echo-destination", "more").replace(
            "  - name: v1\n    labels:\n      version: v1\n", ""
        )
        + "  trafficPolicy: {loadBalancer: {simple: RANDOM}}\n"
    )
    found = plan(BACKENDS, GATEWAY, first, second, V2_20)
    assert shares(found) == shares(plan(ISTIO))
    assert {each.policy.balancing for each in found.route.destinations().values()} == {"RANDOM"}


def test_rule_of_the_gateways_namespace_comes_first() -> None:
    """Then that of the Service."""
    own = (
        RULE.replace("name: tcp-echo-destination", "name: own\n  namespace: istio-system").replace(
            "host: tcp-echo", "host: tcp-echo.default.svc.cluster.local"
        )
        + "  trafficPolicy: {loadBalancer: {simple: RANDOM}}\n"
    )
    found = plan(ISTIO, own)
    assert {each.policy.balancing for each in found.route.destinations().values()} == {"RANDOM"}


def test_lasting_is_the_hosts_own_affair() -> None:
    """Idle timeout and longest duration of a subset, or of a port, count for nothing."""
    timeouts = "{connectionPool: {tcp: {idleTimeout: 5s, maxConnectionDuration: 6s}}}"
    subset = RULE.replace("      version: v1", f"      version: v1\n    trafficPolicy: {timeouts}")
    found = plan(BACKENDS, GATEWAY, subset, V2_20)
    assert {each.policy for each in found.route.destinations().values()} == {Policy()}
    top = plan(BACKENDS, GATEWAY, RULE + f"  trafficPolicy: {timeouts}\n", V2_20)
    expected = Policy(idle_timeout=5.0, max_duration=6.0)
    assert {each.policy for each in top.route.destinations().values()} == {expected}


NAMESPACE = """
apiVersion: v1
kind: Namespace
metadata: {name: default, labels: {istio-injection: enabled}}
"""
MUTUAL = RULE + "  trafficPolicy: {tls: {mode: ISTIO_MUTUAL}}\n"


@pytest.mark.parametrize(
    ("texts", "begun"),
    [
        ((BACKENDS, MUTUAL), True),
        ((BACKENDS, MUTUAL.replace("ISTIO_MUTUAL", "SIMPLE")), True),
        ((BACKENDS, MUTUAL.replace("ISTIO_MUTUAL", "DISABLE")), False),
        (
            (
                BACKENDS.replace(
                    "version: v1}\n    spec",
                    "version: v1, sidecar.istio.io/inject: 'true'}\n    spec",
                ).replace(
                    "version: v2}\n    spec",
                    "version: v2, sidecar.istio.io/inject: 'true'}\n    spec",
                ),
                MUTUAL,
            ),
            False,
        ),
        (
            (
                BACKENDS,
                MUTUAL,
                NAMESPACE,
            ),
            False,
        ),
        ((BACKENDS.replace("tcp-echo-server", "redis"), MUTUAL), False),
    ],
)
def test_tls_towards_backends(texts: tuple[str, ...], begun: bool) -> None:
    """Istio's own ends in a proxy beside the pod, where there is one."""
    found = plan(*texts, GATEWAY, V2_20)
    assert {each.policy.tls for each in found.route.destinations().values()} == {begun}


@pytest.mark.parametrize("spec", ["{}", "{rules: [{to: [{operation: {ports: ['9000']}}]}]}", "5"])
def test_authorization_by_port_is_an_error(spec: str) -> None:
    """It decides which connections are refused."""
    kind = "apiVersion: security.istio.io/v1\nkind: AuthorizationPolicy\nmetadata: {name: p}"
    text = f"{kind}\nspec: {spec}"
    with pytest.raises(ManifestError, match="decides which connections are refused"):
        plan(ISTIO, text)


def test_what_may_decide_is_a_warning() -> None:
    """A policy for HTTP, and an EnvoyFilter."""
    text = (
        "apiVersion: security.istio.io/v1\nkind: AuthorizationPolicy\nmetadata: {name: p}\n"
        "spec: {rules: [{to: [{operation: {methods: [GET]}}]}]}\n---\n"
        "apiVersion: networking.istio.io/v1alpha3\nkind: EnvoyFilter\nmetadata: {name: f}\nspec: {}"
    )
    found = plan(ISTIO, text)
    assert warned(found, "AuthorizationPolicy p is ignored here: in the cluster it may refuse")
    assert warned(found, "EnvoyFilter f is ignored here")


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
    assert not found.warnings


def test_rule_names_its_host_in_any_form() -> None:
    """Short, with its namespace, or fully qualified."""
    for host in ("tcp-echo.default", "tcp-echo.default.svc", "tcp-echo.default.svc.cluster.local"):
        rule = RULE.replace("host: tcp-echo", f"host: {host}")
        assert shares(plan(BACKENDS, GATEWAY, rule, V2_20)) == shares(plan(ISTIO))


def test_servers_stand_in_for_gateways_that_no_document_has() -> None:
    """A VirtualService by itself: on the ports that it matches, else that it leads to."""
    found = plan(RULE, V2_20)
    assert shares(found) == [(31400, (), {"v1": 80, "v2": 20})]
    said = ["default/tcp-echo-gateway is in none of the documents", "TCP on port 31400"]
    assert notices(found, said)
    two = plan(RULE, V2_20, ALL_V1.replace("name: tcp-echo\n", "name: second\n"))
    assert shares(two) == shares(found)
    assert warned(two, "match[0] of VirtualService second is ignored")
    for destination, port in (("{host: tcp-echo}", 31400), (f"{DESTINATION[13:]}}}", 9000)):
        unmatched = virtual_service(tcp(f"  - route: [{{destination: {destination}}}]"))
        one_port = SERVICE.replace("- name: tcp-other\n    port: 9001", "")
        (listener,) = plan(one_port, unmatched).route.listeners
        assert listener.port == port
    secure = virtual_service(
        "  tls:\n  - match: [{sniHosts: [a.example.com]}]\n"
        "    route: [{destination: {host: web, port: {number: 8443}}}]",
        hosts="[a.example.com]",
        gateways="[web, other/web]",
    )
    assert [(port, sni) for port, sni, _ in shares(plan(secure))] == [(443, ("a.example.com",))] * 2
    with pytest.raises(ManifestError, match="there is no Gateway tcp-echo-gateway with a TCP"):
        plan(ISTIO.replace("name: tcp-echo-gateway", "name: another"))


@pytest.mark.parametrize(
    ("match", "port"), [("", 9000), ("    match: [{port: 6379}]\n", 6379)], ids=["any", "matched"]
)
def test_ports_of_a_service_that_no_document_has(match: str, port: int) -> None:
    """In the mesh: those that the rules match or lead to."""
    rule = f"  tcp:\n  - route: [{{destination: {{host: tcp-echo, subset: v2}}}}]\n{match}"
    alone = virtual_service(rule, hosts="[tcp-echo]", gateways="[mesh]")
    assert shares(plan(RULE, alone)) == [(port, (), {"v2": 100})]


def test_virtual_service_for_http_is_a_note() -> None:
    """Whatever Gateway it names; one with a field that does not exist is read all the same."""
    assert notices(
        plan(f"{ISTIO}  http: [{{route: []}}]\n"), ["VirtualService tcp-echo", "spec.http"]
    )
    web = virtual_service("  http: []", gateways="[web]", name="web")
    assert notices(plan(ISTIO, web), ["VirtualService web", "spec.http"])
    with pytest.raises(ManifestError, match=r"spec\.tpc: there is no such field; is it tcp\?"):
        plan(ISTIO, web + "  tpc: []\n")


def test_services_of_istio_itself_stand_in() -> None:
    """Its gateways come with it, and no manifest of a team has them."""
    host = "istio-egressgateway.istio-system.svc.cluster.local"
    out = f"""
apiVersion: networking.istio.io/v1
kind: ServiceEntry
metadata: {{name: out}}
spec:
  hosts: [out.example.com]
  ports: [{{number: 443, name: tls, protocol: TLS}}]
  resolution: DNS
---
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {{name: egress}}
spec: {{host: {host}, subsets: [{{name: out}}]}}
"""
    gateway = (
        GATEWAY.replace("ingress", "egress")
        .replace("31400", "443")
        .replace("protocol: TCP", "protocol: TLS")
        + "    tls: {mode: PASSTHROUGH}\n"
    )
    match = "match: [{gateways: [%s], port: 443, sniHosts: [out.example.com]}]"
    through = virtual_service(
        f"  tls:\n  - {match % 'mesh'}\n"
        f"    route: [{{destination: {{host: {host}, subset: out, port: {{number: 443}}}}}}]\n"
        f"  - {match % 'tcp-echo-gateway'}\n"
        "    route: [{destination: {host: out.example.com, port: {number: 443}}}]",
        hosts="[out.example.com]",
        gateways="[mesh, tcp-echo-gateway]",
    )
    found = plan(out, gateway, through)
    name = ("out.example.com",)
    assert shares(found) == [(443, name, {"out.example.com": 100}), (443, name, {"out": 100})]
    assert notices(found, ["istio-egressgateway is not among the manifests"])
    assert not notices(found, ["of which there is no Service"])
    assert not found.warnings
    with pytest.raises(ManifestError, match=r"there is no Service nothing\.default"):
        plan(out, gateway, through.replace("istio-egressgateway.istio-system", "nothing.default"))


def test_subnets_that_are_all_addresses_of_a_host_do_not_choose() -> None:
    """As in Istio's page on databases outside the mesh; a part of them would choose."""
    entry = """
apiVersion: networking.istio.io/v1
kind: ServiceEntry
metadata: {name: db}
spec:
  hosts: [db.tcp.svc]
  addresses: [192.0.2.7/32, 192.0.2.8/32]
  ports: [{number: 27017, name: tcp, protocol: TCP}]
  resolution: STATIC
  endpoints: [{address: 192.0.2.7}]
"""
    rule = virtual_service(
        tcp(
            "  - match: [{destinationSubnets: [192.0.2.7/32, 192.0.2.8/32], port: 27017}]",
            "    route: [{destination: {host: db.tcp.svc}}]",
        ),
        hosts="[db.tcp.svc]",
        gateways="[mesh]",
    )
    assert shares(plan(entry, rule)) == [(27017, (), {"192.0.2.7": 100})]
    with pytest.raises(ManifestError, match="destinationSubnets: depends on the client or its"):
        plan(entry, rule.replace(", 192.0.2.8/32", ""))


def test_virtual_service_without_rules_is_refused() -> None:
    """As Istio's webhook does."""
    with pytest.raises(ManifestError, match=r"spec: must have tcp, tls or http rules"):
        plan(ISTIO, virtual_service("", name="empty"))
