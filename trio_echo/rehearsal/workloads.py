"""Workloads and Services -> backends, and the way from a host name to endpoints. Pure.

The command line of ``serve`` in a container is read by its own parser, which is handed in.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, TypeAlias

import msgspec

from trio_echo.errors import TrioEchoError
from trio_echo.rehearsal.documents import Lenient, Metadata
from trio_echo.rehearsal.route import Backend, manifest_ports
from trio_echo.server.config import ServerConfig

if TYPE_CHECKING:
    from collections.abc import Iterable

    from trio_echo.errors import ManifestError
    from trio_echo.rehearsal.documents import Document
    from trio_echo.rehearsal.route import Endpoint

__all__ = ["ParseServe", "Service", "Workload", "Workloads", "read_workloads"]

Port = Annotated[int, msgspec.Meta(ge=1, le=65_535)]


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

    name: str
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
    """What each pod of a Deployment is made from."""

    spec: PodSpec
    metadata: PodMetadata = msgspec.field(default_factory=PodMetadata)


class Selector(Lenient):
    """Which pods are a Deployment's own."""

    match_labels: dict[str, str] | None = None


class DeploymentSpec(Lenient):
    """Pods, and how many."""

    template: Template
    selector: Selector = msgspec.field(default_factory=Selector)
    replicas: Annotated[int, msgspec.Meta(ge=0)] = 1


class Deployment(Lenient):
    """The whole document."""

    api_version: str
    kind: str
    metadata: Metadata
    spec: DeploymentSpec


class ServicePort(Lenient):
    """One port of a Service, and the port of the pods behind it."""

    noted: ClassVar[frozenset[str]] = frozenset({"node_port"})
    port: Port
    name: str | None = None
    protocol: str = "TCP"
    app_protocol: str | None = None
    target_port: Port | str | None = None
    node_port: int | None = None


class ServiceSpec(Lenient):
    """Ports, and the pods behind them."""

    ports: list[ServicePort] | None = None
    selector: dict[str, str] | None = None


class ServiceDocument(Lenient):
    """The whole document."""

    api_version: str
    kind: str
    metadata: Metadata
    spec: ServiceSpec


ParseServe: TypeAlias = Callable[[Sequence[str], Mapping[str, str]], ServerConfig]
"""The arguments after ``serve`` and the environment -> the configuration."""

_IMAGES = {"trio-echo", "tcp-echo-server"}
_ENTRY_POINTS = (
    ("trio-echo", "serve"),
    ("python", "-m", "trio_echo", "serve"),
    ("python3", "-m", "trio_echo", "serve"),
    ("tcp-echo",),
    ("tcp-echo-server",),
)
_DEFAULT_ARGUMENTS = ("9000", "hello")
_REFERENCE = re.compile(r"\$\$|\$\(([-._a-zA-Z][-._a-zA-Z0-9]*)\)")


def server_config(
    container: Container, document: Document, path: str, parse: ParseServe
) -> ServerConfig | None:
    """What the container's server is told; None if it is no echo server of ours.

    Args:
        container: from the pod template at `path` of `document`.
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
        given = _after_entry_point(command)
        if given is None:
            return None
        arguments = given + arguments
    elif _image_name(container.image) not in _IMAGES:
        return None
    elif container.args is None:
        arguments = list(_DEFAULT_ARGUMENTS)
    for index, variable in enumerate(container.env or ()):
        if variable.value_from is not None and variable.name.startswith("TRIO_ECHO_"):
            raise document.error(
                f"{path}.env[{index}].valueFrom",
                f"{variable.name} comes from the cluster, which is not known here;"
                " give its value in the manifest",
            )
    try:
        config = parse(arguments, environment)
    except TrioEchoError as error:
        raise document.error(f"{path}.args", str(error)) from error
    every = manifest_ports(config)
    if 0 in every or len(set(every)) != len(every):
        raise document.error(f"{path}.args", "a Service needs ports that are given, and differ")
    return config


def _after_entry_point(command: list[str]) -> list[str] | None:
    """The arguments in a command that starts the server; None if it does not."""
    plain = (command[0].rpartition("/")[2], *command[1:])
    for entry in _ENTRY_POINTS:
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


_MOST_REPLICAS = 50
_DOMAIN = "svc.cluster.local"


@dataclass(frozen=True, slots=True, kw_only=True)
class Workload:
    """A Deployment that runs an echo server of ours.

    Attributes:
        backend: its servers.
        namespace: where it is.
        name: its name there.
        labels: its pods' labels.
        named_ports: the container's ports by their name.
    """

    backend: Backend
    namespace: str
    name: str
    labels: Mapping[str, str]
    named_ports: Mapping[str, int]

    def matches(self, labels: Mapping[str, str]) -> bool:
        """Whether its pods have all these labels."""
        return labels.items() <= self.labels.items()


@dataclass(frozen=True, slots=True, kw_only=True)
class Service:
    """A name in front of pods.

    Attributes:
        namespace: where it is.
        name: its name there.
        ports: its TCP ports.
        selector: what the pods behind it are labelled with.
        document: for complaints.
    """

    namespace: str
    name: str
    ports: tuple[ServicePort, ...]
    selector: Mapping[str, str]
    document: Document

    @property
    def host(self) -> str:
        """Its fully qualified name."""
        return f"{self.name}.{self.namespace}.{_DOMAIN}"


@dataclass(frozen=True, slots=True)
class Workloads:
    """All Deployments that run ours, and all Services."""

    deployments: tuple[Workload, ...]
    services: tuple[Service, ...]

    def service(
        self, host: str, namespace: str, complain: Callable[[str], ManifestError]
    ) -> Service:
        """The Service that a host name means.

        Args:
            host: short, or qualified as far as one likes.
            namespace: where a short one is looked up.
            complain: makes the error, at the place of the host name.

        Raises:
            ManifestError: there is none.
        """
        name, _, rest = host.partition(".")
        where, _, domain = rest.partition(".")
        if domain in {"", "svc", _DOMAIN}:
            wanted = (where or namespace, name)
            for service in self.services:
                if (service.namespace, service.name) == wanted:
                    return service
        found = _listed(f"{each.name} in {each.namespace}" for each in self.services)
        in_words = f"Service {host}" if rest else f"Service {host} in namespace {namespace}"
        raise complain(f"there is no {in_words}; Services found: {found}")

    def port(
        self, service: Service, number: int | None, complain: Callable[[str], ManifestError]
    ) -> ServicePort:
        """The port of a Service with this number, or its only one.

        Raises:
            ManifestError: there is none, or none is given and there are several.
        """
        for port in service.ports:
            if port.port == number or (number is None and len(service.ports) == 1):
                return port
        found = _listed(str(port.port) for port in service.ports)
        if number is None:
            raise complain(f"must name a port of Service {service.name}; ports found: {found}")
        raise complain(f"Service {service.name} has no port {number}; ports found: {found}")

    def selected(self, service: Service) -> list[Workload]:
        """The Deployments whose pods a Service selects, those without any included."""
        return [
            each
            for each in self.deployments
            if service.selector
            and each.namespace == service.namespace
            and each.matches(service.selector)
        ]

    def behind(self, service: Service) -> list[Workload]:
        """The Deployments whose pods a Service selects and that have a pod at all."""
        return [each for each in self.selected(service) if each.backend.replicas]

    def endpoints(
        self,
        service: Service,
        port: ServicePort,
        complain: Callable[[str], ManifestError],
        *,
        among: Iterable[Workload] | None = None,
    ) -> tuple[Endpoint, ...]:
        """The endpoints behind a Service's port.

        Args:
            service: whose pods are meant.
            port: one of its ports.
            complain: makes the error, at the place that leads here.
            among: only these Deployments; all behind the Service if None.

        Raises:
            ManifestError: there is no pod, or none of its ports is meant.
        """
        chosen = self.behind(service) if among is None else list(among)
        if not chosen:
            found = _listed(
                f"{each.name} {_labels(each.labels)}"
                + ("" if each.backend.replicas else " (0 replicas)")
                for each in self.deployments
            )
            raise complain(
                f"Service {service.name} selects no pod ({_labels(service.selector)});"
                f" Deployments of echo servers found: {found}"
            )
        endpoints: list[Endpoint] = []
        for workload in chosen:
            target = port.port if port.target_port is None else port.target_port
            number = workload.named_ports.get(target) if isinstance(target, str) else target
            listening = manifest_ports(workload.backend.config)
            if number not in listening:
                raise complain(
                    f"port {port.port} of Service {service.name} leads to port {target} of"
                    f" Deployment {workload.name}, which listens on {_listed(map(str, listening))}"
                )
            endpoints += workload.backend.endpoints(number)
        return tuple(endpoints)


def read_workloads(
    documents: Iterable[Document], parse: ParseServe, note: Callable[[Document, str], None]
) -> Workloads:
    """Read Deployments and Services.

    Args:
        documents: of these two kinds.
        parse: reads the command line of ``serve``.
        note: takes what is not carried out.

    Raises:
        ManifestError: one of them is wrong.
    """
    deployments: list[Workload] = []
    services: list[Service] = []
    for document in documents:
        if document.kind == "Deployment":
            deployments += _read_deployment(document, parse, note)
        else:
            services.append(_read_service(document, note))
    return Workloads(tuple(deployments), tuple(services))


def _read_deployment(
    document: Document, parse: ParseServe, note: Callable[[Document, str], None]
) -> list[Workload]:
    """The Deployment as a workload; none if it runs no echo server of ours."""
    read = document.read(Deployment)
    pod = read.spec.template
    labels = pod.metadata.labels or {}
    wanted = read.spec.selector.match_labels or {}
    if not wanted.items() <= labels.items():
        raise document.error(
            "spec.selector.matchLabels",
            f"{_labels(wanted)} does not match the pod's labels, {_labels(labels)}",
        )
    found: list[Workload] = []
    for index, container in enumerate(pod.spec.containers):
        path = f"spec.template.spec.containers[{index}]"
        config = None if found else server_config(container, document, path, parse)
        if config is None:
            what = container.image or " ".join(container.command or ()) or "nothing"
            note(document, f"container {container.name} ({what}), no echo server of ours")
            continue
        replicas = min(read.spec.replicas, _MOST_REPLICAS)
        if replicas < read.spec.replicas:
            note(document, f"more than {_MOST_REPLICAS} of its {read.spec.replicas} replicas")
        found.append(
            Workload(
                backend=Backend(
                    name=f"{document.namespace}/{read.metadata.name}",
                    config=config,
                    replicas=replicas,
                ),
                namespace=document.namespace,
                name=read.metadata.name,
                labels=labels,
                named_ports={
                    each.name: each.container_port for each in container.ports or () if each.name
                },
            )
        )
    for path in document.unread(read):
        note(document, path)
    return found


def _read_service(document: Document, note: Callable[[Document, str], None]) -> Service:
    """The Service with its TCP ports."""
    read = document.read(ServiceDocument)
    ports = read.spec.ports or []
    for path in document.unread(read):
        note(document, path)
    for port in ports:
        if port.protocol != "TCP":
            note(document, f"port {port.port}, which is {port.protocol}")
    return Service(
        namespace=document.namespace,
        name=read.metadata.name,
        ports=tuple(port for port in ports if port.protocol == "TCP"),
        selector=read.spec.selector or {},
        document=document,
    )


def _labels(labels: Mapping[str, str]) -> str:
    """Labels as kubectl writes them."""
    return ",".join(f"{key}={value}" for key, value in labels.items()) or "no labels"


def _listed(names: Iterable[str]) -> str:
    """Names in a row, or the word for none."""
    return ", ".join(names) or "none"
