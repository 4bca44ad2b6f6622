"""A repository is untrusted: nothing of it runs on the user's machine, and a build sees nothing of theirs."""

from __future__ import annotations

import base64
import json
from pathlib import Path

import pytest

from tests.e2e.projects import Ended, GitProject, Namespace, Tool, config_map, deployment, documents

SECRET = "token-of-the-user"


@pytest.fixture
def marker(tmp_path: Path) -> Path:
    """A file that every hostile program of these tests would make."""
    return tmp_path / "it-ran"


def script(project: GitProject, path: str, marker: Path) -> str:
    project.write({path: f"#!/bin/sh\ntouch {marker}\ncat\n"})
    (project.folder / path).chmod(0o755)
    return str(project.folder / path)


@pytest.mark.parametrize("dirty", [False, True])
def test_hooks_and_filters_of_a_repository_do_not_run(
    tool: Tool, project: GitProject, space: Namespace, marker: Path, dirty: bool
) -> None:
    project.declare({"web": project.manifests("web", config_map("web", text="plain"))})
    project.write({".gitattributes": "* filter=evil diff=evil\n"})
    project.commit()
    for hook in ("post-checkout", "post-index-change", "reference-transaction", "fsmonitor-watchman", "pre-auto-gc"):
        script(project, f".git/hooks/{hook}", marker)
    evil = script(project, ".git/evil", marker)
    settings = {
        "core.fsmonitor": evil,
        "core.sshCommand": evil,
        "core.pager": evil,
        "filter.evil.smudge": evil,
        "filter.evil.clean": evil,
        "filter.evil.process": evil,
        "diff.evil.textconv": evil,
        "diff.evil.command": evil,
        "diff.external": evil,
        "credential.helper": evil,
        "gpg.program": evil,
    }
    for key, value in settings.items():
        project.git("config", key, value)
    marker.unlink(missing_ok=True)
    # As long as the committed one: only the content tells that it changed.
    project.manifests("web", config_map("web", text="dirty"))

    tool.up(project, *(["--dirty"] if dirty else [])).ok()

    assert not marker.exists()
    assert space.get("configmap", "web")["data"] == {"text": "dirty" if dirty else "plain"}


def test_submodules_are_not_fetched(tool: Tool, project: GitProject, tmp_path: Path) -> None:
    other = GitProject(tmp_path / "other")
    other.write({"secret.txt": "x"})
    other.commit()
    address = other.bare(tmp_path / "other.git")
    project.git("-c", "protocol.file.allow=always", "submodule", "--quiet", "add", address, "k8s/sub")
    project.declare({"web": {"manifests": {"paths": ["k8s"]}}})
    project.write({"k8s/web.yaml": documents(config_map("web", text="x"))})
    project.commit()

    ended = tool.run("up", "--dry-run", "-o", "json", cwd=project.folder).ok()

    assert "k8s/sub" in ended.err


def kustomization(project: GitProject, content: dict[str, object]) -> None:
    project.declare({"web": {"kustomize": {"path": "web"}}})
    project.write({"web/kustomization.yaml": documents(content)})
    project.write({"web/web.yaml": documents(config_map("web", text="x"))})


def test_a_program_among_the_plugins_of_a_kustomization_does_not_run(
    tool: Tool, project: GitProject, space: Namespace, marker: Path
) -> None:
    program = {"config.kubernetes.io/function": "exec:\n  path: ./evil.sh\n"}
    plugin = {"apiVersion": "example.com/v1", "kind": "Evil", "metadata": {"name": "evil", "annotations": program}}
    for field in ("generators", "transformers", "validators"):
        kustomization(project, {"resources": ["web.yaml"], field: ["plugin.yaml"]})
        script(project, "web/evil.sh", marker)
        project.write({"web/plugin.yaml": documents(plugin)})
        project.commit()

        tool.up(project).failed(4, "plugin")
    assert not marker.exists()
    assert space.itself() is None


@pytest.mark.parametrize(
    "content",
    [
        {"resources": ["https://example.com/acme/web//k8s?ref=main"]},
        {"resources": ["github.com/acme/web"]},
        {"resources": ["git@example.com:acme/web.git"]},
        {"components": ["https://example.com/acme/web"]},
        {"helmCharts": [{"name": "web", "repo": "https://example.com/charts", "version": "1"}]},
        {"resources": ["web.yaml"], "configMapGenerator": [{"name": "c", "files": ["../../outside"]}]},
    ],
    ids=["https", "short", "ssh", "component", "chart", "outside"],
)
def test_a_kustomization_that_reaches_out_of_the_tree_is_refused(
    tool: Tool, project: GitProject, space: Namespace, content: dict[str, object]
) -> None:
    kustomization(project, content)
    project.commit()

    tool.up(project).failed(4, "web/kustomization.yaml" if "configMapGenerator" not in content else "outside")
    assert space.itself() is None


def test_a_build_sees_neither_the_kubeconfig_nor_the_environment(
    tool: Tool, project: GitProject, probe_storage: str, space: Namespace
) -> None:
    (tool.home / "credentials").write_text(SECRET)
    image = f"{project.name}/web"
    web = project.manifests("web", deployment("web", image, "sleep"))
    project.declare({"web": web | {"images": [{"name": image, "build": {"context": "web"}}]}})
    hostile = tool.with_environment(AWS_SECRET_ACCESS_KEY=SECRET, GITHUB_TOKEN=SECRET)

    def build(*commands: str) -> Ended:
        runs = [f"RUN {json.dumps(['/probe', *command.split()])}" for command in commands]
        project.write({"web/Containerfile": "\n".join([f"FROM {probe_storage}", *runs]) + "\n"})
        project.commit()
        return hostile.up(project, "--builder", "buildah")

    printed = build("environment", "crash enough").failed(1, "PATH=", "enough").err
    assert SECRET not in printed
    assert "KUBECONFIG" not in printed
    assert str(tool.home) not in printed
    for path in (tool.cluster.kubeconfig, tool.home / "credentials", "/etc/shadow", "/proc/1/environ"):
        read = build(f"read {path}").failed(1, str(path)).err
        assert "no such file" in read or "permission denied" in read
        assert SECRET not in read
        assert "client-key-data" not in read
    assert space.itself() is None


def test_a_build_does_not_reach_out_of_its_context(
    tool: Tool, project: GitProject, probe_storage: str, tmp_path: Path
) -> None:
    (tmp_path / "outside").write_text(SECRET)
    (project.folder / "web").mkdir()
    for line in ("COPY ../../outside /stolen", "COPY /outside /stolen"):
        project.write({"web/Containerfile": f"FROM {probe_storage}\n{line}\n"})
        image = f"{project.name}/web"
        web = project.manifests("web", deployment("web", image, "sleep"))
        project.declare({"web": web | {"images": [{"name": image, "build": {"context": "web"}}]}})
        project.commit()

        assert SECRET not in tool.up(project, "--builder", "buildah").failed(1, "outside").err


def test_a_chart_cannot_read_the_machine(tool: Tool, project: GitProject) -> None:
    (tool.home / "credentials").write_text(SECRET)
    template = f"""\
apiVersion: v1
kind: ConfigMap
metadata: {{name: web}}
data:
  file: {{{{ .Files.Get "{tool.home}/credentials" | quote }}}}
  up: {{{{ .Files.Get "../../../../../../../..{tool.home}/credentials" | quote }}}}
"""
    project.declare({"web": project.chart("web", template)})
    project.commit()

    plan = tool.plan(project)

    assert SECRET not in json.dumps(plan)


def test_secrets_are_shown_nowhere_but_where_they_are_asked_for(
    tool: Tool, project: GitProject, space: Namespace
) -> None:
    secret = {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {"name": "database"},
        "stringData": {"password": "correct-horse-battery"},
    }
    project.declare({"web": project.manifests("web", secret)})
    project.commit()

    ended = tool.up(project, "-v").ok()

    hidden = ("correct-horse-battery", base64.b64encode(b"correct-horse-battery").decode())
    shown = [ended.out, ended.err]
    for words in (["get", "record"], ["get", "manifest"], ["get", "lock"], ["status"], ["history"]):
        done = tool.run(*words, "-s", project.name, "-o", "json")
        shown += [done.out, done.err]
    for text in shown:
        assert not any(word in text for word in hidden)
    assert "correct-horse-battery" in tool.run("get", "manifest", "-s", project.name, "--show-secrets").ok().out
    assert base64.b64decode(space.get("secret", "database")["data"]["password"]) == b"correct-horse-battery"
