"""A listener that is about to close keeps its backlog and takes no more into it."""

from __future__ import annotations

import socket
import sys

import pytest

from trio_echo.server.refuse import refuse_new

pytestmark = pytest.mark.skipif(
    not sys.platform.startswith("linux"), reason="only Linux can keep connections away"
)


class Unprivileged(socket.socket):
    """A socket of a process that may not attach a filter, as in a container."""

    def setsockopt(self, level: int, optname: int, *value: object) -> None:
        """Refuse, as newer kernels do without CAP_NET_ADMIN.

        Raises:
            PermissionError: always.
        """
        raise PermissionError(level, optname, value)


@pytest.mark.parametrize("kind", [socket.socket, Unprivileged])
def test_the_backlog_stays_and_nothing_is_added(kind: type[socket.socket]) -> None:
    """With or without the privilege for a filter, who waits is served and the next is not."""
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
