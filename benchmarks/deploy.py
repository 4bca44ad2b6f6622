"""Going back: what `sandbox deploy` does to three releases when its test fails, and the command `sandbox rollback` with
its start, against three `helm rollback --wait` at once; and how long the capture of an environment with a 50 MB
database holds up that rollback (at most 10 s).

Both sides change all pods in each round.

    python benchmarks/deploy.py --image REGISTRY/IMAGE@DIGEST
"""

from __future__ import annotations

import json
import statistics
import subprocess
import tempfile
import uuid
from pathlib import Path
from typing import Any

from measure import SANDBOX, Claim, Target, environment, medians, options, report, run, tool
from project import write_project

_RELEASES = 3
_MEGABYTES = 50
# As the official image: the data in the pod, trusted from within.
_DATABASE = """
set -eu; d=/tmp/data; b=$(echo /usr/lib/postgresql/*/bin); install -d -o postgres -m 700 "$d"
install -d -o postgres /var/run/postgresql
run() { setpriv --reuid=postgres --regid=postgres --init-groups "$@"; }
run "$b/initdb" -D "$d" -U postgres -N --auth=trust >/dev/null
exec setpriv --reuid=postgres --regid=postgres --init-groups "$b/postgres" -D "$d" -c fsync=off -c jit=off
"""


def main() -> None:
    parser = options(__doc__)
    parser.add_argument("--image", required=True, help="an image with python3 and PostgreSQL: the shop's base image")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        bench = Bench(Target(given), Path(folder), given.image)
        try:
            bench.deploy("1")
            bench.deploy("2")
            # Helm takes back what `sandbox rollback` did: each finds the other's version.
            command = medians(given.rounds, bench.roll_back, bench.by_hand)
            failed = [bench.fail(str(3 + number)) for number in range(given.rounds)]
            within = statistics.median(ended["rollback_seconds"] for ended in failed)
            bench.database()
            captured = bench.fail("capture")["capture"]
            assert captured["id"], captured
            assert not captured["partial"], captured
        finally:
            bench.delete()
    # The capture's bound is absolute: ten seconds.
    report(
        Claim("rollback of a failed deploy, three releases / helm rollback --wait", within, command[1], limit=1.0),
        Claim("the command `sandbox rollback`, its start included / the same", *command, limit=1.5),
        Claim(f"capture with a {_MEGABYTES} MB database / ten seconds", captured["seconds"], 10.0, limit=1.0),
    )


class Bench:
    """One environment with three releases in two versions."""

    def __init__(self, target: Target, folder: Path, image: str) -> None:
        self._target = target
        self._namespace = f"bench-{uuid.uuid4().hex[:6]}"
        self._folder = folder / "project"
        self._image = image
        self._services = write_project(self._folder, _RELEASES, image)

    def deploy(self, version: str) -> None:
        self._declare(version)
        run([*self._sandbox("deploy", "bench"), "--store", str(self._folder.parent / "store")], cwd=self._folder)

    def roll_back(self, _round: int) -> None:
        run([*self._sandbox("rollback", "bench"), "--to", "1", "--yes"], cwd=self._folder)

    def by_hand(self, _round: int) -> None:
        where = [*self._target.helm, "-n", self._namespace]
        started = [
            subprocess.Popen(
                [tool("helm"), *where, "rollback", name, "--wait", "--force-conflicts"],
                env=environment(),
                stdout=subprocess.DEVNULL,
            )
            for name in self._services
        ]
        assert not [process for process in started if process.wait(120)]

    def fail(self, version: str) -> dict[str, Any]:
        """Deploy a version whose test fails; how that ended."""
        self._declare(version)
        argv = [*self._sandbox("deploy", "bench"), "--store", str(self._folder.parent / "store"), "-o", "json"]
        argv += ["--", "false"]
        done = subprocess.run(argv, cwd=self._folder, env=environment(), capture_output=True, text=True, timeout=300)
        assert done.returncode == 1, done.stderr
        ended: dict[str, Any] = json.loads(done.stdout)
        assert [service["action"] for service in ended["services"]] == ["rolled back"] * _RELEASES, ended
        return ended

    def delete(self) -> None:
        self._target.kubectl("delete", "namespace", self._namespace, "--wait=false", "--ignore-not-found")

    def database(self) -> None:
        container = {"name": "main", "image": self._image, "command": ["sh", "-c", _DATABASE]}
        container |= {"readinessProbe": {"exec": {"command": ["pg_isready", "-q"]}, "periodSeconds": 1}}
        pod = {
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {"name": "db", "labels": {"app.kubernetes.io/name": "postgresql"}},
            "spec": {"containers": [container | {"ports": [{"containerPort": 5432}]}]},
        }
        self._target.kubectl("-n", self._namespace, "apply", "-f", "-", stdin=json.dumps(pod))
        self._target.kubectl("-n", self._namespace, "wait", "pod/db", "--for=condition=Ready", "--timeout=120s")
        numbers = f"generate_series(1, {_MEGABYTES * 1000}) n"
        rows = f"CREATE TABLE rows AS SELECT n, repeat(md5(n::text), 32) AS x FROM {numbers}"
        self._target.kubectl("-n", self._namespace, "exec", "db", "--", "psql", "-q", "-U", "postgres", "-c", rows)

    def _declare(self, version: str) -> None:
        services = {name: {"chart": {"path": name, "set": {"version": version}}} for name in self._services}
        about = {"apiVersion": "sandbox.dev/v1", "project": "bench", "services": services}
        about["environments"] = {"bench": {"namespace": self._namespace}}
        (self._folder / "sandbox.yaml").write_text(json.dumps(about))
        self._git("add", "--all")
        self._git("-c", "user.name=Bench", "-c", "user.email=bench@example.com", "commit", "--quiet", "-m", version)

    def _sandbox(self, *command: str) -> list[str]:
        return [SANDBOX, *command, *self._target.options]

    def _git(self, *arguments: str) -> None:
        run(["git", *arguments], cwd=self._folder)


if __name__ == "__main__":
    main()
