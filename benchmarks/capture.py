"""`sandbox capture create` of 30 pods with logs, against doing it by hand.

By hand: `kubectl cluster-info dump` of the namespace, then `kubectl logs` of each pod, one after the other, and the
same with `--previous` where a container has restarted, which the dump leaves out. At most half as long, and the
capture must hold strictly more: every log that the hand's way has, and the kinds of objects that the dump leaves out.

    python benchmarks/capture.py --image REGISTRY/IMAGE@DIGEST
"""

from __future__ import annotations

import json
import subprocess
import tempfile
import time
import uuid
from pathlib import Path

from measure import SANDBOX, Claim, Target, environment, medians, options, report, run, tool

_PODS = 30
_LINES = 2000
_READY_S = 180
# Kinds that `kubectl cluster-info dump` leaves out; the capture must have those that are there.
_LEFT_OUT = ("configmaps", "secrets", "serviceaccounts", "endpointslices.discovery.k8s.io")


def main() -> None:
    parser = options(__doc__)
    parser.add_argument("--image", required=True, help="any image with python3 that the cluster can pull")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        bench = Bench(Target(given), Path(folder), given.image)
        try:
            bench.deploy()
            bench.by_hand(-1)
            bench.capture(-1)
            bench.check_more()
            times = medians(given.rounds, bench.capture, bench.by_hand)
        finally:
            bench.delete()
    report(Claim("capture of 30 pods / dump and logs by hand", *times, limit=0.5))


class Bench:
    """One namespace; each round into new folders, so that nothing is shared."""

    def __init__(self, target: Target, folder: Path, image: str) -> None:
        self._where = target.options
        self._kubectl = target.kubectl
        self._namespace = f"bench-{uuid.uuid4().hex[:6]}"
        self._folder = folder
        self._image = image

    def deploy(self) -> None:
        self._kubectl("create", "namespace", self._namespace)
        program = f"for i in range({_LINES}): print(f'{{i}} GET /orders/{{i}} 200 in {{i % 97}} ms', flush=True)"
        container = {
            "name": "main",
            "image": self._image,
            "command": ["python3", "-c", f"import time\n{program}\ntime.sleep(100000)"],
            "resources": {"requests": {"cpu": "1m", "memory": "8Mi"}},
        }
        pods = {"terminationGracePeriodSeconds": 0, "containers": [container]}
        labels = {"app": "web"}
        deployment = {
            "apiVersion": "apps/v1",
            "kind": "Deployment",
            "metadata": {"name": "web"},
            "spec": {
                "replicas": _PODS,
                "selector": {"matchLabels": labels},
                "template": {"metadata": {"labels": labels}, "spec": pods},
            },
        }
        config = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "web"}, "data": {"a": "b"}}
        values = {"a": "hunter2hunter2"}
        secret = {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "web"}, "stringData": values}
        service = {
            "apiVersion": "v1",
            "kind": "Service",
            "metadata": {"name": "web"},
            "spec": {"selector": labels, "ports": [{"port": 80}]},
        }
        for manifest in (config, secret, service, deployment):
            self._kubectl("-n", self._namespace, "apply", "-f", "-", stdin=json.dumps(manifest))
        self._kubectl("-n", self._namespace, "rollout", "status", "deployment/web", f"--timeout={_READY_S}s")
        end = time.monotonic() + _READY_S
        for pod in self._pods():
            while f"{_LINES - 1} GET" not in self._kubectl("-n", self._namespace, "logs", pod, "--tail=1"):
                if time.monotonic() > end:
                    raise SystemExit("the pods did not write their logs in time")
                time.sleep(1)

    def by_hand(self, number: int) -> None:
        target = self._folder / f"hand-{number}"
        self._kubectl("cluster-info", "dump", "--namespaces", self._namespace, "--output-directory", str(target))
        for pod in self._pods():
            log = self._kubectl("-n", self._namespace, "logs", pod, "--all-containers")
            (target / f"{pod}.log").write_text(log)
            restarts = "{.status.containerStatuses[*].restartCount}"
            if self._kubectl("-n", self._namespace, "get", "pod", pod, "-o", f"jsonpath={restarts}").strip("0 "):
                (target / f"{pod}.previous.log").write_text(self._previous(pod))

    def capture(self, number: int) -> None:
        store = self._folder / f"store-{number}"
        run([SANDBOX, *self._where, "capture", "create", "-n", self._namespace, "--store", str(store), "-o", "name"])

    def check_more(self) -> None:
        """End the benchmark where the capture lacks something that the other way has, or what it leaves out."""
        store, hand = self._folder / "store--1", self._folder / "hand--1"
        shown = [SANDBOX, *self._where, "capture", "show", "latest", "--store", str(store), "-o", "json"]
        items = {item["name"]: item for item in json.loads(run(shown))["items"]}
        lacking = [kind for kind in _LEFT_OUT if items.get(f"objects/{kind}.json", {}).get("status") != "ok"]
        dumped = {path.name.removesuffix(".json") for path in (hand / self._namespace).glob("*.json")}
        lacking += [name for name in dumped - {"events", "pods"} if self._is_missing(name, items)]
        for pod in self._pods():
            lines = (hand / f"{pod}.log").read_text().count("\n")
            if items.get(f"logs/{pod}/main.log.gz", {}).get("count") != lines:
                lacking.append(f"the log of {pod}")
        if lacking:
            raise SystemExit(f"the capture lacks {', '.join(lacking)}")

    @staticmethod
    def _is_missing(kind: str, items: dict[str, dict[str, object]]) -> bool:
        plural = kind.replace("-", "")
        found = [item for name, item in items.items() if name.startswith((f"objects/{plural}.", f"objects/{plural}s."))]
        return not found

    def _previous(self, pod: str) -> str:
        command = [tool("kubectl"), *self._where, "-n", self._namespace, "logs", pod, "--all-containers", "--previous"]
        done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False, env=environment())
        return done.stdout

    def _pods(self) -> list[str]:
        return self._kubectl("-n", self._namespace, "get", "pods", "-o", "jsonpath={.items[*].metadata.name}").split()

    def delete(self) -> None:
        self._kubectl("delete", "namespace", "--wait=false", "--ignore-not-found", self._namespace)


if __name__ == "__main__":
    main()
