"""A watch of other people's servers: asked again where that makes sense, held where not."""

from __future__ import annotations

import ssl
from typing import TYPE_CHECKING, Any

import pytest
import trio
import trustme
from backends import backend
from trio.testing import MockClock

from trio_echo.monitor.watch import WatchConfig, watch
from trio_echo.prober.config import ProbeConfig
from trio_echo.prober.counts import Outcome

if TYPE_CHECKING:
    from backends import Handler

    from trio_echo.monitor.record import Record

pytest.importorskip("re2", reason="google-re2 is not installed: pip install google-re2")


def watched(
    handler: Handler, tls: ssl.SSLContext | None = None, *, seconds: float, **settings: Any
) -> Record:
    """Watch a server with two connections held, in a time that jumps."""

    async def run() -> Record:
        async with backend(handler, tls) as target:
            probe = ProbeConfig(target=target, timeout=2.0, **settings)
            return await watch(WatchConfig(probe=probe, hold=2, duration=seconds, rate=2.0))

    return trio.run(run, clock=MockClock(autojump_threshold=0.004))


def test_held_connections_are_asked_again() -> None:
    """What comes late of an answer is no fault, another name in the next one is."""
    asked: list[int] = []

    async def moody(stream: trio.abc.Stream) -> None:
        number = 0
        while await stream.receive_some():
            number += 1
            asked.append(number)
            await stream.send_all(b"I am %s\n" % (b"two" if number == 5 else b"one"))
            await trio.sleep(0.1)
            await stream.send_all(b"and that is all\n")

    record = watched(moody, seconds=7, send=b"who\n", identify=r"^I am (\S+)")
    assert max(asked) == 5
    assert record.lost == {Outcome.WRONG_ECHO: 2}
    assert record.counts.answers.keys() == {"one"}
    assert record.counts.errors == 0
    assert "from another backend" in record.events[0].text


def test_held_connections_where_the_server_speaks_first() -> None:
    """They are not asked again; their end is told with their age."""

    async def patient(stream: trio.abc.Stream) -> None:
        await stream.send_all(b"220 one ready\r\n")
        await trio.sleep(1)
        await stream.send_all(b"421 anybody there?\r\n")
        with trio.move_on_after(4):
            assert not await stream.receive_some()

    record = watched(patient, seconds=7, identify=r"^220 (\S+)")
    assert record.lost == {Outcome.EOF_BEFORE_ANSWER: 2}
    assert "held connection to one lost after 5.0" in record.events[0].text


def test_held_connections_known_by_certificate() -> None:
    """Nothing is ever sent over them."""
    lasted: list[float] = []

    async def silent(stream: trio.abc.Stream) -> None:
        began = trio.current_time()
        try:
            assert not await stream.receive_some()
        finally:
            lasted.append(trio.current_time() - began)

    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    trustme.CA().issue_cert("one.test").configure_cert(context)
    record = watched(silent, context, seconds=3, identify_cert="sha256")
    assert not record.lost
    assert sum(seconds > 2 for seconds in lasted) == 2
    [name] = record.counts.answers
    assert len(name) == 64


def test_a_server_that_ends_each_connection_is_not_flooded() -> None:
    """A held connection that is lost at once is replaced after a second, not at once."""
    came = 0

    async def brief(stream: trio.abc.Stream) -> None:
        nonlocal came
        came += 1
        await stream.send_all(b"220 one ready\r\n")

    record = watched(brief, seconds=5.5, identify=r"^220 (\S+)")
    assert record.lost == {Outcome.EOF_BEFORE_ANSWER: 10}
    assert came == 12 + 11
    assert "one answered its replacement after" in record.events[0].text
