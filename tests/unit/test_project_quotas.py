"""Quota profiles and user settings."""

# ruff: noqa: E501 - tables of messages

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

import pytest

from sandbox.model.durations import parse_duration
from sandbox.model.errors import InvalidInput
from sandbox.model.quantities import parse_quantity
from sandbox.project.quotas import choose_profile, load_profiles, profile_folders, shipped_folder
from sandbox.project.settings import Settings, load_settings, settings_path

HEAD = "apiVersion: sandbox.dev/v1\nkind: QuotaProfile\nname: tiny\n"


def write(folder: Path, name: str, text: str) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / name).write_text(text)
    return folder


def error_of(tmp_path: Path, body: str, head: str = HEAD) -> InvalidInput:
    with pytest.raises(InvalidInput) as raised:
        load_profiles([write(tmp_path / "quotas", "tiny.yaml", head + body)])
    return raised.value


def test_the_shipped_profiles_grow() -> None:
    profiles = load_profiles([shipped_folder()])
    small, medium, large = (profiles[name] for name in ("small", "medium", "large"))
    for resource in small.resource_quota:
        amounts = [parse_quantity(profile.resource_quota[resource]) for profile in (small, medium, large)]
        assert amounts == sorted(amounts), resource
    for profile in (small, medium, large):
        assert profile.max_ttl is not None
        assert parse_duration(profile.max_ttl)
        container = next(item for item in profile.limit_range if item.type == "Container")
        # A quota on requests and limits rejects pods without them: there must be defaults.
        assert {"cpu", "memory"} <= container.default.keys() & container.default_request.keys()
        assert (profile.pod_security, profile.network) == ("baseline", "isolated")


@pytest.mark.parametrize(
    ("body", "days"), [("maxTTL: 2d\nmaxLifetime: 3d\n", 3), ("maxTTL: 2d\n", 8), ("maxLifetime: 60d\n", 60), ("", 30)]
)
def test_every_profile_bounds_a_life(tmp_path: Path, body: str, days: int) -> None:
    text = HEAD + "resourceQuota: {pods: 1}\n" + body
    assert load_profiles([write(tmp_path / "q", "tiny.yml", text)])["tiny"].lifetime == timedelta(days=days)


def test_numbers_are_quantities_too(tmp_path: Path) -> None:
    body = "resourceQuota: {pods: 20, requests.cpu: 0.5, count/jobs.batch: '3', requests.nvidia.com/gpu: 1}\n"
    profile = load_profiles([write(tmp_path / "q", "tiny.yml", HEAD + body)])["tiny"]
    assert profile.resource_quota == {
        "pods": "20", "requests.cpu": "0.5", "count/jobs.batch": "3", "requests.nvidia.com/gpu": "1"
    }  # fmt: skip


@pytest.mark.parametrize(
    ("body", "what"),
    [
        ("resourceQuota:\n  pods: many\n", "quotas/tiny.yaml:5: resourceQuota.pods: 'many' is not a Kubernetes quantity"),
        ("resourceQuota:\n  requests.memory: 4GB\n", 'quotas/tiny.yaml:5: resourceQuota."requests.memory": \'4GB\' is not'),
        ("resourceQuota: {pods: -1}\n", "'-1' is less than nothing"),
        ("resourceQuota: {pods: 1e40}\n", "more than any cluster has"),
        ("resourceQuota: {pods: true}\n", "resourceQuota.pods: must be text, not true"),
        ("resourceQuota: {request.cpu: 1}\n", "did you mean 'requests.cpu'"),
        ("resourceQuota: {}\n", "resourceQuota: must not be empty"),
        ("", "resourceQuota: is missing"),
        ("resourceQuota: {pods: 1}\nmaxTTL: soon\n", "quotas/tiny.yaml:5: maxTTL: 'soon' is not a duration"),
        ("resourceQuota: {pods: 1}\nmaxTtl: 1d\n", "maxTtl: is not a known key; did you mean 'maxTTL'?"),
        ("resourceQuota: {pods: 1}\npodSecurity: strict\n", "podSecurity: must be 'privileged', 'baseline' or 'restricted'"),
        ("resourceQuota: {pods: 1}\nlimitRange:\n- type: Container\n  min: {cpu: 2}\n  max: {cpu: 1}\n", "quotas/tiny.yaml:6: limitRange[0]: min.cpu (2) is more than max.cpu (1)"),
        ("resourceQuota: {pods: 1}\nlimitRange: [{type: Container, default: {cpu: 100m}, defaultRequest: {cpu: 1}}]\n", "defaultRequest.cpu (1) is more than default.cpu (100m)"),
        ("resourceQuota: {pods: 1}\nmaxTTL: 2d\nmaxLifetime: 1d\n", "maxLifetime (1d) is less than maxTTL (2d)"),
        ("resourceQuota: {pods: 1}\nmaxPerOwner: 0\n", "maxPerOwner"),
        ("resourceQuota: {pods: 1}\nforbiddenKinds: [daemonsets]\n", "quotas/tiny.yaml:5: forbiddenKinds[0]: 'daemonsets' is not a kind"),
        ("resourceQuota: {pods: 1}\nallowedKinds: [Service]\nforbiddenKinds: [Service]\n", "Service is in allowedKinds and in forbiddenKinds"),
        ("resourceQuota: {pods: 1}\nnetwork: default-deny\n", "network: must be 'open', 'isolated' or 'restricted'"),
        ("resourceQuota: {pods: 1}\negress: [{cidr: 10.0.0.0/8}]\n", "egress is for `network: restricted`"),
        ("resourceQuota: {pods: 1}\nnetwork: restricted\negress: [{cidr: 10.0.0.1/8}]\n", "'10.0.0.1/8' is not a range of addresses"),
        ("resourceQuota: {pods: 1}\nnetwork: restricted\negress: [{cidr: 10.0.0.0/8, namespace: x}]\n", "give one of cidr, namespace and namespaceLabels"),
        ("resourceQuota: {pods: 1}\nnetwork: restricted\negress: [{cidr: 10.0.0.0/8, except: [11.0.0.0/16]}]\n", "11.0.0.0/16 is not within 10.0.0.0/8"),
        ("resourceQuota: {pods: 1}\nnetwork: restricted\negress: [{cidr: 10.0.0.0/8, ports: [{port: 9, endPort: 8}]}]\n", "endPort (8) is less than port (9)"),
        ("resourceQuota: {pods: 1}\npriorityClassName: Low\n", "'Low' is not a name of an object"),
        ("resourceQuota: {pods: 1}\nlimitRange: [{type: Pod, default: {cpu: 1}}]\n", "are for containers"),
    ],
)  # fmt: skip
def test_errors_name_file_line_and_key(tmp_path: Path, body: str, what: str) -> None:
    assert what in error_of(tmp_path, body).what


def test_later_folders_win_and_it_is_said(tmp_path: Path) -> None:
    project = write(tmp_path / "project" / "quotas", "mine.yaml", HEAD + "resourceQuota: {pods: 1}\n")
    small = HEAD.replace("tiny", "small") + "resourceQuota: {pods: 1000}\n"
    write(project, "small.yaml", small)
    user = write(tmp_path / "user", "a.yaml", HEAD + "resourceQuota: {pods: 2}\n")
    said: list[str] = []
    folders = profile_folders(tmp_path / "project", [user])
    assert folders == [shipped_folder(), user, project]
    profiles = load_profiles(folders, say=said.append)
    assert profiles["small"].resource_quota == {"pods": "1000"}
    assert profiles["tiny"].resource_quota == {"pods": "1"}
    assert [line.split(" of ")[0] for line in said] == ["the quota profile tiny", "the quota profile small"]
    assert str(shipped_folder() / "small.yaml") in said[1]
    assert profile_folders(tmp_path / "nothing") == [shipped_folder()]


def test_the_same_folder_twice_is_no_replacement() -> None:
    said: list[str] = []
    load_profiles([shipped_folder(), shipped_folder()], say=said.append)
    assert said == []


def test_two_of_one_name_in_one_folder_are_refused(tmp_path: Path) -> None:
    write(tmp_path / "quotas", "other.yaml", HEAD + "resourceQuota: {pods: 1}\n")
    assert (
        "quotas/tiny.yaml:3: name: 'tiny' is the name of other.yaml too"
        in error_of(tmp_path, "resourceQuota: {pods: 1}\n").what
    )


def test_other_files_in_a_projects_folder_are_left_alone_and_said(tmp_path: Path) -> None:
    folder = write(tmp_path / "quotas", "quota.yaml", "apiVersion: v1\nkind: ResourceQuota\nmetadata: {name: x}\n")
    said: list[str] = []
    assert load_profiles([folder], say=said.append) == {}
    assert said == ["quotas/quota.yaml is not a quota profile and is not read"]


def test_what_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match="does not exist"):
        load_profiles([tmp_path / "nowhere"])
    with pytest.raises(InvalidInput) as raised:
        choose_profile("smal", load_profiles([shipped_folder()]))
    assert "did you mean 'small'" in raised.value.what
    assert "medium (a system of a dozen services)" in raised.value.hint


# Settings


def test_without_a_file_there_are_no_settings(tmp_path: Path) -> None:
    environment = {"SANDBOX_CONFIG": str(tmp_path / "none.yaml")}
    with pytest.raises(InvalidInput, match="does not exist"):
        load_settings(environment)
    (tmp_path / "none.yaml").write_text("# nothing yet\n")
    assert load_settings(environment) == Settings()


def test_settings_and_their_errors(tmp_path: Path) -> None:
    path = tmp_path / "config.yaml"
    environment = {"SANDBOX_CONFIG": str(path)}
    path.write_text("registry: localhost:5000/me\nbuilder: podman\nquotaFolders: [mine, /abs]\nnamespacePrefix: sbx-\n")
    settings = load_settings(environment)
    assert (settings.registry, settings.builder, settings.namespace_prefix) == ("localhost:5000/me", "podman", "sbx-")
    assert settings.quota_paths(tmp_path) == [tmp_path / "mine", Path("/abs")]
    path.write_text("registry: ok\nbulider: podman\n")
    with pytest.raises(InvalidInput) as raised:
        load_settings(environment)
    assert raised.value.what == f"{path}:2: bulider: is not a known key; did you mean 'builder' or 'buildArgs'?"
    path.write_text("namespacePrefix: Not_A_Label\n")
    with pytest.raises(InvalidInput, match="namespacePrefix"):
        load_settings(environment)


def test_the_default_place(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    monkeypatch.setattr("sys.platform", "linux")
    assert settings_path({}).name == "config.yaml"
    with pytest.raises(InvalidInput, match="home folder of nobody"):
        settings_path({"SANDBOX_CONFIG": "~no-such-user/x.yaml"})
    assert settings_path({"SANDBOX_CONFIG": "~/x.yaml"}) == Path.home() / "x.yaml"
