"""How fast the command line starts and lists.

`sandbox --help` against importing typer alone (at most 1.5 times), and `sandbox list` of 1,000 sandboxes against
`kubectl get namespaces` (at most 4 times), with its peak memory against 150 MB. The namespaces are made on a
control plane of its own, without nodes, which is deleted again.

    python benchmarks/start.py
"""

from __future__ import annotations

import asyncio
import sys

from measure import SANDBOX, Claim, medians, options, peak_mb, report, run, tool
from tenacity import AsyncRetrying, retry_if_result, stop_after_delay, wait_fixed

from sandbox.cluster import objects
from sandbox.cluster.client import Cluster
from sandbox.cluster.providers import ClusterInfo
from sandbox.cluster.providers.embedded.provider import EmbeddedProvider

_SANDBOXES = 1000
_AT_ONCE = 32


def main() -> None:
    given = options(__doc__).parse_args()
    started = medians(
        given.rounds * 2,
        lambda _n: run([SANDBOX, "--help"]),
        lambda _n: run([sys.executable, "-c", "import typer"]),
    )
    claims = [Claim("sandbox --help / import typer", *started, limit=1.5)]
    provider = EmbeddedProvider()
    cluster = asyncio.run(provider.create("bench-start", control_plane_only=True, progress=_say))
    try:
        asyncio.run(_make_sandboxes(cluster))
        asyncio.run(_until_settled(cluster))
        where = ["--kubeconfig", str(cluster.kubeconfig), "--context", cluster.context]
        listed = medians(
            given.rounds,
            lambda _n: run([SANDBOX, *where, "list"]),
            lambda _n: run([tool("kubectl"), *where, "get", "namespaces"]),
        )
        claims.append(Claim(f"list of {_SANDBOXES} sandboxes / kubectl get namespaces", *listed, limit=4))
        claims.append(
            Claim("peak memory of list / 150 MB", peak_mb([SANDBOX, *where, "list"]), 150, limit=1, unit="MB")
        )
    finally:
        asyncio.run(provider.delete("bench-start", _say))
    report(*claims)


async def _make_sandboxes(cluster: ClusterInfo) -> None:
    at_once = asyncio.Semaphore(_AT_ONCE)
    async with Cluster.connect(cluster.context, cluster.kubeconfig) as connection:

        async def make(number: int) -> None:
            async with at_once:
                await objects.apply(connection, _namespace(f"dana-shop-feature--{number:04}"), namespace="")

        await asyncio.gather(*(make(number) for number in range(_SANDBOXES)))


async def _until_settled(cluster: ClusterInfo) -> None:
    """Wait until the controllers have put into each namespace what they put there: until then they keep all cores busy.

    Raises:
        RetryError: they are not done within five minutes.
    """
    async with Cluster.connect(cluster.context, cluster.kubeconfig) as connection:

        async def number(kind: str) -> int:
            return len([1 async for _ in objects.list_(connection, "v1", kind, metadata_only=True)])

        for kind in ("ServiceAccount", "ConfigMap"):
            patient = AsyncRetrying(
                stop=stop_after_delay(300), wait=wait_fixed(1), retry=retry_if_result(lambda found: found < _SANDBOXES)
            )
            await patient(number, kind)


def _namespace(name: str) -> dict[str, object]:
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
            },
            "annotations": {
                "sandbox.dev/namespace": name,
                "sandbox.dev/owner-user": "dana@example.com",
                "sandbox.dev/phase": "Ready",
                "sandbox.dev/ref": "feature/login",
                "sandbox.dev/commit": "0123456789abcdef0123456789abcdef01234567",
                "sandbox.dev/expires-at": "2099-01-01T00:00:00Z",
                "sandbox.dev/ttl": "8h",
            },
        },
    }


def _say(line: str) -> None:
    print(line, file=sys.stderr)


if __name__ == "__main__":
    main()
