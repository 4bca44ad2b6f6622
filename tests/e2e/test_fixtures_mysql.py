"""Fixtures of a real MariaDB. MySQL itself is in no package registry that tests can use; its tools are called alike."""

from __future__ import annotations

import gzip
import hashlib
import json
import time
import uuid
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from sandbox.capture.fixtures.dump import dump_fixtures
from sandbox.capture.fixtures.inpod import ToolFailed
from sandbox.capture.fixtures.model import Fixture, Limits
from sandbox.capture.fixtures.mysql.server import Server
from sandbox.capture.fixtures.store import Access
from sandbox.cluster.client import Cluster
from sandbox.cluster.providers import ClusterInfo
from sandbox.model.errors import Refused
from sandbox.model.objects import Manifest
from sandbox.project.config import Fixtures
from tests.conftest import kubectl
from tests.e2e.api import api_of
from tests.e2e.bounded import until
from tests.e2e.datastores import PASSWORD, mariadb, mariadb_image
from tests.e2e.test_fixtures import KEY, Run, Stores
from tests.e2e.workloads import claim

SHOP = r"""
CREATE DATABASE shop; CREATE DATABASE `odd-na``me`; USE shop;
CREATE TABLE customers (id int AUTO_INCREMENT PRIMARY KEY, email varchar(80) UNIQUE NOT NULL, name text, photo blob);
CREATE TABLE purchases (id bigint AUTO_INCREMENT PRIMARY KEY, customer_email varchar(80) NOT NULL, note text,
  total decimal(10,2), twice decimal(12,2) AS (total * 2) STORED, at timestamp, third double,
  FOREIGN KEY (customer_email) REFERENCES customers (email));
CREATE TABLE nothing (a int);
CREATE VIEW richest AS SELECT customer_email, sum(total) AS sum FROM purchases GROUP BY 1;
INSERT INTO customers (email, name, photo) SELECT concat('c', seq, '@corp.example'),
  concat('Tab\tand\nline ''quoted'' \\ (x, y) 😀', seq, char(26)), unhex(md5(seq)) FROM seq_1_to_300;
INSERT INTO purchases (customer_email, note, total, third) SELECT concat('c', seq % 300 + 1, '@corp.example'),
  IF(seq % 5 = 0, NULL, md5(seq)), seq * 1.5, seq / 3 FROM seq_1_to_2000;
CREATE TRIGGER named BEFORE INSERT ON customers FOR EACH ROW SET NEW.name = coalesce(NEW.name, 'nobody');
DELIMITER //
CREATE PROCEDURE looks_like_rows() BEGIN
INSERT INTO `nothing` (`a`) VALUES (1);
INSERT INTO `nothing` (`a`) VALUES (2);
END //
DELIMITER ;
CREATE USER orders@'%' IDENTIFIED BY 'secret-of-orders'; GRANT SELECT, INSERT ON shop.* TO orders@'%';
USE `odd-na``me`; CREATE TABLE `T``x (a) VALUES (1);` (a int); INSERT INTO `T``x (a) VALUES (1);` VALUES (7);
"""


@pytest.fixture(scope="module")
def stores(cluster: ClusterInfo) -> Iterator[Stores]:
    image, name = mariadb_image(cluster), f"test-{uuid.uuid4().hex[:10]}"
    kubectl(cluster, "create", "namespace", name)
    for pod in ("books", "empty-books"):
        kubectl(cluster, "-n", name, "apply", "-f", "-", stdin=json.dumps(mariadb(pod, image)))
    kubectl(cluster, "-n", name, "wait", "--for=condition=Ready", "pod", "--all", "--timeout=120s")
    client = f"exec mariadb -u root -p{PASSWORD} --default-character-set=utf8mb4"
    kubectl(cluster, "exec", "-i", "-n", name, "books", "--", "sh", "-c", client, stdin=SHOP)
    found = api_of(cluster).list("pods", name)
    yield Stores(name, {pod["metadata"]["name"]: pod for pod in found})
    kubectl(cluster, "delete", "namespace", name, "--wait=false")


@pytest.fixture
async def tried(cluster: ClusterInfo, stores: Stores, tmp_path: Path) -> AsyncIterator[Run]:
    async with Cluster.connect(cluster.context, cluster.kubeconfig) as connection:
        yield Run(connection, stores, tmp_path / "fixtures")


async def ask(tried: Run, pod: str, sql: str, **access: str) -> str:
    return (await Server(tried.place(pod), Access(**access)).execute(sql, database="shop")).strip()  # type: ignore[arg-type]


async def test_databases_and_accounts_come_back_as_they_were(tried: Run) -> None:
    fixture = (await tried.dump("books"))["books"]
    assert (fixture.kind, fixture.status, fixture.why, fixture.notes) == ("mysql", "ok", "", ())
    by_name = {database["name"]: database["tables"] for database in fixture.facts["databases"]}
    assert {name: table["rows"] for name, table in by_name["shop"].items()} == {
        "customers": 300, "purchases": 2000, "nothing": 0,
    }  # fmt: skip
    assert by_name["odd-na`me"]["T`x (a) VALUES (1);"]["rows"] == 1
    assert "secret-of-orders" not in fixture.model_dump_json()
    assert "IDENTIFIED" not in fixture.model_dump_json()

    assert await tried.restore(fixture, "empty-books", passwords={"orders": "a'new\\one"}) == ()

    assert await tried.verify(fixture, "empty-books") == ()
    rows = "SELECT name, hex(photo) FROM customers WHERE id = 7; SELECT count(*), sum(twice) FROM purchases"
    assert await ask(tried, "empty-books", rows) == await ask(tried, "books", rows)
    body = "SELECT routine_definition FROM information_schema.routines WHERE routine_name = 'looks_like_rows'"
    assert await ask(tried, "empty-books", body) == await ask(tried, "books", body)
    as_orders = {"user": "orders", "password": "a'new\\one"}
    assert await ask(tried, "empty-books", "SELECT count(*) FROM customers", **as_orders) == "300"
    with pytest.raises(ToolFailed, match="denied"):
        await ask(tried, "empty-books", "DELETE FROM customers", **as_orders)
    with pytest.raises(Refused, match="database shop: rows in customers, purchases"):
        await tried.restore(fixture, "empty-books")
    await ask(tried, "empty-books", "DELETE FROM purchases WHERE id = 3; UPDATE customers SET name = '' WHERE id = 3")
    assert await tried.verify(fixture, "empty-books") == (
        "shop: the rows of customers are not those that were captured",
        "shop: purchases has 1999 rows instead of 2000",
    )
    notes = await tried.restore(fixture, "empty-books", replace=True)
    assert notes == ("nobody knows the passwords of orders: they are locked",)
    assert await tried.verify(fixture, "empty-books") == ()
    newer = fixture.model_copy(update={"server_version": "99.1-MariaDB"})
    with pytest.raises(Refused, match="of mariadb 99"):
        await tried.restore(newer, "empty-books", replace=True)


async def test_masked_columns_and_what_refers_to_them_are_stored_as_others(tried: Run) -> None:
    rules = {"shop.customers.email": "email", "shop.customers.name": "name"}
    fixture = (await tried.dump("books", declared={"mask": rules}))["books"]

    assert (fixture.status, fixture.why) == ("ok", "")
    assert fixture.masked == (
        "shop.customers.email: email", "shop.customers.name: name", "shop.purchases.customer_email: email",
    )  # fmt: skip
    assert "corp.example" not in _sql(tried, fixture, "shop")
    await tried.restore(fixture, "empty-books", replace=True)
    assert await tried.verify(fixture, "empty-books") == ()
    joined = "SELECT count(*) FROM purchases JOIN customers ON email = customer_email"
    assert await ask(tried, "empty-books", joined) == "2000"


async def test_what_may_not_or_cannot_be_stored_is_left_out_and_said(tried: Run) -> None:
    refused = (await tried.dump("books", declared={"mask": {"shop.customers.gone": "email"}}))["books"]
    assert (refused.status, "there is no column gone" in refused.why) == ("failed", True)
    assert "corp.example" not in _sql(tried, refused, "shop")
    large = (await tried.dump("books", limit=20_000))["books"]
    assert large.status == "truncated"
    assert {d["name"]: d["schema_only"] for d in large.facts["databases"]} == {"odd-na`me": False, "shop": True}
    wrong = {"stores": {"books": {"databases": ["nowhere"]}}}
    missing = (await tried.dump("books", declared=wrong))["books"]
    assert (missing.status, "there is no database nowhere" in missing.why) == ("failed", True)


async def test_a_restore_that_fails_in_the_middle_leaves_no_half_a_database(tried: Run) -> None:
    fixture = (await tried.dump("books"))["books"]
    part = next(part for part in fixture.parts if part.database == "shop")
    sql = gzip.decompress((tried.folder / part.path).read_bytes()).replace(b"(1500,", b"(1499,")
    content = gzip.compress(sql)
    (tried.folder / part.path).write_bytes(content)
    damaged = part.model_copy(update={"size": len(content), "sha256": hashlib.sha256(content).hexdigest()})
    parts = tuple(damaged if one is part else one for one in fixture.parts)

    with pytest.raises(ToolFailed, match="Duplicate entry '1499'"):
        await tried.restore(fixture.model_copy(update={"parts": parts}), "empty-books", replace=True)

    assert "database shop is missing" in await tried.verify(fixture, "empty-books")


def _sql(tried: Run, fixture: Fixture, database: str) -> str:
    [part] = [part for part in fixture.parts if part.database == database]
    return gzip.decompress((tried.folder / part.path).read_bytes()).decode()


async def test_what_a_server_holds_that_does_not_start_is_read_from_a_copy_of_its_volume(
    cluster: ClusterInfo, stores: Stores, tried: Run
) -> None:
    where = ("-n", stores.namespace)
    for manifest in (claim("down"), _on_volume(mariadb_image(cluster))):
        kubectl(cluster, *where, "apply", "-f", "-", stdin=json.dumps(manifest))
    kubectl(cluster, *where, "wait", "--for=condition=Ready", "pod/down", "--timeout=120s")
    client = f"exec mariadb -u root -p{PASSWORD}"
    some = "CREATE DATABASE shop; USE shop; CREATE TABLE orders AS SELECT seq AS id FROM seq_1_to_100"
    kubectl(cluster, "exec", "-i", *where, "down", "--", "sh", "-c", client, stdin=some)
    kubectl(cluster, *where, "delete", "pod", "down", "--force", "--grace-period=0")
    broken = _on_volume(mariadb_image(cluster), "--no-such-option")
    kubectl(cluster, *where, "apply", "-f", "-", stdin=json.dumps(broken))

    def pod() -> Manifest | None:
        found = api_of(cluster).get("pod", "down", stores.namespace) or {}
        statuses = found.get("status", {}).get("containerStatuses", ())
        return found if any(status["restartCount"] for status in statuses) else None

    found = await dump_fixtures(
        tried.api,
        stores.namespace,
        [until(pod, "it crashes")],
        Fixtures(),
        tried.folder,
        limits=Limits(),
        deadline=time.monotonic() + 60,
        hmac_key=KEY,
        allow_write=True,
    )

    assert [(fixture.status, fixture.why) for fixture in found] == [("ok", "")]
    [database] = found[0].facts["databases"]
    assert database["tables"]["orders"]["rows"] == 100


def _on_volume(image: str, *arguments: str) -> Manifest:
    pod = mariadb("down", image, *arguments, volumeMounts=[{"name": "data", "mountPath": "/var/lib/mysql"}])
    pod["spec"]["volumes"] = [{"name": "data", "persistentVolumeClaim": {"claimName": "down"}}]
    return pod
