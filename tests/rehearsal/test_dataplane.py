"""The data planes: what each makes of a route, and that Envoy does it."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import trio
import yaml
from hypothesis import given
from profiles import examples
from routes import Anywhere, routes

from trio_echo.prober.config import ProbeConfig, ProbeTLS
from trio_echo.prober.schedule import probe
from trio_echo.prober.split import Verdict
from trio_echo.rehearsal.dataplane import (
    DEFAULT,
    PLANES,
    by_hand,
    configure,
    plane_of,
    run_by,
    static,
)
from trio_echo.rehearsal.envoy import Machine
from trio_echo.rehearsal.judge import judge, targets
from trio_echo.rehearsal.process import find_envoy
from trio_echo.rehearsal.route import (
    Backend,
    Chain,
    Destination,
    Endpoint,
    Listener,
    Route,
    Termination,
    built_in,
)
from trio_echo.rehearsal.testbed import open_testbed
from trio_echo.server.config import ServerConfig, TLSConfig

if TYPE_CHECKING:
    from collections.abc import Sequence

ENVOY_GATEWAY = PLANES["envoy-gateway"]
QUICK = partial(ProbeConfig, margin=0.2, alpha=0.0001)


def machine(route: Route) -> Machine:
    """A machine on which a route's listeners have the manifest's ports."""
    return Machine(addresses=Anywhere(), ports={each.name: each.port for each in route.listeners})


@pytest.mark.parametrize(
    ("name", "controller", "plane"),
    [
        ("istio", None, "istio"),
        ("istio-remote", None, "istio"),
        ("eg", None, "envoy-gateway"),
        ("envoy-gateway", None, "envoy-gateway"),
        ("mine", "istio.io/gateway-controller", "istio"),
        ("mine", "gateway.envoyproxy.io/gatewayclass-controller", "envoy-gateway"),
        ("eg", "istio.io/gateway-controller", "istio"),
        ("istio", "example.com/controller", None),
        ("mine", None, None),
    ],
)
def test_class_decides_the_data_plane(name: str, controller: str | None, plane: str | None) -> None:
    """By its document where there is one, else by names that everybody uses."""
    found = plane_of(name, controller)
    assert (found and found.name) == plane


def test_istio_is_shown_where_nothing_else_is_said() -> None:
    """A route without a class is Istio's."""
    assert {each.plane for each in built_in({"one": 1}).listeners} == {DEFAULT.name} == {"istio"}


@examples(0.25)
@given(routes())
def test_weights_reach_envoy_as_they_are(route: Route) -> None:
    """Each destination with a weight is in the configuration with it, no other is."""
    made = configure(route, machine(route))
    localities = {each["cluster_name"]: each["endpoints"] for each in made.endpoints}
    for listener, config in zip(route.listeners, made.listeners, strict=True):
        assert config["address"]["socket_address"]["port_value"] == listener.port
        for chain, filters in zip(listener.chains, config["filter_chains"], strict=True):
            proxy = filters["filters"][0]["typed_config"]
            names = filters.get("filter_chain_match", {}).get("server_names", [])
            assert tuple(names) == chain.sni
            expected = [each for each in chain.destinations if each.weight]
            weights = [each.weight for each in expected]
            if chain.pooled:
                pool = localities[proxy["cluster"]]
                assert [each["load_balancing_weight"] for each in pool] == weights
            elif "cluster" in proxy:
                assert [proxy["cluster"]] == [each.name for each in expected]
            else:
                weighted = proxy["weighted_clusters"]["clusters"]
                found = [(each["name"], each["weight"]) for each in weighted]
                assert found == [(each.name, each.weight) for each in expected]


def test_new_weights_are_a_new_listener_for_istio_only() -> None:
    """A filter chain that differs is what cuts connections; moved endpoints cut none."""
    before, after = built_in({"one": 80, "two": 20}), built_in({"one": 20, "two": 80})
    for plane in PLANES.values():
        old, new = (run_by(plane, each) for each in (before, after))
        was, now = (configure(each, machine(each)) for each in (old, new))
        assert (was.listeners == now.listeners) == plane.pools
        assert was.clusters == now.clusters
        assert (was.endpoints != now.endpoints) == plane.pools


def test_circuit_breakers_are_those_of_each() -> None:
    """Istio lifts Envoy's limit of 1024 connections, Envoy Gateway leaves it."""
    route = built_in({"one": 1})
    istio, gateway = (
        configure(run_by(plane, route), machine(route)).clusters[0]["circuit_breakers"]
        for plane in PLANES.values()
    )
    assert istio["thresholds"][0]["max_connections"] == 2**32 - 1
    assert "max_connections" not in gateway["thresholds"][0]


def test_tls_towards_backends_is_begun_where_a_policy_says_so() -> None:
    """A DestinationRule with tls.mode SIMPLE, for one."""
    route = spread(("a", 1), plane="istio")
    (listener,) = route.listeners
    (destination,) = listener.chains[0].destinations
    secure = replace(destination, policy=replace(destination.policy, tls=True))
    chain = replace(listener.chains[0], destinations=(secure,))
    other = replace(route, listeners=(replace(listener, chains=(chain,)),))
    plain, tls = (configure(each, machine(each)).clusters[0] for each in (route, other))
    assert "transport_socket" not in plain
    assert tls["transport_socket"]["name"] == "envoy.transport_sockets.tls"


@examples(0.25)
@given(routes())
def test_static_configuration_watches_no_file(route: Route) -> None:
    """What is run by hand has its endpoints within."""
    for cluster in static(route, machine(route))["static_resources"]["clusters"]:
        assert cluster["type"] == "STATIC"
        assert "load_assignment" in cluster


def test_name_with_a_line_break_stays_in_its_comment() -> None:
    """A backend's name is text of the manifest's author, not configuration."""
    (backend,) = built_in({"one": 1}).backends
    evil = Backend(name="x\nadmin: {}", config=backend.config)
    endpoint = Endpoint(evil.name, 0, 9000)
    chain = Chain(destinations=(Destination(name="d", weight=1, endpoints=(endpoint,)),))
    route = Route(listeners=(Listener(name="l", port=1, chains=(chain,)),), backends=(evil,))
    text = by_hand(route)
    assert yaml.safe_load(text)["admin"]
    assert "\\n" in text.splitlines()[1]


def spread(*destinations: tuple[str, int], plane: str = "envoy-gateway") -> Route:
    """A route to backends by name, a string such as ``ab`` being one destination for two."""
    names = dict.fromkeys(name for each, _ in destinations for name in each)
    backends = {
        name: Backend(name=name, config=ServerConfig(ports=[1], prefix=name)) for name in names
    }
    found = tuple(
        Destination(
            name=str(number),
            weight=weight,
            endpoints=tuple(one for name in each for one in backends[name].endpoints(1)),
        )
        for number, (each, weight) in enumerate(destinations)
    )
    listener = Listener(name="l", port=0, chains=(Chain(destinations=found),))
    route = Route(listeners=(listener,), backends=tuple(backends.values()))
    return run_by(PLANES[plane], route)


TABLE = [
    ("one alone", [("a", 1)], {"a": 1}, {"a": 1}),
    ("weights", [("a", 80), ("b", 20)], {"a": 80, "b": 20}, {"a": 80, "b": 20}),
    ("the same twice", [("a", 1), ("a", 1), ("b", 1)], {"a": 2, "b": 1}, {"a": 1, "b": 1}),
    ("the first counts", [("a", 3), ("a", 1), ("b", 1)], {"a": 4, "b": 1}, {"a": 3, "b": 1}),
    ("not one of weight 0", [("a", 0), ("a", 1), ("b", 1)], {"a": 1, "b": 1}, {"a": 1, "b": 1}),
    ("overlap", [("ab", 2), ("bc", 2)], {"a": 1, "b": 2, "c": 1}, {"a": 1, "b": 1, "c": 2}),
    ("nothing behind it", [("", 50), ("b", 50)], {"b": 50}, {"b": 50}),
]


@pytest.mark.parametrize(
    ("title", "given_", "istio", "gateway"), TABLE, ids=[row[0] for row in TABLE]
)
def test_shares_are_what_each_data_plane_does(
    title: str, given_: Sequence[tuple[str, int]], istio: dict[str, int], gateway: dict[str, int]
) -> None:
    """Istio draws a destination; Envoy Gateway's cluster holds an endpoint once."""
    del title
    for plane, expected in (("istio", istio), ("envoy-gateway", gateway)):
        route = spread(*given_, plane=plane)
        (chain,) = route.listeners[0].chains
        assert route.shares(chain) == istio, "the verdict is about the weights as written"
        assert route.shares(replace(chain, destinations=chain.reached())) == expected


async def test_envoy_does_what_the_table_says_for_envoy_gateway() -> None:
    """Each row of the table at a real Envoy, one after the other on one listener."""
    async with open_testbed(spread(("a", 1), ("b", 0), ("c", 0)), find_envoy()) as testbed:
        for title, given_, _, expected in TABLE:
            await testbed.change(spread(*given_))
            counts: Counter[str] = Counter()
            rounds = 24 // sum(expected.values()) or 1
            for _ in range(rounds * sum(expected.values())):
                async with await trio.open_tcp_stream("127.0.0.1", testbed.ports["l"]) as stream:
                    await stream.send_all(b"x\n")
                    counts[(await stream.receive_some())[:1].decode()] += 1
            # Turns are exact but for the one that a change interrupts, and
            # within a locality it is drawn.
            for name, share in expected.items():
                assert abs(counts[name] - rounds * share) <= (2 if title != "overlap" else 12), (
                    title
                )


async def test_turns_pass_and_the_counts_agree() -> None:
    """The judge's promise holds with room to spare, and each backend is counted apart."""
    route = run_by(ENVOY_GATEWAY, built_in({"one": 3, "two": 1}))
    async with open_testbed(route, find_envoy()) as testbed:
        (target,) = targets(testbed.route)
        report, check = await judge(testbed, target, QUICK)
    assert report.verdict is Verdict.PASS
    assert check.agrees, str(check)


async def test_open_connections_stay_when_endpoints_move() -> None:
    """A shift of Envoy Gateway cuts nobody, and new connections go the new way."""
    first, second = (run_by(ENVOY_GATEWAY, built_in({"one": n, "two": 1 - n})) for n in (1, 0))
    async with open_testbed(first, find_envoy()) as testbed:
        port = testbed.ports["built-in"]
        async with await trio.open_tcp_stream("127.0.0.1", port) as kept:
            await kept.send_all(b"x\n")
            assert await kept.receive_some() == b"one x\n"
            await testbed.change(second)
            async with await trio.open_tcp_stream("127.0.0.1", port) as later:
                await later.send_all(b"x\n")
                assert await later.receive_some() == b"two x\n"
            await kept.send_all(b"x\n")
            assert await kept.receive_some() == b"one x\n"


async def test_tls_ends_at_the_gateway_or_passes_it() -> None:
    """By name, on one port; with clients that show a certificate, and with those that do not."""
    secure = ServerConfig(ports=[1], prefix="x", tls=TLSConfig(ports=[2], cert=Path("c.pem")))
    backends = tuple(
        Backend(name=name, config=replace(secure, prefix=name)) for name in ("plain", "own")
    )
    plain, own = (
        (Destination(name=each.name, weight=1, endpoints=each.endpoints(port)),)
        for each, port in zip(backends, (1, 2), strict=True)
    )
    chains = (
        Chain(destinations=plain, sni=("*.com",), tls=Termination()),
        Chain(destinations=plain, sni=("asks.org",), tls=Termination(asks_client=True)),
        Chain(destinations=own, sni=("own.org",)),
        Chain(destinations=plain, tls=Termination()),
    )
    listener = Listener(name="l", port=0, chains=chains)
    route = Route(listeners=(listener,), backends=backends)
    for plane in PLANES.values():
        async with open_testbed(run_by(plane, route), find_envoy()) as testbed:
            for target in targets(testbed.route):
                report, check = await judge(testbed, target, QUICK)
                assert report.verdict is Verdict.PASS, f"{plane.name} {target.chain.sni} {report}"
                assert check.agrees, str(check)
            (asks,) = (each for each in targets(testbed.route) if "asks.org" in each.chain.sni)
            assert testbed.authority is not None
            config = QUICK(
                target=f"127.0.0.1:{testbed.ports['l']}",
                tls=ProbeTLS(ca=testbed.authority.path, server_name=asks.server_name),
                connections=2,
            )
            assert not (await probe(config)).counts.answers
    text = by_hand(route)
    assert "# TLS ends here" in text
    assert "# Clients show certificates" in text
