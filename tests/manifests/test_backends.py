"""What no schema says of the backends: what selects whom, and what fits into what."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest
from kustomized import Document, container, every, matches, pick, render

VERSIONS = ("v1", "v2")
ECHO, ADMIN, AMBIENT, SIDECAR = 9000, 8080, 15008, 15020


def deployment(version: str) -> Document:
    """The Deployment of a version, as rendered."""
    return pick(render("base"), "Deployment", f"tcp-echo-{version}")


def pod_labels(workload: Document) -> dict[str, str]:
    """The labels of a workload's pods."""
    labels: dict[str, str] = workload["spec"]["template"]["metadata"]["labels"]
    return labels


def environment(workload: Document) -> dict[str, str]:
    """The environment of a workload's container."""
    return {entry["name"]: entry["value"] for entry in container(workload)["env"]}


def named_ports(workload: Document) -> dict[str, int]:
    """The ports of a workload's container by name."""
    return {port["name"]: port["containerPort"] for port in container(workload)["ports"]}


@pytest.mark.parametrize("version", VERSIONS)
def test_a_deployment_selects_its_own_pods_only(version: str) -> None:
    """Two Deployments that select each other's pods fight over them."""
    selector = deployment(version)["spec"]["selector"]["matchLabels"]

    selected = [other for other in VERSIONS if matches(selector, pod_labels(deployment(other)))]

    assert selected == [version]


def test_the_service_reaches_the_pods_of_both_versions() -> None:
    """By label, by port and by the port's name, with the protocol said."""
    service = pick(render("base"), "Service")
    [port] = service["spec"]["ports"]

    assert service["spec"]["ipFamilyPolicy"] == "PreferDualStack"
    assert (port["name"], port["port"], port["appProtocol"]) == ("tcp-echo", ECHO, "tcp")
    for version in VERSIONS:
        assert matches(service["spec"]["selector"], pod_labels(deployment(version)))
        assert named_ports(deployment(version))[port["targetPort"]] == ECHO


def test_the_versions_differ_in_name_version_and_prefix_only() -> None:
    """A difference beside these would be a second experiment in the same run."""
    first, second = (str(deployment(version)) for version in VERSIONS)

    as_second = re.sub(r"(?<!/)\bv1\b", "v2", first).replace("'one'", "'two'")

    assert first != second
    assert as_second == second


def test_the_versions_are_two_revisions() -> None:
    """Istio's dashboards tell the versions apart by the canonical revision."""
    revisions = {
        pod_labels(deployment(version))["service.istio.io/canonical-revision"]
        for version in VERSIONS
    }

    assert revisions == {*VERSIONS}
    assert not any(
        "app.kubernetes.io/version" in pod_labels(deployment(version)) for version in VERSIONS
    )


@pytest.mark.parametrize(
    "document", render("base"), ids=lambda d: f"{d['kind']}-{d['metadata']['name']}"
)
def test_everything_says_what_it_belongs_to(document: Document) -> None:
    """The recommended labels are on every document, pods included."""
    wanted = {"app.kubernetes.io/part-of", "app.kubernetes.io/managed-by"}
    if document["kind"] != "Namespace":
        wanted |= {"app", "app.kubernetes.io/name"}

    assert wanted <= {*document["metadata"]["labels"]}
    if document["kind"] == "Deployment":
        assert wanted | {"version"} <= {*pod_labels(document)}


@pytest.mark.parametrize("version", VERSIONS)
def test_the_arguments_open_the_ports_that_the_pod_names(version: str) -> None:
    """The demonstration's two arguments, and the admin port by environment."""
    prefix = {"v1": "one", "v2": "two"}[version]
    ports = named_ports(deployment(version))

    assert container(deployment(version))["args"] == [str(ECHO), prefix]
    assert ports == {"tcp-echo": ECHO, "admin": ADMIN}
    assert environment(deployment(version))["TRIO_ECHO_ADMIN_PORT"] == str(ADMIN)
    annotations = deployment(version)["spec"]["template"]["metadata"]["annotations"]
    assert annotations["prometheus.io/port"] == str(ADMIN)


@pytest.mark.parametrize("version", VERSIONS)
def test_the_kubelet_asks_the_admin_port(version: str) -> None:
    """Readiness ends with the drain, liveness does not."""
    main = container(deployment(version))
    paths = {
        probe: (main[probe]["httpGet"]["path"], main[probe]["httpGet"]["port"])
        for probe in ("startupProbe", "livenessProbe", "readinessProbe")
    }

    assert paths == {
        "startupProbe": ("/livez", "admin"),
        "livenessProbe": ("/livez", "admin"),
        "readinessProbe": ("/readyz", "admin"),
    }


@pytest.mark.parametrize("version", VERSIONS)
def test_a_pod_has_time_to_leave(version: str) -> None:
    """The kubelet kills only what preStop and the drain together could not end."""
    spec = deployment(version)["spec"]["template"]["spec"]
    pause = container(deployment(version))["lifecycle"]["preStop"]["sleep"]["seconds"]
    drain = float(environment(deployment(version))["TRIO_ECHO_DRAIN_TIMEOUT"])

    assert pause > 0
    assert spec["terminationGracePeriodSeconds"] > pause + drain


@pytest.mark.parametrize("version", VERSIONS)
def test_a_rollout_and_a_drained_node_leave_pods_of_each_version(version: str) -> None:
    """Each version has a budget of its own that selects exactly its pods."""
    budgets = [
        budget
        for budget in every(render("base"), "PodDisruptionBudget")
        if matches(budget["spec"]["selector"]["matchLabels"], pod_labels(deployment(version)))
    ]

    [budget] = budgets  # the eviction API refuses a pod that two budgets select
    spec = deployment(version)["spec"]
    assert 1 <= budget["spec"]["maxUnavailable"] < spec["replicas"]
    assert spec["strategy"]["rollingUpdate"] == {"maxSurge": 1, "maxUnavailable": 0}


def test_the_budgets_select_nothing_else() -> None:
    """No budget of one version counts pods of the other."""
    for budget in every(render("base"), "PodDisruptionBudget"):
        selector = budget["spec"]["selector"]["matchLabels"]
        assert sum(matches(selector, pod_labels(deployment(version))) for version in VERSIONS) == 1


@pytest.mark.parametrize("version", VERSIONS)
def test_the_pods_of_a_version_spread(version: str) -> None:
    """Over zones and nodes, each version for itself."""
    spread = deployment(version)["spec"]["template"]["spec"]["topologySpreadConstraints"]

    assert {rule["topologyKey"] for rule in spread} == {
        "topology.kubernetes.io/zone",
        "kubernetes.io/hostname",
    }
    for rule in spread:
        assert rule["labelSelector"] == deployment(version)["spec"]["selector"]


def test_the_network_policy_lets_in_what_is_needed_and_no_more() -> None:
    """The Service's port, the probes' port, and what a mesh puts in their place."""
    policy = pick(render("base"), "NetworkPolicy")
    [rule] = policy["spec"]["ingress"]

    assert policy["spec"]["policyTypes"] == ["Ingress"]
    assert all(port["protocol"] == "TCP" for port in rule["ports"])
    assert {port["port"] for port in rule["ports"]} == {ECHO, ADMIN, AMBIENT, SIDECAR}
    for version in VERSIONS:
        assert matches(
            policy["spec"]["podSelector"]["matchLabels"], pod_labels(deployment(version))
        )
        assert {*named_ports(deployment(version)).values()} == {ECHO, ADMIN}


@pytest.mark.parametrize("folder", ["base", "gate", "probe"])
def test_the_image_is_the_one_of_this_version(folder: str) -> None:
    """A release that forgets the manifests would deploy the one before it."""
    project = tomllib.loads(
        (Path(__file__).parents[2] / "pyproject.toml").read_text(encoding="utf-8")
    )["project"]
    workloads = [d for d in render(folder) if d["kind"] in {"Deployment", "Job"}]

    assert workloads
    for workload in workloads:
        assert container(workload)["image"] == f"{project['name']}:{project['version']}"
