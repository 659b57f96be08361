"""Clients of a server that is told to end, in a process of their own.

Three kinds, in any number:

* *callers* connect, write one line at once, and read to the end: so many a second,
  whatever became of the earlier ones, or so many at a time;
* *talkers* write a line, read the answer, and so on, until a second after the port
  first refused a caller; then they end their side and read to the end;
* *slow readers* write 2 MiB, end their side, and read it back bit by bit.

What each wrote and read and when is kept; at the end one JSON object on standard
output says how they fared. The times in it count from the first refusal. The
program ends by itself: a while after that, after ``--seconds``, or after SIGTERM.

Only the standard library is used, and one epoll: the load must cost less than
the server.
"""

from __future__ import annotations

import argparse
import errno
import heapq
import json
import select
import signal
import socket
import ssl
import statistics
import sys
import time
from collections import Counter
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from itertools import count, cycle
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

__all__ = ["Account", "Order", "main"]

_READ, _WRITE = select.EPOLLIN, select.EPOLLOUT
_SLOW_LINES: Final = (b"x" * 1023 + b"\n") * 2048
_LATER: Final = (BlockingIOError, ssl.SSLWantReadError, ssl.SSLWantWriteError)
"""What a socket raises that has nothing to read, or no room."""

_PATIENCE: Final = 30.0
"""Seconds after which a client that was neither served nor ended gives up."""


@dataclass(frozen=True)
class Order:
    """What to do; each field is an option of the program.

    Attributes:
        hosts: addresses to connect to in turns, separated by commas.
        port: the server's.
        rate: callers a second.
        at_once: callers at a time.
        talkers: how many.
        slow: how many slow readers.
        seconds: after which no caller comes, even if none was refused.
        after: seconds after the first refusal in which callers still come.
        think: seconds between a caller's connection and its line.
        stay: whether callers wait for the server's end, once they are answered.
        tls: file with the authority to trust; empty for plain connections.
    """

    hosts: str
    port: int
    rate: float = 0.0
    at_once: int = 0
    talkers: int = 0
    slow: int = 0
    seconds: float = 20.0
    after: float = 0.3
    think: float = 0.0
    stay: int = 0
    tls: str = ""


@dataclass
class Account:
    """How they fared.

    Attributes:
        outcomes: clients by what became of them: ``answered``, ``refused``,
            ``unanswered SYN``, or, after they were connected, ``ended`` (cleanly,
            with no answer or a part of it), ``reset``, ``stuck``, ``wrong``.
        lost: those that were connected and not answered, one by one, with the
            times of their connection and their line, from the first refusal on.
        connect_ms: how long a connection took: median, 99th percentile, most.
        refused_ms: how long a refusal took, likewise.
    """

    outcomes: dict[str, int] = field(default_factory=dict)
    lost: list[dict[str, Any]] = field(default_factory=list)
    connect_ms: list[float] = field(default_factory=list)
    refused_ms: list[float] = field(default_factory=list)

    @property
    def came(self) -> int:
        """How many clients there were."""
        return sum(self.outcomes.values())


class Client:
    """One connection, from its first step to its outcome."""

    kind = "caller"

    def __init__(self, crowd: Crowd) -> None:
        self.crowd = crowd
        self.began = time.monotonic()
        self.connected: float | None = None
        self.written: float | None = None
        self.outcome = ""
        self.expected = b""
        self.read = b""
        self.unsent = b""
        self.sock: Any = socket.socket()
        self.sock.setblocking(False)
        host = next(crowd.hosts)
        error = self.sock.connect_ex((host, crowd.order.port))
        if error not in (0, errno.EINPROGRESS):
            self.end("refused" if error == errno.ECONNREFUSED else errno.errorcode[error])
            return
        self.step: Callable[[], None] = self.connect
        self.watched = 0
        self.watch(_WRITE)
        crowd.open.add(self)
        crowd.at(self.began + _PATIENCE, self.give_up)

    def watch(self, events: int) -> None:
        """Have a step taken when one of these is there."""
        if events == self.watched:
            return
        descriptor = self.sock.fileno()
        if self.watched:
            self.crowd.epoll.modify(descriptor, events)
        else:
            self.crowd.epoll.register(descriptor, events)
            self.crowd.watched[descriptor] = self
        self.watched = events

    def take_step(self) -> None:
        """Take it, and judge what it raises."""
        try:
            self.step()
        except (BlockingIOError, ssl.SSLWantReadError):
            self.watch(_READ)
        except ssl.SSLWantWriteError:
            self.watch(_WRITE)
        except ssl.SSLEOFError:
            self.end("ended")
        except OSError as error:
            if self.connected is None and error.errno == errno.ECONNREFUSED:
                self.end("refused")
            elif self.connected is None and error.errno == errno.ETIMEDOUT:
                self.end("unanswered SYN")
            else:
                self.end("reset")

    def connect(self) -> None:
        """Look how the connecting ended."""
        if error := self.sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR):
            raise OSError(error, "connect")
        self.connected = time.monotonic()
        self.crowd.connect_times.append(self.connected - self.began)
        if self.crowd.context is not None:
            descriptor = self.sock.fileno()
            self.sock = self.crowd.context.wrap_socket(
                self.sock, server_hostname="localhost", do_handshake_on_connect=False
            )
            assert self.sock.fileno() == descriptor
            self.step = self.shake_hands
        else:
            self.step = self.ready
        self.take_step()

    def shake_hands(self) -> None:
        """Agree on TLS."""
        self.sock.do_handshake()
        self.step = self.ready
        self.take_step()

    def ready(self) -> None:
        """Write at once, or after some thought."""
        if self.crowd.order.think:
            self.step = self.read_on
            self.crowd.at(time.monotonic() + self.crowd.order.think, self.say)
            self.watch(_READ)
        else:
            self.say()

    def say(self) -> None:
        """Write the line."""
        if self.outcome:
            return
        line = b"line %d\n" % next(self.crowd.numbers)
        self.expected = self.crowd.prefix + line
        self.step = self.read_on
        try:
            self.sock.sendall(line)  # a line always fits the kernel's buffer
        except OSError:
            self.end("reset")
            return
        self.written = time.monotonic()
        self.watch(_READ)

    def read_on(self) -> None:
        """Read, to the end of the answer."""
        part = self.sock.recv(65_536)
        self.read += part
        if not part:
            self.end(
                "answered" if self.read == self.expected and self.crowd.order.stay else "ended"
            )
        elif self.read == self.expected:
            self.answered()
        elif not self.expected.startswith(self.read):
            self.end("wrong")

    def answered(self) -> None:
        """A caller leaves, if it is not to stay."""
        if not self.crowd.order.stay:
            self.end("answered")

    def give_up(self) -> None:
        """After a long time in which nothing became of it."""
        if not self.outcome:
            self.end("unanswered SYN" if self.connected is None else "stuck")

    def end(self, outcome: str) -> None:
        """Close, and have it counted."""
        self.outcome = outcome
        self.crowd.watched.pop(self.sock.fileno(), None)
        self.sock.close()
        self.crowd.count(self)


class Talker(Client):
    """Talks on."""

    kind = "talker"

    def answered(self) -> None:
        """Talk on, until a second after the first refusal."""
        refused = self.crowd.refused
        if refused is not None and time.monotonic() > refused + 1:
            self.end("answered")
            return
        self.read = b""
        self.say()


class SlowReader(Client):
    """Writes much, and reads it bit by bit."""

    kind = "slow reader"

    def say(self) -> None:
        """Write as much as goes, and read a bit; again and again."""
        self.unsent = _SLOW_LINES
        self.expected = b"".join(
            self.crowd.prefix + line + b"\n" for line in _SLOW_LINES.split(b"\n")[:-1]
        )
        self.taken = 0
        self.step = self.turn
        self.turn()

    def turn(self) -> None:
        """One turn of it."""
        if self.outcome:
            return
        try:
            with suppress(*_LATER):
                self._send_some()
            with suppress(*_LATER):
                self._read_some()
        except OSError:
            self.end("reset")
        if not self.outcome:
            self.watch(0)
            self.crowd.at(time.monotonic() + 0.01, self.turn)

    def _send_some(self) -> None:
        if not self.unsent:
            return
        sent = self.sock.send(self.unsent[:65_536])
        self.unsent = self.unsent[sent:]
        if not self.unsent:
            self.written = time.monotonic()
            if self.crowd.context is None:
                self.sock.shutdown(socket.SHUT_WR)

    def _read_some(self) -> None:
        part = self.sock.recv(16_384)
        if not part:
            self.end("ended")
        elif part != self.expected[self.taken : self.taken + len(part)]:
            self.end("wrong")
        else:
            self.taken += len(part)
            if self.taken == len(self.expected):
                self.end("answered")


class Crowd:
    """All clients, on one epoll."""

    prefix = b"one "

    def __init__(self, order: Order) -> None:
        self.order = order
        self.hosts: Iterator[str] = cycle(order.hosts.split(","))
        self.epoll = select.epoll()
        self.watched: dict[int, Client] = {}
        self.open: set[Client] = set()
        self.numbers = count()
        self.refused: float | None = None
        self._stopped = False
        self.outcomes: Counter[str] = Counter()
        self.lost: list[Client] = []
        self.connect_times: list[float] = []
        self.refused_times: list[float] = []
        self._timers: list[tuple[float, int, Callable[[], None]]] = []
        self.context: ssl.SSLContext | None = None
        if order.tls:
            self.context = ssl.create_default_context(cafile=order.tls)

    def at(self, when: float, do: Callable[[], None]) -> None:
        """Have something done at a time."""
        heapq.heappush(self._timers, (when, next(self.numbers), do))

    def count(self, client: Client) -> None:
        """Count one that has ended."""
        self.open.discard(client)
        self.outcomes[client.outcome] += 1
        now = time.monotonic()
        if client.outcome == "refused":
            self.refused_times.append(now - client.began)
            if self.refused is None:
                self.refused = now
        elif client.outcome != "answered":
            self.lost.append(client)

    def run(self) -> Account:
        """Come, until a while after the first refusal; then wait for all to end."""
        began = time.monotonic()
        for kind, number in ((Talker, self.order.talkers), (SlowReader, self.order.slow)):
            for _ in range(number):
                kind(self)
        signal.signal(signal.SIGTERM, lambda *_: self._stop())
        sys.stderr.write("coming\n")
        sys.stderr.flush()
        came = 0
        callers: set[Client] = set()
        while True:
            now = time.monotonic()
            coming = (
                not self._stopped
                and now < began + self.order.seconds
                and (self.refused is None or now < self.refused + self.order.after)
            )
            if not coming and not self.open:
                break
            if coming and self.order.rate:
                while came < (now - began) * self.order.rate:
                    came += 1
                    Client(self)
            if coming and self.order.at_once and self.refused is None:
                callers = {caller for caller in callers if not caller.outcome}
                for _ in range(self.order.at_once - len(callers)):
                    callers.add(Client(self))
            self._turn(0.001 if coming and self.order.rate else 0.02)
        return self._account()

    def _stop(self) -> None:
        self._stopped = True

    def _turn(self, most: float) -> None:
        now = time.monotonic()
        timeout = most if not self._timers else max(0.0, min(most, self._timers[0][0] - now))
        for descriptor, _ in self.epoll.poll(timeout):
            client = self.watched.get(descriptor)
            if client is not None:
                client.take_step()
        now = time.monotonic()
        while self._timers and self._timers[0][0] <= now:
            heapq.heappop(self._timers)[2]()

    def _account(self) -> Account:
        start = self.refused or time.monotonic()

        def since(moment: float | None) -> float | None:
            return None if moment is None else round(moment - start, 3)

        lost = [
            {
                "kind": client.kind,
                "outcome": client.outcome,
                "began": since(client.began),
                "connected": since(client.connected),
                "written": since(client.written),
                "read": len(client.read),
            }
            for client in self.lost
        ]
        times = (self.connect_times, self.refused_times)
        return Account(dict(self.outcomes), lost, *map(_spread, times))


def _spread(seconds: list[float]) -> list[float]:
    """Median, 99th percentile and most, in milliseconds."""
    if not seconds:
        return []
    ordered = sorted(seconds)
    chosen = statistics.median(ordered), ordered[len(ordered) * 99 // 100], ordered[-1]
    return [round(value * 1000, 2) for value in chosen]


def main() -> None:
    """Run as a program."""
    parser = argparse.ArgumentParser(description=__doc__)
    for name, default in asdict(Order("127.0.0.1", 9000)).items():
        parser.add_argument("--" + name.replace("_", "-"), type=type(default), default=default)
    order = Order(**vars(parser.parse_args()))
    sys.stdout.write(json.dumps(asdict(Crowd(order).run())))


if __name__ == "__main__":
    main()
