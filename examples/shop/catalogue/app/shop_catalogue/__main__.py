"""Start the catalogue API: ``python3 -m shop_catalogue``."""

from shop_catalogue.server import main

main()
