"""HTTP for people and for programs.

GET  /                         the page; forms post to /cart, /cart/empty and /order
GET  /api/products             from the catalogue
GET  /api/orders               from the orders API
POST /api/orders               {"customer", "session"}
GET  /api/cart?session=S       without ?session, the one in the visitor's cookie; the same for POST and DELETE
POST /api/cart                 {"sku", "quantity", "session"}
DELETE /api/cart?session=S
GET  /api/overview             asks every service for everything: 502, naming the service, when one cannot do it
GET  /healthz /readyz /version
"""

from __future__ import annotations

import json
import os
import re
import secrets
import signal
import sys
import threading
import time
import traceback
from http.cookies import CookieError, SimpleCookie
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, urlencode, urlsplit

from shop_web.page import View, amount, render
from shop_web.upstream import Upstream, UpstreamError

COOKIE = "shop_session"
SESSION = re.compile(r"[A-Za-z0-9_-]{8,64}")
LATEST_ORDERS = "/api/orders?limit=8"
MAX_BODY = 64 * 1024  # bytes

Body = dict[str, object]


class BadRequest(Exception):
    """The caller's input cannot be used; the message says why."""


class Shop:
    """What the page can do, with the two services behind it."""

    def __init__(self, catalogue: Upstream, orders: Upstream) -> None:
        self.catalogue = catalogue
        self.orders = orders
        self.version = os.environ.get("SHOP_VERSION", "unknown")
        self.build = os.environ.get("SHOP_BUILD", "unknown")
        self.environment = os.environ.get("SHOP_ENVIRONMENT", "")

    def view(self, session: str, message: str) -> View:
        """What this visitor sees. A service that is down is named on the page; the others are still shown."""
        notices: list[str] = []

        def ask(upstream: Upstream, path: str, key: str, otherwise: object) -> object:
            try:
                return upstream.get(path)[key]
            except UpstreamError as error:
                log(f"page: {error}")
                notices.append(f"The {error.service} service cannot be used right now: {error.reason}")
                return otherwise

        return View(
            version=self.version,
            build=self.build,
            environment=self.environment,
            products=ask(self.catalogue, "/api/products", "products", []),  # type: ignore[arg-type]
            cart=ask(self.orders, f"/api/cart?session={session}", "items", {}),  # type: ignore[arg-type]
            orders=ask(self.orders, LATEST_ORDERS, "orders", []),  # type: ignore[arg-type]
            notices=notices,
            message=message,
        )

    def overview(self) -> Body:
        """Everything at a glance. Raises UpstreamError."""
        products: list[Body] = self.catalogue.get("/api/products")["products"]  # type: ignore[assignment]
        orders: list[Body] = self.orders.get(LATEST_ORDERS)["orders"]  # type: ignore[assignment]
        return {
            "products": len(products),
            "latest": {str(order["id"]): amount(order) for order in orders},
            **self.orders.get("/api/summary"),
        }

    def add_to_cart(self, session: str, sku: str) -> None:
        """One piece more. Raises UpstreamError."""
        items: dict[str, int] = self.orders.get(f"/api/cart?session={session}")["items"]  # type: ignore[assignment]
        self.orders.ask("POST", "/api/cart", {"session": session, "sku": sku, "quantity": items.get(sku, 0) + 1})


class Handler(BaseHTTPRequestHandler):
    """One request. The shop is set on the class by ``serve``."""

    protocol_version = "HTTP/1.1"
    shop: Shop

    def handle_request(self) -> None:
        started = time.monotonic()
        url = urlsplit(self.path)
        query = {name: values[-1] for name, values in parse_qs(url.query).items()}
        reason = ""
        try:
            status = self.respond(url.path, query)
        except BadRequest as error:
            status, reason = 400, str(error)
        except UpstreamError as error:
            status, reason = error.status, str(error)
        except Exception as error:
            traceback.print_exc()
            status, reason = 500, f"{type(error).__name__}: {error}"
        if reason:
            self.send_json(status, {"error": reason})
        if url.path not in ("/healthz", "/readyz"):
            log(f"{self.command} {url.path} {status} {1000 * (time.monotonic() - started):.0f}ms {reason}".rstrip())

    do_GET = do_POST = do_DELETE = handle_request

    def respond(self, path: str, query: dict[str, str]) -> int:
        """Answer, and return the status. Raises BadRequest and UpstreamError before anything was sent."""
        shop = self.shop
        match self.command, path:
            case "GET", "/":
                session = self.session({})
                return self.send_page(session, render(shop.view(session, query.get("message", "")[:200])))
            case "POST", "/cart":
                form = self.form()
                session = self.session({})
                shop.add_to_cart(session, form.get("sku", ""))
                return self.send_back(session, "In your cart.")
            case "POST", "/cart/empty":
                self.form()
                session = self.session({})
                shop.orders.ask("DELETE", f"/api/cart?session={session}")
                return self.send_back(session, "Your cart is empty.")
            case "POST", "/order":
                form = self.form()
                session = self.session({})
                order = shop.orders.ask(
                    "POST", "/api/orders", {"session": session, "customer": form.get("customer", "")}
                )
                return self.send_back(session, f"Thank you! Your order has number {order['id']}.")
            case "GET", "/api/products":
                return self.send_json(200, shop.catalogue.get("/api/products"))
            case "GET", "/api/orders":
                return self.send_json(200, shop.orders.get("/api/orders"))
            case "POST", "/api/orders":
                body = self.json_body()
                return self.send_json(
                    201,
                    shop.orders.ask(
                        "POST", "/api/orders", {"session": self.session(body), "customer": body.get("customer")}
                    ),
                )
            case "GET", "/api/cart":
                return self.send_json(200, shop.orders.get(f"/api/cart?session={self.session(dict(query))}"))
            case "POST", "/api/cart":
                body = self.json_body()
                return self.send_json(
                    200, shop.orders.ask("POST", "/api/cart", {**body, "session": self.session(body)})
                )
            case "DELETE", "/api/cart":
                session = self.session(dict(query))
                return self.send_json(200, shop.orders.ask("DELETE", f"/api/cart?session={session}"))
            case "GET", "/api/overview":
                return self.send_json(200, shop.overview())
            case "GET", "/healthz" | "/readyz":
                return self.send_json(200, {"status": "ok"})
            case "GET", "/version":
                return self.send_json(200, {"service": "web", "version": shop.version, "build": shop.build})
        return self.send_json(404, {"error": f"nothing at {self.command} {path}"})

    def session(self, given: Body) -> str:
        """Whose cart: the one given, else the cookie's, else a new one. Raises BadRequest for one that cannot be."""
        if "session" in given:
            session = str(given["session"])
            if not SESSION.fullmatch(session):
                raise BadRequest("session must be 8 to 64 letters, digits, '-' or '_'")
            return session
        try:
            cookie = SimpleCookie(self.headers.get("Cookie", "")).get(COOKIE)
        except CookieError:
            cookie = None
        if cookie is not None and SESSION.fullmatch(cookie.value):
            return cookie.value
        return secrets.token_urlsafe(18)

    def content(self) -> bytes:
        length = int(self.headers.get("Content-Length") or 0)
        if length > MAX_BODY:
            self.close_connection = True  # the rest is not read
            raise BadRequest(f"the body is over {MAX_BODY} bytes")
        return self.rfile.read(length)

    def form(self) -> dict[str, str]:
        return {name: values[-1] for name, values in parse_qs(self.content().decode(errors="replace")).items()}

    def json_body(self) -> Body:
        try:
            body = json.loads(self.content() or b"{}")
        except ValueError as error:
            raise BadRequest(f"the body is not JSON: {error}") from error
        if not isinstance(body, dict):
            raise BadRequest("the body must be a JSON object")
        return body

    def send_json(self, status: int, body: Body) -> int:
        return self.send(status, json.dumps(body).encode(), {"Content-Type": "application/json"})

    def send_page(self, session: str, html: str) -> int:
        return self.send(
            200,
            html.encode(),
            {
                "Content-Type": "text/html; charset=utf-8",
                "Content-Security-Policy": "default-src 'none'; style-src 'unsafe-inline'; form-action 'self'",
                "Set-Cookie": cookie_header(session),
            },
        )

    def send_back(self, session: str, message: str) -> int:
        """Back to the page after a form, so that loading it again does not send the form again."""
        location = f"/?{urlencode({'message': message})}"
        return self.send(303, b"", {"Location": location, "Set-Cookie": cookie_header(session)})

    def send(self, status: int, content: bytes, headers: dict[str, str]) -> int:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)
        return status

    def log_message(self, format: str, *args: object) -> None:
        """Requests are logged above, with their status and time."""


def cookie_header(session: str) -> str:
    # Lax: another site's form cannot order in a visitor's name
    return f"{COOKIE}={session}; Path=/; HttpOnly; SameSite=Lax; Max-Age=86400"


def log(message: str) -> None:
    print(time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()), "web", message, flush=True)


def serve(shop: Shop, port: int) -> None:
    """Answer until SIGTERM or SIGINT."""
    Handler.shop = shop
    server = ThreadingHTTPServer(("", port), Handler)

    def stop(signum: int, frame: object) -> None:
        # shutdown() waits for the loop which this signal interrupted: it has to be called from elsewhere
        threading.Thread(target=server.shutdown).start()

    signal.signal(signal.SIGTERM, stop)
    signal.signal(signal.SIGINT, stop)
    log(f"version {shop.version}, build {shop.build}, listening on port {port}")
    server.serve_forever(poll_interval=0.1)
    log("stopped")


def main() -> None:
    missing = [name for name in ("CATALOGUE_URL", "ORDERS_URL") if not os.environ.get(name)]
    if missing:
        log(f"FATAL cannot start: not set: {', '.join(missing)}")
        sys.exit(1)
    shop = Shop(
        Upstream("catalogue", os.environ["CATALOGUE_URL"]),
        Upstream("orders", os.environ["ORDERS_URL"]),
    )
    serve(shop, int(os.environ.get("PORT", "8080")))
