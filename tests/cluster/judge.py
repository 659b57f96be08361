"""The project's own judge, through the entrances that real control planes configured."""

from __future__ import annotations

import json
from functools import partial
from typing import TYPE_CHECKING

from cluster.cases import read_cases
from cluster.processes import run_all
from cluster.record import entrance, set_up, settled

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping, Sequence

    from cluster.api import Document
    from cluster.node import Node


async def judge_client(node: Node, client: str) -> None:
    """80/20 passes, all to one passes, all to the other passes, and a wrong weight fails."""
    await set_up(node)
    case = read_cases(client)[0]
    for document in case.documents:
        await node.api.apply(document)
    try:
        place = await entrance(node, case)
        assert place is not None, f"no Envoy came up for {client}"
        network, host = place
        target = f"{host}:31400" if host else "echo.echo.svc.cluster.local:9000"
        for weights, expected, verdict in (
            ((80, 20), "one=80 two=20", 0),
            ((100, 0), "one=100 two=0", 0),
            ((0, 100), "one=0 two=100", 0),
            ((60, 40), "one=80 two=20", 1),
        ):
            await shift(node, case.documents, weights)
            await settled(node, client, network)
            said = await probe(node, target, expected, network if client == "mesh" else "")
            assert said[0] == verdict, f"{weights} for {expected}: exit code {said[0]}\n{said[1]}"
    finally:
        for document in reversed(case.documents):
            await node.api.delete(await node.api.path(document))


async def probe(node: Node, target: str, expected: str, network: str) -> tuple[int, str]:
    """A probe by the command that users have, from the node or from inside a pod's network."""
    words = [str(node.programs["trio-echo"]), "probe", target]
    words += [f"--expect={each}" for each in expected.split()]
    if network:
        hosts = node.services.hosts("echo")
        inside = f"mount --bind {hosts} /etc/hosts; exec {' '.join(words)}"
        words = ["nsenter", f"--net=/run/netns/{network}", "unshare", "--mount", "sh", "-c", inside]
    return await run_all(*words)


async def shift(node: Node, documents: Sequence[Document], weights: tuple[int, int]) -> None:
    """Apply a route again, with other weights."""
    for document in documents:
        if document["kind"] not in ("VirtualService", "TCPRoute"):
            continue
        changed = json.loads(json.dumps(document))
        if document["kind"] == "VirtualService":
            targets = changed["spec"]["tcp"][0]["route"]
        else:
            targets = changed["spec"]["rules"][0]["backendRefs"]
        for target, weight in zip(targets, weights, strict=True):
            target["weight"] = weight
        await node.api.apply(changed)


CHECKS: Mapping[str, Callable[[Node], Awaitable[None]]] = {
    "judge: through Istio's gateway": partial(judge_client, client="gateway"),
    "judge: through a sidecar": partial(judge_client, client="mesh"),
    "judge: through Istio's gateway, Gateway API": partial(judge_client, client="istio"),
    "judge: through Envoy Gateway": partial(judge_client, client="envoy-gateway"),
}
