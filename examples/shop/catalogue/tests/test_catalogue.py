import json
import tempfile
import unittest
from pathlib import Path

from shop_catalogue.products import Catalogue, InvalidCatalogue, load_catalogue
from shop_catalogue.server import answer

LAMP = {"sku": "lamp", "name": "Lamp", "price_cents": 4900}


class ProductsFile(unittest.TestCase):
    def load(self, content: object) -> Catalogue:
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "products.json"
            path.write_text(json.dumps(content), encoding="utf-8")
            return load_catalogue(path)

    def test_products_keep_their_order(self) -> None:
        catalogue = self.load({"products": [LAMP, {**LAMP, "sku": "bulb"}]})
        self.assertEqual([product.sku for product in catalogue.all()], ["lamp", "bulb"])

    def test_refused_with_the_reason(self) -> None:
        for content, reason in (
            ({"products": [LAMP, LAMP]}, "SKU lamp is there twice"),
            ({"products": [{"sku": "lamp", "name": "Lamp"}]}, "product 1 has no 'price_cents'"),
            ({"products": [{**LAMP, "price_cents": 0}]}, "price_cents must be a whole number over 0"),
            ({"products": [{**LAMP, "price_cents": "49"}]}, "price_cents must be a whole number over 0"),
            ({"products": ["lamp"]}, "product 1 is not an object"),
            ([], "not a JSON object"),
        ):
            with self.subTest(reason), self.assertRaisesRegex(InvalidCatalogue, reason):
                self.load(content)

    def test_missing_file(self) -> None:
        with self.assertRaisesRegex(InvalidCatalogue, "no such file"):
            load_catalogue(Path("/nowhere/products.json"))


class Answers(unittest.TestCase):
    def setUp(self) -> None:
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "products.json"
            path.write_text(json.dumps({"products": [LAMP]}), encoding="utf-8")
            self.catalogue = load_catalogue(path)

    def test_all_products(self) -> None:
        status, body = answer(self.catalogue, "/api/products")
        self.assertEqual(status, 200)
        self.assertEqual([product["sku"] for product in body["products"]], ["lamp"])

    def test_one_product(self) -> None:
        status, body = answer(self.catalogue, "/api/products/lamp")
        self.assertEqual((status, body["price_cents"], body["currency"]), (200, 4900, "EUR"))

    def test_what_is_not_there(self) -> None:
        self.assertEqual(answer(self.catalogue, "/api/products/sofa"), (404, {"error": "no product sofa"}))
        self.assertEqual(answer(self.catalogue, "/sofa")[0], 404)

    def test_health(self) -> None:
        self.assertEqual(answer(self.catalogue, "/healthz"), (200, {"status": "ok", "products": 1}))


if __name__ == "__main__":
    unittest.main()
