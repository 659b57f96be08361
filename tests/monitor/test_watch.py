"""A watch on real sockets: moves, failures, held connections, names, the end."""

from __future__ import annotations

import socket
import ssl
from contextlib import asynccontextmanager, suppress
from functools import partial, wraps
from itertools import count
from typing import TYPE_CHECKING, Any

import pytest
import trio
from backends import answering, backend, closed_port, drawing, reset
from certificates import Certificates
from trio.testing import MockClock

from trio_echo.errors import ConfigError
from trio_echo.monitor.watch import Watch, WatchConfig, watch
from trio_echo.prober.config import ProbeConfig, ProbeTLS
from trio_echo.prober.counts import Outcome

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Awaitable, Callable
    from pathlib import Path

    from trio_echo.monitor.record import Event, Record

TWO = {"one": 80.0, "two": 20.0}


def in_virtual_time(test: Callable[..., Awaitable[None]]) -> Callable[..., None]:
    """Have time jump once nothing has happened for a while; real sockets need a moment."""

    @wraps(test)
    def run(**arguments: Any) -> None:
        trio.run(partial(test, **arguments), clock=MockClock(autojump_threshold=0.004))

    return run


def config(target: str, *, expect: dict[str, float] | None = None, **settings: Any) -> WatchConfig:
    """What a watch is told."""
    probe = ProbeConfig(target=target, expect=expect or {}, **settings.pop("probe", {}))
    return WatchConfig(probe=probe, **settings)


class Backend:
    """A backend whose connections can be cut, and that can go away and come back.

    Attributes:
        name: in front of each answer.
        open: connections that stand.
    """

    def __init__(self, name: str) -> None:
        self.name = name
        self.open: set[trio.SocketStream] = set()

    async def handle(self, stream: trio.SocketStream) -> None:
        """Answer until the connection ends."""
        self.open.add(stream)
        with suppress(trio.BrokenResourceError, trio.ClosedResourceError):
            await answering(stream, self.name)
        self.open.discard(stream)

    async def cut(self, *, politely: bool) -> None:
        """End every connection, by FIN or by RST."""
        for stream in self.open.copy():
            if stream in self.open:  # it may have ended meanwhile
                self.open.discard(stream)
                if not politely:
                    await reset(stream)
                await trio.aclose_forcefully(stream)


@asynccontextmanager
async def standing(*backends: Backend) -> AsyncGenerator[str]:
    """Serve these in turn on one port; yields HOST:PORT."""
    served = 0

    async def handle(stream: trio.SocketStream) -> None:
        nonlocal served
        served += 1
        await backends[served % len(backends)].handle(stream)

    async with trio.open_nursery() as nursery:
        [listener] = await nursery.start(partial(trio.serve_tcp, handle, 0, host="127.0.0.1"))
        yield f"127.0.0.1:{listener.socket.getsockname()[1]}"
        nursery.cancel_scope.cancel()


@in_virtual_time
async def test_a_steady_split_is_counted_at_its_rate() -> None:
    """Five a second, none failed, no change."""
    async with backend(drawing(TWO, seed=1)) as target:
        record = await watch(config(target, expect=TWO, duration=20.0))
    assert record.counts.total in range(98, 103)
    assert record.counts.errors == 0
    assert record.changes == 0
    assert record.elapsed == pytest.approx(20, abs=0.5)
    assert len(record.recent) in range(20, 23)
    assert record.counts.answer["one"].count == record.counts.answers["one"]


@in_virtual_time
async def test_moved_weights_are_found() -> None:
    """The event comes while it happens, and --until-change ends with it."""
    weights = dict(TWO)
    events: list[Event] = []

    async def handle(stream: trio.abc.Stream) -> None:
        await choose(stream)

    choose = drawing(weights, seed=3)
    async with backend(handle) as target, trio.open_nursery() as nursery:

        async def move() -> None:
            nonlocal choose
            await trio.sleep(40)
            choose = drawing({"one": 20.0, "two": 80.0}, seed=4)

        nursery.start_soon(move)
        settings = config(target, expect=TWO, duration=600.0, until_change=True)
        record = await watch(settings, tell=events.append)
    [change] = [event for event in events if event.kind == "change"]
    assert record.changes == 1
    assert 40 < change.elapsed < 50
    assert record.elapsed == pytest.approx(change.elapsed, abs=1)


@pytest.mark.parametrize("politely", [True, False])
@in_virtual_time
async def test_lost_connections_are_replaced_and_told(*, politely: bool) -> None:
    """Age, reason, and the time until somebody answered the replacement."""
    backends = Backend("one"), Backend("two")
    events: list[Event] = []
    watching: list[Watch] = []
    async with standing(*backends) as target, trio.open_nursery() as nursery:

        async def cut() -> None:
            await trio.sleep(30)
            assert watching[0].record.held == 6
            for one in backends:
                await one.cut(politely=politely)
            await trio.sleep(5)
            assert watching[0].record.held == 6

        nursery.start_soon(cut)
        record = await watch(
            config(target, hold=6, rate=0.1, duration=40.0),
            tell=events.append,
            follow=watching.append,
        )
    lost = [event for event in events if event.kind == "lost"]
    assert len(lost) == 6
    # A line on its way makes a reset of a polite end.
    reasons = {Outcome.RESET, Outcome.EOF_BEFORE_ANSWER} if politely else {Outcome.RESET}
    assert record.lost.total() == 6
    assert set(record.lost) <= reasons
    for event in lost:
        assert 29 < event.data["age"] < 31
        assert event.data["reason"] in reasons
        assert event.data["replaced_after"] < 1
        assert event.data["backend"] in {"one", "two"}
        assert event.data["replacement"] in {"one", "two"}
    assert record.held == 0


@in_virtual_time
async def test_a_replacement_that_takes_long_is_told_when_it_comes() -> None:
    """First the loss, then, once somebody answers again, how long it took."""
    events: list[Event] = []
    async with trio.open_nursery() as nursery:
        port, scope = await nursery.start(_scoped, "one", 0)

        async def restart() -> None:
            await trio.sleep(20)
            scope.cancel()
            await trio.sleep(20)
            await nursery.start(_scoped, "two", port)

        nursery.start_soon(restart)
        settings = config(f"127.0.0.1:{port}", hold=1, rate=0.2, duration=60.0)
        record = await watch(settings, tell=events.append)
        nursery.cancel_scope.cancel()
    lost, replaced = (event for event in events if event.kind in {"lost", "replaced"})
    assert (lost.kind, replaced.kind) == ("lost", "replaced")
    assert "replacement" not in lost.data
    assert 24 < lost.elapsed < 27
    assert 19 < replaced.data["replaced_after"] < 22
    assert record.counts.outcomes[Outcome.REFUSED]


async def _scoped(
    name: str, port: int, *, task_status: trio.TaskStatus[tuple[int, trio.CancelScope]]
) -> None:
    """Serve on a port until the scope is cancelled, which is handed out with the port."""
    async with trio.open_nursery() as nursery:
        handle = Backend(name).handle
        serve = partial(trio.serve_tcp, handle, port, host="127.0.0.1", handler_nursery=nursery)
        [listener] = await nursery.start(serve)
        task_status.started((listener.socket.getsockname()[1], nursery.cancel_scope))


async def _mute_after_one(stream: trio.abc.Stream) -> None:
    """Answer one line, then read on and say nothing."""
    line = await stream.receive_some()
    await stream.send_all(b"one " + bytes(line))
    while await stream.receive_some():
        pass


async def _chatty(stream: trio.abc.Stream) -> None:
    """Answer one line, and then more than was asked for."""
    line = await stream.receive_some()
    await stream.send_all(b"one " + bytes(line))
    await trio.sleep(0.5)
    await stream.send_all(b"hello\n")
    while await stream.receive_some():
        pass


async def _by_line(stream: trio.abc.Stream) -> None:
    """Answer each line under another name, as a balancer of requests does."""
    for name in (b"one ", b"two "):
        line = await stream.receive_some()
        await stream.send_all(name + bytes(line))
    await stream.receive_some()


@pytest.mark.parametrize(
    ("handler", "reason", "detail"),
    [
        (_mute_after_one, Outcome.READ_TIMEOUT, ""),
        (_chatty, Outcome.WRONG_ECHO, "bytes that nobody asked for"),
        (_by_line, Outcome.WRONG_ECHO, "from another backend"),
    ],
)
@in_virtual_time
async def test_a_held_connection_is_lost_in_other_ways(
    handler: Any, reason: Outcome, detail: str
) -> None:
    """No answer in time, an answer that nobody asked for, or one from somebody else."""
    events: list[Event] = []
    async with backend(handler) as target:
        settings = config(target, hold=1, rate=0.01, duration=8.0, probe={"timeout": 2.0})
        record = await watch(settings, tell=events.append)
    assert record.lost[reason] >= 1
    assert events[0].data["detail"] == detail


@in_virtual_time
async def test_a_target_that_resets_is_no_end() -> None:
    """Each failure is counted; the first is told; the held connections wait."""
    events: list[Event] = []
    async with backend(reset) as target:
        record = await watch(config(target, expect=TWO, hold=2, duration=6.0), tell=events.append)
    assert record.counts.outcomes.keys() <= {Outcome.RESET, Outcome.EOF_BEFORE_ANSWER}
    assert record.counts.total in range(28, 33)
    assert [event.kind for event in events] == ["failed"]
    assert record.held == 0


@in_virtual_time
async def test_until_change_ends_when_many_connections_keep_failing() -> None:
    """Half of them here; a failed part is as good a reason to look as a change."""
    number = count()

    async def half(stream: trio.abc.Stream) -> None:
        await (reset(stream) if next(number) % 2 else answering(stream, "one"))

    async with backend(half) as target:
        settings = config(target, expect={"one": 1}, duration=600.0, until_change=True)
        record = await watch(settings)
    assert record.outages == 1
    assert record.failing
    assert 10 <= record.elapsed < 20


@in_virtual_time
async def test_a_target_that_hangs_does_not_slow_the_watch_down() -> None:
    """Each connection has its own time-out, and as many wait as it takes."""

    async def hang(stream: trio.abc.Stream) -> None:
        while await stream.receive_some():
            pass

    async with backend(hang) as target:
        settings = config(target, duration=10.0, hold=1, probe={"timeout": 3.0})
        record = await watch(settings)
    # Those of the last three seconds had not ended.
    assert record.counts.outcomes[Outcome.READ_TIMEOUT] in range(33, 38)


@in_virtual_time
async def test_a_rate_beyond_what_may_wait_is_held_up() -> None:
    """More than twice as many as the time-out asks for never wait at once."""
    most = 0
    now = 0

    async def hang(stream: trio.abc.Stream) -> None:
        nonlocal most, now
        now += 1
        most = max(most, now)
        try:
            while await stream.receive_some():
                pass
        finally:
            now -= 1

    async with backend(hang) as target:
        record = await watch(config(target, duration=20.0, rate=2.0, probe={"timeout": 15.0}))
        assert record.counts.total in range(8, 12)
        many = config(target, duration=4.0, rate=30.0, probe={"timeout": 0.2})
        record = await watch(many)
    assert most <= 60
    assert record.counts.total > 100


@in_virtual_time
async def test_what_a_sleeping_laptop_missed_is_left_out() -> None:
    """Not made up for in one go when it wakes."""
    async with backend(drawing(TWO, seed=1)) as target, trio.open_nursery() as nursery:

        async def sleep() -> None:
            await trio.sleep(2.1)
            clock = trio.lowlevel.current_clock()
            assert isinstance(clock, MockClock)
            clock.jump(100)

        nursery.start_soon(sleep)
        record = await watch(config(target, duration=105.0))
    assert record.counts.total in range(22, 35)


@in_virtual_time
async def test_a_closed_port_is_looked_up_again() -> None:
    """Refused once a try; nothing else happens."""
    sock, target = closed_port()
    with sock:
        record = await watch(config(target, duration=5.0))
    assert record.counts.outcomes == {Outcome.REFUSED: record.counts.total}


class Resolver(trio.abc.HostnameResolver):
    """Knows some addresses, whatever the name, or none.

    Attributes:
        addresses: what it knows now.
        looked: how often it was asked.
    """

    def __init__(self, *addresses: str) -> None:
        self.addresses = addresses
        self.looked = 0

    async def getaddrinfo(  # type: ignore[override] # wider than asked for
        self, _host: object, port: int, *settings: int
    ) -> list[Any]:
        """Answer for any name."""
        self.looked += 1
        if not self.addresses:
            raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")
        return [
            one
            for address in self.addresses
            for one in socket.getaddrinfo(address, port, *settings)
        ]

    async def getnameinfo(self, *_: object) -> tuple[str, str]:
        """Nobody asks."""
        raise AssertionError


@in_virtual_time
async def test_a_name_that_does_not_resolve_is_a_failure() -> None:
    """Looked up once a second; what it once resolved to stays in use."""
    resolver = Resolver()
    trio.socket.set_custom_hostname_resolver(resolver)
    async with backend(drawing(TWO, seed=1)) as target, trio.open_nursery() as nursery:

        async def come_and_go() -> None:
            await trio.sleep(10)
            resolver.addresses = ("127.0.0.1",)
            await trio.sleep(20)
            resolver.addresses = ()

        nursery.start_soon(come_and_go)
        settings = config(target.replace("127.0.0.1", "echo.test"), rate=1.0, duration=60.0)
        record = await watch(settings)
    assert record.counts.outcomes[Outcome.RESOLVE] in range(9, 13)
    assert record.counts.errors == record.counts.outcomes[Outcome.RESOLVE]
    assert record.counts.outcomes[Outcome.OK] > 45
    assert resolver.looked < 15


@in_virtual_time
async def test_of_two_addresses_the_one_that_answers_is_used() -> None:
    """The other one refuses, which is no failure of the target."""
    trio.socket.set_custom_hostname_resolver(Resolver("127.0.0.2", "127.0.0.1"))
    async with backend(drawing(TWO, seed=1)) as target:
        record = await watch(config(target.replace("127.0.0.1", "echo.test"), duration=5.0))
    assert record.counts.errors == 0
    assert record.counts.outcomes[Outcome.OK] >= 23


@in_virtual_time
async def test_tls_is_watched_and_held(tmp_path: Path) -> None:
    """Held connections shake hands too; with a foreign authority nobody answers."""
    certificates = Certificates.issue(tmp_path)
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(certificates.cert, certificates.key)
    async with backend(drawing(TWO, seed=1), tls=context) as target:
        tls = ProbeTLS(ca=certificates.ca, server_name="localhost")
        settings = config(target, hold=1, rate=1.0, duration=5.0, probe={"tls": tls})
        watching: list[Watch] = []
        record = await watch(settings, follow=watching.append)
        assert record.counts.errors == 0
        assert record.counts.outcomes[Outcome.OK] >= 4
        foreign = ProbeTLS(server_name="localhost")
        settings = config(target, hold=1, rate=1.0, duration=3.0, probe={"tls": foreign})
        record = await watch(settings)
    assert record.counts.outcomes[Outcome.TLS] >= 2


async def test_it_can_be_stopped_and_cancelled() -> None:
    """Either way nothing is left open."""
    one = Backend("one")
    async with standing(one) as target:
        records: list[Record] = []
        async with trio.open_nursery() as nursery:
            watching: list[Watch] = []

            async def run() -> None:
                records.append(
                    await watch(config(target, hold=3, rate=50.0), follow=watching.append)
                )

            nursery.start_soon(run)
            while not (watching and watching[0].record.held == 3):  # noqa: ASYNC110 - until real sockets are there
                await trio.sleep(0.01)
            watching[0].stop()
        assert records[0].counts.errors == 0
        with trio.move_on_after(0.3) as scope:
            await watch(config(target, hold=3, rate=50.0))
        assert scope.cancelled_caught
        while one.open:  # noqa: ASYNC110 - the backend sees the end a moment later
            await trio.sleep(0.01)


@pytest.mark.parametrize(
    ("named", "settings"),
    [
        ("rate", {"rate": 0.0}),
        ("rate", {"rate": float("inf")}),
        ("duration", {"duration": -1.0}),
        ("hold", {"hold": -1}),
    ],
)
def test_settings_that_cannot_work_are_refused(named: str, settings: dict[str, Any]) -> None:
    """Each by its name."""
    with pytest.raises(ConfigError) as refused:
        config("localhost:9000", **settings)
    assert refused.value.field == named
