"""Manifests for tests, of the same kinds and fields as the published samples."""

from __future__ import annotations

from typing import TYPE_CHECKING

from trio_echo.cli.rehearse import parse_container
from trio_echo.rehearsal.dataplane import PLANES
from trio_echo.rehearsal.documents import parse as parse_documents
from trio_echo.rehearsal.plan import make_plan

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from trio_echo.rehearsal.route import Plan
    from trio_echo.server.config import ServerConfig


_CONFIGS: dict[tuple[tuple[str, ...], frozenset[tuple[str, str]]], ServerConfig] = {}


def parse_once(arguments: Sequence[str], environment: Mapping[str, str]) -> ServerConfig:
    """The parser of ``serve``, asked once for each command line: it is slow to set up."""
    key = (tuple(arguments), frozenset(environment.items()))
    if key not in _CONFIGS:
        _CONFIGS[key] = parse_container(arguments, environment)
    return _CONFIGS[key]


def plan(*texts: str, plane: str | None = None) -> Plan:
    """The plan of manifests, each as if it were a file of its own."""
    documents = [
        document
        for number, text in enumerate(texts, start=1)
        for document in parse_documents(text, f"{number}.yaml")
    ]
    return make_plan(documents, parse_once, PLANES[plane] if plane else None)


def deployment(name: str, version: str, args: str, *, more: str = "", pod: str = "") -> str:
    """A Deployment of the demonstration."""
    return f"""
apiVersion: apps/v1
kind: Deployment
metadata:
  name: {name}
spec:
  replicas: 1
  selector:
    matchLabels: {{app: tcp-echo, version: {version}}}
  template:
    metadata:
      labels: {{app: tcp-echo, version: {version}}}
    spec:
      containers:
      - name: tcp-echo
        image: docker.io/istio/tcp-echo-server:1.2
        imagePullPolicy: IfNotPresent
        args: {args}
        ports:
        - containerPort: 9000
{more}
{pod}
"""


def documents(*texts: str) -> str:
    """Several documents in one file."""
    return "\n---\n".join(texts)


SERVICE = """
apiVersion: v1
kind: Service
metadata:
  name: tcp-echo
  labels: {app: tcp-echo, service: tcp-echo}
spec:
  ports:
  - name: tcp
    port: 9000
  - name: tcp-other
    port: 9001
  selector: {app: tcp-echo}
"""

BACKENDS = documents(
    SERVICE,
    deployment("tcp-echo-v1", "v1", '[ "9000,9001,9002", "one" ]'),
    deployment("tcp-echo-v2", "v2", '[ "9000,9001,9002", "two" ]'),
)
"""The echo servers of Istio's sample, in its shape."""

GATEWAY = """
apiVersion: networking.istio.io/v1
kind: Gateway
metadata:
  name: tcp-echo-gateway
spec:
  selector:
    istio: ingressgateway
  servers:
  - port:
      number: 31400
      name: tcp
      protocol: TCP
    hosts:
    - "*"
"""

RULE = """
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata:
  name: tcp-echo-destination
spec:
  host: tcp-echo
  subsets:
  - name: v1
    labels:
      version: v1
  - name: v2
    labels:
      version: v2
"""


def virtual_service(
    tcp: str, *, hosts: str = '["*"]', gateways: str = "[tcp-echo-gateway]", name: str = "tcp-echo"
) -> str:
    """A VirtualService with these rules."""
    return f"""
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata:
  name: {name}
spec:
  hosts: {hosts}
  gateways: {gateways}
{tcp}
"""


ALL_V1 = virtual_service("""
  tcp:
  - match:
    - port: 31400
    route:
    - destination:
        host: tcp-echo
        port:
          number: 9000
        subset: v1
""")

V2_20 = virtual_service("""
  tcp:
  - match:
    - port: 31400
    route:
    - destination:
        host: tcp-echo
        port:
          number: 9000
        subset: v1
      weight: 80
    - destination:
        host: tcp-echo
        port:
          number: 9000
        subset: v2
      weight: 20
""")

ISTIO = documents(BACKENDS, GATEWAY, RULE, V2_20)
"""Istio's TCP traffic shifting, in one file."""


def service(name: str, selector: str, ports: str = "[{port: 8080, targetPort: 9000}]") -> str:
    """A Service in front of some of the pods."""
    return f"""
apiVersion: v1
kind: Service
metadata: {{name: {name}}}
spec: {{ports: {ports}, selector: {selector}}}
"""


TCP_GATEWAY = """
apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata:
  name: my-tcp-gateway
spec:
  gatewayClassName: my-tcp-gateway-class
  listeners:
  - name: foo
    protocol: TCP
    port: 8080
    allowedRoutes:
      kinds:
      - kind: TCPRoute
  - name: bar
    protocol: TCP
    port: 8090
    allowedRoutes:
      kinds:
      - kind: TCPRoute
"""

TCP_ROUTES = """
apiVersion: gateway.networking.k8s.io/v1alpha2
kind: TCPRoute
metadata:
  name: tcp-app-1
spec:
  parentRefs:
  - name: my-tcp-gateway
    sectionName: foo
  rules:
  - backendRefs:
    - name: my-foo-service
      port: 6000
---
apiVersion: gateway.networking.k8s.io/v1
kind: TCPRoute
metadata:
  name: tcp-app-2
spec:
  parentRefs:
  - name: my-tcp-gateway
    sectionName: bar
  rules:
  - backendRefs:
    - name: my-foo-service
      port: 6000
      weight: 80
    - name: my-bar-service
      port: 6000
      weight: 20
"""

GATEWAY_API = documents(
    deployment("echo-1", "v1", '["9000", "one"]'),
    deployment("echo-2", "v2", '["9000", "two"]'),
    service("my-foo-service", "{version: v1}", "[{port: 6000, targetPort: 9000}]"),
    service("my-bar-service", "{version: v2}", "[{port: 6000, targetPort: 9000}]"),
    TCP_GATEWAY,
    TCP_ROUTES,
)
"""Gateway API's guide to TCP routing, with backends."""


TLS = documents(
    SERVICE.replace("port: 9001", "port: 9443"),
    deployment("v1", "v1", '["9000", "one", "--tls-ports", "9443", "--tls-cert", "/c/tls.crt"]'),
    deployment("v2", "v2", '["9000", "two", "--tls-ports", "9443", "--tls-cert", "/c/tls.crt"]'),
    """
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {name: tcp-echo}
spec:
  host: tcp-echo
  subsets: [{name: v1, labels: {version: v1}}, {name: v2, labels: {version: v2}}]
""",
    """
apiVersion: networking.istio.io/v1
kind: Gateway
metadata: {name: secure}
spec:
  servers:
  - port: {number: 443, name: tls, protocol: TLS}
    hosts: ["*"]
    tls: {mode: PASSTHROUGH}
  - port: {number: 444, name: tcp, protocol: TCP}
    hosts: ["*"]
""",
    """
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: secure}
spec:
  hosts: ["*"]
  gateways: [secure]
  tls:
  - match: [{sniHosts: [one.example.com]}]
    route: [{destination: {host: tcp-echo, port: {number: 9443}, subset: v1}}]
  - match: [{sniHosts: ["*.both.example.com"]}]
    route:
    - {destination: {host: tcp-echo, port: {number: 9443}, subset: v1}, weight: 1}
    - {destination: {host: tcp-echo, port: {number: 9443}, subset: v2}, weight: 1}
  tcp:
  - route: [{destination: {host: tcp-echo, port: {number: 9443}, subset: v2}}]
""",
)
"""Routes by TLS server name beside one for every connection."""


def shares(found: Plan) -> list[tuple[int, tuple[str, ...], Mapping[str, float]]]:
    """Each listener's port, server names and shares."""
    return [
        (listener.port, chain.sni, found.route.shares(chain))
        for listener in found.route.listeners
        for chain in listener.chains
    ]


def notices(found: Plan, words: Sequence[str]) -> bool:
    """Whether one notice has all these words."""
    return any(all(word in notice for word in words) for notice in map(str, found.notices))


def warned(found: Plan, words: Sequence[str]) -> bool:
    """Whether one warning has all these words."""
    return any(all(word in warning for word in words) for warning in map(str, found.warnings))
