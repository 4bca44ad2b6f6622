"""Orders in PostgreSQL. One connection per call: the shop is small, and a restarted database needs no care then."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing, contextmanager

import psycopg2
from psycopg2.extensions import connection as Connection

from shop_orders.model import PLACED, REFUNDED, InvalidRequest, Line, NotFound, Order, total_cents

REQUIRED_SCHEMA = 2  # the last migration that this code relies on

ORDER_COLUMNS = """
    orders.id, customer, status, currency, total_cents,
    to_char(placed_at AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS"Z"')
"""


class DatabaseUnavailable(Exception):
    """PostgreSQL does not answer, refuses us, or has an older schema; the message holds its own words."""


@contextmanager
def transaction() -> Iterator[Connection]:
    """A connection to the database that PGHOST and its like name; committed at the end, rolled back on an error.

    Raises DatabaseUnavailable when it cannot be reached within 3 seconds.
    """
    try:
        connection = psycopg2.connect("", connect_timeout=3, application_name="shop-orders")
    except psycopg2.OperationalError as error:
        raise DatabaseUnavailable(str(error).strip()) from error
    with closing(connection), connection:
        yield connection


def check() -> None:
    """Raises DatabaseUnavailable unless the database answers and has the schema that this code needs."""
    with transaction() as connection, connection.cursor() as cursor:
        cursor.execute("SELECT to_regclass('schema_migrations') IS NOT NULL")
        if not cursor.fetchone()[0]:
            raise DatabaseUnavailable("no migration has run in this database")
        cursor.execute("SELECT coalesce(max(version), 0) FROM schema_migrations")
        version = cursor.fetchone()[0]
    if version < REQUIRED_SCHEMA:
        raise DatabaseUnavailable(f"the schema is at version {version}, this code needs {REQUIRED_SCHEMA}")


def place_order(customer: str, lines: list[Line], currency: str) -> int:
    """Write an order and its lines. Returns its number."""
    with transaction() as connection, connection.cursor() as cursor:
        cursor.execute(
            "INSERT INTO orders (customer, status, currency, total_cents) VALUES (%s, %s, %s, %s) RETURNING id",
            (customer, PLACED, currency, total_cents(lines)),
        )
        number = int(cursor.fetchone()[0])
        cursor.executemany(
            "INSERT INTO order_lines (order_id, sku, name, quantity, price_cents) VALUES (%s, %s, %s, %s, %s)",
            [(number, line.sku, line.name, line.quantity, line.price_cents) for line in lines],
        )
    return number


def refund_order(number: int) -> None:
    """Raises NotFound without such an order, InvalidRequest when it was refunded before."""
    with transaction() as connection, connection.cursor() as cursor:
        cursor.execute("SELECT status FROM orders WHERE id = %s FOR UPDATE", (number,))
        row = cursor.fetchone()
        if row is None:
            raise NotFound(f"no order {number}")
        if row[0] == REFUNDED:
            raise InvalidRequest(f"order {number} was refunded before")
        cursor.execute("UPDATE orders SET status = %s WHERE id = %s", (REFUNDED, number))


def latest_orders(limit: int) -> list[Order]:
    """The last ``limit`` orders, newest first."""
    with transaction() as connection, connection.cursor() as cursor:
        cursor.execute(f"SELECT {ORDER_COLUMNS} FROM orders ORDER BY id DESC LIMIT %s", (limit,))
        rows = cursor.fetchall()
        lines = _lines_of(connection, [row[0] for row in rows])
    return [Order(*row, lines=lines.get(row[0], [])) for row in rows]


def find_order(number: int) -> Order:
    """Raises NotFound."""
    with transaction() as connection, connection.cursor() as cursor:
        cursor.execute(f"SELECT {ORDER_COLUMNS} FROM orders WHERE id = %s", (number,))
        row = cursor.fetchone()
        if row is None:
            raise NotFound(f"no order {number}")
        lines = _lines_of(connection, [number])
    return Order(*row, lines=lines.get(number, []))


def totals_by_status() -> list[dict[str, object]]:
    """How many orders there are in each status, and what they are worth."""
    with transaction() as connection, connection.cursor() as cursor:
        cursor.execute("SELECT status, count(*), sum(total_cents)::bigint FROM orders GROUP BY status ORDER BY status")
        rows = cursor.fetchall()
    return [{"status": status, "orders": count, "total_cents": total} for status, count, total in rows]


def _lines_of(connection: Connection, numbers: list[int]) -> dict[int, list[Line]]:
    lines: dict[int, list[Line]] = {}
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT order_id, sku, name, quantity, price_cents FROM order_lines WHERE order_id = ANY(%s)"
            " ORDER BY order_id, sku",
            (numbers,),
        )
        for number, *line in cursor.fetchall():
            lines.setdefault(number, []).append(Line(*line))
    return lines
