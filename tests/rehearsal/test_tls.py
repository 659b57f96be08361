"""TLS from manifests to answers: it ends at Istio's gateway, passes it, or begins there."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

import pytest
from manifest_texts import deployment, documents, notices, plan, service, virtual_service, warned

from trio_echo.errors import ManifestError
from trio_echo.prober.config import ProbeConfig, ProbeTLS
from trio_echo.prober.schedule import probe
from trio_echo.prober.split import Verdict
from trio_echo.rehearsal.dataplane import by_hand
from trio_echo.rehearsal.judge import judge, targets
from trio_echo.rehearsal.process import find_envoy
from trio_echo.rehearsal.testbed import open_testbed

if TYPE_CHECKING:
    from trio_echo.rehearsal.testbed import Testbed

QUICK = partial(ProbeConfig, margin=0.2, alpha=0.01)

ASKING = '"--tls-ports", "9443", "--tls-cert", "/c.pem", "--tls-client-ca", "/ca.pem"'
PORTS = "[{name: tcp, port: 9000}, {name: tls, port: 9443}]"
CERTIFICATES = "clientCertificate: /etc/client.pem, privateKey: /etc/client.key"


def rule(host: str, tls: str) -> str:
    """A DestinationRule with this TLS towards the pods' secure port."""
    return f"""
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {{name: {host}}}
spec:
  host: {host}
  trafficPolicy: {{portLevelSettings: [{{port: {{number: 9443}}, tls: {{{tls}}}}}]}}
"""


def server(port: int, protocol: str = "TCP", tls: str = "") -> str:
    """A server of the Gateway."""
    more = f", tls: {{mode: {tls}}}" if tls else ""
    return (
        f"  - {{port: {{number: {port}, name: p{port}, protocol: {protocol}}}, hosts: ['*']{more}}}"
    )


def to(port: int, host: str, number: int, rules: str = "tcp") -> str:
    """A VirtualService from a port of the Gateway to a port of a Service."""
    sni = ", sniHosts: [a.example.com]" if rules == "tls" else ""
    return virtual_service(
        f"  {rules}:\n  - match: [{{port: {port}{sni}}}]\n"
        f"    route: [{{destination: {{host: {host}, port: {{number: {number}}}}}}}]",
        hosts="[a.example.com]",
        gateways="[gateway]",
        name=f"p{port}",
    )


GATEWAY = "\n".join(
    [
        "apiVersion: networking.istio.io/v1\nkind: Gateway\nmetadata: {name: gateway}",
        "spec:\n  servers:",
        server(443, "TLS", "SIMPLE, credentialName: c"),
        server(444, "TLS", "MUTUAL, credentialName: c"),
        server(445, "TLS", "PASSTHROUGH"),
        server(446),
        server(447),
    ]
)
MANIFESTS = documents(
    deployment("echo", "v1", f'["9000", "one", {ASKING}]'),
    *(service(name, "{app: tcp-echo}", PORTS) for name in ("echo", "mutual", "simple")),
    GATEWAY,
    rule("mutual", f"mode: MUTUAL, {CERTIFICATES}, caCertificates: /etc/ca.pem"),
    rule("simple", "mode: SIMPLE"),
    to(443, "echo", 9000),
    to(444, "echo", 9000),
    to(445, "echo", 9443, "tls"),
    to(446, "mutual", 9443),
    to(447, "simple", 9443),
)


async def test_who_ends_tls_gets_the_certificates_that_it_asks_for() -> None:
    """Of clients, and of the gateway; whoever shows none is refused."""
    found = plan(MANIFESTS)
    async with open_testbed(found.route, find_envoy()) as testbed:
        for target in targets(testbed.route):
            if target.listener.port == 447:
                continue
            report, check = await judge(testbed, target, QUICK)
            assert report.verdict is Verdict.PASS, f"{target.listener.port}: {report}"
            assert check.agrees, str(check)
        assert await answers(testbed, 443) == 3
        for port in (444, 445, 447):
            assert await answers(testbed, port) == 0
    assert "# Backends are shown client.pem" in by_hand(found.route)


async def test_who_stands_in_speaks_what_reaches_it() -> None:
    """TLS that is passed through, and what is left when the gateway has ended it."""
    web = service("web", "{app: web}", "[{name: tcp, port: 9000}]")
    found = plan(web, GATEWAY, to(443, "web", 9000), to(445, "web", 9000, "tls"))
    async with open_testbed(found.route, find_envoy()) as testbed:
        for target in targets(testbed.route):
            report, check = await judge(testbed, target, QUICK)
            assert report.verdict is Verdict.PASS, f"{target.listener.port}: {report}"
            assert check.agrees, str(check)
    assert not notices(found, ["all answer"])


async def answers(testbed: Testbed, port: int) -> int:
    """How many of three clients without a certificate are answered."""
    (target,) = (each for each in targets(testbed.route) if each.listener.port == port)
    assert testbed.authority is not None
    tls = ProbeTLS(ca=testbed.authority.path, server_name=target.server_name)
    where = f"127.0.0.1:{testbed.ports[target.listener.name]}"
    config = QUICK(target=where, tls=tls if target.server_name else None, connections=3)
    return (await probe(config)).counts.answers.total()


def test_what_is_done_with_certificates_is_said() -> None:
    """Throw-away ones are shown; none is verified, though Istio would."""
    found = plan(MANIFESTS)
    shown = ["DestinationRule mutual", "a throw-away certificate in place of /etc/client.pem"]
    assert notices(found, shown)
    assert notices(found, ["default/echo shows a throw-away certificate", "asks clients for one"])
    said = "DestinationRule simple: spec.trafficPolicy.portLevelSettings[0].tls names no caCert"
    assert warned(found, [said, "with a private authority, every connection fails"])
    assert not warned(found, ["DestinationRule mutual"])
    entry = """
apiVersion: networking.istio.io/v1
kind: ServiceEntry
metadata: {name: out}
spec: {hosts: [out.example.com], ports: [{number: 9443, name: tls, protocol: TLS}], resolution: DNS}
"""
    outside = plan(MANIFESTS, entry, rule("out.example.com", "mode: SIMPLE"))
    assert not warned(outside, ["DestinationRule out"])


@pytest.mark.parametrize(
    ("right", "wrong", "message"),
    [
        ("clientCertificate: /etc/client.pem, ", "", r"tls\.clientCertificate: is missing: Istio"),
        ("privateKey: /etc/client.key, ", "", r"tls\.privateKey: is missing: Istio refuses MUTUAL"),
        ("SIMPLE, credentialName: c", "SIMPLE", r"tls\.serverCertificate: is missing: Istio"),
        (
            "MUTUAL, credentialName: c",
            "MUTUAL, serverCertificate: c, privateKey: k",
            r"tls\.caCertificates: is missing: Istio refuses MUTUAL without it or credentialName",
        ),
    ],
)
def test_certificates_that_are_missing_are_refused(right: str, wrong: str, message: str) -> None:
    """As Istio's webhook does."""
    assert right in MANIFESTS
    with pytest.raises(ManifestError, match=message):
        plan(MANIFESTS.replace(right, wrong))
    own = "SIMPLE, serverCertificate: c, privateKey: k"
    given = MANIFESTS.replace("SIMPLE, credentialName: c", own)
    several = "MUTUAL, caCertificates: a, tlsCertificates: [{serverCertificate: c, privateKey: k}]"
    given = given.replace("MUTUAL, credentialName: c", several)
    assert plan(given).route == plan(MANIFESTS).route
