"""TLS ports of a real server, beside a plain one, and clients good and bad."""

from __future__ import annotations

import ssl
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial
from itertools import pairwise
from typing import TYPE_CHECKING, TypeVar

import pytest
import serving
import trio
import trio.testing
import trustme
from certificates import Certificates
from hypothesis import given
from hypothesis import strategies as st
from logged import capture_logs

from trio_echo.framing import Framer, LineTooLongError, encode_prefix
from trio_echo.server.config import ServerConfig
from trio_echo.server.service import Server, serve

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

T = TypeVar("T")


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    """Made once: keys take a while."""
    return Certificates.issue(tmp_path_factory.mktemp("tls"))


@asynccontextmanager
async def running(
    certificates: Certificates, *, mutual: bool = False, max_line: int = 65_536
) -> AsyncIterator[Server]:
    """Run a server with a plain port and one with TLS; drain it at the end."""
    config = ServerConfig(
        ports=[0],
        prefix="one",
        hosts=["127.0.0.1"],
        max_line=max_line,
        tls=certificates.config(mutual=mutual),
    )
    async with trio.open_nursery() as nursery:
        server: Server = await nursery.start(serve, config)
        yield server
        server.drain()


@asynccontextmanager
async def connected(
    server: Server, context: ssl.SSLContext
) -> AsyncIterator[trio.SSLStream[trio.SocketStream]]:
    """Connect to the TLS port and shake hands; close without a goodbye at the end."""
    async with await trio.open_tcp_stream("127.0.0.1", server.ports[1]) as plain:
        stream = trio.SSLStream(plain, context, server_hostname="localhost")
        await stream.do_handshake()
        yield stream


async def receive_all(stream: trio.abc.ReceiveStream) -> bytes:
    """Receive to the end of file; of TLS, only a proper end is one."""
    received = b""
    while part := await stream.receive_some():
        received += part
    return received


async def receive(stream: trio.abc.ReceiveStream, count: int) -> bytes:
    """Receive a number of bytes."""
    received = b""
    while len(received) < count:
        part = await stream.receive_some()
        assert part, f"end of file after {received!r}"
        received += part
    return received


async def wait_until_closed(server: Server, reason: str) -> None:
    """Wait until a connection has ended, for this reason."""
    with trio.fail_after(20):
        while not any(server.metrics.ended.values()):
            await trio.testing.wait_all_tasks_blocked(0.01)
    ended = {reason: count for reason, count in server.metrics.ended.items() if count}
    assert ended == {reason: 1}


async def test_the_echo_over_tls(certificates: Certificates) -> None:
    """The same contract as without, and the counters see what TLS carries."""
    lines = b"".join(b"line %d\r\n" % number for number in range(2000))
    answers = b"".join(b"one line %d\r\n" % number for number in range(2000))
    context = certificates.client_context()
    async with running(certificates) as server:
        async with connected(server, context) as stream, trio.open_nursery() as nursery:
            nursery.start_soon(stream.send_all, lines)
            assert await receive(stream, len(answers)) == answers
        plain, tls = server.ports
        assert server.metrics.accepted == {(plain, False): 0, (tls, True): 1}
        assert server.metrics.lines == 2000
        assert server.metrics.received_bytes == len(lines)
        assert server.metrics.sent_bytes == len(answers)
        await wait_until_closed(server, "eof")


async def test_an_unterminated_rest_is_answered_at_the_end_of_file(
    certificates: Certificates,
) -> None:
    """A client that ends its side, here without a goodbye, reads on to a proper end."""
    async with running(certificates) as server:
        async with connected(server, certificates.client_context()) as stream:
            await stream.send_all(b"a\nrest")
            await stream.transport_stream.send_eof()
            assert await receive_all(stream) == b"one a\none rest"
        await wait_until_closed(server, "eof")


async def test_a_line_too_long_is_told_over_tls(certificates: Certificates) -> None:
    """The client reads the error line and then the end, while it is still sending."""
    async with running(certificates, max_line=100) as server:
        async with connected(server, certificates.client_context()) as stream:
            await stream.send_all(b"a\n" + bytes(200_000))
            assert await receive_all(stream) == b"one a\nerror: line longer than 100 bytes\n"
        await wait_until_closed(server, "line-too-long")


async def test_a_drain_says_goodbye(certificates: Certificates) -> None:
    """A quiet client reads a proper end, not a cut."""
    async with running(certificates) as server:
        async with connected(server, certificates.client_context()) as stream:
            await stream.send_all(b"a\n")
            assert await receive(stream, 6) == b"one a\n"
            server.drain()
            assert await receive_all(stream) == b""
        await wait_until_closed(server, "drain")


async def test_mutual_tls_serves_who_has_a_certificate(certificates: Certificates) -> None:
    """One of the authority that the server was given."""
    context = certificates.client_context(certificates.authority.issue_cert("client"))
    async with running(certificates, mutual=True) as server, connected(server, context) as stream:
        await stream.send_all(b"a\n")
        assert await receive(stream, 6) == b"one a\n"


@pytest.mark.parametrize(
    ("with_certificate", "said", "told"),
    [
        (False, "peer did not return a certificate", "CERTIFICATE_REQUIRED"),
        (True, "certificate verify failed", "UNKNOWN_CA"),
    ],
    ids=["none", "of another authority"],
)
async def test_mutual_tls_tells_others_why_not(
    certificates: Certificates, with_certificate: bool, said: str, told: str
) -> None:
    """The client by TLS's own words, the log by one warning."""
    stranger = trustme.CA().issue_cert("client") if with_certificate else None
    context = certificates.client_context(stranger)
    with capture_logs() as logs:
        async with running(certificates, mutual=True) as server:
            async with connected(server, context) as stream:
                await stream.send_all(b"a\n")  # a reset over this would destroy the alert
                with pytest.raises(trio.BrokenResourceError) as raised:
                    await stream.receive_some()
            assert told in str(raised.value.__cause__)
            await wait_until_closed(server, "tls")
    (warning,) = (entry for entry in logs if entry["log_level"] == "warning")
    assert warning["error"] == said


async def test_silent_clients_hold_up_nobody(certificates: Certificates) -> None:
    """Handshakes are outside the accept loop: the next client does not wait for them."""
    context = certificates.client_context()
    async with running(certificates) as server, AsyncExitStack() as silent:
        for number in range(50):
            client = await trio.open_tcp_stream("127.0.0.1", server.ports[1])
            await silent.enter_async_context(client)
            await client.send_all(b"\x16\x03\x01"[: number % 4])  # some are amid their hello
        with trio.fail_after(20):
            async with connected(server, context) as stream:
                await stream.send_all(b"a\n")
                assert await receive(stream, 6) == b"one a\n"


async def test_a_plain_client_on_a_tls_port(certificates: Certificates) -> None:
    """It gets no echo; its end is counted and told; and the plain port is as ever."""
    with capture_logs() as logs:
        async with running(certificates) as server:
            async with await trio.open_tcp_stream("127.0.0.1", server.ports[1]) as plain:
                await plain.send_all(b"hello in plain text\n" * 5000)
                assert await receive_all(plain) == b""  # an end of file, not a reset
            await wait_until_closed(server, "tls")
            async with await trio.open_tcp_stream("127.0.0.1", server.ports[0]) as stream:
                await stream.send_all(b"a\n")
                assert await receive(stream, 6) == b"one a\n"
    (warning,) = (entry for entry in logs if entry["log_level"] == "warning")
    assert warning["error"] == "wrong version number"
    assert warning["peer"].startswith("127.0.0.1:")


class RecordClient:
    """A client of TLS whose records and segments a test cuts as it likes."""

    def __init__(self, plain: trio.SocketStream, context: ssl.SSLContext) -> None:
        self._plain = plain
        self._incoming, self._outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self._tls = context.wrap_bio(self._incoming, self._outgoing, server_hostname="localhost")

    async def shake_hands(self) -> None:
        """Agree on keys."""
        await self._step(self._tls.do_handshake)
        await self._plain.send_all(self._outgoing.read())

    async def send(self, records: list[bytes], cuts: list[int]) -> None:
        """Send each part as records of its own, cut into segments at places; then the end."""
        for part in filter(None, records):
            self._tls.write(part)
        stream = self._outgoing.read()
        places = sorted({0, len(stream), *(cut for cut in cuts if cut < len(stream))})
        for start, end in pairwise(places):
            await self._plain.send_all(stream[start:end])
            await trio.testing.wait_all_tasks_blocked()
        await self._plain.send_eof()

    async def receive_all(self) -> bytes:
        """Receive to the proper end."""
        read = b""
        while part := await self._step(partial(self._tls.read, 65_536)):
            read += part
        return read

    async def _step(self, call: Callable[[], T]) -> T:
        """Call with all the input that it needs."""
        while True:
            try:
                return call()
            except ssl.SSLWantReadError:
                if answer := self._outgoing.read():
                    await self._plain.send_all(answer)
                self._incoming.write(await self._plain.receive_some())


@given(
    records=st.lists(
        st.lists(st.sampled_from([b"\n", b"a", b"\r", b"\0\xff", b"b" * 90, b"c" * 17_000])).map(
            b"".join
        ),
        max_size=6,
    ),
    cuts=st.lists(st.integers(min_value=0, max_value=60_000), max_size=8),
)
async def test_how_it_is_cut_into_records_and_segments_changes_nothing(
    certificates: Certificates, records: list[bytes], cuts: list[int]
) -> None:
    """The answer is a function of the bytes, the line limit included."""
    framer = Framer(encode_prefix("one"), 16_000)
    try:
        expected = framer.feed(b"".join(records)) + framer.end()
    except LineTooLongError as error:
        expected = error.answer
    settings = {"tls": certificates.config(), "max_line": 16_000}
    async with serving.running(**settings) as server, serving.connected(server, port=1) as (plain,):
        client = RecordClient(plain, certificates.client_context())
        await client.shake_hands()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(client.send, records, cuts)
            assert await client.receive_all() == expected
