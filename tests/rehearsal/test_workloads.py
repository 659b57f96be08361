"""Backends: what a Deployment says becomes what a server is told."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from manifest_texts import (
    ALL_V1,
    GATEWAY,
    ISTIO,
    RULE,
    SERVICE,
    TLS,
    V2_20,
    deployment,
    documents,
    notices,
    plan,
    service,
    shares,
    warned,
)

from trio_echo.errors import ManifestError
from trio_echo.rehearsal.workload_documents import KINDS

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
        ("image: me/tcp-echo-server, command: [/bin/main], args: ['9', a]", [9], "a"),
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
    [
        "image: nginx, command: [/bin/main]",
        "image: trio-echo, command: [sleep, '9']",
        "command: [trio-echo, probe, x]",
    ],
)
def test_other_container_that_no_route_reaches_runs_nothing(container: str) -> None:
    """Not every Deployment is a backend."""
    assert only(container) == []


def pods(kind: str, version: str, name: str, labels: str, image: str = "redis:7") -> str:
    """A workload of any kind, of an image that is no echo server."""
    spec = f"{{containers: [{{name: main, image: '{image}'}}]}}"
    head = f"apiVersion: {version}\nkind: {kind}\nmetadata: {{name: {name}, labels: {labels}}}\n"
    if kind == "Pod":
        return f"{head}spec: {spec}"
    selector = labels if kind == "ReplicationController" else f"{{matchLabels: {labels}}}"
    return (
        f"{head}spec:\n  selector: {selector}\n"
        f"  template: {{metadata: {{labels: {labels}}}, spec: {spec}}}"
    )


REDIS = documents(
    """
apiVersion: v1
kind: Service
metadata: {name: redis}
spec: {ports: [{name: tcp-redis, port: 6379}], selector: {app: redis}}
""",
    pods("Deployment", "apps/v1", "redis-v1", "{app: redis, version: v1}"),
    pods("Deployment", "apps/v1", "redis-v2", "{app: redis, version: v2}"),
)
REDIS_ROUTE = documents(
    GATEWAY,
    RULE.replace("host: tcp-echo", "host: redis"),
    V2_20.replace("host: tcp-echo", "host: redis")
    .replace("number: 9000", "number: 6379")
    .replace("weight: 80", "weight: 90")
    .replace("weight: 20", "weight: 10"),
)


def test_echo_servers_stand_in_for_anything_else() -> None:
    """On the port that the Service leads to, by the name of the subset, and it is said."""
    found = plan(REDIS, REDIS_ROUTE)
    assert shares(found) == [(31400, (), {"v1": 90, "v2": 10})]
    assert [each.config.ports for each in found.route.backends] == [[6379]] * 2
    for name in ("v1", "v2"):
        line = f"redis-{name} runs redis:7: an echo server named {name} stands in on port 6379"
        assert line in map(str, found.notices)


@pytest.mark.parametrize(
    ("kind", "version"), [(kind, each) for kind, served in KINDS.items() for each in sorted(served)]
)
def test_every_kind_of_workload_is_stood_in_for(kind: str, version: str) -> None:
    """Old versions too, which is noticed."""
    service, _, second = REDIS.split("\n---\n")
    first = pods(kind, version, "redis-v1", "{app: redis, version: v1}")
    found = plan(service, first, second, REDIS_ROUTE)
    names = {"stable", "canary"} if kind == "Rollout" else {"v1"}
    assert names <= {each.config.prefix for each in found.route.backends}
    old = version not in {"apps/v1", "v1", "argoproj.io/v1alpha1"}
    assert notices(found, [f"apiVersion {version}, where clusters serve apps/v1 now"]) == old


TWO_ROUTES = documents(
    GATEWAY.replace("31400", "31400").replace(
        "  servers:\n",
        '  servers:\n  - {port: {number: 31401, name: b, protocol: TCP}, hosts: ["*"]}\n',
    ),
    """
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: both}
spec:
  hosts: ["*"]
  gateways: [tcp-echo-gateway]
  tcp:
  - {match: [{port: 31400}], route: [{destination: {host: redis}}]}
  - {match: [{port: 31401}], route: [{destination: {host: other}}]}
""",
)


def test_names_are_versions_else_workloads_and_each_its_own() -> None:
    """Where no subset gives one; two that would be alike take the next that tells them apart."""
    other = REDIS.replace("name: redis", "name: other").replace("app: redis", "app: other")
    found = plan(REDIS, other, TWO_ROUTES)
    assert shares(found) == [
        (31401, (), {"other-v1": 50, "other-v2": 50}),
        (31400, (), {"redis-v1": 50, "redis-v2": 50}),
    ]
    unversioned = REDIS.replace(", version: v1", "").replace(", version: v2", "")
    alone = plan(unversioned, TWO_ROUTES.replace("host: other", "host: redis"))
    assert shares(alone)[0][2] == {"redis-v1": 50, "redis-v2": 50}


def test_a_name_of_an_echo_server_is_taken() -> None:
    """And a name that no echo server can have is passed over."""
    mixed = documents(
        REDIS.split("\n---\n")[0],
        deployment("redis-v1", "v1", '["6379", "v2"]').replace("app: tcp-echo", "app: redis"),
        pods("Deployment", "apps/v1", "redis-v2", "{app: redis, version: v2}"),
    )
    found = plan(mixed, REDIS_ROUTE)
    assert shares(found) == [(31400, (), {"v2": 90, "redis-v2": 10})]
    odd = REDIS.replace("version: v2}", 'version: "a\\tb"}')
    rule = REDIS_ROUTE.replace("version: v2", 'version: "a\\tb"').replace("v2", "w" * 300)
    assert "redis-v2" in shares(plan(odd, rule))[0][2]


def test_services_without_workloads_are_stood_in_for() -> None:
    """Nothing but Services: one echo server for each part that a route means."""
    service = REDIS.split("\n---\n")[0]
    found = plan(service, REDIS_ROUTE)
    assert shares(found) == [(31400, (), {"v1": 90, "v2": 10})]
    assert notices(found, ["Service redis has no workload among the manifests: an echo server"])
    plain = plan(service, TWO_ROUTES.replace("host: other", "host: redis"))
    assert shares(plain) == [(31401, (), {"redis": 100}), (31400, (), {"redis": 100})]
    named = service.replace("port: 6379", "port: 6379, targetPort: redis")
    assert shares(plan(named, REDIS_ROUTE)) == shares(found)
    outside = service.replace("selector: {app: redis}", "type: ExternalName, externalName: a.test")
    assert shares(plan(outside, REDIS_ROUTE)) == shares(found)


def test_routes_by_themselves_are_stood_in_for() -> None:
    """Not even Services: what the route names."""
    found = plan(REDIS_ROUTE)
    assert shares(found) == [(31400, (), {"v1": 90, "v2": 10})]
    assert notices(found, ["Service redis is not among the manifests: an echo server named v1"])
    alone = plan(TWO_ROUTES.replace("host: other", "host: other.elsewhere"))
    assert shares(alone) == [(31401, (), {"other": 100}), (31400, (), {"redis": 100})]
    gateway, _, route = REDIS_ROUTE.split("\n---\n")
    assert shares(plan(gateway, route)) == shares(found)


ENTRY = """
apiVersion: networking.istio.io/v1
kind: ServiceEntry
metadata: {name: outside}
spec:
  hosts: [db.example.com]
  ports: [{number: 3306, name: tcp, protocol: TCP}, {number: 53, name: dns, protocol: UDP}]
  resolution: STATIC
"""


def test_service_entries_are_services() -> None:
    """By their whole name; each of their endpoints is one, by its labels."""
    route = TWO_ROUTES.replace("host: other", "host: db.example.com").replace(
        "host: redis", "host: db.example.com"
    )
    found = plan(ENTRY, route)
    assert shares(found)[0] == (31401, (), {"db.example.com": 100})
    listed = (
        ENTRY
        + "  endpoints:\n  - {address: 192.0.2.1, labels: {version: v1}, ports: {tcp: 1}}\n"
        + "  - {address: 192.0.2.2, labels: {version: v2}}\n  - {labels: {version: v2}}\n"
    )
    found = plan(listed, route)
    assert {round(share, 1) for share in shares(found)[0][2].values()} == {33.3}
    assert notices(found, ["192.0.2.1 is outside the cluster: an echo server named v1 stands in"])
    odd = plan(ENTRY + "  unheardOf: 1\n", route)
    assert notices(odd, ["ServiceEntry outside: ignored: spec.unheardOf"])
    chosen = ENTRY + "  workloadSelector: {labels: {app: redis}}\n"
    assert shares(plan(chosen, REDIS, route))[0][2] == {"v1": 50, "v2": 50}


ROLLOUT = """
apiVersion: argoproj.io/v1alpha1
kind: Rollout
metadata: {name: echo}
spec:
  replicas: 2
  selector: {matchLabels: {app: redis}}
  template:
    metadata: {labels: {app: redis}}
    spec: {containers: [{name: main, image: 'redis:7'}]}
  strategy: STRATEGY
"""
CANARY = """
    canary:
      stableService: redis
      canaryService: other
      steps: [{setWeight: 20}, {pause: {}}, {setWeight: 60}]
"""


def test_rollout_stands_for_two_sets_of_pods() -> None:
    """Whatever its Services select before the controller has edited them."""
    both = documents(service("redis", "{app: redis}"), service("other", "{app: redis}"))
    both = both.replace("targetPort: 9000", "targetPort: 6379")
    found = plan(both, ROLLOUT.replace("STRATEGY", CANARY), TWO_ROUTES)
    assert shares(found) == [(31401, (), {"canary": 100}), (31400, (), {"stable": 100})]
    assert found.steps == (20, 60)
    assert notices(found, ["canary pods of echo run redis:7: an echo server named canary stands"])
    swap = "{blueGreen: {activeService: redis, previewService: other}}"
    green = plan(both, ROLLOUT.replace("STRATEGY", swap), TWO_ROUTES)
    assert shares(green) == [(31401, (), {"preview": 100}), (31400, (), {"active": 100})]
    assert green.steps is None


def test_rollout_moves_subsets() -> None:
    """Both subsets may have a label that all its pods have."""
    istio = """
    canary:
      trafficRouting:
        istio:
          destinationRule:
            {name: tcp-echo-destination, stableSubsetName: v1, canarySubsetName: v2}
"""
    rules = REDIS_ROUTE.replace("      version: v1\n", "      app: redis\n").replace(
        "      version: v2\n", "      app: redis\n"
    )
    rollout = ROLLOUT.replace("STRATEGY", istio)
    found = plan(REDIS.split("\n---\n")[0], rollout, rules)
    assert shares(found) == [(31400, (), {"stable": 90, "canary": 10})]
    ours = rollout.replace("image: 'redis:7'", "image: trio-echo, args: ['6379', one]")
    assert shares(plan(REDIS.split("\n---\n")[0], ours, rules)) == shares(found)


def test_rollout_may_take_over_a_deployment() -> None:
    """By its workloadRef."""
    head, _, _ = ROLLOUT.partition("  replicas")
    taken = head + "  workloadRef: {apiVersion: apps/v1, kind: Deployment, name: redis-v1}\n"
    only_one = REDIS.rpartition("\n---\n")[0]
    route = TWO_ROUTES.replace("host: other", "host: redis")
    assert shares(plan(only_one, taken, route))[0][2] == {"stable": 50, "canary": 50}
    with pytest.raises(ManifestError, match=r"spec.workloadRef.name: there is no Deployment gone"):
        plan(only_one, taken.replace("redis-v1", "gone"), route)
    with pytest.raises(ManifestError, match=r"spec.template: is missing"):
        plan(only_one, head + "  replicas: 1\n", route)
    with pytest.raises(ManifestError, match=r"spec\.strategy\.canary: must be a mapping, got 5"):
        plan(only_one, ROLLOUT.replace("STRATEGY", "{canary: 5}"), route)


def test_two_rollouts_have_names_of_their_own() -> None:
    """The role alone would be the same."""
    one = ROLLOUT.replace("STRATEGY", "{}")
    two = one.replace("name: echo", "name: other").replace("app: redis", "app: other")
    other = (
        REDIS.split("\n---\n")[0]
        .replace("name: redis", "name: other")
        .replace("app: redis", "app: other")
    )
    found = plan(REDIS.split("\n---\n")[0], other, one, two, TWO_ROUTES)
    assert shares(found) == [
        (31401, (), {"other-stable": 50, "other-canary": 50}),
        (31400, (), {"echo-stable": 50, "echo-canary": 50}),
    ]


def test_templates_and_selectors_must_be_there() -> None:
    """In Kubernetes' words."""
    with pytest.raises(ManifestError, match=r"spec.template: is missing"):
        plan(ISTIO, "apiVersion: apps/v1\nkind: DaemonSet\nmetadata: {name: x}\nspec: {}")
    odd = pods("Deployment", "apps/v1", "x", "{app: x}").replace(
        "matchLabels: {app: x}", "matchLabels: 5"
    )
    with pytest.raises(ManifestError, match="must be a mapping of labels"):
        plan(ISTIO, odd)
    empty = pods("Deployment", "apps/v1", "x", "{app: x}").replace(
        "[{name: main, image: 'redis:7'}]", "[]"
    )
    assert shares(plan(ISTIO, empty)) == shares(plan(ISTIO))


def test_tls_that_is_passed_through_is_spoken_by_who_stands_in() -> None:
    """On the ports that such a route reaches."""
    images = TLS.replace("tcp-echo-server:1.2", "redis")
    found = plan(images)
    assert {len(each.config.tls.ports) for each in found.route.backends if each.config.tls} == {1}
    assert notices(found, ["default/v1 shows a throw-away certificate"])


def test_later_document_replaces_an_earlier_one() -> None:
    """As ``kubectl apply`` has it: Istio's sample in the order of its instructions."""
    found = plan(ISTIO, ALL_V1, V2_20.replace("weight: 80", "weight: 60"))
    assert shares(found) == [(31400, (), {"one": 60, "two": 20})]
    assert notices(found, ["(VirtualService tcp-echo) replaces the one at 1.yaml:"])
    older = deployment("tcp-echo-v1", "v1", '["9000,9001,9002", "older"]').replace(
        "apps/v1", "extensions/v1beta1"
    )
    assert shares(plan(older, ISTIO)) == shares(plan(ISTIO))


@pytest.mark.parametrize("option", ["greeting", "proxy-protocol"])
def test_what_the_probe_does_not_speak_is_left_out(option: str) -> None:
    """It asks every backend for an echo, and Envoy sends no header."""
    text = deployment("tcp-echo-v1", "v1", f"['9000', one, --{option}]")
    found = plan(ISTIO, text)
    usual = plan(ISTIO, text.replace(f", --{option}", ""))
    assert found.route == usual.route
    assert f"Deployment tcp-echo-v1: ignored: --{option}" in "\n".join(map(str, found.notices))


@pytest.mark.parametrize(
    ("label", "prefix"), [("version", "v1"), ("pod-template-hash", "tcp-echo-v1")]
)
def test_a_prefix_may_be_a_label_of_the_pod(label: str, prefix: str) -> None:
    """The template's own are known; one that the cluster adds is the workload's name."""
    text = deployment("tcp-echo-v1", "v1", "['9000']").replace(
        "args:",
        "env: [{name: TRIO_ECHO_PREFIX, valueFrom: {fieldRef: {fieldPath: LABEL}}}]\n        args:",
    )
    route = plan(ISTIO, text.replace("LABEL", f"\"metadata.labels['{label}']\"")).route
    assert prefix in [each.config.prefix for each in route.backends]


@pytest.mark.parametrize(
    ("container", "message"),
    [
        ("image: trio-echo, args: [9000, one]", r"args\[0\]: must be text, got 9000"),
        ("image: trio-echo, args: ['9000', one, --help]", r"args: --help starts no server"),
        ("image: trio-echo, args: ['9000,9000', one]", "port 9000 is named twice"),
        (
            "image: trio-echo, env: [{name: TRIO_ECHO_PORTS, valueFrom: {}}]",
            r"containers\[0\].env\[0\].valueFrom: TRIO_ECHO_PORTS comes from the cluster",
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
    gone = (
        r"1.yaml:11, .*targetPort: port 9000 .* leads to port gone of Deployment .*VirtualService"
    )
    with pytest.raises(ManifestError, match=gone):
        plan(named.replace("targetPort: echo", "targetPort: gone"), pods, GATEWAY, RULE, V2_20)
    quoted = r"ports\[0\].targetPort: in quotes it is the name of a port, .*; write 9000"
    with pytest.raises(ManifestError, match=quoted):
        plan(named.replace("targetPort: echo", "targetPort: '9000'"), pods, GATEWAY, RULE, V2_20)


def test_port_must_be_named_where_there_are_several() -> None:
    """As in a cluster."""
    with pytest.raises(ManifestError, match=r"must name a port .*; ports found: 9000, 9001"):
        plan(ISTIO.replace("        port:\n          number: 9000\n", ""))


DEMONSTRATION = """
apiVersion: v1
kind: Service
metadata:
  name: tcp-echo-server
  labels: {app: tcp-echo-server, istio: ingressgateway}
spec:
  selector: {app: tcp-echo-server}
  ports:
  - {port: 9000, name: tcp}
"""


def test_first_demonstration_is_read_as_it_is() -> None:
    """Deployments of an old version, without selectors, of somebody's image."""
    demonstration = [DEMONSTRATION]
    for version, prefix in (("v1", "one"), ("v2", "two")):
        demonstration.append(f"""
apiVersion: extensions/v1beta1
kind: Deployment
metadata:
  name: tcp-echo-server-{version}
spec:
  replicas: 1
  template:
    metadata:
      labels: {{app: tcp-echo-server, version: {version}}}
    spec:
      containers:
      - name: tcp-echo-server
        image: somebody/tcp-echo-server:latest
        args: [ "9000", "{prefix}" ] # prefix: {prefix}
        ports:
        - containerPort: 9000
""")
    routes = documents(RULE, GATEWAY, V2_20).replace("istio.io/v1", "istio.io/v1alpha3")
    routes = routes.replace("host: tcp-echo\n", "host: tcp-echo-server\n")
    found = plan(*demonstration, routes)
    assert shares(found) == [(31400, (), {"one": 80, "two": 20})]
    assert notices(found, ["extensions/v1beta1, where clusters serve apps/v1 now"])


@pytest.mark.parametrize("with_replica_sets", [True, False])
def test_what_the_cluster_made_is_not_taken_twice(*, with_replica_sets: bool) -> None:
    """``kubectl get`` prints a Deployment, its ReplicaSet, and the pods of that."""
    made: list[str] = []
    for version in ("v1", "v2"):
        name, labels = f"tcp-echo-{version}", f"labels: {{app: tcp-echo, version: {version}}}"
        spec = "spec: {containers: [{name: tcp-echo, image: redis}]}"
        owner = "ownerReferences: [{kind: %s, name: %s}]"
        if with_replica_sets:
            made.append(
                f"apiVersion: apps/v1\nkind: ReplicaSet\nmetadata: {{name: {name}-0a,"
                f" {owner % ('Deployment', name)}}}\nstatus: {{}}\n"
                f"spec: {{template: {{metadata: {{{labels}}}, {spec}}}}}"
            )
        made.append(
            f"apiVersion: v1\nkind: Pod\nmetadata: {{name: {name}-0a-1, {labels},"
            f" {owner % ('ReplicaSet', f'{name}-0a')}}}\n{spec}"
        )
    found = plan(f"{ISTIO}\n---\n" + "\n---\n".join(made))
    assert found.route == plan(ISTIO).route
    alone = plan(SERVICE, made[-1], GATEWAY, RULE, ALL_V1.replace("subset: v1", "subset: v2"))
    assert shares(alone) == [(31400, (), {"v2": 100})]


@pytest.mark.parametrize(
    ("declared", "warns"), [("", False), ("6379", True), ("6380", False), ("6379, 6380", False)]
)
def test_port_that_no_container_declares_is_warned_of(declared: str, *, warns: bool) -> None:
    """Kubernetes does not look at declared ports, and they are seldom wrong."""
    ports = ", ".join(f"{{containerPort: {each}}}" for each in declared.split(", ") if each)
    text = REDIS.replace("port: 6379", "port: 6379, targetPort: 6380")
    text = text.replace("image: 'redis:7'", f"image: 'redis:7', ports: [{ports}]")
    found = plan(text, REDIS_ROUTE)
    said = [each for each in found.warnings if "declare" in each.text]
    assert bool(said) == warns
    for each in said:
        assert (each.file, each.line) == ("1.yaml", 5)
        assert "port 6379 of Service redis leads to port 6380, which Deployment redis-v1," in (
            each.text
        )
        assert "Deployment redis-v2 do not declare; declared: 6379." in each.text


def test_selector_that_matches_nothing_is_named_where_it_is() -> None:
    """The Service is at fault, not the route that leads to it, which is named too."""
    wrong = REDIS.replace("selector: {app: redis}", "selector: {app: reddis}")
    words = r"1.yaml:5, .*spec.selector: Service redis selects no pod .*; VirtualService tcp-echo, "
    with pytest.raises(ManifestError, match=words):
        plan(wrong, REDIS_ROUTE)
    to = """
apiVersion: gateway.networking.k8s.io/v1
kind: TCPRoute
metadata: {name: redis}
spec: {parentRefs: [{name: g}], rules: [{backendRefs: [{name: redis, port: 6379}]}]}
"""
    with pytest.raises(ManifestError, match=r"1.yaml:5, .*selects no pod .*; TCPRoute redis, spec"):
        plan(wrong, to)


def test_entry_that_selects_nothing_is_named_by_its_route() -> None:
    """Of what is no Service the place of the selector is not told."""
    entry = ENTRY.replace("STATIC", "STATIC\n  workloadSelector: {labels: {app: none}}")
    route = ALL_V1.replace("host: tcp-echo", "host: db.example.com").replace("9000", "3306")
    route = route.replace("        subset: v1\n", "")
    with pytest.raises(ManifestError, match=r"3.yaml:.*destination: Service db.* selects no pod"):
        plan(REDIS, entry, GATEWAY + "---" + route)


def test_workloads_without_their_service_are_warned_of() -> None:
    """It was forgotten: who stands in shows nothing of them."""
    _, *deployments = REDIS.split("\n---\n")
    found = plan(documents(*deployments), REDIS_ROUTE)
    words = ["Service redis is not among the manifests, and none selects Deployment redis-v1,"]
    assert warned(found, words)
