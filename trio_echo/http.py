"""A small HTTP/1.1 front over h11: pages and JSON for probes, scrapers, webhooks and people.

A `Front` is given its pages, and answers ``GET``, ``HEAD`` and, where a page
says so, ``POST`` with a body. It is for a handful of clients on a port beside
the real work, and outlasts bad ones: heads, bodies, clients and times are
bounded, so nobody holds a place for long without using it.

Import it where it is used only: h11 takes a tenth of a second.
"""

from __future__ import annotations

import json
import os
import re
from contextlib import suppress
from dataclasses import dataclass, field
from email.utils import formatdate
from http import HTTPStatus
from typing import TYPE_CHECKING, Final
from urllib.parse import parse_qsl

import h11
import trio

from trio_echo.log import Log
from trio_echo.text import format_address

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable, Mapping

__all__ = ["Front", "Page", "Request", "Response", "json_response"]

_log = Log()

MAX_HEAD: Final = 16 * 1024
"""Bytes of request line and headers. Prometheus and kubelet send a few hundred;
a browser with a jar full of cookies for localhost sends some thousands."""

MAX_BODY: Final = 64 * 1024
"""Bytes of a request's body. A webhook's are some hundreds."""

MAX_CLIENTS: Final = 16
"""Connections held at once. A node's kubelet and two scrapers hold three."""

_IDLE_TIMEOUT: Final = 90.0
"""Seconds a client may keep its connection between requests: longer than the
usual longest scrape interval, a minute, so that scrapers reuse theirs."""

_REQUEST_TIMEOUT: Final = 5.0
"""Seconds from a request's first byte to the end of its head, however slowly it
trickles, again for its body, and again for the client to take the answer."""

_BACK_OFF: Final = 0.1
"""Seconds to wait when the system has no descriptor for one more connection."""

_LINGER: Final = 1.0
"""Seconds, at the end, for the client to read and close first."""

_TARGET: Final = re.compile(r"(?:http://[^/?#]*)?(/[^?#]*)(?:[?]([^#]*))?")
"""The path and the query of a request target, in origin form or absolute form
(RFC 9112, 3.2)."""


@dataclass(frozen=True, slots=True)
class Request:
    """A request, received whole.

    Attributes:
        method: ``GET``, which stands for ``HEAD`` too, or ``POST``.
        path: as it was sent, percent signs and all.
        query: what follows the question mark.
        headers: by name in lower case.
        body: empty without one.
        peer: where it comes from, as HOST:PORT; empty where that is no socket.

    The values of a name that is there twice are joined by commas.
    """

    method: str
    path: str
    query: Mapping[str, str] = field(default_factory=dict)
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes = b""
    peer: str = ""


@dataclass(frozen=True, slots=True)
class Response:
    """An answer.

    Attributes:
        status: the status code.
        body: the whole of it; text unless `headers` have a ``Content-Type``.
        headers: beside those that every answer has.
    """

    status: int
    body: bytes
    headers: Mapping[str, str] = field(default_factory=dict)


def json_response(status: int, value: object) -> Response:
    """Answer with JSON, one line."""
    body = json.dumps(value, allow_nan=False).encode() + b"\n"
    return Response(status, body, {"Content-Type": "application/json"})


@dataclass(frozen=True, slots=True)
class Page:
    """What answers the requests for one path.

    Attributes:
        answer: called for each request. While it runs, the client keeps its
            place, so it bounds its own time. If it raises, the client gets a
            500 and the log an error.
        methods: those it answers; ``HEAD`` comes with ``GET``.
        cancel: cancel `answer` when its client goes away. A client that ends its side
            of the connection and still reads is taken for one that went: nothing tells
            the two apart, and no HTTP client in use does the first.
    """

    answer: Callable[[Request], Awaitable[Response]]
    methods: tuple[str, ...] = ("GET",)
    cancel: bool = False


class Front:
    """Answers for a number of pages.

    Args:
        pages: by path.
        name: of this port, for the log: ``admin``.
        clients: connections held at once.
    """

    def __init__(self, pages: Mapping[str, Page], name: str, *, clients: int = MAX_CLIENTS) -> None:
        self._pages = pages
        self._name = name
        self._clients = clients
        self._busy = 0
        self._owed = 0
        self._paid = trio.lowlevel.ParkingLot()
        # Those that are not being answered; the one quiet for longest is first.
        self._idle: dict[_Client, None] = {}

    async def serve(self, listeners: Iterable[trio.abc.Listener[trio.abc.Stream]]) -> None:
        """Serve the clients of these listeners until cancelled."""
        async with trio.open_nursery() as nursery:
            for listener in listeners:
                nursery.start_soon(self._accept, listener, nursery)

    async def _accept(
        self, listener: trio.abc.Listener[trio.abc.Stream], nursery: trio.Nursery
    ) -> None:
        """Accept clients until cancelled, also through a lack of descriptors.

        `trio.serve_listeners` does too, but reports each try, ten a second.
        """
        told = False
        while True:
            try:
                stream = await listener.accept()
            except OSError as error:
                if not told:
                    told = True
                    reason = os.strerror(error.errno or 0)
                    _log.warning("cannot accept for now", port=self._name, error=reason)
                await trio.sleep(_BACK_OFF)
            else:
                told = False
                nursery.start_soon(self.handle, stream)

    async def settled(self) -> None:
        """Wait until every request that has come is answered."""
        while self._owed:
            await self._paid.park()

    async def handle(self, stream: trio.abc.Stream) -> None:
        """Answer one client's requests until it is done, then close the stream.

        Whatever the client does, this returns within a bounded time of its
        last request and raises nothing but `trio.Cancelled`; the stream is
        closed then, too.

        When more clients come than may be held, the one that has been quiet
        for longest is cut: idle connections, left or held open on purpose, can't
        lock out the probes that decide over the life of the server. If all are
        being answered, the new one gets a 503.
        """
        client = _Client(stream)
        full = self._busy + len(self._idle) >= self._clients
        if full and self._idle:
            eldest = next(iter(self._idle))
            del self._idle[eldest]
            eldest.scope.cancel()
        self._idle[client] = None
        try:
            with client.scope:
                if full and self._busy >= self._clients:
                    await client.respond(Response(503, b"too many clients\n"))
                    await client.end()
                else:
                    await self._converse(client)
        except (trio.BrokenResourceError, trio.ClosedResourceError, trio.TooSlowError):
            pass  # the client left, or does not read: nobody is there to be told
        except Exception:  # noqa: BLE001 - logged, and the end of this connection only
            _log.exception("an answer failed", port=self._name)
        finally:
            self._idle.pop(client, None)
            await trio.aclose_forcefully(stream)

    async def _converse(self, client: _Client) -> None:
        """Answer requests one after another, and end the conversation politely."""
        try:
            while (request := await client.next_request()) is not None:
                self._owed += 1
                try:
                    await client.respond(await self._answer_one(client, request))
                finally:
                    self._owed -= 1
                    self._paid.unpark_all()
                if not client.start_next():
                    break
        except h11.RemoteProtocolError as error:
            await client.respond(Response(error.error_status_hint, f"{error}\n".encode()))
        await client.end()

    async def _answer_one(self, client: _Client, request: Request) -> Response:
        """Have a request answered; meanwhile its client keeps its place.

        Raises:
            trio.BrokenResourceError: the client went away, which cancelled the answer.
        """
        del self._idle[client]
        self._busy += 1
        try:
            page = self._pages.get(request.path)
            if page is None or not page.cancel:
                return await self._answer(page, request)
            response: Response | None = None
            async with trio.open_nursery() as nursery:
                nursery.start_soon(client.cancel_when_gone, nursery.cancel_scope)
                response = await self._answer(page, request)
                nursery.cancel_scope.cancel()
            if response is None:
                raise trio.BrokenResourceError
            return response
        finally:
            self._busy -= 1
            self._idle[client] = None  # the last one heard of goes last

    async def _answer(self, page: Page | None, request: Request) -> Response:
        """Have the page answer, if there is one."""
        if page is None:
            known = ", ".join(self._pages)
            return Response(404, f"no such page; there are {known}\n".encode())
        if request.method not in page.methods:
            allowed = [*page.methods, *(["HEAD"] if "GET" in page.methods else [])]
            told = f"only {' and '.join(allowed)}\n".encode()
            return Response(405, told, {"Allow": ", ".join(allowed)})
        try:
            return await page.answer(request)
        except Exception:  # noqa: BLE001 - logged, and the end of this request only
            _log.exception("a page failed", port=self._name, path=request.path)
            return Response(500, b"a fault of this program; its log tells\n")


class _Client:
    """One HTTP conversation: h11's state and the stream under it."""

    def __init__(self, stream: trio.abc.Stream) -> None:
        self._stream = stream
        self._http = h11.Connection(h11.SERVER, max_incomplete_event_size=MAX_HEAD)
        self._head = False
        self.scope = trio.CancelScope()

    async def next_request(self) -> Request | None:
        """Receive the next request with its body; None when the client has no more.

        Raises:
            h11.RemoteProtocolError: this is not HTTP, or it is too long or too
                slow; its ``error_status_hint`` is the status to answer with.
        """
        begun = False
        with trio.move_on_after(_IDLE_TIMEOUT) as scope:
            while (event := self._http.next_event()) is h11.NEED_DATA:
                if not begun and self._http.trailing_data[0]:
                    begun = True
                    scope.relative_deadline = _REQUEST_TIMEOUT
                await self._receive()
            if not isinstance(event, h11.Request):
                return None
            begun = True
            scope.relative_deadline = _REQUEST_TIMEOUT
            return self._request(event, await self._body(event))
        if begun:
            raise h11.RemoteProtocolError("request too slow", error_status_hint=408)
        return None

    async def _body(self, request: h11.Request) -> bytes:
        """Receive the body of a POST.

        Any other request's is not read; h11 then says that the connection
        closes after the answer.
        """
        body = bytearray()
        while True:
            event = self._http.next_event()
            if event is h11.NEED_DATA:
                if request.method != b"POST":
                    return b""
                if self._http.they_are_waiting_for_100_continue:
                    told = h11.InformationalResponse(status_code=100, headers=[])
                    await self._stream.send_all(self._http.send(told) or b"")
                await self._receive()
            elif isinstance(event, h11.Data):
                body += event.data
                if len(body) > MAX_BODY:
                    message = f"a body of more than {MAX_BODY} bytes"
                    raise h11.RemoteProtocolError(message, error_status_hint=413)
            else:
                return bytes(body)

    def _request(self, request: h11.Request, body: bytes) -> Request:
        """Put a request in this module's words."""
        self._head = request.method == b"HEAD"
        match = _TARGET.fullmatch(request.target.decode("latin-1"))
        path, query = match.groups("") if match else ("", "")
        return Request(
            method="GET" if self._head else request.method.decode("latin-1"),
            path=path,
            query=_joined(parse_qsl(query, keep_blank_values=True)),
            headers=_joined(
                (name.decode("latin-1"), value.decode("latin-1")) for name, value in request.headers
            ),
            body=body,
            peer=self._peer(),
        )

    def _peer(self) -> str:
        """The address of the other end."""
        if isinstance(self._stream, trio.SocketStream):
            with suppress(OSError):  # it has gone
                host, port, *_ = self._stream.socket.getpeername()
                return format_address(host, port)
        return ""

    async def _receive(self) -> None:
        """Give h11 what comes next."""
        self._http.receive_data(bytes(await self._stream.receive_some(MAX_HEAD)))

    async def cancel_when_gone(self, scope: trio.CancelScope) -> None:
        """Cancel the scope once the client has gone.

        What comes meanwhile is kept for the next request. Nobody looks behind more of it
        than a head may have.
        """
        room = MAX_HEAD
        while room:
            try:
                data = bytes(await self._stream.receive_some(room))
            except (trio.BrokenResourceError, trio.ClosedResourceError):
                data = b""
            if not data:
                scope.cancel()
                return
            self._http.receive_data(data)
            room -= len(data)

    async def respond(self, response: Response) -> None:
        """Send a whole response.

        Raises:
            trio.TooSlowError: the client does not take it.
        """
        headers = {
            "Date": formatdate(usegmt=True),
            "Cache-Control": "no-store",
            "Content-Type": "text/plain; charset=utf-8",
            "Content-Length": str(len(response.body)),
        } | dict(response.headers)
        if self._http.their_state is not h11.DONE:
            headers["Connection"] = "close"
        status = response.status
        start = h11.Response(
            status_code=status, reason=HTTPStatus(status).phrase, headers=list(headers.items())
        )
        parts = [start, *([] if self._head else [h11.Data(response.body)]), h11.EndOfMessage()]
        with trio.fail_after(_REQUEST_TIMEOUT):
            await self._stream.send_all(b"".join(self._http.send(part) or b"" for part in parts))

    def start_next(self) -> bool:
        """Get ready for another request; False if this was the last."""
        if self._http.our_state is self._http.their_state is h11.DONE:
            self._http.start_next_cycle()
            return True
        return False

    async def end(self) -> None:
        """End our side, and let the client read what is still on its way.

        A close with unread input would send a reset and destroy the answer.
        """
        with trio.move_on_after(_LINGER):
            if isinstance(self._stream, trio.abc.HalfCloseableStream):
                await self._stream.send_eof()
            while await self._stream.receive_some(MAX_HEAD):
                pass


def _joined(pairs: Iterable[tuple[str, str]]) -> dict[str, str]:
    """Values by name; those of one name are joined by commas."""
    found: dict[str, str] = {}
    for name, value in pairs:
        found[name] = f"{found[name]},{value}" if name in found else value
    return found
