"""A peer: a uvloop protocol that answers each received chunk with one write."""

from __future__ import annotations

import asyncio
import sys
from typing import cast

import uvloop


class Echo(asyncio.Protocol):
    """Answer the complete lines of a chunk at once, and do not read what cannot be sent."""

    def __init__(self, prefix: bytes) -> None:
        self.start = prefix + b" "
        self.next = b"\n" + self.start
        self.rest = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep the transport."""
        self.transport = cast("asyncio.Transport", transport)

    def data_received(self, data: bytes) -> None:
        """Answer up to the last LF, and carry the rest."""
        if self.rest:
            data = self.rest + data
        end = data.rfind(b"\n")
        self.rest = data[end + 1 :]
        if end >= 0:
            self.transport.write(self.start + data[:end].replace(b"\n", self.next) + b"\n")

    def pause_writing(self) -> None:
        """Stop to read: the client does not."""
        self.transport.pause_reading()

    def resume_writing(self) -> None:
        """Read on."""
        self.transport.resume_reading()


async def main(port: int, prefix: bytes) -> None:
    """Answer every line on every address of this machine."""
    loop = asyncio.get_running_loop()
    server = await loop.create_server(lambda: Echo(prefix), None, port, backlog=4096)
    await server.serve_forever()


if __name__ == "__main__":
    uvloop.run(main(int(sys.argv[1]), sys.argv[2].encode()))
