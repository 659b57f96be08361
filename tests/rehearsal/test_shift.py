"""A walk through weights: judged at each step, nothing lost on the way, and drawn."""

from __future__ import annotations

import json
import re
import socket
import struct
from dataclasses import replace
from functools import partial
from math import inf
from typing import TYPE_CHECKING
from xml.etree import ElementTree as ET

import pytest
import trio
import trio.testing

from trio_echo.prober.config import ProbeConfig
from trio_echo.prober.split import Verdict
from trio_echo.rehearsal.dataplane import run_by
from trio_echo.rehearsal.dataplane_envoy_gateway import ENVOY_GATEWAY
from trio_echo.rehearsal.dataplane_istio import ISTIO
from trio_echo.rehearsal.judge import targets
from trio_echo.rehearsal.process import find_envoy
from trio_echo.rehearsal.route import Chain, Policy, built_in
from trio_echo.rehearsal.shift import Change, _Clients, _talk, walk_to_json, walk_to_svg, walking
from trio_echo.rehearsal.testbed import open_testbed

if TYPE_CHECKING:
    from trio_echo.prober.schedule import Tally
    from trio_echo.rehearsal.envoy import Plane
    from trio_echo.rehearsal.shift import Walk

QUICK = partial(ProbeConfig, margin=0.2, alpha=0.0001)


def ignore(_: Tally) -> None:
    """Nobody watches."""


async def walked(*sets: tuple[int, int], plane: Plane = ISTIO, drain: int = 1) -> Walk:
    """A walk through these weights, to the end of the drain time."""
    route = run_by(plane, built_in({"one": 1, "two": 1}))
    async with open_testbed(route, find_envoy(), drain=drain) as testbed:
        (target,) = targets(testbed.route)
        async with walking(testbed, target, QUICK) as walk:
            for weights in sets:
                await walk.step(weights, ignore)
            await trio.sleep(walk.settled)
            assert walk.settled < 0.01  # but for rounding
    return walk


async def test_walk_passes_every_step_and_tells_which_connections_were_cut() -> None:
    """All to one, a split, all to two: Istio cuts what lived through a change."""
    walk = await walked((100, 0), (80, 20), (0, 100))
    assert [step.report.verdict for step in walk.steps] == [Verdict.PASS] * 3
    assert [step.weights for step in walk.steps] == [
        {"one": 100, "two": 0},
        {"one": 80, "two": 20},
        {"one": 0, "two": 100},
    ]
    assert all(step.check.agrees for step in walk.steps), [str(s.check) for s in walk.steps]
    assert walk.lost == 0
    assert walk.kept == 15
    assert walk.between > 0
    assert len(walk.changes) == 3
    assert len(walk.cuts) >= 10
    for cut in walk.cuts:
        assert cut.drained
        assert 0.5 < cut.age < 30
        assert cut.again is not None
        assert any(cut.time > each + 0.5 for each in walk.changes), (cut, walk.changes)
    said = str(walk)
    assert "none was lost" in said
    assert f"{len(walk.cuts)} of 15 were CUT 1 s after a change of weights" in said
    root = ET.fromstring(walk_to_svg(walk))  # noqa: S314 - our own text
    words = " ".join(root.itertext())
    assert "Traffic shifted in 3 steps: PASS, PASS, PASS" in words
    assert "none was lost" in words
    assert "were CUT" in words
    assert sum(map(int, re.findall(r"(\d+) cut\b", words))) == len(walk.cuts)
    found = walk_to_json(walk)
    assert (found["drain"], found["kept"], found["lost"]) == (1, 15, 0)
    walk._clients.kept = 2  # noqa: SLF001 - as if some had been cut again and again
    times = f"open connections: 2 clients were CUT {len(walk.cuts)} times in all, each 1 s after"
    assert times in str(walk)
    assert "; none lost an answer;" in str(walk)
    walk._clients.cuts[0] = replace(walk.cuts[0], unanswered=True)  # noqa: SLF001 - as if
    assert "; 1 lost the answer to a line on its way;" in str(walk)
    assert json.loads(json.dumps(found))["cuts"][0]["drained"]


async def test_envoy_gateway_cuts_nothing() -> None:
    """It moves endpoints; the listener stays as it is."""
    walk = await walked((100, 0), (80, 20), (0, 100), plane=ENVOY_GATEWAY)
    assert not walk.changes
    assert not walk.cuts
    assert str(walk).endswith("open connections: 15 kept to the end, none was cut by a change")


async def test_walk_with_many_steps_is_drawn_too() -> None:
    """More steps than one row of the table takes."""
    walk = await walked(*[(1, 0), (0, 1)] * 4)
    words = " ".join(ET.fromstring(walk_to_svg(walk)).itertext())  # noqa: S314 - our own text
    assert "8: PASS after" in words


async def test_lost_connections_are_counted() -> None:
    """A kept connection that the proxy ends is lost, and the picture says so."""
    route = built_in({"one": 1})
    (listener,) = route.listeners
    (destination,) = listener.chains[0].destinations
    hasty = replace(destination, policy=Policy(idle_timeout=0.2))
    listener = replace(listener, chains=(Chain(destinations=(hasty,)),))
    async with open_testbed(replace(route, listeners=(listener,)), find_envoy()) as testbed:
        (target,) = targets(testbed.route)
        async with walking(testbed, target, QUICK) as walk:
            step = await walk.step((1,), ignore)
            assert step.check.agrees
            while len(walk.cuts) < 5:
                await trio.lowlevel.checkpoint()
    assert walk.lost >= 5
    assert not any(cut.drained for cut in walk.cuts)
    assert "WERE LOST" in str(walk)
    assert "WERE LOST" in "".join(ET.fromstring(walk_to_svg(walk)).itertext())  # noqa: S314 - ours


async def test_connections_that_fail_are_counted() -> None:
    """Refused, cut without an answer, and silent for too long."""
    refused = await trio.open_tcp_listeners(0, host="127.0.0.1")
    port = refused[0].socket.getsockname()[1]
    await refused[0].aclose()
    clients = _Clients(port)
    async with trio.open_nursery() as nursery:
        await clients.keep(2, nursery)
    assert (clients.launched, clients.lost, clients.kept) == (2, 2, 0)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(clients.never_stop)
        while clients.between < 3:
            await trio.lowlevel.checkpoint()
        async with clients.quiet:  # none is on its way, as a cancelled one is not lost
            nursery.cancel_scope.cancel()
            assert clients.lost == clients.launched == clients.between + 2

    async def answer_once(stream: trio.SocketStream) -> None:
        """Answer the first line of every second connection, and reset at the next."""
        connections.append(stream)
        line = await stream.receive_some()
        if len(connections) % 2:
            await stream.send_all(b"one " + bytes(line))
            await stream.receive_some()
            linger = struct.pack("ii", 1, 0)
            stream.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)

    connections: list[trio.SocketStream] = []
    async with trio.open_nursery() as nursery:
        serve = partial(trio.serve_tcp, answer_once, 0, host="127.0.0.1")
        listeners: list[trio.SocketListener] = await nursery.start(serve)
        clients = _Clients(listeners[0].socket.getsockname()[1])
        await clients.keep(2, nursery)
        assert (clients.launched, clients.lost, clients.kept) == (2, 1, 1)
        while clients.lost < 3:  # the kept one is reset at its second line, and so is the next
            await trio.lowlevel.checkpoint()
        nursery.cancel_scope.cancel()
    first = clients.cuts[0]
    assert first.unanswered
    assert not first.drained


async def test_line_in_flight_at_a_polite_end_is_unanswered() -> None:
    """The proxy has read the line, and sends its end in place of the answer."""
    ours, theirs = trio.socket.socketpair()
    unanswered: list[bool] = []

    async def talk() -> None:
        unanswered.append(await _talk(trio.SocketStream(ours), "one"))

    with ours:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(talk)
            with theirs:
                assert await theirs.recv(9) == b"?\n"
    assert unanswered == [True]


async def test_client_that_cannot_connect_anew_ends() -> None:
    """It was cut with no line on its way, and nobody listens any more.

    It came while Envoy took the change, and so met the old route.
    """
    clients = _Clients(0)
    change = trio.Event()

    async def answer(stream: trio.SocketStream) -> None:
        await stream.send_all(b"one " + bytes(await stream.receive_some()))
        await change.wait()

    async with trio.open_nursery() as nursery:
        serve = partial(trio.serve_tcp, answer, 0, host="127.0.0.1")
        async with trio.open_nursery() as serving:
            listeners: list[trio.SocketListener] = await serving.start(serve)
            clients._port = listeners[0].socket.getsockname()[1]  # noqa: SLF001 - known only now
            clients.changes.append(Change(clients.now(), inf))
            await clients.keep(1, nursery)
            async with clients.quiet:
                await trio.testing.wait_all_tasks_blocked(0.01)
                change.set()
                await trio.testing.wait_all_tasks_blocked(0.01)
                serving.cancel_scope.cancel()
    (cut,) = clients.cuts
    assert cut.drained
    assert not cut.unanswered
    assert cut.again is None
    assert clients.lost == 1


async def test_cancelled_client_leaves_nothing_open() -> None:
    """A walk that ends while its client waits for an answer."""
    asked, ended = trio.Event(), trio.Event()

    async def be_silent(stream: trio.SocketStream) -> None:
        await stream.receive_some()
        asked.set()
        assert await stream.receive_some() == b""
        ended.set()

    opened: list[trio.SocketStream] = []
    connect = trio.open_tcp_stream

    async def opening(host: str, port: int) -> trio.SocketStream:
        opened.append(await connect(host, port))
        return opened[-1]

    async with trio.open_nursery() as nursery:
        serve = partial(trio.serve_tcp, be_silent, 0, host="127.0.0.1")
        listeners: list[trio.SocketListener] = await nursery.start(serve)
        async with trio.open_nursery() as walk:
            with pytest.MonkeyPatch.context() as patch:
                patch.setattr(trio, "open_tcp_stream", opening)
                walk.start_soon(_Clients(listeners[0].socket.getsockname()[1]).never_stop)
                await asked.wait()
            walk.cancel_scope.cancel()
        assert [stream.socket.fileno() for stream in opened] == [-1]
        await ended.wait()
        nursery.cancel_scope.cancel()


async def test_walk_too_short_for_a_line_is_drawn_without() -> None:
    """A handful of connections has no running share."""
    async with open_testbed(built_in({"one": 1, "two": 1}), find_envoy()) as testbed:
        (target,) = targets(testbed.route)
        async with walking(testbed, target, partial(ProbeConfig, connections=3)) as walk:
            await walk.step((1, 1), ignore)
        walk.samples = walk.samples[:1]
    assert "INCONCLUSIVE" in walk_to_svg(walk)
