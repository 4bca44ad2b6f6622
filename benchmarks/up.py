"""`sandbox up` against the same by hand: namespace, quota, limit range, `helm upgrade --install --wait`.

One chart: at most 1.2 times as long. Ten independent charts: at least three times as fast as ten helm calls in a
row. The same commit again: under 2 s (printed as a ratio to 2 s), nothing written but the expiry.

    python benchmarks/up.py --image REGISTRY/IMAGE@DIGEST
"""

from __future__ import annotations

import statistics
import tempfile
import uuid
from pathlib import Path

from measure import SANDBOX, Claim, Target, medians, options, report, run, seconds, tool
from project import GUARDRAILS, write_project


def main() -> None:
    parser = options(__doc__)
    parser.add_argument("--image", required=True, help="any image with python3 that the cluster can pull")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        bench = Bench(Target(given), Path(folder), given.image)
        # The node pulls the image once; neither side shall pay for it.
        bench.by_hand(1, "warm")
        bench.delete()
        # Whether the first readiness probe comes too early is a second, on both sides: the short one needs more rounds.
        rounds = 3 * given.rounds
        one, ten = (
            medians(
                times,
                lambda n, count=count: bench.sandbox(count, f"{count}-{n}"),  # type: ignore[misc]
                lambda n, count=count: bench.by_hand(count, f"{count}-{n}"),  # type: ignore[misc]
                after=bench.delete,
            )
            for count, times in ((1, rounds), (10, given.rounds))
        )
        bench.sandbox(10, "again")
        again = statistics.median(seconds(lambda: bench.sandbox(10, "again")) for _ in range(rounds))
        bench.delete()
    report(
        Claim("up of one chart / by hand", *one, limit=1.2),
        Claim("up of ten charts / ten helm --wait", *ten, limit=1 / 3),
        Claim("unchanged up / 2 s", again, 2.0, limit=1.0),
    )


class Bench:
    """Deploys the same charts in both ways, each time into a new namespace."""

    def __init__(self, target: Target, folder: Path, image: str) -> None:
        self._target = target
        self._id = uuid.uuid4().hex[:6]
        self._folders = {count: folder / str(count) for count in (1, 10)}
        self._charts = {count: write_project(path, count, image) for count, path in self._folders.items()}
        self._namespaces: set[str] = set()

    def sandbox(self, count: int, name: str) -> None:
        namespace = f"bench-{self._id}-{name}"
        self._namespaces.add(namespace)
        run([SANDBOX, *self._target.options, "up", "--name", namespace, "-o", "name"], cwd=self._folders[count])

    def by_hand(self, count: int, name: str) -> None:
        namespace = f"hand-{self._id}-{name}"
        self._namespaces.add(namespace)
        self._target.kubectl("create", "namespace", namespace)
        self._target.kubectl("apply", "-n", namespace, "-f", "-", stdin=GUARDRAILS)
        for chart in self._charts[count]:
            run(
                [
                    tool("helm"),
                    *self._target.helm,
                    *("-n", namespace),
                    *("upgrade", "--install", chart, str(self._folders[count] / chart), "--wait"),
                ]
            )

    def delete(self) -> None:
        """Remove what was deployed, and wait until it is gone: its pods, and their probes, would slow what follows."""
        if self._namespaces:
            self._target.kubectl("delete", "namespace", "--ignore-not-found", *sorted(self._namespaces))
        self._namespaces.clear()


if __name__ == "__main__":
    main()
