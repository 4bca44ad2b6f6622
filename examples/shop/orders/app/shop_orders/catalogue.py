"""Asks the catalogue API."""

from __future__ import annotations

import json
import urllib.error
import urllib.request


class CatalogueUnavailable(Exception):
    """The catalogue does not answer, or not as agreed."""


def products(catalogue_url: str) -> list[dict[str, object]]:
    """All products, as the catalogue gives them. Raises CatalogueUnavailable after at most 3 seconds."""
    url = f"{catalogue_url}/api/products"
    try:
        with urllib.request.urlopen(url, timeout=3) as response:
            return list(json.load(response)["products"])
    except (urllib.error.URLError, TimeoutError, ValueError, KeyError) as error:
        raise CatalogueUnavailable(f"{url}: {error}") from error
