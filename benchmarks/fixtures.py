"""Fixtures of a large PostgreSQL database: memory while dumping, and restoring against pg_restore by hand.

- dumping it takes under 200 MB of memory, whatever its size;
- restoring it (comparing all rows afterwards included) takes at most 1.2 times what somebody needs who copies the
  archive into the pod with kubectl and runs `pg_restore -j2` there, which compares nothing.

Needs a cluster with the shop's base image (`--image`, of `examples/shop/make-base-image`).
"""

from __future__ import annotations

import asyncio
import json
import resource
import subprocess
import sys
import tempfile
import time
import uuid
from argparse import Namespace
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from measure import Claim, environment, medians, options, report, run, tool

from sandbox.capture.fixtures.dump import dump_fixtures
from sandbox.capture.fixtures.model import Fixture, Limits
from sandbox.capture.fixtures.restore import restore_fixture
from sandbox.capture.fixtures.store import RestoreRequest
from sandbox.cluster import objects
from sandbox.cluster.client import Cluster
from sandbox.project.config import Fixtures
from tests.e2e.datastores import postgres

_SOURCE, _TARGET, _JOBS = "source", "target", 2
# Four tables with two indexes each; a row is 220 bytes, half of it what does not compress.
_FILL = """
CREATE DATABASE shop;
\\c shop
SELECT format('CREATE TABLE t%1$s AS SELECT n AS id, n %% 1000 AS customer, md5(n::text) || md5((n * 7)::text) AS a,
  repeat(''note '', 20) AS note FROM generate_series(1, %2$s) n; ALTER TABLE t%1$s ADD PRIMARY KEY (id);
  CREATE INDEX ON t%1$s (customer)', t, :rows) FROM generate_series(1, 4) t \\gexec
"""
_BYTES_PER_ROW = 220


def main() -> None:
    parser = options(__doc__)
    parser.add_argument("--image", required=True, help="the shop's base image")
    parser.add_argument("--megabytes", type=int, default=500, help="size of the database (default: %(default)s)")
    parser.add_argument("--dump-to", type=Path, help="what the benchmark runs of itself")
    parser.add_argument("--namespace", default=f"bench-{uuid.uuid4().hex[:8]}")
    given = parser.parse_args()
    if given.dump_to is not None:
        asyncio.run(dump(given))
        return
    kubectl = [tool("kubectl"), *(["--context", given.context] if given.context else [])]
    kubectl += ["--kubeconfig", str(given.kubeconfig)] if given.kubeconfig else []
    run([*kubectl, "create", "namespace", given.namespace])
    try:
        measure(given, [*kubectl, "--namespace", given.namespace])
    finally:
        run([*kubectl, "delete", "namespace", given.namespace, "--wait=false"])


def measure(given: Namespace, kubectl: list[str]) -> None:
    for name in (_SOURCE, _TARGET):
        run([*kubectl, "apply", "-f", "-"], stdin=json.dumps(postgres(name, given.image)))
    run([*kubectl, "wait", "--for=condition=Ready", "pod", "--all", "--timeout=180s"])
    rows = given.megabytes * 1_000_000 // _BYTES_PER_ROW // 4
    psql = ["psql", "-q", "-U", "postgres", "-v", "ON_ERROR_STOP=1", "-v", f"rows={rows}"]
    run([*kubectl, "exec", "-i", _SOURCE, "--", *psql], stdin=_FILL)
    with tempfile.TemporaryDirectory() as folder:
        started = time.perf_counter()
        dumped = json.loads(run([sys.executable, __file__, *sys.argv[1:], *again(given, folder)]))
        fixture = Fixture.model_validate(dumped["fixture"])
        size = sum(table["size"] for table in fixture.facts["databases"][0]["tables"]) / 1e6
        print(
            f"dumped {size:.0f} MB of tables as {fixture.size / 1e6:.0f} MB in {time.perf_counter() - started:.1f} s",
            flush=True,
        )
        archive = Path(folder) / next(part.path for part in fixture.parts if part.role == "archive")

        def by_hand(_: int) -> None:
            drop(kubectl)
            with archive.open("rb") as file:
                command = [*kubectl, "exec", "-i", _TARGET, "--", "sh", "-c", "cat > /tmp/shop.dump"]
                subprocess.run(command, stdin=file, check=True, timeout=600, env=environment())
            run([*kubectl, "exec", _TARGET, "--", "createdb", "-U", "postgres", "shop"])
            restore = ["pg_restore", "-U", "postgres", f"-j{_JOBS}", "-d", "shop", "/tmp/shop.dump"]
            run([*kubectl, "exec", _TARGET, "--", *restore])

        def by_us(_: int) -> None:
            drop(kubectl)
            asyncio.run(restored(given, fixture, Path(folder)))

        product, peer = medians(given.rounds, by_us, by_hand)
    report(
        Claim("memory while dumping", dumped["peak"], 200.0, 1.0, "MB"),
        Claim("restoring a fixture", product, peer, 1.2),
    )


def again(given: Namespace, folder: str) -> list[str]:
    return ["--dump-to", folder, "--namespace", given.namespace]


def drop(kubectl: list[str]) -> None:
    sql = "DROP DATABASE IF EXISTS shop WITH (FORCE)"
    run([*kubectl, "exec", _TARGET, "--", "psql", "-q", "-U", "postgres", "-c", sql])


async def dump(given: Namespace) -> None:
    """Dump in a process of its own, and say what it took."""
    async with Cluster.connect(given.context, given.kubeconfig) as cluster:
        pods = [p async for p in objects.list_(cluster, "v1", "Pod", given.namespace)]
        found = await dump_fixtures(
            cluster,
            given.namespace,
            [pod for pod in pods if pod["metadata"]["name"] == _SOURCE],
            Fixtures(),
            given.dump_to,
            limits=Limits(max_fixture=2**40),
            deadline=time.monotonic() + 600,
            hmac_key=b"of no matter here",
        )
    [fixture] = found
    if fixture.status != "ok":
        raise SystemExit(f"{fixture.status}: {fixture.why}")
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(json.dumps({"peak": peak, "fixture": fixture.model_dump(mode="json")}))


async def restored(given: Namespace, fixture: Fixture, folder: Path) -> None:
    async with Cluster.connect(given.context, given.kubeconfig) as cluster:
        pods = {p["metadata"]["name"]: p async for p in objects.list_(cluster, "v1", "Pod", given.namespace)}
        request = RestoreRequest(jobs=_JOBS)
        await restore_fixture(cluster, given.namespace, pods[_TARGET], fixture, folder, request=request)


if __name__ == "__main__":
    main()
