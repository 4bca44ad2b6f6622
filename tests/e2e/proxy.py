"""A way to the API server that tests can cut."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from urllib.parse import urlsplit

import yaml

from sandbox.cluster.providers import ClusterInfo


class Proxy:
    """Forwards TCP connections of one local port to a server, until it is cut.

    Args:
        lets_through: it cuts itself when clients have sent so many bytes; None: never.
    """

    def __init__(self, host: str, port: int, lets_through: int | None = None) -> None:
        self._left = lets_through
        self._server = (host, port)
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self._open: list[socket.socket] = []
        self._lock = threading.Lock()
        self._cut = False
        threading.Thread(target=self._accept, daemon=True).start()

    def cut(self) -> None:
        """End all connections; new ones are refused."""
        with self._lock:
            self._cut = True
            # A listener that another thread waits at goes on listening unless it is shut down.
            for connection in (self._listener, *self._open):
                with contextlib.suppress(OSError):
                    connection.shutdown(socket.SHUT_RDWR)
                connection.close()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
                server = socket.create_connection(self._server, timeout=5)
            except OSError:
                return
            server.settimeout(None)
            with self._lock:
                self._open += [client, server]
                cut = self._cut
            for source, target, count in ((client, server, self._count), (server, client, None)):
                threading.Thread(target=_copy, args=(source, target, count), daemon=True).start()
            if cut:
                self.cut()

    def _count(self, sent: int) -> None:
        with self._lock:
            if self._left is None:
                return
            self._left -= sent
            over = self._left < 0
        if over:
            self.cut()


def _copy(source: socket.socket, target: socket.socket, count: Callable[[int], None] | None) -> None:
    with contextlib.suppress(OSError):
        while data := source.recv(65536):
            if count is not None:
                count(len(data))
            target.sendall(data)
    for connection in (source, target):
        with contextlib.suppress(OSError):
            connection.shutdown(socket.SHUT_RDWR)


@contextlib.contextmanager
def proxied(cluster: ClusterInfo, kubeconfig: Path, *, lets_through: int | None = None) -> Iterator[Proxy]:
    """A proxy in front of a cluster's API server; ``kubeconfig`` is written and leads through it."""
    content = yaml.safe_load(cluster.kubeconfig.read_text())
    context = next(entry["context"] for entry in content["contexts"] if entry["name"] == cluster.context)
    entry = next(entry["cluster"] for entry in content["clusters"] if entry["name"] == context["cluster"])
    server = urlsplit(entry["server"])
    assert server.hostname
    assert server.port
    proxy = Proxy(server.hostname, server.port, lets_through)
    entry |= {"server": f"https://127.0.0.1:{proxy.port}", "tls-server-name": server.hostname}
    kubeconfig.write_text(yaml.safe_dump(content))
    try:
        yield proxy
    finally:
        proxy.cut()
