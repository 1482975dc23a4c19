"""As much of websocat as docs/clients.md uses, for machines without it: lines in and out are text frames.

`websocat [--origin ORIGIN] [-H=HEADER] URL`; it ends with its input, or with the socket."""

import argparse
import asyncio
import sys

from websockets.asyncio.client import ClientConnection, connect
from websockets.typing import Origin


async def say(socket: ClientConnection) -> None:
    while line := await asyncio.to_thread(sys.stdin.readline):
        await socket.send(line.rstrip("\n"))
    await socket.close()


async def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("-H", dest="headers", action="append", default=[])
    parser.add_argument("--origin")
    parser.add_argument("url")
    given = parser.parse_args()
    headers = [header.removeprefix("=").split(": ", 1) for header in given.headers]
    origin = None if given.origin is None else Origin(given.origin)
    async with connect(
        given.url, origin=origin, additional_headers=[(name, value) for name, value in headers]
    ) as socket:
        saying = asyncio.create_task(say(socket))
        async for frame in socket:
            sys.stdout.write(f"{frame!s}\n")
            sys.stdout.flush()
        await saying


asyncio.run(main())
