"""Every folder renders, and an API server would take each document as it stands."""

from __future__ import annotations

import re

import jsonschema
import kubernetes_validate  # type: ignore[import-untyped]  # it ships no types
import pytest
import yaml
from crd_schemas import FOLDER, NotServedError, check
from kustomized import FOLDERS, MANIFESTS, Document, every, pick, render

OLDEST = "1.30"  # the first with the sleep action on by default
NEWEST = "1.37"

DEFINITIONS = {
    "networking.istio.io/Gateway": "gateways.networking.istio.io",
    "networking.istio.io/VirtualService": "virtualservices.networking.istio.io",
    "networking.istio.io/DestinationRule": "destinationrules.networking.istio.io",
    "argoproj.io/AnalysisTemplate": "analysistemplates.argoproj.io",
    "argoproj.io/Rollout": "rollouts.argoproj.io",
    "security.istio.io/PeerAuthentication": "peerauthentications.security.istio.io",
    "gateway.networking.k8s.io/Gateway": "gateways.gateway.networking.k8s.io",
    "gateway.networking.k8s.io/TCPRoute": "tcproutes.gateway.networking.k8s.io",
    "monitoring.coreos.com/Probe": "probes.monitoring.coreos.com",
    "monitoring.coreos.com/PrometheusRule": "prometheusrules.monitoring.coreos.com",
    "monitoring.coreos.com/ServiceMonitor": "servicemonitors.monitoring.coreos.com",
    "flagger.app/Canary": "canaries.flagger.app",
}
BEFORE_1_6 = {"gateway.networking.k8s.io/TCPRoute": "tcproutes.gateway.networking.k8s.io.v1alpha2"}

needs_definitions = pytest.mark.skipif(
    not FOLDER.is_dir(),
    reason="no custom resource definitions: set TRIO_ECHO_SCHEMAS to a folder of them",
)


def group_and_kind(document: Document) -> str:
    """The document's type without its version."""
    return f"{document['apiVersion'].partition('/')[0]}/{document['kind']}"


def custom(document: Document) -> bool:
    """Whether the type comes by a custom resource definition."""
    return group_and_kind(document) in DEFINITIONS


def test_every_folder_is_known() -> None:
    """A folder that nobody renders is a folder that nobody checks."""
    assert {"base", "istio", "istio/mesh", "gateway-api", "gateway-api/v1alpha2", "probe"} <= {
        *FOLDERS
    }
    assert {"probe/indexed", "watch", "watch/prometheus"} <= {*FOLDERS}


@pytest.mark.parametrize("folder", FOLDERS)
@pytest.mark.parametrize("version", [OLDEST, NEWEST])
def test_kubernetes_takes_each_document(folder: str, version: str) -> None:
    """No unknown field, no wrong type, on the oldest and the newest version."""
    for document in render(folder):
        if not custom(document):
            used = kubernetes_validate.validate(document, version, strict=True)
            assert used == version


@needs_definitions
@pytest.mark.parametrize("folder", FOLDERS)
def test_the_mesh_takes_each_document(folder: str) -> None:
    """Each custom resource is valid in a version that its definition serves."""
    definitions = DEFINITIONS | (BEFORE_1_6 if "v1alpha2" in folder else {})
    for document in render(folder):
        if custom(document):
            check(document, definitions[group_and_kind(document)])


@needs_definitions
def test_a_version_that_is_not_served_is_an_error() -> None:
    """Gateway API 1.6's standard channel lists v1alpha2 and refuses it."""
    route = pick(render("gateway-api/v1alpha2"), "TCPRoute")

    with pytest.raises(NotServedError, match="v1alpha2"):
        check(route, DEFINITIONS["gateway.networking.k8s.io/TCPRoute"])


@needs_definitions
@pytest.mark.parametrize("misspelt", ["spec", "route"])
def test_an_unknown_field_is_an_error(misspelt: str) -> None:
    """A typing mistake that an API server would prune in silence is found."""
    service = pick(render("istio"), "VirtualService")
    place = service["spec"] if misspelt == "spec" else service["spec"]["tcp"][0]["route"][0]
    place["wieght"] = 1

    with pytest.raises(jsonschema.ValidationError, match="wieght"):
        check(service, DEFINITIONS["networking.istio.io/VirtualService"])


@pytest.mark.parametrize("folder", FOLDERS)
def test_all_of_it_lives_in_the_one_namespace(folder: str) -> None:
    """Whatever is applied lands where the base lands."""
    [namespace] = every(render("base"), "Namespace")
    for document in render(folder):
        if document["kind"] == "Namespace":
            assert document["metadata"]["name"] == namespace["metadata"]["name"]
        else:
            assert document["metadata"]["namespace"] == namespace["metadata"]["name"]


def test_no_namespace_is_spelled_twice() -> None:
    """Renaming the namespace is one edit; the ingress gateway's is one edit a folder."""
    [namespace] = every(render("base"), "Namespace")
    ours = namespace["metadata"]["name"]
    # An anchor's text stands once, wherever else it is used in its file.
    found = {
        (file.relative_to(MANIFESTS), value)
        for file in MANIFESTS.rglob("*.yaml")
        for document in yaml.safe_load_all(file.read_text(encoding="utf-8"))
        for value in namespaces(document)
    }
    spelled = sorted((file.parts[:2], value) for file, value in found)

    assert [value for _, value in spelled].count(ours) == 1, spelled
    assert len({*spelled}) == len(spelled), spelled


def namespaces(node: object) -> list[str]:
    """Every namespace that a document spells, as a field or within a host's name."""
    if isinstance(node, dict):
        own = [
            value for key, value in node.items() if key == "namespace" and isinstance(value, str)
        ]
        return own + [name for value in node.values() for name in namespaces(value)]
    if isinstance(node, list):
        return [name for value in node for name in namespaces(value)]
    if isinstance(node, str) and ".istio-system" in node:
        return ["istio-system"]
    return []


def test_the_readme_s_commands_name_folders_that_render() -> None:
    """Every ``-k`` in the walk-through is a folder that exists, and each entrance is in it."""
    text = (MANIFESTS / "README.md").read_text(encoding="utf-8")
    named = {*re.findall(r"-k manifests/([\w/-]+)", text)}

    assert named <= {*FOLDERS}
    assert {"base", "istio", "istio/mesh", "gateway-api", "probe", "probe/mesh"} <= named
    assert f"the schemas of {OLDEST} and {NEWEST}" in text
