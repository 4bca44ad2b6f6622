"""`sandbox up` against the same by hand: namespace, quota, limit range, `helm upgrade --install --wait`.

One chart: at most 1.2 times as long. Ten independent charts, whose services take three seconds until they listen: at
least three times as fast as ten helm calls in a row. The same with services that listen at once is printed too: there
is little to wait for then, and what ten pods cost the cluster decides, which on two cores is half of the time. The
same commit again: under 2 s (printed as a ratio to 2 s), nothing written but the expiry.

    python benchmarks/up.py --image REGISTRY/IMAGE@DIGEST
"""

from __future__ import annotations

import statistics
import tempfile
import uuid
from dataclasses import dataclass
from pathlib import Path

from measure import SANDBOX, Claim, Target, medians, options, report, run, seconds, tool
from project import GUARDRAILS, write_project

# Seconds until a service listens: what a small web application with a framework needs to import.
_START = 3


@dataclass(frozen=True)
class Project:
    """Charts to deploy together.

    Attributes:
        start: seconds until the service of each listens.
    """

    name: str
    charts: int
    start: int = 0


ONE, TEN, AT_ONCE = Project("one", 1), Project("ten", 10, _START), Project("at-once", 10)


def main() -> None:
    parser = options(__doc__)
    parser.add_argument("--image", required=True, help="any image with python3 that the cluster can pull")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        bench = Bench(Target(given), Path(folder), given.image)
        # The node pulls the image once; neither side shall pay for it.
        bench.by_hand(ONE, "warm")
        bench.delete()
        # Whether the first readiness probe comes too early is a second, on both sides: the short one needs more rounds.
        many = 3 * given.rounds
        one, ten, at_once = (
            bench.compared(project, rounds)
            for project, rounds in ((ONE, many), (TEN, given.rounds), (AT_ONCE, given.rounds))
        )
        bench.sandbox(TEN, "again")
        again = statistics.median(seconds(lambda: bench.sandbox(TEN, "again")) for _ in range(many))
        bench.delete()
    report(
        Claim("up of one chart / by hand", *one, limit=1.2),
        Claim(f"up of ten charts that take {_START} s to start / ten helm --wait", *ten, limit=1 / 3),
        Claim("up of ten charts that start at once / ten helm --wait", *at_once, limit=1 / 2),
        Claim("unchanged up / 2 s", again, 2.0, limit=1.0),
    )


class Bench:
    """Deploys the same charts in both ways, each time into a new namespace."""

    def __init__(self, target: Target, folder: Path, image: str) -> None:
        self._target = target
        self._id = uuid.uuid4().hex[:6]
        self._folders = {project: folder / project.name for project in (ONE, TEN, AT_ONCE)}
        self._charts = {
            project: write_project(path, project.charts, image, start=project.start)
            for project, path in self._folders.items()
        }
        self._namespaces: set[str] = set()

    def compared(self, project: Project, rounds: int) -> tuple[float, float]:
        """Median seconds of `up` and of the same by hand."""
        return medians(
            rounds,
            lambda number: self.sandbox(project, str(number)),
            lambda number: self.by_hand(project, str(number)),
            after=self.delete,
        )

    def sandbox(self, project: Project, name: str) -> None:
        namespace = f"bench-{self._id}-{project.name}-{name}"
        self._namespaces.add(namespace)
        run([SANDBOX, *self._target.options, "up", "--name", namespace, "-o", "name"], cwd=self._folders[project])

    def by_hand(self, project: Project, name: str) -> None:
        namespace = f"hand-{self._id}-{project.name}-{name}"
        self._namespaces.add(namespace)
        self._target.kubectl("create", "namespace", namespace)
        self._target.kubectl("apply", "-n", namespace, "-f", "-", stdin=GUARDRAILS)
        for chart in self._charts[project]:
            run(
                [
                    tool("helm"),
                    *self._target.helm,
                    *("-n", namespace),
                    *("upgrade", "--install", chart, str(self._folders[project] / chart), "--wait"),
                ]
            )

    def delete(self) -> None:
        """Remove what was deployed, and wait until it is gone: its pods, and their probes, would slow what follows."""
        if self._namespaces:
            self._target.kubectl("delete", "namespace", "--ignore-not-found", *sorted(self._namespaces))
        self._namespaces.clear()


if __name__ == "__main__":
    main()
