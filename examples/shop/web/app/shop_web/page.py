"""The page as HTML, from plain data. Everything that comes from elsewhere is escaped."""

from __future__ import annotations

from dataclasses import dataclass, field
from html import escape
from pathlib import Path
from string import Template

FOLDER = Path(__file__).parent


@dataclass(frozen=True)
class View:
    """What one visitor sees.

    ``cart`` is the quantity of each SKU; ``notices`` are the services that could not be asked, and why.
    """

    version: str
    build: str
    environment: str
    products: list[dict[str, object]] = field(default_factory=list)
    cart: dict[str, int] = field(default_factory=dict)
    orders: list[dict[str, object]] = field(default_factory=list)
    notices: list[str] = field(default_factory=list)
    message: str = ""


def render(view: View) -> str:
    """The whole page."""
    template = Template((FOLDER / "page.html").read_text(encoding="utf-8"))
    return template.substitute(
        style=(FOLDER / "style.css").read_text(encoding="utf-8"),
        environment=f'<span class="badge">{escape(view.environment)}</span>' if view.environment else "",
        count=sum(view.cart.values()),
        notices="".join(f'<p class="notice error" role="alert">{escape(notice)}</p>' for notice in view.notices)
        + (f'<p class="notice" role="status">{escape(view.message)}</p>' if view.message else ""),
        products="".join(product_card(product) for product in view.products)
        or '<p class="empty">Nothing to sell right now.</p>',
        cart=cart_table(view),
        orders=orders_table(view.orders),
        version=escape(view.version),
        build=escape(view.build),
    )


def product_card(product: dict[str, object]) -> str:
    name = str(product["name"])
    return f"""
<article class="card">
  <div class="picture" style="--colour: {escape(str(product.get("colour", "#8a8f98")))}" aria-hidden="true">{
        escape(name[:1])
    }</div>
  <h3>{escape(name)}</h3>
  <p>{escape(str(product.get("description", "")))}</p>
  <form method="post" action="/cart">
    <input type="hidden" name="sku" value="{escape(str(product["sku"]))}">
    <span class="price">{escape(money(product["price_cents"], product["currency"]))}</span>
    <button aria-label="Add {escape(name)} to the cart">Add</button>
  </form>
</article>"""


def cart_table(view: View) -> str:
    if not view.cart:
        return '<p class="empty">Your cart is empty.</p>'
    by_sku = {str(product["sku"]): product for product in view.products}
    rows, total, currency = [], 0, ""
    for sku, quantity in sorted(view.cart.items()):
        product = by_sku.get(sku)
        name, price = sku, ""
        if product is not None:
            cents, currency = quantity * int(str(product["price_cents"])), str(product["currency"])
            name, price, total = str(product["name"]), money(cents, currency), total + cents
        rows.append(f'<tr><td>{quantity} × {escape(name)}</td><td class="amount">{escape(price)}</td></tr>')
    return f"""
<table>{"".join(rows)}
<tr class="total"><td>Total</td><td class="amount">{escape(money(total, currency))}</td></tr></table>
<form method="post" action="/order" class="stack">
  <label>Your name <input name="customer" required maxlength="80" autocomplete="name"></label>
  <button class="primary">Place the order</button>
</form>
<form method="post" action="/cart/empty"><button class="quiet">Empty the cart</button></form>"""


def orders_table(orders: list[dict[str, object]]) -> str:
    if not orders:
        return '<p class="empty">No orders yet.</p>'
    rows = "".join(
        f"<tr><td>#{order['id']}</td><td>{escape(str(order['customer']))}</td>"
        f'<td><span class="status {escape(str(order["status"]))}">{escape(str(order["status"]))}</span></td>'
        f'<td class="amount">{escape(amount(order))}</td></tr>'
        for order in orders
    )
    return f"<table>{rows}</table>"


def amount(order: dict[str, object]) -> str:
    """What an order costs."""
    return money(order["total_cents"], order["currency"])


def money(cents: object, currency: object) -> str:
    """``4900, "EUR"`` → ``49.00 EUR``, with a space that does not break."""
    return f"{int(str(cents)) / 100:,.2f}\N{NO-BREAK SPACE}{currency}"
