"""Brings the database's schema to the version that is wanted.

    python3 -m shop_orders.migrate up            apply what is missing (before a new version starts);
                                                 --demo-orders: then fill an empty shop
    python3 -m shop_orders.migrate exact         go up or down to exactly what this image brings (on a rollback)
    python3 -m shop_orders.migrate down --to 1   step back
    python3 -m shop_orders.migrate status

Migrations are ``NNNN_name.up.sql`` and ``NNNN_name.down.sql``. Each runs in a transaction of its own. The table
``schema_migrations`` keeps the down step of each: an older image, which does not bring the newer files, can step back
too.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import re
import sys
import time
from dataclasses import dataclass
from pathlib import Path

FILE_NAME = re.compile(r"(\d{4})_([a-z0-9_]+)\.up\.sql")
LOCK = 7_301_954  # any number that nobody else uses for pg_advisory_lock in this database
PATIENCE = 30  # seconds to wait for the database to accept connections

CREATE_TABLE = """
CREATE TABLE IF NOT EXISTS schema_migrations (
    version    integer PRIMARY KEY,
    name       text NOT NULL,
    checksum   text NOT NULL,
    down       text NOT NULL,
    applied_at timestamptz NOT NULL DEFAULT now()
)
"""


class MigrationError(Exception):
    """A migration cannot be applied; the message says which and why."""


@dataclass(frozen=True)
class Migration:
    """One step: ``up`` and ``down`` are SQL."""

    version: int
    name: str
    up: str
    down: str

    @property
    def checksum(self) -> str:
        return hashlib.sha256(self.up.encode()).hexdigest()

    def __str__(self) -> str:
        return f"{self.version:04d}_{self.name}"


def read_migrations(folder: Path) -> list[Migration]:
    """All migrations of a folder, by version.

    Raises MigrationError for a version that is there twice, a gap, or an up step without its down step.
    """
    migrations = []
    for path in sorted(folder.glob("*.up.sql")):
        match = FILE_NAME.fullmatch(path.name)
        if not match:
            raise MigrationError(f"{path.name}: not named like 0001_name.up.sql")
        down = path.with_name(path.name.replace(".up.sql", ".down.sql"))
        if not down.exists():
            raise MigrationError(f"{path.name}: {down.name} is missing")
        migrations.append(
            Migration(int(match[1]), match[2], path.read_text(encoding="utf-8"), down.read_text(encoding="utf-8"))
        )
    for expected, migration in enumerate(migrations, start=1):
        if migration.version != expected:
            raise MigrationError(f"{migration}: version {expected:04d} was expected here")
    return migrations


def missing_steps(migrations: list[Migration], applied: dict[int, str]) -> list[Migration]:
    """Those to apply, given the checksums of the applied ones.

    Raises MigrationError when a file was changed after it had been applied.
    """
    for migration in migrations:
        if applied.get(migration.version, migration.checksum) != migration.checksum:
            raise MigrationError(f"{migration} was changed after it had been applied: write a new migration instead")
    return [migration for migration in migrations if migration.version not in applied]


def surplus_versions(applied: dict[int, str], target: int) -> list[int]:
    """The applied versions over ``target``, in the order in which they have to be taken back."""
    return sorted((version for version in applied if version > target), reverse=True)


class Schema:
    """The schema of the database that PGHOST and its like name, held under a lock while it is changed."""

    def __init__(self) -> None:
        self._connection = connect()
        self._connection.autocommit = True
        with self._connection.cursor() as cursor:
            cursor.execute("SET lock_timeout = '30s'")
            cursor.execute("SELECT pg_advisory_lock(%s)", (LOCK,))
            cursor.execute(CREATE_TABLE)

    def applied(self) -> dict[int, str]:
        """The checksum of each applied version."""
        with self._connection.cursor() as cursor:
            cursor.execute("SELECT version, checksum FROM schema_migrations ORDER BY version")
            return dict(cursor.fetchall())

    def apply(self, migration: Migration) -> None:
        """Raises MigrationError with the server's own words; the step is rolled back then."""
        self._run(
            f"{migration} failed",
            migration.up,
            "INSERT INTO schema_migrations (version, name, checksum, down) VALUES (%s, %s, %s, %s)",
            (migration.version, migration.name, migration.checksum, migration.down),
        )
        log(f"{migration} applied")

    def take_back(self, version: int) -> None:
        """Raises MigrationError with the server's own words; the step is rolled back then."""
        with self._connection.cursor() as cursor:
            cursor.execute("SELECT name, down FROM schema_migrations WHERE version = %s", (version,))
            name, down = cursor.fetchone()
        self._run(
            f"down step of {version:04d}_{name} failed",
            down,
            "DELETE FROM schema_migrations WHERE version = %s",
            (version,),
        )
        log(f"{version:04d}_{name} taken back")

    def _run(self, what: str, step: str, bookkeeping: str, arguments: tuple[object, ...]) -> None:
        import psycopg2

        try:
            with self._connection.cursor() as cursor:
                cursor.execute("BEGIN")
                cursor.execute(step)
                cursor.execute(bookkeeping, arguments)
                cursor.execute("COMMIT")
        except psycopg2.Error as error:
            with self._connection.cursor() as cursor:
                cursor.execute("ROLLBACK")
            raise MigrationError(f"{what}: {error}".strip()) from error


def connect():  # type: ignore[no-untyped-def]
    """A connection, waiting up to PATIENCE seconds for a database that is still starting."""
    import psycopg2

    give_up = time.monotonic() + PATIENCE
    while True:
        try:
            return psycopg2.connect("", connect_timeout=3, application_name="shop-migrate")
        except psycopg2.OperationalError as error:
            if time.monotonic() > give_up:
                raise MigrationError(f"no connection within {PATIENCE} s: {error}".strip()) from error
            time.sleep(0.5)


def log(message: str) -> None:
    print(time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()), "migrate", message, flush=True)


def run(command: str, target: int | None, folder: Path) -> None:
    """Do what the module's docstring says for ``command``. Raises MigrationError."""
    migrations = read_migrations(folder)
    schema = Schema()
    applied = schema.applied()
    if command in ("up", "exact"):
        for migration in missing_steps(migrations, applied):
            schema.apply(migration)
    if command in ("down", "exact"):
        for version in surplus_versions(applied, len(migrations) if target is None else target):
            schema.take_back(version)
    versions = schema.applied()
    log(f"the schema is at version {max(versions, default=0)}")


def main() -> None:
    parser = argparse.ArgumentParser(prog="python3 -m shop_orders.migrate")
    parser.add_argument("command", choices=["up", "exact", "down", "status"])
    parser.add_argument("--to", type=int, metavar="VERSION", help="for down: the version to go back to")
    parser.add_argument("--demo-orders", action="store_true", help="for up: add a few orders where there are none")
    options = parser.parse_args()
    if options.demo_orders and options.command != "up":
        parser.error("--demo-orders goes with up")
    if (options.command == "down") != (options.to is not None):
        parser.error("--to goes with down, and down needs it")
    try:
        run(options.command, options.to, Path(os.environ.get("MIGRATIONS", "/app/migrations")))
    except MigrationError as error:
        log(f"FATAL {error}")
        sys.exit(1)
    if options.demo_orders:
        from shop_orders.demo import add_demo_orders

        log("demo orders added" if add_demo_orders() else "there are orders: no demo orders added")


if __name__ == "__main__":
    main()
