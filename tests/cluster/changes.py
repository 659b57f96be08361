"""What a change does to connections that are open, measured row by row.

Every row holds its own connections, makes its change and looks at each of them until
past the drain time. The gateway's drain time is set to 10 s, so that no row takes a
minute; one row runs at the default of 45 s.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any

import trio
from cluster.asking import FAILED, connect, who_answers
from cluster.cases import Ask, read_cases
from cluster.judge import shift
from cluster.processes import run_all
from cluster.record import entrance, set_up, settled

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping

    from cluster.api import Document
    from cluster.cases import Case
    from cluster.node import Node

DRAIN = 10
DEFAULT_DRAIN = 45


@dataclass
class Held:
    """One connection that is held open."""

    talks: bool
    """Whether it sends a line every half second; else it waits."""
    opened: float = 0
    ended: float | None = None
    how: str = ""
    sent: int = 0
    answered: int = 0
    first: str = ""

    async def hold(self, host: str, port: int, task_status: trio.TaskStatus[None]) -> None:
        """Keep it open until it is ended or cancelled."""
        async with await connect(host, port) as stream:
            await stream.send_all(b"first\n")
            self.sent, self.answered = 1, 1
            self.first = (await stream.receive_some()).decode().split(" ")[0]
            self.opened = trio.current_time()
            task_status.started()
            async with trio.open_nursery() as nursery:
                if self.talks:
                    nursery.start_soon(self._talk, stream)
                try:
                    while data := await stream.receive_some():
                        self.answered += data.count(b"\n")
                    self.how = "FIN"
                except trio.BrokenResourceError:
                    self.how = "RST"
                self.ended = trio.current_time()
                nursery.cancel_scope.cancel()

    async def _talk(self, stream: trio.SocketStream) -> None:
        try:
            while True:
                await trio.sleep(0.5)
                await stream.send_all(b"again\n")
                self.sent += 1
        except trio.BrokenResourceError:
            return


@dataclass
class Fate:
    """What became of the connections of one row."""

    cut: int
    kept: int
    after: list[float] = field(default_factory=list)
    """Seconds from the change to each cut."""
    ways: dict[str, int] = field(default_factory=dict)

    def __str__(self) -> str:
        when = f", {min(self.after):.1f} to {max(self.after):.1f} s later" if self.after else ""
        ways = ", ".join(f"{count} {way}" for way, count in sorted(self.ways.items()))
        return f"{self.cut} cut{when} ({ways or 'none'}), {self.kept} kept"


async def fate(
    host: str, port: int, change: Callable[[], Awaitable[object]], limit: float, count: int = 20
) -> Fate:
    """Hold connections, half of them talking, make a change, and look until the limit."""
    held = [Held(talks=number % 2 == 0) for number in range(count)]
    async with trio.open_nursery() as nursery:
        for each in held:
            await nursery.start(_hold, each, host, port)
        await trio.sleep(0.5)
        began = trio.current_time()
        await change()
        with trio.move_on_after(limit):
            while any(each.ended is None for each in held):
                await trio.sleep(0.2)
        nursery.cancel_scope.cancel()
    ended = [each.ended - began for each in held if each.ended is not None]
    ways: dict[str, int] = {}
    for each in held:
        if each.how:
            ways[each.how] = ways.get(each.how, 0) + 1
    return Fate(len(ended), count - len(ended), sorted(ended), ways)


async def _hold(
    held: Held, host: str, port: int, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED
) -> None:
    await held.hold(host, port, task_status)


async def every_row(node: Node) -> None:
    """Each kind of change does to open connections what the documentation says."""
    await set_up(node)
    case = read_cases("gateway")[0]
    await _drain_time(node, f"{DRAIN}s")
    for document in case.documents:
        await node.api.apply(document)
    try:
        place = await entrance(node, case)
        assert place is not None
        network, host = place
        await settled(node, "gateway", network)
        by_kind = {each["kind"]: each for each in case.documents}
        wrong = []
        for name, change, cut in _rows(node, by_kind):
            found = await fate(host, 31400, change, DRAIN + 3)
            print(f"     {name}: {found}", flush=True)
            right = found.cut == 20 and found.after[0] > DRAIN - 0.5 if cut else found.cut == 0
            if not right:
                wrong.append(f"{name}: {found}")
            for document in case.documents:
                await node.api.apply(document)
            await settled(node, "gateway", network)
            # What this row's way back has changed is over before the next begins.
            if cut:
                await trio.sleep(0.5)
        assert not wrong, wrong
    finally:
        for document in reversed(case.documents):
            await node.api.delete(await node.api.path(document))
        await _drain_time(node, None)


def _rows(
    node: Node, by_kind: Mapping[str, Document]
) -> list[tuple[str, Callable[[], Awaitable[object]], bool]]:
    """The changes, each with whether it cuts the connections that are open."""
    route, rule, gateway = (
        by_kind[kind] for kind in ("VirtualService", "DestinationRule", "Gateway")
    )

    def pool(**settings: object) -> Document:
        return {"trafficPolicy": {"connectionPool": {"tcp": settings}}}

    def changed(document: Document, spec: Document) -> Callable[[], Awaitable[object]]:
        return lambda: node.api.apply({**document, "spec": {**document["spec"], **spec}})

    def annotated() -> Awaitable[object]:
        metadata = {**route["metadata"], "annotations": {"example.com/note": "new"}}
        return node.api.apply({**route, "metadata": metadata})

    servers = json.loads(json.dumps(gateway["spec"]["servers"]))
    servers[0]["port"]["name"] = "tcp-renamed"
    subsets = [
        {"name": "v1", "labels": {"version": "v1", "app": "echo"}},
        {"name": "v2", "labels": {"version": "v2"}},
    ]
    return [
        ("other weights", lambda: shift(node, [route], (50, 50)), True),
        ("the same YAML again", lambda: node.api.apply(route), False),
        ("an annotation", annotated, False),
        ("the port's name in the Gateway", changed(gateway, {"servers": servers}), False),
        ("connectTimeout", changed(rule, pool(connectTimeout="3s")), False),
        ("labels of a subset", changed(rule, {"subsets": subsets}), False),
        ("idleTimeout", changed(rule, pool(idleTimeout="300s")), True),
        ("another Gateway", lambda: node.api.apply(_another(gateway)), False),
        ("the VirtualService deleted", lambda: _delete(node, route), True),
    ]


def _another(gateway: Document) -> Document:
    servers = [{"port": {"number": 31402, "name": "tcp", "protocol": "TCP"}, "hosts": ["*"]}]
    metadata = {**gateway["metadata"], "name": "another"}
    return {**gateway, "metadata": metadata, "spec": {**gateway["spec"], "servers": servers}}


async def _delete(node: Node, document: Document) -> None:
    await node.api.delete(await node.api.path(document))


async def _drain_time(node: Node, duration: str | None) -> None:
    """Give Istio's gateway another drain time: new pods of it come up."""
    config = None if duration is None else json.dumps({"drainDuration": duration})
    path = "/apis/apps/v1/namespaces/istio-system/deployments/istio-ingressgateway"
    annotations = {"proxy.istio.io/config": config}
    await node.api.merge(path, {"spec": {"template": {"metadata": {"annotations": annotations}}}})
    deployment = "deployment/istio-ingressgateway"
    await node.kubectl("-n", "istio-system", "rollout", "status", deployment, "--timeout=90s")
    # The pod before it takes five seconds to end, and must not be taken for the new one.
    with trio.fail_after(60):
        while len([1 for _, name in node.kubelet.networks if name.startswith("istio-ingress")]) > 1:
            await trio.sleep(0.2)


async def live_shift(node: Node, client: str, *, cuts: bool) -> None:
    """Weights change under 200 connections a second: none of them is lost.

    The connections that were open before are cut after the drain time, or all stay, as the
    data plane has it; and the shares that came before and after are those of the weights.
    """
    await set_up(node)
    case = read_cases(client)[0]
    for document in case.documents:
        await node.api.apply(document)
    try:
        place = await entrance(node, case)
        assert place is not None, f"no Envoy came up for {client}"
        network, host = place
        await settled(node, client, network)
        counts: list[tuple[float, str]] = []
        over = trio.Event()

        async def change() -> None:
            await shift(node, case.documents, (20, 80))

        async with trio.open_nursery() as nursery:
            nursery.start_soon(_load, host, counts, over)
            await trio.sleep(3)
            moving = trio.current_time()
            nursery.start_soon(_end_soon, over)
            found = await fate(host, 31400, change, DEFAULT_DRAIN + 5)
        before = _share(counts, until=moving)
        after = _share(counts, since=moving + 6)
        lost = [who for _, who in counts if who == FAILED]
        print(
            f"     {client}: {len(counts)} new connections, {len(lost)} lost; one got "
            f"{before:.0%} before, {after:.0%} after; open before: {found}",
            flush=True,
        )
        assert not lost
        assert before > 0.7
        assert after < 0.3
        right = found.cut == 20 and 44 < found.after[0] < 48 if cuts else found.cut == 0
        assert right, str(found)
        walk = await _rehearsed(node, case)
        print(f"     the rehearsal of the same YAML: {len(walk['cuts'])} cut", flush=True)
        assert bool(walk["cuts"]) == cuts, walk
        late = [cut["time"] - walk["changes"][0] - walk["drain"] for cut in walk["cuts"]]
        assert all(0 <= each < 1 for each in late), walk
    finally:
        for document in reversed(case.documents):
            await node.api.delete(await node.api.path(document))


async def _rehearsed(node: Node, case: Case) -> dict[str, Any]:
    """What the rehearsal says of the same shift, with a short drain time."""
    route, report = node.logs / "route.yaml", node.logs / "shift.json"
    route.write_text(case.text, encoding="utf-8")
    program = str(node.programs["trio-echo"])
    words = ("--shift=80/20,20/80", "--drain=2", f"--json={report}")
    code, said = await run_all(program, "rehearse", str(route), *words)
    assert code == 0, said
    walk: dict[str, Any] = json.loads(report.read_text(encoding="utf-8"))["walk"]
    return walk


async def _end_soon(over: trio.Event) -> None:
    """Let new connections come until well after the change."""
    await trio.sleep(10)
    over.set()


async def _load(host: str, counts: list[tuple[float, str]], over: trio.Event) -> None:
    """Start 200 connections a second, each with one line, until it is stopped."""
    ask = Ask(31400, times=1)

    async def one() -> None:
        began = trio.current_time()
        [who] = await who_answers(ask, host)
        counts.append((began, who))

    async with trio.open_nursery() as nursery:
        while not over.is_set():
            nursery.start_soon(one)
            await trio.sleep(0.005)


def _share(counts: list[tuple[float, str]], since: float = 0, until: float = 1e18) -> float:
    here = [who for began, who in counts if since <= began <= until]
    return here.count("one") / len(here)


async def scale_down_and_ends(node: Node) -> None:
    """What ends a connection from the backend's side, and with the gateway's pod."""
    await set_up(node)
    case = read_cases("gateway")[0]
    for document in case.documents:
        await node.api.apply(document)
    try:
        place = await entrance(node, case)
        assert place is not None
        network, host = place
        await shift(node, case.documents, (100, 0))
        await settled(node, "gateway", network)
        pod = next(name for space, name in node.kubelet.networks if name.startswith("echo-v1"))

        async def out_of_the_service() -> None:
            label = {"metadata": {"labels": {"app": "elsewhere"}}}
            await node.api.merge(f"/api/v1/namespaces/echo/pods/{pod}", label)

        found = await fate(host, 31400, out_of_the_service, 8)
        print(f"     the pod leaves the Service, alive: {found}", flush=True)
        assert found.cut == 0, str(found)
        await node.api.delete(f"/api/v1/namespaces/echo/pods/{pod}")
        deployment = "deployment/echo-v1"
        await node.kubectl("-n", "echo", "rollout", "status", deployment, "--timeout=60s")
        await settled(node, "gateway", network)
        _, name = next(key for key, known in node.kubelet.networks.items() if known == network)
        path = f"/api/v1/namespaces/istio-system/pods/{name}"
        found = await fate(host, 31400, lambda: node.api.delete(path), 12)
        print(f"     the gateway's pod is deleted: {found}", flush=True)
        assert found.cut == 20, str(found)
        assert 4 < found.after[0] < 8, str(found)
    finally:
        for document in reversed(case.documents):
            await node.api.delete(await node.api.path(document))


CHECKS: Mapping[str, Callable[[Node], Awaitable[None]]] = {
    "changes: what each does to open connections": every_row,
    "changes: pods that leave": scale_down_and_ends,
    "changes: a live shift through Istio's gateway": partial(
        live_shift, client="gateway", cuts=True
    ),
    "changes: a live shift of a TCPRoute in Istio": partial(live_shift, client="istio", cuts=True),
    "changes: a live shift through Envoy Gateway": partial(
        live_shift, client="envoy-gateway", cuts=False
    ),
}
