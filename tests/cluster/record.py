"""Give each case to the real control planes, and write down what they made of it."""

from __future__ import annotations

import itertools
import json
import re
import time
from typing import TYPE_CHECKING, Any

import trio
from cluster import envoy_gateway, istio
from cluster.api import RefusedError
from cluster.asking import FAILED, get_json, who_answers
from cluster.cases import Case, identity, read_cases, world
from cluster.dump import reduce_dump

if TYPE_CHECKING:
    from collections import Counter
    from collections.abc import Mapping
    from pathlib import Path

    from cluster.api import Document
    from cluster.node import Node

_numbers = itertools.count(1)
DUMP = "/config_dump?include_eds"
ENTRANCES = {
    "gateway": ("istio-system", "istio-ingressgateway-"),
    "mesh": ("echo", "client-"),
    "istio": ("echo", "echo-istio-"),
    "envoy-gateway": (envoy_gateway.NAMESPACE, "envoy-echo-echo-"),
}
"""Where the pod is that decides for each client: its namespace, and how its name begins."""
OWN_PORTS = {
    "gateway": istio.GATEWAY,
    "mesh": istio.SIDECAR,
    "istio": istio.GATEWAY,
    "envoy-gateway": envoy_gateway.OWN_PORTS,
}
"""The ports of listeners that the control plane adds itself."""
CLIENT = {
    "apiVersion": "apps/v1",
    "kind": "Deployment",
    "metadata": {"name": "client", "namespace": "echo"},
    "spec": {
        "selector": {"matchLabels": {"app": "client"}},
        "template": {
            "metadata": {"labels": {"app": "client", "sidecar.istio.io/inject": "true"}},
            "spec": {"containers": [{"name": "client", "image": "trio-echo"}]},
        },
    },
}
"""The pod with a sidecar that asks in the mesh."""


async def set_up(node: Node) -> None:
    """Bring up what all cases share, and wait for it."""
    for document in [*world(), CLIENT]:
        await node.api.apply(document)
    for name in ("echo-v1", "echo-v2", "client"):
        await node.kubectl("-n", "echo", "rollout", "status", f"deployment/{name}", "--timeout=60s")
    await node.kubectl("-n", "other", "rollout", "status", "deployment/other", "--timeout=60s")


async def record(node: Node, folder: Path, only: str = "") -> int:
    """Write ``folder/CLIENT.json`` for each kind of client. Gives how many cases it recorded.

    ``only``: the cases in whose name this stands; the others stay as they were recorded.
    """
    await set_up(node)
    done = 0
    for client in ("gateway", "mesh", "istio", "envoy-gateway"):
        cases = [case for case in read_cases(client) if only in case.name]
        if not cases:
            continue
        began = time.monotonic()
        found = {}
        kept: dict[str, Document] = {}
        for case in cases:
            with trio.move_on_after(60) as limit:
                found[case.name] = await record_case(node, case, kept)
                done += 1
            if limit.cancelled_caught:
                print(f"{case.name}: not recorded within a minute", flush=True)
        path = folder / f"{client}.json"
        if only and path.exists():
            before = json.loads(path.read_text(encoding="utf-8"))["cases"]
            found = {**before, **found}
        ordered = {case.name: found[case.name] for case in read_cases(client) if case.name in found}
        path.parent.mkdir(parents=True, exist_ok=True)
        text = page(await versions(node, client), ordered)
        path.write_text(text, encoding="utf-8")
        spent = time.monotonic() - began
        print(f"{client}: {len(cases)} cases, {spent / len(cases):.1f} s each", flush=True)
    return done


def page(made_by: Mapping[str, str], cases: Mapping[str, Mapping[str, Any]]) -> str:
    """A record as JSON, a line for each part of a case: short, and its changes are easy to see."""
    blocks = []
    for name, case in cases.items():
        parts = [f"   {json.dumps(key)}: {json.dumps(value)}" for key, value in case.items()]
        blocks.append(f"  {json.dumps(name)}: {{\n" + ",\n".join(parts) + "\n  }")
    head = f' "versions": {json.dumps(made_by)},\n "cases": {{\n'
    return "{\n" + head + ",\n".join(blocks) + "\n }\n}\n"


async def versions(node: Node, client: str) -> dict[str, str]:
    """What made a record."""
    found = {"Kubernetes": (await node.api.get("/version"))["gitVersion"]}
    if client == "envoy-gateway":
        found["Envoy Gateway"] = envoy_gateway.VERSION
    else:
        found["Istio"] = await istio.version()
    return found


async def record_case(node: Node, case: Case, kept: dict[str, Document]) -> dict[str, Any]:
    """Apply a case, look at what came of it, and remove it.

    ``kept`` is what the case before left: a Gateway that has a pod of its own stays if
    the next case has the same one, since such a pod takes seconds to come and go.
    """
    stays = [
        each
        for each in case.documents
        if each["kind"] == "Gateway" and case.client in ("istio", "envoy-gateway")
    ]
    for path, document in [*kept.items()]:
        if document not in stays:
            await node.api.delete(path)
            del kept[path]
            await _gone(node, case)
    paths = []
    refused = {}
    warnings: dict[str, list[str]] = {}
    kinds: set[str] = set()
    try:
        for document in case.documents:
            name = f"{document['kind']}/{document['metadata']['name']}"
            # The older of two objects goes first, and their age counts in seconds.
            if document["kind"] in kinds:
                await trio.sleep(1.05)
            kinds.add(document["kind"])
            node.api.warnings.clear()
            try:
                path = await node.api.path(await node.api.apply(document))
            except RefusedError as error:
                refused[name] = _stable(error.words)
            else:
                paths.append(path)
            if node.api.warnings:
                warnings[name] = [_stable(each) for each in node.api.warnings]
        found: dict[str, Any] = {}
        if warnings:
            found["warnings"] = warnings
        if refused:
            return {**found, "refused": refused}
        return {**found, **await _outcome(node, case)}
    finally:
        with trio.CancelScope(shield=True):
            await _remove(node, case, paths, stays, kept)


async def _remove(
    node: Node, case: Case, paths: list[str], stays: list[Document], kept: dict[str, Document]
) -> None:
    standing = {await node.api.path(each): each for each in stays}
    for path in reversed(paths):
        if path in standing:
            kept[path] = standing[path]
        else:
            await node.api.delete(path)
    # What a case changed in the world is put back.
    own = [identity(each) for each in case.documents]
    for document in world():
        if identity(document) in own:
            await node.api.apply(document)


async def _gone(node: Node, case: Case) -> None:
    """Wait until the pod of a Gateway that was deleted is gone."""
    namespace, start = ENTRANCES[case.client]
    with trio.move_on_after(20):
        while any(
            key[0] == namespace and key[1].startswith(start) for key in node.kubelet.networks
        ):
            await trio.sleep(0.1)


async def _outcome(node: Node, case: Case) -> dict[str, Any]:
    found: dict[str, Any] = {}
    if case.client in ("istio", "envoy-gateway"):
        found["status"] = await _statuses(node, case)
    place = await entrance(node, case)
    if place is None:
        lost = {ask.name: {FAILED: 1.0} for ask in case.asks}
        return {**found, "listeners": [], "clusters": {}, "answered": lost}
    network, host = place
    try:
        raw = await settled(node, case.client, network)
    except OSError:
        # That pod was on its way out: another one takes its place.
        await trio.sleep(2)
        return await _outcome(node, case)
    reduced = reduce_dump(raw, names(node), OWN_PORTS[case.client])
    if case.client == "mesh":
        reduced = _only_routes(reduced, case)
    answered = {}
    for ask in case.asks:
        target = host or _service(node, ask.host)
        inside = network if case.client == "mesh" else ""
        counts = await who_answers(ask, target, inside)
        answered[ask.name] = shares(counts, reduced)
    return {**found, **reduced, "answered": answered}


async def settled(node: Node, client: str, network: str) -> Any:
    """The configuration of an Envoy once it has all that was applied so far."""
    if client != "envoy-gateway":
        marker = f"m{next(_numbers)}.marker.example"
        made = await node.api.apply(_marker(marker))
        try:
            await istio.until_cluster(network, marker)
        finally:
            await node.api.delete(await node.api.path(made))
        # Clusters come first, listeners right behind them.
        await trio.sleep(0.3)
        return await get_json("127.0.0.1", istio.ADMIN_PORT, DUMP, network)
    # Here no object tells that the others have arrived: it stands still for a second.
    before, since = "", trio.current_time()
    deadline = since + 15
    while True:
        raw = await get_json("127.0.0.1", envoy_gateway.ADMIN_PORT, DUMP, network)
        now = json.dumps(reduce_dump(raw, {}, set()))
        if now != before:
            before, since = now, trio.current_time()
        if trio.current_time() > min(since + 1, deadline):
            return raw
        await trio.sleep(0.2)


async def _statuses(node: Node, case: Case) -> dict[str, Any]:
    """What the controller says of each Gateway and route: the conditions that are not True.

    ``True`` where all of them are. A load balancer's address is not among them: no
    cluster without a cloud has one.
    """
    found: dict[str, Any] = {}
    for document in case.documents:
        if document["kind"] not in ("Gateway", "TCPRoute", "TLSRoute", "ListenerSet"):
            continue
        path = await node.api.path(document)
        status: Document = {}
        with trio.move_on_after(4):
            while not _judged(status, document["kind"]):
                await trio.sleep(0.2)
                status = (await node.api.get(path)).get("status") or {}
        parts = status.get("parents") or status.get("listeners") or []
        wrong = {
            f"{each['type']} {each['reason']}": _stable(each.get("message", ""))
            for part in (status, *parts)
            for each in part.get("conditions") or []
            if (each["status"] == "True") == (each["type"] == "Conflicted")
            and each["reason"] not in ("AddressNotAssigned", "AddressNotUsable")
        }
        name = f"{document['kind']}/{document['metadata']['name']}"
        found[name] = wrong or (True if _judged(status, document["kind"]) else "no status")
    return found


def _judged(status: Document, kind: str) -> bool:
    conditions = status.get("conditions") or []
    if kind == "Gateway":
        return any(
            each["type"] == "Programmed" and each["reason"] != "Pending" for each in conditions
        )
    return bool(status.get("parents") or conditions)


def shares(counts: Counter[str], reduced: Mapping[str, Any]) -> dict[str, float]:
    """Who answered how much, in words that the next recording repeats.

    Where the counts fit the weights of a chain, those are written, or equal parts where
    they fit those; else the shares in steps of a tenth, at least one.
    """
    total = counts.total()
    for listener in reduced["listeners"]:
        for chain in [*listener["chains"], listener.get("default", {})]:
            expected: dict[str, float] = {}
            whole = sum(weight for _, weight in chain.get("weights", [])) or 1
            for cluster, weight in chain.get("weights", []):
                for name, share in _who(reduced["clusters"].get(cluster, {})).items():
                    expected[name] = expected.get(name, 0) + weight / whole * share
            if counts.keys() <= expected.keys() and _fits(counts, expected):
                return {name: round(share, 3) for name, share in sorted(expected.items())}
    even = dict.fromkeys(sorted(counts), 1 / len(counts))
    if _fits(counts, even):
        return {name: round(share, 3) for name, share in even.items()}
    return {name: max(0.1, round(each / total, 1)) for name, each in sorted(counts.items())}


def _who(cluster: Mapping[str, Any]) -> dict[str, float]:
    """The share of each endpoint of a cluster, by its locality's weight; FAILED if it has none."""
    found: dict[str, float] = {}
    for locality in cluster.get("endpoints", []):
        here = sum(locality["who"].values())
        for name, each in locality["who"].items():
            part = locality.get("weight", here) * each / here
            found[name.split(":")[0]] = found.get(name.split(":")[0], 0) + part
    whole = sum(found.values())
    return {name: each / whole for name, each in found.items()} if whole else {FAILED: 1.0}


def _fits(counts: Counter[str], expected: Mapping[str, float]) -> bool:
    total = counts.total()
    return all(
        abs(counts[name] - total * share) <= 4.5 * max(1, (total * share * (1 - share)) ** 0.5)
        if 0 < share < 1
        else counts[name] == total * share
        for name, share in expected.items()
    )


async def entrance(node: Node, case: Case) -> tuple[str, str] | None:
    """The network of the Envoy that decides, and the address of its listeners (mesh: none).

    None: no Envoy comes up for this case.
    """
    namespace, start = ENTRANCES[case.client]
    with trio.move_on_after(10):
        while True:
            for key, network in node.kubelet.networks.items():
                if key[0] == namespace and key[1].startswith(start) and node.kubelet.ready(key):
                    return network, "" if case.client == "mesh" else node.kubelet.addresses[key]
            await trio.sleep(0.1)
    return None


def names(node: Node) -> dict[str, str]:
    """The names of pods and Services by their addresses."""
    found = {}
    for (namespace, name), address in node.kubelet.addresses.items():
        for start, prefix in (("echo-v1", "one"), ("echo-v2", "two"), ("other", "three")):
            if name.startswith(start):
                found[address] = prefix
        found.setdefault(address, f"{namespace}/{name}")
    for (namespace, name), address in node.services.addresses().items():
        found[address] = f"{name}.{namespace}"
    return found


def _service(node: Node, host: str) -> str:
    name, _, namespace = host.partition(".")
    address = node.services.addresses().get((namespace or "echo", name))
    if address is None:
        # Headless: its name leads to the pods themselves.
        address = next(each for each, pod in names(node).items() if pod == "one")
    return address


def _only_routes(reduced: dict[str, Any], case: Case) -> dict[str, Any]:
    """Of a sidecar's listeners those that the questions meet, without the control planes'."""
    met = {(ask.host if "." in ask.host else f"{ask.host}.echo", ask.port) for ask in case.asks}
    ports = {port for _, port in met}
    kept = [
        each
        for each in reduced["listeners"]
        if (each["address"], each["port"]) in met
        or (each["port"] in ports and each["address"] in ("0.0.0.0", "one"))
    ]
    wanted = {
        name
        for each in kept
        for chain in [*each["chains"], each.get("default", {})]
        for name, _ in chain.get("weights", [])
    }
    clusters = {name: each for name, each in reduced["clusters"].items() if name in wanted}
    return {**reduced, "listeners": kept, "clusters": clusters}


def _marker(host: str) -> Document:
    """A host that changes nothing: once Envoy knows it, it knows all that came before."""
    return {
        "apiVersion": "networking.istio.io/v1",
        "kind": "ServiceEntry",
        "metadata": {"name": host.split(".", maxsplit=1)[0], "namespace": "istio-system"},
        "spec": {
            "hosts": [host],
            "ports": [{"number": 4, "name": "http", "protocol": "HTTP"}],
            "resolution": "STATIC",
            "endpoints": [{"address": "192.0.2.1"}],
        },
    }


def _stable(words: str) -> str:
    """Words without what changes from one run to the next."""
    words = re.sub(r"10\.\d+\.\d+\.\d+(:\d+)?", "ADDRESS", words)
    return re.sub(r"\s+", " ", words).strip()
