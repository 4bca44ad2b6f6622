"""`down`, `lock` and `cluster` on the command line: what they ask, whom they ask first, and what they print."""

from __future__ import annotations

import json
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from sandbox.cli.commands import cluster as cluster_command
from sandbox.cli.main import app
from sandbox.cluster import providers
from sandbox.cluster.providers.model import ClusterInfo, Progress
from sandbox.model.errors import Refused
from sandbox.model.record import Lock, ServiceLock
from sandbox.provision import down as down_core
from sandbox.provision import lock as lock_core
from sandbox.provision.down import DownResult
from sandbox.provision.locks import read_lock
from sandbox.provision.request import UpRequest


def _sandbox(*arguments: str, answer: str | None = None) -> Any:
    return CliRunner().invoke(app, list(arguments), input=answer)


@pytest.fixture(autouse=True)
def _settings(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "settings.yaml").write_text("{}\n")
    monkeypatch.setenv("SANDBOX_CONFIG", str(tmp_path / "settings.yaml"))
    monkeypatch.delenv("SANDBOX_NAME", raising=False)


# --- down -------------------------------------------------------------------------------------------


class Down:
    """Stands in for the core: notes what is to be deleted."""

    def __init__(self) -> None:
        self.calls: list[dict[str, Any]] = []
        self.stuck: list[str] = []

    async def down(self, target: object, names: Sequence[str], **options: Any) -> list[DownResult]:
        self.calls.append({"names": list(names), **options})
        return [
            DownResult(name, deleted=True, objects=["deployment.apps/web"], stuck=list(self.stuck)) for name in names
        ]


@pytest.fixture
def deleting(monkeypatch: pytest.MonkeyPatch) -> Down:
    stand_in = Down()
    monkeypatch.setattr(down_core, "down", stand_in.down)
    return stand_in


def test_down_without_a_terminal_deletes_nothing_unless_told_yes(deleting: Down) -> None:
    result = _sandbox("down", "a", "b")

    assert result.exit_code == 2
    assert "--yes" in result.stderr
    assert deleting.calls == []


def test_down_takes_each_name_once(deleting: Down) -> None:
    result = _sandbox("down", "a", "b", "a", "--yes", "--no-wait", "--timeout", "1m", "-o", "json")

    assert [row["name"] for row in json.loads(result.stdout)] == ["a", "b"]
    (call,) = deleting.calls
    assert (call["names"], call["wait"], call["timeout"], call["dry_run"]) == (["a", "b"], False, 60.0, False)


def test_down_as_a_dry_run_does_not_ask(deleting: Down) -> None:
    result = _sandbox("down", "-s", "a", "--dry-run")

    assert result.exit_code == 0
    assert "would be deleted" in result.stdout
    assert deleting.calls[0]["dry_run"]


def test_what_is_stuck_is_said_and_the_command_is_only_partly_done(deleting: Down) -> None:
    deleting.stuck = ["configmaps: finalizer example.com/hold in 1 resource instances"]

    result = _sandbox("down", "a", "--yes")

    assert result.exit_code == 6
    assert "example.com/hold" in result.stderr


# --- lock -------------------------------------------------------------------------------------------


@pytest.fixture
def locking(monkeypatch: pytest.MonkeyPatch) -> list[UpRequest]:
    requests: list[UpRequest] = []
    service = ServiceLock(kind="chart", repo="r", ref="main", commit="a" * 40, input_digest="i", manifest_digest="m")
    now = datetime(2030, 1, 31, tzinfo=UTC)

    async def make_lock(target: object, request: UpRequest, reporter: object) -> Lock:
        requests.append(request)
        return Lock(project="shop", env="dev", services={"web": service}, created_at=now).sealed()

    monkeypatch.setattr(lock_core, "make_lock", make_lock)
    return requests


def test_a_written_lock_is_read_back(locking: list[UpRequest], tmp_path: Path) -> None:
    result = _sandbox("lock", "--ref", "main", "--only", "web", "-f", str(tmp_path / "shop.lock.json"))

    assert result.exit_code == 0, result.output
    assert result.stdout == ""
    assert read_lock(tmp_path / "shop.lock.json").services["web"].commit == "a" * 40
    assert (locking[0].ref, locking[0].only) == ("main", ("web",))


def test_a_lock_on_standard_output_is_the_same_file(locking: list[UpRequest], tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text(_sandbox("lock").stdout)
    _sandbox("lock", "-f", str(tmp_path / "b.json"))

    assert (tmp_path / "a.json").read_text() == (tmp_path / "b.json").read_text()


@pytest.mark.parametrize("place", ["no-such-folder/shop.lock.json", "a-file/shop.lock.json"])
def test_a_lock_that_cannot_be_written_says_where(locking: list[UpRequest], tmp_path: Path, place: str) -> None:
    (tmp_path / "a-file").touch()

    result = _sandbox("lock", "-f", str(tmp_path / place))

    assert result.exit_code == 1
    assert f"{tmp_path / place} cannot be written" in result.stderr
    assert "defect" not in result.stderr


# --- cluster ----------------------------------------------------------------------------------------


class Provider:
    """Stands in for a provider: has clusters by name, and notes what is done to them."""

    def __init__(self, name: str, clusters: Sequence[str] = ()) -> None:
        self.name = name
        self.clusters = list(clusters)
        self.done: list[tuple[str, ...]] = []

    def available(self) -> str | None:
        return None

    def _info(self, name: str) -> ClusterInfo:
        return ClusterInfo(name, self.name, f"{self.name}-{name}", Path("/kube/config"), "r:5000", "running", "v1.36.3")

    async def create(
        self, name: str, *, control_plane_only: bool = False, install_packages: bool = False, progress: Progress
    ) -> ClusterInfo:
        self.done.append(("create", name, str(control_plane_only), str(install_packages)))
        return self._info(name)

    async def list(self) -> list[ClusterInfo]:
        return [self._info(name) for name in self.clusters]

    async def delete(self, name: str, progress: Progress) -> bool:
        if self.name == "existing":
            raise Refused(f"the cluster {name} was not made by this tool")
        self.done.append(("delete", name))
        return name in self.clusters

    async def load_image(self, name: str, image: str, progress: Progress) -> str:
        self.done.append(("load", name, image))
        return f"r:5000/{image}@sha256:0"


@pytest.fixture
def known(monkeypatch: pytest.MonkeyPatch) -> dict[str, Provider]:
    known = {
        "existing": Provider("existing", ["prod", "twice"]),
        "kind": Provider("kind", ["twice", "k"]),
        "embedded": Provider("embedded", ["demo"]),
    }
    monkeypatch.setattr(providers, "all_providers", lambda: list(known.values()))
    return known


def test_create_with_auto_takes_what_can_make_one(known: dict[str, Provider]) -> None:
    data = json.loads(_sandbox("cluster", "create", "new", "-o", "json").stdout)

    assert (data["provider"], data["context"], data["registry"]) == ("kind", "kind-new", "r:5000")
    assert known["existing"].done == []


def test_create_passes_its_options_on(known: dict[str, Provider]) -> None:
    _sandbox("cluster", "create", "--provider", "embedded", "--control-plane-only", "--install-packages")

    assert known["embedded"].done == [("create", cluster_command.DEFAULT_NAME, "True", "True")]


def test_list_shows_all_providers_or_one(known: dict[str, Provider]) -> None:
    assert _sandbox("cluster", "list", "-o", "name").stdout.split() == ["prod", "twice", "twice", "k", "demo"]
    assert _sandbox("cluster", "list", "--provider", "embedded", "-o", "name").stdout.split() == ["demo"]


@pytest.mark.parametrize(("name", "provider"), [("demo", "embedded"), ("k", "kind"), ("twice", "kind")])
def test_delete_finds_whose_cluster_it_is(known: dict[str, Provider], name: str, provider: str) -> None:
    result = _sandbox("cluster", "delete", name, "--yes")

    assert result.exit_code == 0, result.output
    assert known[provider].done == [("delete", name)]


def test_delete_never_touches_a_cluster_of_somebody_else(known: dict[str, Provider]) -> None:
    assert _sandbox("cluster", "delete", "prod", "--yes").exit_code == 4
    assert all(provider.done == [] for provider in known.values())


def test_delete_of_what_is_not_there_is_no_error(known: dict[str, Provider]) -> None:
    result = _sandbox("cluster", "delete", "gone", "--yes")

    assert result.exit_code == 0
    assert "there is no cluster gone" in result.stderr


def test_delete_asks_first_and_can_be_looked_at_dry(known: dict[str, Provider]) -> None:
    assert _sandbox("cluster", "delete", "demo").exit_code == 2
    assert _sandbox("cluster", "delete", "demo", "--dry-run").exit_code == 0
    assert known["embedded"].done == []


def test_two_clusters_of_one_name_are_told_apart_by_the_user(known: dict[str, Provider]) -> None:
    known["embedded"].clusters.append("k")

    assert _sandbox("cluster", "delete", "k", "--yes").exit_code == 2
    assert _sandbox("cluster", "delete", "k", "--yes", "--provider", "embedded").exit_code == 0
    assert known["kind"].done == []


def test_load_image_prints_the_reference_that_pods_use(known: dict[str, Provider]) -> None:
    assert _sandbox("cluster", "load-image", "shop/web:1", "--name", "demo").stdout == "r:5000/shop/web:1@sha256:0\n"
    assert _sandbox("cluster", "load-image", "shop/web:1", "--name", "gone").exit_code == 2
