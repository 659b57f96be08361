"""Any stream as a transport: what `EpollStream` does of itself, the generic loop does too."""

from __future__ import annotations

import pytest
import trio
import trio.testing

from trio_echo.server.stream import LoopStream


async def test_an_interruption_finds_who_waits() -> None:
    """Nobody at first; then the receiver, who can go on afterwards."""
    client, stream = trio.testing.memory_stream_pair()
    transport = LoopStream(stream, lambda: None)
    assert not transport.interrupt(KeyError())

    async def receive() -> None:
        with pytest.raises(KeyError):
            await transport.receive_some()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(receive)
        await trio.testing.wait_all_tasks_blocked()
        assert transport.interrupt(KeyError())
    await client.send_all(b"a")
    assert await transport.receive_some() == b"a"
    assert not transport.interrupt(KeyError())


async def test_what_comes_as_it_is_interrupted_is_not_lost() -> None:
    """The bytes had woken the task already: they are there for the next receive."""
    _, server = trio.testing.memory_stream_pair()
    transport = LoopStream(server, lambda: None)

    async def receive_twice() -> None:
        with pytest.raises(TimeoutError):
            await transport.receive_some(100)
        assert await transport.receive_some(100) == b"late\n"

    async with trio.open_nursery() as nursery:
        nursery.start_soon(receive_twice)
        await trio.testing.wait_all_tasks_blocked()
        server.receive_stream.put_data(b"late\n")
        assert transport.interrupt(TimeoutError())
        nursery.cancel_scope.deadline = trio.current_time() + 5
    assert not nursery.cancel_scope.cancelled_caught
