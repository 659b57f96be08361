"""The data planes by name, and a `Route` as the whole configuration of Envoy. Pure.

Each listener is configured as the data plane that runs it would. Another data
plane is one more module like `trio_echo.rehearsal.dataplane_istio`, named here.
"""

from __future__ import annotations

import shlex
from dataclasses import replace
from typing import TYPE_CHECKING

from trio_echo.rehearsal.dataplane_envoy_gateway import ENVOY_GATEWAY
from trio_echo.rehearsal.dataplane_istio import ISTIO
from trio_echo.rehearsal.envoy import Configuration, Json, Machine, Plane, base
from trio_echo.rehearsal.route import Endpoint, manifest_ports
from trio_echo.text import visible

if TYPE_CHECKING:
    from trio_echo.rehearsal.route import Route

__all__ = ["DEFAULT", "PLANES", "by_hand", "configure", "plane_of", "run_by", "static"]

PLANES = {plane.name: plane for plane in (ISTIO, ENVOY_GATEWAY)}
DEFAULT = ISTIO

_FIRST_PORT = 20_001


def plane_of(name: str, controller: str | None) -> Plane | None:
    """The data plane of a GatewayClass; None if it is not known here.

    Args:
        name: the class's name.
        controller: what its document calls its controller; None without a document.
    """
    for plane in PLANES.values():
        if controller in plane.controllers or (controller is None and name in plane.classes):
            return plane
    return None


def run_by(plane: Plane, route: Route) -> Route:
    """The same route, run by another data plane."""
    return replace(
        route,
        listeners=tuple(
            replace(
                each,
                plane=plane.name,
                chains=tuple(replace(chain, pooled=plane.pools) for chain in each.chains),
            )
            for each in route.listeners
        ),
    )


def configure(route: Route, machine: Machine) -> Configuration:
    """Envoy's configuration for a route, each listener by its own data plane."""
    whole = Configuration([], [], [])
    for plane in PLANES.values():
        own = tuple(each for each in route.listeners if each.plane == plane.name)
        part = plane.configure(replace(route, listeners=own), machine)
        whole.listeners.extend(part.listeners)
        whole.clusters.extend(part.clusters)
        whole.endpoints.extend(part.endpoints)
    return whole


def static(route: Route, machine: Machine) -> Json:
    """The whole route in one configuration that needs no watched file."""
    whole = configure(route, machine)
    endpoints = {each["cluster_name"]: each for each in whole.endpoints}
    clusters: list[Json] = []
    for cluster in whole.clusters:
        inside = dict(cluster)
        if inside.pop("eds_cluster_config", None):
            inside |= {"type": "STATIC", "load_assignment": endpoints[cluster["name"]]}
        clusters.append(inside)
    return base() | {"static_resources": {"listeners": whole.listeners, "clusters": clusters}}


def by_hand(route: Route) -> str:
    """One YAML file for ``envoy -c``, headed by the backends to start before it.

    Listeners have the manifest's ports; each endpoint has a port of its own,
    counted from 20001, as all run on one machine.
    """
    addresses: dict[Endpoint, tuple[str, int]] = {}
    heading = ["# Start the backends, then: envoy -c FILE"]
    chains = [chain for listener in route.listeners for chain in listener.chains]
    if any(chain.tls for chain in chains):
        heading.append("# TLS ends here: gateway.pem must hold a key and its certificate")
    if any(chain.tls.asks_client for chain in chains if chain.tls):
        heading.append("# Clients show certificates: authority.pem must hold their authority")
    if any(each.policy.certified for each in route.destinations().values()):
        heading.append("# Backends are shown client.pem, which must hold a key and its certificate")
    for backend in route.backends:
        config = backend.config
        for replica in range(backend.replicas):
            ports: list[str] = []
            for port in manifest_ports(config):
                number = _FIRST_PORT + len(addresses)
                addresses[Endpoint(backend.name, replica, port)] = ("127.0.0.1", number)
                ports.append(str(number))
            plain, secure = ports[: len(config.ports)], ports[len(config.ports) :]
            command = ["trio-echo", "serve", ",".join(plain), config.prefix]
            if config.tls is not None:
                command += ["--tls-ports", ",".join(secure), "--tls-cert", str(config.tls.cert)]
                command += ["--tls-key", str(config.tls.key)] if config.tls.key else []
            line = f"# {shlex.join(command)}  # {backend.name}, replica {replica + 1}"
            # A name with a line break must not become configuration.
            heading.append(visible(line))
    ports_of = {listener.name: listener.port for listener in route.listeners}
    import yaml  # noqa: PLC0415 - an extra

    content = static(route, Machine(addresses=addresses, ports=ports_of))
    return "\n".join([*heading, yaml.safe_dump(content, sort_keys=False, allow_unicode=True)])
