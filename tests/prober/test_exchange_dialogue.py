"""Any server's answer over a real connection: what is too long, too late, or another's."""

from __future__ import annotations

import ssl
from itertools import count
from typing import TYPE_CHECKING, Any, get_args

import pytest
import trio
import trustme
from backends import backend, reset
from certificates import Certificates
from serving import running

from trio_echo.prober.config import ProbeConfig, ProbeTLS, ProxyVersion
from trio_echo.prober.counts import Outcome
from trio_echo.prober.schedule import probe
from trio_echo.prober.split import Verdict
from trio_echo.text import format_address

if TYPE_CHECKING:
    from pathlib import Path

    from trio_echo.prober.words import Report

pytest.importorskip("re2", reason="google-re2 is not installed: pip install google-re2")

WHO = {"send": b"who\n", "identify": r"^I am (\S+)"}


async def once(target: str, **settings: Any) -> Report:
    """Probe with a single connection."""
    return await probe(ProbeConfig(target=target, **{"connections": 1, **settings}))


async def _dripping(stream: trio.abc.Stream) -> None:
    while True:
        await stream.send_all(b".")
        await trio.sleep(0.01)


async def _endless(stream: trio.abc.Stream) -> None:
    while True:
        await stream.send_all(b"nobody\n" * 1000)


async def _silent(stream: trio.abc.Stream) -> None:
    while await stream.receive_some():
        pass


async def _other(stream: trio.abc.Stream) -> None:
    await stream.receive_some()
    await stream.send_all(b"-ERR unknown command\r\n")


async def _asking(stream: trio.abc.Stream) -> None:
    await stream.receive_some()


@pytest.mark.parametrize(
    ("server", "outcome", "words"),
    [
        (_dripping, Outcome.NO_MATCH, "bytes, the last line unfinished: '....."),
        (_endless, Outcome.NO_MATCH, "in 65536 bytes, and no more are looked at: 'nobody"),
        (_silent, Outcome.READ_TIMEOUT, "it speaks another protocol"),
        (_other, Outcome.NO_MATCH, r"in 22 bytes, then the end: '-ERR unknown command\r\n'"),
        (_asking, Outcome.EOF_BEFORE_ANSWER, "a policy refuses this client"),
        (reset, Outcome.RESET, "Connection reset by peer"),
    ],
)
async def test_no_answer(server: Any, outcome: Outcome, words: str) -> None:
    """Each has its word; a server that drips gets no more time than one that is silent."""
    with trio.fail_after(3):
        async with backend(server) as target:
            report = await once(target, timeout=0.3, **WHO)
    assert {found for found, number in report.counts.outcomes.items() if number} == {outcome}
    assert report.verdict is Verdict.UNMEASURED
    assert words in str(report)


async def test_the_end_of_file_ends_a_line() -> None:
    """As that of an answer of HTTP/1.0 without LF does."""

    async def brief(stream: trio.abc.Stream) -> None:
        await stream.receive_some()
        await stream.send_all(b"I am ")
        await stream.send_all(b"one")

    async with backend(brief) as target:
        report = await once(target, **WHO)
    assert report.counts.answers == {"one": 1}


@pytest.mark.parametrize(
    ("expect", "verdict", "words"),
    [
        ({}, Verdict.UNMEASURED, "(0, 1, 2 and so on): each connection gets a name of its own"),
        ({"one": 1}, Verdict.FAIL, "0 answered 1 of 1, but was not expected at all"),
    ],
)
async def test_a_name_for_each_connection(
    expect: dict[str, float], verdict: Verdict, words: str
) -> None:
    """No memory is filled with them: the probe ends, and says what it saw."""
    numbers = count()

    async def numbered(stream: trio.abc.Stream) -> None:
        number = next(numbers)
        await stream.receive_some()
        await stream.send_all(b"I am %d\n" % number)

    async with backend(numbered) as target:
        report = await once(target, connections=5000, concurrency=1, expect=expect, **WHO)
    assert report.verdict is verdict
    assert report.connections <= 257
    assert words in str(report)


@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
async def test_our_own_server_behind_a_proxy_header(tmp_path: Path, host: str) -> None:
    """Of both versions, and before TLS too."""
    certificates = Certificates.issue(tmp_path)
    secure = ProbeTLS(ca=certificates.ca, server_name="localhost")
    settings = {"hosts": [host], "tls": certificates.config(), "proxy_protocol": True}
    async with running(**settings) as server:
        plain, encrypted = (format_address(host, port) for port in server.ports)
        for version in get_args(ProxyVersion):
            for target, tls in ((plain, None), (encrypted, secure)):
                report = await once(target, proxy_protocol=version, tls=tls)
                assert report.counts.answers == {"one": 1}, report
        assert (await once(plain)).counts.answers == {}


AUTHORITY = trustme.CA()
LEAVES = {
    "named": AUTHORITY.issue_cert("one.test", common_name="one"),
    "nameless": AUTHORITY.issue_cert("one.test"),
    "endless": AUTHORITY.issue_cert(*[f"{number}.{'x' * 60}.test" for number in range(5)]),
}


@pytest.mark.parametrize(
    ("leaf", "field", "trusted", "words"),
    [
        ("named", "cn", True, "MEASURED"),
        ("named", "sha256", True, "MEASURED"),
        ("named", "sha256", None, "MEASURED"),
        ("named", "cn", None, "tls (certificate verify failed"),
        ("named", "sha256", False, "tls (certificate verify failed"),
        ("nameless", "cn", True, "no-match (the certificate has no cn: use serial or sha256)"),
        ("endless", "san", True, "no-match (the certificate's san is 339 bytes long: use serial"),
    ],
)
async def test_certificates(
    tmp_path: Path, leaf: str, field: Any, trusted: bool | None, words: str
) -> None:
    """For any host, but from whom one trusts; a fingerprint alone asks for nobody's trust."""
    for name, authority in ((True, AUTHORITY), (False, trustme.CA())):
        authority.cert_pem.write_to_path(str(tmp_path / f"{name}.pem"))
    tls = None if trusted is None else ProbeTLS(ca=tmp_path / f"{trusted}.pem")
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    LEAVES[leaf].configure_cert(context)
    async with backend(_silent, context) as target:
        report = await once(target, identify_cert=field, tls=tls)
    assert words in str(report)
    assert report.verdict is (None if words == "MEASURED" else Verdict.UNMEASURED)
