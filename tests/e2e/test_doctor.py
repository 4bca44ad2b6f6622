"""`sandbox doctor` against a real cluster, as its administrator and as somebody with few rights."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from sandbox.cluster.providers import ClusterInfo
from tests.conftest import kubectl


def _doctor(folder: Path, kubeconfig: Path, *arguments: str) -> tuple[int, dict[str, dict[str, Any]], str]:
    """Exit code, checks by name, and what was said."""
    program = Path(sys.executable).with_name("sandbox")
    done = subprocess.run(
        [program, "doctor", "-o", "json", *arguments],
        cwd=folder,
        env={**os.environ, "KUBECONFIG": str(kubeconfig)},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    checks = {check["name"]: check for check in json.loads(done.stdout or "[]")}
    return done.returncode, checks, done.stderr


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path


def test_all_is_well_for_an_administrator(cluster: ClusterInfo, folder: Path) -> None:
    code, checks, said = _doctor(folder, cluster.kubeconfig, "--context", cluster.context)

    assert {name: c["detail"] for name, c in checks.items() if c["status"] == "fail"} == {}
    assert code == 0, said
    assert cluster.context in checks["kubeconfig"]["detail"]
    assert str(cluster.version) in checks["cluster"]["detail"]
    assert "(default)" in checks["storage class"]["detail"]
    assert checks["registry"]["detail"] == cluster.registry, "the cluster announces its registry"
    assert checks["may: namespaces"]["status"] == "ok"


@pytest.fixture
def reader(cluster: ClusterInfo, namespace: str, tmp_path: Path) -> Path:
    """A kubeconfig of an account that may look at everything and change nothing."""
    kubectl(cluster, "create", "serviceaccount", "reader", "-n", namespace)
    binding = f"reader-{namespace}"
    account = f"--serviceaccount={namespace}:reader"
    kubectl(cluster, "create", "rolebinding", binding, "-n", namespace, "--clusterrole=view", account)
    token = kubectl(cluster, "create", "token", "reader", "-n", namespace).strip()
    config = yaml.safe_load(cluster.kubeconfig.read_text())
    context = next(c for c in config["contexts"] if c["name"] == cluster.context)
    config["users"] = [{"name": "reader", "user": {"token": token}}]
    config["contexts"] = [{"name": "reader", "context": {**context["context"], "user": "reader"}}]
    config["current-context"] = "reader"
    path = tmp_path / "reader.kubeconfig"
    path.write_text(yaml.safe_dump(config))
    return path


def test_missing_rights_are_named_by_verb_and_resource(reader: Path, folder: Path) -> None:
    code, checks, _ = _doctor(folder, reader)

    assert code == 1
    assert checks["cluster"]["status"] == "ok"
    assert checks["you are"]["detail"].startswith("system:serviceaccount:")
    namespaces = checks["may: namespaces"]
    assert namespaces["status"] == "fail"
    assert "create namespaces" in namespaces["detail"]
    assert namespaces["mend"]
    assert "create deployments.apps" in checks["may: workloads"]["detail"]
    # Not every project brings those.
    assert checks["may: exec and port-forward"]["status"] == "warn"


def test_expired_credentials_are_a_failure_with_the_servers_words(reader: Path, folder: Path) -> None:
    config = yaml.safe_load(reader.read_text())
    config["users"][0]["user"]["token"] = "not-a-token"
    reader.write_text(yaml.safe_dump(config))

    code, checks, said = _doctor(folder, reader)

    assert code == 1
    assert checks["cluster"]["status"] == "fail"
    assert "nauthorized" in checks["cluster"]["detail"]
    assert "not-a-token" not in json.dumps(checks) + said


def test_a_server_that_does_not_answer_is_a_failure_within_the_bound(reader: Path, folder: Path) -> None:
    config = yaml.safe_load(reader.read_text())
    # Port 1 of this machine: nothing listens there.
    config["clusters"] = [
        {**c, "cluster": {**c["cluster"], "server": "https://127.0.0.1:1"}} for c in config["clusters"]
    ]
    reader.write_text(yaml.safe_dump(config))

    code, checks, _ = _doctor(folder, reader)

    assert code == 1
    assert checks["cluster"]["status"] == "fail"
    assert "127.0.0.1:1" in checks["cluster"]["detail"]
    assert "may: namespaces" not in checks


def test_a_project_that_asks_for_what_is_not_there(cluster: ClusterInfo, folder: Path) -> None:
    subprocess.run(["git", "init", "--quiet", folder], check=True, timeout=30)
    (folder / "k8s").mkdir()
    (folder / "sandbox.yaml").write_text(
        "apiVersion: sandbox.dev/v1\n"
        "project: shop\n"
        "requires: {kubernetes: '>=9'}\n"
        "defaults: {quota: gigantic}\n"
        "services: {web: {manifests: {paths: [k8s]}}}\n"
    )

    code, checks, said = _doctor(folder, cluster.kubeconfig, "--context", cluster.context)

    assert code == 1, said
    assert checks["requires"]["status"] == "fail"
    assert "9" in checks["requires"]["detail"]
    assert checks["quota profiles"]["status"] == "fail"
    assert "gigantic" in checks["quota profiles"]["detail"]
