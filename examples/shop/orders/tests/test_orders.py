import tempfile
import unittest
from pathlib import Path

from shop_orders import migrate
from shop_orders.model import (
    InvalidRequest,
    Line,
    price_cart,
    total_cents,
    valid_customer,
    valid_quantity,
    valid_session,
    valid_sku,
)
from shop_orders.settings import MissingSetting, read_settings

PRODUCTS = [
    {"sku": "lamp", "name": "Lamp", "price_cents": 4900, "currency": "EUR"},
    {"sku": "mug", "name": "Mug", "price_cents": 1490, "currency": "EUR"},
    {"sku": "map", "name": "Map", "price_cents": 900, "currency": "CHF"},
]


class Pricing(unittest.TestCase):
    def test_prices_are_the_catalogue_s(self) -> None:
        lines, currency = price_cart({"mug": 2, "lamp": 1}, PRODUCTS)
        self.assertEqual(lines, [Line("lamp", "Lamp", 1, 4900), Line("mug", "Mug", 2, 1490)])
        self.assertEqual((total_cents(lines), currency), (7880, "EUR"))

    def test_refused(self) -> None:
        for cart, reason in (
            ({}, "the cart is empty"),
            ({"sofa": 1, "bed": 1}, "not in the catalogue: bed, sofa"),
            ({"lamp": 1, "map": 1}, "several currencies: CHF, EUR"),
        ):
            with self.subTest(reason), self.assertRaisesRegex(InvalidRequest, reason):
                price_cart(cart, PRODUCTS)


class Input(unittest.TestCase):
    def test_accepted(self) -> None:
        self.assertEqual(valid_session("0123abcd_-"), "0123abcd_-")
        self.assertEqual(valid_sku("desk-lamp"), "desk-lamp")
        self.assertEqual(valid_quantity(0), 0)
        self.assertEqual(valid_customer(" Some One "), "Some One")

    def test_refused(self) -> None:
        for check, values in (
            (valid_session, ("short", "x" * 65, "cart:*--", None, 12345678)),
            (valid_sku, ("", "Desk Lamp", "x" * 65, None)),
            (valid_quantity, (-1, 100, "1", 1.5, True, None)),
            (valid_customer, ("", "   ", "x" * 81, None)),
        ):
            for value in values:
                with self.subTest(check=check.__name__, value=value), self.assertRaises(InvalidRequest):
                    check(value)


class SettingsFromTheEnvironment(unittest.TestCase):
    def test_read(self) -> None:
        good = {"PGHOST": "postgres", "CATALOGUE_URL": "http://catalogue:8080/", "REDIS_HOST": "redis"}
        settings = read_settings({**good, "REDIS_PASSWORD": "hidden"})
        self.assertEqual((settings.catalogue_url, settings.port), ("http://catalogue:8080", 8080))
        self.assertNotIn("hidden", repr(settings))

    def test_all_missing_ones_are_named(self) -> None:
        with self.assertRaisesRegex(MissingSetting, "not set: PGHOST, REDIS_HOST"):
            read_settings({"CATALOGUE_URL": "http://catalogue:8080"})


class Migrations(unittest.TestCase):
    def folder(self, *names: str) -> Path:
        folder = Path(self.enterContext(tempfile.TemporaryDirectory()))
        for name in names:
            (folder / name).write_text(f"SELECT '{name}';", encoding="utf-8")
        return folder

    def test_read_in_order(self) -> None:
        folder = self.folder("0002_b.up.sql", "0002_b.down.sql", "0001_a.up.sql", "0001_a.down.sql")
        self.assertEqual([str(step) for step in migrate.read_migrations(folder)], ["0001_a", "0002_b"])

    def test_refused(self) -> None:
        for names, reason in (
            (("0001_a.up.sql",), "0001_a.down.sql is missing"),
            (("0002_a.up.sql", "0002_a.down.sql"), "0002_a: version 0001 was expected"),
            (("1_a.up.sql",), "not named like 0001_name.up.sql"),
        ):
            with self.subTest(reason), self.assertRaisesRegex(migrate.MigrationError, reason):
                migrate.read_migrations(self.folder(*names))

    def test_steps(self) -> None:
        first, second = (migrate.Migration(version, "x", f"SELECT {version}", "SELECT 0") for version in (1, 2))
        self.assertEqual(migrate.missing_steps([first, second], {}), [first, second])
        self.assertEqual(migrate.missing_steps([first, second], {1: first.checksum}), [second])
        self.assertEqual(migrate.surplus_versions({1: "", 2: "", 3: "", 4: ""}, target=2), [4, 3])
        with self.assertRaisesRegex(migrate.MigrationError, "0001_x was changed after it had been applied"):
            migrate.missing_steps([first, second], {1: second.checksum})

    def test_those_of_this_image(self) -> None:
        migrations = migrate.read_migrations(Path(__file__).parent.parent / "migrations")
        self.assertEqual([step.version for step in migrations], list(range(1, len(migrations) + 1)))


if __name__ == "__main__":
    unittest.main()
