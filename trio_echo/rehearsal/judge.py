"""One probe of one part of the route, and the check that everybody counted the same."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, NamedTuple, Protocol, TypeAlias

import trio

from trio_echo.prober.config import ProbeTLS
from trio_echo.prober.schedule import probe

if TYPE_CHECKING:
    from collections.abc import Callable

    from trio_echo.prober.config import ProbeConfig
    from trio_echo.prober.schedule import Tally
    from trio_echo.prober.words import Report
    from trio_echo.rehearsal.route import Chain, Listener, Route
    from trio_echo.rehearsal.testbed import Testbed

__all__ = ["Configure", "CrossCheck", "Row", "Target", "judge", "targets"]

_SETTLE = 2.0
_POLL = 0.02

_DISAGREE = (
    "the client, the backends and Envoy did not count the same connections: "
    "does somebody else connect to them meanwhile?"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """What one probe takes: a listener, and a server name where that decides.

    Attributes:
        listener: where the probe connects.
        chain: how its connections are routed there.
        server_name: what it asks for in TLS; None for no TLS.
    """

    listener: Listener
    chain: Chain
    server_name: str | None = None


@dataclass(frozen=True, slots=True)
class Row:
    """The connections of all backends that answer with one prefix.

    Attributes:
        name: the prefix.
        client: connections that got an answer with it.
        backends: connections that these backends accepted.
        envoy: connections that Envoy made to them.
    """

    name: str
    client: int
    backends: int
    envoy: int


@dataclass(frozen=True, slots=True)
class CrossCheck:
    """Three counts of the same connections.

    Attributes:
        rows: for all backends, each once.
        unanswered: connections of the client's that got no answer, or whose
            answer it did not wait for. They may have reached a backend or not.
        late: connections of the client's that were answered after the verdict,
            which the report above it does not count.
        again: connections of its second look that were answered, nor these.
    """

    rows: tuple[Row, ...]
    unanswered: int
    late: int = 0
    again: int = 0

    @property
    def agrees(self) -> bool:
        """Whether the counts fit together."""
        extra = [row.backends - row.client for row in self.rows]
        return (
            all(row.backends == row.envoy for row in self.rows)
            and min(extra, default=0) >= 0
            and sum(extra) <= self.unanswered
        )

    def __str__(self) -> str:
        """One line: client, backends and Envoy, for each backend."""
        counts = "; ".join(
            f"{row.name}: client {row.client}, backend {row.backends}, Envoy {row.envoy}"
            for row in self.rows
        )
        unanswered = f"; unanswered: {self.unanswered}" if self.unanswered else ""
        arrived = sum(row.backends - row.client for row in self.rows)
        if arrived and self.agrees:
            unanswered += f", of which {arrived} had reached a backend"
        beyond = [f"{self.late} that were on their way then"] * bool(self.late)
        beyond += [f"{self.again} of a second look"] * bool(self.again)
        late = f"; of them after the verdict: {', '.join(beyond)}" if beyond else ""
        verdict = "agree" if self.agrees else "DISAGREE"
        return f"cross-check: the counts {verdict} ({counts}{unanswered}{late})"


Configure: TypeAlias = "Callable[..., ProbeConfig]"
"""Makes the configuration of one probe from the keywords target, expect and tls."""


class Beside(Protocol):
    """Clients that use the testbed beside the probe, and count what they do.

    Attributes:
        answered: their connections that were answered, by prefix.
        launched: all their connections.
        quiet: while it is held, none of them is on its way.
    """

    answered: Counter[str]
    launched: int
    quiet: trio.Lock


def targets(route: Route) -> list[Target]:
    """All that is to be probed: every chain of every listener."""
    return [
        Target(listener=listener, chain=chain, server_name=_server_name(route, chain))
        for listener in route.listeners
        for chain in listener.chains
    ]


async def judge(
    testbed: Testbed,
    target: Target,
    configure: Configure,
    *,
    watch: Callable[[Tally], object] | None = None,
    beside: Beside | None = None,
) -> tuple[Report, CrossCheck]:
    """Probe one target and check the counts.

    Where they disagree, somebody's count is wrong, and the verdict may be: the
    report then says that nothing could be measured, in words and in each file.
    Where it is known why connections cannot go as the manifests mean, the
    report has that as its cause.

    Args:
        testbed: what is up.
        target: one of the `targets` of its route.
        configure: makes the probe's configuration.
        watch: as for `trio_echo.probe`.
        beside: other clients, whose connections are counted in.

    Raises:
        RehearsalError: Envoy does not tell its counts.
    """
    tls = None
    if target.server_name is not None:
        authority = testbed.authority
        asked = _asks_client(testbed.route, target.chain)
        tls = ProbeTLS(
            ca=authority.path if authority else None,
            server_name=target.server_name,
            cert=authority.certificate({"client"}) if authority and asked else None,
        )
    config = configure(
        target=f"127.0.0.1:{testbed.ports[target.listener.name]}",
        expect=testbed.route.shares(target.chain),
        tls=tls,
    )
    quiet = beside.quiet if beside else trio.Lock()
    async with quiet:
        before = await _counts(testbed, beside)
    report = await probe(config, watch=watch)
    async with quiet:
        check = await _settled(testbed, beside, report, before)
    if not (check.agrees or report.interrupted):
        report = report.unmeasured(_DISAGREE)
    causes = dict.fromkeys(each.cause for each in target.chain.destinations if each.weight)
    return replace(report, cause="; ".join(filter(None, causes))), check


async def _settled(
    testbed: Testbed, beside: Beside | None, report: Report, before: _Counts
) -> CrossCheck:
    """Compare the counts once nothing is on its way any more.

    What a client gave up may still be in a backlog: wait a moment for it.
    """
    deadline = trio.current_time() + _SETTLE
    counts = report.counts
    while True:
        now = await _counts(testbed, beside)
        check = compare(
            testbed.route,
            counts.answers + counts.late + counts.alone + (now.answered - before.answered),
            counts.launched + counts.contacts + now.launched - before.launched,
            accepted=now.accepted - before.accepted,
            dialled=now.dialled - before.dialled,
        )
        if check.agrees or trio.current_time() > deadline:
            return replace(check, late=counts.late.total(), again=counts.alone.total())
        await trio.sleep(_POLL)


class _Counts(NamedTuple):
    """All that is counted beside the probe, at one moment.

    Attributes:
        dialled: connections that Envoy made, by prefix.
        accepted: connections that the backends accepted, by prefix.
        answered: connections of other clients that were answered, by prefix.
        launched: all connections of other clients.
    """

    dialled: Counter[str]
    accepted: Counter[str]
    answered: Counter[str]
    launched: int


async def _counts(testbed: Testbed, beside: Beside | None) -> _Counts:
    """Take the counts."""
    return _Counts(
        Counter(await testbed.dialled()),
        Counter(testbed.accepted()),
        Counter(beside.answered if beside else ()),
        beside.launched if beside else 0,
    )


def compare(
    route: Route,
    answered: Counter[str],
    launched: int,
    *,
    accepted: Counter[str],
    dialled: Counter[str],
) -> CrossCheck:
    """Put the three counts side by side. Pure.

    Args:
        route: which prefixes there are.
        answered: the clients' connections that were answered, by prefix.
        launched: all the clients' connections.
        accepted: the backends' counts by prefix.
        dialled: Envoy's counts by prefix.
    """
    rows = [
        Row(name, client=answered[name], backends=accepted[name], envoy=dialled[name])
        for name in dict.fromkeys(route.prefixes().values())
    ]
    return CrossCheck(tuple(rows), launched - answered.total())


def _asks_client(route: Route, chain: Chain) -> bool:
    """Whether who ends TLS, the gateway or a backend, wants a certificate of the client's."""
    if chain.tls is not None:
        return chain.tls.asks_client
    asking = {each.name for each in route.backends if each.config.tls and each.config.tls.client_ca}
    reached = {one.backend for each in chain.destinations for one in each.endpoints}
    return bool(asking & reached)


def _server_name(route: Route, chain: Chain) -> str | None:
    """The name to ask for in TLS; None where nobody speaks it."""
    if chain.sni or chain.tls:
        return chain.server_name
    secure = {
        (backend.name, port)
        for backend in route.backends
        if backend.config.tls
        for port in backend.config.tls.ports
    }
    ports = {
        (each.backend, each.port)
        for one in chain.destinations
        if not one.policy.tls
        for each in one.endpoints
    }
    return chain.server_name if secure & ports else None
