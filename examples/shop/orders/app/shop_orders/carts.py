"""Carts in Redis: the hash ``cart:SESSION`` holds the quantity of each SKU; it ends a day after the last change."""

from __future__ import annotations

import redis

from shop_orders.settings import Settings

DAY = 24 * 60 * 60  # seconds


class CartsUnavailable(Exception):
    """Redis does not answer, or answers with an error; the message holds its own words."""


class Carts:
    """Every method raises CartsUnavailable when Redis cannot do it."""

    def __init__(self, settings: Settings) -> None:
        self._redis = redis.Redis(
            host=settings.redis_host,
            port=settings.redis_port,
            password=settings.redis_password or None,
            socket_timeout=3,
            socket_connect_timeout=3,
            decode_responses=True,
        )

    def check(self) -> None:
        self._ask(self._redis.ping)

    def get(self, session: str) -> dict[str, int]:
        """The quantity of each SKU; empty when there is no cart."""
        items = self._ask(self._redis.hgetall, key(session))
        return {sku: int(quantity) for sku, quantity in items.items()}

    def put(self, session: str, items: dict[str, int]) -> None:
        """Set the quantities of some SKUs; 0 takes one out."""
        pipeline = self._redis.pipeline()
        for sku, quantity in items.items():
            if quantity:
                pipeline.hset(key(session), sku, quantity)
            else:
                pipeline.hdel(key(session), sku)
        pipeline.expire(key(session), DAY)
        self._ask(pipeline.execute)

    def take(self, session: str) -> dict[str, int]:
        """Read and remove a cart in one step, so that two clicks on "order" cannot order it twice."""
        pipeline = self._redis.pipeline(transaction=True)
        pipeline.hgetall(key(session))
        pipeline.delete(key(session))
        items, _ = self._ask(pipeline.execute)
        return {sku: int(quantity) for sku, quantity in items.items()}

    def totals(self) -> dict[str, int]:
        """How many carts are open, and how many pieces are in them."""
        keys = self._ask(lambda: list(self._redis.scan_iter("cart:*", count=500)))
        pieces = sum(int(quantity) for name in keys for quantity in self._ask(self._redis.hvals, name))
        return {"carts": len(keys), "pieces": pieces}

    @staticmethod
    def _ask(command, *arguments):  # type: ignore[no-untyped-def]
        try:
            return command(*arguments)
        except redis.RedisError as error:
            raise CartsUnavailable(f"redis: {error}") from error


def key(session: str) -> str:
    return f"cart:{session}"
