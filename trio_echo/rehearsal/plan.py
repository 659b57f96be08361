"""Documents -> what is rehearsed, and what is not. Pure."""

from __future__ import annotations

import re
from dataclasses import replace
from difflib import get_close_matches
from typing import TYPE_CHECKING

from trio_echo.errors import NoRouteError
from trio_echo.rehearsal.dataplane import DEFAULT
from trio_echo.rehearsal.destination_rules import DestinationRules
from trio_echo.rehearsal.documents import Lenient, Metadata, listed
from trio_echo.rehearsal.envoy_gateway import ENVOY_GATEWAY_GROUP
from trio_echo.rehearsal.envoy_gateway import KINDS as ENVOY_GATEWAY_KINDS
from trio_echo.rehearsal.gateway_api import gateway_api_listeners
from trio_echo.rehearsal.gateway_api_listeners import Reader
from trio_echo.rehearsal.istio import is_web, istio_listeners
from trio_echo.rehearsal.notes import Notes
from trio_echo.rehearsal.route import Notice, Plan, Route
from trio_echo.rehearsal.workload_documents import KINDS, read_workloads
from trio_echo.rehearsal.workloads import NO_CERTIFICATE
from trio_echo.server.config import ServerConfig, TLSConfig

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from trio_echo.rehearsal.documents import Document
    from trio_echo.rehearsal.envoy import Plane
    from trio_echo.rehearsal.route import Chain, Destination, Listener
    from trio_echo.rehearsal.workload_documents import ParseServe
    from trio_echo.rehearsal.workloads import Workloads

__all__ = ["make_plan"]

_ISTIO = {"networking.istio.io/v1", "networking.istio.io/v1beta1", "networking.istio.io/v1alpha3"}
_GATEWAY_API = "gateway.networking.k8s.io"
_WORKLOADS = "workloads"
"""In the place of the group of what makes pods, which has moved between groups."""

_VERSIONS = {
    ("networking.istio.io", "Gateway"): _ISTIO,
    ("networking.istio.io", "VirtualService"): _ISTIO,
    ("networking.istio.io", "DestinationRule"): _ISTIO,
    (_GATEWAY_API, "Gateway"): {f"{_GATEWAY_API}/v1", f"{_GATEWAY_API}/v1beta1"},
    (_GATEWAY_API, "TCPRoute"): {f"{_GATEWAY_API}/v1", f"{_GATEWAY_API}/v1alpha2"},
    (_GATEWAY_API, "TLSRoute"): {
        f"{_GATEWAY_API}/v1",
        f"{_GATEWAY_API}/v1alpha2",
        f"{_GATEWAY_API}/v1alpha3",
    },
    (_GATEWAY_API, "GatewayClass"): {f"{_GATEWAY_API}/v1", f"{_GATEWAY_API}/v1beta1"},
    (_GATEWAY_API, "ListenerSet"): {f"{_GATEWAY_API}/v1"},
    (_GATEWAY_API, "ReferenceGrant"): {
        f"{_GATEWAY_API}/v1",
        f"{_GATEWAY_API}/v1beta1",
        f"{_GATEWAY_API}/v1alpha2",
    },
    ("gateway.networking.x-k8s.io", "XListenerSet"): {"gateway.networking.x-k8s.io/v1alpha1"},
    **{
        (ENVOY_GATEWAY_GROUP, kind): {f"{ENVOY_GATEWAY_GROUP}/v1alpha1"}
        for kind in ENVOY_GATEWAY_KINDS
    },
    ("networking.istio.io", "ServiceEntry"): _ISTIO,
    ("", "Namespace"): {"v1"},
    ("", "Service"): {"v1"},
} | {(_WORKLOADS, kind): versions for kind, versions in KINDS.items()}
_DECIDING = {
    "AuthorizationPolicy": "may refuse connections",
    "EnvoyFilter": "may change any part of Envoy's configuration",
    "Sidecar": "may hide Services from clients in the mesh",
    "NetworkPolicy": "may cut connections between pods",
    "SecurityPolicy": "may refuse connections",
    "BackendTLSPolicy": "makes the data plane speak TLS to the pods of a Service",
    "EnvoyPatchPolicy": "may change any part of Envoy's configuration",
}
"""Kinds that are not carried out, and that can decide what becomes of a connection."""

_NAME = re.compile(r"[a-z0-9]([-a-z0-9.]*[a-z0-9])?")
_LONGEST_NAME = 253

_ROOMS = {
    "networking.istio.io": "istio",
    _GATEWAY_API: "gateway-api",
    "gateway.networking.x-k8s.io": "gateway-api",
    ENVOY_GATEWAY_GROUP: "gateway-api",
}


class NamespaceDocument(Lenient):
    """A Namespace, of which the labels count."""

    metadata: Metadata


def make_plan(documents: Sequence[Document], parse: ParseServe, plane: Plane | None = None) -> Plan:
    """Work out what the documents would do in a cluster.

    Args:
        documents: all that would be applied.
        parse: reads the command line of ``serve``.
        plane: who runs every Gateway of Gateway API; None to go by its class.

    Raises:
        ManifestError: a document is wrong, two describe the same object, or no
            route leads anywhere.
    """
    notes = Notes()
    known: dict[str, list[Document]] = {"istio": [], "gateway-api": [], "workloads": []}
    namespaces: dict[str, dict[str, str]] = {}
    for group, document in _applied(documents, notes):
        if document.kind == "Namespace":
            namespaces[document.name] = document.read(NamespaceDocument).metadata.labels or {}
        elif document.kind == "ServiceEntry":
            known["workloads"].append(document)
        else:
            known[_ROOMS.get(group, "workloads")].append(document)
    meshed = {name for name, labels in namespaces.items() if _is_meshed(labels)}
    workloads = read_workloads(known["workloads"], parse, notes.note)
    rules = DestinationRules(known["istio"], workloads, notes, meshed)
    reader = Reader(
        documents=known["gateway-api"],
        namespaces=namespaces,
        plane=plane,
        workloads=workloads,
        rules=rules,
        notes=notes,
    )
    own = istio_listeners(known["istio"], workloads, rules, notes)
    if own and plane not in {None, DEFAULT}:
        notes.say(f"VirtualServices are {DEFAULT.title}'s own, and run as it runs them")
    listeners = [*own, *gateway_api_listeners(reader)]
    if not listeners:
        raise NoRouteError(_nothing_routed(documents, notes.warnings))
    _warn_of_deciding(documents, notes)
    rules.say_unused()
    _say_unreached(listeners, workloads, notes)
    route = _with_backends(listeners, workloads, notes)
    notices = (*notes.all(), *map(Notice, (*_alike(route), *_certificates(route))))
    steps = None if workloads.steps is None else tuple(workloads.steps)
    return Plan(route, notices, warnings=tuple(dict.fromkeys(notes.warnings)), steps=steps)


def _applied(documents: Sequence[Document], notes: Notes) -> list[tuple[str, Document]]:
    """The documents that are rehearsed, with their group, as they are after all are applied.

    Raises:
        ManifestError: an API server would refuse one for its version or name.
    """
    last: dict[tuple[str, str, str, str], Document] = {}
    for document in documents:
        if not document.content:
            continue
        group = document.api_version.rpartition("/")[0]
        if document.kind in KINDS and group in _GROUPS:
            group = _WORKLOADS
        if not (document.kind and document.api_version):
            found = listed(list(document.content))
            raise document.error(
                "",
                f"must have apiVersion and kind; fields found: {found}. If this is no manifest,"
                " name the files that are, or give what helm template CHART prints to"
                " trio-echo rehearse -",
            )
        versions = _VERSIONS.get((group, document.kind))
        if versions is None:
            _check_kind(document, group)
            if document.kind not in _DECIDING:
                notes.unknown(document)
            continue
        if document.api_version not in versions:
            raise document.error(
                "apiVersion",
                f"{document.api_version} is not served; served: {', '.join(sorted(versions))}",
            )
        _check_name(document)
        key = (group, document.kind, document.namespace, document.name)
        if key in last:
            text = f"{document.place()} replaces the one at {last[key].place()}"
            notes.say(text, document)
            # Where the first one stood is when the object was created.
        last[key] = document
    return [(group, document) for (group, *_), document in last.items()]


def _check_kind(document: Document, group: str) -> None:
    """Refuse a kind that is not known, and is one that is but for a slip."""
    wanted = _WORKLOADS if group in _GROUPS else group
    known = [kind for where, kind in _VERSIONS if where in {group, wanted}]
    same = [kind for kind in known if kind.lower() == document.kind.lower()]
    near = same or get_close_matches(document.kind, known, n=1, cutoff=_NEAR)
    if near and document.kind not in known:
        raise document.error(
            "kind", f"there is no {document.kind} in {document.api_version}; is it {near[0]}?"
        )


_NEAR = 0.9
"""Of a kind: ``Services`` is near, ``HTTPRoute`` is not near to ``TCPRoute``."""


def _check_name(document: Document) -> None:
    """Refuse a name that an API server refuses for the kinds that are rehearsed."""
    for path, name in (("name", document.name), ("namespace", document.namespace)):
        if name and not (_NAME.fullmatch(name) and len(name) <= _LONGEST_NAME):
            raise document.error(
                f"metadata.{path}",
                f"must be lower-case letters, digits, - and ., {_LONGEST_NAME} at most,"
                f" got {name!r}",
            )


def _warn_of_deciding(documents: Sequence[Document], notes: Notes) -> None:
    """Warn of kinds that decide what becomes of connections, and are not carried out.

    Raises:
        ManifestError: one of them must be left out to rehearse the rest.
    """
    for each in documents:
        if each.kind == "AuthorizationPolicy":
            _check_policy(each)
        if each.kind in _DECIDING:
            what = f"{each.kind} {each.name} is ignored here: in the cluster it"
            notes.warn(f"{what} {_DECIDING[each.kind]}", each)


def _check_policy(document: Document) -> None:
    """Refuse a policy that decides by port, or that lets nothing in."""
    spec = document.content.get("spec")
    rules = str(spec.get("rules") or "") if isinstance(spec, dict) else ""
    if not rules or "'ports'" in rules:
        raise document.error(
            "spec.rules",
            "decides which connections are refused, which the rehearsal does not support;"
            " leave this document out to rehearse the rest",
        )


_GROUPS = {each.rpartition("/")[0] for versions in KINDS.values() for each in versions}


def _is_meshed(labels: Mapping[str, str]) -> bool:
    """Whether the pods of a namespace get Istio's proxy, by the namespace's labels."""
    return labels.get("istio-injection") == "enabled" or "istio.io/rev" in labels


def _with_backends(listeners: Sequence[Listener], workloads: Workloads, notes: Notes) -> Route:
    """The route, with all that runs behind it.

    Who stands in speaks TLS where clients or Envoy do. Where a port of one is
    reached both by TLS and by what Envoy sends after it has ended TLS, two
    stand in with one name.
    """
    secure = _reached(listeners, lambda chain, to: chain.passthrough or to.policy.tls)
    ended = _reached(listeners, lambda chain, to: chain.tls is not None and not to.policy.tls)
    both = {each for each in secure & ended if workloads.stands_in(each[0])}

    def apart(chain: Chain, to: Destination) -> Destination:
        if not (chain.passthrough or to.policy.tls):
            return to
        endpoints = (
            replace(one, backend=f"{one.backend}{_BY_TLS}")
            if (one.backend, one.port) in both
            else one
            for one in to.endpoints
        )
        found = tuple(endpoints)
        return to if found == to.endpoints else replace(to, name=to.name + _BY_TLS, endpoints=found)

    backends = workloads.backends(secure - both, notes)
    for each in list(backends):
        ports = sorted(port for name, port in both if name == each.name)
        if ports:
            tls = TLSConfig(ports=ports, cert=NO_CERTIFICATE)
            config = ServerConfig(ports=[], prefix=each.config.prefix, tls=tls)
            backends.append(replace(each, name=f"{each.name}{_BY_TLS}", config=config))
    told = (
        replace(
            each,
            chains=tuple(
                replace(chain, destinations=tuple(apart(chain, to) for to in chain.destinations))
                for chain in each.chains
            ),
        )
        for each in listeners
    )
    return Route(listeners=tuple(told), backends=tuple(backends))


_BY_TLS = " by TLS"


def _say_unreached(listeners: Sequence[Listener], workloads: Workloads, notes: Notes) -> None:
    """Say which workloads no route leads to, though one leads to their Service."""
    reached = {name for name, _ in _reached(listeners, lambda *_: True)}
    for service in workloads.services:
        for each in workloads.behind(service) if service in workloads.routed else ():
            known = each.name in reached or each in workloads.missed or each.role
            if not known and each.document is not None:
                notes.say(
                    f"{each.kind} {each.short} is behind Service {service.name}, and no route"
                    " leads to it",
                    each.document,
                )


def _reached(
    listeners: Sequence[Listener], by: Callable[[Chain, Destination], bool]
) -> set[tuple[str, int]]:
    """The backends and ports that are reached by some destinations of chains."""
    return {
        (endpoint.backend, endpoint.port)
        for listener in listeners
        for chain in listener.chains
        for destination in (*chain.destinations, *(chain.expected or ()))
        if by(chain, destination)
        for endpoint in destination.endpoints
    }


def _nothing_routed(documents: Iterable[Document], warnings: Sequence[Notice]) -> str:
    """What to say when no route was found."""
    if warnings:
        return f"no route is left: {'; '.join(each.placed for each in warnings)}"
    documents = list(documents)
    web = [each for each in documents if each.kind == "HTTPRoute" or is_web(each)]
    if web:
        names = listed([f"{each.kind} {each.name}" for each in web])
        return f"no route for TCP or TLS found; only TCP and TLS are rehearsed, not HTTP: {names}"
    found = listed([f"{each.kind} {each.name}".strip() for each in documents])
    found = "nothing" if found == "none" else found
    return (
        "no route found: give a VirtualService with its Gateway, or a TCPRoute or TLSRoute with"
        f" its Gateway, beside the Deployments and Services; found: {found}"
    )


def _alike(route: Route) -> Iterable[str]:
    """Say which backends cannot be told apart by their answers."""
    by_prefix: dict[str, list[str]] = {}
    for backend in route.backends:
        if backend.name.endswith(_BY_TLS):
            continue
        by_prefix.setdefault(backend.config.prefix, []).append(backend.name)
    for prefix, names in by_prefix.items():
        if len(names) > 1:
            yield (
                f"{' and '.join(names)} all answer {prefix!r}: the split between them"
                " cannot be seen, they are judged as one"
            )


def _certificates(route: Route) -> Iterable[str]:
    """Say that certificates of the cluster are not used."""
    for backend in route.backends:
        if (tls := backend.config.tls) is not None:
            asks = ", and asks clients for one of the same authority" if tls.client_ca else ""
            place = f" in place of {tls.cert}" if str(tls.cert) else ""
            yield f"{backend.name} shows a throw-away certificate{place}{asks}"
