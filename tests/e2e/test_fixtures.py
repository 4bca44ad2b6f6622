"""Fixtures of real databases and caches: dumped, masked, brought back; and everything that can go wrong on the way."""

from __future__ import annotations

import asyncio
import gzip
import hashlib
import io
import json
import time
import uuid
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
import yaml

from sandbox.capture.fixtures.dump import dump_fixtures
from sandbox.capture.fixtures.inpod import Place, StreamCut, ToolFailed, run, stream
from sandbox.capture.fixtures.model import Fixture, Limits
from sandbox.capture.fixtures.postgresql.connection import Server, connect
from sandbox.capture.fixtures.restore import restore_fixture, verify_fixture
from sandbox.capture.fixtures.store import Access, RestoreRequest
from sandbox.cluster.client import Cluster
from sandbox.cluster.pods import exec_
from sandbox.cluster.providers import ClusterInfo
from sandbox.model.errors import OperationFailed, Refused
from sandbox.model.objects import Manifest
from sandbox.project.config import Fixtures
from tests.conftest import kubectl
from tests.e2e.api import api_of
from tests.e2e.datastores import PASSWORD, base_image, postgres, redis

KEY = b"a key of these tests, 32 bytes.."
ROLES = """
CREATE ROLE orders LOGIN PASSWORD 'secret-of-orders'; CREATE ROLE "Odd one" NOLOGIN; GRANT "Odd one" TO orders;
CREATE DATABASE shop OWNER orders; CREATE DATABASE "odd='name" TEMPLATE template0;
ALTER DATABASE shop SET search_path TO public, audit; ALTER DATABASE shop SET work_mem = '5MB';
REVOKE CONNECT ON DATABASE shop FROM PUBLIC; GRANT CREATE ON DATABASE shop TO "Odd one";
"""
SHOP = """
SET ROLE orders;
CREATE TABLE customers (id serial PRIMARY KEY, email varchar(80) UNIQUE NOT NULL, name text, born date);
CREATE TABLE purchases (id bigserial PRIMARY KEY, customer_email varchar(80) NOT NULL REFERENCES customers (email),
  note text, total numeric, twice numeric GENERATED ALWAYS AS (total * 2) STORED);
CREATE TABLE events (at date NOT NULL, what text) PARTITION BY RANGE (at);
CREATE TABLE events_2026 PARTITION OF events FOR VALUES FROM ('2026-01-01') TO ('2027-01-01');
CREATE TABLE schema_migrations (version text PRIMARY KEY, dirty boolean);
CREATE VIEW richest AS SELECT customer_email, sum(total) FROM purchases GROUP BY 1;
INSERT INTO customers (email, name, born) SELECT 'c' || n || '@corp.example', E'Tab\\tand\\nline ' || n, '2000-01-01'
  FROM generate_series(1, 500) n;
INSERT INTO purchases (customer_email, note, total) SELECT 'c' || (n % 500 + 1) || '@corp.example', md5(n::text),
  n * 1.5 FROM generate_series(1, 3000) n;
INSERT INTO events SELECT '2026-01-01'::date + n, 'thing ' || n FROM generate_series(1, 50) n;
INSERT INTO schema_migrations VALUES ('0002', false), ('0003', false);
"""
KEYS = """
for i = 1, 1000 do redis.call('SET', 'k' .. i, string.rep('v' .. i, 20)) end
redis.call('HSET', 'cart:1', 'sku', 'enamel-mug', 'quantity', 2) redis.call('ZADD', 'z', 1, 'a', 2.5, 'b')
redis.call('XADD', 's', '*', 'f', 'v') redis.call('XGROUP', 'CREATE', 's', 'g', '0')
redis.call('SADD', 'set', 'x', 'y') redis.call('RPUSH', 'list', 'a', 'b')
redis.call('SET', 'session', 'x', 'EX', 1000) redis.call('SELECT', 3) redis.call('SET', 'other', 'y') return 1
"""


@dataclass(frozen=True)
class Stores:
    """A namespace with a full and an empty server of each kind."""

    namespace: str
    pods: dict[str, Manifest]


@pytest.fixture(scope="module")
def stores(cluster: ClusterInfo) -> Iterator[Stores]:
    image, name = base_image(cluster), f"test-{uuid.uuid4().hex[:10]}"
    kubectl(cluster, "create", "namespace", name)
    pods = [
        postgres("ledger", image),
        postgres("empty-ledger", image),
        redis("cache", image),
        redis("empty-cache", image),
    ]
    for pod in pods:
        kubectl(cluster, "-n", name, "apply", "-f", "-", stdin=json.dumps(pod))
    kubectl(cluster, "-n", name, "wait", "--for=condition=Ready", "pod", "--all", "--timeout=120s")
    psql = ("exec", "-i", "-n", name, "ledger", "--", "psql", "-q", "-U", "postgres", "-v", "ON_ERROR_STOP=1", "-d")
    kubectl(cluster, *psql, "postgres", stdin=ROLES)
    kubectl(cluster, *psql, "shop", stdin=SHOP)
    kubectl(cluster, *psql, "dbname='odd=\\'name'", stdin='CREATE TABLE "T""x" (a int); INSERT INTO "T""x" VALUES (7)')
    say = 'REDISCLI_AUTH="$REDIS_PASSWORD" redis-cli -e EVAL "$(cat)" 0'
    kubectl(cluster, "exec", "-i", "-n", name, "cache", "--", "sh", "-c", say, stdin=KEYS)
    found = api_of(cluster).list("pods", name)
    yield Stores(name, {pod["metadata"]["name"]: pod for pod in found})
    kubectl(cluster, "delete", "namespace", name, "--wait=false")


@pytest.fixture
async def api(cluster: ClusterInfo) -> AsyncIterator[Cluster]:
    async with Cluster.connect(cluster.context, cluster.kubeconfig) as connection:
        yield connection


class Run:
    """Dumps and restores between the stores of the module."""

    def __init__(self, api: Cluster, stores: Stores, folder: Path) -> None:
        self.api, self.stores, self.folder = api, stores, folder
        self._servers: dict[str, Server] = {}

    def place(self, pod: str) -> Place:
        return Place(self.api, self.stores.namespace, pod, "main")

    async def dump(
        self, *pods: str, declared: dict[str, Any] | None = None, limit: int = 2**30, seconds: float = 60
    ) -> dict[str, Fixture]:
        found = await dump_fixtures(
            self.api,
            self.stores.namespace,
            [self.stores.pods[pod] for pod in pods],
            Fixtures.model_validate(declared or {}, strict=False),
            self.folder,
            limits=Limits(max_fixture=limit),
            deadline=time.monotonic() + seconds,
            hmac_key=KEY,
        )
        return {fixture.name: fixture for fixture in found}

    async def restore(self, fixture: Fixture, pod: str, **request: Any) -> tuple[str, ...]:
        target = self.stores.pods[pod]
        wanted = RestoreRequest(timeout=60, **request)
        return await restore_fixture(self.api, self.stores.namespace, target, fixture, self.folder, request=wanted)

    async def verify(self, fixture: Fixture, pod: str) -> tuple[str, ...]:
        return await verify_fixture(self.api, self.stores.namespace, self.stores.pods[pod], fixture)

    async def sql(self, pod: str, database: str, sql: str) -> list[str]:
        if pod not in self._servers:
            self._servers[pod] = await connect(self.place(pod), Access())
        return (await self._servers[pod].execute(database, sql)).splitlines()

    async def redis(self, pod: str, *command: str) -> str:
        setup = 'export REDISCLI_AUTH="$REDIS_PASSWORD"; set -- redis-cli "$@"'
        return (await run(self.place(pod), setup, command, tool="redis-cli", timeout=20)).strip()

    async def emptied(self, pod: str) -> None:
        """Make an empty server of one that a test has restored into."""
        for what, name, table in (("DATABASE", "datname", "pg_database"), ("ROLE", "rolname", "pg_roles")):
            drop = f"SELECT 'DROP {what} ' || quote_ident({name}) FROM {table} WHERE oid > 16383"
            await self.sql(pod, "postgres", f"{drop} \\gexec")

    def files(self) -> list[str]:
        return sorted(str(path.relative_to(self.folder)) for path in self.folder.rglob("*") if path.is_file())


@pytest.fixture
def tried(api: Cluster, stores: Stores, tmp_path: Path) -> Run:
    return Run(api, stores, tmp_path / "fixtures")


# -- PostgreSQL


async def test_databases_and_roles_come_back_as_they_were(tried: Run) -> None:
    fixture = (await tried.dump("ledger"))["ledger"]
    assert (fixture.status, fixture.why, fixture.kind) == ("ok", "", "postgresql")
    assert fixture.server_version.startswith("15.")
    assert fixture.started_at < fixture.ended_at
    for part in fixture.parts:
        assert hashlib.sha256((tried.folder / part.path).read_bytes()).hexdigest() == part.sha256
    assert tried.files() == sorted(part.path for part in fixture.parts)
    assert "SCRAM" not in (tried.folder / "ledger/roles.sql").read_text()
    shop = next(database for database in fixture.facts["databases"] if database["name"] == "shop")
    assert {table["name"]: table["rows"] for table in shop["tables"]} == {
        "customers": 500, "purchases": 3000, "events_2026": 50, "schema_migrations": 2
    }  # fmt: skip
    assert shop["schema_version"] == {"table": "public.schema_migrations", "version": "0003", "dirty": False}

    passwords = {"orders": "another secret", "nobody": "x"}
    notes = await tried.restore(fixture, "empty-ledger", passwords=passwords)

    assert notes == ("a password was given for the role nobody, which is not there",)
    assert await tried.verify(fixture, "empty-ledger") == ()
    asked = {
        "postgres": "SELECT datname, pg_get_userbyid(datdba), datacl FROM pg_database WHERE oid > 16383 ORDER BY 1;\n"
        "SELECT setconfig FROM pg_db_role_setting; SELECT roleid::regrole, member::regrole FROM pg_auth_members"
        " WHERE member > 16383",
        "shop": "SELECT tablename, tableowner FROM pg_tables WHERE schemaname = 'public' ORDER BY 1;\n"
        "SELECT nextval('customers_id_seq'); SELECT * FROM richest ORDER BY 1 LIMIT 3;\n"
        "SELECT sum(twice) FROM purchases",
        "odd='name": 'SELECT a FROM "T""x"',
    }
    for database, query in asked.items():
        assert await tried.sql("empty-ledger", database, query) == await tried.sql("ledger", database, query)
    orders = Access(user="orders", password="another secret", databases=("shop",))
    over_tcp = replace(await connect(tried.place("empty-ledger"), orders), host="127.0.0.1")
    assert (await over_tcp.execute("shop", "SELECT current_user")).strip() == "orders"
    with pytest.raises(ToolFailed, match="password authentication failed"):
        await replace(over_tcp, password="secret-of-orders").execute("shop", "SELECT 1")

    # What is there now is not overwritten unasked, and is what it was when asked.
    with pytest.raises(Refused, match="there are tables in odd='name, shop"):
        await tried.restore(fixture, "empty-ledger")
    await tried.sql("empty-ledger", "shop", "DELETE FROM purchases; UPDATE customers SET name = 'x' WHERE id = 7")
    assert await tried.verify(fixture, "empty-ledger") == (
        "shop: public.purchases has 0 rows instead of 3000",
        "shop: the rows of public.customers are not those that were captured",
    )
    async with over_tcp.session("shop") as somebody:
        await somebody.lines("SELECT 1")
        assert await tried.restore(fixture, "empty-ledger", replace=True) == ()
    assert await tried.verify(fixture, "empty-ledger") == ()
    await tried.emptied("empty-ledger")


async def test_masked_columns_and_what_refers_to_them_are_stored_as_others(tried: Run) -> None:
    mask = {"shop.customers.email": "email", "shop.public.customers.name": "name"}
    fixture = (await tried.dump("ledger", declared={"mask": mask}))["ledger"]
    assert (fixture.status, fixture.why) == ("ok", "")
    assert fixture.masked == (
        "shop.public.customers.email: email",
        "shop.public.customers.name: name",
        "shop.public.purchases.customer_email: email",
    )
    server = await connect(tried.place("ledger"), Access())
    for part in fixture.parts:
        content = (tried.folder / part.path).read_bytes()
        if part.role == "archive":
            # As SQL: an archive is compressed.
            sql = io.BytesIO()
            await server.stream(["pg_restore", "-f", "-"], sql, stdin=content, timeout=30)
            content = sql.getvalue()
        elif part.role == "rows":
            content = gzip.decompress(content)
        assert b"corp.example" not in content
        assert b"Tab" not in content

    await tried.restore(fixture, "empty-ledger")

    assert await tried.verify(fixture, "empty-ledger") == ()
    joined = "SELECT count(*) FROM customers c JOIN purchases p ON p.customer_email = c.email"
    assert await tried.sql("empty-ledger", "shop", joined) == ["3000"]
    shapes = "SELECT count(DISTINCT email), bool_and(email ~ '^[0-9a-f]{20}@example.com$') FROM customers"
    assert await tried.sql("empty-ledger", "shop", shapes) == ["500|t"]
    kept = "SELECT id, born FROM customers ORDER BY id; SELECT id, note, total, twice FROM purchases ORDER BY id"
    assert await tried.sql("empty-ledger", "shop", kept) == await tried.sql("ledger", "shop", kept)
    await tried.emptied("empty-ledger")


@pytest.mark.parametrize(
    ("rule", "said"),
    [
        ("shop.customers.emial", "there is no column emial in public.customers"),
        ("shop.customers.born", "it is no text but date"),
        ("shpo.customers.email", "masking rules are about shpo, and there is no such database"),
    ],
)
async def test_a_rule_that_cannot_be_kept_leaves_no_data(tried: Run, rule: str, said: str) -> None:
    fixture = (await tried.dump("ledger", declared={"mask": {rule: "email"}}))["ledger"]
    assert fixture.status == "failed"
    assert said in fixture.why
    shop = next(database for database in fixture.facts["databases"] if database["name"] == "shop")
    assert shop["schema_only"]
    assert [part.role for part in fixture.parts if part.database == "shop"] == ["schema"]
    with pytest.raises(Refused, match="it is failed"):
        await tried.restore(fixture, "empty-ledger")


@pytest.mark.parametrize("limit", [20_000, 90_000], ids=["far over", "over while it comes"])
async def test_what_is_over_the_limit_is_schema_and_row_counts(tried: Run, limit: int) -> None:
    fixture = (await tried.dump("ledger", limit=limit, declared={"stores": {"ledger": {"databases": ["shop"]}}}))[
        "ledger"
    ]
    assert fixture.status == "truncated"
    assert f"over the limit of {limit}" in fixture.why
    [shop] = fixture.facts["databases"]
    assert shop["schema_only"]
    assert {"purchases": 3000, "customers": 500}.items() <= {t["name"]: t["rows"] for t in shop["tables"]}.items()
    assert tried.files() == ["ledger/roles.sql", "ledger/shop.schema"]
    with pytest.raises(Refused, match="it is truncated"):
        await tried.restore(fixture, "empty-ledger")
    # Nor does it help to say that it is whole.
    with pytest.raises(Refused, match="does not hold the data of shop"):
        await tried.restore(fixture.model_copy(update={"status": "ok"}), "empty-ledger")


async def killed(place: Place, program: str) -> None:
    """Kill a program in a pod, as soon as it runs."""
    script = """
while :; do for p in /proc/[0-9]*; do
  [ "$(cat $p/comm 2>/dev/null)" = "$1" ] && kill -9 "${p#/proc/}" && exit 0
done; done
"""
    said = io.BytesIO()
    command = ["sh", "-c", script, "sh", program]
    assert await exec_(place.cluster, place.namespace, place.pod, "main", command, stdout=said, timeout=30) == 0


async def connections(tried: Run, pod: str) -> list[str]:
    """What the tool left running on a server."""
    query = (
        "SELECT application_name, query FROM pg_stat_activity"
        " WHERE application_name LIKE 'sandbox-%' AND pid <> pg_backend_pid()"
    )
    return await tried.sql(pod, "postgres", query)


async def test_a_dump_that_is_killed_is_no_fixture(tried: Run) -> None:
    killing = asyncio.create_task(killed(tried.place("ledger"), "pg_dump"))
    fixture = (await tried.dump("ledger", "cache"))["ledger"]
    await killing
    assert fixture.status == "failed"
    assert "pg_dump in ledger/main failed" in fixture.why
    assert fixture.parts == ()
    # The other one is not touched by it.
    assert tried.files() == ["cache/dump.rdb.gz"]
    assert await connections(tried, "ledger") == []


async def test_output_that_is_lost_after_the_command_ended_well_is_noticed(tried: Run) -> None:
    # The fault of kubernetes/kubernetes#124571 cannot be had on demand: here a part is lost on its way out of the pod.
    lossy = 'tee() { command tee "$@" | { head -c 1000; cat >/dev/null; }; }'
    with pytest.raises(StreamCut, match="1000 bytes arrived of 588895"):
        await stream(tried.place("ledger"), lossy, ["seq", "100000"], io.BytesIO(), tool="seq", timeout=20)
    with pytest.raises(StreamCut, match="it did not say how it ended"):
        await stream(tried.place("ledger"), "exit 0;", ["seq", "9"], io.BytesIO(), tool="seq", timeout=20)
    received = io.BytesIO()
    await stream(tried.place("ledger"), "", ["seq", "100000"], received, tool="seq", timeout=20)
    assert len(received.getvalue()) == 588895


async def test_a_command_that_does_not_read_its_input_ends(tried: Run) -> None:
    async def much() -> AsyncIterator[bytes]:
        for _ in range(320):
            yield bytes(64 * 1024)

    place = tried.place("ledger")
    assert await run(place, "", ["echo", "done"], stdin=much(), tool="echo", timeout=20) == "done\n"
    with pytest.raises(ToolFailed):
        await run(place, "", ["false"], stdin=much(), tool="false", timeout=20)


async def test_a_table_that_is_locked_is_not_waited_for(tried: Run) -> None:
    server = await connect(tried.place("ledger"), Access())
    only_shop = {"stores": {"ledger": {"databases": ["shop"]}}}
    async with server.session("shop") as migration:
        await migration.lines("BEGIN; LOCK TABLE customers IN ACCESS EXCLUSIVE MODE")
        late = (await tried.dump("ledger", declared=only_shop, seconds=3))["ledger"]
        assert (late.status, late.parts) == ("timeout", ())
        left = await connections(tried, "ledger")
        assert [line for line in left if server.application not in line] == []
        refused = (await tried.dump("ledger", declared=only_shop))["ledger"]
        assert refused.status == "failed"
        assert "canceling statement due to lock timeout" in refused.why
    assert tried.files() == []


async def test_a_restore_that_is_killed_leaves_nothing_behind(tried: Run) -> None:
    only_shop = {"stores": {"ledger": {"databases": ["shop"]}}}
    fixture = (await tried.dump("ledger", declared=only_shop))["ledger"]
    killing = asyncio.create_task(killed(tried.place("empty-ledger"), "pg_restore"))
    with pytest.raises(OperationFailed, match="pg_restore in empty-ledger/main failed"):
        await tried.restore(fixture, "empty-ledger")
    await killing
    left = "SELECT datname FROM pg_database WHERE oid > 16383"
    assert await tried.sql("empty-ledger", "postgres", left) == []
    assert await connections(tried, "empty-ledger") == []
    find = ["find", "/tmp", "/var/tmp", "/var/lib/postgresql", "-name", "sandbox-restoring-*"]
    assert await run(tried.place("empty-ledger"), "", find, tool="find", timeout=20) == ""
    # Rows that are not those of the facts are no success either.
    facts = json.loads(json.dumps(fixture.facts))
    facts["databases"][0]["tables"][0]["checksum"] = "1"
    with pytest.raises(OperationFailed, match=r"the rows of public\.customers are not those that were captured"):
        await tried.restore(fixture.model_copy(update={"facts": facts}), "empty-ledger")
    assert await tried.sql("empty-ledger", "postgres", left) == []
    facts["version_num"] = 990000
    with pytest.raises(Refused, match="the target empty-ledger/main is the older PostgreSQL 15"):
        await tried.restore(fixture.model_copy(update={"facts": facts}), "empty-ledger")
    with (tried.folder / "ledger/shop.dump").open("ab") as file:
        file.write(b"x")
    with pytest.raises(OperationFailed, match=r"ledger/shop\.dump is not what was captured"):
        await tried.restore(fixture, "empty-ledger")
    await tried.emptied("empty-ledger")


# -- Redis


async def test_keys_come_back_with_the_time_they_had_left(tried: Run) -> None:
    fixture = (await tried.dump("cache"))["cache"]
    assert (fixture.status, fixture.why) == ("ok", "")
    assert fixture.facts["databases"] == {"0": {"keys": 1006, "expiring": 1}, "3": {"keys": 1, "expiring": 0}}

    assert await tried.restore(fixture, "empty-cache") == ()

    assert await tried.verify(fixture, "empty-cache") == ()
    for command in (
        ["GET", "k7"], ["HGETALL", "cart:1"], ["ZRANGE", "z", "0", "-1", "WITHSCORES"], ["XINFO", "GROUPS", "s"],
        ["LRANGE", "list", "0", "-1"], ["-n", "3", "GET", "other"],
    ):  # fmt: skip
        assert await tried.redis("empty-cache", *command) == await tried.redis("cache", *command)
    # It counts on from the time that was left when it was dumped.
    now = int(await tried.redis("cache", "TTL", "session"))
    assert now <= int(await tried.redis("empty-cache", "TTL", "session")) <= 1000
    with pytest.raises(Refused, match="database 0: 1006 keys, database 3: 1 keys"):
        await tried.restore(fixture, "empty-cache")
    await tried.redis("empty-cache", "DEL", "k1", "k2")
    assert await tried.verify(fixture, "empty-cache") == (
        "database 0 has 1003 keys that do not expire instead of 1005",
    )
    await tried.restore(fixture, "empty-cache", replace=True)
    assert await tried.verify(fixture, "empty-cache") == ()
    with pytest.raises(Refused, match="the target empty-cache/main is the older Redis 7"):
        await tried.restore(fixture.model_copy(update={"server_version": "99.1"}), "empty-cache", replace=True)
    # Half of the keys would look like all of them.
    damaged = {**fixture.facts, "format_version": 10}
    (tried.folder / "cache/dump.rdb.gz").write_bytes(gzip.compress(b"REDIS0010\x00\x01k\x01v"))
    content = (tried.folder / "cache/dump.rdb.gz").read_bytes()
    part = fixture.parts[0].model_copy(update={"size": len(content), "sha256": hashlib.sha256(content).hexdigest()})
    broken = fixture.model_copy(update={"facts": damaged, "parts": (part,)})
    with pytest.raises(OperationFailed):
        await tried.restore(broken, "empty-cache", replace=True)
    assert await tried.redis("empty-cache", "DBSIZE") == "0"


async def test_a_server_that_gives_no_snapshots_is_read_key_by_key(
    cluster: ClusterInfo, tried: Run, stores: Stores
) -> None:
    secret = ["create", "secret", "generic", "reader", "--from-literal=password=of-the-reader"]
    kubectl(cluster, "-n", stores.namespace, *secret)
    await tried.redis("cache", "ACL", "SETUSER", "reader", "on", ">of-the-reader", "~*", "+@all", "-psync", "-sync")
    password = {"secretKeyRef": {"name": "reader", "key": "password"}}
    declared = {"stores": {"cart": {"workload": "cache", "user": "reader", "passwordFrom": password}}}

    fixture = (await tried.dump("cache", declared=declared))["cart"]

    assert fixture.status == "ok"
    assert "NOPERM" in fixture.notes[0]
    assert fixture.facts["databases"] == {"0": {"keys": 1006, "expiring": 1}, "3": {"keys": 1, "expiring": 0}}
    await tried.redis("empty-cache", "FLUSHALL")
    await tried.restore(fixture, "empty-cache")
    assert await tried.verify(fixture, "empty-cache") == ()
    assert await tried.redis("empty-cache", "HGETALL", "cart:1") == await tried.redis("cache", "HGETALL", "cart:1")
    wrong = {"stores": {"cache": {"user": "reader", "passwordFrom": {"secretKeyRef": {"name": "reader", "key": "no"}}}}}
    refused = (await tried.dump("cache", declared=wrong))["cache"]
    assert (refused.status, "there is no key 'no'" in refused.why) == ("failed", True)
    truncated = (await tried.dump("cache", limit=100))["cache"]
    assert (truncated.status, truncated.facts["databases"]["3"]["keys"]) == ("truncated", 1)


# -- rights


async def test_who_may_not_run_commands_in_pods_gets_no_fixtures(
    cluster: ClusterInfo, tried: Run, stores: Stores, tmp_path: Path
) -> None:
    namespace = stores.namespace
    kubectl(cluster, "-n", namespace, "create", "serviceaccount", "reader")
    binding = ("rolebinding", "reader", "--clusterrole=view", f"--serviceaccount={namespace}:reader")
    kubectl(cluster, "-n", namespace, "create", *binding)
    token = kubectl(cluster, "-n", namespace, "create", "token", "reader").strip()
    config = yaml.safe_load(cluster.kubeconfig.read_text())
    context = next(c["context"] for c in config["contexts"] if c["name"] == cluster.context)
    context["user"] = "reader"
    config["users"] = [{"name": "reader", "user": {"token": token}}]
    (tmp_path / "kubeconfig").write_text(yaml.safe_dump(config))
    async with Cluster.connect(cluster.context, tmp_path / "kubeconfig") as reader:
        found = await Run(reader, stores, tried.folder).dump("ledger", "cache")
    assert {name: fixture.status for name, fixture in found.items()} == {"ledger": "denied", "cache": "denied"}
    for fixture in found.values():
        assert 'cannot get resource "pods/exec"' in fixture.why
        assert PASSWORD not in fixture.model_dump_json()
