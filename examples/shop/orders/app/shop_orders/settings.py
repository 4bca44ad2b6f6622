"""What the service has to be told, from the environment.

The database is libpq's own business: PGHOST, PGUSER, PGPASSWORD and PGDATABASE are read by it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field


class MissingSetting(Exception):
    """A variable that has to be set is not."""


@dataclass(frozen=True)
class Settings:
    """``port`` is where to listen; ``version`` and ``build`` are only shown."""

    catalogue_url: str
    redis_host: str
    redis_password: str = field(repr=False)
    redis_port: int
    port: int
    version: str
    build: str


def read_settings(environment: Mapping[str, str]) -> Settings:
    """Raises MissingSetting with the names of all variables that are missing."""
    missing = [name for name in ("PGHOST", "CATALOGUE_URL", "REDIS_HOST") if not environment.get(name)]
    if missing:
        raise MissingSetting(f"not set: {', '.join(missing)}")
    return Settings(
        catalogue_url=environment["CATALOGUE_URL"].rstrip("/"),
        redis_host=environment["REDIS_HOST"],
        redis_password=environment.get("REDIS_PASSWORD", ""),
        redis_port=int(environment.get("REDIS_TCP_PORT", "6379")),
        port=int(environment.get("PORT", "8080")),
        version=environment.get("SHOP_VERSION", "unknown"),
        build=environment.get("SHOP_BUILD", "unknown"),
    )
