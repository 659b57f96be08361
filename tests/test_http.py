"""The HTTP front answers probes, scrapers and webhooks, and outlasts every kind of bad client."""

from __future__ import annotations

import errno
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import h11
import pytest
import trio
import trio.testing
from hypothesis import example, given
from hypothesis import strategies as st
from logged import capture_logs

from trio_echo.http import (
    MAX_BODY,
    MAX_CLIENTS,
    MAX_HEAD,
    Front,
    Page,
    Request,
    Response,
    json_response,
)

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from trio.testing import MemoryReceiveStream, MemorySendStream, MockClock

    MemoryStream = trio.StapledStream[MemorySendStream, MemoryReceiveStream]


class Client:
    """An HTTP client over memory, for one connection."""

    def __init__(self, stream: MemoryStream) -> None:
        self.stream = stream
        self.http = h11.Connection(h11.CLIENT)

    async def send(self, raw: bytes) -> None:
        """Send bytes as they are."""
        await self.stream.send_all(raw)

    async def ask(
        self, target: str, *, method: str = "GET", headers: tuple[tuple[str, str], ...] = ()
    ) -> tuple[h11.Response, bytes]:
        """Send a request and return its response and page."""
        if self.http.our_state is h11.DONE:
            self.http.start_next_cycle()
        request = h11.Request(method=method, target=target, headers=[("Host", "x"), *headers])
        raw = self.http.send(request)
        end = self.http.send(h11.EndOfMessage())
        assert raw is not None
        assert end is not None
        await self.send(raw + end)
        return await self.response()

    async def response(self) -> tuple[h11.Response, bytes]:
        """Receive one response."""
        response, page = None, b""
        while True:
            event = self.http.next_event()
            if event is h11.NEED_DATA:
                self.http.receive_data(bytes(await self.stream.receive_some()))
            elif isinstance(event, h11.Response):
                response = event
            elif isinstance(event, h11.Data):
                page += event.data
            else:
                assert isinstance(event, h11.EndOfMessage)
                assert response is not None
                return response, page

    async def rest(self) -> bytes:
        """Receive all there is, to the end of file."""
        received = b""
        while part := await self.stream.receive_some():
            received += part
        return received


class Pages:
    """A front with some pages, to connect to.

    Attributes:
        requests: what the pages were asked.
        gate: holds up the answers of ``/slow`` and ``/given-up`` until it is set.
        given_up: how often ``/given-up`` was cancelled.
    """

    def __init__(self, nursery: trio.Nursery) -> None:
        self.requests: list[Request] = []
        self.gate = trio.Event()
        self.given_up = 0
        self._nursery = nursery
        self.front = Front(
            {
                "/livez": Page(self._livez),
                "/metrics": Page(self._livez),
                "/json": Page(self._json, methods=("POST",)),
                "/slow": Page(self._slow, methods=("GET", "POST")),
                "/given-up": Page(self._given_up, cancel=True),
                "/broken": Page(self._broken),
                "/unsendable": Page(self._unsendable),
            },
            "test",
        )

    async def _livez(self, request: Request) -> Response:
        self.requests.append(request)
        return Response(200, b"alive\n")

    async def _json(self, request: Request) -> Response:
        self.requests.append(request)
        return json_response(200, {"read": len(request.body)})

    async def _slow(self, _: Request) -> Response:
        await self.gate.wait()
        return Response(200, b"at last\n")

    async def _given_up(self, _: Request) -> Response:
        try:
            await self.gate.wait()
        except trio.Cancelled:
            self.given_up += 1
            raise
        return Response(200, b"still there\n")

    async def _broken(self, _: Request) -> Response:
        raise RuntimeError("broken")

    async def _unsendable(self, _: Request) -> Response:
        return Response(200, b"", {"Not": "a\nheader"})

    def connect(self) -> Client:
        """Open a connection."""
        ours, theirs = trio.testing.memory_stream_pair()
        self._nursery.start_soon(self.front.handle, theirs)
        return Client(ours)


@asynccontextmanager
async def running() -> AsyncIterator[Pages]:
    """Run a front; at the end every connection must be over, one way or another."""
    async with trio.open_nursery() as nursery:
        yield Pages(nursery)
        nursery.cancel_scope.cancel()


def header(response: h11.Response, name: str) -> str | None:
    """Return a header's value."""
    return dict(response.headers).get(name.lower().encode(), b"").decode() or None


async def test_a_page_is_told_all_of_the_request() -> None:
    """Path, query and headers, each in one spelling."""
    async with running() as pages:
        response, page = await pages.connect().ask(
            "/livez?target=a%3A1&expect=one:80,two:20&empty=&empty=b",
            headers=(("X-Scrape", "1.5"), ("Accept", "a"), ("accept", "b")),
        )
        assert (response.status_code, page) == (200, b"alive\n")
        assert header(response, "Content-Type") == "text/plain; charset=utf-8"
        assert header(response, "Cache-Control") == "no-store"
        (request,) = pages.requests
        assert (request.method, request.path) == ("GET", "/livez")
        assert request.query == {"target": "a:1", "expect": "one:80,two:20", "empty": ",b"}
        assert request.headers == {"host": "x", "x-scrape": "1.5", "accept": "a,b"}


@pytest.mark.parametrize("size", [0, 1, MAX_BODY])
@pytest.mark.parametrize("chunked", [True, False])
async def test_the_body_of_a_post(size: int, chunked: bool) -> None:
    """Whole, in either coding, however it is cut; and the connection can be used on."""
    async with running() as pages:
        client = pages.connect()
        for _ in range(2):
            if chunked:
                coding = b"Transfer-Encoding: chunked"
                parts = [b"1\r\nx\r\n"] * min(size, 1)
                parts += [b"%x\r\n" % (size - 1) + b"x" * (size - 1) + b"\r\n"] * (size > 1)
                parts += [b"0\r\n\r\n"]
            else:
                coding, parts = b"Content-Length: %d" % size, [b"x" * size]
            head = b"POST /json HTTP/1.1\r\nHost: x\r\n" + coding + b"\r\n\r\n"
            await client.send(head)
            for part in parts:
                await trio.testing.wait_all_tasks_blocked()
                await client.send(part)
            client.http = h11.Connection(h11.CLIENT)
            client.http.send(h11.Request(method="POST", target="/json", headers=[("Host", "x")]))
            response, page = await client.response()
            assert header(response, "Content-Type") == "application/json"
            assert (response.status_code, page) == (200, b'{"read": %d}\n' % size)
            assert len(pages.requests.pop().body) == size


async def test_a_body_that_waits_to_be_asked_for() -> None:
    """It is asked for, as curl wants it for large ones."""
    async with running() as pages:
        client = pages.connect()
        await client.send(
            b"POST /json HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\nContent-Length: 4\r\n\r\n"
        )
        await trio.testing.wait_all_tasks_blocked()
        assert await client.stream.receive_some() == b"HTTP/1.1 100 \r\n\r\n"
        await client.send(b"body")
        assert b'{"read": 4}' in await client.stream.receive_some()


async def test_a_body_that_is_too_long_is_refused() -> None:
    """Without being kept."""
    async with running() as pages:
        client = pages.connect()
        size = MAX_BODY + 1
        await client.send(
            b"POST /json HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n" % size + b"x" * size
        )
        assert (await client.rest()).startswith(b"HTTP/1.1 413 ")


@pytest.mark.parametrize("target", ["/livez", "/metrics", "/nothing"])
async def test_head_is_get_without_the_page(target: str) -> None:
    """The same status and headers, and the connection can be used on."""
    async with running() as pages:
        client = pages.connect()
        got, page = await client.ask(target)
        head, nothing = await client.ask(target, method="HEAD")
        assert nothing == b""
        assert head.status_code == got.status_code
        assert header(head, "Content-Length") == str(len(page))


@pytest.mark.parametrize(
    "target", ["/", "/livez/", "/healthz", "*", "/%6civez", "/livez#x", "x:443", "http://x"]
)
async def test_another_page_is_not_found(target: str) -> None:
    """The answer says which there are."""
    async with running() as pages:
        response, page = await pages.connect().ask(target)
        assert response.status_code == 404
        assert b"there are /livez, /metrics, /json" in page


async def test_the_absolute_form_of_a_target() -> None:
    """A server must accept it, as a proxy may send it (RFC 9112, 3.2.2)."""
    async with running() as pages:
        response, _ = await pages.connect().ask("http://x:9001/livez?a")
        assert response.status_code == 200


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "OPTIONS", "PATCH", "BREW"])
async def test_only_what_a_page_is_for_is_allowed(method: str) -> None:
    """And the answer says what that is."""
    async with running() as pages:
        client = pages.connect()
        response, _ = await client.ask("/metrics", method=method)
        assert response.status_code == 405
        assert header(response, "Allow") == "GET, HEAD"
        response, _ = await client.ask("/json")
        assert response.status_code == 405
        assert header(response, "Allow") == "POST"


async def test_the_body_of_no_post_is_not_read() -> None:
    """It is answered at once, and the connection ends after it."""
    async with running() as pages:
        client = pages.connect()
        await client.send(b"PUT /livez HTTP/1.1\r\nHost: x\r\nContent-Length: 999999\r\n\r\nbody")
        answer = await client.rest()
        assert answer.startswith(b"HTTP/1.1 405 Method Not Allowed\r\n")
        assert b"\r\nconnection: close\r\n" in answer.lower()


async def test_http_1_0_gets_an_answer_and_an_end(autojump_clock: MockClock) -> None:
    """No headers are needed, so that it can be typed by hand; the end comes at once."""
    async with running() as pages:
        client = pages.connect()
        await client.send(b"GET /livez HTTP/1.0\r\n\r\n")
        answer = await client.rest()
        assert autojump_clock.current_time() == 0
        assert answer.startswith(b"HTTP/1.1 200 OK\r\n")
        assert answer.endswith(b"\r\n\r\nalive\n")


async def test_pipelined_requests_are_answered_in_order() -> None:
    """Also when the client ends its side after them."""
    async with running() as pages:
        client = pages.connect()
        ask = b"GET /%s HTTP/1.1\r\nHost: x\r\n\r\n"
        await client.send(ask % b"livez" + ask % b"json" + ask % b"nothing")
        await client.stream.send_eof()
        answer = await client.rest()
        pages_in_order = [answer.index(page) for page in (b"alive", b"only POST", b"no such page")]
        assert pages_in_order == sorted(pages_in_order)
        assert answer.count(b"HTTP/1.1 ") == 3


@pytest.mark.parametrize(
    ("raw", "status"),
    [
        (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n", b"400 Bad Request"),
        (b"world\r\n\r\n", b"400 Bad Request"),
        (b"GET /livez HTTP/1.1\r\n\r\n", b"400 Bad Request"),
        (b"GET /livez HTTP/1.1\r\nHost: x\r\nbad header\r\n\r\n", b"400 Bad Request"),
        (
            b"GET /livez HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: gzip\r\n\r\n",
            b"501 Not Implemented",
        ),
        (b"GET /" + b"x" * 20_000, b"431 Request Header Fields Too Large"),
        (b"GET / HTTP/1.1\r\n" + b"A: b\r\n" * 4_000, b"431 Request Header Fields Too Large"),
    ],
    ids=["tls", "line", "no host", "bad header", "encoding", "long target", "many headers"],
)
async def test_garbage_is_refused_and_the_connection_ends(raw: bytes, status: bytes) -> None:
    """With a status that says what is wrong; the next client is served."""
    async with running() as pages:
        client = pages.connect()
        await client.send(raw)
        answer = await client.rest()
        assert answer.startswith(b"HTTP/1.1 " + status + b"\r\n")
        response, _ = await pages.connect().ask("/livez")
        assert response.status_code == 200


@given(
    st.lists(
        st.binary(max_size=60)
        | st.sampled_from(
            [b"GET /metrics HTTP/1.1\r\n", b"Host: x\r\n", b"Upgrade: h2c\r\n", b"\r\n", b"\n"]
        ),
        max_size=12,
    )
)
@example([b"CONNECT /livez HTTP/1.1\r\nHost: x\r\n\r\nnow something else"])
@example([b"GET /livez HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nzz"])
@example([b"GET /livez HTTP/1.1\r\nHost: x\r\nConnection: upgrade\r\nUpgrade: h2c\r\n\r\nPRI"])
def test_whatever_is_sent_ends_without_an_exception(parts: list[bytes]) -> None:
    """Answered or refused, the conversation ends, and nothing goes to the log."""

    async def converse() -> None:
        async with trio.open_nursery() as nursery:
            client = Pages(nursery).connect()
            for part in parts:
                await client.send(part)
            await client.stream.send_eof()
            answer = await client.rest()
            assert answer == b"" or answer.startswith(b"HTTP/1.1 ")

    with capture_logs() as logs:
        trio.run(converse)
    assert logs == []


async def test_a_request_that_trickles_meets_a_deadline(autojump_clock: MockClock) -> None:
    """A byte a second does not keep a place."""
    async with running() as pages:
        client = pages.connect()

        async def trickle() -> None:
            for byte in b"GET /livez HTTP/1.1\r\nHost: x\r\n\r\n":
                await client.send(bytes([byte]))
                await trio.sleep(1)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(trickle)
            started = autojump_clock.current_time()
            answer = await client.rest()
            assert autojump_clock.current_time() - started < 7
            assert answer.startswith(b"HTTP/1.1 408 Request Timeout\r\n")
            nursery.cancel_scope.cancel()


async def test_a_silent_client_is_let_go(autojump_clock: MockClock) -> None:
    """After a time that is longer than a scrape interval."""
    async with running() as pages:
        client = pages.connect()
        await trio.sleep(60)
        response, _ = await client.ask("/livez")
        assert response.status_code == 200
        started = autojump_clock.current_time()
        assert await client.rest() == b""
        assert 60 < autojump_clock.current_time() - started < 120


async def test_a_client_that_does_not_read_is_let_go(autojump_clock: MockClock) -> None:
    """It cannot hold the page it asked for in memory for long."""
    ours, theirs = trio.testing.lockstep_stream_pair()
    started = autojump_clock.current_time()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(Pages(nursery).front.handle, theirs)
        await ours.send_all(b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n")
    assert autojump_clock.current_time() - started < 10


async def test_a_client_that_leaves_before_its_answer() -> None:
    """Nobody is there to be told, and it is worth no log."""
    ours, theirs = trio.testing.memory_stream_pair()
    await ours.send_all(b"GET /livez HTTP/1.1\r\nHost: x\r\n\r\n")
    await ours.aclose()
    with capture_logs() as logs:
        async with trio.open_nursery() as nursery:
            await Pages(nursery).front.handle(theirs)
    assert logs == []


async def test_a_stream_that_cannot_be_half_closed(autojump_clock: MockClock) -> None:
    """Any stream will do; this one is closed after the client had its time to read."""
    to_server, from_client = trio.testing.memory_stream_one_way_pair()
    to_client, from_server = trio.testing.memory_stream_one_way_pair()

    class Whole(trio.abc.Stream):
        """A stream without send_eof."""

        async def send_all(self, data: bytes | bytearray | memoryview) -> None:
            await to_client.send_all(data)

        async def wait_send_all_might_not_block(self) -> None:
            raise NotImplementedError

        async def receive_some(self, max_bytes: int | None = None) -> bytes | bytearray:
            return await from_client.receive_some(max_bytes)

        async def aclose(self) -> None:
            await to_client.aclose()

    await to_server.send_all(b"GET /livez HTTP/1.0\r\n\r\n")
    started = autojump_clock.current_time()
    async with trio.open_nursery() as nursery:
        await Pages(nursery).front.handle(Whole())
    assert autojump_clock.current_time() - started < 2
    assert (await from_server.receive_some()).endswith(b"alive\n")


async def test_idle_connections_do_not_lock_out_probes() -> None:
    """The one that has been quiet for longest goes, not the newcomer."""
    async with running() as pages:
        scraper = pages.connect()
        await scraper.ask("/metrics")
        idle = []
        for _ in range(15):
            idle.append(pages.connect())
            await trio.testing.wait_all_tasks_blocked()  # tasks start in no certain order
        await scraper.ask("/metrics")  # heard of again: now idle[0] is the eldest
        response, _ = await pages.connect().ask("/livez")
        assert response.status_code == 200
        assert await idle[0].rest() == b""
        for client in [scraper, *idle[1:]]:
            response, _ = await client.ask("/livez")
            assert response.status_code == 200


async def test_a_fault_of_a_page_is_told_and_logged() -> None:
    """The client reads a 500, and may go on."""
    async with running() as pages:
        client = pages.connect()
        with capture_logs() as logs:
            response, _ = await client.ask("/broken")
        assert response.status_code == 500
        response, _ = await client.ask("/livez")
        assert response.status_code == 200
    assert [(entry["event"], entry["log_level"]) for entry in logs] == [("a page failed", "error")]


async def test_an_answer_that_is_no_http_ends_one_connection_and_is_logged() -> None:
    """Never the program."""
    async with running() as pages:
        client = pages.connect()
        with capture_logs() as logs:
            await client.send(b"GET /unsendable HTTP/1.1\r\nHost: x\r\n\r\n")
            assert await client.rest() == b""
    assert [entry["event"] for entry in logs] == ["an answer failed"]


async def test_who_is_being_answered_keeps_the_place() -> None:
    """Newcomers are refused when nobody is idle, and served again after that."""
    async with running() as pages:
        waiting = [pages.connect() for _ in range(MAX_CLIENTS)]
        for client in waiting:
            await client.send(b"GET /slow HTTP/1.1\r\nHost: x\r\n\r\n")
        await trio.testing.wait_all_tasks_blocked()
        refused = await pages.connect().rest()
        assert refused.startswith(b"HTTP/1.1 503 ")
        pages.gate.set()
        for client in waiting:
            assert (await client.stream.receive_some()).endswith(b"at last\n")
        response, _ = await pages.connect().ask("/livez")
        assert response.status_code == 200


@pytest.mark.parametrize("more", [b"", b"\r\n", b"GET /livez HTTP/1.1\r\nHost: x\r\n\r\n"])
async def test_an_answer_that_nobody_waits_for_is_cancelled(more: bytes) -> None:
    """At once, and nothing is logged. tests/monitor/test_gate.py has sockets that reset."""
    async with running() as pages:
        client = pages.connect()
        await client.send(b"GET /given-up HTTP/1.1\r\nHost: x\r\n\r\n")
        await trio.testing.wait_all_tasks_blocked()
        for byte in more:
            await client.send(bytes([byte]))
            await trio.testing.wait_all_tasks_blocked()
        with capture_logs() as logs:
            await client.stream.aclose()
            await trio.testing.wait_all_tasks_blocked()
        assert pages.given_up == 1
        assert logs == []


async def test_nobody_looks_behind_more_than_a_head() -> None:
    """What comes meanwhile is kept, so it is bounded; its client may then leave unseen."""
    async with running() as pages:
        client = pages.connect()
        await client.send(b"GET /given-up HTTP/1.1\r\nHost: x\r\n\r\n")
        await trio.testing.wait_all_tasks_blocked()
        await client.send(b"x" * MAX_HEAD)
        await trio.testing.wait_all_tasks_blocked()
        await client.stream.aclose()
        await trio.testing.wait_all_tasks_blocked()
        assert pages.given_up == 0


async def test_a_client_that_waits_keeps_its_answer_and_its_connection() -> None:
    """Also one that sends the next request meanwhile."""
    async with running() as pages:
        client = pages.connect()
        await client.send(b"GET /given-up HTTP/1.1\r\nHost: x\r\n\r\n")
        await trio.testing.wait_all_tasks_blocked()
        await client.send(b"GET /livez HTTP/1.1\r\nHost: x\r\n\r\n")
        await trio.testing.wait_all_tasks_blocked()
        pages.gate.set()
        assert (await client.stream.receive_some()).endswith(b"still there\n")
        assert (await client.stream.receive_some()).endswith(b"alive\n")
        response, _ = await client.ask("/given-up")
        assert response.status_code == 200
        assert pages.given_up == 0


async def test_what_is_owed_can_be_waited_for() -> None:
    """Until the answer is with its client."""
    async with running() as pages, trio.open_nursery() as nursery:
        await pages.front.settled()
        client = pages.connect()
        await client.send(b"GET /slow HTTP/1.1\r\nHost: x\r\n\r\n")
        await trio.testing.wait_all_tasks_blocked()
        settled = trio.Event()

        async def settle() -> None:
            await pages.front.settled()
            settled.set()

        nursery.start_soon(settle)
        await trio.testing.wait_all_tasks_blocked()
        assert not settled.is_set()
        pages.gate.set()
        await trio.testing.wait_all_tasks_blocked()
        assert settled.is_set()
        assert (await client.stream.receive_some()).endswith(b"at last\n")


async def test_a_lack_of_descriptors_is_waited_out(autojump_clock: MockClock) -> None:
    """It is told once, not at every try, and the next client is served."""
    ours, theirs = trio.testing.memory_stream_pair()
    lacking = [OSError(errno.EMFILE, "too many")] * 20

    class Listener(trio.abc.Listener[trio.abc.Stream]):
        """A listener without descriptors, for a while."""

        async def accept(self) -> trio.abc.Stream:
            await trio.lowlevel.checkpoint()
            if lacking:
                raise lacking.pop()
            if not served.is_set():
                served.set()
                return theirs
            return await trio.sleep_forever()

        async def aclose(self) -> None:
            raise NotImplementedError

    served = trio.Event()
    with capture_logs() as logs:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(Pages(nursery).front.serve, [Listener()])
            response, _ = await Client(ours).ask("/livez")
            assert response.status_code == 200
            assert 1 < autojump_clock.current_time() < 4
            nursery.cancel_scope.cancel()
    assert [(entry["event"], entry["error"]) for entry in logs] == [
        ("cannot accept for now", "Too many open files")
    ]
