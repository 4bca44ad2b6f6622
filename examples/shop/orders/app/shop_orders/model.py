"""Orders and carts as plain data, and the rules about them. No I/O."""

from __future__ import annotations

import re
from dataclasses import asdict, dataclass

SESSION = re.compile(r"[A-Za-z0-9_-]{8,64}")
SKU = re.compile(r"[a-z0-9-]{1,64}")
MAX_QUANTITY = 99

PLACED = "placed"
REFUNDED = "refunded"


class InvalidRequest(Exception):
    """The caller's input cannot be used; the message says why."""


class NotFound(Exception):
    """What the caller names is not there."""


@dataclass(frozen=True)
class Line:
    """``quantity`` pieces of one product, at the price of one piece (in cents) when it was ordered."""

    sku: str
    name: str
    quantity: int
    price_cents: int


@dataclass(frozen=True)
class Order:
    """An order as it is stored. ``placed_at`` is RFC 3339, UTC."""

    id: int
    customer: str
    status: str
    currency: str
    total_cents: int
    placed_at: str
    lines: list[Line]

    def as_json(self) -> dict[str, object]:
        return asdict(self)


def valid_session(text: object) -> str:
    """A cart's owner. Raises InvalidRequest unless it is 8 to 64 letters, digits, ``-`` or ``_``."""
    if not isinstance(text, str) or not SESSION.fullmatch(text):
        raise InvalidRequest("session must be 8 to 64 letters, digits, '-' or '_'")
    return text


def valid_sku(text: object) -> str:
    """Raises InvalidRequest unless it is 1 to 64 small letters, digits or ``-``."""
    if not isinstance(text, str) or not SKU.fullmatch(text):
        raise InvalidRequest("sku must be 1 to 64 small letters, digits or '-'")
    return text


def valid_quantity(number: object) -> int:
    """Pieces of one product in a cart; 0 takes it out. Raises InvalidRequest outside 0 to 99."""
    if isinstance(number, bool) or not isinstance(number, int) or not 0 <= number <= MAX_QUANTITY:
        raise InvalidRequest(f"quantity must be a whole number from 0 to {MAX_QUANTITY}")
    return number


def valid_customer(text: object) -> str:
    """The name on the order. Raises InvalidRequest when it is empty or over 80 characters."""
    if not isinstance(text, str) or not text.strip() or len(text) > 80:
        raise InvalidRequest("customer must be 1 to 80 characters")
    return text.strip()


def price_cart(cart: dict[str, int], products: list[dict[str, object]]) -> tuple[list[Line], str]:
    """The cart's lines at the catalogue's prices, and their currency.

    The prices never come from the caller. Raises InvalidRequest when the cart is empty, holds what the catalogue does
    not have, or mixes currencies.
    """
    if not cart:
        raise InvalidRequest("the cart is empty")
    by_sku = {str(product["sku"]): product for product in products}
    unknown = sorted(set(cart) - set(by_sku))
    if unknown:
        raise InvalidRequest(f"not in the catalogue: {', '.join(unknown)}")
    currencies = {str(by_sku[sku]["currency"]) for sku in cart}
    if len(currencies) > 1:
        raise InvalidRequest(f"one order cannot have several currencies: {', '.join(sorted(currencies))}")
    lines = [
        Line(sku, str(by_sku[sku]["name"]), quantity, int(str(by_sku[sku]["price_cents"])))
        for sku, quantity in sorted(cart.items())
    ]
    return lines, currencies.pop()


def total_cents(lines: list[Line]) -> int:
    return sum(line.quantity * line.price_cents for line in lines)
