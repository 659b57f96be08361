"""Probing through TLS, with certificates made for the occasion."""

from __future__ import annotations

import ssl
from typing import TYPE_CHECKING

import pytest
import trustme
from backends import answering, backend, reset

from trio_echo.errors import ConfigError
from trio_echo.prober.config import ProbeConfig, ProbeTLS
from trio_echo.prober.counts import Outcome
from trio_echo.prober.schedule import probe
from trio_echo.prober.split import Verdict

if TYPE_CHECKING:
    from pathlib import Path

    import trio

    from trio_echo.prober.words import Report

AUTHORITY = trustme.CA()


@pytest.fixture
def ca(tmp_path: Path) -> Path:
    """The authority's certificate as a file."""
    path = tmp_path / "ca.pem"
    AUTHORITY.cert_pem.write_to_path(str(path))
    return path


def server_context(name: str = "echo.test") -> ssl.SSLContext:
    """A server that shows a certificate for `name`."""
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    AUTHORITY.issue_cert(name).configure_cert(context)
    return context


async def one(stream: trio.abc.Stream) -> None:
    """The backend behind all of these."""
    await answering(stream, "one")


async def through(target: str, tls: ProbeTLS) -> Report:
    """Probe a few connections."""
    return await probe(ProbeConfig(target=target, connections=3, tls=tls, max_errors=0))


async def test_handshake_by_server_name(ca: Path) -> None:
    """The name is asked for by SNI and found in the certificate."""
    asked = []
    context = server_context()
    context.sni_callback = lambda _sock, name, _context: asked.append(name)
    async with backend(one, context) as target:
        report = await through(target, ProbeTLS(ca=ca, server_name="echo.test"))
    assert report.counts.outcomes == {Outcome.OK: 3}
    assert asked == ["echo.test"] * 3
    assert report.backends[0].connect.count == 3


async def test_host_is_the_name_unless_told(ca: Path) -> None:
    """Without a server name the certificate must be the host's."""
    async with backend(one, server_context("127.0.0.1")) as target:
        report = await through(target, ProbeTLS(ca=ca))
    assert report.counts.outcomes == {Outcome.OK: 3}


@pytest.mark.parametrize(
    ("server_name", "words"),
    [("echo.test", "self-signed certificate"), ("other.test", "Hostname mismatch")],
)
async def test_certificate_is_verified(ca: Path, server_name: str, words: str) -> None:
    """An authority that nobody named, or another name, is a failed handshake."""
    tls = ProbeTLS(ca=ca if server_name == "other.test" else None, server_name=server_name)
    async with backend(one, server_context()) as target:
        report = await through(target, tls)
    assert set(report.counts.outcomes) == {Outcome.TLS}
    assert report.verdict is Verdict.UNMEASURED
    assert words in str(report) or "unable to get local issuer" in str(report)


async def test_plain_port(ca: Path) -> None:
    """A port that echoes the hello does not speak TLS."""
    async with backend(one) as target:
        report = await through(target, ProbeTLS(ca=ca))
    assert set(report.counts.outcomes) == {Outcome.TLS}
    assert "the port answers without TLS: leave out --tls" in str(report)


async def test_connection_cut_in_the_handshake(ca: Path) -> None:
    """A proxy that has no route for the name may reset as well."""
    async with backend(reset) as target:
        report = await through(target, ProbeTLS(ca=ca))
    assert set(report.counts.outcomes) == {Outcome.TLS}
    assert "Connection reset by peer in the handshake" in str(report)


async def test_end_of_file_in_the_handshake(ca: Path) -> None:
    """A proxy that has no route for the name closes without a word."""

    async def closing(stream: trio.abc.Stream) -> None:
        await stream.receive_some()

    async with backend(closing) as target:
        report = await through(target, ProbeTLS(ca=ca))
    assert set(report.counts.outcomes) == {Outcome.TLS}


async def test_silence_in_the_handshake(ca: Path) -> None:
    """Nobody answers the hello."""

    async def silent(stream: trio.abc.Stream) -> None:
        while await stream.receive_some():
            pass

    async with backend(silent) as target:
        config = ProbeConfig(target=target, connections=1, timeout=0.2, tls=ProbeTLS(ca=ca))
        report = await probe(config)
    assert set(report.counts.outcomes) == {Outcome.TLS}
    assert "no handshake in time" in str(report)


async def test_mutual_tls(ca: Path, tmp_path: Path) -> None:
    """A server that asks for a certificate gets it; without one it refuses."""
    context = server_context()
    context.verify_mode = ssl.CERT_REQUIRED
    AUTHORITY.configure_trust(context)
    mine = AUTHORITY.issue_cert("probe.test")
    cert, key = tmp_path / "cert.pem", tmp_path / "key.pem"
    mine.cert_chain_pems[0].write_to_path(str(cert))
    mine.private_key_pem.write_to_path(str(key))
    async with backend(one, context) as target:
        tls = ProbeTLS(ca=ca, server_name="echo.test", cert=cert, key=key)
        assert (await through(target, tls)).counts.outcomes == {Outcome.OK: 3}
        report = await through(target, ProbeTLS(ca=ca, server_name="echo.test"))
    # TLS 1.3 tells the client only when it reads; this server closes without an alert.
    assert set(report.counts.outcomes) == {Outcome.EOF_BEFORE_ANSWER}
    assert "no client certificate was shown" in str(report)


async def test_connection_cut_after_the_handshake(ca: Path) -> None:
    """The end of file within TLS is one without an answer."""

    async def closing(stream: trio.abc.Stream) -> None:
        await stream.receive_some()

    async with backend(closing, server_context()) as target:
        report = await through(target, ProbeTLS(ca=ca, server_name="echo.test"))
    assert set(report.counts.outcomes) == {Outcome.EOF_BEFORE_ANSWER}


@pytest.mark.parametrize(
    ("field", "settings"),
    [
        ("tls_ca", {"ca": "missing.pem"}),
        ("tls_ca", {"ca": "garbage.pem"}),
        ("tls_cert", {"cert": "missing.pem"}),
        ("tls_cert", {"cert": "garbage.pem", "key": "garbage.pem"}),
        ("tls_key", {"key": "missing.pem"}),
        ("sni", {"server_name": ""}),
    ],
)
async def test_files_that_cannot_be_used_are_refused(
    tmp_path: Path, field: str, settings: dict[str, str]
) -> None:
    """Each by the option that names it, before anything is sent."""
    (tmp_path / "garbage.pem").write_text("garbage", encoding="ascii")
    paths = {
        name: value if name == "server_name" else tmp_path / value
        for name, value in settings.items()
    }
    with pytest.raises(ConfigError) as refused:
        await through("127.0.0.1:1", ProbeTLS(**paths))  # type: ignore[arg-type] # the values are what the test is about
    assert refused.value.field == field


@pytest.mark.parametrize("name", [".example", "a\0b", "x" * 70 + ".example"])
@pytest.mark.parametrize("given", ["sni", "target"])
async def test_server_name_that_cannot_be_asked_for(name: str, given: str) -> None:
    """Refused by its option before anything is connected, not met as an error of ours."""
    target = "127.0.0.1:9" if given == "sni" else f"{name.replace(chr(0), '..')}:9"
    tls = ProbeTLS(server_name=name if given == "sni" else None)
    with pytest.raises(ConfigError, match="TLS cannot ask for the server name") as refused:
        await probe(ProbeConfig(target=target, tls=tls))
    assert refused.value.field == given


async def test_plain_echo_behind_tls_has_an_empty_name(ca: Path) -> None:
    """Nothing that meets itself can shake hands."""
    async with backend(lambda stream: answering(stream, ""), server_context()) as target:
        report = await through(target, ProbeTLS(ca=ca, server_name="echo.test"))
    assert report.counts.answers == {"": 3}
