"""`sandbox up` on the command line: what it asks the core for, and what it prints."""

from __future__ import annotations

import base64
import json
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
import yaml
from typer.testing import CliRunner

from sandbox.cli.main import app
from sandbox.model.quota import Asked
from sandbox.model.record import ChartLock, Lock, ServiceLock
from sandbox.model.sandbox import Phase, Sandbox
from sandbox.model.source import Commit
from sandbox.project.quotas import choose_profile, load_profiles, shipped_folder
from sandbox.provision import up as core
from sandbox.provision.endpoints import Endpoint
from sandbox.provision.identity import Identity
from sandbox.provision.plan import Plan, ServicePlan
from sandbox.provision.request import UpRequest
from sandbox.provision.steps import ServiceOutcome
from sandbox.provision.target import Target
from sandbox.provision.up import UpResult

NOW = datetime(2030, 1, 31, 12, tzinfo=UTC)
IDENTITY = Identity("dana", "dana", "shop", "main", "dana-shop-main", "dana-shop-main")
COMMIT = Commit(
    "https://git.example/shop.git", "main", "main", "a" * 40, "Dana <dana@example.com>", "Sell", NOW, patch=b"diff"
)
SANDBOX = Sandbox(
    name="dana-shop-main",
    namespace="dana-shop-main",
    context="test",
    owner="dana",
    project="shop",
    phase=Phase.READY,
    repo=COMMIT.repo,
    ref="main",
    commit=COMMIT.sha,
    quota_profile="small",
    ttl="8h",
    created_at=NOW,
    expires_at=NOW + timedelta(hours=8),
    uid="1",
)
DONE = UpResult(
    sandbox=SANDBOX,
    identity=IDENTITY,
    commit=COMMIT,
    record_number=3,
    services=(ServiceOutcome("orders", "unchanged"), ServiceOutcome("web", "upgraded")),
    endpoints=(Endpoint("web", "http", 8080, "sandbox open -s dana-shop-main web"),),
    notes=("web: moved into the sandbox",),
    now=NOW + timedelta(seconds=2),
)


class Core:
    """Stands in for the core, which needs a cluster: notes what it is asked for and gives an answer."""

    def __init__(self) -> None:
        self.answer = DONE
        self.target = Target()
        self.request = UpRequest()

    async def up(self, target: Target, request: UpRequest, reporter: object) -> UpResult:
        self.target, self.request = target, request
        return self.answer


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Core:
    stand_in = Core()
    monkeypatch.setattr(core, "up", stand_in.up)
    monkeypatch.setenv("SANDBOX_CONFIG", str(tmp_path / "config.yaml"))
    (tmp_path / "config.yaml").write_text("{}\n")
    for name in ("SANDBOX_CONTEXT", "SANDBOX_NAME", "SANDBOX_NAMESPACE_PREFIX"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.chdir(tmp_path)
    return stand_in


def _sandbox(*arguments: str, env: dict[str, str] | None = None) -> Any:
    return CliRunner().invoke(app, list(arguments), env=env)


def test_without_options_the_project_decides(asked: Core, tmp_path: Path) -> None:
    assert _sandbox("up").exit_code == 0

    assert asked.request == UpRequest(folder=tmp_path)


def test_every_option_reaches_the_core(asked: Core, tmp_path: Path) -> None:
    values = tmp_path / "more.yaml"
    values.write_text("{}")

    result = _sandbox(
        *("--context", "other", "up", "--repo", "https://git.example/shop.git", "--ref", "HEAD~2", "--name", "mine"),
        *("--quota", "large", "--ttl", "2d", "--env", "qa", "--base", "qa", "--only", "web,orders", "--only", "redis"),
        *("-f", "more.yaml", "--set", "web.a.b=1", "--set", "c=2", "--build-arg", "BASE=x", "--owner", "ci"),
        *("--builder", "podman", "--registry", "registry.example/shop", "--no-wait", "--timeout", "1h30m"),
        *("--rollback-on-failure", "--allow-cluster-scoped"),
        env={"SANDBOX_BUILD_ARG_PROXY": "p"},
    )

    assert result.exit_code == 0, result.output
    assert asked.target.context == "other"
    assert asked.request == UpRequest(
        folder=None,
        repo="https://git.example/shop.git",
        ref="HEAD~2",
        name="mine",
        quota="large",
        ttl="2d",
        env="qa",
        base="qa",
        only=("web", "orders", "redis"),
        values_files=(values,),
        set_values=("web.a.b=1", "c=2"),
        build_args={"BASE": "x", "PROXY": "p"},
        owner="ci",
        builder="podman",
        registry="registry.example/shop",
        wait=False,
        timeout=timedelta(minutes=90),
        rollback_on_failure=True,
        allow_cluster_scoped=True,
    )


@pytest.mark.parametrize(
    "arguments",
    [
        ("--repo", "https://git.example/shop.git", "--dirty"),
        ("--repo", "https://git.example/shop.git", "--folder", "."),
        ("--timeout", "soon"),
        ("--build-arg", "BASE"),
        ("--lock", "missing.json"),
        ("-f", "missing.yaml"),
        ("--ref",),
        ("--nonsense",),
        ("-o", "xml"),
    ],
)
def test_wrong_usage_ends_with_2_before_the_core_is_asked(asked: Core, arguments: tuple[str, ...]) -> None:
    result = _sandbox("up", *arguments)

    assert result.exit_code == 2, result.output
    assert result.stdout == ""
    assert asked.request == UpRequest()


def test_the_result_is_data_on_stdout_and_talk_on_stderr(asked: Core) -> None:
    result = _sandbox("up")

    assert result.stdout.splitlines() == [
        "SERVICE   ACTION      ENDPOINTS",
        "orders    unchanged   <none>",
        "web       upgraded    web:8080",
    ]
    assert "note: web: moved into the sandbox" in result.stderr
    assert "expires in 8h (2030-01-31T20:00:00Z), and the next `sandbox up` prolongs it" in result.stderr
    assert "sandbox open -s dana-shop-main web" in result.stderr


@pytest.mark.parametrize(
    ("facts", "said"),
    [
        ({"expires_at": NOW + timedelta(days=2)}, "expires in 2d (2030-02-02T12:00:00Z), as an extension"),
        (
            {"expires_at": NOW + timedelta(days=3), "pinned_until": NOW + timedelta(days=3), "pin_reason": "demo"},
            "kept until 2030-02-03T12:00:00Z by a pin: demo",
        ),
        ({"max_expires_at": NOW + timedelta(hours=8)}, "expires in 8h (2030-01-31T20:00:00Z), the end of its longest"),
        ({"ttl": "soon"}, "and the next `sandbox up` prolongs it"),
    ],
)
def test_what_keeps_it_longer_than_this_deployment_is_said(asked: Core, facts: dict[str, Any], said: str) -> None:
    asked.answer = replace(DONE, sandbox=replace(SANDBOX, **facts))

    assert said in _sandbox("up").stderr


def test_the_result_as_json(asked: Core) -> None:
    data = json.loads(_sandbox("up", "-o", "json").stdout)

    assert data["sandbox"]["name"] == "dana-shop-main"
    assert data["sandbox"]["expires_at"] == "2030-01-31T20:00:00Z"
    assert data["commit"]["sha"] == COMMIT.sha
    assert "patch" not in data["commit"]
    assert data["record"] == 3
    assert data["services"][1] == {"name": "web", "action": "upgraded", "detail": ""}
    assert data["endpoints"][0]["port"] == 8080
    assert yaml.safe_load(_sandbox("up", "-o", "yaml").stdout) == data


def test_the_result_as_a_name_for_the_next_command(asked: Core) -> None:
    assert _sandbox("up", "-o", "name").stdout == "dana-shop-main\n"


# --- dry run ----------------------------------------------------------------------------------------

PASSWORD = "correct-horse-battery"


def _planned() -> UpResult:
    secret = {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {"name": "db"},
        "data": {"password": base64.b64encode(PASSWORD.encode()).decode()},
    }
    container = {"name": "web", "image": "web", "env": [{"name": "PASSWORD", "value": PASSWORD}]}
    container["resources"] = {"requests": {"cpu": "250m", "memory": "1Gi"}}  # type: ignore[assignment]
    deployment = {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": "web"},
        "spec": {"replicas": 2, "template": {"spec": {"containers": [container]}}},
    }
    chart = ChartLock(release="web", name="web", version="1.0.0", digest="sha256:c")
    service = ServicePlan(
        name="web",
        lock=ServiceLock(
            kind="chart",
            repo=COMMIT.repo,
            ref="main",
            commit=COMMIT.sha,
            chart=chart,
            input_digest="i",
            manifest_digest="m",
        ),
        manifests=[secret, deployment],
    )
    plan = Plan(
        identity=IDENTITY,
        commit=COMMIT,
        env="dev",
        profile=choose_profile("small", load_profiles([shipped_folder()])),
        ttl=timedelta(hours=8),
        lock=Lock(project="shop", env="dev", services={"web": service.lock}, created_at=NOW).sealed(),
        services={"web": service},
        kept={},
        before=(),
    )
    amounts = {"requests.cpu": Decimal("0.5"), "requests.memory": Decimal(2 * 2**30)}
    asked = tuple(Asked("web", "deployment.apps/web", name, amount, 1) for name, amount in amounts.items())
    return UpResult(None, IDENTITY, COMMIT, None, (ServiceOutcome("web", "created"),), plan=plan, asked=asked)


def test_a_dry_run_prints_the_plan_and_manifests_that_kubectl_reads(asked: Core) -> None:
    asked.answer = _planned()

    result = _sandbox("up", "--dry-run")

    assert result.exit_code == 0, result.output
    assert asked.request.dry_run
    comments = [line for line in result.stdout.splitlines() if line.startswith("#")]
    assert any("dana-shop-main" in line for line in comments)
    assert any("requests.cpu" in line and "500m" in line for line in comments)
    assert any("requests.memory" in line and "2Gi" in line and "4Gi" in line for line in comments)
    assert "# Nothing was changed." in comments
    kinds = [manifest["kind"] for manifest in yaml.safe_load_all(result.stdout)]
    assert {"ResourceQuota", "LimitRange", "Secret", "Deployment"} <= set(kinds)


@pytest.mark.parametrize("output", ["table", "json", "yaml", "wide"])
def test_a_dry_run_shows_no_secret_wherever_it_stands(asked: Core, output: str) -> None:
    asked.answer = _planned()

    shown = _sandbox("up", "--dry-run", "-o", output).stdout

    assert "password" in shown
    assert PASSWORD not in shown
    assert base64.b64encode(PASSWORD.encode()).decode() not in shown


def test_a_dry_run_as_json(asked: Core) -> None:
    asked.answer = _planned()

    data = json.loads(_sandbox("up", "--dry-run", "-o", "json").stdout)

    assert data["plan"]["sandbox"]["namespace"] == "dana-shop-main"
    assert data["plan"]["ttl"] == "8h"
    assert data["plan"]["services"][0]["lock"]["chart"]["version"] == "1.0.0"
    assert {"resource": "requests.cpu", "requested": "500m", "hard": "2"} in data["plan"]["quota"]
    assert [m["kind"] for m in data["manifests"]].count("Deployment") == 1
