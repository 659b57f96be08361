"""The gate: a verdict for each kind of client, bounds, clients that go, and its end."""

from __future__ import annotations

import json
import math
import socket
import ssl
import struct
from contextlib import asynccontextmanager
from functools import partial
from importlib.resources import files
from typing import TYPE_CHECKING, Any, NamedTuple

import h11
import pytest
import trio
import trio.testing
from backends import answering, backend, closed_port, drawing
from certificates import Certificates
from hostile import hostile_text
from hypothesis import example, given
from hypothesis import strategies as st
from jsonschema import Draft202012Validator
from logged import capture_logs
from profiles import examples
from scraping import OPENMETRICS, TEXT, read_samples

from trio_echo.errors import ConfigError
from trio_echo.monitor.gate import Gate
from trio_echo.monitor.request import Allowed, Terms
from trio_echo.prober.config import ProbeTLS
from trio_echo.prober.document import from_json

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from trio.testing import MockClock

SCHEMA = json.loads(files("trio_echo.prober").joinpath("report.schema.json").read_text("utf-8"))
TWO = {"one": 80, "two": 20}
LOOPBACK = Terms(allow=[Allowed("127.0.0.1:*"), Allowed("localhost:*")])


class Answer(NamedTuple):
    """What came back."""

    status: int
    headers: dict[str, str]
    body: str

    def json(self) -> dict[str, Any]:
        """The body as an object."""
        assert self.headers["content-type"] == "application/json"
        found: dict[str, Any] = json.loads(self.body)
        return found


class Served:
    """A gate on a port of loopback.

    Attributes:
        gate: the gate.
        port: where it is.
        done: set once it has ended.
    """

    def __init__(self, gate: Gate, port: int) -> None:
        self.gate = gate
        self.port = port
        self.done = trio.Event()

    async def connect(self) -> trio.SocketStream:
        """Open a connection."""
        return await trio.open_tcp_stream("127.0.0.1", self.port)

    async def ask(
        self, path: str, body: object = None, headers: tuple[tuple[str, str], ...] = ()
    ) -> Answer:
        """Send a request, with a body if there is one, and return what comes back."""
        async with await self.connect() as stream:
            await stream.send_all(request(path, body, headers))
            return await answer(stream)

    async def probe(self, target: str, **more: Any) -> Answer:
        """Ask in JSON for 80/20, of a split that is not waited for."""
        return await self.ask("/v1/probe", {"target": target, "expect": TWO, "settle": 0} | more)

    async def metrics(self) -> dict[str, float]:
        """Scrape the gate itself."""
        found = await self.ask("/metrics", headers=(("Accept", OPENMETRICS),))
        return read_samples(found.body.encode(), found.headers["content-type"])

    async def until(self, name: str, value: float) -> None:
        """Wait until a metric has a value."""
        with trio.fail_after(20):
            while (await self.metrics())[name] != value:
                pass


def request(path: str, body: object = None, headers: tuple[tuple[str, str], ...] = ()) -> bytes:
    """A request as it is sent."""
    raw = b"" if body is None else json.dumps(body).encode()
    http = h11.Connection(h11.CLIENT)
    head = h11.Request(
        method="GET" if body is None else "POST",
        target=path,
        headers=[("Host", "gate"), ("Content-Length", str(len(raw))), *headers],
    )
    return b"".join(http.send(each) or b"" for each in (head, h11.Data(raw), h11.EndOfMessage()))


async def answer(stream: trio.SocketStream) -> Answer:
    """Receive a response."""
    http = h11.Connection(h11.CLIENT)
    http.send(h11.Request(method="GET", target="/", headers=[("Host", "gate")]))
    http.send(h11.EndOfMessage())
    status, headers, body = 0, {}, b""
    while True:
        event = http.next_event()
        if event is h11.NEED_DATA:
            http.receive_data(bytes(await stream.receive_some()))
        elif isinstance(event, h11.Response):
            status = event.status_code
            headers = {name.decode(): value.decode() for name, value in event.headers}
        elif isinstance(event, h11.Data):
            body += event.data
        else:
            return Answer(status, headers, body.decode())


@asynccontextmanager
async def serving(terms: Terms = LOOPBACK, **settings: Any) -> AsyncIterator[Served]:
    """Run a gate; at the end it drains."""
    [listener] = await trio.open_tcp_listeners(0, host="127.0.0.1")
    gate = Gate(terms, **settings)
    served = Served(gate, listener.socket.getsockname()[1])

    async def run() -> None:
        await gate.serve([listener])
        served.done.set()

    async with listener, trio.open_nursery() as nursery:
        nursery.start_soon(run)
        yield served
        gate.drain()


class Holding:
    """A backend that answers nothing until it is let go.

    Attributes:
        connections: how many it ever had.
        open: how many it has.
        go: lets all answer as ``one``.
    """

    def __init__(self) -> None:
        self.connections = self.open = 0
        self.go = trio.Event()

    async def handle(self, stream: trio.abc.Stream) -> None:
        """Serve one connection, and notice its end at any time."""
        self.connections += 1
        self.open += 1
        send, receive = trio.open_memory_channel[bytes](math.inf)
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._answer, stream, receive)
                async for chunk in stream:
                    send.send_nowait(bytes(chunk))
                nursery.cancel_scope.cancel()
        finally:
            self.open -= 1

    async def _answer(
        self, stream: trio.abc.Stream, chunks: trio.MemoryReceiveChannel[bytes]
    ) -> None:
        """Answer the lines, each of which comes in one piece."""
        await self.go.wait()
        async for chunk in chunks:
            await stream.send_all(b"one " + chunk)


ONE = partial(answering, name="one")


async def test_a_verdict_in_json() -> None:
    """The report, valid by its schema, whatever the verdict; and what the wait was like."""
    sock, nobody = closed_port()
    with sock, capture_logs() as logs:
        async with backend(drawing(TWO, seed=1)) as target, serving() as gate:
            for more, verdict in (
                ({}, "PASS"),
                ({"expect": {"one": 20, "two": 80}}, "FAIL"),
                ({"connections": 20}, "INCONCLUSIVE"),
            ):
                found = await gate.probe(target, margin=0.1, **more)
                assert found.status == 200
                report = found.json()
                Draft202012Validator(SCHEMA).validate(report)
                assert report["verdict"] == verdict
                assert from_json(found.body).verdict == verdict
                assert "settle" not in report
            found = await gate.probe(target, settle=2, margin=0.1)
            assert found.json()["settle"]["settled"] is True
            found = await gate.probe(nobody)
            assert found.status == 502
            assert found.json()["verdict"] == "UNMEASURED"
            Draft202012Validator(SCHEMA).validate(found.json())
    assert [(each["event"], each["verdict"], each["status"]) for each in logs] == [
        ("probe", "PASS", 200),
        ("probe", "FAIL", 200),
        ("probe", "INCONCLUSIVE", 200),
        ("probe", "PASS", 200),
        ("probe", "UNMEASURED", 502),
    ]
    assert logs[0]["path"] == "/v1/probe"
    assert logs[0]["target"] == target
    assert logs[0]["client"].startswith("127.0.0.1:")


async def test_what_cannot_be_asked_for_is_refused() -> None:
    """In JSON for who asks in JSON, else in text; and nothing is connected to."""
    with capture_logs() as logs:
        async with serving(Terms(allow=[Allowed("echo:9000")])) as gate:
            found = await gate.probe("localhost:1")
            assert found.status == 403
            error = "target: 'localhost:1' is not allowed; an --allow of the gate must name it"
            assert found.json() == {"error": error, "field": "target"}
            found = await gate.probe("echo:9000", margin=2)
            assert (found.status, found.json()["field"]) == (400, "margin")
            found = await gate.ask("/v1/probe", [])
            assert (found.status, found.json()["field"]) == (400, "body")
            found = await gate.probe("echo:9000", sni=".x")
            assert (found.status, found.json()["field"]) == (400, "sni")
            found = await gate.ask("/flagger", {"metadata": {"target": "other:1", "expect": "x=1"}})
            assert (found.status, found.body[:18]) == (403, "target: 'other:1' ")
            found = await gate.ask("/probe?expect=one:1")
            assert (found.status, found.body[:18]) == (400, "target: is missing")
            assert found.headers["content-type"].startswith("text/plain")
            assert (await gate.ask("/v1/probe")).status == 405
            metrics = await gate.metrics()
            assert metrics["trio_echo_gate_requests_total|path=/v1/probe|status=400|verdict="] == 3
            assert metrics["trio_echo_gate_requests_total|path=/probe|status=400|verdict="] == 1
            assert metrics["trio_echo_gate_connections_total"] == 0
    assert [each["status"] for each in logs] == [403, 400, 400, 400, 403, 400]
    assert logs[0]["refused"] == error


FLAGGER = {
    "name": "podinfo",
    "namespace": "test",
    "phase": "Progressing",
    "checksum": "85d557f47b",
}


async def test_a_webhook_of_flagger() -> None:
    """200 is PASS and nothing else is: the body says why, for the Event that Flagger writes."""
    async with backend(drawing(TWO, seed=1)) as target, serving() as gate:
        metadata = {"target": target, "expect": "one=80,two=20", "margin": "0.1"}
        found = await gate.ask("/flagger", FLAGGER | {"metadata": metadata})
        assert (found.status, found.body[:6]) == (200, "PASS: ")
        found = await gate.ask(
            "/flagger",
            FLAGGER | {"metadata": metadata | {"expect": "one=20,two=80", "settle": "0.3"}},
        )
        assert found.status == 409
        assert found.body.startswith("FAIL: ")
        assert "one has " in found.body
        assert found.body.endswith("; the split did not show within the 0.3 s of settle\n")
        found = await gate.ask("/flagger", FLAGGER)
        assert found.status == 400
        assert found.body.startswith("metadata: must hold target and expect as text, got null")


@pytest.mark.parametrize("before", ["", "x", "xx"])
async def test_a_long_answer_to_flagger_is_cut_between_characters(before: str) -> None:
    """Here they are of three bytes each."""
    name = before + "\N{SNOWMAN}" * 80
    async with backend(drawing({name: 1}, seed=1)) as target, serving() as gate:
        metadata = {"target": target, "expect": f"{name}=0,a{name}=1,b{name}=1", "settle": "0"}
        found = await gate.ask("/flagger", FLAGGER | {"metadata": metadata})
    assert 898 <= len(found.body.rstrip("\n").encode()) <= 900


@pytest.mark.parametrize("accept", [TEXT, OPENMETRICS])
async def test_a_scrape(accept: str) -> None:
    """What blackbox_exporter tells, and the shares; each scrape is one probe."""
    names = {"one": 80, 'sn"o\\w \N{SNOWMAN}\x1b': 20}
    async with backend(drawing(names, seed=1)) as target, serving() as gate:
        for expect, success, verdict in (("one:100", 0, "FAIL"), ("one:1,two:0", 0, "FAIL")):
            found = await gate.ask(
                f"/probe?target={target}&expect={expect}&margin=0.1", headers=(("Accept", accept),)
            )
            assert found.status == 200
            samples = read_samples(found.body.encode(), found.headers["content-type"])
            assert samples["probe_success"] == success
            assert 0 < samples["probe_duration_seconds"] < 5
            assert samples[f"trio_echo_probe_verdict|verdict={verdict}"] == 1
            assert samples["trio_echo_probe_verdict|verdict=PASS"] == 0
            assert samples["trio_echo_probe_expected_share|backend=one"] == 1
            assert samples["trio_echo_probe_failures|outcome=reset"] == 0
        found = await gate.ask(f"/probe?target={target}&expect=one:80,two:20")
        assert "\\x1b" in found.body
    async with backend(drawing(TWO, seed=1)) as target, serving() as gate:
        found = await gate.ask(f"/probe?target={target}&expect=one=80&expect=two:20&margin=0.1")
        samples = read_samples(found.body.encode(), found.headers["content-type"])
        assert samples["probe_success"] == 1
        share = samples["trio_echo_probe_share|backend=two"]
        low = samples["trio_echo_probe_share_low|backend=two"]
        high = samples["trio_echo_probe_share_high|backend=two"]
        assert low < share < high
        assert samples["trio_echo_probe_connections|backend=two"] > 0
        gates = await gate.metrics()
        assert gates["trio_echo_gate_probe_seconds_count|path=/probe"] == 1


async def test_a_scrape_is_answered_in_time(autojump_clock: MockClock) -> None:
    """Also of a target that never answers, and when its turn does not come."""
    autojump_clock.autojump_threshold = 0.02
    holding = Holding()
    timeout = (("X-Prometheus-Scrape-Timeout-Seconds", "3"),)
    async with backend(holding.handle) as target, serving(concurrency=1) as gate:
        path = f"/probe?target={target}&expect=one:1"
        started = trio.current_time()
        found = await gate.ask(path, headers=timeout)
        assert 2.4 < trio.current_time() - started < 2.9
        assert "\nprobe_success 0.0\n" in found.body
        async with trio.open_nursery() as nursery:
            nursery.start_soon(partial(gate.ask, path, headers=timeout))
            await gate.until("trio_echo_gate_probes_running", 1)
            started = trio.current_time()
            found = await gate.ask(path, headers=(("X-Prometheus-Scrape-Timeout-Seconds", "0.5"),))
            assert 0.2 < trio.current_time() - started < 0.45
            assert (found.status, found.body) == (503, "its turn did not come in time\n")


@pytest.mark.parametrize("seconds", ["", "soon", "-1", "nan", "1e3", "1.2.3", "."])
async def test_a_scrape_timeout_that_is_none(seconds: str) -> None:
    """A bad header is a bad request."""
    async with serving() as gate:
        header = (("X-Prometheus-Scrape-Timeout-Seconds", seconds),)
        found = await gate.ask("/probe?target=localhost:1&expect=one:1", headers=header)
        assert found.status == 400
        assert found.body.startswith(
            "X-Prometheus-Scrape-Timeout-Seconds: must be a number of seconds, got '"
        )


async def test_a_few_at_a_time() -> None:
    """The next wait, as many as may; one more is told to come back."""
    holding = Holding()
    answers: list[Answer] = []
    async with (
        backend(holding.handle) as target,
        serving(concurrency=2, queue=1) as gate,
        trio.open_nursery() as nursery,
    ):

        async def ask() -> None:
            answers.append(await gate.probe(target, expect={"one": 1}, margin=0.1))

        nursery.start_soon(ask)
        nursery.start_soon(ask)
        await gate.until("trio_echo_gate_probes_running", 2)
        nursery.start_soon(ask)
        await gate.until("trio_echo_gate_requests_waiting", 1)
        while holding.open < 32:
            await trio.lowlevel.checkpoint()
        refused = await gate.probe(target)
        assert (refused.status, refused.headers["retry-after"]) == (503, "10")
        assert refused.json() == {"error": "1 requests wait already", "field": None}
        assert (await gate.ask("/livez")).body == "alive\n"
        assert (await gate.ask("/readyz")).body == "ready\n"
        holding.go.set()
        while len(answers) < 3:
            await trio.lowlevel.checkpoint()
    assert [each.json()["verdict"] for each in answers] == ["PASS"] * 3


@pytest.mark.parametrize("politely", [True, False])
async def test_a_client_that_goes_takes_its_probe_along(politely: bool) -> None:
    """From the queue too. The target sees the connections end and no more come."""
    holding = Holding()
    with capture_logs() as logs:
        async with backend(holding.handle) as target, serving(concurrency=1) as gate:
            asked = request("/v1/probe", {"target": target, "expect": TWO, "settle": 0})
            running, waiting = await gate.connect(), await gate.connect()
            await running.send_all(asked)
            await gate.until("trio_echo_gate_probes_running", 1)
            await waiting.send_all(asked)
            await gate.until("trio_echo_gate_requests_waiting", 1)
            await leave(waiting, politely)
            await gate.until("trio_echo_gate_requests_waiting", 0)
            while holding.open < 16:
                await trio.lowlevel.checkpoint()
            await leave(running, politely)
            await gate.until("trio_echo_gate_probes_running", 0)
            while holding.open:
                await trio.lowlevel.checkpoint()
            gone = "trio_echo_gate_requests_total|path=/v1/probe|status=499|verdict="
            await gate.until(gone, 2)
        assert holding.connections == 16
    assert [(each["event"], each["status"]) for each in logs] == [("probe", 499)] * 2


async def leave(stream: trio.SocketStream, politely: bool) -> None:
    """Close a connection, or break it off."""
    if not politely:
        stream.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    await stream.aclose()


async def test_a_drain_finishes_what_has_come() -> None:
    """Readiness goes, new requests are refused, and the end comes with the last answer."""
    holding = Holding()
    answers: list[Answer] = []
    async with (
        backend(holding.handle) as target,
        serving(concurrency=1) as gate,
        trio.open_nursery() as nursery,
    ):

        async def ask() -> None:
            answers.append(await gate.probe(target, expect={"one": 1}, margin=0.1))

        nursery.start_soon(ask)
        await gate.until("trio_echo_gate_probes_running", 1)
        nursery.start_soon(ask)
        await gate.until("trio_echo_gate_requests_waiting", 1)
        gate.gate.drain()
        found = await gate.ask("/readyz")
        assert (found.status, found.body) == (503, "draining\n")
        assert (await gate.ask("/livez")).status == 200
        found = await gate.probe(target)
        assert (found.status, found.json()["error"]) == (503, "the gate is ending")
        assert not gate.done.is_set()
        holding.go.set()
        with trio.fail_after(20):
            await gate.done.wait()
    assert [each.json()["verdict"] for each in answers] == ["PASS"] * 2
    assert gate.gate.cut_requests == 0


async def test_a_drain_cuts_what_does_not_end(autojump_clock: MockClock) -> None:
    """Who waits for it is told."""
    autojump_clock.autojump_threshold = 0.02
    holding = Holding()
    async with (
        backend(holding.handle) as target,
        serving(drain_timeout=2.0) as gate,
        trio.open_nursery() as nursery,
    ):

        async def ask() -> None:
            found = await gate.probe(target, timeout=50)
            assert (found.status, found.json()["error"]) == (503, "the gate has ended the probe")

        nursery.start_soon(ask)
        await gate.until("trio_echo_gate_probes_running", 1)
        gate.gate.drain()
        started = trio.current_time()
        await gate.done.wait()
        assert 1.9 < trio.current_time() - started < 2.5
    assert gate.gate.cut_requests == 1


async def test_tls_is_the_gate_s(tmp_path: Path) -> None:
    """The authority is an option; the request says that there is TLS, and with which name."""
    made = Certificates.issue(tmp_path)
    server = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    made.issued.configure_cert(server)
    terms = Terms(allow=LOOPBACK.allow, tls=ProbeTLS(ca=made.ca))
    async with backend(ONE, server) as target, serving(terms) as gate:
        more = {"expect": {"one": 1}, "margin": 0.5}
        found = await gate.probe(target, sni="localhost", **more)
        assert found.json()["verdict"] == "PASS"
        found = await gate.probe(target, tls=True, **more)
        assert (found.status, found.json()["verdict"]) == (502, "UNMEASURED")
        found = await gate.probe(target.replace("127.0.0.1", "localhost"), tls=True, **more)
        assert found.json()["verdict"] == "PASS"


@pytest.mark.parametrize(
    ("settings", "field"),
    [({"concurrency": 0}, "concurrency"), ({"queue": -1}, "queue")]
    + [({"drain_timeout": value}, "drain_timeout") for value in (-1.0, float("nan"))],
)
def test_settings_that_cannot_work(settings: dict[str, Any], field: str) -> None:
    """By the name of their option."""
    with pytest.raises(ConfigError) as caught:
        Gate(LOOPBACK, **settings)
    assert caught.value.field == field


async def test_a_fault_is_no_verdict(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is told as one, in the answer, the log and the metrics."""

    async def broken(*_: object) -> None:
        raise RuntimeError("broken")

    monkeypatch.setattr("trio_echo.monitor.gate.probe_until", broken)
    with capture_logs() as logs:
        async with serving() as gate:
            assert (await gate.probe("localhost:1")).status == 500
            assert (await gate.metrics())["trio_echo_gate_probes_running"] == 0
    assert [(each["event"], each.get("status")) for each in logs] == [
        ("probe", 500),
        ("a page failed", None),
    ]


NOWHERE = Terms(allow=[Allowed("nobody.invalid:1")])


def told(*parts: bytes) -> bytes:
    """What a gate that probes nothing says to a client that sends this and ends its side."""

    async def converse() -> bytes:
        ours, theirs = trio.testing.memory_stream_pair()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(Gate(NOWHERE).front.handle, theirs)
            for part in parts:
                await ours.send_all(part)
            await trio.testing.wait_all_tasks_blocked()
            await ours.send_eof()
            received = b""
            while some := await ours.receive_some():
                received += some
            return received

    return trio.run(converse)


@examples(0.5)
@given(
    st.lists(
        st.binary(max_size=60)
        | st.sampled_from(
            [
                *(b"POST /v1/probe HTTP/1.1\r\n", b"POST /flagger HTTP/1.1\r\n"),
                *(b"GET /probe?target=a:1&expect=b:1 HTTP/1.1\r\n", b"Host: x\r\n"),
                *(b"X-Prometheus-Scrape-Timeout-Seconds: 1\r\n", b"Content-Length: 2\r\n"),
                *(b"\r\n", b"{}", b"\n"),
            ]
        ),
        max_size=12,
    )
)
@example([b"POST /v1/probe HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nzz"])
def test_whatever_is_sent_is_refused_or_ends(parts: list[bytes]) -> None:
    """No exception, no fault in the log."""
    with capture_logs() as logs:
        found = told(*parts)
    assert found == b"" or found.startswith(b"HTTP/1.1 ")
    assert {each["event"] for each in logs} <= {"probe"}


@examples(0.5)
@given(st.dictionaries(hostile_text(), hostile_text() | st.integers() | st.none()), st.binary())
def test_any_body_and_any_query_get_one_line(fields: dict[str, object], raw: bytes) -> None:
    """A 4xx that is safe to show, in JSON or in text."""
    for body in (raw, json.dumps(fields).encode(), json.dumps({"metadata": fields}).encode()):
        for path in (b"/v1/probe", b"/flagger"):
            head = b"POST %s HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n" % (path, len(body))
            assert_refused(told(head, body))
    query = "&".join(f"{name}={value}" for name, value in fields.items())
    quoted = "".join(f"%{byte:02x}" for byte in query.encode(errors="surrogatepass"))
    assert_refused(told(b"GET /probe?%s HTTP/1.1\r\nHost: x\r\n\r\n" % quoted.encode()))


def assert_refused(found: bytes) -> None:
    """Status 400, and a line without anything that a terminal would obey."""
    head, _, body = found.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 400 ")
    assert body.endswith(b"\n")
    assert body.decode().rstrip("\n").isprintable()
