"""A hundred readers of an agent in one process, each asking again as soon as it is answered.

``python agent_readers.py HOST PORT PATH READERS REQUESTS keep|new gzip|plain [CA]`` prints the
latencies, one a line. [s]
"""

import asyncio
import ssl
import sys
import time

HEAD_END = b"\r\n\r\n"


async def answer(reader: asyncio.StreamReader) -> None:
    """Take in one answer whole."""
    head = await reader.readuntil(HEAD_END)
    assert head.startswith(b"HTTP/1.1 200 "), head
    for line in head.split(b"\r\n"):
        if line.lower().startswith(b"content-length:"):
            await reader.readexactly(int(line.partition(b":")[2]))


async def read(
    place: tuple[str, int], request: bytes, count: int, keeps: bool, tls: ssl.SSLContext | None
) -> list[float]:
    """One reader: its latencies, the making of the connection among them where it is new."""
    latencies_s = []
    reader, writer = await asyncio.open_connection(*place, ssl=tls)
    for _ in range(count):
        began_s = time.perf_counter()
        if not keeps:
            writer.close()
            reader, writer = await asyncio.open_connection(*place, ssl=tls)
        writer.write(request)
        await answer(reader)
        latencies_s.append(time.perf_counter() - began_s)
    writer.close()
    return latencies_s


async def main(words: list[str]) -> None:
    """All readers at once."""
    host, port, path, readers, requests, keeps, packed, *ca = words
    tls = ssl.create_default_context(cafile=ca[0]) if ca else None
    accepts = "Accept-Encoding: gzip\r\n" if packed == "gzip" else ""
    request = f"GET {path} HTTP/1.1\r\nHost: {host}\r\n{accepts}\r\n".encode()
    tasks = [
        read((host, int(port)), request, int(requests), keeps == "keep", tls)
        for _ in range(int(readers))
    ]
    for latencies_s in await asyncio.gather(*tasks):
        print("\n".join(map(repr, latencies_s)))


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1:]))
