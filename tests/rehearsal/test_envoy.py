"""The configuration of Envoy says what the route says, and Envoy takes it."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import trio
from hypothesis import given
from hypothesis import strategies as st
from profiles import examples
from routes import configuration, routes, together

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
def test_shares_add_up_to_the_weights(route: Route) -> None:
    """No weight is lost or made on the way to the prefixes."""
    for listener in route.listeners:
        for chain in listener.chains:
            total = sum(each.weight for each in chain.destinations if each.endpoints)
            assert abs(sum(route.shares(chain).values()) - total) < 1e-6 * total
