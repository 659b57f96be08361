"""Why did it fail? The first guess behind real balancers, each provoked in one way.

Each balancer is started once, with a port for each row. More answers to the same
question, from samples without a network, are in ``test_words.py`` and ``test_order.py``.
"""

from __future__ import annotations

from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any

import pytest
import trio
from backends import answering, backend, closed_port, reset
from certificates import Certificates
from real_balancers import envoy, filter_, haproxy, listener, nginx, tcp, tls

from trio_echo.prober.config import ProbeConfig, ProbeTLS
from trio_echo.prober.schedule import probe
from trio_echo.prober.split import Verdict

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable, Mapping
    from contextlib import AbstractAsyncContextManager
    from pathlib import Path

    from backends import Handler

FAIL, PASS, UNMEASURED = Verdict.FAIL, Verdict.PASS, Verdict.UNMEASURED


@dataclass(frozen=True, kw_only=True)
class Row:
    """A way for a split to go wrong, and what is to be said of it.

    Attributes:
        build: what the balancer is told: lines for HAProxy and nginx, a listener
            for Envoy.
        verdict: the verdict.
        guess: words of the report, the first guess.
        never: words that must not be in it.
        asked: what the probe is asked besides an expectation.
    """

    build: Any
    verdict: Verdict = FAIL
    guess: str
    never: tuple[str, ...] = ()
    asked: Mapping[str, Any] = field(default_factory=dict)


@asynccontextmanager
async def places() -> AsyncGenerator[dict[str, str]]:
    """Addresses of backends by what they do; all but ``one`` answer as ``two``."""
    crowd = Crowd()
    handlers: dict[str, Handler] = {
        "one": partial(answering, name="one"),
        "two": partial(answering, name="two"),
        "busy": late(0.05),
        "quick": partial(crowd.answer, name="one"),
        "crowded": partial(crowd.answer, name="two", late=0.2),
        "slow": late(2.0),
        "stopping": stopping(20),
    }
    sock, dead = closed_port()
    async with AsyncExitStack() as opened:
        opened.enter_context(sock)
        found = {
            name: await opened.enter_async_context(backend(handler))
            for name, handler in handlers.items()
        }
        yield found | {"dead": dead}


class Crowd:
    """Backends that are as fast as any for one connection at a time."""

    def __init__(self) -> None:
        self._open = 0

    async def answer(self, stream: trio.abc.Stream, name: str, late: float = 0.0) -> None:
        """Answer, so late where others wait for an answer too."""
        self._open += 1
        try:
            if self._open > 1:
                await trio.sleep(late)
            await answering(stream, name)
        finally:
            self._open -= 1


def late(seconds: float) -> Handler:
    """A backend that answers each connection so late."""

    async def handle(stream: trio.abc.Stream) -> None:
        await trio.sleep(seconds)
        await answering(stream, "two")

    return handle


def stopping(after: int) -> Handler:
    """A backend that answers so many connections, and cuts all later ones."""
    left = iter(range(after))
    return lambda stream: reset(stream) if next(left, None) is None else answering(stream, "two")


DOWN = ": two is down, or not reachable from the proxy"
LIMITS = ("limit", "policy", "TLS", "PROXY")

HAPROXY_BOTH = "\n  server one {one} weight 80\n  server two {two} weight 20"
HAPROXY = {
    # It takes longest, so it is first.
    "short timeout": Row(
        build="\n  timeout server 600ms"
        "\n  server one {one} weight 80\n  server two {slow} weight 20",
        verdict=Verdict.INCONCLUSIVE,
        guess="slower than the proxy's timeout of about ",
        never=("limit", "healthy"),
        asked={"max_errors": 9999, "connections": 60, "second_look": 15},
    ),
    "rate limit": Row(
        build="\n  stick-table type ip size 1k expire 9s store conn_rate(9s)"
        "\n  tcp-request connection track-sc0 src"
        "\n  tcp-request connection reject if {{ sc_conn_rate(0) gt 50 }}" + HAPROXY_BOTH,
        guess=": a limit on the rate of connections",
        never=("healthy", "open connections"),
    ),
    "connection limit, a short queue": Row(
        build="\n  timeout queue 20ms"
        "\n  server one {busy} weight 80 maxconn 2\n  server two {busy} weight 20 maxconn 1",
        verdict=Verdict.INCONCLUSIVE,
        guess=": a limit on open connections",
        never=("healthy", "rate"),
        asked={"expect": {"two": 1}, "max_errors": 9999, "connections": 60},
    ),
    "accept-proxy": Row(
        build="accept-proxy" + HAPROXY_BOTH,
        verdict=UNMEASURED,
        guess=": the listener wants a PROXY header: add --proxy-protocol v1",
        never=("healthy", "policy"),
    ),
    "plain probe at a TLS port": Row(
        build="ssl crt {folder}/both.pem" + HAPROXY_BOTH,
        verdict=UNMEASURED,
        guess=": the port speaks TLS: add --tls",
        never=("healthy", "PROXY"),
    ),
    "TLS probe at a plain port": Row(
        build=HAPROXY_BOTH,
        verdict=UNMEASURED,
        guess=": the port answers without TLS: leave out --tls",
        asked={"sni": "localhost"},
    ),
    "unknown SNI": Row(
        build="ssl crt {folder}/both.pem strict-sni" + HAPROXY_BOTH,
        verdict=UNMEASURED,
        guess=": nobody there takes this server name (check --sni)",
        asked={"sni": "other.test"},
    ),
    "unknown SNI, passed through": Row(
        build="\n  tcp-request inspect-delay 2s"
        "\n  tcp-request content reject if !{{ req.ssl_sni -i localhost }}" + HAPROXY_BOTH,
        verdict=UNMEASURED,
        guess=": nobody there takes this server name (check --sni)",
        asked={"sni": "other.test"},
    ),
    "one dead of two": Row(
        build="\n  server one {one} weight 80\n  server two {dead} weight 20",
        guess=DOWN,
        never=LIMITS,
    ),
    "one dead of two, errors accepted": Row(
        build="\n  server one {one} weight 80\n  server two {dead} weight 20",
        verdict=Verdict.INCONCLUSIVE,
        guess=DOWN,
        never=LIMITS,
        asked={"max_errors": 9999, "connections": 300},
    ),
    "a backend stops in mid-probe": Row(
        build="\n  server one {one} weight 80\n  server two {stopping} weight 20",
        guess=f"{DOWN}: it answered before",
        never=LIMITS,
    ),
    "both dead": Row(
        build="\n  server one {dead} weight 80\n  server two {dead} weight 20",
        verdict=UNMEASURED,
        guess=": no backend is healthy behind the proxy",
        never=("TLS", "PROXY"),
    ),
    "taken out by the health check": Row(
        build="\n  server one {one} weight 80\n  server two {two} weight 20 disabled",
        guess="none to two: it is down or not in the route",
        never=LIMITS,
    ),
    "backup server": Row(
        build="\n  server one {one} weight 80\n  server two {two} weight 20 backup",
        guess="none to two: it is down or not in the route",
        never=LIMITS,
    ),
    "least connections": Row(
        build="\n  balance leastconn\n  server one {one} weight 80\n  server two {two} weight 20",
        guess="the counts fit equal weights: are the weights in force",
        never=("were weights moved", "stopped"),
        asked={"concurrency": 1},
    ),
    "least connections, one slower": Row(
        build="\n  balance leastconn"
        "\n  server one {quick} weight 80\n  server two {crowded} weight 20",
        guess=": the balancer goes by open connections (least connections)",
        never=("were weights moved", "stopped"),
        asked={"concurrency": 8},
    ),
    "even": Row(
        build="\n  server one {one}\n  server two {two}",
        guess="the counts fit equal weights",
        never=LIMITS,
    ),
    "turns": Row(
        build="\n  server one {one} weight 80\n  server two {two} weight 20",
        verdict=PASS,
        guess=": the balancer takes turns (round robin)",
    ),
}

NGINX_BOTH = "server {one} weight=80; server {two} weight=20;"


def through(upstream: str, *more: str, listen: str = "") -> str:
    """A server of nginx's that passes on to an upstream of its own."""
    return (
        f"upstream {{name}} {{{{ {upstream} }}}}\n"
        f"server {{{{ {{listen}} {listen}; {' '.join(more)} proxy_pass {{name}}; }}}}"
    )


NGINX = {
    "connection limit": Row(
        build=through(NGINX_BOTH, "limit_conn clients 4;"),
        guess=": a limit on open connections",
        never=("healthy", "rate"),
    ),
    "PROXY protocol": Row(
        build=through(NGINX_BOTH, listen="proxy_protocol"),
        verdict=UNMEASURED,
        guess=": the listener wants a PROXY header: add --proxy-protocol v1",
    ),
    "plain probe at a TLS port": Row(
        build=through(
            NGINX_BOTH,
            "ssl_certificate {folder}/both.pem;",
            "ssl_certificate_key {folder}/both.pem;",
            listen="ssl",
        ),
        verdict=UNMEASURED,
        guess=": the port speaks TLS: add --tls",
    ),
    "proxy_next_upstream": Row(
        build=through("server {one} weight=80; server {dead} weight=20;"),
        guess="none to two: it is down or not in the route",
        never=LIMITS,
    ),
    "both dead": Row(
        build=through("server {dead} weight=80; server {dead} weight=20;"),
        verdict=UNMEASURED,
        guess=": no backend is healthy behind the proxy",
        never=("TLS", "PROXY"),
    ),
    "turns": Row(
        build=through("server {one} weight=95; server {two} weight=5;"),
        verdict=PASS,
        guess="the balancer takes turns (round robin)",
        asked={"expect": {"one": 95, "two": 5}, "concurrency": 4},
    ),
}


def envoy_rows(folder: Path) -> dict[str, Row]:
    """The ways for Envoy."""
    bucket = {"max_tokens": 50, "tokens_per_fill": 50, "fill_interval": "9s"}
    limit = filter_(
        "filters.network.local_ratelimit.v3", "LocalRateLimit", stat_prefix="r", token_bucket=bucket
    )
    others = {"direct_remote_ip": {"address_prefix": "10.0.0.0", "prefix_len": 8}}
    policy = {"permissions": [{"any": True}], "principals": [others]}
    rules = {"action": "ALLOW", "policies": {"others": policy}}
    rbac = filter_("filters.network.rbac.v3", "RBAC", stat_prefix="r", rules=rules)
    secure: dict[str, Any] = {"transport_socket": tls(folder)}
    named = {"filter_chain_match": {"server_names": ["localhost"]}} | secure
    return {
        "rate limit": Row(
            build=listener(limit, tcp(one=80, two=20)),
            guess=": a limit on the rate of connections",
            never=("healthy", "open connections"),
        ),
        "circuit breaker": Row(
            build=listener(tcp(one_narrow=80, two_narrow=20)),
            guess=": a limit on open connections",
            never=("healthy", "rate"),
        ),
        "RBAC": Row(
            build=listener(rbac, tcp(one=80, two=20)),
            verdict=UNMEASURED,
            guess=": a policy refuses this client",
            never=("TLS", "PROXY", "healthy"),
        ),
        "PROXY protocol": Row(
            build=listener(tcp(one=80, two=20), before="proxy_protocol.v3.ProxyProtocol"),
            verdict=UNMEASURED,
            guess=": the listener wants a PROXY header: add --proxy-protocol v1",
            asked={"timeout": 0.5},
        ),
        "plain probe at a TLS port": Row(
            build=listener(tcp(one=80, two=20), **secure),
            verdict=UNMEASURED,
            guess=": the port speaks TLS: add --tls",
        ),
        "unknown SNI": Row(
            build=listener(tcp(one=80, two=20), before="tls_inspector.v3.TlsInspector", **named),
            verdict=UNMEASURED,
            guess=": nobody there takes this server name (check --sni)",
            asked={"sni": "other.test"},
        ),
        "one dead of two": Row(build=listener(tcp(one=80, dead=20)), guess=DOWN, never=LIMITS),
        "a Service that is missing": Row(
            build=listener(tcp(one=80, missing=20)), guess=DOWN, never=LIMITS
        ),
        "both dead": Row(
            build=listener(tcp(dead=80, missing=20)),
            verdict=UNMEASURED,
            guess=": no backend is healthy behind the proxy",
            never=("TLS", "PROXY"),
        ),
    }


def config(row: Row, target: str, certificates: Certificates) -> ProbeConfig:
    """What the probe is asked of a row."""
    asked = {"expect": {"one": 80, "two": 20}, **row.asked}
    if name := asked.pop("sni", None):
        asked["tls"] = ProbeTLS(ca=certificates.ca, server_name=name)
    return ProbeConfig(target=target, **asked)


async def said_otherwise(
    start: Callable[..., AbstractAsyncContextManager[list[str]]],
    rows: Mapping[str, Row],
    certificates: Certificates,
) -> str:
    """Probe all rows, some at a time: what is said of them, where that is not expected."""
    wrong = []
    turns = trio.CapacityLimiter(4)

    async def judge(name: str, row: Row, target: str) -> None:
        async with turns:
            report = await probe(config(row, target, certificates))
        text = str(report)
        if (
            report.verdict is not row.verdict
            or row.guess not in text
            or any(words in text for words in row.never)
        ):
            wrong.append(f"{name}: not {row.verdict} and {row.guess!r}, but {text}")

    async with (
        places() as found,
        start(certificates.folder, [row.build for row in rows.values()], found) as targets,
        trio.open_nursery() as nursery,
    ):
        for (name, row), target in zip(rows.items(), targets, strict=False):
            nursery.start_soon(judge, name, row, target)
    return "\n\n".join(wrong)


@pytest.fixture
def certificates(tmp_path: Path) -> Certificates:
    """A certificate for localhost, also in one file with its key."""
    made = Certificates.issue(tmp_path)
    made.write("both.pem", made.cert.read_bytes() + made.key.read_bytes())
    return made


async def test_haproxy(certificates: Certificates) -> None:
    """Behind HAProxy."""
    wrong = await said_otherwise(haproxy, HAPROXY, certificates)
    assert not wrong, wrong


async def test_nginx(certificates: Certificates) -> None:
    """Behind nginx."""
    wrong = await said_otherwise(nginx, NGINX, certificates)
    assert not wrong, wrong


async def test_envoy(certificates: Certificates) -> None:
    """Behind Envoy."""
    wrong = await said_otherwise(envoy, envoy_rows(certificates.folder), certificates)
    assert not wrong, wrong
