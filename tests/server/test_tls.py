"""TLS refuses bad files by name, tells clients why, and loses nothing at an end."""

from __future__ import annotations

import socket
import ssl
import struct
import subprocess
from typing import TYPE_CHECKING

import pytest
import trio
import trio.testing
import trustme
from certificates import Certificates

from trio_echo.errors import ConfigError
from trio_echo.server.config import TLSConfig
from trio_echo.server.tls import (
    HANDSHAKE_TIMEOUT,
    HandshakeError,
    TLSStream,
    Transport,
    server_context,
)

if TYPE_CHECKING:
    from pathlib import Path

    MemoryStream = trio.StapledStream[
        trio.testing.MemorySendStream, trio.testing.MemoryReceiveStream
    ]
    ClientStream = trio.SSLStream[MemoryStream]


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    """Made once: keys take a while."""
    return Certificates.issue(tmp_path_factory.mktemp("tls"))


def refused(cert: Path, key: Path | None = None, client_ca: Path | None = None) -> tuple[str, str]:
    """Load what cannot be loaded; return the field at fault and what was said of it."""
    with pytest.raises(ConfigError) as raised:
        server_context(TLSConfig(ports=[0], cert=cert, key=key, client_ca=client_ca))
    assert "\n" not in str(raised.value)
    return raised.value.field, raised.value.reason


def test_a_missing_file_is_named(certificates: Certificates) -> None:
    """Each of the three, by its own field."""
    gone = certificates.folder / "gone.pem"
    reason = f"cannot read {gone}: No such file or directory"
    assert refused(gone, certificates.key) == ("tls_cert", reason)
    assert refused(certificates.cert, gone) == ("tls_key", reason)
    assert refused(certificates.cert, certificates.key, gone) == ("tls_client_ca", reason)


def test_a_folder_is_no_file(certificates: Certificates) -> None:
    """What opens but cannot be read is told like what does not open."""
    assert refused(certificates.cert, certificates.folder) == (
        "tls_key",
        f"cannot read {certificates.folder}: Is a directory",
    )


@pytest.mark.parametrize("content", [b"", b"junk\0\xff", b"-----BEGIN CERTIFICATE-----\nM\n"])
def test_a_file_of_something_else_is_told(certificates: Certificates, content: bytes) -> None:
    """Each of the three, by its own field."""
    other = certificates.write("other.pem", content)
    no_certificates = f"{other} holds no certificates in PEM form, or a damaged one"
    assert refused(other, certificates.key) == ("tls_cert", no_certificates)
    assert refused(certificates.cert, other) == (
        "tls_key",
        f"{other} is no private key in PEM form",
    )
    assert refused(certificates.cert, certificates.key, other) == ("tls_client_ca", no_certificates)


def test_certificate_and_key_swapped_or_one_alone(certificates: Certificates) -> None:
    """The usual mistakes get the remedy that fits."""
    assert refused(certificates.key, certificates.cert)[0] == "tls_cert"
    field, reason = refused(certificates.cert)
    assert field == "tls_cert"
    assert reason.endswith("has no private key in PEM form; give its file with --tls-key")


def test_a_key_of_another_certificate_is_told(certificates: Certificates) -> None:
    """The pair is checked at the start, not at the first client."""
    key = certificates.write(
        "stranger.pem", certificates.authority.issue_cert("x").private_key_pem.bytes()
    )
    assert refused(certificates.cert, key) == (
        "tls_key",
        f"the private key in {key} does not belong to the first certificate in {certificates.cert}",
    )


def test_an_encrypted_key_is_told_and_no_password_asked_for(certificates: Certificates) -> None:
    """A prompt on the terminal of a server would hang it."""
    key = certificates.folder / "encrypted.pem"
    command = [
        "openssl",
        "ec",
        "-aes256",
        "-passout",
        "pass:x",
        "-in",
        certificates.key,
        "-out",
        key,
    ]
    subprocess.run([str(word) for word in command], check=True, capture_output=True)
    field, reason = refused(certificates.cert, key)
    assert field == "tls_key"
    assert reason.startswith(f"the private key in {key} is encrypted; decrypt it first")


def test_a_certificate_that_openssl_refuses_is_told(certificates: Certificates) -> None:
    """Not the key's fault, although both are loaded in one step."""
    cert, key = certificates.folder / "weak.pem", certificates.folder / "weak-key.pem"
    request = ["openssl", "req", "-x509", "-newkey", "rsa:512", "-nodes", "-subj", "/CN=x"]
    subprocess.run([*request, "-keyout", key, "-out", cert], check=True, capture_output=True)
    assert refused(cert, key) == ("tls_cert", f"{cert} is refused: ee key too small")


def test_one_file_may_hold_both(certificates: Certificates) -> None:
    """A chain with its key in front is a common form of delivery."""
    both = certificates.write(
        "both.pem", certificates.issued.private_key_and_cert_chain_pem.bytes()
    )
    server_context(TLSConfig(ports=[0], cert=both))


class Pair:
    """A server's and a client's end over memory, before the handshake."""

    def __init__(
        self,
        certificates: Certificates,
        *,
        client_cert: trustme.LeafCert | None = None,
        mutual: bool = False,
    ) -> None:
        below, self.client_below = trio.testing.memory_stream_pair()
        self.below = below
        self.server = TLSStream(below, server_context(certificates.config(mutual=mutual)))
        context = certificates.client_context(client_cert)
        self.client = trio.SSLStream(self.client_below, context, server_hostname="localhost")

    async def handshake(self) -> None:
        """Do both sides."""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self.client.do_handshake)
            nursery.start_soon(self.server.handshake)


async def receive_all(stream: Transport) -> bytes:
    """Receive to the end of file."""
    received = b""
    while part := await stream.receive_some():
        received += part
    return received


async def test_bytes_pass_both_ways_and_the_end_is_told(certificates: Certificates) -> None:
    """A strict client, which takes a bare end of file for an attack, is content."""
    pair = Pair(certificates)
    payload = bytes(range(256)) * 1024  # several records and slices
    received = b""

    async def serve() -> None:
        await pair.server.handshake()
        nonlocal received
        while len(received) < len(payload):
            received += await pair.server.receive_some()
        await pair.server.send_all(received)
        await pair.server.send_eof()
        assert await pair.server.receive_some() == b""
        await pair.below.aclose()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(serve)
        await pair.client.send_all(payload)
        assert await receive_all(pair.client) == payload
        await pair.client.aclose()
    assert received == payload


async def test_the_server_speaks_only_when_asked(certificates: Certificates) -> None:
    """After the handshake there are no tickets on their way to a client that never reads."""
    pair = Pair(certificates)
    await pair.handshake()
    unasked = []

    async def receive() -> None:
        unasked.append(await pair.client_below.receive_some())

    async with trio.open_nursery() as nursery:
        nursery.start_soon(receive)
        await trio.testing.wait_all_tasks_blocked()
        nursery.cancel_scope.cancel()
    assert unasked == []


@pytest.mark.parametrize("notify", [True, False], ids=["close_notify", "bare end of file"])
async def test_after_the_clients_end_of_file_it_is_still_answered(
    certificates: Certificates, notify: bool
) -> None:
    """As `nc -N` without TLS: send, end, read the answer. With or without a goodbye."""
    pair = Pair(certificates)
    await pair.handshake()
    await pair.client.send_all(b"rest")
    if notify:
        # unwrap sends the notice and waits for ours.
        async with trio.open_nursery() as nursery:
            nursery.start_soon(pair.client.unwrap)
            assert await receive_all(pair.server) == b"rest"
            await pair.server.send_eof()
    else:
        await pair.client_below.send_eof()
        assert await receive_all(pair.server) == b"rest"
        await pair.server.send_all(b"one rest")
        await pair.server.send_eof()
        assert await receive_all(pair.client) == b"one rest"


async def test_what_was_on_its_way_at_our_end_is_received(certificates: Certificates) -> None:
    """A client amid sending still gets to read the last answer and the goodbye."""
    pair = Pair(certificates)
    await pair.handshake()
    await pair.client.send_all(b"in flight")
    await pair.server.send_all(b"error: line too long\n")
    await pair.server.send_eof()
    await pair.client.send_all(b"more in flight")
    await pair.client_below.send_eof()
    assert await receive_all(pair.server) == b"in flightmore in flight"
    assert await receive_all(pair.client) == b"error: line too long\n"
    with trio.fail_after(1):  # behind the goodbye of TLS there is one of the stream below
        assert await pair.client_below.receive_some() == b""


async def test_what_openssl_had_at_our_end_is_read_away(certificates: Certificates) -> None:
    """It takes no more data, once its goodbye has met some that was not read."""
    pair = Pair(certificates)
    await pair.handshake()
    await pair.client.send_all(b"one line\n")
    await pair.client.send_all(b"another\n")
    assert await pair.server.receive_some(3) == b"one"
    await pair.server.send_eof()
    await pair.client.send_all(b"in flight")
    await pair.client_below.send_eof()
    assert await receive_all(pair.server) in {b"", b" line\n"}
    assert await receive_all(pair.client) == b""


async def test_a_goodbye_behind_ours_is_the_end(certificates: Certificates) -> None:
    """Though nothing below has ended."""
    pair = Pair(certificates)
    await pair.handshake()
    await pair.server.send_eof()
    assert await receive_all(pair.client) == b""
    async with trio.open_nursery() as nursery:
        nursery.start_soon(pair.client.unwrap)
        with trio.fail_after(1):
            assert await pair.server.receive_some() == b""
        nursery.cancel_scope.cancel()


async def test_a_part_of_a_record_is_known(certificates: Certificates) -> None:
    """However it is cut: the server is amid something until the last byte of it."""
    client_below, server_below = trio.testing.memory_stream_pair()
    server = TLSStream(server_below, server_context(certificates.config()))
    assert not server.amid
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    client = certificates.client_context().wrap_bio(incoming, outgoing, server_hostname="localhost")

    async def receive() -> None:
        received.extend(await server.receive_some())

    async def deliver(*, whole: bool) -> None:
        data = outgoing.read()
        for place in range(len(data)):
            await client_below.send_all(data[place : place + 1])
            async with trio.open_nursery() as nursery:
                nursery.start_soon(receive)
                await trio.testing.wait_all_tasks_blocked()
                nursery.cancel_scope.cancel()
            assert server.amid == (not whole or place + 1 < len(data))

    received = bytearray()
    with pytest.raises(ssl.SSLWantReadError):
        client.do_handshake()
    await deliver(whole=False)
    incoming.write(await client_below.receive_some())
    client.do_handshake()
    await deliver(whole=True)
    client.write(b"a line\n")
    await deliver(whole=True)
    assert received == b"a line\n"


async def test_a_cancelled_receive_loses_nothing(certificates: Certificates) -> None:
    """What arrives later is there for the next receive."""
    pair = Pair(certificates)
    await pair.handshake()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(pair.server.receive_some)
        await trio.testing.wait_all_tasks_blocked()
        nursery.cancel_scope.cancel()
    await pair.client.send_all(b"line")
    with trio.CancelScope() as scope:
        scope.cancel()
        await pair.server.receive_some()
    assert await pair.server.receive_some() == b"line"


async def test_damaged_tls_is_a_broken_connection(certificates: Certificates) -> None:
    """Not a crash, and not data."""
    pair = Pair(certificates)
    await pair.handshake()
    await pair.client_below.send_all(b"\x17\x03\x03\x00\x20" + bytes(32))
    with pytest.raises(trio.BrokenResourceError):
        await pair.server.receive_some()
    with pytest.raises(trio.BrokenResourceError):
        await pair.client.receive_some()


async def refused_handshake(pair: Pair) -> tuple[str, str]:
    """Shake hands in vain; return what the server says and what the client was told."""
    told = ""

    async def be_client() -> None:
        nonlocal told
        try:
            await pair.client.do_handshake()
            await pair.client.receive_some()
        except trio.BrokenResourceError as error:
            told = str(error.__cause__)
        await pair.client_below.aclose()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(be_client)
        with pytest.raises(HandshakeError) as raised:
            await pair.server.handshake()
        await pair.below.aclose()
    return str(raised.value), told


async def test_mutual_tls_lets_in_whom_the_authority_knows(certificates: Certificates) -> None:
    """A client with a certificate of that authority."""
    pair = Pair(certificates, mutual=True, client_cert=certificates.authority.issue_cert("client"))
    await pair.handshake()
    await pair.client.send_all(b"hello")
    assert await pair.server.receive_some() == b"hello"


async def test_mutual_tls_tells_a_client_without_a_certificate(certificates: Certificates) -> None:
    """The client reads TLS's own words for it, not a bare end of file."""
    said, told = await refused_handshake(Pair(certificates, mutual=True))
    assert said == "peer did not return a certificate"
    assert "CERTIFICATE_REQUIRED" in told


async def test_mutual_tls_refuses_a_stranger(certificates: Certificates) -> None:
    """A certificate of another authority is none."""
    stranger = trustme.CA().issue_cert("client")
    said, told = await refused_handshake(Pair(certificates, mutual=True, client_cert=stranger))
    assert said == "certificate verify failed"
    assert "UNKNOWN_CA" in told


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
async def test_tls_1_2_and_1_3_are_spoken(
    certificates: Certificates, version: ssl.TLSVersion
) -> None:
    """Both versions, to the goodbye."""
    pair = Pair(certificates)
    context = certificates.client_context()
    context.maximum_version = context.minimum_version = version
    pair.client = trio.SSLStream(pair.client_below, context, server_hostname="localhost")
    await pair.handshake()
    await pair.server.send_all(b"hello")
    await pair.server.send_eof()
    assert await receive_all(pair.client) == b"hello"


@pytest.mark.parametrize(
    ("sent", "said"),
    [
        (b"hello, is this plain text?\n", "wrong version number"),
        (b"GET / HTTP/1.1\r\nHost: x\r\n\r\n", "http request"),
        (b"\x16\x03\x01\x00\x05\x01\x00\x00\x01\x00", "length too short"),
    ],
    ids=["plain", "http", "malformed"],
)
async def test_a_client_that_is_not_tls_is_refused(
    certificates: Certificates, sent: bytes, said: str
) -> None:
    """Whatever it sends, it ends in one error with a reason."""
    pair = Pair(certificates)
    await pair.client_below.send_all(sent)
    await pair.client_below.send_eof()
    with pytest.raises(HandshakeError) as raised:
        await pair.server.handshake()
    assert str(raised.value) == said


@pytest.mark.parametrize("sent", [b"", b"\x16\x03"], ids=["silent", "amid its hello"])
async def test_a_client_that_leaves_first_is_no_failure(
    certificates: Certificates, sent: bytes
) -> None:
    """Health checks only look whether the port is open; that is an end of file like others."""
    pair = Pair(certificates)
    await pair.client_below.send_all(sent)
    await pair.client_below.send_eof()
    assert await pair.server.receive_some() == b""
    await pair.server.send_eof()
    await pair.below.aclose()


async def test_a_client_that_resets_has_broken_the_connection(certificates: Certificates) -> None:
    """As it would have without TLS."""
    (listener,) = await trio.open_tcp_listeners(0, host="127.0.0.1")
    client = await trio.open_tcp_stream(*listener.socket.getsockname())
    below = await listener.accept()
    await client.send_all(b"\x16\x03")
    client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    await client.aclose()
    async with listener, below:
        with pytest.raises(trio.BrokenResourceError):
            await TLSStream(below, server_context(certificates.config())).receive_some()


async def test_a_client_that_trickles_meets_a_deadline(
    certificates: Certificates, autojump_clock: trio.testing.MockClock
) -> None:
    """The deadline is for the whole handshake, not for each byte."""
    pair = Pair(certificates)
    started = autojump_clock.current_time()

    async def trickle() -> None:
        for byte in b"\x16\x03\x01\x40\x00" + bytes(1000):
            await pair.client_below.send_all(bytes([byte]))
            await trio.sleep(1)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(trickle)
        with pytest.raises(HandshakeError, match="no handshake within 10 s"):
            await pair.server.handshake()
        nursery.cancel_scope.cancel()
    assert autojump_clock.current_time() - started == pytest.approx(HANDSHAKE_TIMEOUT)
