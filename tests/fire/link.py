"""A slow link on one machine: a TUN device whose packets come back late, or never.

``with slow_link(round_trip=0.5)`` makes a network ``10.77.0.0/16`` in which every
address but one is a mirror. A client that connects to ``10.77.0.2`` reaches a
server that listens on ``10.77.0.1``, and is seen there to come from
``10.77.0.2``: the device's other end swaps source and destination of each packet
and gives it back after half a round trip. A sum of 16-bit words does not change
when its words are swapped, so no checksum has to be made anew. One process, no
second network namespace, and no module of the kernel beyond ``tun``.

Run as a program it is that other end. It needs CAP_NET_ADMIN, and a network
namespace of its own so that the machine's other traffic is left alone
(``unshare --net``).
"""

from __future__ import annotations

import argparse
import fcntl
import heapq
import os
import random
import select
import struct
import subprocess
import sys
import time
from contextlib import contextmanager
from itertools import count
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["MIRRORS", "SERVER", "slow_link"]

SERVER: Final = "10.77.0.1"
"""Where a server behind the link listens."""

MIRRORS: Final = tuple(f"10.77.{third}.{fourth}" for third in range(4) for fourth in range(2, 250))
"""Where its clients connect to; more addresses are more ports for them."""

_TUNSETIFF: Final = 0x400454CA
_IFF_TUN: Final = 0x0001
_IFF_NO_PI: Final = 0x1000
_MTU: Final = 65_536


@contextmanager
def slow_link(round_trip: float, loss: float = 0.0, seed: int = 0) -> Iterator[None]:
    """Have the addresses above for a while.

    Args:
        round_trip: seconds, half of them each way.
        loss: the share of packets that never arrive.
        seed: of the generator that chooses those.
    """
    arguments = [f"--round-trip={round_trip}", f"--loss={loss}", f"--seed={seed}"]
    with subprocess.Popen(
        [sys.executable, __file__, *arguments], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as relay:
        assert relay.stdin is not None
        assert relay.stdout is not None
        assert relay.stdout.readline() == b"up\n", "no TUN device: is this root?"
        try:
            yield
        finally:
            relay.stdin.close()
            relay.wait(10)


def _open_device(name: str) -> int:
    """Make a TUN device with the server's address, and bring it up."""
    device = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK)
    fcntl.ioctl(device, _TUNSETIFF, struct.pack("16sH14x", name.encode(), _IFF_TUN | _IFF_NO_PI))
    for arguments in (
        f"address add {SERVER}/16 dev {name}",
        f"link set {name} up txqueuelen 20000",
    ):
        subprocess.run(["ip", *arguments.split()], check=True)  # noqa: S607 - iproute2, from PATH
    return device


def _swap(packet: bytes) -> bytes:
    """Swap the addresses of an IPv4 packet."""
    return packet[:12] + packet[16:20] + packet[12:16] + packet[20:]


def _relay(device: int, delay: float, loss: float, chance: random.Random) -> None:
    """Give each packet back after the delay, until standard input ends."""
    waiting: list[tuple[float, int, bytes]] = []
    numbers = count()
    # A readable standard input is its end: nobody writes to it.
    ready = select.poll()
    ready.register(device, select.POLLIN)
    ready.register(0, select.POLLIN)
    while True:
        timeout = None if not waiting else max(0.0, waiting[0][0] - time.monotonic()) * 1000
        descriptors = [descriptor for descriptor, _ in ready.poll(timeout)]
        if 0 in descriptors:
            return
        now = time.monotonic()
        if device in descriptors:
            for _ in range(64):
                try:
                    packet = os.read(device, _MTU)
                except BlockingIOError:
                    break
                if packet[0] >> 4 == 4 and chance.random() >= loss:
                    heapq.heappush(waiting, (now + delay, next(numbers), packet))
        while waiting and waiting[0][0] <= now:
            os.write(device, _swap(heapq.heappop(waiting)[2]))


def _main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--round-trip", type=float, required=True)
    parser.add_argument("--loss", type=float, default=0.0)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    device = _open_device("slow0")
    sys.stdout.write("up\n")
    sys.stdout.flush()
    chance = random.Random(arguments.seed)  # noqa: S311 - which packets are lost is no secret
    _relay(device, arguments.round_trip / 2, arguments.loss, chance)


if __name__ == "__main__":
    _main()
