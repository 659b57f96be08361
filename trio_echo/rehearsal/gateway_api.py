"""Gateway API's TCPRoutes and TLSRoutes -> listeners. Pure.

A route that its parent would not accept is an error. A backend reference that
leads nowhere is carried out as the data plane does: Istio resets its share of
the connections, Envoy Gateway gives it to the others.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Annotated, TypeAlias

import msgspec

from trio_echo.errors import ManifestError
from trio_echo.rehearsal.dataplane import DEFAULT
from trio_echo.rehearsal.documents import Lenient, Metadata, Strict
from trio_echo.rehearsal.envoy_gateway import ENVOY_GATEWAY_GROUP, Backend
from trio_echo.rehearsal.envoy_gateway import KINDS as ENVOY_GATEWAY_KINDS
from trio_echo.rehearsal.gateway_api_listeners import (
    GROUP,
    Place,
    Port,
    Reader,
    check_hostname,
    places,
)
from trio_echo.rehearsal.overlaps import warn_of_overlaps
from trio_echo.rehearsal.route import Chain, Destination, Listener
from trio_echo.rehearsal.workloads import Service, ServicePort

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from trio_echo.rehearsal.documents import Document
    from trio_echo.rehearsal.envoy import Plane
    from trio_echo.rehearsal.overlaps import Part
    from trio_echo.rehearsal.route import Endpoint

__all__ = ["gateway_api_listeners"]

Weight = Annotated[int, msgspec.Meta(ge=0, le=1_000_000)]

_MOST_RULES = 16
_SERVICE = {("", "Service"), ("core", "Service")}
_ISTIO = "networking.istio.io"
_PARENTS = {
    (GROUP, "Gateway"),
    (GROUP, "ListenerSet"),
    (_ISTIO, "ServiceEntry"),
    *_SERVICE,
}


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

    backend_refs: Annotated[list[BackendRef], msgspec.Meta(min_length=1, max_length=16)]
    name: str | None = None


class RouteSpec(Strict):
    """Parents and rules of a route."""

    rules: Annotated[list[Rule], msgspec.Meta(min_length=1, max_length=_MOST_RULES)]
    parent_refs: list[ParentRef] = msgspec.field(default_factory=list)
    hostnames: list[str] | None = None


class Route(Lenient):
    """The whole document, a TCPRoute or a TLSRoute."""

    api_version: str
    kind: str
    metadata: Metadata
    spec: RouteSpec


class _UnusableError(ManifestError):
    """A backend reference leads nowhere; the message says why.

    Attributes:
        at: the document that is at fault and the path in it, where it is not the route's.
    """

    def __init__(self, reason: str, /, *, at: tuple[Document, str] | None = None) -> None:
        super().__init__(reason)
        self.at = at


@dataclass(frozen=True, slots=True)
class _Numbered:
    """A backend reference and its place in the document."""

    path: str
    ref: BackendRef


def gateway_api_listeners(reader: Reader) -> list[Listener]:
    """The listeners that Gateways, TCPRoutes and TLSRoutes of Gateway API describe.

    Raises:
        ManifestError: one of them is wrong, or routes in a way that is not
            carried out.
    """
    found = places(reader)
    routes = [each for each in reader.documents if each.kind in {"TCPRoute", "TLSRoute"}]
    # The oldest route wins; those that are applied at once are as old as each other.
    routes.sort(key=lambda each: (_created(each), each.namespace, each.name))
    for document in routes:
        _Attachment(document, reader, found).attach()
    if not any(place.plane.pools for place in found):
        for document in reader.documents:
            if document.kind in ENVOY_GATEWAY_KINDS:
                reader.notes.say(
                    f"{document.kind} {document.name} is for Envoy Gateway, which runs no Gateway"
                    " here",
                    document,
                )
    for place in found:
        if place.takes and place.section and not place.chains:
            reader.notes.note(
                place.document, f"listener {place.section}, to which no route attaches"
            )
    return _by_port([place for place in found if place.chains])


def _by_port(found: Sequence[Place]) -> list[Listener]:
    """The listeners of Envoy: those of one Gateway that share a port are one."""
    ports: dict[tuple[object, ...], list[Place]] = {}
    for place in found:
        mesh = place.kind in {"Service", "ServiceEntry"}
        key = (place.named,) if mesh else (place.gateway, place.port)
        ports.setdefault(key, []).append(place)
    listeners: list[Listener] = []
    for places_ in ports.values():
        first = places_[0]
        sections = ", ".join(place.section for place in places_ if place.section)
        # A listener for one name has it before one for many, and that before one for all.
        nearest = sorted(places_, key=lambda each: -_nearness(each.hostname))
        chains: list[Chain] = []
        for _, chain in (one for place in nearest for one in place.chains):
            taken = {name for each in chains for name in each.sni or ("",)}
            names = tuple(name for name in chain.sni or ("",) if name not in taken)
            if names:
                chains.append(replace(chain, sni=() if names == ("",) else names))
        listeners.append(
            Listener(
                name=first.named,
                label=sections,
                port=first.port,
                chains=tuple(chains),
                plane=first.plane.name,
            )
        )
    return listeners


def _nearness(hostname: str | None) -> int:
    """How narrow a listener's host name is."""
    return 0 if hostname is None else len(hostname) if "*" in hostname else 1000


def _created(document: Document) -> str:
    """When an object was created, if it says so; the latest where it does not."""
    metadata = document.content.get("metadata")
    found = metadata.get("creationTimestamp") if isinstance(metadata, dict) else None
    return str(found or "~")


_Destinations: TypeAlias = "tuple[Destination, ...]"


class _Attachment:
    """Puts one route at the places that its parents name."""

    def __init__(self, document: Document, reader: Reader, found: list[Place]) -> None:
        self._document = document
        self._reader = reader
        self._found = found
        self._name = f"{document.kind} {document.name}"
        self._read = document.read(Route)
        self._destinations: dict[str, tuple[_Destinations, _Destinations]] = {}

    def attach(self) -> None:
        """Put it there."""
        document, spec = self._document, self._read.spec
        for path in document.unread(self._read):
            self._reader.notes.note(document, path)
        self._check()
        for index, parent in enumerate(spec.parent_refs):
            path = f"spec.parentRefs[{index}]"
            for place in self._meant(parent, path):
                self._put(place)

    def _check(self) -> None:
        """Complain about what an API server refuses."""
        document, spec = self._document, self._read.spec
        several = document.api_version.endswith("/v1alpha2")
        if document.kind == "TCPRoute" and spec.hostnames is not None:
            raise document.error("spec.hostnames", "a TCPRoute has no hostnames")
        if document.kind == "TLSRoute" and not spec.hostnames and not several:
            raise document.error("spec.hostnames", "a TLSRoute must have at least one")
        for index, hostname in enumerate(spec.hostnames or ()):
            check_hostname(document, f"spec.hostnames[{index}]", hostname)
        if len(spec.rules) > 1 and not several:
            raise document.error("spec.rules", "must have at most one entry")
        if not spec.parent_refs:
            raise document.error(
                "spec", "has no parentRefs: the route attaches nowhere, and nothing is routed"
            )
        for each in self._refs():
            if (each.ref.group, each.ref.kind) in _SERVICE and each.ref.port is None:
                raise document.error(each.path, "must have port for Service reference")
        self._check_parents()

    def _check_parents(self) -> None:
        """Complain about two references to one parent that do not tell its parts apart."""
        parents = self._read.spec.parent_refs
        ports = self._document.api_version.endswith("/v1alpha2")
        for index, each in enumerate(parents):
            for other in parents[:index]:
                if self._parent(each) != self._parent(other):
                    continue
                same = each.section_name == other.section_name
                if ports and each.port != other.port:
                    same = False
                elif None in {each.section_name, other.section_name}:
                    same = True
                if same:
                    raise self._document.error(
                        f"spec.parentRefs[{index}]",
                        f"refers to {each.kind} {each.name} as another does: sectionName must"
                        " be specified in both, and unique",
                    )

    def _parent(self, parent: ParentRef) -> tuple[str, ...]:
        """What a parent reference means, whatever part of it."""
        namespace = parent.namespace or self._document.namespace
        return (parent.group, parent.kind, namespace, parent.name)

    def _refs(self) -> Iterator[_Numbered]:
        """Every backend reference of every rule."""
        for number, rule in enumerate(self._read.spec.rules):
            for index, each in enumerate(rule.backend_refs):
                yield _Numbered(f"spec.rules[{number}].backendRefs[{index}]", each)

    def _meant(self, parent: ParentRef, path: str) -> list[Place]:
        """The places that a parent reference means.

        Raises:
            ManifestError: there are none.
        """
        document = self._document
        kind = "ListenerSet" if parent.kind == "XListenerSet" else parent.kind
        if (parent.group.replace(".x-k8s.", ".k8s."), kind) not in _PARENTS:
            group = f" of {parent.group}" if parent.group else ""
            raise document.error(path, f"a parent of kind {parent.kind}{group} is not supported")
        if kind in {"Service", "ServiceEntry"} and self._reader.plane not in {None, DEFAULT}:
            raise document.error(path, f"{self._reader.plane.title} has no mesh for a {kind}")
        wanted = (parent.namespace or document.namespace, parent.name)
        named = [each for each in self._found if (each.kind, each.parent) == (kind, wanted)]
        if not named or all(each.stands_in for each in named):
            same = [each for each in named if each.section == parent.section_name]
            taking = [each for each in same if document.kind in each.takes]
            return taking or [self._stand_in(parent, kind, wanted, path)]
        fitting = [
            each
            for each in named
            if parent.section_name in {None, each.section} and parent.port in {None, each.port}
        ]
        what = f"{kind} {'/'.join(wanted)}"
        there = ", ".join(each.in_words() for each in named)
        if not fitting:
            field, value = ("sectionName", parent.section_name)
            if value is None or any(each.section == value for each in named):
                field, value = ("port", str(parent.port))
            raise document.error(
                f"{path}.{field}", f"{what} has no listener {value}; found: {there}"
            )
        taking = [each for each in fitting if document.kind in each.takes]
        there = ", ".join(each.in_words() for each in fitting)
        if not taking:
            raise document.error(path, f"{what} takes no {document.kind} at: {there}")
        found = [each for each in taking if each.admits(document.namespace)]
        if not found:
            raise document.error(
                path,
                f"{what} admits no route of namespace {document.namespace} at: {there};"
                " its allowedRoutes.namespaces decide",
            )
        found = [each for each in found if self._names(each) is not None]
        if not found:
            names = ", ".join(sorted({str(each.hostname) for each in taking}))
            raise document.error("spec.hostnames", f"none falls under {names} of {what}")
        return found

    def _stand_in(self, parent: ParentRef, kind: str, wanted: tuple[str, str], path: str) -> Place:
        """A listener in place of one that is in none of the documents.

        Only where there is none of its kind at all: else the name is wrong.
        """
        document = self._document
        known = (each for each in self._found if each.kind == kind and not each.stands_in)
        there = sorted({"/".join(each.parent) for each in known})
        if there or any(each.kind == kind for each in self._reader.documents):
            raise document.error(
                f"{path}.name",
                f"there is no {kind} {'/'.join(wanted)}; found: {', '.join(there) or 'none'}",
            )
        (first, *_) = self._refs()
        port = parent.port or first.ref.port or 1
        plane = self._reader.plane or DEFAULT
        section = f", listener {parent.section_name}," if parent.section_name else ""
        self._reader.notes.say(
            f"{kind} {'/'.join(wanted)}{section} is in none of the documents: a listener for"
            f" {self._name} stands in, run as {plane.title} does",
            document,
        )
        place = Place(
            named=f"{kind} {'/'.join(wanted)} port {port}",
            port=port,
            kind=kind,
            parent=wanted,
            gateway=wanted,
            section=parent.section_name,
            protocol="TCP" if document.kind == "TCPRoute" else "TLS",
            takes=frozenset({document.kind} if kind != "Service" else {"TCPRoute", "TLSRoute"}),
            admits=lambda _: True,
            plane=plane,
            document=document,
            stands_in=True,
        )
        self._found.append(place)
        return place

    def _put(self, place: Place) -> None:
        """Put the route at a place, unless an older one has it."""
        names = self._names(place) or ()
        for older, chain in place.chains:
            taken = [name for name in chain.sni or ("",) if name in (names or ("",))]
            if taken:
                which = f" for {', '.join(taken)}" if taken != [""] else ""
                self._reader.notes.warn(
                    f"{self._name} gets nothing at {place.name}{which}: {older} is older, or"
                    " comes before it by its name",
                    self._document,
                )
                names = tuple(name for name in names if name not in taken)
                if not names:
                    return
        destinations, meant = self._split(place.plane)
        if place.plane.pools:
            policy = self._reader.policies.policy(self._document, place.gateway, place.section)
            destinations, meant = (
                tuple(replace(each, policy=policy) for each in found)
                for found in (destinations, meant)
            )
        chain = Chain(
            destinations=destinations,
            expected=meant if meant != destinations else None,
            sni=names,
            tls=place.tls,
            passthrough=place.tls is None and self._document.kind == "TLSRoute",
            pooled=place.plane.pools,
        )
        place.chains.append((self._name, self._say_lost(chain, place.plane)))

    def _names(self, place: Place) -> tuple[str, ...] | None:
        """The server names that the route and a listener have in common.

        Returns:
            An empty tuple for all connections; None if there is nothing in common.
        """
        wanted = self._read.spec.hostnames
        if not wanted:
            return (place.hostname,) if place.hostname else ()
        if place.hostname is None:
            return tuple(wanted)
        common = [each for each in wanted if _under(each, place.hostname)]
        common += [
            place.hostname
            for each in wanted
            if each != place.hostname and _under(place.hostname, each)
        ]
        return tuple(dict.fromkeys(common)) or None

    def _split(self, plane: Plane) -> tuple[_Destinations, _Destinations]:
        """The destinations with their weights: as a data plane reads them, and as meant."""
        if plane.name not in self._destinations:
            self._destinations[plane.name] = self._read_destinations(plane)
        return self._destinations[plane.name]

    def _read_destinations(self, plane: Plane) -> tuple[_Destinations, _Destinations]:
        """The same, read for the first time."""
        self._parts: list[Part] = []
        refs = list(self._refs())
        if len(self._read.spec.rules) > 1:
            refs = self._choose_rules(refs, plane)
        weighted = [each for each in refs if each.ref.weight]
        if not weighted:
            raise self._document.error(
                "spec.rules[0].backendRefs",
                "the weights add up to 0: every connection is rejected",
            )
        found: list[Destination] = []
        problems: dict[int, _UnusableError] = {}
        for index, each in enumerate(refs):
            try:
                found.append(self._destination(each, plane))
            except _UnusableError as problem:
                problems[index] = problem
                name = f"{each.path} of {self._name}"
                found.append(Destination(name=name, weight=each.ref.weight, endpoints=()))
        if not any(each.endpoints for each in found if each.weight):
            first = min(problems)
            path, worst = refs[first].path, problems[first]
            if worst.at is None:
                raise self._document.error(path, str(worst))
            document, field = worst.at
            raise document.error(field, f"{worst}; {self._name}, {path}, leads there")
        meant = list(found)
        for index, reason in problems.items():
            path = refs[index].path
            fate = "its share goes to the others" if plane.pools else "its share is reset"
            text = f"{self._name}: {path}: {reason}; with {plane.title} {fate}"
            cause = self._reader.notes.warn(text, self._document, path)
            found[index] = replace(found[index], cause=cause)
            meant[index] = self._meant_by(refs[index], plane)
        warn_of_overlaps(self._parts, self._reader.workloads, self._reader.notes)
        return tuple(found), tuple(meant)

    def _meant_by(self, numbered: _Numbered, plane: Plane) -> Destination:
        """What a reference that leads nowhere would lead to; by its name alone if to nothing."""
        try:
            return self._destination(numbered, plane, granted=True)
        except _UnusableError:
            ref = numbered.ref
            name = f"{numbered.path} of {self._name}"
            return Destination(name=name, weight=ref.weight, endpoints=(), missing=ref.name)

    def _choose_rules(self, refs: list[_Numbered], plane: Plane) -> list[_Numbered]:
        """What several rules mean, which have no condition to tell them apart."""
        if not plane.pools:
            self._reader.notes.warn(
                f"{self._name}: spec.rules[1] and later ones get nothing: none has a condition,"
                f" and {plane.title} takes the first",
                self._document,
                "spec.rules[1]",
            )
            return [each for each in refs if each.path.startswith("spec.rules[0]")]
        if self._document.kind == "TCPRoute":
            raise self._document.error(
                "spec.rules", f"{plane.title} supports one and only one rule"
            )
        self._reader.notes.say(
            f"{self._name}: {plane.title} takes the backends of all its rules together",
            self._document,
        )
        return refs

    def _destination(
        self, numbered: _Numbered, plane: Plane, *, granted: bool = False
    ) -> Destination:
        """One destination.

        Args:
            numbered: the reference.
            plane: who reads it.
            granted: whether it may lead to another namespace, whatever is allowed there.

        Raises:
            _UnusableError: it leads nowhere.
        """
        ref = numbered.ref
        if (ref.group, ref.kind) == (ENVOY_GATEWAY_GROUP, "Backend") and plane.pools:
            return self._backend(ref, granted=granted)
        hostname = (ref.group, ref.kind) == (_ISTIO, "Hostname") and plane is DEFAULT
        if (ref.group, ref.kind) not in _SERVICE and not hostname:
            group = f" of {ref.group}" if ref.group else ""
            raise _UnusableError(f"only kind Service is supported, got {ref.kind}{group}")
        namespace = ref.namespace or self._document.namespace
        self._check_grant(ref, namespace, granted=granted or hostname)
        workloads = self._reader.workloads
        service = workloads.service(ref.name, namespace, _UnusableError)
        port = workloads.port(service, ref.port, _UnusableError)
        if plane.pools:
            found = Destination(
                name=f"{service.host}:{port.port}",
                weight=ref.weight,
                endpoints=workloads.endpoints(service, port, _UnusableError),
            )
        else:
            found = self._reader.rules.destination(service, port, None, ref.weight, _UnusableError)
        self._parts.append(self._reader.rules.part(found, service, None))
        return found

    def _backend(self, ref: BackendRef, *, granted: bool) -> Destination:
        """Envoy Gateway's Backend: a Service by its name, else somebody outside the cluster.

        Raises:
            _UnusableError: it leads nowhere.
        """
        namespace = ref.namespace or self._document.namespace
        self._check_grant(ref, namespace, granted=granted)
        for document in self._reader.documents:
            if (document.kind, document.namespace, document.name) == (
                "Backend",
                namespace,
                ref.name,
            ):
                break
        else:
            raise _UnusableError(f"there is no Backend {ref.name} in namespace {namespace}")
        spec = document.read(Backend).spec
        workloads = self._reader.workloads
        endpoints: list[Endpoint] = []
        for each in spec.endpoints or ():
            service = workloads.find(each.host)
            if service is None and each.port is not None:
                service = Service(
                    namespace=namespace,
                    name=ref.name,
                    ports=(ServicePort(port=each.port),),
                    selector={},
                    document=document,
                    kind="Backend",
                )
            if service is not None:
                port = workloads.port(service, each.port, _UnusableError)
                endpoints += workloads.endpoints(service, port, _UnusableError)
        if not endpoints:
            what = "has no address" if spec.type == "Endpoints" else f"of type {spec.type}"
            raise _UnusableError(f"Backend {ref.name} {what}: that is not supported")
        return Destination(
            name=f"Backend {namespace}/{ref.name}",
            weight=ref.weight,
            endpoints=tuple(dict.fromkeys(endpoints)),
        )

    def _check_grant(self, ref: BackendRef, namespace: str, *, granted: bool) -> None:
        """Complain about a reference to another namespace that nobody there allows.

        Raises:
            _UnusableError: nobody does.
        """
        kind, own = self._document.kind, self._document.namespace
        to = ("" if ref.group == "core" else ref.group, ref.kind, ref.name)
        if not (granted or self._reader.grants.allow(kind, own, to, namespace)):
            raise _UnusableError(
                f"no ReferenceGrant in namespace {namespace} allows a {kind} of namespace {own}"
                f" to refer to {ref.kind} {ref.name}"
            )

    def _say_lost(self, chain: Chain, plane: Plane) -> Chain:
        """Say which references count for less, since an earlier one has their endpoints."""
        refs = list(self._refs())
        found = list(chain.destinations)
        pairs = zip(refs, chain.destinations, chain.reached(), strict=False)
        for index, (each, before, after) in enumerate(pairs):
            if len(after.endpoints) < len(before.endpoints):
                cause = self._reader.notes.warn(
                    f"{self._name}: {each.path} leads to endpoints of an earlier reference:"
                    f" {plane.title} keeps them once, at the first, so its weight"
                    f" {before.weight} is {'lost' if not after.endpoints else 'for fewer'}",
                    self._document,
                    each.path,
                )
                found[index] = replace(before, cause=cause)
        return replace(chain, destinations=tuple(found))


def _under(name: str, pattern: str) -> bool:
    """Whether a server name, or a narrower pattern, falls under `pattern`."""
    if pattern.startswith("*."):
        return name == pattern or name.removeprefix("*").endswith(pattern[1:])
    return name == pattern
