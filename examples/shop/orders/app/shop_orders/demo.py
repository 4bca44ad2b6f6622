"""Fills an empty shop with a few orders: ``python3 -m shop_orders.demo``. For places without data of their own."""

from __future__ import annotations

import os
from pathlib import Path

from shop_orders.database import transaction
from shop_orders.migrate import log


def main() -> None:
    with transaction() as connection, connection.cursor() as cursor:
        cursor.execute("SELECT EXISTS (SELECT FROM orders)")
        if cursor.fetchone()[0]:
            log("there are orders: no demo orders added")
            return
        cursor.execute(Path(os.environ.get("DEMO_ORDERS", "/app/demo/orders.sql")).read_text(encoding="utf-8"))
    log("demo orders added")


if __name__ == "__main__":
    main()
