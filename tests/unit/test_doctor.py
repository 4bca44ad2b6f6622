from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from sandbox.model.errors import OperationFailed
from sandbox.provision import doctor
from sandbox.provision.doctor import Verdict
from sandbox.provision.target import Target

NOW = datetime(2030, 1, 31, 12, tzinfo=UTC)


@pytest.mark.parametrize(
    ("gap", "status", "said"),
    [
        (timedelta(), Verdict.OK, "agrees"),
        (timedelta(seconds=30), Verdict.OK, "agrees"),
        (timedelta(seconds=31), Verdict.WARN, "31s behind"),
        (timedelta(hours=-2), Verdict.WARN, "2h ahead of"),
    ],
)
def test_a_clock_that_is_off_is_said(gap: timedelta, status: Verdict, said: str) -> None:
    check = doctor._clock(NOW + gap, NOW)

    assert check.status is status
    assert said in check.detail
    assert bool(check.mend) is (status is not Verdict.OK)


@pytest.mark.parametrize(
    ("version", "status"),
    [
        ("v1.36.3", Verdict.OK),
        ("v1.28.0", Verdict.OK),
        ("v1.31.4-eks-2d5f260", Verdict.OK),
        ("v1.30.5+k3s1", Verdict.OK),
        ("v1.27.16", Verdict.FAIL),
        ("unknown", Verdict.WARN),
    ],
)
def test_a_server_that_is_too_old_is_a_failure(version: str, status: Verdict) -> None:
    assert doctor._server(version, "https://example.invalid").status is status


def test_an_error_becomes_a_check_with_its_reason_and_hint() -> None:
    error = OperationFailed("cannot do it", why="the server said no\nand more", hint="ask nicely")

    check = doctor._failed("thing", error)

    assert (check.status, check.detail, check.mend) == (Verdict.FAIL, "cannot do it: the server said no", "ask nicely")


@pytest.fixture
def nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder that is no repository, and nothing of the user's own."""
    monkeypatch.setenv("KUBECONFIG", str(tmp_path / "none"))
    monkeypatch.delenv("KUBERNETES_SERVICE_HOST", raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    monkeypatch.delenv("SANDBOX_CONFIG", raising=False)
    return tmp_path


async def test_without_a_cluster_the_rest_is_looked_at_all_the_same(nothing: Path) -> None:
    checks = {check.name: check for check in await doctor.examine(Target(), folder=nothing)}

    assert checks["kubeconfig"].status is Verdict.FAIL
    assert checks["kubeconfig"].mend
    assert "cluster" not in checks
    assert checks["sandbox"].status is Verdict.OK
    assert checks["git"].status is Verdict.OK
    assert "small" in checks["quota profiles"].detail
    assert checks["registry"].status is Verdict.WARN


async def test_a_builder_that_is_not_there_says_so(nothing: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(nothing))

    checks = {check.name: check for check in await doctor.examine(Target(), folder=nothing, builder="docker")}

    assert checks["builder"].status is not Verdict.OK
    assert "docker" in checks["builder"].detail
    assert checks["git"].status is Verdict.FAIL


async def test_a_registry_that_does_not_answer_is_a_failure(nothing: Path) -> None:
    # Port 1 of this machine: nothing listens there.
    checks = {check.name: check for check in await doctor.examine(Target(), folder=nothing, registry="127.0.0.1:1/x")}

    assert checks["registry"].status is Verdict.FAIL
    assert "127.0.0.1:1" in checks["registry"].detail


async def test_settings_that_are_wrong_are_a_failure(nothing: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = nothing / "config.yaml"
    settings.write_text("registri: ghcr.io/acme\n")
    monkeypatch.setenv("SANDBOX_CONFIG", str(settings))

    checks = {check.name: check for check in await doctor.examine(Target(), folder=nothing)}

    assert checks["settings"].status is Verdict.FAIL
    assert "registri" in checks["settings"].detail


def test_every_write_of_up_is_asked_for() -> None:
    """The rights that one `up` with a chart and its guardrails cannot do without."""
    asked = {
        (verb, group, resource)
        for permission in doctor.PERMISSIONS
        if permission.required
        for group, resource in permission.resources
        for verb in permission.verbs
    }

    assert {
        ("create", "", "namespaces"),
        ("delete", "", "namespaces"),
        ("create", "", "resourcequotas"),
        ("create", "", "limitranges"),
        ("create", "networking.k8s.io", "networkpolicies"),
        ("update", "", "secrets"),
        ("patch", "apps", "deployments"),
        ("create", "coordination.k8s.io", "leases"),
        ("get", "", "pods/log"),
    } <= asked
