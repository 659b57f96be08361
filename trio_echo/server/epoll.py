"""The engine: streams that share one edge-triggered epoll, and can relay without a task switch.

It knows sockets and bytes, and nothing of lines or prefixes::

    async with open_hub() as hub:
        stream = hub.stream(sock)  # connected and non-blocking
        try:
            await stream.relay(bytes.upper, 65_536)  # until the client's end of file
        finally:
            stream.close()

A stream is also what trio calls a half-closeable stream, so that `receive_some`
and `send_all` are there for whatever is no relaying.

Theory of operation
===================

trio waits for a socket by arming a one-shot registration, sleeping until it
fires, and arming it again for the next wait. For an answer of a few bytes, that
and the two task switches cost several times what the answer itself does. So:

* The hub has an epoll of its own, in which each stream is registered once, for
  edges. An epoll is itself pollable: one task awaits the hub's with trio, and
  takes what is ready by the batch.
* While a task is parked in `EpollStream.relay`, the hub's task receives,
  transforms and sends on its behalf. A client that does not read blocks its
  own stream only: the rest of the answer is kept, nothing more is received,
  and the hub goes on as soon as the kernel has room. The parked task wakes for
  what needs one: the end of file, an error, a cancellation, an `interrupt`.

Server CPU for a line, one line per round trip on 50 connections, in one run of
``nox -s bench``: 19 us with trio's own streams and a send per line, 7 us here.

An edge tells that something changed; it does not come again. These rules keep
every wake-up:

* A receive that fills its chunk leaves the stream with more to read, and so
  with another turn to come. One that falls short has drained the socket, which
  saves the call that would say so by failing. It can fall short for two other
  reasons, an end of file behind the bytes or TCP's urgent mark amid them. The
  kernel announces both, and from then on a short receive proves nothing.
* A task that begins to wait has just tried in vain, or registers the stream
  (again) with what it waits for. The kernel takes that for a question, and
  reports as the first edge what is ready by then.
* A send that falls short has the kernel report when there is room again.

Fairness
--------

The hub's task must not keep all others, and trio itself, waiting. A turn of the
hub ends after `TURN` seconds, however many streams are ready; only the chunk
that is being served by then is finished, and one of the queue served. Events
that it had no time for come first at the next turn. A stream that becomes ready
has a small chunk served, and queues if there is more: behind the others that have
more, and behind all that are newly ready, so that a line from a quiet client does
not wait for the busy ones. One of the queue is served in each turn: nobody starves.
What tasks serve themselves, at the beginning of a `relay`, is a small chunk, too.

Median wait beside 20 clients that send bare newlines and read, in one run of
``nox -s bench``: a new connection 10 ms, a line on an open one 5 ms, ``/livez``
24 ms. When a turn was bounded in rounds it was 160 ms, 73 ms and 3 s.

Life time
---------

`open_hub` closes the epoll when its block is left, by which time every task that
uses a stream has to be done: open the nursery of those tasks inside the block.
"""

from __future__ import annotations

import errno
import fcntl
import select
import socket
import struct
import termios
import time
from collections import deque
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Final

import outcome
import trio
from trio.lowlevel import Abort

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable, Iterable

    from trio.lowlevel import RaiseCancelT, Task

__all__ = ["TURN", "EpollStream", "Hub", "open_hub"]

TURN: Final = 0.002
"""Seconds that a turn of the hub lasts while there is more to do."""

_MANY: Final = 4
"""Streams ready at once that make it worth looking for more."""

_SMALL: Final = 8 * 1024
"""Bytes that a stream may have served as soon as it is ready: less than 0.2 ms, were
they all newlines. What there is beyond queues."""

_ANY: Final = 1 << 30
"""More than any chunk."""


def _event(name: str) -> int:
    """Look up an event; 0 where there is no epoll, and this is imported only."""
    value: int = getattr(select, f"EPOLL{name}", 0)
    return value


_MARKS: Final = _event("RDHUP") | _event("PRI")
_BROKEN: Final = _event("HUP") | _event("ERR")
_READ: Final = _event("IN")
_READABLE: Final = _READ | _MARKS | _BROKEN
_WRITE: Final = _event("OUT")
_WRITABLE: Final = _WRITE | _BROKEN
_INTEREST: Final = _READ | _MARKS | _event("ET")

# What serving a chunk ended with.
_DRAINED: Final = 0  # all that had arrived is answered
_MORE: Final = 1  # there may be more
_BLOCKED: Final = 2  # the client does not read: part of an answer is unsent
_EOF: Final = 3  # the client will send no more


@asynccontextmanager
async def open_hub(clock: Callable[[], float] = time.perf_counter) -> AsyncGenerator[Hub]:
    """Run a hub for the length of the block.

    Args:
        clock: tells the seconds by which the hub bounds its turns.
    """
    hub = Hub(clock)
    try:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(hub.run)
            yield hub
            nursery.cancel_scope.cancel()
    finally:
        hub.close()


class Hub:
    """One epoll for all streams, and the task that awaits it. Made by `open_hub`."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._epoll = select.epoll()
        self._streams: dict[int, EpollStream] = {}
        # Events that the last turn had no time for.
        self._events: Iterable[tuple[int, int]] = ()
        # Streams that have more to serve, which no edge will announce, each once.
        self._queue: deque[EpollStream] = deque()

    def stream(self, sock: socket.SocketType) -> EpollStream:
        """Make a stream of a connected, non-blocking socket, which it then owns."""
        return EpollStream(self, sock)

    async def run(self) -> None:
        """Give every parked stream its turns, until cancelled."""
        while True:
            if self._queue or self._events:
                await trio.lowlevel.checkpoint()
            else:
                await trio.lowlevel.wait_readable(self._epoll.fileno())
            self._turn()

    def _turn(self) -> None:
        """Serve what is ready, until little is or the time is over."""
        clock, streams, queue = self._clock, self._streams, self._queue
        end = clock() + TURN
        events, few = self._events, False
        while True:
            if not events:
                ready = self._epoll.poll(0)
                events, few = iter(ready), len(ready) < _MANY
            for descriptor, happened in events:
                # An event is a hint. One for a stream closed since finds none
                # here, or the one that got its descriptor's number next: that
                # one tries a receive in vain.
                if (stream := streams.get(descriptor)) is not None:
                    if happened != _READ:  # which alone is what a line is
                        stream.edge(happened)
                    elif not stream.queued:
                        stream.turn(_SMALL)
                    if clock() >= end:
                        break
            else:
                events = ()
            if queue:
                self._serve_queue(end)
            # A pass through trio's loop costs more than two lines do. While
            # many are ready, many more will be by the time they are served:
            # look again at once, which took 1 of 11 us off a line. Small
            # batches are not worth a look of their own.
            if few or clock() >= end:
                self._events = events
                return

    def _serve_queue(self, end: float) -> None:
        """Give those that queue by now their turns, until the time is over, but the first."""
        for _ in range(len(self._queue)):
            stream = self._queue.popleft()
            stream.queued = False
            stream.turn(_ANY)
            if self._clock() >= end:
                break

    def watch(self, descriptor: int, stream: EpollStream, interest: int, *, again: bool) -> None:
        """Report the edges of a stream; what is ready already is the first."""
        if again:
            self._epoll.modify(descriptor, interest)
        else:
            self._epoll.register(descriptor, interest)
            self._streams[descriptor] = stream

    def forget(self, descriptor: int) -> None:
        """Drop a stream that is about to close its descriptor.

        The closing takes it out of the epoll: no descriptor is duplicated here.
        """
        self._streams.pop(descriptor, None)

    def queue(self, stream: EpollStream) -> None:
        """Give a stream another turn, after all that are ready by then."""
        self._queue.append(stream)

    def close(self) -> None:
        """Close the epoll. No stream may be waited for any more."""
        self._epoll.close()


class EpollStream(trio.abc.HalfCloseableStream):
    """A connected socket on a hub: a trio stream, and `relay`. Made by `Hub.stream`.

    It is registered with the hub when it first has to wait; a client that has
    sent its line and gone before that costs no registration.

    One task may receive and one may send at a time; `relay` does both.

    Attributes:
        queued: whether it has a turn to come; the hub's own.
        received: bytes received so far.
        sent: bytes that the kernel has taken for sending so far.
    """

    __slots__ = (
        "_begun",
        "_chunk_size",
        "_eof_sent",
        "_feed",
        "_hub",
        "_interest",
        "_marked",
        "_reader",
        "_sock",
        "_unsent",
        "_writer",
        "queued",
        "received",
        "sent",
    )

    def __init__(self, hub: Hub, sock: socket.SocketType) -> None:
        self._hub = hub
        self._sock = sock
        self._begun: outcome.Outcome[int] | None = None
        self._chunk_size = 0
        self._eof_sent = False
        self._feed: Callable[[bytes], bytes] | None = None
        self._interest = 0  # what it is registered for
        self._marked = False
        self._reader: Task | None = None
        self._unsent: memoryview | None = None
        self._writer: Task | None = None
        self.queued = False
        self.received = 0
        self.sent = 0

    @property
    def blocked(self) -> bool:
        """Whether part of what is to be sent waits for the client to read."""
        return self._unsent is not None

    @property
    def unsent(self) -> int:
        """Bytes that are kept here until the kernel has room for them."""
        return 0 if self._unsent is None else len(self._unsent)

    @property
    def moved(self) -> int:
        """Bytes received and sent so far."""
        return self.received + self.sent

    def pending(self) -> bool:
        """Tell whether something has arrived that was not received."""
        return arrived(self._sock)

    async def relay(self, feed: Callable[[bytes], bytes], chunk_size: int) -> None:
        """Put every chunk that arrives through `feed`, and send what it returns.

        Returns at the client's end of file. Back-pressure is kept: while the
        client does not read, it is not read from. What has arrived already, 8 KiB
        of it at most, is answered before the first checkpoint, even when cancelled.

        Args:
            feed: called by this task or the hub's, never by both at once.
            chunk_size: the most bytes to receive at once.

        Raises:
            trio.BrokenResourceError: the client broke the connection.
            trio.ClosedResourceError: another task closed this stream.
            trio.BusyResourceError: another task is receiving or sending.
            Exception: whatever `feed` raised; the chunk is lost.

        After a cancellation every chunk received has been through `feed`. If
        nothing was `blocked` by then, every answer has been sent, and `relay`
        may be called again. Else the rest of an answer is lost: only close the
        stream then.
        """
        self._check_receiver()
        begun, self._begun = self._begun, None
        if begun is None:
            self._check_sender()
        self._feed, self._chunk_size = feed, chunk_size
        try:
            state = self._serve(min(chunk_size, _SMALL)) if begun is None else begun.unwrap()
            if state != _EOF:
                interest = _INTEREST | _WRITE if state == _BLOCKED else _INTEREST
                # After _DRAINED, an edge will tell of more: no question is needed.
                self._become_reader(interest, ask=state != _DRAINED)
                await trio.lowlevel.wait_task_rescheduled(self._abort_reader)
        finally:
            self._feed = self._unsent = None

    def begin(self, feed: Callable[[bytes], bytes], chunk_size: int) -> None:
        """Do the first turn of a `relay` that is to come, before its task has a turn.

        The acceptor does this for clients that have sent already. Many have
        read the answer and left when the task gets its turn, which then finds
        the end of file without having to wait: 42 us in place of 50 for a
        client that connects, sends a line and leaves.

        What fails in here, `relay` raises.
        """
        self._feed, self._chunk_size = feed, chunk_size
        try:
            state = self._serve(min(chunk_size, _SMALL))
        except Exception as error:  # noqa: BLE001 - raised where it belongs, in the handler task
            self._begun = outcome.Error(error)
        else:
            # Whatever else there is to receive is for `relay` to find.
            if state in (_BLOCKED, _EOF):
                self._begun = outcome.Value(state)
        self._feed = None

    def _serve(self, size: int) -> int:
        """Answer a chunk of what has arrived, of `size` bytes at most. No checkpoint.

        This is all that happens to a line between epoll and the kernel's send
        buffer; nothing is in here that does not need to be.
        """
        if self._unsent is not None and not self._send_some():
            return _BLOCKED
        feed = self._feed
        assert feed is not None  # noqa: S101 - only ever called while relaying
        try:
            chunk = self._sock.recv(size)
        except BlockingIOError:
            return _DRAINED
        except OSError as error:
            raise _translated(error) from error
        if not chunk:
            return _EOF
        self.received += len(chunk)
        answer = feed(chunk)
        if answer:
            try:
                sent = self._sock.send(answer)
            except BlockingIOError:
                sent = 0
            except OSError as error:
                raise _translated(error) from error
            self.sent += sent
            if sent != len(answer):
                self._unsent = memoryview(answer)[sent:]
                return _BLOCKED
        return _MORE if len(chunk) == size or self._marked else _DRAINED

    def edge(self, events: int) -> None:
        """Take an edge from the hub that is not just something to read."""
        if events & _MARKS:
            self._marked = True
        if events & _WRITABLE and self._writer is not None:
            task, self._writer = self._writer, None
            trio.lowlevel.reschedule(task)
        if (events & _READABLE or self._unsent is not None) and not self.queued:
            self.turn(_SMALL)

    def turn(self, most: int) -> None:
        """Serve a chunk of that size at most, or wake the reader, in the hub's task."""
        if self._reader is None:
            return
        if self._feed is None:
            self._wake_reader(outcome.Value(None))
            return
        try:
            size = self._chunk_size
            # min() would be a call for each line.
            state = self._serve(size if size < most else most)  # noqa: FURB136 - see above
        except Exception as error:  # noqa: BLE001 - raised where it belongs, in the handler task
            self._wake_reader(outcome.Error(error))
            return
        if state == _DRAINED:
            return
        if state == _MORE:
            self.queued = True
            self._hub.queue(self)
        elif state == _EOF:
            self._wake_reader(outcome.Value(None))
        elif not self._interest & _WRITE:
            self._watch(_INTEREST | _WRITE)

    def _wake_reader(self, result: outcome.Outcome[None]) -> None:
        task, self._reader = self._reader, None
        assert task is not None  # noqa: S101 - only ever called where one waits
        trio.lowlevel.reschedule(task, result)

    async def receive_some(self, max_bytes: int | None = None) -> bytes:
        """Receive at least one byte, or none at the end of file.

        A cancellation loses nothing.
        """
        if max_bytes is not None and max_bytes < 1:
            raise ValueError("max_bytes must be >= 1")
        self._check_receiver()
        await trio.lowlevel.checkpoint()
        while True:
            self._check_receiver()
            try:
                chunk = self._sock.recv(max_bytes or 65_536)
            except BlockingIOError:
                self._become_reader(_INTEREST, ask=False)
                await trio.lowlevel.wait_task_rescheduled(self._abort_reader)
            except OSError as error:
                raise _translated(error) from error
            else:
                self.received += len(chunk)
                return chunk

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        """Send all of `data`; after a cancellation, a part of it may be sent."""
        self._check_sender()
        self._unsent = memoryview(data)
        try:
            await trio.lowlevel.checkpoint()
            while not self._send_some():
                await self._wait_to_write()
        finally:
            self._unsent = None

    def _send_some(self) -> bool:
        """Send what is unsent, as far as the kernel has room; tell whether that was all."""
        assert self._unsent is not None  # noqa: S101 - only ever called with something to send
        try:
            sent = self._sock.send(self._unsent)
        except BlockingIOError:
            return False
        except OSError as error:
            raise _translated(error) from error
        self.sent += sent
        if sent != len(self._unsent):
            self._unsent = self._unsent[sent:]
            return False
        self._unsent = None
        return True

    async def wait_send_all_might_not_block(self) -> None:
        """Wait until the kernel has room for something."""
        self._check_sender()
        self._unsent = memoryview(b"")  # marks this stream as busy sending
        try:
            await self._wait_to_write()
        finally:
            self._unsent = None

    async def send_eof(self) -> None:
        """Tell the client that nothing more comes; it may go on sending."""
        if self._unsent is not None:
            raise trio.BusyResourceError("another task is sending")
        if not self._eof_sent:
            try:
                self._sock.shutdown(socket.SHUT_WR)
            except OSError as error:
                raise _translated(error) from error
            self._eof_sent = True
        await trio.lowlevel.checkpoint()

    async def aclose(self) -> None:
        """Close at once, as `close` does, even when cancelled."""
        self.close()
        await trio.lowlevel.checkpoint()

    def close(self) -> None:
        """Close at once. Tasks that wait on this stream are told so."""
        descriptor = self._sock.fileno()
        if descriptor < 0:
            return
        if self._interest:
            self._hub.forget(descriptor)
        self._sock.close()
        if self._reader is not None or self._writer is not None:
            self.interrupt(_closed())

    def interrupt(self, error: Exception) -> bool:
        """Raise an exception in the tasks that wait on this stream; tell if any did.

        A cancel scope for each connection could do it too, at 15 us for each.
        """
        waiting = [task for task in (self._reader, self._writer) if task is not None]
        for task in waiting:
            trio.lowlevel.reschedule(task, outcome.Error(error))
        self._reader = self._writer = None
        return bool(waiting)

    def _become_reader(self, interest: int, *, ask: bool) -> None:
        """Have the hub wake this task at the end of the relaying, or to receive something.

        It waits next, itself: one more coroutine would be 0.3 KiB for each idle client.

        Args:
            interest: events to be registered for.
            ask: have the kernel report what is ready already, though it may
                have reported it before.
        """
        if ask or not self._interest:
            self._watch(interest)
        self._reader = trio.lowlevel.current_task()

    def _abort_reader(self, _: RaiseCancelT) -> Abort:
        self._reader = None
        return Abort.SUCCEEDED

    async def _wait_to_write(self) -> None:
        """Wait for room, on a stream that has none or has not asked yet."""
        # Not registered for it from the start: every new stream has room, and
        # that report would wake the hub once more for nothing.
        self._watch(_INTEREST | _WRITE)
        self._writer = trio.lowlevel.current_task()
        await trio.lowlevel.wait_task_rescheduled(self._abort_writer)

    def _abort_writer(self, _: RaiseCancelT) -> Abort:
        self._writer = None
        return Abort.SUCCEEDED

    def _watch(self, interest: int) -> None:
        """Have the hub report edges, the first of what is ready already."""
        again = self._interest != 0
        self._interest |= interest
        self._hub.watch(self._sock.fileno(), self, self._interest, again=again)

    def _check_receiver(self) -> None:
        if self._sock.fileno() < 0:
            raise _closed()
        if self._reader is not None or self._feed is not None:
            raise trio.BusyResourceError("another task is receiving")

    def _check_sender(self) -> None:
        if self._sock.fileno() < 0:
            raise _closed()
        if self._eof_sent:
            raise trio.ClosedResourceError("the end of file is sent, nothing may follow it")
        if self._unsent is not None or self._feed is not None:
            raise trio.BusyResourceError("another task is sending")


def arrived(sock: socket.SocketType | trio.socket.SocketType) -> bool:
    """Tell whether bytes have arrived that were not received; an end of file is none."""
    answer = fcntl.ioctl(sock.fileno(), termios.FIONREAD, bytes(4))
    return struct.unpack("i", answer) != (0,)


def _translated(error: OSError) -> trio.BrokenResourceError | trio.ClosedResourceError:
    """Turn a socket's error into trio's, here and nowhere else."""
    if error.errno == errno.EBADF:
        return _closed()
    return trio.BrokenResourceError(f"socket connection broken: {error}")


def _closed() -> trio.ClosedResourceError:
    """Tell a task that the stream was closed under it."""
    return trio.ClosedResourceError("this stream is closed")
