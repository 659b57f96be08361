"""A listener that is about to close keeps its backlog and takes no more into it."""

from __future__ import annotations

import socket
import sys
from contextlib import closing
from typing import TYPE_CHECKING

import pytest

from trio_echo.server.refuse import admit, refuse_new

if TYPE_CHECKING:
    from collections.abc import Callable

pytestmark = pytest.mark.skipif(
    not sys.platform.startswith("linux"), reason="only Linux can keep connections away"
)


class Sandboxed(socket.socket):
    """A socket in a sandbox that lets no option be set."""

    def setsockopt(self, level: int, optname: int, *value: object) -> None:
        """Refuse.

        Raises:
            PermissionError: always.
        """
        raise PermissionError(level, optname, value)


@pytest.mark.parametrize("kind", [socket.socket, Sandboxed])
def test_the_backlog_stays_and_nothing_is_added(kind: type[socket.socket]) -> None:
    """Whatever is allowed, who waits is served and the next is not."""
    clients = [socket.socket() for _ in range(4)]
    with kind() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen(10)
        listener.setblocking(False)
        for client in clients[:2]:
            client.connect(listener.getsockname())

        refuse_new(listener)

        for client in clients[2:]:
            client.settimeout(0.05)
            with pytest.raises(TimeoutError):
                client.connect(listener.getsockname())
        accepted = [listener.accept()[0] for _ in range(2)]
        with pytest.raises(BlockingIOError):
            listener.accept()
        for client, server in zip(clients, accepted, strict=False):
            assert client.getsockname() == server.getpeername()
    for each in (*clients, *accepted):
        each.close()


def test_what_a_sandbox_forbids_is_no_fault() -> None:
    """Where nothing could be demanded, nothing has to be taken back."""
    with Sandboxed() as sock:
        admit(sock)


@pytest.mark.parametrize("call", [admit, refuse_new])
def test_elsewhere_nothing_is_done(
    monkeypatch: pytest.MonkeyPatch, call: Callable[[socket.socket], None]
) -> None:
    """The numbers of the options mean something else there."""
    monkeypatch.setattr(sys, "platform", "darwin")
    with socket.create_server(("127.0.0.1", 0)) as listener:
        call(listener)
        with socket.create_connection(listener.getsockname()), closing(listener.accept()[0]):
            pass
