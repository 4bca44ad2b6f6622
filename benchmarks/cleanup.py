"""How fast the clean-up is, and what it asks of the API server.

1,000 expired sandboxes of 2,000: `sandbox cleanup` (its start included) against kube-janitor's way, which is one
request after another from one thread: an Event and a DELETE for each (`janitor.py`, at most a third of the time).
That is claimed for a cluster that answers 10 ms later than one on this machine (`distance.py`), as managed ones do.
Where the control plane shares two cores with the clean-up, it is claimed to take half of the time at most, and does so
because deletions come last: 5 s after the first one the namespace controller begins to empty namespaces, with more CPU
time than all that is measured here, and the peer still deletes then. Before that both need the same of the API server
(some 2 ms of CPU for each Event and DELETE), which one thread's requests already keep more than half busy.
Requests per deleted (at most 3) and per kept sandbox (at most 0.02) are counted. With 5,000 sandboxes of which none
is due: peak memory against 150 MB, and a pass (without the start of Python) against 2 s. On a control plane of its
own, without nodes.

    python benchmarks/cleanup.py
"""

from __future__ import annotations

import asyncio
import json
import resource
import statistics
import sys
import tempfile
import time
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import aiohttp
from distance import distant
from measure import SANDBOX, Claim, cpu_seconds_below, options, peak_mb, report, run, seconds

from sandbox.cluster import objects
from sandbox.cluster.client import Cluster
from sandbox.cluster.kubeconfig import find
from sandbox.cluster.providers import ClusterInfo
from sandbox.cluster.providers.embedded import node
from sandbox.cluster.providers.embedded.lifecycle import directory_of
from sandbox.cluster.providers.embedded.provider import EmbeddedProvider
from sandbox.lifecycle.cleanup import Policy, Sweep
from sandbox.lifecycle.report import Action
from sandbox.lifecycle.verdict import Rules
from sandbox.model.durations import to_rfc3339
from sandbox.model.summary import Summary, config_map

_NEAR = "cleanup with the control plane on the same cores / one after another"
_DUE = 1000
_KEPT = 1000
_MANY = 5000
_COUNTED = 100
_ROUND_TRIP_MS = 10.0
_AT_ONCE = 16
_GONE_WITHIN_S = 600
_SETTLED_WITHIN_S = 300
_NAME = "bench-cleanup"
_LOCK = '{"apiVersion": "sandbox.dev/v1", "kind": "Lock"}'
_JANITOR = str(Path(__file__).with_name("janitor.py"))


def main() -> None:
    parser = options(__doc__)
    parser.add_argument("--only", choices=["near"], help="only what is on the same cores: to see where its time goes")
    given = parser.parse_args()
    provider = EmbeddedProvider()
    cluster = asyncio.run(provider.create(_NAME, control_plane_only=True, progress=_say))
    try:
        claims = _measure(Bench(cluster), given.rounds, near_only=given.only is not None)
    finally:
        asyncio.run(provider.delete(_NAME, _say))
    report(*claims)


def _measure(bench: Bench, rounds: int, *, near_only: bool) -> list[Claim]:
    bench.make(_KEPT, "kept", timedelta(days=300))
    near = bench.in_turns(rounds)
    if near_only:
        return [Claim(_NEAR, *near, limit=1 / 2)]
    with bench.distant():
        product, peer = bench.in_turns(rounds)
    per_deleted, per_kept = asyncio.run(bench.requests())
    bench.make(_MANY - _KEPT, "more", timedelta(days=300))
    idle = statistics.median(bench.sandbox() for _ in range(rounds))
    memory = peak_mb(bench.command)
    return [
        Claim(f"cleanup of {_DUE} of {_DUE + _KEPT} sandboxes / one after another", product, peer, limit=1 / 3),
        Claim(_NEAR, *near, limit=1 / 2),
        Claim("requests per deleted sandbox / 3", per_deleted, 3, limit=1, unit="requests"),
        Claim("requests per kept sandbox / 0.02", per_kept, 0.02, limit=1, unit="requests"),
        Claim(f"pass over {_MANY} sandboxes of which none is due / 2 s", idle, 2, limit=1),
        Claim(f"peak memory with {_MANY} sandboxes / 150 MB", memory, 150, limit=1, unit="MB"),
    ]


class Bench:
    """A cluster full of sandboxes."""

    def __init__(self, cluster: ClusterInfo) -> None:
        self._cluster = cluster
        self._way = cluster.kubeconfig
        self._batches = 0
        # Locks are kept, as ever, and not in the own store of whoever measures.
        self._store = tempfile.TemporaryDirectory(prefix="sandbox-bench-locks-")

    @property
    def command(self) -> list[str]:
        where = ["--kubeconfig", str(self._way), "--context", self._cluster.context]
        return [SANDBOX, *where, "cleanup", "--yes", "-o", "json", "--store", self._store.name]

    @contextmanager
    def distant(self) -> Iterator[None]:
        """Both sides reach the cluster over a longer way meanwhile."""
        with distant(self._cluster.kubeconfig, self._cluster.context, _ROUND_TRIP_MS, Path(self._store.name)) as way:
            self._way, near = way, self._way
            try:
                yield
            finally:
                self._way = near

    def in_turns(self, rounds: int) -> tuple[float, float]:
        """Median seconds in which sandbox and the peer have all deletions issued; each on a quiet cluster."""
        times: tuple[list[float], list[float]] = ([], [])
        for _ in range(rounds):
            for work, found, name in zip((self.sandbox, self.janitor), times, ("ours", "peer"), strict=True):
                batch = f"{name}{self._batches}"
                self._batches += 1
                self.make(_DUE, batch, timedelta(hours=-1))
                before = self._cpu_seconds()
                found.append(seconds(work))
                own, control_plane = (now - then for now, then in zip(self._cpu_seconds(), before, strict=True))
                _say(f"{name}: {found[-1]:.2f} s; CPU: its own {own:.2f} s, the control plane's {control_plane:.2f} s")
                asyncio.run(self._all_gone(batch))
        return statistics.median(times[0]), statistics.median(times[1])

    def _cpu_seconds(self) -> tuple[float, float]:
        """Of the programs that were run until now, and of the control plane."""
        used = resource.getrusage(resource.RUSAGE_CHILDREN)
        holder = node.holder(directory_of(_NAME))
        assert holder is not None, "the cluster runs"
        return used.ru_utime + used.ru_stime, cpu_seconds_below(holder)

    def sandbox(self) -> float:
        """Run the clean-up; how long the pass itself took (s)."""
        line = run(self.command).splitlines()[-1]
        _say(line)
        return float(json.loads(line)["seconds"])

    def janitor(self) -> None:
        _say(run([sys.executable, _JANITOR, str(self._way), self._cluster.context]).strip())

    async def requests(self) -> tuple[float, float]:
        """Requests per deleted and per kept sandbox, counted where they leave."""
        await self._make(_COUNTED, "counted", timedelta(hours=-1))
        counts: Counter[str] = Counter()
        async with _Counting(find(self._cluster.context, self._cluster.kubeconfig)) as cluster:
            cluster.counts = counts
            sweep = Sweep(cluster, Policy(Rules(timedelta(minutes=30), timedelta(minutes=10))), lambda _line: None)
            found = await sweep.look()
            looking = counts.total()
            done = await sweep.act(found)
        assert done.actions[Action.DELETED] == _COUNTED, done.actions
        _say(f"requests: {dict(counts)}")
        await self._all_gone("counted")
        return (counts.total() - looking) / _COUNTED, looking / (done.looked_at - _COUNTED)

    def make(self, count: int, name: str, left: timedelta) -> None:
        asyncio.run(self._make(count, name, left))

    async def _make(self, count: int, name: str, left: timedelta) -> None:
        at_once = asyncio.Semaphore(_AT_ONCE)
        async with Cluster.connect(self._cluster.context, self._cluster.kubeconfig) as connection:

            async def one(number: int) -> None:
                async with at_once:
                    namespace = _namespace(f"dana-shop-{name}-{number:04}", name, left)
                    made = await objects.create(connection, namespace)
                    summary = Summary(made["metadata"]["uid"], 1, "deployed", lock=_LOCK)
                    await objects.create(connection, config_map(summary, made["metadata"]["name"]))

            await asyncio.gather(*(one(number) for number in range(count)))
            await _wait_until_settled(connection, f"dana-shop-{name}-", count)
        _say(f"made {count} sandboxes ({name})")

    async def _all_gone(self, name: str) -> None:
        """Wait until the cluster has deleted what it was told to: the other side shall find it as quiet."""
        deadline = time.monotonic() + _GONE_WITHIN_S
        async with Cluster.connect(self._cluster.context, self._cluster.kubeconfig) as connection:
            while [1 async for _ in objects.list_(connection, "v1", "Namespace", label_selector=f"batch={name}")]:
                if time.monotonic() > deadline:
                    raise SystemExit(f"the namespaces of {name} are not gone within {_GONE_WITHIN_S} s")
                await asyncio.sleep(1)


async def _wait_until_settled(connection: Cluster, prefix: str, count: int) -> None:
    """Wait until controllers have put into new namespaces what belongs there: those that expire are hours old."""
    deadline = time.monotonic() + _SETTLED_WITHIN_S
    for kind, made in (("ServiceAccount", "default"), ("ConfigMap", "kube-root-ca.crt")):
        found = 0
        while found < count:
            if time.monotonic() > deadline:
                raise SystemExit(f"{count - found} namespaces have no {kind} {made} within {_SETTLED_WITHIN_S} s")
            await asyncio.sleep(1)
            items = objects.list_(connection, "v1", kind, field_selector=f"metadata.name={made}", metadata_only=True)
            found = len([1 async for item in items if item["metadata"]["namespace"].startswith(prefix)])


class _Counting(Cluster):
    """Counts the requests that leave."""

    counts: Counter[str]

    @asynccontextmanager
    async def open(self, method: str, path: str, **more: Any) -> AsyncIterator[aiohttp.ClientResponse]:
        resource = path.rstrip("/").split("/")
        self.counts[f"{method} {resource[5] if len(resource) > 5 else resource[3]}"] += 1
        async with super().open(method, path, **more) as response:
            yield response


def _namespace(name: str, batch: str, left: timedelta) -> dict[str, object]:
    now = datetime.now(UTC)
    return {
        "apiVersion": "v1",
        "kind": "Namespace",
        "metadata": {
            "name": name,
            "labels": {
                "app.kubernetes.io/managed-by": "sandbox",
                "sandbox.dev/name": name,
                "sandbox.dev/owner": "dana",
                "sandbox.dev/project": "shop",
                "batch": batch,
            },
            "annotations": {
                "sandbox.dev/namespace": name,
                "sandbox.dev/created-at": to_rfc3339(now),
                "sandbox.dev/owner-user": "dana@example.com",
                "sandbox.dev/phase": "Ready",
                "sandbox.dev/ref": "feature/login",
                "sandbox.dev/commit": "0123456789abcdef0123456789abcdef01234567",
                "sandbox.dev/expires-at": to_rfc3339(now + left),
                "sandbox.dev/ttl": "8h",
                # The peer's.
                "janitor/expires": to_rfc3339(now + left),
            },
        },
    }


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()
