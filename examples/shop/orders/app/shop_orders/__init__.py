"""The orders API: carts in Redis, orders in PostgreSQL."""
