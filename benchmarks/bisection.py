"""`sandbox bisect` over eight changed services of which one is guilty: at most four rounds; and a test in a sandbox
that is there already against `sandbox up` of the same change, with the same command after it.

The peer goes through the same states in the same order, in a sandbox of its own.

    python benchmarks/bisection.py --image REGISTRY/IMAGE@DIGEST
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import tempfile
import uuid
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any

from measure import SANDBOX, Claim, Target, environment, options, report, run, seconds, tool

_SERVICES = [f"s{number}" for number in range(8)]
_MOST_ROUNDS = 4
_DEPLOYMENT = """\
apiVersion: apps/v1
kind: Deployment
metadata: {{name: {name}}}
spec:
  selector: {{matchLabels: {{app: {name}}}}}
  template:
    metadata: {{labels: {{app: {name}}}}}
    spec:
      terminationGracePeriodSeconds: 0
      containers:
        - name: main
          image: {image}
          command: [python3, -m, http.server, "8080"]
          env: [{{name: VALUE, value: "{value}"}}]
          readinessProbe: {{httpGet: {{path: /, port: 8080}}, periodSeconds: 1}}
          resources:
            requests: {{cpu: 10m, memory: 16Mi}}
            limits: {{cpu: 500m, memory: 64Mi}}
"""


def main() -> None:
    parser = options(__doc__)
    parser.add_argument("--image", required=True, help="any image with python3 that the cluster can pull")
    given = parser.parse_args()
    rounds: list[int] = []
    ratios: list[tuple[float, float]] = []
    for number in range(given.rounds):
        with tempfile.TemporaryDirectory() as folder:
            bench = Bench(Target(given), Path(folder), given.image, guilty=_SERVICES[-1 - 3 * number % 8])
            try:
                bench.prepare()
                rounds.append(bench.search("two")["rounds"])
                ratios.append(bench.one_after_the_other())
            finally:
                bench.delete()
    product, peer = (statistics.median(one[side] for one in ratios) for side in (0, 1))
    report(
        Claim("rounds to one of eight / four", max(rounds), _MOST_ROUNDS, limit=1.0, unit="rounds"),
        Claim("a test in a sandbox that is there / up of what changed", product, peer, limit=1.1),
    )


class Bench:
    """Eight services in a good and a bad state, and both ways to get from one to the other."""

    def __init__(self, target: Target, folder: Path, image: str, *, guilty: str) -> None:
        self._target = target
        self._folder = folder
        self._project = folder / "project"
        self._image = image
        self._guilty = guilty
        self._id = uuid.uuid4().hex[:6]
        self._captures: list[str] = []
        where = " ".join(map(str, target.options))
        value = "jsonpath={.spec.template.spec.containers[0].env[0].value}"
        kubectl = f'{tool("kubectl")} {where} -n "$SANDBOX_NAMESPACE"'
        self._command = ["sh", "-c", f"test \"$({kubectl} get deployment {guilty} -o '{value}')\" != 2"]

    def prepare(self) -> None:
        """Deploy and capture both states."""
        self._project.mkdir()
        run(["git", "init", "-q", "-b", "main"], cwd=self._project)
        for bad in ((), _SERVICES):
            self._commit(bad)
            self._up("states")
            words = ["capture", "create", "-n", f"bench-{self._id}-states", "-o", "name", *self._store]
            self._captures.append(run([SANDBOX, *self._target.options, *words]).strip())
        # Its pods would take from both sides alike, and more from who comes first.
        self._down("states")

    def search(self, name: str, *more: str) -> Any:
        """What `bisect` says at its end."""
        words = ["bisect", *self._captures, *self._store, "--name", f"bench-{self._id}-{name}", "-o", "json", *more]
        argv = [SANDBOX, *self._target.options, *words, "--", *self._command]
        done = subprocess.run(
            argv, cwd=self._project, capture_output=True, text=True, timeout=600, check=False,
            env={**environment(), "SANDBOX_STATE_DIR": str(self._folder / f"state-{name}")},
        )  # fmt: skip
        if done.returncode != 0:
            raise SystemExit(f"bisect failed ({done.returncode}):\n{done.stderr}")
        ended = json.loads(done.stdout)
        assert [one["service"] for one in ended["guilty"]] == [self._guilty], ended
        self._down(*(f"{name}-{number}" for number in (1, 2)))
        return ended

    def one_after_the_other(self) -> tuple[float, float]:
        """Median seconds of a test in one sandbox, and of `up` and the command for the same states."""
        tests = self.search("one", "--parallel", "1")["tests"]
        peer = [self._by_up({name.partition("/")[0] for name in test["changes"]}) for test in tests]
        self._down("peer")
        pairs = [(test["seconds"], took) for test, took in zip(tests, peer, strict=True) if test["in_place"]]
        assert pairs, tests
        return statistics.median(one for one, _ in pairs), statistics.median(other for _, other in pairs)

    def _by_up(self, bad: Collection[str]) -> float:
        self._commit(bad)
        return seconds(lambda: self._up_and_test("peer"))

    def _up_and_test(self, name: str) -> None:
        self._up(name)
        given = {**environment(), "SANDBOX_NAMESPACE": f"bench-{self._id}-{name}"}
        subprocess.run(self._command, env=given, timeout=60, check=False)

    def _up(self, name: str) -> None:
        run(
            [SANDBOX, *self._target.options, "up", "--name", f"bench-{self._id}-{name}", "-o", "name"],
            cwd=self._project,
        )

    def _commit(self, bad: Collection[str]) -> None:
        """A commit in which some services are in the bad state."""
        lines = []
        for name in _SERVICES:
            value = 2 if name in bad else 1
            text = _DEPLOYMENT.format(name=name, image=self._image, value=value)
            (self._project / f"{name}.yaml").write_text(text)
            lines.append(f"  {name}: {{manifests: {{paths: [{name}.yaml]}}}}\n")
        declared = f"apiVersion: sandbox.dev/v1\nproject: bench-{self._id}\nservices:\n{''.join(lines)}"
        (self._project / "sandbox.yaml").write_text(declared)
        identity = ["-c", "user.name=Benchmark", "-c", "user.email=benchmark@example.com"]
        run(["git", "add", "."], cwd=self._project)
        run(["git", *identity, "commit", "-q", "--allow-empty", "-m", "States"], cwd=self._project)

    @property
    def _store(self) -> Sequence[str]:
        return ["--store", os.fspath(self._folder / "captures")]

    def _down(self, *names: str) -> None:
        spaces = [f"bench-{self._id}-{name}" for name in names]
        run([SANDBOX, *self._target.options, "down", *spaces, "--yes", "--ignore-not-found", "-o", "json"])

    def delete(self) -> None:
        """Take away whatever is left."""
        self._down("states", "peer", *(f"{name}-{n}" for name in ("one", "two") for n in (1, 2)))


if __name__ == "__main__":
    main()
