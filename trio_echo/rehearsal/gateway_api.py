"""Gateway API's Gateway, TCPRoute and TLSRoute -> listeners. Pure."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

import msgspec

from trio_echo.rehearsal.documents import Metadata, Strict
from trio_echo.rehearsal.route import Chain, Destination, Listener

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from trio_echo.errors import ManifestError
    from trio_echo.rehearsal.documents import Document
    from trio_echo.rehearsal.workloads import Service, Workloads

__all__ = ["gateway_api_listeners"]

GROUP = "gateway.networking.k8s.io"

Port = Annotated[int, msgspec.Meta(ge=1, le=65_535)]
Weight = Annotated[int, msgspec.Meta(ge=0, le=1_000_000)]


class ListenerTls(Strict):
    """What a listener does with TLS: only passing it through is carried out."""

    mode: str = "Terminate"


class Kind(Strict):
    """A kind of route."""

    kind: str
    group: str = GROUP


class Namespaces(Strict, rename={"from_": "from"}):
    """Whose routes may attach."""

    from_: Literal["All", "Same"] = "Same"


class AllowedRoutes(Strict):
    """Which routes may attach."""

    namespaces: Namespaces = msgspec.field(default_factory=Namespaces)
    kinds: list[Kind] | None = None


class ListenerSpec(Strict):
    """One port of a Gateway."""

    name: str
    port: Port
    protocol: str
    hostname: str | None = None
    tls: ListenerTls | None = None
    allowed_routes: AllowedRoutes = msgspec.field(default_factory=AllowedRoutes)


class GatewaySpec(Strict):
    """The listeners; the one gateway here is Envoy, whatever the class."""

    noted: ClassVar[frozenset[str]] = frozenset(
        {"gateway_class_name", "addresses", "infrastructure"}
    )
    gateway_class_name: str
    listeners: list[ListenerSpec]
    addresses: Any = None
    infrastructure: Any = None


class Gateway(Strict):
    """The whole document."""

    api_version: str
    kind: str
    metadata: Metadata
    spec: GatewaySpec


class ParentRef(Strict):
    """What a route attaches to."""

    name: str
    group: str = GROUP
    kind: str = "Gateway"
    namespace: str | None = None
    section_name: str | None = None
    port: Port | None = None


class BackendRef(Strict):
    """A Service and its weight."""

    name: str
    group: str = ""
    kind: str = "Service"
    namespace: str | None = None
    port: Port | None = None
    weight: Weight = 1


class Rule(Strict):
    """The weighted backends."""

    backend_refs: Annotated[list[BackendRef], msgspec.Meta(min_length=1)]
    name: str | None = None


class RouteSpec(Strict):
    """Parents and rules of a route.

    Which of several rules applies is not defined for a route without matches,
    so there is one.
    """

    rules: Annotated[list[Rule], msgspec.Meta(min_length=1, max_length=1)]
    parent_refs: Annotated[list[ParentRef], msgspec.Meta(min_length=1)]
    hostnames: list[str] | None = None


class Route(Strict):
    """The whole document, a TCPRoute or a TLSRoute."""

    api_version: str
    kind: str
    metadata: Metadata
    spec: RouteSpec


@dataclass(slots=True, kw_only=True)
class _Place:
    """A port that a route may attach to: a Gateway's listener, or a Service in the mesh.

    Attributes:
        name: in words.
        port: its number.
        kind: the kind of the parent, ``Gateway`` or ``Service``.
        parent: its namespace and name.
        section: the listener's name; None for a Service.
        takes: the kind of route that may attach.
        hostname: the server names that it is for; None for all.
        open: whether routes of other namespaces may attach.
        document: the parent, for notices.
        chains: what routes have attached so far, by the route's name.
    """

    name: str
    port: int
    kind: str
    parent: tuple[str, str]
    section: str | None
    takes: frozenset[str]
    hostname: str | None = None
    open: bool = True
    document: Document
    chains: list[tuple[str, Chain]] = field(default_factory=list)


def gateway_api_listeners(
    documents: Sequence[Document], workloads: Workloads, note: Callable[[Document, str], None]
) -> list[Listener]:
    """The listeners that Gateways, TCPRoutes and TLSRoutes of Gateway API describe.

    Args:
        documents: of any kind; those of other kinds are left alone.
        workloads: the Services that backend references mean.
        note: takes what is not carried out.

    Raises:
        ManifestError: one of them is wrong, or routes in a way that is not
            carried out.
    """
    places: list[_Place] = []
    for document in documents:
        if document.kind == "Gateway":
            places += _gateway_places(document, note)
    for service in workloads.services:
        places += _service_places(service)
    for document in documents:
        if document.kind in {"TCPRoute", "TLSRoute"}:
            _attach(document, workloads, places)
    for place in places:
        if place.kind == "Gateway" and not place.chains:
            note(place.document, f"listener {place.section}, to which no route attaches")
    return [
        Listener(name=place.name, port=place.port, chains=tuple(chain for _, chain in place.chains))
        for place in places
        if place.chains
    ]


def _gateway_places(document: Document, note: Callable[[Document, str], None]) -> Iterator[_Place]:
    """The listeners of a Gateway."""
    read = document.read(Gateway)
    for path in document.unread(read):
        note(document, path)
    for index, listener in enumerate(read.spec.listeners):
        path = f"spec.listeners[{index}]"
        if listener.protocol not in {"TCP", "TLS"}:
            note(document, f"{path}, port {listener.port} of {listener.protocol}")
            continue
        mode = listener.tls.mode if listener.tls else "Terminate"
        if listener.protocol == "TLS" and mode != "Passthrough":
            raise document.error(
                f"{path}.tls.mode",
                f"only Passthrough is rehearsed, got {mode}:"
                " TLS that ends at the gateway is not carried out",
            )
        kind = "TCPRoute" if listener.protocol == "TCP" else "TLSRoute"
        allowed = listener.allowed_routes
        kinds = {each.kind for each in allowed.kinds or ()} or {kind}
        yield _Place(
            name=f"Gateway {document.namespace}/{document.name} port {listener.port}"
            f" ({listener.name})",
            port=listener.port,
            kind="Gateway",
            parent=(document.namespace, document.name),
            section=listener.name,
            takes=frozenset({kind} & kinds),
            hostname=listener.hostname if listener.protocol == "TLS" else None,
            open=allowed.namespaces.from_ == "All",
            document=document,
        )


def _service_places(service: Service) -> Iterator[_Place]:
    """The ports of a Service, to which routes of the mesh attach."""
    for port in service.ports:
        yield _Place(
            name=f"Service {service.namespace}/{service.name} port {port.port}",
            port=port.port,
            kind="Service",
            parent=(service.namespace, service.name),
            section=None,
            takes=frozenset({"TCPRoute", "TLSRoute"}),
            document=service.document,
        )


def _attach(document: Document, workloads: Workloads, places: Sequence[_Place]) -> None:
    """Put a route at the places that its parents name."""
    read = document.read(Route)
    if document.kind == "TCPRoute" and read.spec.hostnames is not None:
        raise document.error("spec.hostnames", "a TCPRoute has no hostnames")
    if document.kind == "TLSRoute" and not read.spec.hostnames:
        raise document.error("spec.hostnames", "a TLSRoute must have at least one")
    destinations = _destinations(document, read.spec.rules[0].backend_refs, workloads)
    for index, parent in enumerate(read.spec.parent_refs):
        for place in _meant(document, parent, f"spec.parentRefs[{index}]", places):
            sni = _common(read.spec.hostnames, place.hostname)
            if sni is None:
                raise document.error(
                    "spec.hostnames", f"none falls under {place.hostname} of {place.name}"
                )
            for name, chain in place.chains:
                if set(chain.sni or ("",)) & set(sni or ("",)):
                    raise document.error(
                        f"spec.parentRefs[{index}]", f"{place.name} is already routed by {name}"
                    )
            chain = Chain(destinations=destinations, sni=sni)
            place.chains.append((f"{document.kind} {document.name}", chain))


def _meant(
    document: Document, parent: ParentRef, path: str, places: Sequence[_Place]
) -> list[_Place]:
    """The places that a parent reference means.

    Raises:
        ManifestError: there are none.
    """
    if (parent.group, parent.kind) not in {
        (GROUP, "Gateway"),
        ("", "Service"),
        ("core", "Service"),
    }:
        raise document.error(path, f"a parent of kind {parent.kind} is not carried out")
    wanted = (parent.namespace or document.namespace, parent.name)
    named = [each for each in places if (each.kind, each.parent) == (parent.kind, wanted)]
    fitting = [
        each
        for each in named
        if parent.section_name in {None, each.section} and parent.port in {None, each.port}
    ]
    found = [
        each
        for each in fitting
        if document.kind in each.takes and (each.open or each.parent[0] == document.namespace)
    ]
    if found:
        return found
    if not named:
        there = sorted({"/".join(each.parent) for each in places if each.kind == parent.kind})
        raise document.error(
            f"{path}.name",
            f"there is no {parent.kind} {'/'.join(wanted)} with a TCP or TLS port;"
            f" found: {', '.join(there) or 'none'}",
        )
    ports = ", ".join(f"{each.section or 'port'} ({each.port})" for each in named)
    if not fitting:
        raise document.error(path, f"{parent.kind} {parent.name} has no such port; found: {ports}")
    raise document.error(
        path, f"{parent.kind} {parent.name} admits no {document.kind} from here at: {ports}"
    )


def _destinations(
    document: Document, backends: Sequence[BackendRef], workloads: Workloads
) -> tuple[Destination, ...]:
    """A rule's destinations with their weights."""
    total = sum(each.weight for each in backends)
    if not total:
        raise document.error("spec.rules[0].backendRefs", "the weights add up to 0")
    found: list[Destination] = []
    for index, each in enumerate(backends):
        path = f"spec.rules[0].backendRefs[{index}]"
        if (each.group, each.kind) != ("", "Service"):
            raise document.error(f"{path}.kind", f"only Service is carried out, got {each.kind}")
        if each.namespace not in {None, document.namespace}:
            raise document.error(
                f"{path}.namespace",
                "another namespace needs a ReferenceGrant, which is not carried out",
            )
        service = workloads.service(
            each.name, document.namespace, _complaint(document, f"{path}.name")
        )
        port = workloads.port(service, each.port, _complaint(document, f"{path}.port"))
        found.append(
            Destination(
                name=f"outbound|{port.port}||{service.host}",
                weight=each.weight,
                endpoints=workloads.endpoints(service, port, _complaint(document, path)),
            )
        )
    return tuple(found)


def _complaint(document: Document, path: str) -> Callable[[str], ManifestError]:
    """Makes errors at a path."""
    return lambda reason: document.error(path, reason)


def _common(hostnames: Sequence[str] | None, hostname: str | None) -> tuple[str, ...] | None:
    """The server names that a route and a listener have in common.

    Returns:
        An empty tuple for all connections; None if there is nothing in common.
    """
    if not hostnames:
        return ()
    if hostname is None:
        return tuple(hostnames)
    common = [each for each in hostnames if _under(each, hostname)]
    common += [hostname for each in hostnames if each != hostname and _under(hostname, each)]
    return tuple(dict.fromkeys(common)) or None


def _under(name: str, pattern: str) -> bool:
    """Whether a server name, or a narrower pattern, falls under `pattern`."""
    if pattern.startswith("*."):
        return name == pattern or name.removeprefix("*").endswith(pattern[1:])
    return name == pattern
