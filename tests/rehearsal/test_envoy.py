"""The configuration of Envoy says what the route says, and Envoy takes it."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import trio
from hypothesis import given
from hypothesis import strategies as st
from profiles import examples
from routes import configuration, routes, together

from trio_echo.rehearsal import envoy
from trio_echo.rehearsal.process import find_envoy, validate
from trio_echo.rehearsal.route import built_in

if TYPE_CHECKING:
    from trio_echo.rehearsal.route import Route


@examples(0.06)
@given(st.lists(routes(), min_size=1, max_size=6))
def test_envoy_takes_every_route(many: list[Route]) -> None:
    """Whatever can be described is a configuration that Envoy finds valid."""
    content = configuration(together(many))
    assert trio.run(validate, find_envoy(), content) is None


async def test_validate_says_what_envoy_finds_wrong() -> None:
    """The check of the test above can fail."""
    route = built_in({"one": 80, "two": 20})
    content = json.loads(configuration(route))
    content["static_resources"]["listeners"][0]["filter_chains"] = []
    complaint = await validate(find_envoy(), json.dumps(content).encode())
    assert complaint is not None
    assert "no filter chains specified" in complaint


@examples(0.25)
@given(routes())
def test_weights_reach_envoy_as_they_are(route: Route) -> None:
    """Each destination with a weight is in its proxy with that weight, no other is."""
    made = envoy.listeners(route, {each.name: each.port for each in route.listeners})
    for listener, config in zip(route.listeners, made, strict=True):
        assert config["address"]["socket_address"]["port_value"] == listener.port
        for chain, filters in zip(listener.chains, config["filter_chains"], strict=True):
            proxy = filters["filters"][0]["typed_config"]
            names = filters.get("filter_chain_match", {}).get("server_names", [])
            assert tuple(names) == chain.sni
            expected = [(each.name, each.weight) for each in chain.destinations if each.weight]
            if "cluster" in proxy:
                assert [proxy["cluster"]] == [name for name, _ in expected]
            else:
                weighted = proxy["weighted_clusters"]["clusters"]
                assert [(each["name"], each["weight"]) for each in weighted] == expected


@examples(0.25)
@given(routes())
def test_shares_add_up_to_the_weights(route: Route) -> None:
    """No weight is lost or made on the way to the prefixes."""
    for listener in route.listeners:
        for chain in listener.chains:
            total = sum(each.weight for each in chain.destinations)
            assert abs(sum(route.shares(chain).values()) - total) < 1e-6 * total
