"""Products: read from a JSON file and checked once, at start."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path


class InvalidCatalogue(Exception):
    """The products file cannot be used; the message says which entry and why."""


@dataclass(frozen=True)
class Product:
    """One thing the shop sells. ``price_cents`` is the price of one piece, in cents of ``currency``."""

    sku: str
    name: str
    description: str
    price_cents: int
    currency: str
    colour: str

    def as_json(self) -> dict[str, object]:
        return asdict(self)


class Catalogue:
    """All products by their SKU (stock keeping unit), in the order of the file."""

    def __init__(self, products: list[Product]) -> None:
        self._by_sku = {product.sku: product for product in products}

    def all(self) -> list[Product]:
        return list(self._by_sku.values())

    def find(self, sku: str) -> Product | None:
        return self._by_sku.get(sku)

    def __len__(self) -> int:
        return len(self._by_sku)


def load_catalogue(path: Path) -> Catalogue:
    """Read the products file.

    Raises InvalidCatalogue when the file is missing, is not JSON, holds an entry that lacks a field or whose price
    is not a positive whole number of cents, or names a SKU twice.
    """
    try:
        entries = json.loads(path.read_text(encoding="utf-8"))["products"]
    except FileNotFoundError as error:
        raise InvalidCatalogue(f"{path}: no such file") from error
    except (json.JSONDecodeError, KeyError, TypeError) as error:
        raise InvalidCatalogue(f'{path}: not a JSON object with "products": {error}') from error
    products = [parse_product(path, number, entry) for number, entry in enumerate(entries, start=1)]
    seen: set[str] = set()
    for product in products:
        if product.sku in seen:
            raise InvalidCatalogue(f"{path}: SKU {product.sku} is there twice")
        seen.add(product.sku)
    return Catalogue(products)


def parse_product(path: Path, number: int, entry: object) -> Product:
    """One entry of the products file. Raises InvalidCatalogue, naming the entry by its number."""
    if not isinstance(entry, dict):
        raise InvalidCatalogue(f"{path}: product {number} is not an object")
    try:
        product = Product(
            sku=str(entry["sku"]),
            name=str(entry["name"]),
            description=str(entry.get("description", "")),
            price_cents=entry["price_cents"],
            currency=str(entry.get("currency", "EUR")),
            colour=str(entry.get("colour", "#8a8f98")),
        )
    except KeyError as error:
        raise InvalidCatalogue(f"{path}: product {number} has no {error}") from error
    if isinstance(product.price_cents, bool) or not isinstance(product.price_cents, int) or product.price_cents <= 0:
        raise InvalidCatalogue(f"{path}: product {number} ({product.sku}): price_cents must be a whole number over 0")
    return product
