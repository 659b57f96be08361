"""The judgement of a route on testbed, and the check that everybody counted the same."""

from __future__ import annotations

from collections import Counter
from functools import partial
from typing import TYPE_CHECKING

import trio
from hypothesis import given
from hypothesis import strategies as st
from manifest_texts import GATEWAY_API, TLS, plan

from trio_echo.prober.config import ProbeConfig
from trio_echo.prober.split import Verdict
from trio_echo.rehearsal.judge import CrossCheck, Row, compare, judge, targets
from trio_echo.rehearsal.process import find_envoy
from trio_echo.rehearsal.route import Backend, Route, built_in
from trio_echo.rehearsal.testbed import open_testbed
from trio_echo.server.config import ServerConfig

if TYPE_CHECKING:
    from trio_echo.prober.schedule import Tally

QUICK = partial(ProbeConfig, margin=0.2, alpha=0.0001)


async def test_right_split_passes_and_all_counts_agree() -> None:
    """The way it should be."""
    async with open_testbed(built_in({"one": 3, "two": 1}), find_envoy()) as testbed:
        (target,) = targets(testbed.route)
        report, check = await judge(testbed, target, QUICK)
        again, check_again = await judge(testbed, target, QUICK)
    assert report.verdict is Verdict.PASS
    assert again.verdict is Verdict.PASS
    assert check.agrees, str(check)
    assert check_again.agrees, str(check_again)
    assert "the counts agree" in str(check)


async def test_connection_behind_the_proxys_back_is_noticed() -> None:
    """Somebody who dials a backend directly makes the counts disagree."""
    async with open_testbed(built_in({"one": 1}), find_envoy()) as testbed:
        (target,) = targets(testbed.route)
        host, port = next(iter(testbed._addresses.values()))  # noqa: SLF001 - the way around

        async def intrude() -> None:
            async with await trio.open_tcp_stream(host, port) as stream:
                await stream.send_all(b"x\n")
                await stream.receive_some()

        async with trio.open_nursery() as nursery:

            def watch(_: Tally) -> None:
                nursery.start_soon(intrude)

            report, check = await judge(testbed, target, QUICK, watch=watch)
    assert report.verdict is Verdict.UNMEASURED
    assert "does somebody else connect to them meanwhile?" in str(report)
    assert not check.agrees
    assert "the counts DISAGREE" in str(check)


async def test_server_names_are_judged_each() -> None:
    """TLS reaches the backends as it is, and the name in it chooses the route."""
    route = plan(TLS).route
    async with open_testbed(route, find_envoy()) as testbed:
        found = targets(testbed.route)
        assert [target.server_name for target in found] == [
            "one.example.com",
            "rehearsal.both.example.com",
            "localhost",
        ]
        for target in found:
            report, check = await judge(testbed, target, QUICK)
            assert report.verdict is Verdict.PASS, str(report)
            assert check.agrees, str(check)


def test_counts_are_compared_by_prefix() -> None:
    """Each prefix has its row, one that several backends answer with has one too."""
    config = partial(ServerConfig, ports=[1])
    backends = tuple(
        Backend(name=name, config=config(prefix=prefix))
        for name, prefix in zip("xyz", "aab", strict=True)
    )
    check = compare(
        Route(listeners=(), backends=backends),
        Counter(a=3, b=2),
        6,
        accepted=Counter(a=3, b=3),
        dialled=Counter(a=3, b=3),
    )
    assert check == CrossCheck((Row("a", 3, 3, 3), Row("b", 2, 3, 3)), 1)
    assert check.agrees


counts = st.integers(0, 5)


@given(st.lists(st.tuples(counts, counts, counts), min_size=1, max_size=4), counts)
def test_counts_agree_only_if_every_connection_is_accounted_for(
    rows: list[tuple[int, int, int]], unanswered: int
) -> None:
    """Held against the definition: what Envoy dialled was accepted, what was answered arrived."""
    check = CrossCheck(tuple(Row("x", *row) for row in rows), unanswered)
    missing = [backends - client for client, backends, _ in rows]
    plausible = all(backends == envoy for _, backends, envoy in rows) and all(
        each >= 0 for each in missing
    )
    assert check.agrees == (plausible and sum(missing) <= unanswered)
    assert ("DISAGREE" in str(check)) != check.agrees
    assert "after the verdict" not in str(check)


def test_the_line_explains_why_it_counts_more_than_the_report() -> None:
    """What was under way at the verdict was answered, and is in all three counts."""
    check = CrossCheck((Row("a", 1578, 1578, 1578),), 0, late=15, again=60)
    assert str(check) == (
        "cross-check: the counts agree (a: client 1578, backend 1578, Envoy 1578; "
        "of them after the verdict: 15 that were on their way then, 60 of a second look)"
    )


async def test_share_that_the_data_plane_gives_to_others_is_no_pass() -> None:
    """The verdict is about what the manifests ask for, and its first reason is the known cause."""
    text = GATEWAY_API.replace("- name: my-bar-service", "- name: gone")
    route = plan(text, plane="envoy-gateway").route
    async with open_testbed(route, find_envoy()) as testbed:
        (_, target) = targets(testbed.route)
        report, check = await judge(testbed, target, QUICK)
    assert report.verdict is Verdict.FAIL
    assert report.expectation.weights == {"one": 80, "gone": 20}
    reason = str(report).splitlines()[2]
    assert "  - 1.yaml:" in reason
    assert "there is no Service gone in namespace default" in reason
    assert check.agrees


def test_the_line_tells_what_was_on_its_way() -> None:
    """After an interruption, backends have more connections than clients have answers."""
    assert str(CrossCheck((Row("a", 5, 8, 8),), 4)) == (
        "cross-check: the counts agree (a: client 5, backend 8, Envoy 8; "
        "unanswered: 4, of which 3 had reached a backend)"
    )
