"""Istio's Gateway and VirtualService -> listeners. Pure.

What istiod drops in silence is dropped here too, and said loudly: a host that
it does not complete, a port that another Gateway has, what an ``exportTo``
hides. The chain of such a route has ``expected`` beside its destinations.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

import msgspec

from trio_echo.rehearsal.destination_rules import GATEWAYS, complete, exported
from trio_echo.rehearsal.documents import Metadata, Strict, listed
from trio_echo.rehearsal.overlaps import warn_of_overlaps
from trio_echo.rehearsal.route import (
    BUILT_IN_PORT,
    Chain,
    Destination,
    Listener,
    Termination,
)
from trio_echo.rehearsal.workloads import ANY_PORT, ServicePort

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from trio_echo.errors import ManifestError
    from trio_echo.rehearsal.destination_rules import DestinationRules
    from trio_echo.rehearsal.documents import Document
    from trio_echo.rehearsal.notes import Notes
    from trio_echo.rehearsal.overlaps import Part
    from trio_echo.rehearsal.workloads import Complain, Note, Service, Workloads

__all__ = ["is_web", "istio_listeners"]

Port = Annotated[int, msgspec.Meta(ge=1, le=65_535)]
Weight = Annotated[int, msgspec.Meta(ge=0, le=2**31 - 1)]


class ServerPort(Strict):
    """The port of a Gateway's server."""

    ignored: ClassVar[frozenset[str]] = frozenset({"targetPort"})
    number: Port
    name: str
    protocol: str
    target_port: int | None = None


class ServerTls(Strict):
    """What a server does with TLS; the certificates are not known here."""

    ignored: ClassVar[frozenset[str]] = frozenset({"httpsRedirect"})
    noted: ClassVar[frozenset[str]] = frozenset(
        {
            "credential_name",
            "credential_names",
            "ca_cert_credential_name",
            "ca_crl",
            "tls_certificates",
            "server_certificate",
            "private_key",
            "ca_certificates",
            "subject_alt_names",
            "verify_certificate_spki",
            "verify_certificate_hash",
            "min_protocol_version",
            "max_protocol_version",
            "cipher_suites",
        }
    )
    mode: Literal[
        "SIMPLE",
        "MUTUAL",
        "OPTIONAL_MUTUAL",
        "ISTIO_MUTUAL",
        "PASSTHROUGH",
        "AUTO_PASSTHROUGH",
    ] = "PASSTHROUGH"
    https_redirect: bool = False
    credential_name: Any = None
    credential_names: Any = None
    ca_cert_credential_name: Any = None
    ca_crl: Any = None
    tls_certificates: Any = None
    server_certificate: Any = None
    private_key: Any = None
    ca_certificates: Any = None
    subject_alt_names: Any = None
    verify_certificate_spki: Any = None
    verify_certificate_hash: Any = None
    min_protocol_version: Any = None
    max_protocol_version: Any = None
    cipher_suites: Any = None


class Server(Strict):
    """One port of a Gateway, and the hosts it is for."""

    noted: ClassVar[frozenset[str]] = frozenset({"default_endpoint", "max_connections"})
    hosts: Annotated[list[str], msgspec.Meta(min_length=1)]
    port: ServerPort
    name: str | None = None
    tls: ServerTls | None = None
    bind: str | None = None
    default_endpoint: str | None = None
    max_connections: int | None = None


class GatewaySpec(Strict):
    """The servers; the one gateway here is Envoy, whatever pods the selector means."""

    servers: list[Server] | None = None
    selector: dict[str, str] | None = None


class Gateway(Strict):
    """The whole document."""

    api_version: str
    kind: str
    metadata: Metadata
    spec: GatewaySpec
    status: Any = None


class PortSelector(Strict):
    """A port of a Service."""

    number: Port


class Host(Strict):
    """Where a route leads: a Service, perhaps a subset of it."""

    host: str
    subset: str | None = None
    port: PortSelector | None = None


class Weighted(Strict):
    """A destination with its weight, which one that stands alone may omit."""

    destination: Host
    weight: Weight | None = None


class Match(Strict):
    """Which connections a rule is for; all fields given must fit."""

    port: Port | None = None
    gateways: list[str] | None = None
    destination_subnets: list[str] | None = None
    source_labels: dict[str, str] | None = None
    source_namespace: str | None = None
    source_subnet: str | None = None


class TlsMatch(Match, kw_only=True):
    """The same with server names."""

    sni_hosts: Annotated[list[str], msgspec.Meta(min_length=1)]


class TcpRule(Strict):
    """A route for connections of any kind."""

    route: Annotated[list[Weighted], msgspec.Meta(min_length=1)]
    match: list[Match] | None = None


class TlsRule(Strict):
    """A route for TLS that is passed through."""

    route: Annotated[list[Weighted], msgspec.Meta(min_length=1)]
    match: Annotated[list[TlsMatch], msgspec.Meta(min_length=1)]


class VirtualServiceSpec(Strict):
    """Hosts, gateways and rules; those for HTTP route no raw TCP."""

    noted: ClassVar[frozenset[str]] = frozenset({"http"})
    hosts: Annotated[list[str], msgspec.Meta(min_length=1)]
    gateways: list[str] | None = None
    tcp: list[TcpRule] | None = None
    tls: list[TlsRule] | None = None
    http: Any = None
    export_to: list[str] | None = None


class VirtualService(Strict):
    """The whole document."""

    api_version: str
    kind: str
    metadata: Metadata
    spec: VirtualServiceSpec
    status: Any = None


_MESH = "mesh"
_ALL = 100
_HTTPS = 443
_TCP = {"TCP", "MONGO", "MYSQL", "REDIS", "UDP"}
"""Protocols whose ports carry TCP routes; UDP too, as was seen."""

_TLS = {"TLS", "HTTPS"}
_ENDING = {"SIMPLE", "MUTUAL", "OPTIONAL_MUTUAL", "ISTIO_MUTUAL"}
_USUAL = {"ingressgateway", "egressgateway", "ingress", "istio-ingressgateway"}
"""Values in the selectors of Istio's own gateways."""

_Kind = Literal["tcp", "tls"]


@dataclass(slots=True, kw_only=True, eq=False)
class _Place:
    """A port that rules may route: a Gateway's server, or a Service in the mesh.

    Attributes:
        name: in words, without its own name.
        label: that.
        port: its number.
        gateway: the Gateway's namespace and name; None in the mesh.
        document: the Gateway's; None in the mesh, and where it stands in.
        hosts: namespaces and hosts of the VirtualServices that it is for.
        takes: which rules of a VirtualService apply; None for none.
        selector: the pods that a Gateway is for; none means all.
        tls: how TLS ends at the gateway, if it does.
        service: the Service in the mesh, and its port.
        chains: what rules have routed so far, which servers of one port share.
        routed_by: the document whose rules those are.
        owned: whether the port is this server's own.
        protocol: of a server that no rule applies to, behind its path.
        unused: why Istio takes no rule for it, where that was said.
    """

    name: str
    label: str = ""
    port: int
    gateway: tuple[str, str] | None
    document: Document | None = None
    hosts: Sequence[tuple[str, str]] = ()
    takes: _Kind | None
    selector: frozenset[tuple[str, str]] = frozenset()
    tls: Termination | None = None
    service: tuple[Service, ServicePort] | None = None
    chains: list[Chain] = field(default_factory=list)
    routed_by: Document | None = None
    owned: bool = True
    protocol: tuple[str, str] | None = None
    unused: str = ""


def is_web(document: Document) -> bool:
    """Whether it is a VirtualService for HTTP alone, with no field that is not known."""
    spec = document.content.get("spec")
    fields = set(spec if isinstance(spec, dict) else ())
    known = {"hosts", "gateways", "http", "exportTo"}
    return document.kind == "VirtualService" and "http" in fields and fields <= known


def istio_listeners(
    documents: Sequence[Document], workloads: Workloads, rules: DestinationRules, notes: Notes
) -> list[Listener]:
    """The listeners that Istio's Gateways and VirtualServices describe.

    Args:
        documents: of any kind; those of other kinds and groups are left alone.
        workloads: the Services that destinations mean.
        rules: the policies that shape destinations.
        notes: takes what is not carried out, and what Istio does in silence.

    Raises:
        ManifestError: one of them is wrong, or routes in a way that is not
            carried out.
    """
    places: list[_Place] = []
    for document in documents:
        if document.kind == "Gateway":
            for place in _servers(document, notes.note):
                _settle(document, place, places, notes)
                places.append(place)
    bare = not any(document.kind == "Gateway" for document in documents)
    for document in documents:
        if is_web(document):
            notes.note(document, "spec.http")
        elif document.kind == "VirtualService":
            _VirtualServiceReader(document, workloads, rules, places, notes, bare).read()
    for place in places:
        if place.owned and not place.chains and place.document and place.takes:
            notes.note(place.document, f"port {place.port}, to which no VirtualService binds")
    return [
        Listener(name=place.name, port=place.port, chains=tuple(place.chains), label=place.label)
        for place in places
        if place.chains and place.owned
    ]


def _servers(document: Document, note: Note) -> Iterator[_Place]:
    """The places of a Gateway."""
    read = document.read(Gateway)
    for path in document.unread(read):
        note(document, path)
    selector = read.spec.selector or {}
    if selector and not _USUAL & set(selector.values()):
        labels = ",".join(f"{key}={value}" for key, value in selector.items())
        note(document, f"spec.selector: the cluster needs gateway pods with the labels {labels}")
    for index, server in enumerate(read.spec.servers or ()):
        path = f"spec.servers[{index}]"
        protocol, number = server.port.protocol.upper(), server.port.number
        mode = server.tls.mode if server.tls else None
        _check_server(document, server, path)
        takes: _Kind | None = None
        if protocol in _TCP or (protocol == "TLS" and mode in _ENDING):
            takes = "tcp"
        elif protocol in _TLS and mode == "PASSTHROUGH":
            takes = "tls"
        else:
            how = " with AUTO_PASSTHROUGH, for other clusters" if mode == "AUTO_PASSTHROUGH" else ""
            note(document, f"{path}, port {number} of {server.port.protocol}{how}")
        yield _Place(
            name=f"Gateway {document.namespace}/{document.name} port {number}",
            label=server.port.name,
            port=number,
            gateway=(document.namespace, document.name),
            document=document,
            hosts=[_server_host(each, document.namespace) for each in server.hosts],
            takes=takes,
            protocol=None if takes else (path, server.port.protocol),
            selector=frozenset(selector.items()),
            tls=Termination(asks_client=mode in {"MUTUAL", "ISTIO_MUTUAL"})
            if protocol == "TLS" and mode in _ENDING
            else None,
        )


def _check_server(document: Document, server: Server, path: str) -> None:
    """Refuse what Istio's webhook refuses."""
    protocol, secure = server.port.protocol.upper(), server.tls is not None
    for index, host in enumerate(server.hosts):
        _, short = _server_host(host, document.namespace)
        _check_wildcard(document, short, f"{path}.hosts[{index}]")
        if "." not in short and short != "*":
            raise document.error(
                f"{path}.hosts[{index}]",
                f"Istio refuses short names here; write {complete(short, document.namespace)},"
                f" or *, in place of {host}",
            )
    if server.bind and server.bind.strip("0.:"):
        raise document.error(
            f"{path}.bind", f"one address of the gateway, {server.bind}, is not supported"
        )
    if protocol in _TLS and not secure:
        raise document.error(f"{path}.tls", f"is missing: Istio refuses {protocol} without it")
    if protocol in _TCP and secure:
        raise document.error(
            f"{path}.tls", f"Istio refuses it for protocol {protocol}; TLS is the protocol for that"
        )
    if server.tls is not None and server.tls.mode in {"SIMPLE", "MUTUAL", "OPTIONAL_MUTUAL"}:
        _check_certificates(document, server.tls, f"{path}.tls")


def _check_certificates(document: Document, tls: ServerTls, path: str) -> None:
    """Refuse TLS that ends at a server without a certificate to show."""
    if tls.credential_name or tls.credential_names:
        return
    needed: dict[str, Any] = {}
    if not tls.tls_certificates:
        needed = {"serverCertificate": tls.server_certificate, "privateKey": tls.private_key}
    if tls.mode != "SIMPLE":
        needed["caCertificates"] = tls.ca_certificates
    for name, value in needed.items():
        if not value:
            raise document.error(
                f"{path}.{name}",
                f"is missing: Istio refuses {tls.mode} without it or credentialName",
            )


def _check_wildcard(document: Document, host: str, path: str) -> None:
    """Refuse a wildcard that is not the whole first part of a host."""
    if "*" in host.removeprefix("*"):
        raise document.error(path, f"* can only be the first part of a host, got {host}")


def _server_host(host: str, namespace: str) -> tuple[str, str]:
    """The namespace and the host in ``namespace/host``; any namespace where none is given."""
    where, slash, name = host.rpartition("/")
    return (namespace if where == "." else where) if slash else "*", name


def _settle(document: Document, place: _Place, places: list[_Place], notes: Notes) -> None:
    """Say whose a port is that several servers want: the first's, shared by those for TLS."""
    for other in places:
        apart = place.selector and other.selector and place.selector != other.selector
        if other.port != place.port or apart or not other.owned:
            continue
        place.owned = False
        if _for_names(place) and _for_names(other):
            place.chains = other.chains
        elif place.takes:
            place.takes = None
            notes.warn(
                f"Istio gives port {place.port} to the first server that wants it,"
                f" {other.name}: {place.name} gets no connection",
                document,
            )
        return


def _for_names(place: _Place) -> bool:
    """Whether a place chooses by TLS server names, so that several can share a port."""
    return place.takes == "tls" or place.tls is not None


@dataclass(slots=True)
class _VirtualServiceReader:
    """Puts the rules of one VirtualService at the places that they are for."""

    document: Document
    workloads: Workloads
    rules: DestinationRules
    places: list[_Place]
    notes: Notes
    bare: bool
    hosts: list[str] = field(default_factory=list)
    gateways: list[str] = field(default_factory=list)
    seen: bool = True

    def read(self) -> None:
        """Read the rules and put them where they belong."""
        spec, namespace = self._checked().spec, self.document.namespace
        self.hosts = [complete(each, namespace) for each in spec.hosts]
        self.gateways = spec.gateways or [_MESH]
        self.seen = exported(spec.export_to, namespace, GATEWAYS)
        self._stand_in(spec)
        for index, name in enumerate(self.gateways):
            self._check_gateway(name, f"spec.gateways[{index}]")
        if not self.seen and self.gateways != [_MESH] and namespace != GATEWAYS:
            self.notes.warn(
                f"Istio's gateway does not see {self._name}: its exportTo hides it"
                " from the namespace of the gateway",
                self.document,
                "spec.exportTo",
            )
        if _MESH in self.gateways and (spec.tcp or spec.tls):
            self._add_mesh_places(spec)
        for index, tls in enumerate(spec.tls or ()):
            for number, match in enumerate(tls.match):
                self._put(f"spec.tls[{index}]", f"match[{number}]", tls.route, match)
        for index, tcp in enumerate(spec.tcp or ()):
            for number, one in enumerate(tcp.match or [Match()]):
                self._put(f"spec.tcp[{index}]", f"match[{number}]", tcp.route, one)

    def _checked(self) -> VirtualService:
        """The document, if it has rules and its hosts can be."""
        read = self.document.read(VirtualService)
        for path in self.document.unread(read):
            self.notes.note(self.document, path)
        if not (read.spec.tcp or read.spec.tls or read.spec.http):
            raise self.document.error("spec", "must have tcp, tls or http rules")
        for index, host in enumerate(read.spec.hosts):
            _check_wildcard(self.document, host, f"spec.hosts[{index}]")
        return read

    @property
    def _name(self) -> str:
        return f"VirtualService {self.document.name}"

    def _put(
        self, rule: str, which: str, route: Sequence[Weighted], match: Match | TlsMatch
    ) -> None:
        """Put a rule's route at every place that one of its matches is for."""
        names = tuple(match.sni_hosts) if isinstance(match, TlsMatch) else ()
        kind: _Kind = "tls" if names else "tcp"
        gateways = match.gateways or self.gateways
        for index, name in enumerate(match.gateways or ()):
            self._check_gateway(name, f"{rule}.{which}.gateways[{index}]")
        wanted = {None if each == _MESH else self._gateway(each) for each in gateways}
        for host in names:
            if not any(_covers(each, host) for each in self.hosts):
                raise self.document.error(
                    f"{rule}.{which}.sniHosts", f"{host} is none of spec.hosts"
                )
        self._check_clients(match, f"{rule}.{which}", mesh=None in wanted)
        near = [place for place in self.places if place.gateway in wanted]
        found = [
            place for place in near if match.port in {None, place.port} and self._is_for(place)
        ]
        reached = False
        for place in found:
            client = self.document.namespace if place.service else GATEWAYS
            if place.takes == kind and not (place.gateway and not self.seen):
                reached = True
                chains = self._destinations(rule, route, client)
                for chain in self._chains(place, names, chains):
                    self._add(place, chain, f"{rule}.{which}")
            elif place.service and kind == "tcp":
                reached = True
                self._add_unrouted(place, self._destinations(rule, route, client)[1])
        if not reached:
            # Wherever it leads, it must lead somewhere.
            self._destinations(
                rule, route, GATEWAYS if wanted - {None} else self.document.namespace
            )
            self._say_unreached(f"{rule}.{which}", match, near)

    def _say_unreached(self, path: str, match: Match, near: Sequence[_Place]) -> None:
        """Say that a rule is for no port."""
        self.notes.note(self.document, f"{path}, which is for no port of its gateways")
        if match.port is not None and all(place.port != match.port for place in near):
            listen = listed([place.name.replace(" port ", " listens on ") for place in near])
            self.notes.warn(
                f"{self._name}: port {match.port} is matched, but {listen}",
                self.document,
                f"{path}.port",
            )
        for place in near:
            if place.protocol and match.port in {None, place.port} and place.document:
                server, kind = place.protocol
                self.notes.warn(
                    f"{place.name} is {kind}, which carries no {path[5:8]} route: {self._name}"
                    f" gets no connection there; write protocol: {path[5:8].upper()}",
                    place.document,
                    f"{server}.port.protocol",
                )

    def _check_clients(self, match: Match, path: str, *, mesh: bool) -> None:
        """What depends on the client: a gateway ignores it, and in the mesh it decides."""
        given = {
            "destinationSubnets": match.destination_subnets,
            "sourceLabels": match.source_labels,
            "sourceNamespace": match.source_namespace,
            "sourceSubnet": match.source_subnet,
        }
        if mesh and set(match.destination_subnets or ()) >= self._addresses():
            given["destinationSubnets"] = None  # all that clients can connect to
        for name, value in given.items():
            if value and mesh:
                raise self.document.error(
                    f"{path}.{name}",
                    "depends on the client or its address, which is not supported in the mesh",
                )
            if value:
                self.notes.note(self.document, f"{path}.{name}, which a gateway ignores")

    def _addresses(self) -> set[str]:
        """The addresses of the hosts, as ServiceEntries give them; one of none for others."""
        return {each for service in self._services() for each in service.addresses or ("",)}

    @staticmethod
    def _chains(
        place: _Place,
        names: tuple[str, ...],
        found: tuple[tuple[Destination, ...], tuple[Destination, ...]],
    ) -> list[Chain]:
        """The chain of a rule at a place."""
        destinations, expected = found
        sni = names
        if place.tls is not None:
            sni = tuple(host for _, host in place.hosts)
        return [
            Chain(
                destinations=destinations,
                sni=() if "*" in sni else sni,
                tls=place.tls,
                passthrough=bool(names),
                expected=expected if expected != destinations else None,
            )
        ]

    def _add(self, place: _Place, chain: Chain, path: str) -> None:
        """Add a chain to a place, unless an earlier rule has it already."""
        taken = {name for each in place.chains for name in each.sni or ("",)}
        if taken & set(chain.sni or ("",)):
            if place.routed_by is self.document:
                self.notes.note(
                    self.document, f"{path} at {place.name}, where an earlier rule matches"
                )
            else:
                by = place.routed_by.name if place.routed_by else "another at the same port"
                self.notes.warn(
                    f"Istio takes the first VirtualService of a port: {place.name} is routed by"
                    f" {by}, and {path} of {self._name} is ignored",
                    self.document,
                    path,
                )
            return
        place.routed_by = place.routed_by or self.document
        place.chains.append(chain)

    def _add_unrouted(self, place: _Place, expected: tuple[Destination, ...]) -> None:
        """The chain of a Service whose rule Istio drops: what it does without."""
        assert place.service is not None  # noqa: S101 - the caller has looked
        service, port = place.service
        complain = self._complain("spec.hosts")
        plain = self.rules.destination(
            service, port, None, _ALL, complain, client=self.document.namespace
        )
        plain = replace(plain, cause=place.unused)
        if port.speaks == "http":
            # A proxy for HTTP answers 400 to anything else.
            plain = replace(plain, endpoints=())
        if not place.chains:
            place.routed_by = self.document
            place.chains.append(Chain(destinations=(plain,), expected=expected))

    def _destinations(
        self, rule: str, route: Sequence[Weighted], client: str
    ) -> tuple[tuple[Destination, ...], tuple[Destination, ...]]:
        """A route's destinations with their weights: as Istio has them, and as they are meant."""
        weights = [each.weight or 0 for each in route]
        if len(route) == 1:
            # One that stands alone gets all, whatever its weight says.
            weights = [_ALL]
        if sum(weights) != _ALL:
            shown = [f"{round(100 * each / max(1, sum(weights)), 1):g} %" for each in weights]
            self.notes.say(
                f"{self._name}, {rule}: weights add up to {sum(weights)}: read as"
                f" {' and '.join(shown)}",
                self.document,
                f"{rule}.route",
            )
        if not 0 < sum(weights) < 2**32:
            raise self.document.error(f"{rule}.route", f"the weights add up to {sum(weights)}")
        found: list[Destination] = []
        meant: list[Destination] = []
        parts: list[Part] = []
        for index, (each, weight) in enumerate(zip(route, weights, strict=True)):
            path = f"{rule}.route[{index}].destination"
            to, namespace = each.destination, self.document.namespace
            service = self.workloads.service(to.host, namespace, self._complain(f"{path}.host"))
            number = to.port.number if to.port else None
            port = self.workloads.port(service, number, self._complain(f"{path}.port.number"))
            at = self._complain(f"{path}.subset" if to.subset is not None else path)
            whole = self.rules.destination(
                service, port, to.subset, weight, at, client=client, intended=True
            )
            meant.append(whole)
            parts.append(self.rules.part(whole, service, to.subset))
            if reason := self._unreachable(service, to.host, client):
                text = f"{self._name}, {path}.host: {reason}: each connection to it fails"
                cause = self.notes.warn(text, self.document, f"{path}.host")
                found.append(Destination(name=whole.name, weight=weight, endpoints=(), cause=cause))
            else:
                found.append(
                    self.rules.destination(service, port, to.subset, weight, at, client=client)
                )
        warn_of_overlaps(parts, self.workloads, self.notes)
        return tuple(found), tuple(meant)

    def _unreachable(self, service: Service, host: str, client: str) -> str:
        """Why Istio does not know a host by its name; empty if it does."""
        if complete(host, self.document.namespace) != service.host:
            return (
                f"Istio completes only names without a dot, so {host} is no Service to it;"
                f" write {service.host}"
            )
        if not exported(service.export_to, service.namespace, client):
            return f"exportTo of {service.name} hides it from namespace {client}"
        return ""

    def _is_for(self, place: _Place) -> bool:
        """Whether the VirtualService's hosts and the place's have one in common."""
        if place.service is not None:
            return place.service[0] in self._services()
        own = self.document.namespace
        for where, host in place.hosts:
            if any(_covers(host, each) or _covers(each, host) for each in self.hosts):
                if where in {"*", own}:
                    return True
                self.notes.warn(
                    f"Istio's {place.name} admits VirtualServices of namespace {where} only:"
                    f" {self._name} is in {own}, and is ignored there",
                    self.document,
                )
        return False

    def _services(self) -> list[Service]:
        """The Services that the hosts mean, also where Istio would not complete the name."""
        names = [each.replace("[", "[[]") for each in self.hosts]
        return [
            service
            for service in self.workloads.services
            if any(fnmatchcase(service.host, each) for each in names)
            or {f"{service.name}.{service.namespace}", f"{service.name}.{service.namespace}.svc"}
            & set(self.hosts)
        ]

    def _stand_in(self, spec: VirtualServiceSpec) -> None:
        """Put servers in the place of Gateways, where no document has one."""
        wanted = [(match.port or _HTTPS, "TLS") for rule in spec.tls or () for match in rule.match]
        for rule in spec.tcp or ():
            to = rule.route[0].destination.port
            ports = [match.port for match in rule.match or [Match()]]
            wanted += [(each or (to.number if to else BUILT_IN_PORT), "TCP") for each in ports]
        for name in self.gateways:
            if name == _MESH or not self.bare:
                continue
            gateway = self._gateway(name)
            known = {place.port for place in self.places if place.gateway == gateway}
            for port, protocol in dict(wanted).items():
                if port in known:
                    continue
                named = f"Gateway {'/'.join(gateway)}"
                text = f"{named} is in none of the documents: a server for {protocol} on port"
                self.notes.say(f"{text} {port} stands in", self.document)
                self.places.append(
                    _Place(
                        name=f"{named} port {port}",
                        port=port,
                        gateway=gateway,
                        hosts=[("*", "*")],
                        takes="tls" if protocol == "TLS" else "tcp",
                    )
                )

    def _add_mesh_places(self, spec: VirtualServiceSpec) -> None:
        """Make a place of each port of the Services that the hosts name."""
        hosts = spec.hosts
        if "*" in hosts:
            raise self.document.error(
                f"spec.hosts[{hosts.index('*')}]", "Istio refuses * in the mesh; name Services"
            )
        for index, host in enumerate(hosts):
            if "*" not in host:
                at = self._complain(f"spec.hosts[{index}]")
                self.workloads.service(host, self.document.namespace, at)
        known = {(place.service[0].host, place.port) for place in self.places if place.service}
        for service in self._services():
            completed = service.host in self.hosts or any("*" in each for each in self.hosts)
            unused = ""
            if not completed:
                unused = self.notes.warn(
                    f"Istio completes only names without a dot: the hosts of {self._name} are no"
                    f" Service to it, and its rules do not count in the mesh; write {service.host}",
                    self.document,
                    "spec.hosts",
                )
            for port in service.ports or self._assumed_ports(spec):
                if (service.host, port.port) not in known:
                    place = self._mesh_place(service, port, completed=completed)
                    place.unused = unused
                    self.places.append(place)
                    if completed and (spec.tcp or service.headless):
                        self._say_unused(place)

    @staticmethod
    def _assumed_ports(spec: VirtualServiceSpec) -> list[ServicePort]:
        """The ports of a Service that no document has: what the rules match, or lead to."""
        rules = [*(spec.tcp or ()), *(spec.tls or ())]
        matched = [match.port for rule in rules for match in rule.match or ()]
        led = [each.destination.port for rule in rules for each in rule.route]
        found = [each for each in matched if each] or [each.number for each in led if each]
        return [ServicePort(port=each) for each in dict.fromkeys(found or [ANY_PORT])]

    def _mesh_place(self, service: Service, port: ServicePort, *, completed: bool) -> _Place:
        """A port of a Service in the mesh."""
        kind = port.speaks
        takes: _Kind | None = "tls" if kind == "tls" else "tcp"
        name = f"Service {service.namespace}/{service.name} port {port.port}"
        if kind == "http" or service.headless or not completed:
            takes = None
        return _Place(name=name, port=port.port, gateway=None, takes=takes, service=(service, port))

    def _say_unused(self, place: _Place) -> None:
        """Say why Istio takes no rule for a port of a Service, where it does not."""
        assert place.service is not None  # noqa: S101 - it is in the mesh
        service, port = place.service
        if port.speaks != "tcp":
            shown = port.app_protocol or port.name
            why = f"its protocol is {shown}, by its name or appProtocol"
        elif service.headless:
            why = "it is headless, so that clients get the pods' own addresses"
        else:
            return
        text = f"{place.name}: {why}: Istio takes no tcp rule for it"
        place.unused = self.notes.warn(text, self.document)

    def _gateway(self, name: str) -> tuple[str, str]:
        """A Gateway's namespace and name."""
        namespace, slash, short = name.rpartition("/")
        return (namespace if slash else self.document.namespace, short)

    def _check_gateway(self, name: str, path: str) -> None:
        """Complain about a Gateway that is not there."""
        there = {place.gateway for place in self.places if place.gateway}
        if name != _MESH and self._gateway(name) not in there:
            found = listed([f"{space}/{short}" for space, short in sorted(there)])
            raise self.document.error(
                path, f"there is no Gateway {name} with a TCP or TLS port; found: {found}"
            )

    def _complain(self, path: str) -> Complain:
        """Makes errors at a path, or at another document that it leads to."""

        def complain(reason: str, /, *, at: tuple[Document, str] | None = None) -> ManifestError:
            if at is not None:
                return at[0].error(at[1], f"{reason}; {self._name}, {path}, leads there")
            return self.document.error(path, reason)

        return complain


def _covers(pattern: str, host: str) -> bool:
    """Whether a host name, or a narrower pattern, falls under `pattern`."""
    if pattern == "*":
        return True
    if pattern.startswith("*."):
        return host == pattern or host.removeprefix("*").endswith(pattern[1:])
    return pattern == host
