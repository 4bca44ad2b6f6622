"""HTTP in front of the catalogue.

GET /api/products        all products
GET /api/products/SKU    one product
GET /healthz /readyz /version
"""

from __future__ import annotations

import json
import os
import signal
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import unquote, urlsplit

from shop_catalogue.products import Catalogue, InvalidCatalogue, load_catalogue


def answer(catalogue: Catalogue, path: str) -> tuple[int, dict[str, object]]:
    """Status and JSON body for GET ``path``."""
    if path in ("/healthz", "/readyz"):
        return 200, {"status": "ok", "products": len(catalogue)}
    if path == "/version":
        return 200, {
            "service": "catalogue",
            "version": os.environ.get("SHOP_VERSION", "unknown"),
            "build": os.environ.get("SHOP_BUILD", "unknown"),
        }
    if path == "/api/products":
        return 200, {"products": [product.as_json() for product in catalogue.all()]}
    if path.startswith("/api/products/"):
        sku = unquote(path.removeprefix("/api/products/"))
        product = catalogue.find(sku)
        if product is None:
            return 404, {"error": f"no product {sku}"}
        return 200, product.as_json()
    return 404, {"error": f"nothing at {path}"}


class Handler(BaseHTTPRequestHandler):
    """One request. The catalogue is set on the class by ``serve``."""

    protocol_version = "HTTP/1.1"
    catalogue: Catalogue

    def do_GET(self) -> None:
        started = time.monotonic()
        status, body = answer(self.catalogue, urlsplit(self.path).path)
        content = json.dumps(body).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)
        if self.path not in ("/healthz", "/readyz"):  # probes would drown the rest
            log(f"{self.command} {self.path} {status} {1000 * (time.monotonic() - started):.0f}ms")

    def log_message(self, format: str, *args: object) -> None:
        """Requests are logged above, with their status and time."""


def log(message: str) -> None:
    print(time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()), "catalogue", message, flush=True)


def serve(catalogue: Catalogue, port: int) -> None:
    """Answer until SIGTERM or SIGINT."""
    Handler.catalogue = catalogue
    server = ThreadingHTTPServer(("", port), Handler)

    def stop(signum: int, frame: object) -> None:
        # shutdown() waits for the loop which this signal interrupted: it has to be called from elsewhere
        threading.Thread(target=server.shutdown).start()

    signal.signal(signal.SIGTERM, stop)
    signal.signal(signal.SIGINT, stop)
    log(f"{len(catalogue)} products, listening on port {port}")
    server.serve_forever(poll_interval=0.1)
    log("stopped")


def main() -> None:
    try:
        catalogue = load_catalogue(Path(os.environ.get("PRODUCTS_FILE", "/etc/shop/products.json")))
    except InvalidCatalogue as error:
        log(f"FATAL {error}")
        sys.exit(1)
    serve(catalogue, int(os.environ.get("PORT", "8080")))
