"""Istio's DestinationRule, as far as it is carried out. Pure data."""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, Literal

import msgspec

from trio_echo.rehearsal.documents import Metadata, Strict

Count = Annotated[int, msgspec.Meta(ge=0, le=2**31 - 1)]
Percent = Annotated[int, msgspec.Meta(ge=0, le=100)]


class Keepalive(Strict):
    """TCP keep-alive; times as durations."""

    probes: Count | None = None
    time: str | None = None
    interval: str | None = None


class TcpPool(Strict):
    """Connections to a destination; times as durations."""

    max_connections: Count | None = None
    connect_timeout: str | None = None
    idle_timeout: str | None = None
    max_connection_duration: str | None = None
    tcp_keepalive: Keepalive | None = None


class Pool(Strict):
    """The pool of connections; what is for HTTP is not carried out."""

    noted: ClassVar[frozenset[str]] = frozenset({"http"})
    tcp: TcpPool | None = None
    http: Any = None


class OutlierDetection(Strict):
    """When an endpoint that fails is left out."""

    noted: ClassVar[frozenset[str]] = frozenset({"outlier_detection_http_error_codes"})
    consecutive5xx_errors: Count | None = None
    consecutive_gateway_errors: Count | None = None
    consecutive_local_origin_failures: Count | None = None
    split_external_local_origin_errors: bool = False
    interval: str | None = None
    base_ejection_time: str | None = None
    max_ejection_percent: Percent | None = None
    min_health_percent: Percent | None = None
    outlier_detection_http_error_codes: Any = None


class Balancer(Strict):
    """How endpoints take turns; hashing is not carried out."""

    simple: Literal["UNSPECIFIED", "LEAST_CONN", "LEAST_REQUEST", "RANDOM", "ROUND_ROBIN"] = (
        "UNSPECIFIED"
    )


class Tls(Strict):
    """TLS between the proxies of the mesh.

    What the mesh does between its own proxies is not routing, and this machine
    has none. TLS that a proxy begins towards the backend would be.
    """

    noted: ClassVar[frozenset[str]] = frozenset({"mode"})
    mode: Literal["DISABLE", "ISTIO_MUTUAL"] = "DISABLE"


class Settings(Strict):
    """What a policy says, for all ports or for one."""

    connection_pool: Pool | None = None
    outlier_detection: OutlierDetection | None = None
    load_balancer: Balancer | None = None
    tls: Tls | None = None


class PortNumber(Strict):
    """A port of a Service."""

    number: int


class PortSettings(Settings, kw_only=True):
    """A policy for one port."""

    port: PortNumber


class TrafficPolicy(Settings):
    """A policy for all ports, and for some."""

    port_level_settings: list[PortSettings] | None = None


class Subset(Strict):
    """A part of a Service's pods."""

    name: str
    labels: dict[str, str] | None = None
    traffic_policy: TrafficPolicy | None = None


class RuleSpec(Strict):
    """Host, subsets and policy."""

    noted: ClassVar[frozenset[str]] = frozenset({"export_to"})
    host: str
    subsets: list[Subset] | None = None
    traffic_policy: TrafficPolicy | None = None
    export_to: Any = None


class Rule(Strict):
    """The whole document."""

    api_version: str
    kind: str
    metadata: Metadata
    spec: RuleSpec
