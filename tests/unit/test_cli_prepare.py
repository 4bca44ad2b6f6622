"""The commands that need no cluster: `init`, `schema`, `quota`, `lock` as far as its options go."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml
from typer.testing import CliRunner

from sandbox.cli.main import app
from sandbox.project.load import load_project
from sandbox.project.quotas import load_profiles, shipped_folder

DEPLOYMENT = """\
apiVersion: apps/v1
kind: Deployment
metadata: {name: web}
spec:
  selector: {matchLabels: {app: web}}
  template:
    metadata: {labels: {app: web}}
    spec: {containers: [{name: web, image: web}]}
"""


def _sandbox(*arguments: str) -> Any:
    return CliRunner().invoke(app, list(arguments))


@pytest.fixture
def repository(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A git repository with one folder of manifests, the current folder deep in it."""
    root = tmp_path / "shop"
    (root / "k8s").mkdir(parents=True)
    (root / "k8s" / "web.yaml").write_text(DEPLOYMENT)
    subprocess.run(["git", "init", "--quiet", root], check=True, timeout=30)
    monkeypatch.setenv("SANDBOX_CONFIG", str(tmp_path / "settings.yaml"))
    (tmp_path / "settings.yaml").write_text("{}\n")
    # No cluster has a say here.
    monkeypatch.setenv("KUBECONFIG", str(tmp_path / "none"))
    monkeypatch.chdir(root / "k8s")
    return root


def test_init_writes_a_file_that_loads(repository: Path) -> None:
    result = _sandbox("init")

    assert result.exit_code == 0, result.output
    assert result.stdout == ""
    loaded = load_project(repository, name_hint="other")
    assert loaded.source == "file"
    assert len(loaded.project.services) == 1
    assert "sandbox up --dry-run" in result.stderr


def test_init_does_not_overwrite_unless_told(repository: Path) -> None:
    (repository / "sandbox.yaml").write_text("mine\n")

    refused = _sandbox("init")
    assert refused.exit_code == 4
    assert (repository / "sandbox.yaml").read_text() == "mine\n"

    assert _sandbox("init", "--force").exit_code == 0
    assert "services:" in (repository / "sandbox.yaml").read_text()


def test_init_as_a_dry_run_prints_and_writes_nothing(repository: Path) -> None:
    result = _sandbox("init", "--dry-run")

    assert yaml.safe_load(result.stdout)["services"]
    assert not (repository / "sandbox.yaml").exists()


@pytest.mark.parametrize("options", [(), ("--force",)])
def test_init_where_nothing_can_be_written_says_so(repository: Path, options: tuple[str, ...]) -> None:
    (repository / "sandbox.yaml").mkdir()

    result = _sandbox("init", *options)

    assert result.exit_code == (1 if options else 4)
    assert "sandbox.yaml" in result.stderr
    assert "defect" not in result.stderr


def test_init_in_an_empty_folder_says_what_it_looked_for(tmp_path: Path) -> None:
    result = _sandbox("init", str(tmp_path))

    assert result.exit_code == 2
    assert "Chart.yaml" in result.stderr


@pytest.mark.parametrize("subject", ["project", "quota"])
def test_schemas_are_schemas(subject: str) -> None:
    schema = json.loads(_sandbox("schema", subject).stdout)

    jsonschema.Draft202012Validator.check_schema(schema)
    assert yaml.safe_load(_sandbox("schema", subject, "-o", "yaml").stdout) == schema


def test_a_schema_is_no_table() -> None:
    assert _sandbox("schema", "-o", "table").exit_code == 2


def test_a_quota_profile_is_shown_as_it_can_be_written(repository: Path, tmp_path: Path) -> None:
    folder = tmp_path / "copies"
    folder.mkdir()

    for name in ("small", "medium", "large"):
        (folder / f"{name}.yaml").write_text(_sandbox("quota", "show", name).stdout)

    assert load_profiles([folder]) == load_profiles([shipped_folder()])


def test_a_projects_own_profiles_are_listed_and_win(repository: Path) -> None:
    (repository / "quotas").mkdir()
    own = yaml.safe_load(_sandbox("quota", "show", "small").stdout) | {"description": "our own"}
    (repository / "quotas" / "small.yaml").write_text(yaml.safe_dump(own))
    (repository / "quotas" / "tiny.yaml").write_text(yaml.safe_dump({**own, "name": "tiny"}))

    listed = {profile["name"]: profile for profile in json.loads(_sandbox("quota", "list", "-o", "json").stdout)}

    assert set(listed) == {"small", "medium", "large", "tiny"}
    assert listed["small"]["description"] == "our own"


def test_an_unknown_profile_names_those_that_there_are(repository: Path) -> None:
    result = _sandbox("quota", "show", "smal")

    assert result.exit_code == 2
    assert "small" in result.stderr
    assert "large" in result.stderr
