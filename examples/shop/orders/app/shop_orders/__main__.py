"""Start the orders API: ``python3 -m shop_orders``."""

from shop_orders.server import main

main()
