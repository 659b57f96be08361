"""Istio's DestinationRule: subsets, and how connections to them are made. Pure.

A rule counts only where Istio looks for it: in the namespace of the client
(for a gateway, its own), of the Service, and in the root namespace, in this
order. Rules for one host in one namespace are merged: the subsets of all, the
policy of the first that has one.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

import msgspec

from trio_echo.rehearsal.documents import Metadata, Strict, listed
from trio_echo.rehearsal.overlaps import Part
from trio_echo.rehearsal.route import Destination, Keepalive, Outlier, Policy
from trio_echo.rehearsal.workloads import ROOT

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator

    from trio_echo.rehearsal.documents import Document
    from trio_echo.rehearsal.notes import Notes
    from trio_echo.rehearsal.workloads import (
        Complain,
        Service,
        ServicePort,
        Workload,
        Workloads,
    )

__all__ = ["GATEWAYS", "DestinationRules", "complete", "exported"]

Count = Annotated[int, msgspec.Meta(ge=0, le=2**31 - 1)]
Percent = Annotated[int, msgspec.Meta(ge=0, le=100)]

GATEWAYS = ROOT
"""Where a gateway's pods are taken to be: the manifests of a route seldom say."""

_GATEWAY_WORDS = ("istio", "gateway", "ingress")
"""Parts of the names that namespaces of gateways have."""

_DOMAIN = "svc.cluster.local"


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


class HttpPool(Strict):
    """Requests to a destination, of which one bound holds for connections too."""

    noted: ClassVar[frozenset[str]] = frozenset(
        {
            "http2_max_requests",
            "max_requests_per_connection",
            "max_retries",
            "idle_timeout",
            "h2_upgrade_policy",
            "use_client_protocol",
            "max_concurrent_streams",
        }
    )
    http1_max_pending_requests: Count | None = None
    http2_max_requests: Any = None
    max_requests_per_connection: Any = None
    max_retries: Any = None
    idle_timeout: Any = None
    h2_upgrade_policy: Any = None
    use_client_protocol: Any = None
    max_concurrent_streams: Any = None


class Pool(Strict):
    """The pool of connections."""

    tcp: TcpPool | None = None
    http: HttpPool | None = None


class OutlierDetection(Strict):
    """When an endpoint that fails is left out."""

    noted: ClassVar[frozenset[str]] = frozenset({"outlier_detection_http_error_codes"})
    consecutive_errors: Count | None = None
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
    """Which endpoint of a destination gets a connection; the weights stay as they are."""

    noted: ClassVar[frozenset[str]] = frozenset(
        {"consistent_hash", "locality_lb_setting", "warmup_duration_secs", "warmup"}
    )
    simple: Literal["UNSPECIFIED", "LEAST_CONN", "LEAST_REQUEST", "RANDOM", "ROUND_ROBIN"] = (
        "UNSPECIFIED"
    )
    consistent_hash: Any = None
    locality_lb_setting: Any = None
    warmup_duration_secs: Any = None
    warmup: Any = None


class Tls(Strict):
    """TLS that the proxy begins towards the endpoints; the certificates are not known here."""

    mode: Literal["DISABLE", "SIMPLE", "MUTUAL", "ISTIO_MUTUAL"] = "DISABLE"
    client_certificate: str | None = None
    private_key: str | None = None
    ca_certificates: str | None = None
    ca_crl: str | None = None
    credential_name: str | None = None
    subject_alt_names: Any = None
    sni: Any = None
    insecure_skip_verify: Any = None


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

    host: str
    subsets: list[Subset] | None = None
    traffic_policy: TrafficPolicy | None = None
    export_to: list[str] | None = None
    workload_selector: Any = None


class Rule(Strict):
    """The whole document."""

    api_version: str
    kind: str
    metadata: Metadata
    spec: RuleSpec
    status: Any = None


_UNITS = {"h": 3600.0, "m": 60.0, "s": 1.0, "ms": 1e-3, "us": 1e-6, "ns": 1e-9}
_PART = re.compile(r"(\d+(?:\.\d+)?|\.\d+)(h|ms|us|ns|m|s)")
_LONGEST = 366 * 24 * 3600.0


def complete(host: str, namespace: str) -> str:
    """A host name as Istio takes it: only one without a dot is completed."""
    return host if "." in host or host == "*" else f"{host}.{namespace}.{_DOMAIN}"


def exported(export_to: Iterable[str] | None, own: str, client: str) -> bool:
    """Whether what is in namespace `own` can be seen from namespace `client`."""
    names = list(export_to or ()) or ["*"]
    if client == GATEWAYS and any(part in name for name in names for part in _GATEWAY_WORDS):
        return True
    return client in names or "*" in names or ("." in names and own == client)


@dataclass(frozen=True, slots=True)
class _Read:
    """A DestinationRule and its document."""

    document: Document
    spec: RuleSpec

    def means(self, service: Service, *, loosely: bool = False) -> bool:
        """Whether it is for a Service; `loosely` with a host that Istio would not complete."""
        host = complete(self.spec.host, self.document.namespace)
        if host.startswith("*"):
            return fnmatchcase(service.host, host.replace("[", "[[]"))
        short = f"{service.name}.{service.namespace}"
        return host == service.host or (loosely and host in {short, f"{short}.svc"})

    def hidden(self, client: str, service: Service) -> str:
        """Why Istio does not look at it for a client's connections; empty if it does."""
        own = self.document.namespace
        if not self.means(service):
            return f"its host {self.spec.host} has a dot, so Istio does not complete it"
        if own not in {client, service.namespace, ROOT}:
            return (
                f"it is in namespace {own}: Istio looks in the namespace of the client,"
                f" in that of the Service and in {ROOT}"
            )
        if not exported(self.spec.export_to, own, client):
            return f"its exportTo hides it from namespace {client}, where the gateway is"
        if self.spec.workload_selector is not None:
            return "its workloadSelector does not hold for a gateway"
        return ""


class DestinationRules:
    """All DestinationRules, and the destinations that they shape."""

    def __init__(
        self,
        documents: Iterable[Document],
        workloads: Workloads,
        notes: Notes,
        meshed: Collection[str] = (),
    ) -> None:
        """Read the rules.

        Args:
            documents: of any kind; those of other kinds are left alone.
            workloads: what subsets select.
            notes: takes what is not carried out, and what Istio does in silence.
            meshed: namespaces whose pods have Istio's proxy.

        Raises:
            ManifestError: one of them is wrong.
        """
        self._workloads = workloads
        self._notes = notes
        self._meshed = meshed
        self._rules: list[_Read] = []
        for document in documents:
            if document.kind != "DestinationRule":
                continue
            read = document.read(Rule)
            for path in document.unread(read):
                notes.note(document, path)
            self._rules.append(_Read(document, read.spec))
            self._check(self._rules[-1])

    def say_unused(self) -> None:
        """Note the rules for hosts of which there is no Service, once all routes are read."""
        for rule in self._rules:
            if not any(rule.means(each, loosely=True) for each in self._workloads.services):
                what = f"spec.host {rule.spec.host}, of which there is no Service"
                self._notes.note(rule.document, what)

    def destination(  # noqa: PLR0913 - all that shapes a destination
        self,
        service: Service,
        port: ServicePort,
        subset: str | None,
        weight: int,
        complain: Complain,
        *,
        client: str = GATEWAYS,
        intended: bool = False,
    ) -> Destination:
        """The destination that a route means with a Service and perhaps a subset.

        Args:
            service: the destination's host.
            port: one of its ports.
            subset: a name that a DestinationRule gives, or None.
            weight: of the destination in its route.
            complain: makes the error, at the place of the destination.
            client: the namespace that connections come from.
            intended: look at rules that Istio would not look at, too.

        Raises:
            ManifestError: no such subset, no pod, or a policy that cannot be.
        """
        rules = self._found(service, client)
        name = f"outbound|{port.port}|{subset or ''}|{service.host}"
        spoken = [each for each in rules if each.spec.traffic_policy is not None][:1]
        levels: list[_Level] = []
        levels += [
            (each.document, each.spec.traffic_policy, "spec.trafficPolicy") for each in spoken
        ]
        top = levels[0] if levels else None
        among: list[Workload] | None = None
        if subset is not None:
            found = self._subset(subset, rules)
            if found is None:
                found = self._subset(subset, self._all(service))
                if found is not None and not intended:
                    cause = self._say_hidden(found[0], service, subset, client)
                    return Destination(name=name, weight=weight, endpoints=(), cause=cause)
            if found is not None:
                rule, index = found
                chosen = (rule.spec.subsets or [])[index]
                path = f"spec.subsets[{index}].trafficPolicy"
                levels.append((rule.document, chosen.traffic_policy, path))
                among = self._selected(rule, index, service)
            elif not (service.assumed and not self._rules):
                raise complain(self._no_subset(service, subset))
        chosen_from = self._workloads.behind(service) if among is None else among
        return Destination(
            name=name,
            weight=weight,
            endpoints=self._workloads.endpoints(
                service, port, complain, among=among, subset=subset or ""
            ),
            policy=_policy(levels, top, port.port, meshed=self._has_proxies(chosen_from)),
        )

    def part(self, destination: Destination, service: Service, subset: str | None) -> Part:
        """What in the manifests selects the pods of a destination."""
        found = None if subset is None else self._subset(subset, self._all(service))
        if found is None:
            name, path = service.name, "spec.selector"
            return Part(
                destination=destination,
                service=service,
                name=name,
                rule="",
                document=service.document,
                path=path,
            )
        rule, index = found
        return Part(
            destination=destination,
            service=service,
            name=subset or "",
            rule=f"DestinationRule {rule.document.name}",
            document=rule.document,
            path=f"spec.subsets[{index}].labels",
        )

    def _has_proxies(self, workloads: Iterable[Workload]) -> bool:
        """Whether Istio's own TLS ends in a proxy beside each pod; who stands in has one."""
        return all(
            each.sidecar or each.config is None or each.namespace in self._meshed
            for each in workloads
        )

    def _check(self, rule: _Read) -> None:
        """Look at what no route may ever ask for: each policy, and each subset's pods."""
        spec, document = rule.spec, rule.document
        policies = [(spec.traffic_policy, "spec.trafficPolicy")]
        for index, subset in enumerate(spec.subsets or ()):
            policies.append((subset.traffic_policy, f"spec.subsets[{index}].trafficPolicy"))
        for policy, path in policies:
            for place, settings in _each(policy, path):
                self._check_tls(rule, settings, f"{place}.tls")
            ports = [each.port.number for each in (policy and policy.port_level_settings) or ()]
            for port in [0, *ports]:
                _policy([(document, policy, path)], (document, policy, path), port, meshed=True)

    def _check_tls(self, rule: _Read, settings: Settings, path: str) -> None:
        """Refuse what Istio's webhook refuses in TLS to pods, and say what is not shown."""
        tls, document = settings.tls, rule.document
        if tls is None or tls.mode not in {"SIMPLE", "MUTUAL"}:
            return
        shown = ""
        if tls.mode == "MUTUAL":
            for field, value in (
                ("clientCertificate", tls.client_certificate),
                ("privateKey", tls.private_key),
            ):
                if not (value or tls.credential_name):
                    raise document.error(
                        f"{path}.{field}", "is missing: Istio refuses MUTUAL without it"
                    )
            place = tls.client_certificate or tls.credential_name
            shown = f" with a throw-away certificate in place of {place}"
        self._notes.say(
            f"DestinationRule {document.name}: the gateway speaks TLS to the pods{shown};"
            " the rehearsal does not check the pods' own certificates",
            document,
        )
        named = tls.ca_certificates or tls.credential_name or tls.insecure_skip_verify
        inside = any(
            rule.means(each) and each.document and each.document.kind == "Service"
            for each in self._workloads.services
        )
        if not named and inside:
            self._notes.warn(
                f"DestinationRule {document.name}: {path} names no caCertificates: Istio then"
                " accepts pods with certificates of public authorities only; with a private"
                " authority, every connection fails",
                document,
                path,
            )

    def _all(self, service: Service) -> list[_Read]:
        """All rules that somebody meant for a Service."""
        return [rule for rule in self._rules if rule.means(service, loosely=True)]

    def _found(self, service: Service, client: str) -> list[_Read]:
        """The rules that Istio takes for a Service: of the first namespace that has one."""
        seen = [rule for rule in self._all(service) if not rule.hidden(client, service)]
        for namespace in (client, service.namespace, ROOT):
            there = [rule for rule in seen if rule.document.namespace == namespace]
            exact = [rule for rule in there if "*" not in rule.spec.host]
            if there:
                return exact or there[:1]
        return []

    @staticmethod
    def _subset(name: str, rules: Iterable[_Read]) -> tuple[_Read, int] | None:
        """The rule that has a subset, and where in it."""
        for rule in rules:
            for index, subset in enumerate(rule.spec.subsets or ()):
                if subset.name == name:
                    return rule, index
        return None

    def _no_subset(self, service: Service, subset: str) -> str:
        """The complaint about a subset that no rule has."""
        rules = self._all(service)
        found = listed([each.name for rule in rules for each in rule.spec.subsets or ()])
        names = listed([rule.document.name for rule in rules])
        where = f"DestinationRule {names}" if rules else "any DestinationRule"
        return (
            f"there is no subset {subset} of host {service.name} in {where}; subsets found: {found}"
        )

    def _say_hidden(self, rule: _Read, service: Service, subset: str, client: str) -> str:
        """Say why Istio has no subset that a rule gives. Returns it with its place."""
        return self._notes.warn(
            f"Istio does not look at DestinationRule {rule.document.name}:"
            f" {rule.hidden(client, service)}. There is no subset {subset} of {service.name} then,"
            " and every connection to it fails",
            rule.document,
        )

    def _selected(self, rule: _Read, index: int, service: Service) -> list[Workload]:
        """The workloads of a subset."""
        subset = (rule.spec.subsets or [])[index]
        labels = subset.labels or {}
        behind = self._workloads.behind(service)
        wanted = (rule.document.name, subset.name)
        moved = [each for each in behind if each.subset == wanted]
        found = moved or [each for each in behind if each.matches(labels)]
        if behind and not found:
            path = f"spec.subsets[{index}].labels"
            for each in self._workloads.selected(service):
                if each.matches(labels):
                    reason = f"selects no pod: {each.kind} {each.short} has 0 replicas"
                    raise rule.document.error(path, f"subset {subset.name} {reason}")
            there = "; ".join(
                f"{key}s found: "
                + listed(sorted({each.labels[key] for each in behind if key in each.labels}))
                for key in labels
            )
            raise rule.document.error(path, f"subset {subset.name} selects no workload; {there}")
        return found


def _each(policy: TrafficPolicy | None, path: str) -> Iterator[tuple[str, Settings]]:
    """A policy's settings, for all ports and for single ones, with their paths."""
    if policy is not None:
        yield path, policy
        for index, each in enumerate(policy.port_level_settings or ()):
            yield f"{path}.portLevelSettings[{index}]", each


_Level = tuple["Document", "TrafficPolicy | None", str]
"""A policy, its document, and its path there."""


def _policy(levels: list[_Level], top: _Level | None, port: int, *, meshed: bool) -> Policy:
    """Merge a host's policy and its subset's, as Istio does.

    A later level wins part by part. Settings for a port replace all of a
    level's others. How long a connection may last is no part of this: the
    host's own policy alone says it.

    Args:
        levels: the host's policy and its subset's.
        top: the host's own, if it has one.
        port: of the Service.
        meshed: whether Istio's own TLS towards the endpoints ends in a proxy.
    """
    merged: dict[str, tuple[Any, Document, str]] = {}
    for document, policy, path in levels:
        if policy is None:
            continue
        settings: Settings = policy
        place = path
        for index, each in enumerate(policy.port_level_settings or ()):
            if each.port.number == port:
                settings, place = each, f"{path}.portLevelSettings[{index}]"
                merged.clear()
        for name in ("connection_pool", "outlier_detection", "load_balancer", "tls"):
            if (part := getattr(settings, name)) is not None:
                merged[name] = (part, document, place)
    pool, owner, pool_path = merged.get("connection_pool", (Pool(), None, ""))
    tcp, http = pool.tcp or TcpPool(), pool.http or HttpPool()
    seconds = _Seconds(owner, f"{pool_path}.connectionPool.tcp")
    alive = tcp.tcp_keepalive
    tls = merged["tls"][0].mode if "tls" in merged else "DISABLE"
    own = top[1].connection_pool if top and top[1] else None
    lasting = (own and own.tcp) or TcpPool()
    limits = _Seconds(top[0] if top else None, f"{top[2] if top else ''}.connectionPool.tcp")
    balancer = merged["load_balancer"][0].simple if "load_balancer" in merged else ""
    # Those of other levels are looked at too, and must be durations.
    seconds(tcp.idle_timeout, "idleTimeout")
    seconds(tcp.max_connection_duration, "maxConnectionDuration", 0.001)
    return Policy(
        balancing=balancer if balancer in {"RANDOM", "ROUND_ROBIN"} else "LEAST_REQUEST",
        max_connections=tcp.max_connections or None,
        max_pending=http.http1_max_pending_requests or None,
        connect_timeout=seconds(tcp.connect_timeout, "connectTimeout", 0.001) or 10.0,
        idle_timeout=limits(lasting.idle_timeout, "idleTimeout"),
        max_duration=limits(lasting.max_connection_duration, "maxConnectionDuration", 0.001),
        keepalive=None
        if alive is None
        else Keepalive(
            time=seconds.whole(alive.time, "tcpKeepalive.time"),
            interval=seconds.whole(alive.interval, "tcpKeepalive.interval"),
            probes=alive.probes,
        ),
        outlier=_outlier(*merged["outlier_detection"]) if "outlier_detection" in merged else None,
        tls=tls in {"SIMPLE", "MUTUAL"} or (tls == "ISTIO_MUTUAL" and not meshed),
        certified=tls == "MUTUAL",
    )


def _outlier(found: OutlierDetection, document: Document, path: str) -> Outlier:
    """Outlier detection as a policy has it."""
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

    document: Document | None
    path: str

    def __call__(self, text: str | None, field: str, least: float = 0.0) -> float | None:
        """A duration such as ``1h30m`` or ``250ms`` in seconds; None for none."""
        if text is None or self.document is None:
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
