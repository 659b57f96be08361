"""Gateway API's Gateways and ListenerSets -> the ports that routes may attach to. Pure.

What an API server refuses is an error here, in its words. Which data plane
runs a Gateway is what its class says.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

import msgspec

from trio_echo.rehearsal.dataplane import DEFAULT, PLANES, plane_of
from trio_echo.rehearsal.documents import Lenient, Metadata, Strict
from trio_echo.rehearsal.envoy_gateway import Policies
from trio_echo.rehearsal.route import Termination
from trio_echo.rehearsal.workloads import DOMAIN, Service, ServicePort

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

    from trio_echo.rehearsal.destination_rules import DestinationRules
    from trio_echo.rehearsal.documents import Document
    from trio_echo.rehearsal.envoy import Plane
    from trio_echo.rehearsal.notes import Notes
    from trio_echo.rehearsal.route import Chain
    from trio_echo.rehearsal.workloads import Workloads

__all__ = ["GROUP", "Grants", "Place", "Port", "Reader", "places"]

GROUP = "gateway.networking.k8s.io"

Port = Annotated[int, msgspec.Meta(ge=1, le=65_535)]

_NAME = re.compile(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*")
_HTTP = {"HTTP", "HTTPS"}
_MESH = {
    "tcp": frozenset({"TCPRoute", "TLSRoute"}),
    "tls": frozenset({"TLSRoute"}),
    "http": frozenset[str](),
}
"""The routes that Istio carries out at a port of a Service."""

_MUTUAL = {"MUTUAL", "ISTIO_MUTUAL"}


class Reference(Strict):
    """An object by its name, in the same namespace where it names none."""

    name: str
    group: str = ""
    kind: str = "Secret"
    namespace: str | None = None


class ListenerTls(Strict):
    """What a listener does with TLS."""

    mode: Literal["Terminate", "Passthrough"] = "Terminate"
    certificate_refs: list[Reference] | None = None
    options: dict[str, str] | None = None


class RouteKind(Strict):
    """A kind of route."""

    kind: str
    group: str = GROUP


class Requirement(Strict):
    """A condition on one label."""

    key: str
    operator: Literal["In", "NotIn", "Exists", "DoesNotExist"]
    values: list[str] | None = None

    def met_by(self, labels: Mapping[str, str]) -> bool:
        """Whether labels meet it."""
        found = labels.get(self.key)
        if self.operator in {"Exists", "DoesNotExist"}:
            return (found is not None) == (self.operator == "Exists")
        return (found in (self.values or ())) == (self.operator == "In")


class Selector(Strict):
    """Namespaces by their labels."""

    match_labels: dict[str, str] | None = None
    match_expressions: list[Requirement] | None = None

    def selects(self, labels: Mapping[str, str]) -> bool:
        """Whether a namespace with these labels is meant."""
        return (self.match_labels or {}).items() <= labels.items() and all(
            each.met_by(labels) for each in self.match_expressions or ()
        )


class Namespaces(Strict, rename={"from_": "from"}):
    """Whose routes may attach."""

    from_: Literal["All", "Selector", "Same"] = "Same"
    selector: Selector = msgspec.field(default_factory=Selector)


class AllowedRoutes(Strict):
    """Which routes may attach."""

    namespaces: Namespaces = msgspec.field(default_factory=Namespaces)
    kinds: list[RouteKind] | None = None


class ListenerSpec(Strict):
    """One port of a Gateway."""

    name: str
    port: Port
    protocol: str
    hostname: str | None = None
    tls: ListenerTls | None = None
    allowed_routes: AllowedRoutes = msgspec.field(default_factory=AllowedRoutes)


class ListenerNamespaces(Strict, rename={"from_": "from"}):
    """Whose ListenerSets may attach."""

    from_: Literal["All", "Selector", "Same", "None"] = "None"
    selector: Selector = msgspec.field(default_factory=Selector)


class AllowedListeners(Strict):
    """Which ListenerSets may attach."""

    namespaces: ListenerNamespaces = msgspec.field(default_factory=ListenerNamespaces)


class FrontendDefault(Lenient):
    """What a gateway asks of clients; None of it, if no validation is given."""

    validation: Any = None


class Frontend(Lenient):
    """TLS towards clients."""

    default: FrontendDefault = msgspec.field(default_factory=FrontendDefault)


class GatewayTls(Lenient):
    """TLS of all listeners."""

    frontend: Frontend = msgspec.field(default_factory=Frontend)


class GatewaySpec(Strict):
    """The listeners."""

    noted: ClassVar[frozenset[str]] = frozenset({"addresses", "infrastructure"})
    gateway_class_name: str
    listeners: list[ListenerSpec] = msgspec.field(default_factory=list)
    addresses: Any = None
    infrastructure: Any = None
    tls: GatewayTls = msgspec.field(default_factory=GatewayTls)
    allowed_listeners: AllowedListeners = msgspec.field(default_factory=AllowedListeners)


class Gateway(Lenient):
    """The whole document."""

    api_version: str
    kind: str
    metadata: Metadata
    spec: GatewaySpec


class ListenerSetSpec(Strict):
    """More listeners for a Gateway."""

    parent_ref: Reference
    listeners: list[ListenerSpec]


class ListenerSet(Lenient):
    """The whole document."""

    api_version: str
    kind: str
    metadata: Metadata
    spec: ListenerSetSpec


class ClassSpec(Lenient):
    """Who runs the Gateways of a class."""

    controller_name: str


class GatewayClass(Lenient):
    """The whole document."""

    api_version: str
    kind: str
    metadata: Metadata
    spec: ClassSpec


class GrantFrom(Strict):
    """Who may refer."""

    group: str
    kind: str
    namespace: str


class GrantTo(Lenient):
    """What may be referred to: all of a kind where it names none."""

    group: str
    kind: str
    name: str | None = None


class GrantSpec(Strict):
    """References from other namespaces that are allowed."""

    from_: list[GrantFrom] = msgspec.field(name="from")
    to: list[GrantTo]


class ReferenceGrant(Lenient):
    """The whole document."""

    api_version: str
    kind: str
    metadata: Metadata
    spec: GrantSpec


class Grants:
    """All ReferenceGrants."""

    def __init__(self, documents: Iterable[Document]) -> None:
        """Read those among `documents`."""
        self._grants = [
            (document.namespace, document.read(ReferenceGrant).spec)
            for document in documents
            if document.kind == "ReferenceGrant"
        ]

    def allow(
        self, kind: str, namespace: str, to: tuple[str, str, str], target_namespace: str
    ) -> bool:
        """Whether an object of Gateway API may refer to one of another namespace.

        Args:
            kind: of the object that refers.
            namespace: where it is.
            to: group, kind and name of the other.
            target_namespace: where that is.
        """
        if namespace == target_namespace:
            return True
        group, wanted, name = to
        return any(
            where == target_namespace
            and any(
                (each.group, each.kind, each.namespace) == (GROUP, kind, namespace)
                for each in grant.from_
            )
            and any(
                (each.group, each.kind) == (group, wanted) and each.name in {None, name}
                for each in grant.to
            )
            for where, grant in self._grants
        )


@dataclass(slots=True, kw_only=True)
class Place:
    """A port that a route may attach to: a listener, or a Service in the mesh.

    Attributes:
        named: the parent and the port, in words.
        port: its number.
        kind: the kind of the parent, ``Gateway``, ``ListenerSet`` or ``Service``.
        parent: its namespace and name.
        gateway: those of the Gateway that it belongs to; the parent's in the mesh.
        section: the listener's name; None for a Service.
        protocol: what the listener speaks.
        takes: the kinds of route that may attach.
        stands_in: whether no document has it.
        hostname: the server names that it is for; None for all.
        admits: whether routes of a namespace may attach.
        tls: how TLS ends there; None where it does not.
        plane: who runs it.
        document: the parent, for notices.
        chains: what routes have attached so far, by the route's name.
    """

    named: str
    port: int
    kind: str
    parent: tuple[str, str]
    gateway: tuple[str, str]
    section: str | None
    protocol: str
    takes: frozenset[str]
    hostname: str | None = None
    admits: Callable[[str], bool]
    tls: Termination | None = None
    plane: Plane
    document: Document
    stands_in: bool = False
    chains: list[tuple[str, Chain]] = field(default_factory=list)

    @property
    def name(self) -> str:
        """The whole of it, in words."""
        return self.named + (f" ({self.section})" if self.section else "")

    def in_words(self) -> str:
        """What it is called where its parent is known."""
        return f"{self.section or 'port'} ({self.protocol}, port {self.port})"


@dataclass(frozen=True, kw_only=True)
class Reader:
    """What reading Gateway API takes.

    Attributes:
        documents: all of its documents, in any order.
        namespaces: the labels of the Namespaces that are among the documents.
        plane: who runs every Gateway, whatever its class says; None to go by the class.
        workloads: the Services that backend references mean.
        rules: Istio's policies, which hold for the Services of its routes too.
        notes: takes what is not carried out, and what a data plane does in silence.
    """

    documents: Sequence[Document]
    namespaces: Mapping[str, Mapping[str, str]]
    plane: Plane | None
    workloads: Workloads
    rules: DestinationRules
    notes: Notes

    @cached_property
    def grants(self) -> Grants:
        """The ReferenceGrants."""
        return Grants(self.documents)

    @cached_property
    def policies(self) -> Policies:
        """Envoy Gateway's traffic policies."""
        return Policies(self.documents, self.notes.note)

    def admits(self, allowed: Namespaces | ListenerNamespaces, own: str) -> Callable[[str], bool]:
        """Whose objects may attach to an object in the namespace `own`."""
        if allowed.from_ == "All":
            return lambda _: True
        if allowed.from_ == "Same":
            return lambda namespace: namespace == own
        if allowed.from_ == "None":
            return lambda _: False
        return lambda namespace: allowed.selector.selects(
            {"kubernetes.io/metadata.name": namespace} | dict(self.namespaces.get(namespace, {}))
        )


@dataclass(frozen=True, slots=True)
class _Owner:
    """A Gateway, to which listeners belong."""

    document: Document
    spec: GatewaySpec
    plane: Plane

    @property
    def key(self) -> tuple[str, str]:
        """Its namespace and name."""
        return self.document.namespace, self.document.name

    @property
    def asks_client(self) -> bool:
        """Whether clients must show a certificate wherever TLS ends."""
        return self.spec.tls.frontend.default.validation is not None


def places(reader: Reader) -> list[Place]:
    """All ports that routes may attach to: listeners, and the Services of the mesh.

    Raises:
        ManifestError: an API server or a controller would refuse one.
    """
    found: list[Place] = []
    gateways: dict[tuple[str, str], _Owner] = {}
    classes = _Classes(reader)
    for document in reader.documents:
        if document.kind == "Gateway":
            read = document.read(Gateway)
            for path in document.unread(read):
                reader.notes.note(document, path)
            plane = classes.plane(document, read.spec.gateway_class_name)
            owner = _Owner(document, read.spec, plane)
            gateways[owner.key] = owner
            if plane is DEFAULT:
                _add_service(reader, document, read.spec)
            found += _listeners(reader, owner, document, read.spec.listeners)
    for document in reader.documents:
        if document.kind in {"ListenerSet", "XListenerSet"}:
            found += _listener_set(reader, document, gateways)
    _check_conflicts(found)
    for service in reader.workloads.services:
        found += _service_places(service)
    return found


def _add_service(reader: Reader, document: Document, spec: GatewaySpec) -> None:
    """Add the Service that Istio makes for a Gateway, to which routes of the mesh may lead."""
    name = f"{document.name}-{spec.gateway_class_name}"
    host = f"{name}.{document.namespace}.{DOMAIN}"
    if reader.workloads.find(host) is None:
        ports = tuple(ServicePort(port=each.port) for each in spec.listeners)
        made = Service(namespace=document.namespace, name=name, ports=ports, selector={}, host=host)
        reader.workloads.services.append(made)


class _Classes:
    """Who runs the Gateways of each class."""

    def __init__(self, reader: Reader) -> None:
        self._reader = reader
        self._controllers = {
            document.name: document.read(GatewayClass).spec.controller_name
            for document in reader.documents
            if document.kind == "GatewayClass"
        }
        self._said: set[str] = set()

    def plane(self, gateway: Document, name: str) -> Plane:
        """The data plane of a Gateway's class, and a notice where it is not known."""
        if self._reader.plane is not None:
            return self._reader.plane
        controller = self._controllers.get(name)
        plane = plane_of(name, controller)
        if plane is None and name not in self._said:
            self._said.add(name)
            who = f" of {controller}" if controller else ""
            self._reader.notes.say(
                f"GatewayClass {name}{who} is not known here: its Gateways are shown as"
                f" {DEFAULT.title} runs them; choose with --as: {', '.join(PLANES)}",
                gateway,
            )
        return plane or DEFAULT


def _listener_set(
    reader: Reader,
    document: Document,
    gateways: Mapping[tuple[str, str], _Owner],
) -> Iterator[Place]:
    """The listeners that a ListenerSet adds to its Gateway."""
    read = document.read(ListenerSet)
    for path in document.unread(read):
        reader.notes.note(document, path)
    parent = read.spec.parent_ref
    wanted = (parent.namespace or document.namespace, parent.name)
    if wanted not in gateways:
        there = ", ".join("/".join(each) for each in sorted(gateways)) or "none"
        raise document.error(
            "spec.parentRef.name", f"there is no Gateway {'/'.join(wanted)}; found: {there}"
        )
    owner = gateways[wanted]
    allowed = owner.spec.allowed_listeners.namespaces
    if not reader.admits(allowed, owner.document.namespace)(document.namespace):
        raise document.error(
            "spec.parentRef",
            f"Gateway {'/'.join(wanted)} allows no ListenerSet of namespace {document.namespace}:"
            f" its spec.allowedListeners.namespaces.from is {allowed.from_}",
        )
    yield from _listeners(reader, owner, document, read.spec.listeners)


def _listeners(
    reader: Reader, owner: _Owner, document: Document, listeners: Sequence[ListenerSpec]
) -> Iterator[Place]:
    """The listeners of a Gateway or a ListenerSet."""
    kind = "ListenerSet" if document.kind == "XListenerSet" else document.kind
    for index, listener in enumerate(listeners):
        path = f"spec.listeners[{index}]"
        _check_listener(document, path, listener, listeners[:index])
        if listener.protocol not in {"TCP", "TLS"}:
            reader.notes.note(document, f"{path}, port {listener.port} of {listener.protocol}")
        tls = listener.tls if listener.protocol == "TLS" else None
        ends = tls is not None and tls.mode == "Terminate"
        if tls is not None and ends:
            _check_certificates(reader, document, path, listener)
        option = ((tls and tls.options) or {}).get("gateway.istio.io/tls-terminate-mode", "")
        able = _takes(listener.protocol, ends=ends)
        kinds = listener.allowed_routes.kinds
        wanted = {each.kind for each in kinds if each.group == GROUP} if kinds else able
        yield Place(
            named=f"{kind} {document.namespace}/{document.name} port {listener.port}",
            port=listener.port,
            kind=kind,
            parent=(document.namespace, document.name),
            gateway=owner.key,
            section=listener.name,
            protocol=listener.protocol,
            takes=able & wanted,
            hostname=listener.hostname,
            admits=reader.admits(listener.allowed_routes.namespaces, document.namespace),
            tls=Termination(asks_client=owner.asks_client or option in _MUTUAL) if ends else None,
            plane=owner.plane,
            document=document,
        )


def _takes(protocol: str, *, ends: bool) -> frozenset[str]:
    """The kinds of route that a protocol can take."""
    if protocol == "TCP":
        return frozenset({"TCPRoute"})
    if protocol == "TLS":
        return frozenset({"TCPRoute", "TLSRoute"} if ends else {"TLSRoute"})
    return frozenset()


def _check_listener(
    document: Document, path: str, listener: ListenerSpec, before: Sequence[ListenerSpec]
) -> None:
    """Complain about what an API server refuses in a listener."""
    protocol = listener.protocol
    if not _NAME.fullmatch(listener.name):
        raise document.error(
            f"{path}.name", f"must be lower case letters, digits, - and ., got {listener.name!r}"
        )
    if listener.hostname is not None:
        if protocol in {"TCP", "UDP"}:
            raise document.error(
                f"{path}.hostname", f"must not be specified for protocol {protocol}"
            )
        check_hostname(document, f"{path}.hostname", listener.hostname)
    _check_tls(document, path, listener)
    for other in before:
        if other.name == listener.name:
            raise document.error(f"{path}.name", f"{listener.name} must be unique in its Gateway")
        same = (other.port, other.protocol, other.hostname)
        if same == (listener.port, protocol, listener.hostname):
            raise document.error(
                path,
                "the combination of port, protocol and hostname must be unique:"
                f" listener {other.name} has the same",
            )


def _check_tls(document: Document, path: str, listener: ListenerSpec) -> None:
    """Complain about TLS that an API server refuses."""
    protocol = listener.protocol
    if listener.tls is None:
        if protocol == "TLS":
            raise document.error(f"{path}.tls", "must be set for protocol TLS")
    elif protocol in {"HTTP", "TCP", "UDP"}:
        raise document.error(f"{path}.tls", f"must not be specified for protocol {protocol}")
    elif protocol == "HTTPS" and listener.tls.mode != "Terminate":
        raise document.error(f"{path}.tls.mode", "must be Terminate for protocol HTTPS")
    elif listener.tls.mode == "Terminate" and not (
        listener.tls.certificate_refs or listener.tls.options
    ):
        raise document.error(
            f"{path}.tls", "certificateRefs or options must be specified when mode is Terminate"
        )


def check_hostname(document: Document, path: str, hostname: str) -> None:
    """Complain about what is no host name, a leading ``*.`` allowed."""
    if not _NAME.fullmatch(hostname.removeprefix("*.")) or re.fullmatch(r"[\d.]+", hostname):
        raise document.error(
            path,
            f"must be a host name such as one.example.com or *.example.com, got {hostname!r}",
        )


def _check_certificates(
    reader: Reader, document: Document, path: str, listener: ListenerSpec
) -> None:
    """Say which certificates are not shown; complain about those that may not be."""
    references = (listener.tls and listener.tls.certificate_refs) or []
    kind = "ListenerSet" if document.kind == "XListenerSet" else document.kind
    for index, each in enumerate(references):
        namespace = each.namespace or document.namespace
        to = (each.group, each.kind, each.name)
        if not reader.grants.allow(kind, document.namespace, to, namespace):
            raise document.error(
                f"{path}.tls.certificateRefs[{index}]",
                f"no ReferenceGrant in namespace {namespace} allows a {kind} of namespace"
                f" {document.namespace} to refer to {each.kind} {each.name}",
            )
    names = ", ".join(each.name for each in references) or "that of its options"
    reader.notes.say(
        f"{kind} {document.name}, listener {listener.name}: shows a throw-away certificate in"
        f" place of {names}",
        document,
    )


def _check_conflicts(found: Sequence[Place]) -> None:
    """Complain about listeners of one Gateway that cannot share their port."""
    for number, place in enumerate(found):
        for other in found[:number]:
            if (place.gateway, place.port) != (other.gateway, other.port):
                continue
            protocols = {place.protocol, other.protocol}
            if len(protocols) > 1 and "UDP" in protocols:
                continue  # another port of the same number
            same = (place.protocol, place.hostname) == (other.protocol, other.hostname)
            if same or (len(protocols) > 1 and protocols & {"TCP", "HTTP"}):
                raise place.document.error(
                    "spec.listeners",
                    f"{place.in_words()} conflicts with {other.in_words()}: all listeners of a"
                    " port must have compatible protocols, and each its own hostname",
                )


def _service_places(service: Service) -> Iterator[Place]:
    """The ports of a Service or ServiceEntry, to which routes of the mesh attach."""
    document = service.document
    if document is None:
        return
    kind, own = document.kind, (service.namespace, document.name)
    for port in service.ports:
        yield Place(
            named=f"{kind} {service.namespace}/{service.name} port {port.port}",
            port=port.port,
            kind=kind,
            parent=own,
            gateway=own,
            section=None,
            protocol="headless" if service.headless else port.speaks.upper(),
            takes=frozenset() if service.headless else _MESH[port.speaks],
            admits=lambda _: True,
            plane=DEFAULT,
            document=document,
        )
