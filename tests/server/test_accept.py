"""Accepting: whatever fails, the next client is served."""

from __future__ import annotations

import errno
import socket
from typing import TYPE_CHECKING

import trio
from serving import connected, exchange, running

if TYPE_CHECKING:
    import pytest


async def test_a_connection_that_broke_in_the_backlog_harms_nobody(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Some systems report it at the accept; the next one is served."""
    faults = [errno.ECONNABORTED, errno.EPROTO]
    accept = socket.socket._accept  # type: ignore[attr-defined]  # noqa: SLF001 - as the acceptor does

    def broken(listener: socket.socket) -> object:
        if faults:
            raise OSError(faults.pop(), "broken")
        return accept(listener)

    async with running() as server:
        monkeypatch.setattr(socket.socket, "_accept", broken, raising=False)
        async with connected(server) as (client,):
            with trio.fail_after(5):
                await exchange(client, b"a\n", b"one a\n")
    assert not faults
