"""The admin pages: ``/livez``, ``/readyz`` and ``/metrics`` over HTTP/1.1.

Imported only by a server that has an admin port.
"""

from __future__ import annotations

import os
import re
from email.utils import formatdate
from http import HTTPStatus
from typing import TYPE_CHECKING

import h11
import structlog
import trio

from trio_echo.server.exposition import Exposition
from trio_echo.server.log import Throttle

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from trio_echo.server.metrics import Metrics

__all__ = ["Admin"]

_log = structlog.get_logger()

_MAX_HEAD = 16 * 1024
"""Bytes of request line and headers. Prometheus and kubelet send a few hundred;
a browser with a jar full of cookies for localhost sends some thousands."""

_MAX_CLIENTS = 16
"""Connections held at once. A node's kubelet and two scrapers hold three."""

_IDLE_TIMEOUT = 90.0
"""Seconds a client may keep its connection between requests: longer than the
usual longest scrape interval, a minute, so that scrapers reuse theirs."""

_REQUEST_TIMEOUT = 5.0
"""Seconds from a request's first byte to its last, however slowly it trickles,
and again for the client to take the answer."""

_BACK_OFF = 0.1
"""Seconds to wait when the system has no descriptor for one more connection."""

_LINGER = 1.0
"""Seconds, at the end, for the client to read and close first."""

_TARGET = re.compile(rb"(?:http://[^/?#]*)?(/[^?#]*)(?:[?][^#]*)?")
"""The path of a request target, in origin form or absolute form (RFC 9112, 3.2)."""

_PAGES = ("/livez", "/readyz", "/metrics")


class Admin:
    """The admin pages of one server.

    Args:
        metrics: the server's live counters.
        prefix: its prefix.
        ready: whether it takes new connections; asked at each ``/readyz``.
    """

    def __init__(self, metrics: Metrics, prefix: str, ready: Callable[[], bool]) -> None:
        self._exposition = Exposition(metrics, prefix)
        self._ready = ready
        # The one quiet for longest is first.
        self._clients: dict[_Client, None] = {}

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
        throttle = Throttle(_log, burst=1)
        while True:
            try:
                stream = await listener.accept()
            except OSError as error:
                reason = os.strerror(error.errno or 0)
                throttle.warning("cannot accept on the admin port for now", error=reason)
                await trio.sleep(_BACK_OFF)
            else:
                nursery.start_soon(self.handle, stream)

    async def handle(self, stream: trio.abc.Stream) -> None:
        """Answer one client's requests until it is done, then close the stream.

        Whatever the client does, this returns within a bounded time of its
        last request and raises nothing but `trio.Cancelled`; the stream is
        closed then, too.

        When more clients come than may be held, the one that has been quiet
        for longest is cut: idle connections, left or held open on purpose, can't
        lock out the probes that decide over the life of the server.
        """
        client = _Client(stream)
        if len(self._clients) >= _MAX_CLIENTS:
            eldest = next(iter(self._clients))
            del self._clients[eldest]
            eldest.scope.cancel()
        self._clients[client] = None
        try:
            with client.scope:
                await self._converse(client)
        except (trio.BrokenResourceError, trio.ClosedResourceError, trio.TooSlowError):
            pass  # the client left, or does not read: nobody is there to be told
        except Exception:  # noqa: BLE001 - logged, and the end of this connection only
            _log.exception("the admin page failed")
        finally:
            self._clients.pop(client, None)
            await trio.aclose_forcefully(stream)

    async def _converse(self, client: _Client) -> None:
        """Answer requests one after another, and end the conversation politely."""
        try:
            while (request := await client.next_request()) is not None:
                self._clients.pop(client, None)  # the last one heard of goes last
                self._clients[client] = None
                await client.respond(*self._answer(request), head=request.method == b"HEAD")
                if not client.start_next():
                    break
        except h11.RemoteProtocolError as error:
            await client.respond(error.error_status_hint, f"{error}\n".encode(), {})
        await client.end()

    def _answer(self, request: h11.Request) -> tuple[int, bytes, dict[str, str]]:
        """Decide on the answer to a request: status, page and headers."""
        match = _TARGET.fullmatch(request.target)
        path = match[1].decode("latin-1") if match else ""
        if path not in _PAGES:
            return 404, f"no such page; there are {', '.join(_PAGES)}\n".encode(), {}
        if request.method not in {b"GET", b"HEAD"}:
            return 405, b"only GET and HEAD\n", {"Allow": "GET, HEAD"}
        if path == "/livez":
            return 200, b"alive\n", {}
        if path == "/readyz":
            return (200, b"ready\n", {}) if self._ready() else (503, b"draining\n", {})
        accept = b",".join(value for name, value in request.headers if name == b"accept")
        page, content_type = self._exposition.render(accept.decode("latin-1"))
        return 200, page, {"Content-Type": content_type}


class _Client:
    """One HTTP conversation: h11's state and the stream under it."""

    def __init__(self, stream: trio.abc.Stream) -> None:
        self._stream = stream
        self._http = h11.Connection(h11.SERVER, max_incomplete_event_size=_MAX_HEAD)
        self.scope = trio.CancelScope()

    async def next_request(self) -> h11.Request | None:
        """Receive the next request; None when the client has no more.

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
                self._http.receive_data(bytes(await self._stream.receive_some(_MAX_HEAD)))
            if not isinstance(event, h11.Request):
                return None
            # This is where a request without a body ends. A body is not read:
            # h11 then says that the connection closes after the answer.
            self._http.next_event()
            return event
        if begun:
            raise h11.RemoteProtocolError("request too slow", error_status_hint=408)
        return None

    async def respond(
        self, status: int, page: bytes, headers: dict[str, str], *, head: bool = False
    ) -> None:
        """Send a whole response.

        Raises:
            trio.TooSlowError: the client does not take it.
        """
        headers = {
            "Date": formatdate(usegmt=True),
            "Cache-Control": "no-store",
            "Content-Type": "text/plain; charset=utf-8",
            "Content-Length": str(len(page)),
        } | headers
        if self._http.their_state is not h11.DONE:
            headers["Connection"] = "close"
        response = h11.Response(
            status_code=status, reason=HTTPStatus(status).phrase, headers=list(headers.items())
        )
        parts = [response, *([] if head else [h11.Data(page)]), h11.EndOfMessage()]
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
            while await self._stream.receive_some(_MAX_HEAD):
                pass
