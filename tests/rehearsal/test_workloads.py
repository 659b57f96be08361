"""Backends: what a Deployment says becomes what a server is told."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from manifest_texts import (
    GATEWAY,
    ISTIO,
    RULE,
    SERVICE,
    V2_20,
    deployment,
    documents,
    notices,
    plan,
)

from trio_echo.errors import ManifestError

if TYPE_CHECKING:
    from trio_echo.server.config import ServerConfig


def only(container: str, *, spec: str = "") -> list[ServerConfig]:
    """The servers of a Deployment with this container, beside two that are routed to."""
    text = f"""
apiVersion: apps/v1
kind: Deployment
metadata: {{name: other}}
spec:
  template:
    metadata: {{labels: {{app: other}}}}
    spec: {{containers: [{{name: main, {container}}}]}}
  {spec}
"""
    backends = plan(ISTIO, text).route.backends
    return [each.config for each in backends if each.name == "default/other"]


@pytest.mark.parametrize(
    ("container", "ports", "prefix"),
    [
        ("image: trio-echo", [9000], "hello"),
        (
            "image: 'example.com:5000/a/trio-echo:1.2@sha256:00', args: ['1,2', x]",
            [1, 2],
            "x",
        ),
        ("image: docker.io/istio/tcp-echo-server:1.3, args: ['9000', hello]", [9000], "hello"),
        ("image: any, command: [trio-echo, serve], args: ['7', a]", [7], "a"),
        ("image: any, command: [/opt/bin/trio-echo, serve, '7', a]", [7], "a"),
        ("image: any, command: [python, -m, trio_echo, serve, '7', a]", [7], "a"),
        (
            (
                "image: trio-echo, args: [], env: [{name: TRIO_ECHO_PORTS, value: '7'},"
                " {name: TRIO_ECHO_PREFIX, value: b}]"
            ),
            [7],
            "b",
        ),
        (
            (
                "image: trio-echo, args: ['7', '$(NAME)-$$(NAME)-$(GONE)'],"
                " env: [{name: NAME, value: c}, {name: POD, valueFrom: {fieldRef: {}}}]"
            ),
            [7],
            "c-$(NAME)-$(GONE)",
        ),
    ],
)
def test_container_becomes_a_server(container: str, ports: list[int], prefix: str) -> None:
    """By arguments, by command, by environment; the image's own defaults else."""
    (config,) = only(container)
    assert (list(config.ports), config.prefix) == (ports, prefix)


@pytest.mark.parametrize(
    "container",
    ["image: nginx", "image: trio-echo, command: [sleep, '9']", "command: [trio-echo, probe, x]"],
)
def test_other_container_is_noticed(container: str) -> None:
    """Not every Deployment is a backend."""
    assert only(container) == []


@pytest.mark.parametrize(
    ("container", "message"),
    [
        ("image: trio-echo, args: [9000, one]", r"args\[0\]: must be text, got 9000"),
        ("image: trio-echo, args: ['9000', one, --help]", r"args: --help starts no server"),
        ("image: trio-echo, args: ['9000,9000', one]", "needs ports that are given, and differ"),
        (
            "image: trio-echo, env: [{name: TRIO_ECHO_PREFIX, valueFrom: {}}]",
            r"containers\[0\].env\[0\].valueFrom: TRIO_ECHO_PREFIX comes from the cluster",
        ),
    ],
)
def test_container_that_cannot_run_is_an_error(container: str, message: str) -> None:
    """With the words of ``serve`` where it is ``serve`` that would refuse."""
    with pytest.raises(ManifestError, match=message):
        only(container)


def test_sidecars_and_replicas() -> None:
    """One container of ours counts; a hundred replicas are more than a laptop needs."""
    sidecar = "      - {name: proxy, image: envoy}\n      - {name: second, image: trio-echo}"
    text = deployment("many", "v9", '["9000", "many"]', more=sidecar, pod="      hostNetwork: true")
    found = plan(ISTIO, text.replace("replicas: 1", "replicas: 100"))
    (many,) = (each for each in found.route.backends if each.name == "default/many")
    assert many.replicas == 50
    assert notices(found, ["more than 50 of its 100 replicas", "container proxy (envoy)"])
    assert notices(found, ["container second (trio-echo)", "spec.template.spec.hostNetwork"])


def test_deployment_without_replicas_has_no_pod() -> None:
    """Scaled to nothing is nothing to route to."""
    one = ISTIO.replace("replicas: 1", "replicas: 0", 1)
    with pytest.raises(
        ManifestError, match="subset v1 selects no pod: Deployment tcp-echo-v1 has 0 replicas"
    ):
        plan(one)
    with pytest.raises(
        ManifestError, match=r"selects no pod .*found: tcp-echo-v1 .*version=v1 \(0 replicas\), tcp"
    ):
        plan(one.replace("replicas: 1", "replicas: 0"))


def test_alike_prefixes_are_noticed() -> None:
    """Two versions that answer alike cannot be told apart."""
    found = plan(ISTIO.replace('"two"', '"one"'))
    assert notices(found, ["default/tcp-echo-v1 and default/tcp-echo-v2 all answer 'one'"])


def test_services_by_number_and_by_name() -> None:
    """A target port may be a name; UDP is none of ours."""
    named = SERVICE.replace("port: 9000", "port: 9000\n    targetPort: echo").replace(
        "  - name: tcp-other", "  - {name: dns, port: 53, protocol: UDP}\n  - name: tcp-other"
    )
    pods = documents(*(deployment(each, each, '["7000", "x"]') for each in ("v1", "v2")))
    pods = pods.replace("- containerPort: 9000", "- {containerPort: 7000, name: echo}")
    found = plan(named, pods, GATEWAY, RULE, V2_20)
    reached = [d.endpoints for d in found.route.destinations().values()]
    assert [[each.port for each in endpoints] for endpoints in reached] == [[7000], [7000]]
    assert notices(found, ["port 53, which is UDP"])
    with pytest.raises(ManifestError, match="leads to port gone of Deployment"):
        plan(named.replace("targetPort: echo", "targetPort: gone"), pods, GATEWAY, RULE, V2_20)


def test_port_must_be_named_where_there_are_several() -> None:
    """As in a cluster."""
    with pytest.raises(ManifestError, match=r"must name a port .*; ports found: 9000, 9001"):
        plan(ISTIO.replace("        port:\n          number: 9000\n", ""))
