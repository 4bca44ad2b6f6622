"""A way to a server that is farther off: what goes through arrives later, in order, however much is under way.

A control plane on the machine of who measures answers in the time that its disk takes; a cluster's, whose etcd has
members elsewhere and which is reached over a network, in 10 ms and more.
"""

from __future__ import annotations

import asyncio
import contextlib
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlsplit

import yaml


@contextmanager
def distant(kubeconfig: Path, context: str, round_trip_ms: float, folder: Path) -> Iterator[Path]:
    """A kubeconfig that leads to a cluster on this way; a process of its own forwards."""
    config = yaml.safe_load(kubeconfig.read_text())
    name = next(entry["context"]["cluster"] for entry in config["contexts"] if entry["name"] == context)
    cluster = next(entry["cluster"] for entry in config["clusters"] if entry["name"] == name)
    server = urlsplit(cluster["server"])
    argv = [sys.executable, __file__, str(server.hostname), str(server.port), str(round_trip_ms)]
    with subprocess.Popen(argv, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        port = int(process.stdout.readline())
        cluster["server"] = f"https://127.0.0.1:{port}"
        made = folder / "distant-kubeconfig"
        made.write_text(yaml.safe_dump(config))
        made.chmod(0o600)
        try:
            yield made
        finally:
            process.terminate()


async def _forward(host: str, port: int, delay: float) -> None:
    async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        there_reader, there_writer = await asyncio.open_connection(host, port)
        await asyncio.gather(_carry(reader, there_writer, delay), _carry(there_reader, writer, delay))

    listening = await asyncio.start_server(connected, "127.0.0.1", 0)
    print(listening.sockets[0].getsockname()[1], flush=True)
    await listening.serve_forever()


async def _carry(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, delay: float) -> None:
    loop = asyncio.get_running_loop()
    with contextlib.suppress(OSError):
        while data := await reader.read(2**18):
            loop.call_later(delay, writer.write, data)
    loop.call_later(delay, writer.close)


if __name__ == "__main__":
    with contextlib.suppress(KeyboardInterrupt):
        asyncio.run(_forward(sys.argv[1], int(sys.argv[2]), float(sys.argv[3]) / 2000))
