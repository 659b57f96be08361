"""Istio's DestinationRule: subsets, and how connections to them are made. Pure."""

from __future__ import annotations

import re
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

import msgspec

from trio_echo.rehearsal.documents import Metadata, Strict
from trio_echo.rehearsal.route import Destination, Keepalive, Outlier, Policy

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from trio_echo.errors import ManifestError
    from trio_echo.rehearsal.documents import Document
    from trio_echo.rehearsal.workloads import Service, ServicePort, Workload, Workloads

__all__ = ["DestinationRules"]

Count = Annotated[int, msgspec.Meta(ge=0, le=2**31 - 1)]
Percent = Annotated[int, msgspec.Meta(ge=0, le=100)]


class KeepaliveSpec(Strict):
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
    tcp_keepalive: KeepaliveSpec | None = None


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


_UNITS = {"h": 3600.0, "m": 60.0, "s": 1.0, "ms": 1e-3, "us": 1e-6, "ns": 1e-9}
_PART = re.compile(r"(\d+(?:\.\d+)?|\.\d+)(h|ms|us|ns|m|s)")
_LONGEST = 366 * 24 * 3600.0


@dataclass(frozen=True, slots=True)
class _Read:
    """A DestinationRule and its document."""

    document: Document
    spec: RuleSpec


class DestinationRules:
    """All DestinationRules, and the destinations that they shape."""

    def __init__(
        self,
        documents: Iterable[Document],
        workloads: Workloads,
        note: Callable[[Document, str], None],
    ) -> None:
        """Read those among `documents`; `note` takes what is not carried out.

        Raises:
            ManifestError: one of them is wrong.
        """
        self._workloads = workloads
        self._rules: list[_Read] = []
        for document in documents:
            if document.kind != "DestinationRule":
                continue
            read = document.read(Rule)
            for path in document.unread(read):
                note(document, path)
            self._rules.append(_Read(document, read.spec))
            self._check(self._rules[-1], note)

    def destination(
        self,
        service: Service,
        port: ServicePort,
        subset: str | None,
        weight: int,
        complain: Callable[[str], ManifestError],
    ) -> Destination:
        """The destination that a route means with a Service and perhaps a subset.

        Args:
            service: the destination's host.
            port: one of its ports.
            subset: a name that a DestinationRule gives, or None.
            weight: of the destination in its route.
            complain: makes the error, at the place of the destination.

        Raises:
            ManifestError: no such subset, no pod, or a policy that cannot be.
        """
        rule = self._rule(service)
        settings = [(rule.spec.traffic_policy, "spec.trafficPolicy")] if rule else []
        among: list[Workload] | None = None
        if subset is not None:
            names = [each.name for each in (rule.spec.subsets or ())] if rule else []
            if rule is None or subset not in names:
                where = f"DestinationRule {rule.document.name}" if rule else "any DestinationRule"
                found = ", ".join(names) or "none"
                raise complain(
                    f"there is no subset {subset} of host {service.name} in {where};"
                    f" subsets found: {found}"
                )
            index = names.index(subset)
            chosen = (rule.spec.subsets or [])[index]
            settings.append((chosen.traffic_policy, f"spec.subsets[{index}].trafficPolicy"))
            among = self._selected(rule, index, service)
        return Destination(
            name=f"outbound|{port.port}|{subset or ''}|{service.host}",
            weight=weight,
            endpoints=self._workloads.endpoints(service, port, complain, among=among),
            policy=_policy(rule.document, settings, port.port) if rule else Policy(),
        )

    def _check(self, rule: _Read, note: Callable[[Document, str], None]) -> None:
        """Look at what no route may ever ask for: each policy, and each subset's pods."""
        spec, document = rule.spec, rule.document
        policies = [(spec.traffic_policy, "spec.trafficPolicy")]
        for index, subset in enumerate(spec.subsets or ()):
            policies.append((subset.traffic_policy, f"spec.subsets[{index}].trafficPolicy"))
        for policy, path in policies:
            ports = [each.port.number for each in (policy and policy.port_level_settings) or ()]
            for port in [0, *ports]:
                _policy(document, [(policy, path)], port)
        if not any(self._means(rule, service) for service in self._workloads.services):
            note(document, f"spec.host {spec.host}, of which there is no Service")

    def _rule(self, service: Service) -> _Read | None:
        """The rule for a Service: one that names it before one with a wildcard."""
        found = [rule for rule in self._rules if self._means(rule, service)]
        found.sort(key=lambda rule: "*" in rule.spec.host)
        return found[0] if found else None

    def _means(self, rule: _Read, service: Service) -> bool:
        """Whether a rule is for a Service."""
        host = rule.spec.host
        name, _, rest = host.partition(".")
        if host.startswith("*"):
            return fnmatchcase(service.host, host.replace("[", "[[]"))
        if not rest:
            host = f"{name}.{rule.document.namespace}"
        short = f"{service.name}.{service.namespace}"
        return host in {short, f"{short}.svc", service.host}

    def _selected(self, rule: _Read, index: int, service: Service) -> list[Workload]:
        """The Deployments of a subset."""
        subset = (rule.spec.subsets or [])[index]
        labels = subset.labels or {}
        behind = self._workloads.behind(service)
        found = [each for each in behind if each.matches(labels)]
        if behind and not found:
            path = f"spec.subsets[{index}].labels"
            for each in self._workloads.selected(service):
                if each.matches(labels):
                    reason = f"selects no pod: Deployment {each.name} has 0 replicas"
                    raise rule.document.error(path, f"subset {subset.name} {reason}")
            there = "; ".join(
                f"{key}s found: "
                + (
                    ", ".join(sorted({each.labels[key] for each in behind if key in each.labels}))
                    or "none"
                )
                for key in labels
            )
            raise rule.document.error(path, f"subset {subset.name} selects no Deployment; {there}")
        return found


def _policy(
    document: Document, levels: list[tuple[TrafficPolicy | None, str]], port: int
) -> Policy:
    """Merge a host's policy and its subset's, as Istio does.

    A later level wins part by part. Settings for a port replace all of a
    level's others.
    """
    merged: dict[str, tuple[Any, str]] = {}
    for policy, path in levels:
        if policy is None:
            continue
        settings: Settings = policy
        place = path
        for index, each in enumerate(policy.port_level_settings or ()):
            if each.port.number == port:
                settings, place = each, f"{path}.portLevelSettings[{index}]"
                merged.clear()
        for name in ("connection_pool", "outlier_detection", "load_balancer"):
            if (part := getattr(settings, name)) is not None:
                merged[name] = (part, place)
    pool, pool_path = merged.get("connection_pool", (None, ""))
    tcp = pool.tcp if pool and pool.tcp else TcpPool()
    balancer, _ = merged.get("load_balancer", (Balancer(), ""))
    seconds = _Seconds(document, f"{pool_path}.connectionPool.tcp")
    alive = tcp.tcp_keepalive
    return Policy(
        balancing={"RANDOM": "RANDOM", "ROUND_ROBIN": "ROUND_ROBIN"}.get(
            balancer.simple, "LEAST_REQUEST"
        ),
        max_connections=tcp.max_connections or None,
        connect_timeout=seconds(tcp.connect_timeout, "connectTimeout", 0.001) or 10.0,
        idle_timeout=seconds(tcp.idle_timeout, "idleTimeout"),
        max_duration=seconds(tcp.max_connection_duration, "maxConnectionDuration", 0.001),
        keepalive=None
        if alive is None
        else Keepalive(
            time=seconds.whole(alive.time, "tcpKeepalive.time"),
            interval=seconds.whole(alive.interval, "tcpKeepalive.interval"),
            probes=alive.probes,
        ),
        outlier=_outlier(document, *merged.get("outlier_detection", (None, ""))),
    )


def _outlier(document: Document, found: OutlierDetection | None, path: str) -> Outlier | None:
    """Outlier detection as a policy has it."""
    if found is None:
        return None
    seconds = _Seconds(document, f"{path}.outlierDetection")
    split = found.split_external_local_origin_errors
    return Outlier(
        failures=found.consecutive5xx_errors,
        gateway_failures=found.consecutive_gateway_errors,
        local_failures=(found.consecutive_local_origin_failures or None) if split else None,
        split_local=split,
        interval=seconds(found.interval, "interval", 0.001),
        base_ejection=seconds(found.base_ejection_time, "baseEjectionTime", 0.001),
        max_ejection_percent=found.max_ejection_percent or None,
        min_health_percent=found.min_health_percent or 0,
    )


@dataclass(frozen=True, slots=True)
class _Seconds:
    """Reads durations, and complains about those that cannot be."""

    document: Document
    path: str

    def __call__(self, text: str | None, field: str, least: float = 0.0) -> float | None:
        """A duration such as ``1h30m`` or ``250ms`` in seconds; None for none."""
        if text is None:
            return None
        parts = _PART.findall(text)
        seconds = sum(float(number) * _UNITS[unit] for number, unit in parts)
        whole = "".join(number + unit for number, unit in parts) == text and text
        if not whole or not least <= seconds <= _LONGEST:
            raise self.document.error(
                f"{self.path}.{field}",
                f"must be a duration from {least:g}s to a year, such as 30s or 1h, got {text!r}",
            )
        return seconds

    def whole(self, text: str | None, field: str) -> int | None:
        """The same for what the system counts in whole seconds, at least one."""
        seconds = self(text, field, 1.0)
        return None if seconds is None else int(seconds)
