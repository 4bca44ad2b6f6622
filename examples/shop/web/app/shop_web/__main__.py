"""Start the web page: ``python3 -m shop_web``."""

from shop_web.server import main

main()
