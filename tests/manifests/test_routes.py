"""What no schema says of the routes: every reference meets something, weights add up."""

from __future__ import annotations

import pytest
from kustomized import every, matches, pick, render, weights

ISTIO = ("istio", "istio/mesh")
GATEWAY_API = ("gateway-api", "gateway-api/v1alpha2")
SHIFTED = {
    **{f"shift/{name}/all-v1": {"v1": 100, "v2": 0} for name in ("istio", "istio-mesh")},
    **{f"shift/{name}/all-v2": {"v1": 0, "v2": 100} for name in ("istio", "istio-mesh")},
    **{
        f"shift/{name}/all-v1": {"v1": 100, "v2": 0}
        for name in ("gateway-api", "gateway-api-v1alpha2")
    },
    **{
        f"shift/{name}/all-v2": {"v1": 0, "v2": 100}
        for name in ("gateway-api", "gateway-api-v1alpha2")
    },
    **{folder: {"v1": 80, "v2": 20} for folder in (*ISTIO, *GATEWAY_API)},
}


def pods() -> dict[str, dict[str, str]]:
    """The pod labels of each Deployment by its version."""
    found = (
        d["spec"]["template"]["metadata"]["labels"] for d in every(render("base"), "Deployment")
    )
    return {labels["version"]: labels for labels in found}


@pytest.mark.parametrize(("folder", "expected"), SHIFTED.items())
def test_each_folder_gives_the_weights_that_it_promises(
    folder: str, expected: dict[str, int]
) -> None:
    """All to v1, 80/20, all to v2: one command each, in both dialects."""
    assert weights(render(folder)) == expected
    assert sum(expected.values()) == 100


@pytest.mark.parametrize("folder", [name for name in SHIFTED if name.startswith("shift/")])
def test_a_shift_changes_the_weights_and_nothing_else(folder: str) -> None:
    """The command applies a whole state: going back is the same kind of command."""
    route = folder.split("/")[1]
    source = {"istio-mesh": "istio/mesh", "gateway-api-v1alpha2": "gateway-api/v1alpha2"}
    shifted, before = render(folder), render(source.get(route, route))

    for document in (*shifted, *before):
        for rule in document["spec"].get("tcp", document["spec"].get("rules", [])):
            for leg in rule.get("route", rule.get("backendRefs")):
                del leg["weight"]
    assert shifted == before


def test_each_subset_selects_the_pods_of_its_version() -> None:
    """A subset that selects no pod swallows its share of the connections."""
    rule = pick(render("istio"), "DestinationRule")
    service = pick(render("base"), "Service", rule["spec"]["host"])

    for subset in rule["spec"]["subsets"]:
        selector = service["spec"]["selector"] | subset["labels"]
        selected = [version for version, labels in pods().items() if matches(selector, labels)]
        assert selected == [subset["name"]]


@pytest.mark.parametrize("folder", ISTIO)
def test_each_destination_exists(folder: str) -> None:
    """Host, port and subset of each leg are those of the Service and its rule."""
    rule = pick(render("istio"), "DestinationRule")
    [route] = pick(render(folder), "VirtualService")["spec"]["tcp"]

    for leg in route["route"]:
        destination = leg["destination"]
        service = pick(render("base"), "Service", destination["host"])
        assert rule["spec"]["host"] == destination["host"]
        assert destination["subset"] in {subset["name"] for subset in rule["spec"]["subsets"]}
        assert destination["port"]["number"] in {port["port"] for port in service["spec"]["ports"]}


def test_the_istio_route_is_bound_to_its_gateway() -> None:
    """By name, on the port that the gateway opens."""
    documents = render("istio")
    gateway, route = pick(documents, "Gateway"), pick(documents, "VirtualService")
    [server] = gateway["spec"]["servers"]

    assert gateway["apiVersion"] == route["apiVersion"] == "networking.istio.io/v1"
    assert route["spec"]["gateways"] == [gateway["metadata"]["name"]]
    assert route["spec"]["tcp"][0]["match"] == [{"port": server["port"]["number"]}]
    assert (server["port"]["number"], server["port"]["protocol"]) == (31400, "TCP")


def test_the_mesh_route_is_about_the_service_only() -> None:
    """On the mesh, a host of "*" would take every connection of every client."""
    route = pick(render("istio/mesh"), "VirtualService")
    service = pick(render("base"), "Service")

    assert route["spec"]["gateways"] == ["mesh"]
    assert route["spec"]["hosts"] == [service["metadata"]["name"]]
    assert route["spec"]["tcp"][0]["match"] == [{"port": service["spec"]["ports"][0]["port"]}]


def test_mutual_tls_leaves_the_admin_port_to_prometheus() -> None:
    """The policy selects the backends, and its exception is the port they probe."""
    policy = pick(render("istio"), "PeerAuthentication")["spec"]
    deployment = every(render("base"), "Deployment")[0]
    ports = deployment["spec"]["template"]["spec"]["containers"][0]["ports"]
    [admin] = [port["containerPort"] for port in ports if port["name"] == "admin"]

    assert all(matches(policy["selector"]["matchLabels"], labels) for labels in pods().values())
    assert policy["mtls"]["mode"] == "STRICT"
    assert policy["portLevelMtls"] == {str(admin): {"mode": "PERMISSIVE"}}


@pytest.mark.parametrize("folder", GATEWAY_API)
def test_each_backend_has_a_service_that_selects_its_pods(folder: str) -> None:
    """A TCPRoute knows no subsets: the Services take their place."""
    documents = render(folder)
    [rule] = pick(documents, "TCPRoute")["spec"]["rules"]

    for ref in rule["backendRefs"]:
        service = pick(documents, "Service", ref["name"])
        [port] = service["spec"]["ports"]
        selected = [
            v for v, labels in pods().items() if matches(service["spec"]["selector"], labels)
        ]
        assert selected == [ref["name"].removeprefix("tcp-echo-")]
        assert (port["port"], port["targetPort"]) == (ref["port"], "tcp-echo")
        assert (port["name"], port["appProtocol"]) == ("tcp-echo", "tcp")
        assert service["spec"]["ipFamilyPolicy"] == "PreferDualStack"


@pytest.mark.parametrize("folder", GATEWAY_API)
def test_the_gateway_api_route_is_attached_to_its_listener(folder: str) -> None:
    """By name and section, and the listener lets this kind of route in."""
    documents = render(folder)
    gateway, route = pick(documents, "Gateway"), pick(documents, "TCPRoute")
    [parent] = route["spec"]["parentRefs"]
    [listener] = gateway["spec"]["listeners"]

    assert parent == {"name": gateway["metadata"]["name"], "sectionName": listener["name"]}
    assert (listener["protocol"], listener["port"]) == ("TCP", 31400)
    assert listener["allowedRoutes"]["kinds"] == [{"kind": "TCPRoute"}]


def test_the_variant_differs_in_its_api_version_only() -> None:
    """What holds for one route holds for the other."""
    current, older = (render(folder) for folder in GATEWAY_API)

    assert pick(current, "TCPRoute")["apiVersion"] == "gateway.networking.k8s.io/v1"
    assert pick(older, "TCPRoute")["apiVersion"] == "gateway.networking.k8s.io/v1alpha2"
    pick(older, "TCPRoute")["apiVersion"] = pick(current, "TCPRoute")["apiVersion"]
    assert current == older
