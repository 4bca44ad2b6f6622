"""A deployment that fails while a database and a cache hold data: captured, rolled back, the page answers as before."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from typing import Any

import pytest

from sandbox.cluster.providers import ClusterInfo
from tests.conftest import kubectl
from tests.e2e.datastores import PASSWORD, base_image, postgres, redis
from tests.e2e.projects import Ended, GitProject, Manifest, Namespace, Tool, deployment, service

ENV = "integration"
PAGE = """
import os, sys
if "CRASH" in os.environ: sys.exit("cannot start: " + os.environ["CRASH"])
import http.server, psycopg2, redis
def overview():
    with psycopg2.connect(host="db", user="postgres", dbname="shop", connect_timeout=20) as connection:
        rows = connection.cursor()
        rows.execute("SELECT count(*), sum(total) FROM orders")
        return f"{rows.fetchone()} {redis.Redis('cache', password=os.environ['PGPASSWORD']).get('cart')}"
class Page(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        try: code, body = 200, overview()
        except Exception as error: code, body = 500, repr(error)
        self.send_response(code); self.end_headers(); self.wfile.write(body.encode())
    def log_message(self, *words): pass
http.server.ThreadingHTTPServer(("", 8080), Page).serve_forever()
"""
FIRST = "CREATE TABLE IF NOT EXISTS orders (id serial PRIMARY KEY, total int)"
OLD = "(3, 60) b'mug'"


class Shop:
    """An environment with a database, a cache and the page that reads both; three orders and a cart are in them."""

    def __init__(self, cluster: ClusterInfo, tool: Tool, project: GitProject, image: str, store: str) -> None:
        self.tool = tool.with_environment(SANDBOX_CAPTURE_STORE=store)
        self.project, self.image = project, image
        self.space = Namespace(cluster, f"env-{uuid.uuid4().hex[:8]}")

    def declare(self, sql: str = FIRST, migrations: Manifest | None = None, smoke: str = "", **env: str) -> None:
        """Write what is deployed: ``sql`` is the migration, ``env`` the page's own variables."""
        stores = {
            "db": self.project.manifests("db", _kept(postgres("db", self.image)), service("db", 5432)),
            "cache": self.project.manifests("cache", _kept(redis("cache", self.image)), service("cache", 6379)),
        }
        variables = [
            {"name": name, "value": value} for name, value in {"PGPASSWORD": PASSWORD, "MIGRATION": sql, **env}.items()
        ]
        ready = {"tcpSocket": {"port": 8080}, "periodSeconds": 1}
        page = deployment("page", self.image, command=["python3", "-c", PAGE], env=variables, readinessProbe=ready)
        # As the migrations of real services do: a Service leads nowhere for a moment after its pod is ready.
        script = (
            "n=0; until pg_isready -q -h db; do n=$((n + 1)); [ $n -lt 60 ] || break; sleep 0.5; done;"
            ' psql -q -h db -U postgres -d postgres -c "CREATE DATABASE shop" 2>/dev/null;'
            ' exec psql -q -h db -U postgres -d shop -v ON_ERROR_STOP=1 -c "$SQL"'
        )
        migrate = {
            "name": "migrate",
            "command": ["sh", "-c", script],
            "image": self.image,
            "env": {"PGPASSWORD": PASSWORD, "SQL": sql},
        }
        orders: dict[str, Any] = {
            **self.project.manifests("page", page, service("page")),
            "needs": ["db", "cache"],
            "ports": {"http": 8080},
            "hooks": {"beforeDeploy": [migrate]},
            "smoke": {"http": {"path": "/", "contains": smoke}, "timeout": "10s"},
            "migrations": migrations or {"restore": "fixtures"},
        }
        self.project.declare({**stores, "page": orders}, environments={ENV: {"namespace": self.space.name}})
        self.project.commit()

    def deploy(self, *arguments: str) -> Ended:
        command = ("deploy", ENV, "--timeout", "90s", "-o", "json", *arguments)
        return self.tool.run(*command, cwd=self.project.folder)

    def within(self, pod: str, *command: str, stdin: str | None = None) -> str:
        """What a command in a pod says."""
        where = ("--namespace", self.space.name, "exec", "-i", pod, "--")
        return kubectl(self.space.cluster, *where, *command, stdin=stdin).strip()

    def page(self) -> str:
        """What the page answers, asked from within."""
        ask = (
            "import http.client as h; c = h.HTTPConnection('page', 8080, timeout=30); c.request('GET', '/');"
            " print(c.getresponse().read().decode())"
        )
        return self.within("deployment/page", "python3", "-c", ask)

    def headline(self, ended: Ended) -> str:
        """The first lines of the capture that a deployment took."""
        shown = self.tool.run("capture", "show", ended.data["capture"]["id"]).ok().out
        return "\n".join(shown.splitlines()[:5])


def _kept(pod: Manifest) -> Manifest:
    """A StatefulSet of one such pod; nothing changes it, so that its data stays."""
    name, label = pod["metadata"]["name"], {**pod["metadata"]["labels"], "app": pod["metadata"]["name"]}
    template = {"metadata": {"labels": label}, "spec": pod["spec"]}
    spec = {"serviceName": name, "selector": {"matchLabels": {"app": name}}, "template": template}
    return {"apiVersion": "apps/v1", "kind": "StatefulSet", "metadata": {"name": name}, "spec": spec}


@pytest.fixture(scope="module")
def shop(cluster: ClusterInfo, tool: Tool, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shop]:
    folder = tmp_path_factory.mktemp("shop")
    made = Shop(cluster, tool, GitProject(folder), base_image(cluster), str(folder / "captures"))
    made.declare()
    made.deploy().ok()
    made.within("db-0", "psql", "-U", "postgres", "shop", stdin="INSERT INTO orders (total) VALUES (10), (20), (30)")
    made.within("cache-0", "redis-cli", "-a", PASSWORD, "--no-auth-warning", "SET", "cart", "mug")
    assert made.page() == OLD
    yield made
    kubectl(cluster, "delete", "namespace", made.space.name, "--wait=false")


def test_a_crash_at_start_after_the_migration_gives_the_data_back(shop: Shop) -> None:
    shop.declare("UPDATE orders SET total = 0; INSERT INTO orders (total) VALUES (1)", CRASH="PAYMENT_URL is not set")

    ended = shop.deploy()

    ended.failed(1, "cannot start: PAYMENT_URL is not set", "rolled back to record")
    assert shop.page() == OLD
    assert any("orders has 4 rows instead of 3" in line for line in ended.data["lost"])
    assert "PAYMENT_URL is not set" in shop.headline(ended)


def test_a_migration_that_fails_half_way_gives_the_data_back(shop: Shop) -> None:
    # Two statements, two transactions: the first one stays.
    shop.declare("ALTER TABLE orders DROP COLUMN total; COMMIT; ALTER TABLE nowhere ADD COLUMN x int")

    ended = shop.deploy()

    ended.failed(1, 'relation "nowhere" does not exist')
    assert shop.page() == OLD
    assert "nowhere" in shop.headline(ended)


def test_a_smoke_test_that_fails_runs_the_step_down(shop: Shop) -> None:
    """The rows written meanwhile stay: nothing is restored."""
    back = "import psycopg2 as p; c = p.connect(host='db', user='postgres', dbname='shop'); "
    back += "c.cursor().execute('ALTER TABLE orders RENAME COLUMN sum TO total'); c.commit()"
    down = {"down": {"command": ["python3", "-c", back]}}
    shop.declare("ALTER TABLE orders RENAME COLUMN total TO sum", down, smoke="a page that sums up")

    ended = shop.deploy()

    ended.failed(1, "smoke test of page failed")
    assert shop.page() == OLD
    assert ended.data["lost"] == []
