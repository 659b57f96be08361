"""Limits: connections, descriptors, time and memory. Nobody is reset, nobody holds up others."""

from __future__ import annotations

import trio
import trio.testing
from serving import connected, exchange, running, until
from structlog.testing import capture_logs

# -- connections


async def test_the_next_client_waits_in_the_backlog() -> None:
    """Connected, its request written, and served as soon as a place frees; none is reset."""
    async with running(max_connections=2) as server:
        async with connected(server, 2) as (first, second), connected(server, 20) as waiting:
            for client in (first, second):
                await exchange(client, b"a\n", b"one a\n")
            for client in waiting:
                await client.send_all(b"b\n")
            await trio.testing.wait_all_tasks_blocked()
            assert server.metrics.connections == server.metrics.open == 2
            await first.aclose()
            for client in waiting:
                with trio.fail_after(5):
                    await exchange(client, b"", b"one b\n")
                assert server.metrics.open == 2
                await client.aclose()
            await exchange(second, b"c\n", b"one c\n")
        await until(lambda: not server.metrics.open)
        assert server.metrics.ended == {**dict.fromkeys(server.metrics.ended, 0), "eof": 22}


async def test_a_place_is_not_kept_for_a_listener_that_nobody_waits_at() -> None:
    """The place that frees goes to whoever waits, on whichever port."""
    async with running(ports=[0, 0], max_connections=1) as server:
        # Both listeners find it full, one after the other, in both orders.
        for first, second in ((0, 1), (1, 0)):
            async with connected(server, port=first) as (client,):
                await exchange(client, b"a\n", b"one a\n")
                async with connected(server, port=second) as (waiting,):
                    await waiting.send_all(b"b\n")
                    await trio.testing.wait_all_tasks_blocked()
                    await client.aclose()
                    with trio.fail_after(5):
                        await exchange(waiting, b"", b"one b\n")
            await until(lambda: not server.metrics.open)


async def test_the_warning_names_the_limit() -> None:
    """Also when the clients came all at once."""
    with capture_logs() as logs:
        async with running(max_connections=3) as server, connected(server, 3) as clients:
            for client in clients:
                await exchange(client, b"a\n", b"one a\n")
    assert [entry["max_connections"] for entry in logs if "max_connections" in entry] == [3]
