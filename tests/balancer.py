"""A balancer with faults: TCP over loopback, every draw from a seed.

It balances as an address behind which several backends answer, and plays these
backends itself: the client sees one connection and the name in front of each
answer, and nothing else can be seen of a balancer anyway.
"""

from __future__ import annotations

import random
import socket
import struct
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from functools import cache, partial
from itertools import cycle
from math import gcd

import trio

__all__ = ["Balancer", "Choose", "bunched", "rotating", "shifting", "sticky", "weighted"]

Choose = Callable[[str], str]
"""The next draw: from the client's address to the name of a backend."""

_ABORT = struct.pack("ii", 1, 0)
"""SO_LINGER with no time at all: closing sends RST."""


def weighted(weights: Mapping[str, int], seed: int) -> Choose:
    """Draw each connection by weight, independently, as Envoy does."""
    draw = random.Random(seed)  # noqa: S311 - a simulation, no secret
    names, shares = list(weights), list(weights.values())
    return lambda _source: draw.choices(names, shares)[0]


def rotating(weights: Mapping[str, int]) -> Choose:
    """Take turns in a fixed order: 80/20 gives four to the first, then one to the second."""
    step = gcd(*weights.values())
    turns = cycle([name for name, weight in weights.items() for _ in range(weight // step)])
    return lambda _source: next(turns)


def sticky(weights: Mapping[str, int], seed: int) -> Choose:
    """Draw by weight once for each client address and then stay, as source-IP hashing does."""

    @cache
    def choose(source: str) -> str:
        draw = random.Random(f"{seed} {source}")  # noqa: S311 - a simulation, no secret
        return draw.choices(list(weights), list(weights.values()))[0]

    return choose


def bunched(choose: Choose, size: int) -> Choose:
    """Draw once for `size` connections in a row, as a pool of kept connections does."""
    left, name = 0, ""

    def choose_again(source: str) -> str:
        nonlocal left, name
        if not left:
            left, name = size, choose(source)
        left -= 1
        return name

    return choose_again


def shifting(before: Choose, after: Choose, at: int) -> Choose:
    """Draw `at` times from one, and from then on from another."""
    drawn = 0

    def choose(source: str) -> str:
        nonlocal drawn
        drawn += 1
        return (before if drawn <= at else after)(source)

    return choose


@dataclass(frozen=True, slots=True, kw_only=True)
class Balancer:
    """A TCP balancer, with the backends behind it.

    Attributes:
        choose: draws a backend, in the order in which connections arrive.
        by_line: draw again for every line, as a balancer of requests does.
        delays: seconds by which backends answer late, in trio's time.
        resets: backends that reset every connection instead of answering.
    """

    choose: Choose
    by_line: bool = False
    delays: Mapping[str, float] = field(default_factory=dict)
    resets: Collection[str] = ()

    async def serve(self, *, task_status: trio.TaskStatus[str] = trio.TASK_STATUS_IGNORED) -> None:
        """Balance until cancelled; starts with the address, as HOST:PORT."""
        with trio.socket.socket() as listener:
            await listener.bind(("127.0.0.1", 0))
            listener.listen(1024)
            async with trio.open_nursery() as connections:
                task_status.started("{}:{}".format(*listener.getsockname()))
                while True:
                    # The draw is made here, in the order of arrival: a task per
                    # connection would draw in the scheduler's order, which trio shuffles.
                    connection, (source, _) = await listener.accept()
                    choose = partial(self.choose, source)
                    connections.start_soon(self._answer, connection, choose(), choose)

    async def _answer(
        self, connection: trio.socket.SocketType, name: str, choose: Callable[[], str]
    ) -> None:
        """Be the backend `name` for one connection, or for its first line."""
        async with trio.SocketStream(connection) as stream:
            if name in self.resets:
                connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _ABORT)
                return
            rest = b""
            drawn = True
            async for chunk in stream:
                *lines, rest = (rest + chunk).split(b"\n")
                for line in lines:
                    if self.by_line and not drawn:
                        name = choose()
                    drawn = False
                    if name in self.delays:
                        await trio.sleep(self.delays[name])
                    await stream.send_all(name.encode() + b" " + line + b"\n")
