"""A kernel, a link and clients, simulated: what a drain's policy can be tried on.

Time is in whole milliseconds from the signal that starts the drain; clients begin
before it and after it. Everything here follows Linux, as far as it decides what
becomes of a client:

* a handshake lives beside its listener, and its last step makes a connection
  that waits in the listener's queue; where that is full, the step is passed over;
* a connection in the queue inherits the listener's bound on the time to live,
  which drops what reaches it; the last step of a handshake is not asked;
* a SYN is sent again after 1 s and then 3 s, by either side; data after
  three round trips and at least 200 ms, and then twice that, and so on;
* closing a listener resets what is in its queue, and a handshake under way when
  its next packet comes.

A policy is stepped whenever something is there for it to see, or its own time
has come; but never while the machine is busy (`Stall`).
"""

from __future__ import annotations

import heapq
from dataclasses import dataclass, field
from enum import Enum, auto
from itertools import count
from typing import TYPE_CHECKING, Final, Protocol

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["Child", "Client", "Fate", "Kernel", "Policy", "Refusal", "Stall", "simulate"]

END: Final = 60_000
"""Milliseconds after which whatever has not ended never will."""


class Refusal(Enum):
    """What a listener does with a SYN."""

    NONE = auto()  # it begins a handshake
    DROP = auto()  # nothing: a bound on the time to live
    RESET = auto()  # it refuses, as a closed port does
    CLOSED = auto()  # there is no listener any more


class Fate(Enum):
    """What became of a client, as it sees it."""

    UNDER_WAY = auto()
    ANSWERED = auto()
    REFUSED = auto()  # before it was connected
    ENDED = auto()  # a clean end and no answer
    RESET = auto()  # after it was connected


class Packet(Enum):
    """What one side sends to the other."""

    SYN = auto()
    SYN_ACK = auto()
    ACK = auto()
    DATA = auto()
    DATA_ACK = auto()
    ANSWER = auto()
    FIN = auto()
    FIN_ACK = auto()
    RST = auto()


@dataclass(frozen=True)
class Stall:
    """A time in which the server's process does not run."""

    start: int
    length: int


@dataclass(eq=False)
class Client:
    """One client: it connects, writes one line, reads the answer, and leaves.

    Attributes:
        start: when it sends its SYN.
        think: how long it waits after the handshake until it writes.
        lost: which packet of its conversation is lost, the first time it is sent.
        silent: it never writes, and leaves when it is ended.
        patience: after how long it sends its line again, if not after the time
            that its round trip gives: a kernel remembers what earlier connections
            to the same address took, and goes by that.
    """

    start: int
    think: int = 0
    lost: Packet | None = None
    silent: bool = False
    patience: int | None = None
    fate: Fate = Fate.UNDER_WAY
    dropped: Packet | None = None
    connected: bool = False
    written: int | None = None
    acknowledged: bool = False
    child: Child | None = None


@dataclass(eq=False)
class Child:
    """The server's end of a connection, from the last step of the handshake on."""

    client: Client
    bounded: bool
    unread: int = 0
    moved: int = 0
    reading: bool = True
    eof: bool = False
    broken: bool = False
    told: bool = False
    acknowledged: bool = False
    answered: bool = False
    late: bool = False


@dataclass
class Kernel:
    """The server's kernel, the link, and the clients at its other end.

    Attributes:
        round_trip: milliseconds.
        places: how many connections wait in the queue at most.
        refusal: what becomes of a SYN.
        queue: connections that wait to be accepted.
        half_open: clients whose handshake waits for its last step.
        counted: connections that the server itself says were lost.
    """

    round_trip: int
    places: int = 4096
    now: int = -END
    refusal: Refusal = Refusal.NONE
    queue: list[Child] = field(default_factory=list)
    half_open: set[Client] = field(default_factory=set)
    counted: int = 0
    _events: list[tuple[int, int, Callable[[], None]]] = field(default_factory=list)
    _numbers: count[int] = field(default_factory=count)

    @property
    def retransmission(self) -> int:
        """How long either side waits for an acknowledgement before it sends again."""
        return max(200, 3 * self.round_trip)

    def at(self, time: int, do: Callable[[], None]) -> None:
        """Have something done at a time."""
        heapq.heappush(self._events, (time, next(self._numbers), do))

    def next(self) -> int | None:
        """Tell when the next event is."""
        return self._events[0][0] if self._events else None

    def advance(self, time: int) -> None:
        """Let everything happen that does up to a time."""
        while self._events and self._events[0][0] <= time:
            self.now, _, do = heapq.heappop(self._events)
            do()
        self.now = time

    # What the server's process can do.

    def accept(self) -> Child | None:
        """Take one connection from the queue, if there is one."""
        return self.queue.pop(0) if self.queue else None

    def close_listener(self) -> None:
        """Close it: who waits in its queue is reset."""
        self.refusal = Refusal.CLOSED
        while self.queue:
            self._send_to_client(self.queue.pop(0).client, Packet.RST)

    def answer(self, child: Child) -> None:
        """Read what is there and answer it."""
        child.unread = 0
        child.answered = True
        self._send_to_client(child.client, Packet.ANSWER)

    def end(self, child: Child) -> None:
        """End the server's side, and read on."""
        child.told = True
        self._send_to_client(child.client, Packet.FIN)

    def close(self, child: Child) -> None:
        """Close: what is unread, or comes from now on, is answered by a reset."""
        child.reading = False
        if not child.told or child.unread:
            self._send_to_client(child.client, Packet.RST if child.unread else Packet.FIN)
        child.told = True

    def refuse(self, child: Child) -> None:
        """Reset a connection that was not served."""
        child.reading = False
        child.told = True
        self._send_to_client(child.client, Packet.RST)

    # What the clients and the link do.

    def begin(self, client: Client) -> None:
        """Have a client come at its time."""
        self.at(client.start, lambda: self._connect(client, 1000))

    def _connect(self, client: Client, patience: int) -> None:
        if client.fate is Fate.UNDER_WAY and not client.connected:
            self._send_to_server(client, Packet.SYN)
            self.at(self.now + patience, lambda: self._connect(client, 2 * patience))

    def _write(self, client: Client, patience: int) -> None:
        if client.written is None and client.fate is Fate.UNDER_WAY:
            client.written = self.now
        if client.written is None or client.acknowledged or client.fate is Fate.RESET:
            return
        self._send_to_server(client, Packet.DATA)
        self.at(self.now + patience, lambda: self._write(client, 2 * patience))

    def _answer_syn(self, client: Client, patience: int) -> None:
        if client in self.half_open:
            self._send_to_client(client, Packet.SYN_ACK)
            self.at(self.now + patience, lambda: self._answer_syn(client, 2 * patience))

    def _arrives(self, client: Client, packet: Packet) -> bool:
        """Tell whether a packet gets through; the one that is lost is lost once."""
        if client.lost is packet:
            client.dropped, client.lost = packet, None
            return False
        return True

    def _send_to_server(self, client: Client, packet: Packet) -> None:
        if self._arrives(client, packet):
            self.at(self.now + self.round_trip // 2, lambda: self._at_server(client, packet))

    def _send_to_client(self, client: Client, packet: Packet) -> None:
        if self._arrives(client, packet):
            self.at(self.now + self.round_trip // 2, lambda: self._at_client(client, packet))

    def _at_server(self, client: Client, packet: Packet) -> None:
        child = client.child
        if child is not None:
            self._at_child(child, packet)
        elif client in self.half_open:
            self._at_handshake(client, packet)
        elif packet is Packet.SYN and self.refusal is Refusal.NONE:
            if len(self.queue) < self.places:
                self.half_open.add(client)
                self._answer_syn(client, 1000)
        elif packet not in (Packet.RST, Packet.FIN_ACK) and self.refusal is not Refusal.DROP:
            self._send_to_client(client, Packet.RST)

    def _at_handshake(self, client: Client, packet: Packet) -> None:
        if self.refusal is Refusal.CLOSED:
            self.half_open.discard(client)
            self._send_to_client(client, Packet.RST)
        elif packet is Packet.SYN:
            self._send_to_client(client, Packet.SYN_ACK)
        elif len(self.queue) < self.places:
            self.half_open.discard(client)
            child = Child(client, bounded=self.refusal is Refusal.DROP, moved=self.now)
            client.child = child
            self.queue.append(child)
            if packet is Packet.DATA:
                self._receive(child)

    def _at_child(self, child: Child, packet: Packet) -> None:
        if packet is Packet.SYN or (packet is Packet.ACK and child.reading):
            return
        if packet is Packet.RST:
            child.broken = True
        elif packet is Packet.FIN_ACK:
            child.acknowledged = True
        elif child.bounded:
            return
        elif packet is Packet.FIN:
            child.eof = True
        elif not child.reading:
            self._send_to_client(child.client, Packet.RST)
        else:
            self._receive(child)

    def _receive(self, child: Child) -> None:
        self._send_to_client(child.client, Packet.DATA_ACK)
        if not child.client.acknowledged:
            child.unread += 1
            child.moved = self.now

    def _at_client(self, client: Client, packet: Packet) -> None:
        if packet is Packet.FIN:
            self._send_to_server(client, Packet.FIN_ACK)
        if packet is Packet.DATA_ACK:
            client.acknowledged = True
            if client.fate is Fate.ENDED:
                self._send_to_server(client, Packet.FIN)
        if client.fate is not Fate.UNDER_WAY:
            return
        if packet is Packet.SYN_ACK:
            if not client.connected and not client.silent:
                patience = client.patience or self.retransmission
                self.at(self.now + client.think, lambda: self._write(client, patience))
            client.connected = True
            self._send_to_server(client, Packet.ACK)
        elif packet is Packet.RST:
            client.fate = Fate.RESET if client.connected else Fate.REFUSED
        elif packet is not Packet.DATA_ACK:
            client.fate = Fate.ANSWERED if packet is Packet.ANSWER else Fate.ENDED
            # Its kernel sends what it has written, and only then the end.
            if client.written is None or client.acknowledged or packet is Packet.ANSWER:
                self._send_to_server(client, Packet.FIN)


class Policy(Protocol):
    """How a server drains."""

    def step(self, kernel: Kernel) -> int | None:
        """Do what is to be done now; tell when to come again at the latest.

        None: the server has ended.
        """


def simulate(kernel: Kernel, policy: Policy, clients: list[Client], stall: Stall | None) -> bool:
    """Run until nothing happens any more; tell whether the server ended."""
    for client in clients:
        kernel.begin(client)
    wake: int | None = 0
    while True:
        time = min((time for time in (kernel.next(), wake) if time is not None), default=END)
        if time >= END:
            return wake is None
        kernel.advance(time)
        if wake is None:
            continue
        if stall is not None and stall.start <= time < stall.start + stall.length:
            wake = stall.start + stall.length
        else:
            wake = policy.step(kernel)
            assert wake is None or wake > time, "a policy that stands still"
