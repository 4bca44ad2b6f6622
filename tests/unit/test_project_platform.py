"""The platform configuration, and what it does to the quota profiles of user and project."""

from __future__ import annotations

import re
from datetime import timedelta
from pathlib import Path

import pytest
from pydantic import ValidationError

from sandbox.model.errors import InvalidInput
from sandbox.project.platform import Platform, parse_platform
from sandbox.project.quotas import load_profiles, shipped_folder
from sandbox.project.settings import Settings
from sandbox.provision.profiles import known_profiles

TINY = """
clusterName: shared
profiles:
  tiny:
    description: next to nothing
    resourceQuota: {pods: 3}
registry: registry.example.com/sandboxes
images: {pullSecret: pull}
captureStore: s3://captures/shared
warnBefore: 15m
limits: {sandboxesPerOwner: 3, sandboxesPerProject: 10}
"""


@pytest.mark.parametrize("text", [None, "", "# nothing is decided yet\n"])
def test_without_one_the_defaults_hold(text: str | None) -> None:
    platform = parse_platform(text)

    assert platform == Platform()
    assert not platform.governs_profiles
    assert (platform.warning_time, platform.retention) == (timedelta(minutes=30), timedelta(days=7))
    assert (platform.capture_store, platform.registry, platform.limits.sandboxes_per_owner) == (None, None, None)


def test_it_is_read() -> None:
    platform = parse_platform(TINY)

    assert platform.governs_profiles
    assert platform.profiles["tiny"].name == "tiny"
    assert platform.profiles["tiny"].resource_quota == {"pods": "3"}
    assert platform.registry == "registry.example.com/sandboxes"
    assert platform.images.pull_secret == "pull"
    assert platform.capture_store == "s3://captures/shared"
    assert platform.warning_time == timedelta(minutes=15)
    assert (platform.limits.sandboxes_per_owner, platform.limits.sandboxes_per_project) == (3, 10)


def test_a_profile_may_be_a_whole_file() -> None:
    small = (shipped_folder() / "small.yaml").read_text()
    text = "profiles:\n  small:\n" + "".join(f"    {line}\n" for line in small.splitlines())

    assert parse_platform(text).profiles["small"] == load_profiles([shipped_folder()])["small"]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("warnBefor: 15m", "warnBefor: is not a known key; did you mean 'warnBefore'?"),
        ("warnBefore: soon", "warnBefore: 'soon' is not a duration"),
        ("limits: {sandboxesPerOwner: 0}", "limits.sandboxesPerOwner"),
        ("limits: {sandboxesPerOwner: '3'}", "limits.sandboxesPerOwner"),
        ("profiles: {Tiny: {resourceQuota: {pods: 3}}}", "Tiny"),
        ("profiles: {tiny: {resourceQuota: {pods: 3}, name: other}}", "'tiny' calls itself 'other'"),
        ("profiles: {tiny: {}}", "profiles.tiny"),
        (
            "profiles:\n  tiny:\n    resourceQuota: {cpus: 3}",
            "platform.yaml): profiles.tiny.resourceQuota.cpus: is not a resource",
        ),
        ("profiles: 3", "profiles: must be a mapping"),
        ("- 1", "must be a mapping"),
        ("a: [", "is not valid YAML"),
        ("apiVersion: sandbox.dev/v2", "apiVersion"),
    ],
)
def test_what_is_wrong_is_said_with_its_place_and_whom_to_ask(text: str, said: str) -> None:
    with pytest.raises(InvalidInput) as raised:
        parse_platform(text)

    assert said in str(raised.value)
    assert raised.value.what.startswith("the platform configuration (ConfigMap sandbox-config in sandbox-system")
    # The chart writes the file: a line of it is a place that nobody has.
    assert not re.search(r"platform\.yaml\):\d", raised.value.what) or "YAML" in raised.value.what
    assert "whoever runs the cluster" in raised.value.hint


def test_nothing_of_it_can_be_changed() -> None:
    with pytest.raises(ValidationError):
        parse_platform(TINY).registry = "elsewhere"  # type: ignore[misc]


def test_with_its_profiles_no_others_count(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SANDBOX_CONFIG", str(tmp_path / "config.yaml"))
    head = "apiVersion: sandbox.dev/v1\nkind: QuotaProfile\n"
    for folder, name in (("project/quotas", "huge"), ("mine", "mine")):
        (tmp_path / folder).mkdir(parents=True)
        (tmp_path / folder / "one.yaml").write_text(f"{head}name: {name}\nresourceQuota: {{pods: 9000}}\n")
    settings, tree = Settings(quota_folders=("mine",)), tmp_path / "project"
    said: list[str] = []

    assert set(known_profiles(settings, tree)) == {"small", "medium", "large", "mine", "huge"}
    assert set(known_profiles(settings, tree, Platform(), say=said.append)) >= {"small", "mine", "huge"}
    assert said == []
    assert set(known_profiles(settings, tree, parse_platform(TINY), say=said.append)) == {"tiny"}
    assert len(said) == 1
    assert str(tmp_path / "mine") in said[0]
    assert str(tree / "quotas") in said[0]


def test_nothing_is_said_where_nothing_is_passed_over() -> None:
    said: list[str] = []

    assert set(known_profiles(Settings(), None, parse_platform(TINY), say=said.append)) == {"tiny"}
    assert said == []
