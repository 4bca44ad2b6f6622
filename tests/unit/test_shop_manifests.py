"""The shop's manifests, charts and sandbox.yaml files: what every one of them promises."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from sandbox.project.load import load_project

SHOP = Path(__file__).parents[2] / "examples" / "shop"
PLAIN = sorted(
    path for folder in ("data", "catalogue", "orders/values", "web/values") for path in (SHOP / folder).rglob("*.yaml")
)
SANDBOX_FILES = sorted(SHOP.rglob("sandbox.yaml"))
TEMPLATES = sorted(SHOP.glob("*/chart/templates/*.yaml"))
CONTAINERFILES = sorted(SHOP.rglob("Containerfile"))


def documents(path: Path) -> list[dict[str, Any]]:
    return [document for document in yaml.safe_load_all(path.read_text(encoding="utf-8")) if document]


def workloads() -> Iterator[tuple[str, dict[str, Any]]]:
    """Name and pod specification of every workload in plain manifests."""
    for path in PLAIN:
        for document in documents(path):
            template = (document.get("spec") or {}).get("template") if "kind" in document else None
            if isinstance(template, dict) and "spec" in template:
                yield document["metadata"]["name"], template["spec"]


@pytest.mark.parametrize("path", [*PLAIN, *SANDBOX_FILES], ids=lambda path: str(path.relative_to(SHOP)))
def test_valid_yaml(path: Path) -> None:
    assert documents(path)


def test_all_plain_workloads_are_seen() -> None:
    assert {name for name, _ in workloads()} == {"catalogue", "postgres", "redis"}


@pytest.mark.parametrize(("name", "pod"), list(workloads()))
def test_restricted_with_probes_requests_and_limits(name: str, pod: dict[str, Any]) -> None:
    assert pod["securityContext"]["runAsNonRoot"] is True
    assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    assert pod["automountServiceAccountToken"] is False
    for container in pod["containers"]:
        assert container["securityContext"]["allowPrivilegeEscalation"] is False
        assert container["securityContext"]["capabilities"] == {"drop": ["ALL"]}
        assert {"startupProbe", "readinessProbe", "livenessProbe"} <= set(container)
        for kind in ("requests", "limits"):
            assert set(container["resources"][kind]) == {"cpu", "memory"}


@pytest.mark.parametrize("path", TEMPLATES, ids=lambda path: str(path.relative_to(SHOP)))
def test_charts_take_their_image_from_values(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    if "kind: Deployment" in text or "kind: Job" in text:
        assert re.search(r"image: .*(\.Values\.image\.|orders\.image)", text)


@pytest.mark.parametrize("path", CONTAINERFILES, ids=lambda path: str(path.relative_to(SHOP)))
def test_the_base_is_one_argument(path: Path) -> None:
    lines = path.read_text(encoding="utf-8").splitlines()
    instructions = [line for line in lines if line.startswith(("ARG", "FROM", "USER"))]
    assert instructions[:2] == ["ARG BASE_IMAGE=docker.io/library/debian:bookworm-slim", "FROM ${BASE_IMAGE}"]
    assert re.fullmatch(r"USER \d+:\d+", instructions[-1]), "a number: runAsNonRoot cannot check a name"


@pytest.mark.parametrize("path", SANDBOX_FILES, ids=lambda path: str(path.relative_to(SHOP)))
def test_sandbox_files_are_accepted(path: Path) -> None:
    loaded = load_project(path.parent, name_hint="unused", allow_unknown_needs=False)
    assert loaded.source == "file"
    assert loaded.project.project == "shop"


def test_sandbox_files_name_what_is_there_in_every_environment() -> None:
    for path in SANDBOX_FILES:
        for name, service in services_of(path).items():
            root = path.parent / service.get("source", {}).get("repo", ".")
            for wanted in paths_of(service):
                for environment in ("dev", "qa"):
                    there = root / wanted.replace("${SANDBOX_ENV}", environment)
                    assert there.exists(), f"{path}: {name}: {wanted}"


def services_of(path: Path) -> dict[str, dict[str, Any]]:
    services: dict[str, dict[str, Any]] = documents(path)[0]["services"]
    return services


def paths_of(service: dict[str, Any]) -> Iterator[str]:
    if "chart" in service:
        yield service["chart"]["path"]
        yield from service["chart"]["values"]
    if "kustomize" in service:
        yield service["kustomize"]["path"]
    yield from service.get("manifests", {}).get("paths", [])
    for image in service.get("images", []):
        yield f"{image['build']['context']}/Containerfile"


def test_every_layout_says_the_same_of_a_service() -> None:
    """A folder's own sandbox.yaml says of each service what the whole shop's does, but for where it is."""
    whole = services_of(SHOP / "sandbox.yaml")
    for folder in ("catalogue", "data", "orders", "web"):
        for name, service in services_of(SHOP / folder / "sandbox.yaml").items():
            source = service.pop("source", None)
            home = source["repo"].removeprefix("../") if source else folder
            assert source in (None, {"repo": f"../{home}", "ref": "main"})
            assert without_folder(whole[name], home) == without_folder(service, home), f"{folder}: {name}"
    assert set(services_of(SHOP / "web" / "sandbox.yaml")) == set(whole), (
        "web can be brought up from its repository alone"
    )


def without_folder(value: Any, folder: str) -> Any:
    if isinstance(value, dict):
        return {key: without_folder(item, folder) for key, item in value.items()}
    if isinstance(value, list):
        return [without_folder(item, folder) for item in value]
    if value == folder:
        return "."
    return value.removeprefix(f"{folder}/") if isinstance(value, str) else value
