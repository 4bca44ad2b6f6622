"""Bad input of `sandbox up`: said with file, line and key, before anything is written."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from sandbox.cluster.providers import ClusterInfo
from tests.conftest import kubectl
from tests.e2e.projects import GitProject, Namespace, Tool, config_map, documents

CONFIG_MAP = documents(config_map("web", text="x"))


def declared(project: GitProject) -> GitProject:
    project.declare({"web": project.manifests("web", config_map("web", text="x"))})
    project.commit()
    return project


def test_an_unknown_ref_is_named(tool: Tool, project: GitProject) -> None:
    tool.up(declared(project), "--ref", "no-such-branch").failed(2, "no-such-branch")


@pytest.mark.parametrize("where", ["--ref", "--repo"])
def test_an_option_of_git_is_no_ref_and_no_address(tool: Tool, project: GitProject, tmp_path: Path, where: str) -> None:
    marker = tmp_path / "marker"
    hostile = f"--upload-pack=touch {marker}"

    tool.run("up", f"{where}={hostile}", cwd=declared(project).folder).failed(2, "--upload-pack")

    assert not marker.exists()


def test_an_address_that_runs_a_program_is_refused(tool: Tool, project: GitProject, tmp_path: Path) -> None:
    marker = tmp_path / "marker"

    tool.run("up", "--repo", f"ext::sh -c touch% {marker}", cwd=declared(project).folder).failed(4, "ext::")

    assert not marker.exists()


def test_a_symbolic_link_out_of_the_tree_is_refused(tool: Tool, project: GitProject) -> None:
    project.declare({"web": {"manifests": {"paths": ["k8s"]}}})
    project.write({"k8s/web.yaml": CONFIG_MAP})
    (project.folder / "k8s" / "passwd.yaml").symlink_to("/etc/passwd")
    project.commit()

    tool.up(project).failed(4, "k8s/passwd.yaml", "/etc/passwd")


def test_a_chart_that_does_not_render_shows_the_message_of_helm(tool: Tool, project: GitProject) -> None:
    template = "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: web}\ndata:\n  a: {{ .Values.a.b.c | quote }}\n"
    project.declare({"web": project.chart("web", template)})
    project.commit()

    tool.up(project).failed(2, "release web", "templates/0.yaml:5", "nil pointer evaluating")


@pytest.mark.parametrize(
    ("option", "near"),
    [
        ("--quota=smal", "'small'"),
        ("--only=wbe", "'web'"),
        ("--env=stagin", "'staging'"),
        ("--base=stagin", "'staging'"),
    ],
)
def test_a_typing_error_is_said_before_anything_slow_is_asked(
    tool: Tool, project: GitProject, option: str, near: str
) -> None:
    # Neither the other repository nor the registry would answer.
    elsewhere = {"source": {"repo": "git://127.0.0.1:1/shop/mail.git"}, "manifests": {"paths": ["k8s"]}}
    image = {"name": "web", "repository": "127.0.0.1:1/shop/web"}
    web = project.manifests("web", config_map("web", text="x")) | {"images": [image]}
    services = {"web": web} if "--base" in option else {"web": web, "mail": elsewhere}
    project.declare(services, environments={"staging": {"namespace": "staging"}})
    project.commit()

    tool.up(project, option).failed(2, f"did you mean {near}")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("apiVersion: sandbox.dev/v1\nproject: p\nservices: {web: [\n", ["sandbox.yaml:4"]),
        ("apiVersion: sandbox.dev/v1\nproject: p\nservices:\n  web: {cahrt: {path: x}}\n", ["sandbox.yaml:4", "cahrt"]),
        (
            "apiVersion: sandbox.dev/v1\nproject: p\nservices:\n  web:\n    manifests: {paths: [nowhere]}\n",
            ["sandbox.yaml:5", "services.web.manifests.paths", "nowhere"],
        ),
        (
            "apiVersion: sandbox.dev/v1\nproject: p\nservices:\n"
            "  web: {manifests: {paths: [k8s]}}\n"
            "  api: {manifests: {paths: [k8s]}}\n"
            "  web: {manifests: {paths: [k8s]}}\n",
            ["sandbox.yaml:6", "web"],
        ),
        (
            "apiVersion: sandbox.dev/v1\nproject: p\nservices:\n"
            "  a: {manifests: {paths: [k8s]}, needs: [b]}\n  b: {manifests: {paths: [k8s]}, needs: [a]}\n",
            ["sandbox.yaml:", "needs", "a needs b"],
        ),
        (
            "apiVersion: sandbox.dev/v1\nproject: p\nservices:\n"
            "  web: {chart: {path: charts/web, set: {host: '${SANDBOX_HOTS}'}}}\n",
            ["sandbox.yaml:4", "SANDBOX_HOTS", "SANDBOX_HOST"],
        ),
    ],
    ids=["no YAML", "unknown key", "missing path", "two services of one name", "needs in a circle", "unknown variable"],
)
def test_a_mistake_in_sandbox_yaml_is_said_with_file_line_and_key(
    tool: Tool, project: GitProject, text: str, said: list[str]
) -> None:
    project.write({"sandbox.yaml": text, "k8s/web.yaml": CONFIG_MAP})
    project.chart("web", CONFIG_MAP)
    project.commit()

    tool.up(project).failed(2, *said)


def test_a_manifest_that_is_no_yaml_is_named_with_its_line(tool: Tool, project: GitProject) -> None:
    project.declare({"web": {"manifests": {"paths": ["k8s"]}}})
    project.write({"k8s/good.yaml": CONFIG_MAP, "k8s/bad.yaml": "apiVersion: v1\nkind: ConfigMap\n  metadata: x\n"})
    project.commit()

    tool.up(project).failed(2, "k8s/bad.yaml", "3")


def test_a_kind_that_the_cluster_does_not_know_is_named(tool: Tool, project: GitProject) -> None:
    unknown = {"apiVersion": "example.com/v1", "kind": "Gadget", "metadata": {"name": "web"}}
    project.declare({"web": project.manifests("web", unknown)})
    project.commit()

    tool.up(project).failed(2, "Gadget", "example.com/v1")


def test_an_image_that_does_not_build_shows_what_the_builder_says(
    tool: Tool, project: GitProject, space: Namespace
) -> None:
    web = project.manifests("web", config_map("web", text="x"))
    project.write({"web/Containerfile": "FROM scratch\nCOPY missing.txt /there\n"})
    project.declare({"web": {**web, "images": [{"name": f"{project.name}/web", "build": {"context": "web"}}]}})
    project.commit()

    tool.up(project, "--builder", "buildah").failed(1, "web/Containerfile", "missing.txt", "no such file")

    assert space.itself() is None


def test_names_of_any_length_and_letters_become_names_that_kubernetes_takes(tool: Tool, project: GitProject) -> None:
    declared(project)
    names = ["x" * 80, "x" * 81, "Feature/Log-In", "feature/log-in"]

    found = [tool.plan(project, f"--name={name}")["plan"]["sandbox"]["name"] for name in names]

    assert len(set(found)) == len(names)
    for name in found:
        assert len(name) <= 63
        assert name.replace("-", "").isalnum()
        assert name == name.lower().strip("-")
        assert name.isascii()


def test_a_long_branch_gives_a_name_of_its_own(tool: Tool, project: GitProject) -> None:
    declared(project)
    found = []
    for branch in ("feature/" + "a" * 72, "Feature/" + "a" * 72):
        project.git("branch", branch)
        found.append(tool.plan(project, "--ref", branch)["plan"]["sandbox"]["namespace"])

    assert len(set(found)) == 2
    assert all(len(name) <= 63 for name in found)


def test_versions_that_the_project_requires_are_held_against_those_here(
    tool: Tool, project: GitProject, space: Namespace
) -> None:
    web = {"web": project.manifests("web", config_map("web", text="x"))}
    project.declare(web, requires={"sandbox": ">=0.1", "helm": ">=99", "kubernetes": ">=1.28"})
    project.commit()

    ended = tool.up(project).failed(4, "helm >=99", "here it is")

    assert "kubernetes >=" not in ended.err
    assert space.itself() is None


def test_options_that_contradict_each_other_are_refused(tool: Tool, project: GitProject, tmp_path: Path) -> None:
    lock = tmp_path / "some.lock"
    lock.write_text("{}")

    tool.up(declared(project), "--lock", str(lock), "--base", "qa").failed(2, "--lock")
    tool.up(project, "--dirty", "--ref", "main").failed(2, "--dirty")
    tool.up(project, "--ttl", "soon").failed(2, "soon")
    for text in ("0", "0h", "100y", "-8h", "10s"):
        tool.up(project, f"--ttl={text}").failed(2)
    tool.up(project, "--ttl", "90d").failed(4, "3d")
    tool.up(project, "--quota", "smal").failed(2, "smal", "small", "medium", "large")


def test_a_folder_that_is_no_repository_is_said(tool: Tool, tmp_path: Path) -> None:
    tool.run("up", cwd=tmp_path).failed(2, str(tmp_path))


def test_an_empty_repository_is_said(tool: Tool, project: GitProject) -> None:
    tool.up(project).failed(2)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can make a file system that is full")
def test_a_full_disk_is_said(tool: Tool, project: GitProject, tmp_path: Path, cluster: ClusterInfo) -> None:
    declared(project)
    project.write({"large.bin": "x" * 3_000_000})
    project.commit()
    place = tmp_path / "full"
    place.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(place)], check=True, timeout=10)
    try:
        ended = tool.with_environment(SANDBOX_CACHE_DIR=str(place)).up(project)
    finally:
        subprocess.run(["umount", str(place)], check=True, timeout=10)

    ended.failed(1, "No space left on device")
    assert kubectl(cluster, "get", "namespace", project.name, "--ignore-not-found") == ""
