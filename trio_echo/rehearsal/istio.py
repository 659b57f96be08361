"""Istio's Gateway and VirtualService -> listeners. Pure."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

import msgspec

from trio_echo.rehearsal.documents import Metadata, Strict
from trio_echo.rehearsal.route import Chain, Listener

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from trio_echo.errors import ManifestError
    from trio_echo.rehearsal.destination_rules import DestinationRules
    from trio_echo.rehearsal.documents import Document
    from trio_echo.rehearsal.route import Destination
    from trio_echo.rehearsal.workloads import Service, Workloads

__all__ = ["istio_listeners"]

Port = Annotated[int, msgspec.Meta(ge=1, le=65_535)]
Weight = Annotated[int, msgspec.Meta(ge=0, le=2**31 - 1)]


class ServerPort(Strict):
    """The port of a Gateway's server."""

    number: Port
    name: str
    protocol: str


class ServerTls(Strict):
    """What a server does with TLS: only passing it through is carried out."""

    mode: str = "SIMPLE"


class Server(Strict):
    """One port of a Gateway, and the hosts it is for."""

    hosts: list[str]
    port: ServerPort
    name: str | None = None
    tls: ServerTls | None = None


class GatewaySpec(Strict):
    """The servers; the one gateway here is Envoy, whatever the selector."""

    noted: ClassVar[frozenset[str]] = frozenset({"selector"})
    servers: list[Server] | None = None
    selector: Any = None


class Gateway(Strict):
    """The whole document."""

    api_version: str
    kind: str
    metadata: Metadata
    spec: GatewaySpec


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
    """Hosts, gateways and rules."""

    noted: ClassVar[frozenset[str]] = frozenset({"export_to"})
    hosts: Annotated[list[str], msgspec.Meta(min_length=1)]
    gateways: list[str] | None = None
    tcp: list[TcpRule] | None = None
    tls: list[TlsRule] | None = None
    export_to: Any = None


class VirtualService(Strict):
    """The whole document."""

    api_version: str
    kind: str
    metadata: Metadata
    spec: VirtualServiceSpec


_MESH = "mesh"
_ALL = 100


@dataclass(slots=True, kw_only=True)
class _Place:
    """A port that rules may route: a Gateway's server, or a Service in the mesh.

    Attributes:
        name: in words.
        port: its number.
        gateway: the Gateway's namespace and name; None in the mesh.
        hosts: which hosts of a VirtualService it is for.
        takes: whether rules under ``tcp`` or ``tls`` apply.
        service: the Service in the mesh.
        chains: what rules have routed so far.
        routed_by: the document whose rules those are.
    """

    name: str
    port: int
    gateway: tuple[str, str] | None
    hosts: Sequence[str]
    takes: frozenset[Literal["tcp", "tls"]]
    service: Service | None = None
    chains: list[Chain] = field(default_factory=list)
    routed_by: Document | None = None


def istio_listeners(
    documents: Sequence[Document],
    workloads: Workloads,
    rules: DestinationRules,
    note: Callable[[Document, str], None],
) -> list[Listener]:
    """The listeners that Istio's Gateways and VirtualServices describe.

    Args:
        documents: of any kind; those of other kinds and groups are left alone.
        workloads: the Services that destinations mean.
        rules: the policies that shape destinations.
        note: takes what is not carried out.

    Raises:
        ManifestError: one of them is wrong, or routes in a way that is not
            carried out.
    """
    places: list[_Place] = []
    for document in documents:
        if document.kind == "Gateway":
            places += _servers(document, note)
    for document in documents:
        if document.kind == "VirtualService":
            _VirtualServiceReader(document, workloads, rules, places, note).read()
    for place in places:
        if not place.chains and place.gateway:
            document = next(d for d in documents if (d.namespace, d.name) == place.gateway)
            note(document, f"port {place.port}, to which no VirtualService binds")
    return [
        Listener(name=place.name, port=place.port, chains=tuple(place.chains))
        for place in places
        if place.chains
    ]


def _servers(document: Document, note: Callable[[Document, str], None]) -> Iterator[_Place]:
    """The places of a Gateway."""
    read = document.read(Gateway)
    for path in document.unread(read):
        note(document, path)
    for index, server in enumerate(read.spec.servers or ()):
        mode = server.tls.mode if server.tls else None
        path = f"spec.servers[{index}]"
        takes: frozenset[Literal["tcp", "tls"]]
        if server.port.protocol.upper() == "TCP" and mode is None:
            takes = frozenset({"tcp"})
        elif server.port.protocol.upper() in {"TLS", "HTTPS"} and mode == "PASSTHROUGH":
            takes = frozenset({"tls"})
        elif mode is not None or server.port.protocol.upper() == "TLS":
            raise document.error(
                f"{path}.tls.mode",
                f"only PASSTHROUGH is rehearsed, got {mode or 'none'}:"
                " TLS that ends at the gateway is not carried out",
            )
        else:
            note(document, f"{path}, port {server.port.number} of {server.port.protocol}")
            continue
        yield _Place(
            name=f"Gateway {document.namespace}/{document.name} port {server.port.number}"
            f" ({server.port.name})",
            port=server.port.number,
            gateway=(document.namespace, document.name),
            hosts=[each.rpartition("/")[2] for each in server.hosts],
            takes=takes,
        )


class _VirtualServiceReader:
    """Puts the rules of one VirtualService at the places that they are for."""

    def __init__(
        self,
        document: Document,
        workloads: Workloads,
        rules: DestinationRules,
        places: list[_Place],
        note: Callable[[Document, str], None],
    ) -> None:
        self._document = document
        self._workloads = workloads
        self._rules = rules
        self._places = places
        self._note = note

    def read(self) -> None:
        """Read the rules and put them where they belong."""
        read = self._document.read(VirtualService)
        for path in self._document.unread(read):
            self._note(self._document, path)
        spec = read.spec
        self._hosts = spec.hosts
        self._gateways = spec.gateways or [_MESH]
        for index, name in enumerate(self._gateways):
            self._check_gateway(name, f"spec.gateways[{index}]")
        if _MESH in self._gateways:
            self._add_mesh_places()
        for index, tls in enumerate(spec.tls or ()):
            for number, match in enumerate(tls.match):
                self._put(f"spec.tls[{index}]", f"match[{number}]", tls.route, match)
        for index, tcp in enumerate(spec.tcp or ()):
            for number, one in enumerate(tcp.match or [Match()]):
                self._put(f"spec.tcp[{index}]", f"match[{number}]", tcp.route, one)

    def _put(
        self, rule: str, which: str, route: Sequence[Weighted], match: Match | TlsMatch
    ) -> None:
        """Put a rule's route at every place that one of its matches is for."""
        sni = tuple(match.sni_hosts) if isinstance(match, TlsMatch) else ()
        kind: Literal["tcp", "tls"] = "tls" if sni else "tcp"
        gateways = match.gateways or self._gateways
        for index, name in enumerate(match.gateways or ()):
            self._check_gateway(name, f"{rule}.{which}.gateways[{index}]")
        wanted = {None if each == _MESH else self._gateway(each) for each in gateways}
        for host in sni:
            if not any(_covers(each, host) for each in self._hosts):
                raise self._document.error(
                    f"{rule}.{which}.sniHosts", f"{host} is none of spec.hosts"
                )
        destinations = self._destinations(rule, route)
        reached = False
        for place in self._places:
            if (
                place.gateway in wanted
                and kind in place.takes
                and match.port in {None, place.port}
                and self._is_for(place)
            ):
                reached = True
                self._add(place, Chain(destinations=destinations, sni=sni), f"{rule}.{which}")
        if not reached:
            self._note(self._document, f"{rule}.{which}, which is for no port of its gateways")

    def _add(self, place: _Place, chain: Chain, path: str) -> None:
        """Add a chain to a place, unless an earlier rule has it already."""
        taken = {name for each in place.chains for name in each.sni or ("",)}
        if place.routed_by not in {None, self._document} and taken & set(chain.sni or ("",)):
            raise self._document.error(
                path, f"{place.name} is already routed by VirtualService {place.routed_by.name}"
            )
        place.routed_by = self._document
        if taken & set(chain.sni or ("",)):
            self._note(self._document, f"{path} at {place.name}, where an earlier rule matches")
            return
        place.chains.append(chain)

    def _destinations(self, rule: str, route: Sequence[Weighted]) -> tuple[Destination, ...]:
        """A route's destinations with their weights."""
        weights = [each.weight or 0 for each in route]
        if len(route) == 1:
            # One that stands alone gets all, whatever its weight says.
            weights = [_ALL]
        if not 0 < sum(weights) < 2**32:
            raise self._document.error(f"{rule}.route", f"the weights add up to {sum(weights)}")
        found: list[Destination] = []
        for index, (each, weight) in enumerate(zip(route, weights, strict=True)):
            path = f"{rule}.route[{index}].destination"
            to = each.destination
            service = self._workloads.service(
                to.host, self._document.namespace, self._complain(f"{path}.host")
            )
            number = to.port.number if to.port else None
            port = self._workloads.port(service, number, self._complain(f"{path}.port.number"))
            at = self._complain(f"{path}.subset" if to.subset is not None else path)
            found.append(self._rules.destination(service, port, to.subset, weight, at))
        return tuple(found)

    def _is_for(self, place: _Place) -> bool:
        """Whether the VirtualService's hosts and the place's have one in common."""
        if place.service is not None:
            return any(self._service(host) is place.service for host in self._hosts)
        return any(_covers(a, b) or _covers(b, a) for a in place.hosts for b in self._hosts)

    def _add_mesh_places(self) -> None:
        """Make a place of each port of the Services that the hosts name."""
        known = {(place.service.host, place.port) for place in self._places if place.service}
        for host in self._hosts:
            service = self._service(host)
            for port in service.ports:
                if (service.host, port.port) not in known:
                    self._places.append(
                        _Place(
                            name=f"Service {service.namespace}/{service.name} port {port.port}",
                            port=port.port,
                            gateway=None,
                            hosts=[],
                            takes=frozenset({"tcp", "tls"}),
                            service=service,
                        )
                    )

    def _service(self, host: str) -> Service:
        """The Service that one of the hosts names."""
        path = f"spec.hosts[{list(self._hosts).index(host)}]"
        return self._workloads.service(host, self._document.namespace, self._complain(path))

    def _gateway(self, name: str) -> tuple[str, str]:
        """A Gateway's namespace and name."""
        namespace, slash, short = name.rpartition("/")
        return (namespace if slash else self._document.namespace, short)

    def _check_gateway(self, name: str, path: str) -> None:
        """Complain about a Gateway that is not there."""
        there = {place.gateway for place in self._places if place.gateway}
        if name != _MESH and self._gateway(name) not in there:
            found = ", ".join(f"{space}/{short}" for space, short in sorted(there)) or "none"
            raise self._document.error(
                path, f"there is no Gateway {name} with a TCP or TLS port; found: {found}"
            )

    def _complain(self, path: str) -> Callable[[str], ManifestError]:
        """Makes errors at a path."""
        return lambda reason: self._document.error(path, reason)


def _covers(pattern: str, host: str) -> bool:
    """Whether a host name, or a narrower pattern, falls under `pattern`."""
    if pattern == "*":
        return True
    if pattern.startswith("*."):
        return host == pattern or host.removeprefix("*").endswith(pattern[1:])
    return pattern == host
