"""A peer: asyncio's streams, the way its documentation writes an echo server."""

from __future__ import annotations

import asyncio
import sys


async def main(port: int, prefix: bytes) -> None:
    """Answer every line on every address of this machine."""

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while line := await reader.readline():
                writer.write(prefix + b" " + line)
                await writer.drain()
        except ConnectionError:
            pass
        finally:
            writer.close()

    server = await asyncio.start_server(handle, None, port, backlog=4096)
    await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(main(int(sys.argv[1]), sys.argv[2].encode()))
