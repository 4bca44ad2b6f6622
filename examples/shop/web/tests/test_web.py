"""The page against two small services that answer over HTTP, on ports of this machine."""

import http.client
import json
import threading
import unittest
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from shop_web.page import View, money, render
from shop_web.server import Handler, Shop
from shop_web.upstream import Upstream, UpstreamError

LAMP = {"sku": "lamp", "name": "<Lamp>", "price_cents": 4900, "currency": "EUR", "colour": "#fff"}


def serve(handler: type[BaseHTTPRequestHandler]) -> ThreadingHTTPServer:
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
    return server


class Services(BaseHTTPRequestHandler):
    """Answers what the catalogue and the orders API agreed to, from ``answers`` by method and path."""

    answers: dict[str, tuple[int, object]]
    asked: list[tuple[str, object]]

    def do_GET(self) -> None:
        content = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        line = f"{self.command} {self.path.split('?')[0]}"
        self.asked.append((line, json.loads(content or b"null")))
        status, body = self.answers.get(line, (404, {"error": f"nothing at {line}"}))
        answer = json.dumps(body).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(answer)))
        self.end_headers()
        self.wfile.write(answer)

    do_POST = do_DELETE = do_GET

    def log_message(self, format: str, *args: object) -> None:
        pass


class OverHttp(unittest.TestCase):
    def setUp(self) -> None:
        Services.asked = []
        Services.answers = {
            "GET /api/products": (200, {"products": [LAMP]}),
            "GET /api/cart": (200, {"items": {"lamp": 2}}),
            "POST /api/cart": (200, {"items": {"lamp": 3}}),
            "GET /api/orders": (200, {"orders": []}),
            "POST /api/orders": (201, {"id": 7}),
            "GET /api/summary": (200, {"orders": [], "carts": {"carts": 0, "pieces": 0}}),
        }
        services = serve(Services)
        url = f"http://127.0.0.1:{services.server_address[1]}"
        web = serve(
            type("ShopHandler", (Handler,), {"shop": Shop(Upstream("catalogue", url), Upstream("orders", url))})
        )
        for server in (services, web):
            self.addCleanup(server.server_close)
            self.addCleanup(server.shutdown)
        self.connection = http.client.HTTPConnection("127.0.0.1", web.server_address[1], timeout=10)
        self.addCleanup(self.connection.close)

    def ask(self, method: str, path: str, body: str | None = None, **headers: str) -> tuple[int, str, dict[str, str]]:
        self.connection.request(method, path, body, headers)
        response = self.connection.getresponse()
        return response.status, response.read().decode(), dict(response.headers)

    def test_page(self) -> None:
        status, html, headers = self.ask("GET", "/")
        self.assertEqual(status, 200)
        self.assertIn("&lt;Lamp&gt;", html)
        self.assertIn("Cart (2)", html)
        self.assertIn("98.00\N{NO-BREAK SPACE}EUR", html)
        self.assertIn("shop_session=", headers["Set-Cookie"])

    def test_page_without_the_orders_service(self) -> None:
        Services.answers["GET /api/cart"] = Services.answers["GET /api/orders"] = (503, {"error": "redis: gone"})
        status, html, _ = self.ask("GET", "/")
        self.assertEqual(status, 200)
        self.assertIn("The orders service cannot be used right now", html)
        self.assertIn("redis: gone", html)
        self.assertIn("&lt;Lamp&gt;", html)

    def test_forms(self) -> None:
        cookie = "shop_session=visitor-1"
        status, _, headers = self.ask("POST", "/cart", "sku=lamp", Cookie=cookie)
        self.assertEqual((status, headers["Location"]), (303, "/?message=In+your+cart."))
        self.assertIn(("POST /api/cart", {"session": "visitor-1", "sku": "lamp", "quantity": 3}), Services.asked)
        status, _, headers = self.ask("POST", "/order", "customer=Some+One", Cookie=cookie)
        self.assertEqual(status, 303)
        self.assertIn("number+7", headers["Location"])
        self.assertIn(("POST /api/orders", {"session": "visitor-1", "customer": "Some One"}), Services.asked)

    def test_overview_says_which_service_failed(self) -> None:
        order = {"id": 7, "customer": "Some One", "status": "placed", "total_cents": 4900, "currency": "EUR"}
        Services.answers["GET /api/orders"] = (200, {"orders": [order]})
        overview = json.loads(self.ask("GET", "/api/overview")[1])
        self.assertEqual((overview["products"], overview["latest"]), (1, {"7": "49.00\N{NO-BREAK SPACE}EUR"}))
        Services.answers["GET /api/summary"] = (500, {"error": "KeyError: 'x'"})
        status, body, _ = self.ask("GET", "/api/overview")
        self.assertEqual(status, 502)
        self.assertEqual(json.loads(body), {"error": "orders: GET /api/summary answered 500: KeyError: 'x'"})

    def test_a_caller_s_fault_stays_one(self) -> None:
        Services.answers["POST /api/orders"] = (400, {"error": "the cart is empty"})
        status, body, _ = self.ask("POST", "/api/orders", '{"customer": "Some One"}')
        self.assertEqual(status, 400)
        self.assertIn("the cart is empty", body)
        for path, body_text in (("/api/cart", "nonsense"), ("/api/cart", '{"session": "*"}'), ("/api/orders", "[]")):
            with self.subTest(body_text):
                self.assertEqual(self.ask("POST", path, body_text)[0], 400)

    def test_health_and_unknown_paths(self) -> None:
        self.assertEqual(self.ask("GET", "/healthz")[0], 200)
        self.assertEqual(self.ask("GET", "/sofa")[0], 404)


class WithoutServices(unittest.TestCase):
    def test_nobody_answers(self) -> None:
        with self.assertRaisesRegex(UpstreamError, "catalogue: no answer from http://127.0.0.1:1"):
            Upstream("catalogue", "http://127.0.0.1:1").get("/api/products")

    def test_money(self) -> None:
        self.assertEqual(money(123456, "EUR"), "1,234.56\N{NO-BREAK SPACE}EUR")

    def test_everything_is_escaped(self) -> None:
        html = render(
            View(
                version="<1>",
                build="<2>",
                environment="<3>",
                products=[{**LAMP, "description": "<4>", "sku": '"><5>'}],
                cart={"<6>": 1},
                orders=[{"id": 1, "customer": "<7>", "status": "<8>", "total_cents": 1, "currency": "<9>"}],
                notices=["<10>"],
                message="<11>",
            )
        )
        for number in range(1, 12):
            self.assertNotIn(f"<{number}>", html)
            self.assertIn(f"&lt;{number}&gt;", html)


if __name__ == "__main__":
    unittest.main()
