"""HTTP in front of the orders.

GET    /api/orders?limit=20          the latest orders
GET    /api/orders/NUMBER            one order
POST   /api/orders                   {"session", "customer"}: order what is in the session's cart
POST   /api/orders/NUMBER/refund     give the money back
GET    /api/cart?session=S           the cart
POST   /api/cart                     {"session", "sku", "quantity"}: set the quantity of one product
DELETE /api/cart?session=S           empty it
GET    /api/summary                  orders by status, open carts: reads every order and every cart
GET    /healthz /readyz /version
"""

from __future__ import annotations

import json
import os
import signal
import sys
import threading
import time
import traceback
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, urlsplit

from shop_orders import catalogue, database
from shop_orders.carts import Carts, CartsUnavailable
from shop_orders.catalogue import CatalogueUnavailable
from shop_orders.database import DatabaseUnavailable
from shop_orders.model import (
    InvalidRequest,
    NotFound,
    price_cart,
    valid_customer,
    valid_quantity,
    valid_session,
    valid_sku,
)
from shop_orders.settings import MissingSetting, Settings, read_settings

MAX_BODY = 64 * 1024  # bytes

Answer = tuple[int, dict[str, object]]


class Api:
    """What the service does, by method and path."""

    def __init__(self, settings: Settings, carts: Carts) -> None:
        self._settings = settings
        self._carts = carts

    def answer(self, method: str, path: str, query: dict[str, str], body: dict[str, object]) -> Answer:
        """Raises InvalidRequest, NotFound, and the three Unavailable errors."""
        match method, path.strip("/").split("/"):
            case "GET", ["healthz"]:
                return 200, {"status": "ok"}
            case "GET", ["readyz"]:
                return self.readiness()
            case "GET", ["version"]:
                return 200, {
                    "service": "orders",
                    "version": self._settings.version,
                    "build": self._settings.build,
                    "schema": database.REQUIRED_SCHEMA,
                }
            case "GET", ["api", "orders"]:
                return self.list_orders(query.get("limit", "20"))
            case "POST", ["api", "orders"]:
                return self.place_order(body)
            case "GET", ["api", "orders", number]:
                return 200, database.find_order(order_number(number)).as_json()
            case "POST", ["api", "orders", number, "refund"]:
                database.refund_order(order_number(number))
                return 200, database.find_order(order_number(number)).as_json()
            case "GET", ["api", "cart"]:
                return self.cart(valid_session(query.get("session")))
            case "POST", ["api", "cart"]:
                session = valid_session(body.get("session"))
                self._carts.put(session, {valid_sku(body.get("sku")): valid_quantity(body.get("quantity", 1))})
                return self.cart(session)
            case "DELETE", ["api", "cart"]:
                session = valid_session(query.get("session"))
                self._carts.take(session)
                return self.cart(session)
            case "GET", ["api", "summary"]:
                return 200, {"orders": database.totals_by_status(), "carts": self._carts.totals()}
        raise NotFound(f"nothing at {method} {path}")

    def readiness(self) -> Answer:
        """503 with the reason until the database, with its schema, and Redis can be used."""
        try:
            database.check()
            self._carts.check()
        except (DatabaseUnavailable, CartsUnavailable) as error:
            return 503, {"status": "not ready", "error": str(error)}
        return 200, {"status": "ok"}

    def list_orders(self, limit: str) -> Answer:
        if not limit.isdecimal() or not 1 <= int(limit) <= 100:
            raise InvalidRequest("limit must be a whole number from 1 to 100")
        return 200, {"orders": [order.as_json() for order in database.latest_orders(int(limit))]}

    def cart(self, session: str) -> Answer:
        return 200, {"session": session, "items": self._carts.get(session)}

    def place_order(self, body: dict[str, object]) -> Answer:
        session, customer = valid_session(body.get("session")), valid_customer(body.get("customer"))
        products = catalogue.products(self._settings.catalogue_url)
        items = self._carts.take(session)
        try:
            lines, currency = price_cart(items, products)
            number = database.place_order(customer, lines, currency)
        except Exception:
            if items:
                self._carts.put(session, items)  # nothing was ordered: the customer keeps the cart
            raise
        log(f"order {number}: {len(lines)} lines for {customer!r}")
        return 201, database.find_order(number).as_json()


def order_number(text: str) -> int:
    if not text.isdecimal():
        raise InvalidRequest(f"an order's number is a whole number, not {text!r}")
    return int(text)


class Handler(BaseHTTPRequestHandler):
    """One request: parse, ask the Api (set on the class by ``serve``), answer in JSON."""

    protocol_version = "HTTP/1.1"
    api: Api

    def handle_request(self) -> None:
        started = time.monotonic()
        url = urlsplit(self.path)
        status, body = self.ask(url.path, {name: values[-1] for name, values in parse_qs(url.query).items()})
        content = json.dumps(body).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)
        if url.path not in ("/healthz", "/readyz") or status >= 500:
            reason = f" {body['error']}" if status >= 400 else ""
            log(f"{self.command} {url.path} {status} {1000 * (time.monotonic() - started):.0f}ms{reason}")

    do_GET = do_POST = do_DELETE = handle_request

    def ask(self, path: str, query: dict[str, str]) -> Answer:
        try:
            return self.api.answer(self.command, path, query, self.body())
        except InvalidRequest as error:
            return 400, {"error": str(error)}
        except NotFound as error:
            return 404, {"error": str(error)}
        except (DatabaseUnavailable, CartsUnavailable, CatalogueUnavailable) as error:
            return 503, {"error": str(error)}
        except Exception as error:
            traceback.print_exc()
            return 500, {"error": f"{type(error).__name__}: {error}"}

    def body(self) -> dict[str, object]:
        length = int(self.headers.get("Content-Length") or 0)
        if not length:
            return {}
        if length > MAX_BODY:
            self.close_connection = True  # the rest is not read
            raise InvalidRequest(f"the body is over {MAX_BODY} bytes")
        try:
            content = json.loads(self.rfile.read(length))
        except ValueError as error:
            raise InvalidRequest(f"the body is not JSON: {error}") from error
        if not isinstance(content, dict):
            raise InvalidRequest("the body must be a JSON object")
        return content

    def log_message(self, format: str, *args: object) -> None:
        """Requests are logged above, with their status and time."""


def log(message: str) -> None:
    print(time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()), "orders", message, flush=True)


def serve(api: Api, port: int) -> None:
    """Answer until SIGTERM or SIGINT."""
    Handler.api = api
    server = ThreadingHTTPServer(("", port), Handler)

    def stop(signum: int, frame: object) -> None:
        # shutdown() waits for the loop which this signal interrupted: it has to be called from elsewhere
        threading.Thread(target=server.shutdown).start()

    signal.signal(signal.SIGTERM, stop)
    signal.signal(signal.SIGINT, stop)
    log(f"listening on port {port}")
    server.serve_forever(poll_interval=0.1)
    log("stopped")


def main() -> None:
    try:
        settings = read_settings(os.environ)
    except (MissingSetting, ValueError) as error:
        log(f"FATAL cannot start: {error}")
        sys.exit(1)
    serve(Api(settings, Carts(settings)), settings.port)
