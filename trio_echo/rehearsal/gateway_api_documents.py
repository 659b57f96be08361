"""Gateway API's Gateway, TCPRoute and TLSRoute, as far as they are carried out. Pure data."""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, Literal

import msgspec

from trio_echo.rehearsal.documents import Metadata, Strict

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
