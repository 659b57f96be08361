"""The rehearsal beside real control planes: each route that was recorded, case by case.

``nox -s cluster -- --record`` gives each case in ``tests/cluster/routes`` to a real
istiod or Envoy Gateway and writes into ``recorded/`` what came of it. Here the rehearsal
reads the same documents. It agrees where

- it refuses what was refused,
- it refuses a route of which some or all connections failed, or fails the same share,
- else the same backends get the same shares, with the same timeouts and limits.
"""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from cluster.cases import Case, read_cases
from manifest_texts import plan
from rehearsal.disagreements import DISAGREEMENTS

from trio_echo.errors import ManifestError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from cluster.cases import Ask

    from trio_echo.rehearsal.route import Chain, Listener, Route

FOLDER = Path(__file__).parent / "recorded"
FAILED = "failed"
NAMES = {"one", "two", "three"}
"""What the world's backends answer with; an answer with another name is the gateway's own."""
CASES = {case.name: case for case in read_cases()}
RECORDS: dict[str, Any] = {
    name: record
    for path in sorted(FOLDER.glob("*.json"))
    for name, record in json.loads(path.read_text(encoding="utf-8"))["cases"].items()
}


def test_every_case_is_recorded_and_every_record_has_its_case() -> None:
    """A case that was added or renamed is recorded anew."""
    clients = {path.stem for path in FOLDER.glob("*.json")}
    assert RECORDS.keys() == {name for name, case in CASES.items() if case.client in clients}
    assert DISAGREEMENTS.keys() <= CASES.keys()


@pytest.mark.parametrize("name", RECORDS)
def test_rehearsal_agrees_with_the_control_plane(name: str) -> None:
    """What the rehearsal makes of a case is what became of it, or is listed with a reason."""
    differs = "; ".join(differences(CASES[name], RECORDS[name]))
    if name in DISAGREEMENTS:
        assert differs, f"it agrees now: take {name!r} out of DISAGREEMENTS"
    else:
        assert not differs, differs


def differences(case: Case, record: Mapping[str, Any]) -> Iterator[str]:
    """How the rehearsal of a case differs from its record, in words."""
    answered = record.get("answered", {})
    broken = any(shares.keys() - NAMES for shares in answered.values())
    try:
        route = plan(case.text).route
    except ManifestError as error:
        if "refused" not in record and not broken:
            yield f"the rehearsal refuses it: {error}; answered: {answered}"
        return
    if "refused" in record:
        yield f"the rehearsal passes what was refused: {record['refused']}"
        return
    for ask in case.asks:
        chain = _chain(route, ask, case)
        expected = answered[ask.name]
        shown = _shares(route, chain)
        names = expected.keys() | shown.keys()
        if any(abs(expected.get(name, 0) - shown.get(name, 0)) > 0.05 for name in names):
            yield f"{ask.name}: answered {expected}, the rehearsal shows {shown}"
        elif chain is not None:
            yield from _policies(ask, chain, record)


def _chain(route: Route, ask: Ask, case: Case) -> Chain | None:
    """The chain of the rehearsal that a question meets."""
    for listener in _listeners(route, ask, case):
        best: tuple[int, Chain] | None = None
        for chain in listener.chains:
            fit = _fit(chain, ask.sni)
            if fit and (best is None or fit > best[0]):
                best = (fit, chain)
        if best is not None:
            return best[1]
    return None


def _listeners(route: Route, ask: Ask, case: Case) -> list[Listener]:
    found = [each for each in route.listeners if each.port == ask.port]
    if case.client != "mesh":
        return found
    name, _, namespace = ask.host.partition(".")
    return [
        each for each in found if each.name.startswith(f"Service {namespace or 'echo'}/{name} ")
    ]


def _fit(chain: Chain, sni: str) -> int:
    """How well a chain fits a server name: 0 is not at all."""
    if not chain.sni:
        return 1
    fits = [0]
    for name in chain.sni:
        if name == sni:
            fits.append(1000)
        elif name.startswith("*.") and sni.endswith(name[1:]):
            fits.append(1 + len(name))
    return max(fits)


def _shares(route: Route, chain: Chain | None) -> dict[str, float]:
    """Which part of the connections each backend gets, and which part fails."""
    if chain is None:
        return {FAILED: 1.0}
    # What becomes of connections, not what the manifests mean.
    plain = {(each.name, port) for each in route.backends for port in each.config.ports}
    chain = replace(
        chain,
        expected=None,
        destinations=tuple(
            replace(each, endpoints=())
            if each.policy.tls and {(one.backend, one.port) for one in each.endpoints} & plain
            else each
            for each in chain.reached()
        ),
    )
    shares = {name: share for name, share in route.shares(chain).items() if share}
    whole: float = sum(each.weight for each in chain.destinations)
    if chain.pooled:
        whole = sum(shares.values()) or 1
    else:
        lost = sum(each.weight for each in chain.destinations if not each.endpoints)
        if lost:
            shares[FAILED] = lost
    return {name: share / whole for name, share in shares.items()} or {FAILED: 1.0}


def _policies(ask: Ask, chain: Chain, record: Mapping[str, Any]) -> Iterator[str]:
    """The differences of timeouts and limits, for the chain that Envoy has."""
    for found in _recorded_chains(ask, record):
        policies = [each.policy for each in chain.destinations if each.weight]
        for name, field in (("idle timeout", "idle_timeout"), ("duration", "max_duration")):
            expected = _seconds(found.get(name))
            # The listener has one of each: the first destination's.
            shown = getattr(policies[0], field)
            if shown != expected:
                yield f"{ask.name}: {name} {expected}, the rehearsal has {shown}"
        for cluster, weight in found.get("weights", []):
            known = record["clusters"].get(cluster)
            if known is None or not weight:
                continue
            timeout = _seconds(known.get("connect timeout"))
            if timeout is not None and timeout not in {each.connect_timeout for each in policies}:
                yield f"{ask.name}: connect timeout {timeout} of {cluster}"
            limit = known.get("limits", {}).get("max_connections")
            if limit not in {each.max_connections for each in policies}:
                yield f"{ask.name}: limit of {limit} connections of {cluster}"


def _recorded_chains(ask: Ask, record: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The chain that Envoy has at the port that is asked for, if there is only one."""
    found = [
        chain
        for listener in record["listeners"]
        if listener["port"] == ask.port
        for chain in listener["chains"]
        if "weights" in chain
    ]
    return found if len(found) == 1 else []


def _seconds(text: str | None) -> float | None:
    return None if text is None else float(text.removesuffix("s"))
