"""One edge-triggered epoll for all connections, and the task that awaits it.

trio waits for a socket by arming a one-shot registration, sleeping, and arming
it again for the next wait. Here each connection is registered once, for edges,
with an epoll of our own, whose descriptor is itself pollable: one task awaits
that, and takes the ready connections by the batch.
"""

from __future__ import annotations

import errno
import select
from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Final

import outcome
import trio
from trio.lowlevel import Abort

if TYPE_CHECKING:
    import socket
    from collections.abc import Callable

    from trio.lowlevel import RaiseCancelT, Task

__all__ = ["Hub", "HubSocket", "closed_error", "translated"]


def _event(name: str) -> int:
    """Look up an event; 0 where there is no epoll, and this is imported only."""
    value: int = getattr(select, f"EPOLL{name}", 0)
    return value


# A receive that stops short has drained the socket, unless it ended at an end
# of file or at TCP's urgent mark. These announce them.
_MARKS: Final = _event("RDHUP") | _event("PRI")
_BROKEN: Final = _event("HUP") | _event("ERR")
_READ: Final = _event("IN")
_READABLE: Final = _READ | _MARKS | _BROKEN
_WRITABLE: Final = _event("OUT") | _BROKEN
_INTEREST: Final = _READ | _MARKS | _event("ET")

_LOOKS: Final = range(8)
"""Looks for ready connections before other tasks have a turn."""

_MANY: Final = 4
"""Connections ready at once that make it worth looking for more."""


class Hub:
    """One epoll for all connections, and the task that awaits it.

    Start `run` in a nursery that outlives every use of the streams.
    """

    def __init__(self) -> None:
        self._epoll = select.epoll()
        self._streams: dict[int, HubSocket] = {}
        # Streams whose turn was over before all that had arrived was answered;
        # no edge will announce the rest. In order, each once.
        self._unfinished: dict[HubSocket, None] = {}

    async def run(self) -> None:
        """Give every parked stream its turns, until cancelled."""
        streams = self._streams
        try:
            while True:
                if self._unfinished:
                    await trio.lowlevel.checkpoint()
                else:
                    await trio.lowlevel.wait_readable(self._epoll.fileno())
                # A pass through trio's loop costs more than two lines do. While
                # many are ready, many more will be by the time they are served:
                # look again at once, which took 1 of 11 us off a line. Small
                # batches are not worth a look of their own.
                for _ in _LOOKS:
                    ready = self._epoll.poll(0)
                    unfinished, self._unfinished = self._unfinished, {}
                    for descriptor, events in ready:
                        # An event is a hint. One for a connection closed since
                        # finds none here, or the one that got its descriptor's
                        # number next: that one tries a receive in vain.
                        if (stream := streams.get(descriptor)) is not None:
                            stream.edge(events)
                    for stream in unfinished:
                        stream.turn()
                    if len(ready) < _MANY:
                        break
        finally:
            self._epoll.close()

    def register(self, descriptor: int, stream: HubSocket) -> None:
        """Report the edges of a stream; what is ready already is the first."""
        self._epoll.register(descriptor, _INTEREST)
        self._streams[descriptor] = stream

    def report_writable(self, descriptor: int) -> None:
        """Report from now on when a registered stream can be written, as it may be now.

        Not from the start: every new stream can be, and that report would wake
        the hub once more for nothing.
        """
        self._epoll.modify(descriptor, _INTEREST | _event("OUT"))

    def forget(self, descriptor: int, stream: HubSocket) -> None:
        """Drop a stream that is about to close its descriptor.

        The closing takes it out of the epoll: no descriptor is duplicated here.
        """
        self._streams.pop(descriptor, None)
        self._unfinished.pop(stream, None)

    def finish_later(self, stream: HubSocket) -> None:
        """Give a stream another turn, after all that are ready by then."""
        self._unfinished[stream] = None


class HubSocket(ABC):
    """A socket on a hub, and the tasks that wait for it: one reader, one writer.

    It is registered with the hub when a task first has to wait; a client that
    has sent its line and gone before that costs no registration.

    Args:
        hub: one whose `Hub.run` is running.
        sock: connected and non-blocking; owned by this object from now on.
    """

    __slots__ = ("_hub", "_marked", "_reader", "_registered", "_sock", "_writer")

    def __init__(self, hub: Hub, sock: socket.SocketType) -> None:
        self._hub = hub
        self._marked = False
        self._reader: Task | None = None
        self._registered = False
        self._sock = sock
        self._writer: Task | None = None

    def edge(self, events: int) -> None:
        """Take an edge from the hub."""
        if events != _READ:  # which alone is what a line is
            if events & _MARKS:
                self._marked = True
            if events & _WRITABLE and self._writer is not None:
                task, self._writer = self._writer, None
                trio.lowlevel.reschedule(task)
            if not events & _READABLE:
                return
        self.turn()

    @abstractmethod
    def turn(self) -> None:
        """Serve or wake the reader, if there is one, in the hub's task."""

    def _as_reader(self) -> Callable[[RaiseCancelT], Abort]:
        """Make this task the reader; it then awaits `wait_task_rescheduled` with the result."""
        self._register()
        self._reader = trio.lowlevel.current_task()
        return self._abort_reader

    def _abort_reader(self, _: RaiseCancelT) -> Abort:
        self._reader = None
        return Abort.SUCCEEDED

    def _as_writer(self) -> Callable[[RaiseCancelT], Abort]:
        """Make this task the writer, as `_as_reader` does the reader."""
        self._register()
        self._hub.report_writable(self._sock.fileno())
        self._writer = trio.lowlevel.current_task()
        return self._abort_writer

    def _abort_writer(self, _: RaiseCancelT) -> Abort:
        self._writer = None
        return Abort.SUCCEEDED

    def _register(self) -> None:
        if not self._registered:
            self._registered = True
            self._hub.register(self._sock.fileno(), self)

    def close(self) -> None:
        """Close at once. Tasks that wait on this stream are told so."""
        descriptor = self._sock.fileno()
        if descriptor < 0:
            return
        if self._registered:
            self._hub.forget(descriptor, self)
        self._sock.close()
        if self._reader is not None or self._writer is not None:
            self.interrupt(closed_error())

    def interrupt(self, error: Exception) -> bool:
        """Raise an exception in the tasks that wait on this stream; tell if any did.

        A cancel scope for each connection could do it too, at 15 us for each.
        """
        waiting = [task for task in (self._reader, self._writer) if task is not None]
        for task in waiting:
            trio.lowlevel.reschedule(task, outcome.Error(error))
        self._reader = self._writer = None
        return bool(waiting)


def translated(error: OSError) -> trio.BrokenResourceError | trio.ClosedResourceError:
    """Turn a socket's error into trio's, here and nowhere else."""
    if error.errno == errno.EBADF:
        return closed_error()
    return trio.BrokenResourceError(f"socket connection broken: {error}")


def closed_error() -> trio.ClosedResourceError:
    """Tell a task that the stream was closed under it."""
    return trio.ClosedResourceError("this stream is closed")
