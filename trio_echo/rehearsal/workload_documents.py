"""Documents -> workloads and Services. Pure.

Read here are the kinds that run pods, Argo's Rollouts, Services, and Istio's
ServiceEntries. The command line of a container with an echo server of ours is
read by the parser of ``serve``, which is handed in.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, TypeAlias

import msgspec

from trio_echo.errors import TrioEchoError
from trio_echo.rehearsal.documents import Lenient, Metadata
from trio_echo.rehearsal.route import manifest_ports
from trio_echo.rehearsal.workloads import (
    DOMAIN,
    Port,
    Service,
    ServicePort,
    Workload,
    Workloads,
    in_words,
)
from trio_echo.server.config import ServerConfig

if TYPE_CHECKING:
    from trio_echo.rehearsal.documents import Document
    from trio_echo.rehearsal.workloads import Note

__all__ = ["KINDS", "ParseServe", "read_workloads"]

ParseServe: TypeAlias = Callable[[Sequence[str], Mapping[str, str]], ServerConfig]
"""The arguments after ``serve`` and the environment -> the configuration."""
KINDS = {
    "Deployment": {"apps/v1", "apps/v1beta2", "apps/v1beta1", "extensions/v1beta1"},
    "ReplicaSet": {"apps/v1", "apps/v1beta2", "extensions/v1beta1"},
    "DaemonSet": {"apps/v1", "apps/v1beta2", "extensions/v1beta1"},
    "StatefulSet": {"apps/v1", "apps/v1beta2", "apps/v1beta1"},
    "ReplicationController": {"v1"},
    "Pod": {"v1"},
    "Rollout": {"argoproj.io/v1alpha1"},
}
"""What runs pods, and the versions that it is written in."""

_SERVED = {"apps/v1", "v1", "argoproj.io/v1alpha1"}
_MOST_REPLICAS = 50


class Variable(Lenient):
    """One environment variable; a value from elsewhere is not known here."""

    noted: ClassVar[frozenset[str]] = frozenset({"value_from"})
    name: str
    value: str | None = None
    value_from: Any = None


class ContainerPort(Lenient):
    """A port of a container, which a Service may name."""

    container_port: int
    name: str | None = None
    protocol: str = "TCP"


class Container(Lenient):
    """What runs in a pod."""

    name: str = ""
    image: str = ""
    command: list[str] | None = None
    args: list[str] | None = None
    env: list[Variable] | None = None
    ports: list[ContainerPort] | None = None


class PodSpec(Lenient):
    """What runs in a pod."""

    containers: list[Container]


class PodMetadata(Lenient):
    """The labels of a pod."""

    labels: dict[str, str] | None = None
    annotations: dict[str, str] | None = None
    name: str | None = None


class Template(Lenient):
    """What each pod of a workload is made from."""

    spec: PodSpec
    metadata: PodMetadata = msgspec.field(default_factory=PodMetadata)


class SubsetNames(Lenient):
    """The DestinationRule whose subsets a Rollout moves traffic between."""

    name: str = ""
    stable_subset_name: str = ""
    canary_subset_name: str = ""


class Mesh(Lenient):
    """Istio, as a Rollout is told of it."""

    destination_rule: SubsetNames | None = None


class TrafficRouting(Lenient):
    """What a Rollout moves traffic with."""

    istio: Mesh | None = None


class RolloutStep(Lenient):
    """One step of a canary; only weights are looked at."""

    set_weight: Annotated[int, msgspec.Meta(ge=0, le=100)] | None = None


class Canary(Lenient):
    """A Rollout that moves traffic by weights."""

    stable_service: str = ""
    canary_service: str = ""
    traffic_routing: TrafficRouting | None = None
    steps: list[RolloutStep] | None = None


class BlueGreen(Lenient):
    """A Rollout that moves all traffic at once."""

    active_service: str = ""
    preview_service: str = ""


class Strategy(Lenient):
    """How a Rollout goes."""

    canary: Canary | None = None
    blue_green: BlueGreen | None = None


class WorkloadRef(Lenient):
    """The Deployment whose pods a Rollout takes over."""

    name: str
    kind: str = "Deployment"


class WorkloadSpec(Lenient):
    """Pods, and how many."""

    template: Template | None = None
    selector: dict[str, Any] | None = None
    replicas: Annotated[int, msgspec.Meta(ge=0)] | None = None
    strategy: Any = None
    workload_ref: WorkloadRef | None = None


class WorkloadDocument(Lenient):
    """A Deployment, or another that makes pods from a template."""

    api_version: str
    kind: str
    metadata: Metadata
    spec: WorkloadSpec


class PodDocument(Lenient):
    """A Pod by itself."""

    api_version: str
    kind: str
    metadata: Metadata
    spec: PodSpec


class ServiceSpec(Lenient):
    """Ports, and the pods behind them."""

    ignored: ClassVar[frozenset[str]] = frozenset({"clusterIPs", "ipFamilies", "ipFamilyPolicy"})
    ports: list[ServicePort] | None = None
    selector: dict[str, str] | None = None
    cluster_ip: str | None = msgspec.field(default=None, name="clusterIP")
    type: str = "ClusterIP"


class ServiceDocument(Lenient):
    """The whole document."""

    api_version: str
    kind: str
    metadata: Metadata
    spec: ServiceSpec


class EntryPort(Lenient):
    """One port of a host outside the cluster."""

    number: Port
    name: str | None = None
    protocol: str = "TCP"
    target_port: Port | None = None


class EntryEndpoint(Lenient):
    """One address of such a host."""

    ignored: ClassVar[frozenset[str]] = frozenset({"ports", "network", "serviceAccount"})
    noted: ClassVar[frozenset[str]] = frozenset({"weight", "locality"})
    address: str = ""
    labels: dict[str, str] | None = None
    weight: int | None = None
    locality: str | None = None


class EntrySelector(Lenient):
    """The pods that a ServiceEntry stands for."""

    labels: dict[str, str] | None = None


class EntrySpec(Lenient):
    """Hosts, ports and addresses."""

    ignored: ClassVar[frozenset[str]] = frozenset({"location", "resolution"})
    hosts: Annotated[list[str], msgspec.Meta(min_length=1)]
    ports: list[EntryPort] | None = None
    endpoints: list[EntryEndpoint] | None = None
    workload_selector: EntrySelector | None = None
    addresses: list[str] | None = None
    export_to: list[str] | None = None


class EntryDocument(Lenient):
    """Istio's ServiceEntry."""

    api_version: str
    kind: str
    metadata: Metadata
    spec: EntrySpec


def read_workloads(documents: Iterable[Document], parse: ParseServe, note: Note) -> Workloads:
    """Read what makes pods, and Services and ServiceEntries.

    Args:
        documents: of these kinds.
        parse: reads the command line of ``serve``.
        note: takes what is not carried out.

    Raises:
        ManifestError: one of them is wrong.
    """
    reader = _Reader(parse, note)
    documents = list(documents)
    owners = {(each.kind, each.namespace, each.name) for each in documents}
    documents = [each for each in documents if not _owners(each) & owners]
    rollouts = [each for each in documents if each.kind == "Rollout"]
    for document in documents:
        if document.kind == "Service":
            reader.services.append(_read_service(document, note))
        elif document.kind == "ServiceEntry":
            reader.services += _read_entry(document, note)
        elif document.kind != "Rollout":
            reader.workload(document)
    for document in rollouts:
        reader.rollout(document)
    return Workloads(reader.workloads, reader.services, reader.steps)


def _owners(document: Document) -> set[tuple[str, str, str]]:
    """What a cluster made an object for, by kind, namespace and name.

    A Deployment owns its pods by a ReplicaSet, which has the name of the
    Deployment and a hash.
    """
    metadata = document.content.get("metadata")
    given = metadata.get("ownerReferences") if isinstance(metadata, dict) else None
    listed = given if isinstance(given, list) else []
    references = [each for each in listed if isinstance(each, dict)]
    found: set[tuple[str, str, str]] = set()
    for each in references:
        kind, name = str(each.get("kind")), str(each.get("name"))
        found.add((kind, document.namespace, name))
        if kind == "ReplicaSet":
            owner = name.rpartition("-")[0]
            found |= {(kind, document.namespace, owner) for kind in ("Deployment", "Rollout")}
    return found


class _Reader:
    """Reads workloads, and keeps what it has read."""

    def __init__(self, parse: ParseServe, note: Note) -> None:
        self.workloads: list[Workload] = []
        self.services: list[Service] = []
        self.steps: list[int] | None = None
        self._parse = parse
        self._note = note

    def workload(self, document: Document) -> None:
        """One that makes pods from a template, or is one."""
        if document.api_version not in _SERVED:
            newer = "clusters serve apps/v1 now"
            self._note(document, f"apiVersion {document.api_version}, where {newer}")
        read: PodDocument | WorkloadDocument
        if document.kind == "Pod":
            read = pod = document.read(PodDocument)
            labels, replicas, spec = pod.metadata.labels or {}, 1, pod.spec
            annotations, path = pod.metadata.annotations or {}, "spec"
        else:
            read = whole = document.read(WorkloadDocument)
            template = whole.spec.template
            if template is None:
                raise document.error("spec.template", "is missing")
            labels, spec = template.metadata.labels or {}, template.spec
            annotations, path = template.metadata.annotations or {}, "spec.template.spec"
            replicas = self._replicas(document, whole.spec)
            self._check_selector(document, whole.spec, labels)
        made = self._made(document, labels, spec, path)
        if made.config is not None:
            # Of what an echo server stands in for, nothing is carried out.
            self._unread(document, read)
        self.workloads.append(
            replace(made, replicas=replicas, sidecar=_has_sidecar(labels, annotations))
        )

    def rollout(self, document: Document) -> None:
        """Argo's Rollout: two sets of pods, made from one template."""
        read = document.read(WorkloadDocument)
        template, replicas = read.spec.template, self._replicas(document, read.spec)
        if template is not None:
            labels = template.metadata.labels or {}
            made = self._made(document, labels, template.spec, "spec.template.spec")
        else:
            made = self._taken_over(document, read.spec.workload_ref)
            replicas = made.replicas if read.spec.replicas is None else replicas
        strategy = document.read_part(Strategy, read.spec.strategy or {}, "spec.strategy")
        sets = _sets(strategy)
        canary = strategy.canary
        if canary is not None:
            steps = [each.set_weight for each in canary.steps or () if each.set_weight is not None]
            self.steps = (self.steps or []) + steps
        self.workloads += [
            replace(
                made,
                name=f"{document.namespace}/{document.name} {role}",
                short=document.name,
                kind="Rollout",
                role=role,
                replicas=replicas or 1,
                services=frozenset({service} - {""}),
                subset=subset,
            )
            for role, service, subset in sets
        ]

    def _taken_over(self, document: Document, reference: WorkloadRef | None) -> Workload:
        """The workload whose pods a Rollout takes over."""
        if reference is None:
            raise document.error("spec.template", "is missing")
        for each in self.workloads:
            if (each.namespace, each.short) == (document.namespace, reference.name):
                self.workloads.remove(each)
                return each
        raise document.error(
            "spec.workloadRef.name", f"there is no {reference.kind} {reference.name}"
        )

    def _replicas(self, document: Document, spec: WorkloadSpec) -> int:
        """How many pods run here."""
        wanted = 1 if spec.replicas is None else spec.replicas
        if wanted > _MOST_REPLICAS:
            self._note(document, f"more than {_MOST_REPLICAS} of its {wanted} replicas")
        return min(wanted, _MOST_REPLICAS)

    def _check_selector(
        self, document: Document, spec: WorkloadSpec, labels: Mapping[str, str]
    ) -> None:
        """Refuse a selector that does not match the workload's own pods."""
        wanted: Any = spec.selector or {}
        path = "spec.selector"
        if document.kind != "ReplicationController":
            wanted, path = wanted.get("matchLabels") or {}, f"{path}.matchLabels"
        if not isinstance(wanted, dict):
            raise document.error(path, "must be a mapping of labels")
        if not wanted.items() <= labels.items():
            raise document.error(
                path, f"{in_words(wanted)} does not match the pod's labels, {in_words(labels)}"
            )

    def _made(
        self, document: Document, labels: Mapping[str, str], pod: PodSpec, path: str
    ) -> Workload:
        """The workload of a pod's specification."""
        config: ServerConfig | None = None
        others: list[Container] = []
        for index, container in enumerate(pod.containers):
            place = f"{path}.containers[{index}]"
            known = _known(container, labels, document, place)
            found = None if config else _server_config(known, document, place, self._parse)
            config = config or found
            if found is None:
                others.append(container)
        if config is not None:
            for each in others:
                what = f"container {each.name} ({_what(each)}), which is no echo server"
                self._note(document, what)
            if config.greeting:
                self._note(document, "--greeting, which changes nothing about the route")
            if config.proxy_protocol:
                sender = "in the cluster something has to send the PROXY header"
                self._note(document, f"--proxy-protocol ({sender})")
            config = replace(config, greeting=False, proxy_protocol=False)
        return Workload(
            name=f"{document.namespace}/{document.name}",
            namespace=document.namespace,
            short=document.name,
            kind=document.kind,
            labels=labels,
            config=config,
            named_ports={
                each.name: each.container_port
                for container in pod.containers
                for each in container.ports or ()
                if each.name
            },
            declared=frozenset(
                each.container_port for one in pod.containers for each in one.ports or ()
            ),
            runs=_what(others[0] if others and config is None else pod.containers[0])
            if pod.containers
            else "nothing",
            document=document,
        )

    def _unread(self, document: Document, read: Lenient) -> None:
        for path in document.unread(read):
            self._note(document, path)


def _what(container: Container) -> str:
    """What a container runs."""
    return container.image or " ".join(container.command or ()) or "nothing"


def _has_sidecar(labels: Mapping[str, str], annotations: Mapping[str, str]) -> bool:
    """Whether a pod asks for Istio's proxy."""
    return "true" in {each.get("sidecar.istio.io/inject") for each in (labels, annotations)}


def _sets(strategy: Strategy) -> list[tuple[str, str, tuple[str, str] | None]]:
    """A Rollout's sets of pods: their role, Service, and DestinationRule with subset."""
    if strategy.blue_green is not None:
        both = strategy.blue_green
        return [("active", both.active_service, None), ("preview", both.preview_service, None)]
    canary = strategy.canary or Canary()
    routing = canary.traffic_routing
    rule = routing.istio.destination_rule if routing and routing.istio else None
    stable, other = (
        ((rule.name, rule.stable_subset_name), (rule.name, rule.canary_subset_name))
        if rule
        else (None, None)
    )
    return [("stable", canary.stable_service, stable), ("canary", canary.canary_service, other)]


def _read_service(document: Document, note: Note) -> Service:
    """The Service with its TCP ports."""
    read = document.read(ServiceDocument)
    ports = read.spec.ports or []
    for path in document.unread(read):
        note(document, path)
    for index, port in enumerate(ports):
        target = port.target_port
        if isinstance(target, str) and target.isdigit():
            raise document.error(
                f"spec.ports[{index}].targetPort",
                f"in quotes it is the name of a port, which must have a letter; write {target}",
            )
        if port.protocol != "TCP":
            note(document, f"port {port.port}, which is {port.protocol}")
    annotations = read.metadata.annotations or {}
    exported = annotations.get("networking.istio.io/exportTo", "")
    return Service(
        namespace=document.namespace,
        name=read.metadata.name,
        ports=tuple(port for port in ports if port.protocol == "TCP"),
        selector=(read.spec.selector or {}) if read.spec.type != "ExternalName" else {},
        document=document,
        headless=read.spec.cluster_ip == "None",
        host=f"{read.metadata.name}.{document.namespace}.{DOMAIN}",
        export_to=tuple(each.strip() for each in exported.split(",") if each.strip()),
    )


def _read_entry(document: Document, note: Note) -> list[Service]:
    """The hosts of a ServiceEntry, as Services."""
    read = document.read(EntryDocument)
    for path in document.unread(read):
        note(document, path)
    spec = read.spec
    ports = tuple(
        ServicePort(port=each.number, name=each.protocol.lower(), target_port=each.target_port)
        for each in spec.ports or ()
        if each.protocol.upper() != "UDP"
    )
    behind = tuple(
        Workload(
            name=f"{document.namespace}/{document.name} {each.address or index}",
            namespace=document.namespace,
            short=each.address or document.name,
            kind="ServiceEntry",
            labels=each.labels or {},
            runs="is outside the cluster",
            document=document,
        )
        for index, each in enumerate(spec.endpoints or ())
    )
    labels = spec.workload_selector.labels if spec.workload_selector else None
    return [
        Service(
            namespace=document.namespace,
            name=host,
            ports=ports,
            selector=labels or {},
            document=document,
            host=host,
            export_to=tuple(spec.export_to or ()),
            addresses=tuple(spec.addresses or ()),
            behind=behind,
        )
        for host in spec.hosts
    ]


_IMAGES = {"trio-echo", "tcp-echo-server"}
_ENTRY_POINTS = (
    ("trio-echo", "serve"),
    ("python", "-m", "trio_echo", "serve"),
    ("python3", "-m", "trio_echo", "serve"),
    ("tcp-echo",),
    ("tcp-echo-server",),
)
_MAIN = "main"
"""What the server is called in the image of the first demonstration."""

_DEFAULT_ARGUMENTS = ("9000", "hello")
_LABEL = re.compile(r"metadata\.labels\['(?P<key>[^']+)'\]")
_REFERENCE = re.compile(r"\$\$|\$\(([-._a-zA-Z][-._a-zA-Z0-9]*)\)")


def _server_config(
    container: Container, document: Document, path: str, parse: ParseServe
) -> ServerConfig | None:
    """What the container's server is told; None if it is no echo server of ours.

    Args:
        container: from the pod template of `document`.
        document: for complaints.
        path: the container's path in the document.
        parse: reads the command line of ``serve``.

    Raises:
        ManifestError: it runs ``serve`` with arguments that cannot work, or
            that are not known here.
    """
    environment = {each.name: each.value or "" for each in container.env or ()}
    command = [_expand(part, environment) for part in container.command or ()]
    arguments = [_expand(part, environment) for part in container.args or ()]
    if command:
        given = _after_entry_point(command, container.image)
        if given is None:
            return None
        arguments = given + arguments
    elif _image_name(container.image) not in _IMAGES:
        return None
    elif container.args is None:
        arguments = list(_DEFAULT_ARGUMENTS)
    try:
        config = parse(arguments, environment)
    except TrioEchoError as error:
        raise document.error(f"{path}.args", str(error)) from error
    every = manifest_ports(config)
    if 0 in every or len(set(every)) != len(every):
        raise document.error(f"{path}.args", "a Service needs ports that are given, and differ")
    return config


def _known(
    container: Container, labels: Mapping[str, str], document: Document, path: str
) -> Container:
    """The container with the values that its pod's labels give to its variables.

    A prefix that the cluster alone knows, such as a Rollout's hash of the pod, is the
    workload's name here.

    Raises:
        ManifestError: another setting of ours comes from the cluster.
    """
    variables: list[Variable] = []
    for index, variable in enumerate(container.env or ()):
        if variable.value_from is None or not variable.name.startswith("TRIO_ECHO_"):
            variables.append(variable)
            continue
        key = _LABEL.search(str(variable.value_from))
        value = labels.get(key["key"]) if key else None
        if value is None and variable.name == "TRIO_ECHO_PREFIX":
            value = document.name
        if value is None:
            raise document.error(
                f"{path}.env[{index}].valueFrom",
                f"{variable.name} comes from the cluster, which is not known here;"
                " give its value in the manifest",
            )
        variables.append(Variable(name=variable.name, value=value))
    return msgspec.structs.replace(container, env=variables)


def _after_entry_point(command: list[str], image: str) -> list[str] | None:
    """The arguments in a command that starts the server; None if it does not."""
    plain = (command[0].rpartition("/")[2], *command[1:])
    own = ((_MAIN,),) if _image_name(image) in _IMAGES else ()
    for entry in (*_ENTRY_POINTS, *own):
        if plain[: len(entry)] == entry:
            return command[len(entry) :]
    return None


def _image_name(image: str) -> str:
    """The last part of an image's name, without tag and digest."""
    return image.partition("@")[0].rpartition("/")[2].partition(":")[0]


def _expand(text: str, environment: Mapping[str, str]) -> str:
    """Put environment variables in, as Kubernetes does: ``$(NAME)``, ``$$`` for a dollar."""
    return _REFERENCE.sub(
        lambda found: "$" if found[1] is None else environment.get(found[1], found[0]), text
    )
