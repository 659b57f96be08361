"""A route to be read, or run by hand: Envoy's configuration and the commands beside it. Pure."""

from __future__ import annotations

import shlex
from typing import TYPE_CHECKING

import yaml

from trio_echo.rehearsal import envoy
from trio_echo.rehearsal.route import Endpoint, manifest_ports

if TYPE_CHECKING:
    from trio_echo.rehearsal.route import Route

__all__ = ["by_hand"]

_FIRST_PORT = 20_001


def by_hand(route: Route) -> str:
    """One YAML file for ``envoy -c``, headed by the backends to start before it.

    Listeners have the manifest's ports; each endpoint has a port of its own,
    counted from 20001, as all run on one machine.
    """
    addresses: dict[Endpoint, tuple[str, int]] = {}
    heading = ["# Start the backends, then: envoy -c FILE"]
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
            heading.append(f"# {shlex.join(command)}  # {backend.name}, replica {replica + 1}")
    ports_of = {listener.name: listener.port for listener in route.listeners}
    content = envoy.static(route, addresses, ports_of)
    return "\n".join([*heading, yaml.safe_dump(content, sort_keys=False, allow_unicode=True)])
