"""Other people's servers told apart: real ones, and byte for byte those that are too heavy."""

from __future__ import annotations

import os
import ssl
import subprocess
from contextlib import AsyncExitStack
from hashlib import sha256
from typing import TYPE_CHECKING, Any, get_args

import pytest
import trio
import trustme
from backends import backend
from daemons import balancer, daemon, free_ports

from trio_echo.prober.config import ProbeConfig, ProbeTLS, ProxyVersion
from trio_echo.prober.counts import Outcome
from trio_echo.prober.dialogue import CERTIFICATE_FIELDS, unescape
from trio_echo.prober.schedule import probe
from trio_echo.prober.split import Verdict

if TYPE_CHECKING:
    from pathlib import Path

    from backends import Handler

    from trio_echo.prober.dialogue import CertificateField
    from trio_echo.prober.words import Report

pytest.importorskip("re2", reason="google-re2 is not installed: pip install google-re2")


async def named(target: str, **settings: Any) -> Report:
    """See who answers eight connections, or judge who should."""
    return await probe(ProbeConfig(target=target, **{"connections": 8, **settings}))


async def test_two_redis_behind_haproxy(tmp_path: Path) -> None:
    """90/10, told apart by what INFO says of their settings."""
    ports = free_ports(2)
    async with AsyncExitStack() as stack:
        for port in ports:
            settings = ("--bind", "127.0.0.1", "--save", "", "--dir", tmp_path)
            await stack.enter_async_context(
                daemon("redis-server", "--port", str(port), *settings, port=port)
            )
        weights = {ports[0]: 90, ports[1]: 10}
        target = await stack.enter_async_context(balancer(tmp_path, weights))
        right = {str(port): weight for port, weight in weights.items()}
        judged = {"send": b"INFO server\r\n", "identify": r"tcp_port:(\d+)", "margin": 0.09}
        judged |= {"alpha": 0.01, "connections": 1000}
        report = await named(target, expect=right, **judged)
        assert report.verdict is Verdict.PASS, report
        wrong = dict(zip(right, (50, 50), strict=True))
        report = await named(target, expect=wrong, **judged)
        assert report.verdict is Verdict.FAIL, report
        report = await named(target, send=b"PING\r\n", identify=r"tcp_port:(\d+)", timeout=0.2)
    assert report.counts.outcomes == {Outcome.NO_MATCH: 8}
    assert r"no match for --identify in 7 bytes: '+PONG\r\n'" in str(report)


async def test_ssh_says_its_name_first(tmp_path: Path) -> None:
    """Two real ones with a word of their own in the banner, behind HAProxy."""
    if os.geteuid():
        pytest.skip("sshd starts for root alone")
    await trio.Path("/run/sshd").mkdir(exist_ok=True)  # as its service does at the start
    key = tmp_path / "key"
    make_key = ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(key)]
    await trio.run_process(make_key, stdin=subprocess.DEVNULL)
    async with AsyncExitStack() as stack:
        ports = free_ports(2)
        for port, word in zip(ports, ("blue", "green"), strict=True):
            settings = ("-oListenAddress=127.0.0.1", "-oPidFile=none", f"-oVersionAddendum={word}")
            command = ("sshd", "-D", "-f/dev/null", f"-p{port}", f"-h{key}", *settings)
            await stack.enter_async_context(daemon(*command, port=port))
        target = await stack.enter_async_context(balancer(tmp_path, dict.fromkeys(ports, 1)))
        report = await named(target, identify=r"^SSH-2\.0-\S+ (?:Debian\S* )?(\S+)")
    # Each thread of HAProxy takes turns of its own.
    assert {*report.counts.answers} == {"blue", "green"}, report
    assert not report.errors, report


NGINX = """daemon off; error_log stderr; pid {folder}/pid; worker_processes 1;
load_module /usr/lib/nginx/modules/ngx_stream_module.so;
events {{ }}
stream {{
  upstream both {{ server 127.0.0.1:{blue} weight=3; server 127.0.0.1:{green}; }}
  server {{ listen 127.0.0.1:{front}; proxy_pass both; }}
}}
http {{
  access_log off; default_type text/plain;
  server {{ listen 127.0.0.1:{blue}; add_header X-Version blue; return 200 "hello\\n"; }}
  server {{ listen 127.0.0.1:{green}; add_header X-Version green; return 200 "hello\\n"; }}
  server {{
    listen 127.0.0.1:{proxied} proxy_protocol;
    listen 127.0.0.1:{secure} ssl proxy_protocol;
    ssl_certificate {folder}/cert.pem; ssl_certificate_key {folder}/cert.pem;
    return 200 "for $proxy_protocol_addr\\n";
  }}
}}
"""


async def test_nginx_by_http_and_with_a_proxy_header(tmp_path: Path) -> None:
    """By a header of its answer; and what it says of the address that a PROXY header gave."""
    authority = trustme.CA()
    authority.cert_pem.write_to_path(str(tmp_path / "ca.pem"))
    issued = authority.issue_cert("127.0.0.1")
    issued.private_key_and_cert_chain_pem.write_to_path(str(tmp_path / "cert.pem"))
    names = ("front", "blue", "green", "proxied", "secure")
    ports = dict(zip(names, free_ports(5), strict=True))
    path = trio.Path(tmp_path / "nginx.conf")
    await path.write_text(NGINX.format(folder=tmp_path, **ports))
    get = b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"
    async with daemon("nginx", "-c", path, port=ports["front"]):
        report = await named(f"127.0.0.1:{ports['front']}", send=get, identify=r"^X-Version: (\S+)")
        assert report.counts.answers == {"blue": 6, "green": 2}, report

        async def seen(port: str, version: ProxyVersion, tls: ProbeTLS | None) -> Report:
            return await named(
                f"127.0.0.1:{ports[port]}",
                send=get,
                identify=r"^for (\S+)",
                proxy_protocol=version,
                tls=tls,
                source_addresses=["127.0.0.7", "127.0.0.8"],
            )

        for version in get_args(ProxyVersion):
            report = await seen("proxied", version, None)
            assert report.counts.answers == {"127.0.0.7": 4, "127.0.0.8": 4}, report
        report = await seen("secure", "v2", ProbeTLS(ca=tmp_path / "ca.pem"))
        assert report.counts.answers == {"127.0.0.7": 4, "127.0.0.8": 4}, report


AUTHORITY = trustme.CA()
LEAVES = {
    "one": AUTHORITY.issue_cert("db.test", "one.test", common_name="one"),
    "two": AUTHORITY.issue_cert("db.test", "two.test", common_name="two"),
}


def told_by(field: CertificateField, name: str) -> str:
    """What names a certificate, found in another way than the probe's."""
    der = ssl.PEM_cert_to_DER_cert(LEAVES[name].cert_chain_pems[0].bytes().decode())
    if field == "serial":
        loaded = LEAVES[name].cert_chain_pems[0].bytes()
        shown = ["openssl", "x509", "-noout", "-serial"]
        done = subprocess.run(shown, input=loaded, capture_output=True, check=True)
        return done.stdout.decode().strip().removeprefix("serial=")
    return {"cn": name, "san": f"db.test,{name}.test", "sha256": sha256(der).hexdigest()}[field]


async def test_passthrough_told_by_certificate(tmp_path: Path) -> None:
    """HAProxy passes TLS through, behind a PROXY header; neither service says a word."""
    AUTHORITY.cert_pem.write_to_path(str(tmp_path / "ca.pem"))
    async with AsyncExitStack() as stack:
        weights = {}
        for name, weight in (("one", 3), ("two", 1)):
            context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
            LEAVES[name].configure_cert(context)
            place = await stack.enter_async_context(backend(_silent, context))
            weights[int(place.rpartition(":")[2])] = weight
        target = await stack.enter_async_context(balancer(tmp_path, weights, words="accept-proxy"))
        trusting = ProbeTLS(ca=tmp_path / "ca.pem", server_name="db.test")
        for field in CERTIFICATE_FIELDS:
            report = await named(target, identify_cert=field, tls=trusting, proxy_protocol="v2")
            answers = {told_by(field, "one"): 6, told_by(field, "two"): 2}
            assert report.counts.answers == answers, report


MARIADB = bytes.fromhex(
    "64000000 0a352e352e352d31302e31312e31392d4d6172696144422d302b64656231327531 00 b9020000"
    "74463f482e49674a 00 fef7080200ff8115000000000000 1d000000 7b4f594e5d676f77275b7458 00"
    "6d7973716c5f6e61746976655f70617373776f7264 00"
)
REFUSAL = (
    b"\x4c\0\0\x02\xff\x15\x04#28000Access denied for user 'probe'@'proxy.example' "
    b"(using password: NO)"
)
"""The greeting of MariaDB 10.11.19 and its answer to a login, as they were captured."""

LOGIN = unescape(
    r"\x3d\0\0\x01\0\x82\x08\0\0\0\0\x01\x21\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0probe\0\0"
    r"mysql_native_password\0"
)

ISTIO_ECHO = b"StatusCode=200\nCluster=\nServiceVersion=v2\nServicePort=9090\n"
"""What Istio's echo app writes before the request; its fields come in any order."""

POD = (
    b'{"namespace":"ns","ingress":"","service":"","pod":"backend-v1","tcpport":"3000",'
    b'"tlsport":"8443","isTLS":false}\n'
)


async def _silent(stream: trio.abc.Stream) -> None:
    while await stream.receive_some():
        pass


_VERSION = r"^(\d+\.\d+[^\x00]+)\x00(?s:.)*\x02[\xfe\xff]"


async def _mariadb(stream: trio.abc.Stream) -> None:
    await stream.send_all(MARIADB)
    assert await stream.receive_some() == LOGIN
    await stream.send_all(REFUSAL)


async def _tcp_echo(stream: trio.abc.Stream) -> None:
    await stream.send_all(b"one " + await stream.receive_some())


async def _istio_echo(stream: trio.abc.Stream) -> None:
    request = await stream.receive_some(4096)
    await stream.send_all(ISTIO_ECHO)
    await stream.send_all(request)


async def _echo_basic(stream: trio.abc.Stream) -> None:
    await stream.send_all(b"Gateway API Test TCP Server\n")
    if await stream.receive_some() == b"TEST\n":
        await stream.send_all(POD)
    await stream.receive_some()


@pytest.mark.parametrize(
    ("server", "send", "identify", "name"),
    [
        (_mariadb, LOGIN, _VERSION, "5.5.5-10.11.19-MariaDB-0+deb12u1"),
        (_tcp_echo, b"world\n", r"^(\S+) world", "one"),
        (_istio_echo, b"hello\n", r"^ServiceVersion=(\S+)", "v2"),
        (_echo_basic, b"TEST\n", r'"pod":"([^"]*)"', "backend-v1"),
    ],
)
async def test_servers_as_they_answer_today(
    server: Handler, send: bytes, identify: str, name: str
) -> None:
    """Istio's tcp-echo and echo app, Gateway API's echo-basic, and MariaDB, byte for byte."""
    async with backend(server) as target:
        report = await named(target, send=send, identify=identify)
    assert report.counts.answers == {name: 8}, report
