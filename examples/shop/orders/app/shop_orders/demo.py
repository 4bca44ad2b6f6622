"""A few orders for an empty shop, in places that have no data of their own."""

from __future__ import annotations

import os
from pathlib import Path

from shop_orders.database import transaction


def add_demo_orders() -> bool:
    """Whether they were added: not where there is any order. Raises DatabaseUnavailable."""
    path = Path(os.environ.get("DEMO_ORDERS", "/app/demo/orders.sql"))
    with transaction() as connection, connection.cursor() as cursor:
        cursor.execute("SELECT EXISTS (SELECT FROM orders)")
        if cursor.fetchone()[0]:
            return False
        cursor.execute(path.read_text(encoding="utf-8"))
    return True
