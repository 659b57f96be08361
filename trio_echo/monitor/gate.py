"""Probes on request, for controllers that ask over HTTP.

A few probes run at a time, a few more requests wait, and what comes then is refused at
once: a controller asks again, and a queue that grows would only let it wait for longer
than it does. A request whose client goes away is dropped, its probe with it.

What an answer's status means:

- 200: the probe came to a verdict, which the JSON holds. For Flagger, which looks at the
  status alone, it means PASS.
- 409, for Flagger: any other verdict. Flagger shows the body of a 4xx, while for a 5xx
  its client tries again where it is told to, and shows no body.
- 502: nothing could be measured. That is no verdict: with 200, an analysis that names
  nothing but a condition of failure would take it for a success. 502 and not 503,
  because Istio's sidecars send a request again after a 503.
- 503 with ``Retry-After``: too many wait, or the gate is ending.
- 400 and 403: the request cannot be carried out, or names a target that is not allowed.
- 499, in logs and metrics alone: the client went away, as nginx has it.
"""

from __future__ import annotations

import json
import re
from contextlib import asynccontextmanager
from dataclasses import replace
from math import inf, isfinite
from typing import TYPE_CHECKING, NamedTuple

import trio

from trio_echo.errors import ConfigError
from trio_echo.http import MAX_CLIENTS, Front, Page, Request, Response, json_response
from trio_echo.log import Log
from trio_echo.monitor.gate_metrics import GateMetrics, Scraped
from trio_echo.monitor.request import NotAllowedError, read_flagger, read_json, read_words
from trio_echo.monitor.settle import probe_until, settle
from trio_echo.prober import document, remarks, words
from trio_echo.prober.split import Verdict
from trio_echo.server.admin import render
from trio_echo.text import printable, visible

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterable

    from trio_echo.monitor.request import Asked, Terms
    from trio_echo.monitor.settle import Settling
    from trio_echo.prober.words import Report

__all__ = ["Finding", "Gate"]

_log = Log()

_CLIENT_GONE = 499

_RETRY_AFTER = 10
"""Seconds after which a client that was refused should ask again."""

_SCRAPE_OFFSET = 0.5
"""Seconds by which the answer to a scrape is earlier than it must be, as in
blackbox_exporter."""

_LONGEST_WORDS = 900
"""Bytes of an answer to Flagger, which writes them into an Event of Kubernetes; those
take 1024."""

_LAST_WORDS = 1.0
"""Seconds for cut requests to be answered."""


class Finding(NamedTuple):
    """What became of a request.

    Attributes:
        report: what the judged sample shows.
        settling: what the wait for the new split was like; None without one.
        waited: seconds in the queue.
        took: seconds from then on until the end.
    """

    report: Report
    settling: Settling | None
    waited: float
    took: float

    def note(self) -> dict[str, object]:
        """What a log says of it."""
        found: dict[str, object] = {
            "verdict": str(self.report.verdict),
            "connections": self.report.counts.launched,
            "waited": round(self.waited, 3),
            "seconds": round(self.took, 3),
        }
        if self.settling is not None:
            found |= {"settled": self.settling.settled, "samples": self.settling.samples}
        return found


class BusyError(Exception):
    """The request is refused for now."""


class Gate:
    """Runs probes on request.

    Args:
        terms: what may be asked for.
        concurrency: probes that run at a time.
        queue: requests that wait for them at most.
        drain_timeout: seconds after `drain` until what still runs is cut.

    Raises:
        ConfigError: a value cannot work.

    Attributes:
        front: answers over HTTP.
        ready: whether requests are taken.
        cut_requests: how many were cut by `cut`.
    """

    def __init__(
        self, terms: Terms, *, concurrency: int = 4, queue: int = 16, drain_timeout: float = 20.0
    ) -> None:
        for name, value, least in (
            ("concurrency", concurrency, 1),
            ("queue", queue, 0),
            ("drain_timeout", drain_timeout, 0),
        ):
            if not (isfinite(value) and value >= least):
                raise ConfigError(name, f"must be at least {least}, got {value:g}")
        self.ready = True
        self.cut_requests = 0
        self._terms = terms
        self._queue = queue
        self._drain_timeout = drain_timeout
        self._places = trio.Semaphore(concurrency)
        self._metrics = GateMetrics()
        self._draining = trio.Event()
        self._scopes: set[trio.CancelScope] = set()
        pages = {
            "/v1/probe": self._page(_JSON, "POST"),
            "/flagger": self._page(_FLAGGER, "POST"),
            "/probe": self._page(_PROMETHEUS, "GET"),
            "/livez": Page(self._livez),
            "/readyz": Page(self._readyz),
            "/metrics": Page(self._scrape),
        }
        self.front = Front(pages, "gate", clients=concurrency + queue + MAX_CLIENTS)

    @property
    def requests(self) -> int:
        """How many requests wait or run."""
        return len(self._scopes)

    def drain(self) -> None:
        """Refuse new requests; those that wait or run are carried out, then `serve` ends."""
        self.ready = False
        self._draining.set()

    def cut(self) -> None:
        """End all probes now; their clients are told, and then `serve` ends."""
        self.drain()
        for scope in self._scopes:
            scope.cancel()

    async def serve(self, listeners: Iterable[trio.abc.Listener[trio.abc.Stream]]) -> None:
        """Serve until `drain` and the end that follows it, or until cancelled.

        The listeners stay open.
        """
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self.front.serve, listeners)
            await self._draining.wait()
            with trio.move_on_after(self._drain_timeout):
                await self.front.settled()
            self.cut()
            with trio.move_on_after(_LAST_WORDS):
                await self.front.settled()
            nursery.cancel_scope.cancel()

    async def judge(self, asked: Asked, deadline: float | None = None) -> Finding:
        """Carry out a request when its turn comes.

        Args:
            asked: what to do.
            deadline: the time of trio's clock by which it must be over; None for as
                long after the wait in the queue as the terms allow.

        Raises:
            BusyError: too many wait, the gate is ending, or its turn came too late.
            ConfigError: TLS cannot ask for the server's name.
        """
        came = trio.current_time()
        async with self._place(deadline):
            began = trio.current_time()
            end = began + self._terms.max_seconds
            end = end if deadline is None else min(end, deadline)
            settling = None
            if asked.settle:
                settling = await settle(asked.config, min(asked.settle, end - began))
            report = await probe_until(asked.config, end)
            return Finding(report, settling, began - came, trio.current_time() - began)

    @asynccontextmanager
    async def _place(self, deadline: float | None) -> AsyncIterator[None]:
        """Wait for a place among the probes that run.

        Raises:
            BusyError: there is none, or not in time.
        """
        if not self.ready:
            raise BusyError("the gate is ending")
        try:
            self._places.acquire_nowait()
        except trio.WouldBlock:
            if self._metrics.waiting >= self._queue:
                raise BusyError(f"{self._queue} requests wait already") from None
            self._metrics.waiting += 1
            try:
                with trio.move_on_at(inf if deadline is None else deadline) as scope:
                    await self._places.acquire()
            finally:
                self._metrics.waiting -= 1
            if scope.cancelled_caught:
                raise BusyError("its turn did not come in time") from None
        self._metrics.running += 1
        try:
            yield
        finally:
            self._metrics.running -= 1
            self._places.release()

    def _page(self, form: _Form, method: str) -> Page:
        """A page that runs a probe."""

        async def answer(request: Request) -> Response:
            note: dict[str, object] = {"path": request.path, "client": request.peer}
            # Several tasks of a probe that is cancelled make a group of it.
            status = _CLIENT_GONE
            try:
                response = await self._answer(form, request, note)
            except Exception:
                status = 500
                raise
            else:
                status = response.status
                return response
            finally:
                verdict = str(note.get("verdict", ""))
                self._metrics.requests[request.path, status, verdict] += 1
                _log.info("probe", **note, status=status)

        return Page(answer, methods=(method,), cancel=True)

    async def _answer(self, form: _Form, request: Request, note: dict[str, object]) -> Response:
        """Carry out a request, and note for the log what became of it."""
        scope = trio.CancelScope()
        self._scopes.add(scope)
        try:
            with scope:
                deadline = form.deadline(request)
                asked = form.read(request, self._terms)
                note["target"] = printable(asked.config.target)
                finding = await self.judge(asked, deadline)
                self._metrics.take(request.path, finding)
                note |= finding.note()
                return form.answer(finding, request)
            self.cut_requests += 1
            return _refuse_for_now(form, "the gate has ended the probe", note)
        except ConfigError as error:
            note["refused"] = str(error)
            status = 403 if isinstance(error, NotAllowedError) else 400
            return form.refuse(status, error.field, error.reason)
        except BusyError as error:
            return _refuse_for_now(form, str(error), note)
        finally:
            self._scopes.remove(scope)

    async def _livez(self, _: Request) -> Response:
        return Response(200, b"alive\n")

    async def _readyz(self, _: Request) -> Response:
        return Response(200, b"ready\n") if self.ready else Response(503, b"draining\n")

    async def _scrape(self, request: Request) -> Response:
        page, content_type = render(self._metrics, request.headers.get("accept", ""))
        return Response(200, page, {"Content-Type": content_type})


class _Form(NamedTuple):
    """How one kind of client asks and is answered.

    Attributes:
        read: reads a request.
        deadline: the time of trio's clock by which it must be answered, if any.
        answer: writes what was found.
        refuse: writes a status, the field that is wrong (or nothing) and the reason.
    """

    read: Callable[[Request, Terms], Asked]
    deadline: Callable[[Request], float | None]
    answer: Callable[[Finding, Request], Response]
    refuse: Callable[[int, str, str], Response]


def _refuse_for_now(form: _Form, reason: str, note: dict[str, object]) -> Response:
    """Refuse what may be asked for again."""
    note["refused"] = reason
    response = form.refuse(503, "", reason)
    return replace(response, headers={**response.headers, "Retry-After": str(_RETRY_AFTER)})


def _whenever(_: Request) -> None:
    """No deadline but the gate's own."""


def _answer_json(finding: Finding, _: Request) -> Response:
    """The report, and what the wait was like."""
    found = json.loads(document.to_json(finding.report))
    if finding.settling is not None:
        found["settle"] = finding.settling._asdict()
    measured = finding.report.verdict is not Verdict.UNMEASURED
    return json_response(200 if measured else 502, found)


def _refuse_json(status: int, field: str, reason: str) -> Response:
    return json_response(status, {"error": _line(field, reason), "field": field or None})


def _answer_flagger(finding: Finding, _: Request) -> Response:
    """The verdict and why, in words for an Event."""
    report, settling = finding.report, finding.settling
    lines = [words.headline(report), *(reason.text for reason in remarks.reasons(report))]
    if settling is not None and not settling.settled:
        lines.append(f"the split did not show within the {settling.seconds:.1f} s of settle")
    text = "; ".join(visible(line) for line in lines)
    status = 200 if report.verdict is Verdict.PASS else 409
    whole = text.encode()[:_LONGEST_WORDS].decode(errors="ignore")  # no part of a character
    return Response(status, whole.encode() + b"\n")


def _refuse_text(status: int, field: str, reason: str) -> Response:
    return Response(status, _line(field, reason).encode() + b"\n")


def _line(field: str, reason: str) -> str:
    return f"{field}: {reason}" if field else reason


def _read_query(request: Request, terms: Terms) -> Asked:
    """A scrape looks at a route that nobody has just changed, so it waits for nothing."""
    return read_words(request.query, terms, settle=0.0)


def _answer_scrape(finding: Finding, request: Request) -> Response:
    page, content_type = render(Scraped(finding), request.headers.get("accept", ""))
    return Response(200, page, {"Content-Type": content_type})


_TIMEOUT_HEADER = "X-Prometheus-Scrape-Timeout-Seconds"


def _until_scraped(request: Request) -> float | None:
    """When Prometheus wants its answer.

    Raises:
        ConfigError: the header is no number of seconds.
    """
    told = request.headers.get(_TIMEOUT_HEADER.lower())
    if told is None:
        return None
    if not re.fullmatch("[0-9]{1,9}([.][0-9]{1,9})?", told):
        raise ConfigError(_TIMEOUT_HEADER, f"must be a number of seconds, got '{printable(told)}'")
    seconds = float(told)
    return trio.current_time() + max(seconds - _SCRAPE_OFFSET, seconds / 2)


_JSON = _Form(
    lambda request, terms: read_json(request.body, terms), _whenever, _answer_json, _refuse_json
)
_FLAGGER = _Form(
    lambda request, terms: read_flagger(request.body, terms),
    _whenever,
    _answer_flagger,
    _refuse_text,
)
_PROMETHEUS = _Form(_read_query, _until_scraped, _answer_scrape, _refuse_text)
