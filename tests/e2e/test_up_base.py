"""`--base`, `--only` and locks: services that this commit does not bring."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from sandbox.cluster.providers import ClusterInfo, embedded_bin_dir
from tests.e2e.projects import (
    GitProject,
    Manifest,
    Namespace,
    Tool,
    config_map,
    deployment,
    documents,
    service,
    temporary_project,
)

CHART = """\
apiVersion: v1
kind: ConfigMap
metadata: {name: "{{ .Release.Name }}"}
data: {text: "{{ .Values.text }}"}
"""


def chart(project: GitProject, name: str, text: str) -> Manifest:
    return project.chart(name, CHART, values={"text": "default"}) | {"environments": {"dev": {"set": {"text": text}}}}


@pytest.fixture(scope="module")
def base(
    tool: Tool, cluster: ClusterInfo, probe_image: str, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Namespace]:
    """A sandbox with the services web, orders (a chart) and catalogue (with a pod and a Service)."""
    with temporary_project(cluster, tmp_path_factory.mktemp("base")) as project:
        catalogue = project.manifests(
            "catalogue", deployment("catalogue", probe_image, "serve", "8080"), service("catalogue")
        )
        project.declare(
            {
                "web": project.manifests("web", config_map("web", text="of the base")),
                "orders": chart(project, "orders", "of the base"),
                "catalogue": catalogue | {"ports": {"http": 8080}},
            }
        )
        project.commit()
        tool.up(project).ok()
        yield Namespace(cluster, project.name)


def own_web(project: GitProject, needs: list[Any] | None = None, **more: Any) -> None:
    """A repository of one service."""
    web = project.manifests("web", config_map("web", text="of the branch"))
    project.declare({"web": web | ({"needs": needs} if needs else {})}, **more)
    project.commit()


def texts(space: Namespace) -> dict[str, str]:
    return {c["metadata"]["name"]: c["data"]["text"] for c in space.list("configmaps") if "text" in c["data"]}


def test_every_other_service_comes_from_a_base_that_is_a_sandbox(
    tool: Tool, project: GitProject, space: Namespace, base: Namespace
) -> None:
    own_web(project)

    tool.up(project, "--base", base.name).ok()

    assert texts(space) == {"web": "of the branch", "orders": "of the base"}
    theirs, ours = base.get("deployment", "catalogue"), space.get("deployment", "catalogue")
    image = [d["spec"]["template"]["spec"]["containers"][0]["image"] for d in (theirs, ours)]
    assert image[0] == image[1]
    assert ours["status"]["availableReplicas"] == 1
    # Helm knows the release here as it does there.
    assert any(name.startswith("sh.helm.release.v1.orders.") for name in space.names("secrets"))
    assert texts(base)["web"] == "of the base"


def test_an_environment_with_a_record_is_a_base(
    tool: Tool, project: GitProject, space: Namespace, base: Namespace
) -> None:
    own_web(project, environments={"qa": {"namespace": base.name}}, defaults={"base": "qa"})

    ended = tool.up(project, "--only", "web,orders").ok()

    assert "base qa" in ended.err
    assert texts(space) == {"web": "of the branch", "orders": "of the base"}
    assert "catalogue" not in space.names("deployments")
    record = tool.run("get", "record", "-s", project.name, "-o", "json").ok().data
    assert set(record["services"]) == {"web", "orders"}


def test_an_environment_may_be_in_another_context(
    tool: Tool, project: GitProject, space: Namespace, base: Namespace, cluster: ClusterInfo, tmp_path: Path
) -> None:
    content = yaml.safe_load(cluster.kubeconfig.read_text())
    context = next(entry for entry in content["contexts"] if entry["name"] == cluster.context)
    content["contexts"].append({**context, "name": "shared-qa"})
    (tmp_path / "config").write_text(yaml.safe_dump(content))
    own_web(project, environments={"qa": {"namespace": base.name, "context": "shared-qa"}})

    elsewhere = tool.with_environment(KUBECONFIG=str(tmp_path / "config"))
    elsewhere.up(project, "--base", "qa", "--only", "web,orders").ok()

    assert texts(space) == {"web": "of the branch", "orders": "of the base"}


def test_an_environment_without_a_record_is_read_from_its_releases_and_objects(
    tool: Tool,
    project: GitProject,
    space: Namespace,
    cluster: ClusterInfo,
    namespace: str,
    probe_image: str,
    tmp_path: Path,
) -> None:
    by_hand = Namespace(cluster, namespace)
    env = [{"name": "TEXT", "valueFrom": {"configMapKeyRef": {"name": "settings", "key": "text"}}}]
    objects = (
        deployment("catalogue", probe_image, "serve", "8080", env=env),
        service("catalogue"),
        config_map("settings", text="by kubectl"),
        config_map("unrelated", text="of nobody"),
    )
    by_hand.kubectl("apply", "-f", "-", stdin=documents(*objects))
    made = GitProject(tmp_path / "charts")
    made.chart("orders", CHART, values={"text": "default"})
    helm(cluster, "install", "orders", str(made.folder / "charts/orders"), "-n", namespace, "--set", "text=by helm")
    own_web(project, environments={"qa": {"namespace": namespace}})

    tool.up(project, "--base", "qa").ok()

    assert texts(space) == {"web": "of the branch", "orders": "by helm", "settings": "by kubectl"}
    assert space.get("deployment", "catalogue")["status"]["availableReplicas"] == 1
    theirs = by_hand.get("service", "catalogue")["spec"]["clusterIP"]
    assert space.get("service", "catalogue")["spec"]["clusterIP"] != theirs


def test_a_base_that_is_nowhere_is_said(tool: Tool, project: GitProject, namespace: str) -> None:
    own_web(project, environments={"empty": {"namespace": namespace}})

    tool.up(project, "--base", "no-such-place").failed(2, "no-such-place")
    tool.up(project, "--base", "empty").failed(2, "empty", "no services")


def test_a_service_that_neither_project_nor_base_has_is_named(tool: Tool, project: GitProject, base: Namespace) -> None:
    own_web(project)

    tool.up(project, "--only", "web,payments").failed(2, "payments", "--base")
    tool.up(project, "--only", "web,payments", "--base", base.name).failed(2, "payments", "orders")


def test_only_takes_services_and_what_they_need(tool: Tool, project: GitProject, space: Namespace) -> None:
    services = {
        name: project.manifests(name, config_map(name, text=name)) for name in ("web", "orders", "stock", "mail")
    }
    services["web"]["needs"] = ["orders"]
    services["orders"]["needs"] = [{"service": "stock", "as": "sandbox"}, {"service": "mail", "as": "skip"}]
    project.declare(services)
    project.commit()

    tool.up(project, "--only", "web").ok()

    assert set(texts(space)) == {"web", "orders", "stock"}


def test_only_leaves_the_other_services_of_the_sandbox_as_they_are(
    tool: Tool, project: GitProject, space: Namespace
) -> None:
    project.declare({name: project.manifests(name, config_map(name, text="1")) for name in ("a", "b")})
    project.commit()
    tool.up(project).ok()
    project.declare({name: project.manifests(name, config_map(name, text="2")) for name in ("a", "b")})
    project.commit()

    tool.up(project, "--only", "a").ok()

    assert texts(space) == {"a": "2", "b": "1"}


def test_a_need_may_be_shared_with_the_base(
    tool: Tool, project: GitProject, space: Namespace, base: Namespace, probe_image: str
) -> None:
    own_web(project, needs=[{"service": "catalogue", "as": "shared"}])

    tool.up(project, "--only", "web").failed(2, "catalogue", "--base")
    tool.up(project, "--only", "web", "--base", base.name).ok()

    spec = space.get("service", "catalogue")["spec"]
    assert (spec["type"], spec["externalName"]) == ("ExternalName", f"catalogue.{base.name}.svc.cluster.local")
    assert space.names("deployments") == set()


def test_a_need_may_be_a_declared_stand_in(tool: Tool, project: GitProject, space: Namespace, probe_image: str) -> None:
    web = project.manifests("web", config_map("web", text="x")) | {"needs": [{"service": "mail", "as": "mock"}]}
    mail = project.manifests("mail", config_map("mail", text="the real one")) | {"ports": {"smtp": 2525}}
    project.declare({"web": web, "mail": mail})
    project.commit()
    tool.up(project, "--only", "web").failed(2, "mail", "mock")

    mail["mock"] = {"image": probe_image, "command": ["/probe", "serve", "2525"]}
    project.declare({"web": web, "mail": mail})
    project.commit()
    tool.up(project, "--only", "web").ok()

    assert "mail" not in texts(space)
    assert space.get("deployment", "mail")["status"]["availableReplicas"] == 1
    assert space.get("service", "mail")["spec"]["ports"][0]["port"] == 2525


# --- locks ------------------------------------------------------------------------------------------


@pytest.fixture
def built(project: GitProject, probe_storage: str) -> GitProject:
    """A project with a service whose image is built from the probe, and one that is a chart."""
    project.write({"web/Containerfile": f"FROM {probe_storage}\nCOPY marker.txt /marker.txt\n"})
    project.write({"web/marker.txt": project.name})
    image = f"{project.name}/web"
    web = project.manifests("web", deployment("web", image, "sleep"))
    project.declare(
        {
            "web": web | {"images": [{"name": image, "build": {"context": "web"}}]},
            "orders": chart(project, "orders", "locked"),
        },
        images={"builder": "buildah"},
    )
    project.commit("Locked")
    return project


def test_a_lock_deploys_the_same_digests_and_builds_nothing(
    tool: Tool, built: GitProject, space: Namespace, tmp_path: Path
) -> None:
    file = tmp_path / "shop.lock"
    tool.run("lock", "-f", str(file), cwd=built.folder).ok()
    assert space.itself() is None
    lock = json.loads(file.read_text())
    (image,) = lock["services"]["web"]["images"]
    locked = built.git("rev-parse", "HEAD")
    assert lock["services"]["orders"]["commit"] == locked
    # What is checked out since then does not matter.
    built.declare({"web": built.manifests("web", config_map("web", text="later"))})
    built.commit("Later")

    # A builder that cannot build: nothing asks for it.
    nothing = tool.with_environment(SANDBOX_CACHE_DIR=str(tmp_path / "fresh"))
    ended = nothing.up(built, "--lock", str(file), "--builder", "none").ok()

    (container,) = space.get("deployment", "web")["spec"]["template"]["spec"]["containers"]
    assert container["image"].endswith(f"@{image['digest']}")
    assert texts(space)["orders"] == "locked"
    assert ended.data["commit"]["sha"] == locked
    record = tool.run("get", "lock", "-s", built.name, "-o", "json").ok().data
    for name, service_lock in lock["services"].items():
        for fact in ("kind", "repo", "commit", "chart", "images", "values_files"):
            assert record["services"][name][fact] == service_lock[fact], (name, fact)


def test_a_build_is_not_repeated_for_the_same_content(tool: Tool, built: GitProject, space: Namespace) -> None:
    first = tool.run("lock", "-v", cwd=built.folder).ok()
    built.write({"README": "nothing that the image holds"})
    built.commit("Explain")

    second = tool.run("lock", "-v", cwd=built.folder).ok()

    digests = [json.loads(e.out)["services"]["web"]["images"][0]["digest"] for e in (first, second)]
    assert digests[0] == digests[1]
    assert "COPY marker.txt" in first.err
    assert "COPY marker.txt" not in second.err
    assert "is there" in second.err


def test_a_lock_that_was_edited_is_refused(tool: Tool, project: GitProject, space: Namespace, tmp_path: Path) -> None:
    own_web(project)
    file = tmp_path / "shop.lock"
    tool.run("lock", "-f", str(file), cwd=project.folder).ok()
    lock = json.loads(file.read_text())
    lock["services"]["web"]["ref"] = "another"
    file.write_text(json.dumps(lock))

    tool.up(project, "--lock", str(file)).failed(2, "digest", "sandbox lock")

    assert space.itself() is None


def test_a_lock_of_a_deployment_with_values_of_the_command_line_is_refused_without_them(
    tool: Tool, project: GitProject, space: Namespace, tmp_path: Path
) -> None:
    project.declare({"orders": chart(project, "orders", "of the commit")})
    project.commit()
    extra = tmp_path / "extra.yaml"
    extra.write_text("more: only-in-the-file\n")
    given = ("-f", str(extra), "--set", "orders.text=only-on-the-command-line")
    tool.up(project, *given).ok()
    file = tmp_path / "shop.lock"
    file.write_text(tool.run("get", "lock", "-s", project.name, "-o", "json").ok().out)
    assert "only-" not in file.read_text()

    tool.up(project, "--lock", str(file)).failed(2, "orders: -f extra.yaml, --set text", "give them again")
    tool.up(project, "--lock", str(file), *given).ok()

    assert texts(space) == {"orders": "only-on-the-command-line"}


def test_a_lock_can_be_a_base(
    tool: Tool, project: GitProject, space: Namespace, cluster: ClusterInfo, tmp_path: Path
) -> None:
    with temporary_project(cluster, tmp_path / "theirs") as theirs:
        theirs.declare({"orders": chart(theirs, "orders", "of the lock")})
        theirs.commit()
        file = tmp_path / "theirs.lock"
        tool.run("lock", "-f", str(file), cwd=theirs.folder).ok()
    own_web(project)

    tool.up(project, "--base", str(file)).ok()

    assert texts(space) == {"web": "of the branch", "orders": "of the lock"}


def helm(cluster: ClusterInfo, *arguments: str) -> None:
    folder = embedded_bin_dir()
    assert folder is not None
    access = ["--kubeconfig", str(cluster.kubeconfig), "--kube-context", cluster.context]
    done = subprocess.run(
        [str(folder / "helm"), *arguments, *access], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr
