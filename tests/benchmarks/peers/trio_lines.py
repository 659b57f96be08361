"""A peer: trio's own listeners and streams, with one ``send_all`` for each line."""

from __future__ import annotations

import sys
from functools import partial

import trio


async def handle(prefix: bytes, stream: trio.SocketStream) -> None:
    """Answer the lines of one connection until its end."""
    start = prefix + b" "
    rest = b""
    try:
        async for chunk in stream:
            *lines, rest = (rest + chunk).split(b"\n")
            for line in lines:
                await stream.send_all(start + line + b"\n")
    except trio.BrokenResourceError:
        pass


if __name__ == "__main__":
    trio.run(partial(trio.serve_tcp, partial(handle, sys.argv[2].encode()), int(sys.argv[1])))
