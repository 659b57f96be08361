"""Istio's Gateway and VirtualService, as far as they are carried out. Pure data."""

from __future__ import annotations

from typing import Annotated, Any, ClassVar

import msgspec

from trio_echo.rehearsal.documents import Metadata, Strict

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
