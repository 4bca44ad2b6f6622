"""examples/ci/tekton.yaml against Tekton's own definitions, which the API server validates by."""

from __future__ import annotations

import asyncio
import json
import subprocess
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from sandbox.cluster.providers import ClusterInfo
from sandbox.cluster.providers.embedded import build
from tests.conftest import kubectl

TEKTON = "github.com/tektoncd/pipeline@v1.9.0"
EXAMPLE = Path(__file__).resolve().parents[2] / "examples" / "ci" / "tekton.yaml"


@pytest.fixture(scope="module")
def tekton(control_plane: ClusterInfo, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A namespace of a cluster that knows Tasks and Pipelines."""
    definitions = []
    folder = _module(TEKTON, tmp_path_factory.mktemp("module")) / "config" / "300-crds"
    for name in ("300-task.yaml", "300-pipeline.yaml"):
        definition = yaml.safe_load((folder / name).read_text())
        # Between versions its own webhook converts, which does not run here: only the example's version is served.
        definition["spec"].pop("conversion", None)
        definition["spec"]["versions"] = [
            {**version, "storage": True} for version in definition["spec"]["versions"] if version["name"] == "v1"
        ]
        definitions.append(definition)
    names = [f"crd/{definition['metadata']['name']}" for definition in definitions]
    # By the server: the definitions are too large for the annotation of a client-side apply.
    kubectl(control_plane, "apply", "--server-side", "-f", "-", stdin=yaml.safe_dump_all(definitions))
    kubectl(control_plane, "wait", *names, "--for=condition=Established", "--timeout=60s")
    namespace = f"test-{uuid.uuid4().hex[:10]}"
    kubectl(control_plane, "create", "namespace", namespace)
    yield namespace
    kubectl(control_plane, "delete", "namespace", namespace, "--wait=false")
    kubectl(control_plane, "delete", *names)


def test_the_api_server_takes_the_task_and_the_pipeline(control_plane: ClusterInfo, tekton: str) -> None:
    arguments = ("apply", "--dry-run=server", "--validate=strict", "-n", tekton, "-f", "-")
    said = kubectl(control_plane, *arguments, stdin=EXAMPLE.read_text())
    assert "task.tekton.dev/sandbox-deploy created" in said
    assert "pipeline.tekton.dev/integration created" in said
    # And it would not take anything.
    with pytest.raises(AssertionError, match="unknown field"):
        kubectl(control_plane, *arguments, stdin=EXAMPLE.read_text().replace("workingDir:", "workDir:"))


def _module(module: str, folder: Path) -> Path:
    """Where a Go module's files are; downloaded once a machine."""
    sources = build.sources()
    assert sources is not None
    go = asyncio.run(build.toolchain((sources / "go.mod").read_text(), print))
    (folder / "go.mod").write_text("module example\n")
    done = subprocess.run(
        [str(go), "mod", "download", "-json", module],
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    assert done.returncode == 0, f"{done.stdout}{done.stderr}"
    return Path(json.loads(done.stdout)["Dir"])
