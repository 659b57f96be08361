"""What stands behind a Service: workloads, and the way from a Service's port to endpoints. Pure.

Anything can stand behind a route. An echo server of ours runs with its own
arguments. For everything else an echo server stands in, on the port that the
Service leads to.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal, Protocol, TypeAlias

import msgspec

from trio_echo.errors import TrioEchoError
from trio_echo.framing import encode_prefix
from trio_echo.rehearsal.documents import Lenient, listed
from trio_echo.rehearsal.route import Backend, manifest_ports
from trio_echo.server.config import ServerConfig, TLSConfig

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from trio_echo.rehearsal.documents import Document
    from trio_echo.rehearsal.notes import Notes
    from trio_echo.rehearsal.route import Endpoint

__all__ = [
    "ANY_PORT",
    "DOMAIN",
    "NO_CERTIFICATE",
    "ROOT",
    "Complain",
    "Note",
    "Port",
    "Service",
    "ServicePort",
    "Workload",
    "Workloads",
    "in_words",
]


class Complain(Protocol):
    """Makes an error out of a reason, at the place that leads to what is wrong.

    Where another document is at fault, ``at`` is that and the path in it.
    """

    def __call__(self, reason: str, /, *, at: tuple[Document, str] | None = None) -> Exception:
        """The error, to be raised."""


Note: TypeAlias = "Callable[[Document, str], None]"
"""Takes what is not carried out, with the document that says it."""
DOMAIN = "svc.cluster.local"

ROOT = "istio-system"
"""Istio's own namespace, whose rules hold everywhere, and whose Services come with Istio."""

ANY_PORT = 9000
"""Of a Service that no manifest has, where the route names none."""

Port = Annotated[int, msgspec.Meta(ge=1, le=65_535)]


class ServicePort(Lenient):
    """One port of a Service, and the port of the pods behind it."""

    noted: ClassVar[frozenset[str]] = frozenset({"node_port"})
    port: Port
    name: str | None = None
    protocol: str = "TCP"
    app_protocol: str | None = None
    target_port: Port | str | None = None
    node_port: int | None = None

    @property
    def speaks(self) -> Literal["tcp", "tls", "http"]:
        """How Istio takes it in the mesh, by its appProtocol or the first part of its name."""
        name = (self.app_protocol or (self.name or "").partition("-")[0]).lower()
        name = name.removeprefix("kubernetes.io/")
        if name in {"http", "http2", "h2c", "ws", "grpc", "grpc-web"}:
            return "http"
        return "tls" if name in {"tls", "https"} else "tcp"


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Workload:
    """Pods that are alike.

    Attributes:
        name: what its backend is called: namespace and name, and which of a Rollout's two sets.
        namespace: where it is.
        short: its name there.
        kind: what the manifests call it.
        labels: its pods' labels.
        config: what its own arguments say; None where an echo server stands in.
        replicas: how many pods it has.
        named_ports: the containers' ports by their name.
        declared: the containers' ports that are given at all, which says nothing of others.
        runs: the image that it runs, or what else it is; for notes.
        role: which of a Rollout's sets it is, such as ``canary``; else empty.
        sidecar: whether its pods say that they have Istio's proxy.
        services: the only Services that lead to it; None for all that select it.
        subset: the DestinationRule and subset that a Rollout moves it by.
        document: for notices.
    """

    name: str
    namespace: str
    short: str
    kind: str
    labels: Mapping[str, str]
    config: ServerConfig | None = None
    replicas: int = 1
    named_ports: Mapping[str, int] = field(default_factory=dict)
    declared: frozenset[int] = frozenset()
    runs: str = ""
    role: str = ""
    sidecar: bool = False
    services: frozenset[str] | None = None
    subset: tuple[str, str] | None = None
    document: Document | None = None

    def matches(self, labels: Mapping[str, str]) -> bool:
        """Whether its pods have all these labels."""
        return labels.items() <= self.labels.items()


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Service:
    """A name in front of pods, or of hosts outside the cluster.

    Attributes:
        namespace: where it is.
        name: its name there; the first host of a ServiceEntry.
        ports: its TCP ports.
        selector: what the pods behind it are labelled with.
        document: for complaints.
        headless: whether clients get the pods' own addresses.
        host: its fully qualified name.
        export_to: the namespaces that see it, where it says so.
        addresses: where clients find it, as a ServiceEntry says.
        behind: what a ServiceEntry itself lists.
        assumed: whether no manifest has it.
        kind: what the manifests call it.
    """

    namespace: str
    name: str
    ports: tuple[ServicePort, ...]
    selector: Mapping[str, str]
    document: Document | None = None
    headless: bool = False
    host: str = ""
    export_to: tuple[str, ...] = ()
    addresses: tuple[str, ...] = ()
    behind: tuple[Workload, ...] = ()
    assumed: bool = False
    kind: str = "Service"


class Workloads:
    """All workloads and Services, and the echo servers that stand in for workloads.

    Attributes:
        workloads: all that makes pods.
        services: all Services, those of ServiceEntries included.
        steps: the weights of the canary that a Rollout among the documents goes
            through; None without one.
        routed: the Services that routes lead to.
        missed: workloads of which it was said that they get no connection.
    """

    def __init__(
        self, workloads: Sequence[Workload], services: Sequence[Service], steps: list[int] | None
    ) -> None:
        self.workloads = list(workloads)
        self.services = list(services)
        self._bare = not services
        self.steps = steps
        self.routed: set[Service] = set()
        self.missed: set[Workload] = set()
        self._ports: dict[Workload, set[int]] = {}
        self._named: dict[Workload, str] = {}
        self._undeclared: dict[tuple[Service, int, int], set[Workload]] = {}

    def find(self, host: str) -> Service | None:
        """The Service of a fully qualified host name."""
        return next((each for each in self.services if each.host == host), None)

    def service(self, host: str, namespace: str, complain: Complain) -> Service:
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
        if domain in {"", "svc", DOMAIN}:
            wanted = f"{name}.{where or namespace}.{DOMAIN}"
            if (found := self.find(wanted)) is not None:
                return found
        if (found := self.find(host)) is not None:
            return found
        elsewhere = where == ROOT and all(each.namespace != ROOT for each in self.services)
        if (self._bare or elsewhere) and "*" not in host:
            return self._assume(host, namespace)
        there = listed([f"{each.name} in {each.namespace}" for each in self.services])
        in_words = f"Service {host}" if rest else f"Service {host} in namespace {namespace}"
        raise complain(f"there is no {in_words}; Services found: {there}")

    def _assume(self, host: str, namespace: str) -> Service:
        """A Service that manifests need not have: of a route by itself, or Istio's own."""
        name, _, rest = host.partition(".")
        made = Service(
            namespace=rest.partition(".")[0] or namespace,
            name=name,
            ports=(),
            selector={},
            host=host if rest else f"{name}.{namespace}.{DOMAIN}",
            assumed=True,
        )
        self.services.append(made)
        return made

    def port(self, service: Service, number: int | None, complain: Complain) -> ServicePort:
        """The port of a Service with this number, or its only one.

        Raises:
            ManifestError: there is none, or none is given and there are several.
        """
        for port in service.ports:
            if port.port == number or (number is None and len(service.ports) == 1):
                return port
        if service.assumed:
            return ServicePort(port=number or ANY_PORT)
        found = listed([str(port.port) for port in service.ports])
        if number is None:
            raise complain(f"must name a port of Service {service.name}; ports found: {found}")
        raise complain(f"Service {service.name} has no port {number}; ports found: {found}")

    def selected(self, service: Service) -> list[Workload]:
        """The workloads whose pods a Service selects, those without any included."""
        if service.behind:
            return list(service.behind)
        return [
            each
            for each in self.workloads
            if each.namespace == service.namespace
            and (
                service.name in each.services
                if each.services is not None and service.name in self._rollout_services
                else service.selector and each.matches(service.selector)
            )
        ]

    @property
    def _rollout_services(self) -> set[str]:
        """The names of the Services whose selector a Rollout's controller sets."""
        return {name for each in self.workloads for name in each.services or ()}

    def behind(self, service: Service) -> list[Workload]:
        """The workloads whose pods a Service selects and that have a pod at all."""
        return [each for each in self.selected(service) if each.replicas]

    def stand_in(self, service: Service, label: str = "") -> Workload | None:
        """An echo server in the place of what the manifests leave out behind a Service.

        Args:
            service: nothing among the manifests is behind it.
            label: which part of it is meant, such as a subset.

        Returns:
            None where workloads are there that have such labels, with other values.
        """
        keys = set(service.selector)
        alike = (
            each.kind != "Service"
            and each.namespace == service.namespace
            and keys & set(each.labels)
            for each in self.workloads
        )
        if self.selected(service) or any(alike):
            return None
        name = f"{service.namespace}/{service.name}" + (f" {label}" if label else "")
        for each in self.workloads:
            if each.name == name:
                return each
        made = Workload(
            name=name,
            namespace=service.namespace,
            short=service.name,
            kind="Service",
            labels={},
            runs=f"{service.kind} {service.name} "
            + ("is not" if service.assumed else "has no workload")
            + " among the manifests",
            services=frozenset(),
            document=service.document,
        )
        self.workloads.append(made)
        return made

    def endpoints(
        self,
        service: Service,
        port: ServicePort,
        complain: Complain,
        *,
        among: Iterable[Workload] | None = None,
        subset: str = "",
    ) -> tuple[Endpoint, ...]:
        """The endpoints behind a Service's port.

        Args:
            service: whose pods are meant.
            port: one of its ports.
            complain: makes the error, at the place that leads here.
            among: only these workloads; all behind the Service if None.
            subset: the name by which they are meant, where there is one.

        Raises:
            ManifestError: there is no pod, or none of its ports is meant.
        """
        self.routed.add(service)
        chosen = self.behind(service) if among is None else list(among)
        if not chosen and (made := self.stand_in(service, subset)) is not None:
            chosen = [made]
        if not chosen:
            found = listed(
                [
                    f"{each.short}{_elsewhere(each, service)} {in_words(each.labels)}"
                    + ("" if each.replicas else " (0 replicas)")
                    for each in self.workloads
                ]
            )
            raise complain(
                f"Service {service.name} selects no pod ({in_words(service.selector)});"
                f" workloads found: {found}",
                at=_written(service),
            )
        endpoints: list[Endpoint] = []
        for workload in chosen:
            number = self._number(service, port, workload, complain)
            if workload.config is None:
                self._ports.setdefault(workload, set()).add(number)
                if subset and len(chosen) == 1:
                    self._named.setdefault(workload, subset)
            endpoints += _shape(workload).endpoints(number)
        return tuple(endpoints)

    def _number(
        self, service: Service, port: ServicePort, workload: Workload, complain: Complain
    ) -> int:
        """The port of a workload that a Service's port leads to."""
        target = port.port if port.target_port is None else port.target_port
        if isinstance(target, str) and workload.kind == "Service":
            return port.port  # nobody says what the name stands for
        number = workload.named_ports.get(target) if isinstance(target, str) else target
        listening = manifest_ports(workload.config) if workload.config else [number]
        if number is None or number not in listening:
            named = [f"{value} ({name})" for name, value in workload.named_ports.items()]
            there = listed([str(each) for each in listening] if workload.config else named)
            raise complain(
                f"port {port.port} of Service {service.name} leads to port {target} of"
                f" {workload.kind} {workload.short}, which listens on {there}",
                at=_written(service, port.port),
            )
        declared = workload.declared if _written(service) else ()
        if not workload.config and declared and number not in declared:
            self._undeclared.setdefault((service, port.port, number), set()).add(workload)
        return number

    def _warn_of_undeclared(self, notes: Notes) -> None:
        """Warn of ports that a Service leads to and no container says that it has.

        Kubernetes leaves a container free to listen on more than it declares.
        """
        for (service, port, number), found in self._undeclared.items():
            among = [each for each in self.workloads if each in found]
            ports = sorted({port for each in among for port in each.declared})
            place = _written(service, port)
            assert place is not None  # noqa: S101 - `_number` has looked
            notes.warn(
                f"port {port} of Service {service.name} leads to port {number}, which"
                f" {listed([f'{each.kind} {each.short}' for each in among])}"
                f" {'do' if len(among) > 1 else 'does'} not declare; declared:"
                f" {listed([str(each) for each in ports])}. If nothing listens there,"
                " every connection fails",
                *place,
            )

    def backends(self, secure: set[tuple[str, int]], notes: Notes) -> list[Backend]:
        """Everything that runs: echo servers of ours, and those that stand in.

        Args:
            secure: backends' names and ports that are reached by TLS which is
                passed through, so that who stands in must speak it.
            notes: takes a line for each that stands in.
        """
        self._warn_of_undeclared(notes)
        ours = [each for each in self.workloads if each.config is not None and not each.role]
        found = [_shape(each) for each in ours]
        taken = Counter(each.config.prefix for each in found)
        everyone = [*self.workloads, *(each for s in self.services for each in s.behind)]
        replaced = [each for each in everyone if each in self._ports or (each.role and each.config)]
        names = _unique({each: self._candidates(each) for each in replaced}, taken)
        for each in replaced:
            backend = _standing(each, names[each], self._ports.get(each, set()), secure)
            found.append(backend)
            numbers = manifest_ports(backend.config)
            ports = f"port{'s' * (len(numbers) > 1)} {listed([str(one) for one in numbers])}"
            who = f"an echo server named {names[each]} stands in on {ports}"
            why = ", as one template makes both sets of pods" if each.config else ""
            alone = self._unselected(each)
            if alone and alone[0].document:
                unselected = listed([f"{one.kind} {one.short}" for one in alone])
                text = f"{_says(each)}, and none selects {unselected}: {who}"
                notes.warn(text, alone[0].document)
            else:
                notes.say(f"{_says(each)}: {who}{why}", each.document)
        return found

    def _unselected(self, made: Workload) -> list[Workload]:
        """The workloads beside a Service that no manifest has, which no Service selects."""
        if made.kind != "Service" or made.document is not None:
            return []
        selected = [each for service in self.services for each in self.selected(service)]
        return [
            each
            for each in self.workloads
            if each.namespace == made.namespace
            and each.kind != "Service"
            and each.replicas
            and each not in selected
        ]

    def stands_in(self, name: str) -> bool:
        """Whether an echo server stands in where the backend of this name is."""
        return all(each.config is None for each in self.workloads if each.name == name)

    def _candidates(self, workload: Workload) -> list[str]:
        """The names for who stands in for a workload, the best first."""
        version = workload.labels.get("version") or workload.labels.get(
            "app.kubernetes.io/version", ""
        )
        wanted = [
            workload.role,
            self._named.get(workload, ""),
            version,
            f"{workload.short}-{workload.role}" if workload.role else workload.short,
            workload.name,
        ]
        return [name for name in wanted if name and _answers(name)]


def _written(service: Service, port: int | None = None) -> tuple[Document, str] | None:
    """Where a Service's selector is written, or where one of its ports leads; None if nowhere."""
    document = service.document
    if document is None or document.kind != "Service":
        return None
    if port is None:
        return document, "spec.selector"
    ports = document.content["spec"]["ports"]
    return document, f"spec.ports[{[each['port'] for each in ports].index(port)}].targetPort"


def _answers(name: str) -> bool:
    """Whether an echo server can have this name."""
    try:
        encode_prefix(name)
    except TrioEchoError:
        return False
    return True


def _elsewhere(workload: Workload, service: Service) -> str:
    """The namespace of a workload, where it is not the Service's."""
    return "" if workload.namespace == service.namespace else f" in {workload.namespace}"


def _says(workload: Workload) -> str:
    """What stands behind a route, in words."""
    if workload.kind == "Service":
        return workload.runs
    if workload.kind == "ServiceEntry":
        return f"{workload.short} {workload.runs}"
    which = f"{workload.role} pods of {workload.short} run" if workload.role else ""
    return f"{which or f'{workload.short} runs'} {workload.runs}"


def _unique(candidates: Mapping[Workload, list[str]], taken: Counter[str]) -> dict[Workload, str]:
    """A name of its own for each: those whose first choice is shared take their next."""
    chosen = dict.fromkeys(candidates, 0)
    while True:
        names = {each: options[chosen[each]] for each, options in candidates.items()}
        counts = Counter(names.values()) + taken
        shared = [
            each
            for each, name in names.items()
            if counts[name] > 1 and chosen[each] + 1 < len(candidates[each])
        ]
        if not shared:
            return names
        for each in shared:
            chosen[each] += 1


def _shape(workload: Workload) -> Backend:
    """The backend of a workload; of one that somebody stands in for, all but its configuration."""
    config = workload.config or ServerConfig(ports=[1])
    return Backend(name=workload.name, config=config, replicas=workload.replicas)


def _standing(
    workload: Workload, name: str, ports: set[int], secure: set[tuple[str, int]]
) -> Backend:
    """An echo server in the place of a workload."""
    if workload.config is not None:
        return replace(_shape(workload), config=replace(workload.config, prefix=name))
    with_tls = sorted(port for port in ports if (workload.name, port) in secure)
    plain = sorted(ports - set(with_tls))
    tls = TLSConfig(ports=with_tls, cert=NO_CERTIFICATE) if with_tls else None
    return replace(_shape(workload), config=ServerConfig(ports=plain, prefix=name, tls=tls))


NO_CERTIFICATE: Any = ""
"""In the place of a path: the testbed puts a certificate of its own there."""


def in_words(labels: Mapping[str, str]) -> str:
    """Labels as kubectl writes them."""
    return ",".join(f"{key}={value}" for key, value in labels.items()) or "no labels"
