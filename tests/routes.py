"""Routes for tests: a strategy for any of them, and a few by name."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import TYPE_CHECKING

from hypothesis import strategies as st

from trio_echo.rehearsal.dataplane import PLANES, static
from trio_echo.rehearsal.envoy import Machine
from trio_echo.rehearsal.route import (
    Backend,
    Chain,
    Destination,
    Endpoint,
    Keepalive,
    Listener,
    Outlier,
    Policy,
    Route,
)
from trio_echo.server.config import ServerConfig

if TYPE_CHECKING:
    from collections.abc import Sequence

YEAR = 366 * 24 * 3600

seconds = st.floats(0.001, YEAR)
counts = st.integers(0, 2**31 - 1)
percents = st.integers(0, 100)


def optional(strategy: st.SearchStrategy[object]) -> st.SearchStrategy[object]:
    """A value or None."""
    return st.none() | strategy


keepalives = st.builds(
    Keepalive,
    time=optional(st.integers(1, YEAR)),
    interval=optional(st.integers(1, YEAR)),
    probes=optional(counts),
)
outliers = st.builds(
    Outlier,
    failures=optional(counts),
    gateway_failures=optional(counts),
    local_failures=optional(st.integers(1, 2**31 - 1)),
    split_local=st.booleans(),
    interval=optional(seconds),
    base_ejection=optional(seconds),
    max_ejection_percent=optional(st.integers(1, 100)),
    min_health_percent=percents,
)
policies = st.builds(
    Policy,
    balancing=st.sampled_from(["LEAST_REQUEST", "RANDOM", "ROUND_ROBIN"]),
    max_connections=optional(st.integers(1, 2**31 - 1)),
    connect_timeout=seconds,
    idle_timeout=optional(st.just(0.0) | seconds),
    max_duration=optional(seconds),
    keepalive=optional(keepalives),
    outlier=optional(outliers),
)


@st.composite
def routes(draw: st.DrawFn) -> Route:
    """Any route that manifests can describe, with up to four backends."""
    plane = draw(st.sampled_from(list(PLANES.values())))
    number = draw(st.integers(1, 4))
    backends = tuple(
        Backend(
            name=f"default/echo-{index}",
            config=ServerConfig(ports=[9000, 9001], prefix=f"v{index}"),
            replicas=draw(st.integers(1, 3)),
        )
        for index in range(number)
    )
    listeners = tuple(
        Listener(
            name=f"Gateway default/gateway port {31_400 + index}",
            port=31_400 + index,
            chains=draw(chains(backends, pooled=plane.pools)),
            plane=plane.name,
        )
        for index in range(draw(st.integers(1, 3)))
    )
    return Route(listeners=listeners, backends=backends)


@st.composite
def chains(draw: st.DrawFn, backends: tuple[Backend, ...], *, pooled: bool) -> tuple[Chain, ...]:
    """The chains of one listener: by server name, for all, or both."""
    names = draw(st.lists(st.sampled_from(["a.example", "*.b.example", "c"]), unique=True))
    snis: list[tuple[str, ...]] = [(name,) for name in names]
    if not snis or draw(st.booleans()):
        snis.append(())
    return tuple(
        Chain(sni=sni, destinations=draw(destinations(backends)), pooled=pooled) for sni in snis
    )


@st.composite
def destinations(draw: st.DrawFn, backends: tuple[Backend, ...]) -> tuple[Destination, ...]:
    """One or more weighted destinations, at least one weight above 0."""
    weights = draw(st.lists(st.integers(0, 2**28), min_size=1, max_size=4).filter(any))
    chosen: list[Destination] = []
    for weight in weights:
        some = draw(st.lists(st.sampled_from(backends), min_size=1, unique_by=lambda b: b.name))
        policy = draw(policies)
        endpoints: tuple[Endpoint, ...] = ()
        for backend in some:
            endpoints += backend.endpoints(draw(st.sampled_from([9000, 9001])))
        name = f"outbound|9000||{draw(st.uuids())}.svc"
        chosen.append(Destination(name=name, weight=weight, endpoints=endpoints, policy=policy))
    return tuple(chosen)


def together(many: Sequence[Route]) -> Route:
    """One route with the listeners of many: a start of Envoy costs more than a listener."""
    listeners: list[Listener] = []
    for index, route in enumerate(many):
        for listener in route.listeners:
            chains = tuple(
                replace(
                    chain,
                    destinations=tuple(
                        replace(each, name=f"{index} {each.name}") for each in chain.destinations
                    ),
                )
                for chain in listener.chains
            )
            listeners.append(replace(listener, name=f"{index} {listener.name}", chains=chains))
    return Route(listeners=tuple(listeners), backends=())


class Anywhere(dict[Endpoint, tuple[str, int]]):
    """Addresses for all endpoints there can be: nothing is dialled."""

    def __missing__(self, endpoint: Endpoint) -> tuple[str, int]:
        """Any loopback address will do."""
        return ("127.0.0.1", 20_000 + endpoint.replica)


def configuration(route: Route) -> bytes:
    """The whole configuration of a route, on free ports."""
    ports = {each.name: 0 for each in route.listeners}
    return json.dumps(static(route, Machine(addresses=Anywhere(), ports=ports))).encode()
