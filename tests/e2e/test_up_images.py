"""Images of a commit: built, tested, found where CI put them; always deployed by digest."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import yaml

from sandbox.cluster.providers import ClusterInfo
from tests.e2e.projects import GitProject, Manifest, Namespace, Tool, config_map, deployment

CHART = """\
apiVersion: apps/v1
kind: Deployment
metadata: {name: web}
spec:
  selector: {matchLabels: {app: web}}
  template:
    metadata: {labels: {app: web}}
    spec:
      terminationGracePeriodSeconds: 1
      containers:
      - {name: main, image: "{{ .Values.image.repository }}:{{ .Values.image.tag }}", args: [sleep]}
"""


def image_of(space: Namespace) -> str:
    (container,) = space.get("deployment", "web")["spec"]["template"]["spec"]["containers"]
    return str(container["image"])


def build(project: GitProject, probe_storage: str, **more: object) -> Manifest:
    """What sandbox.yaml says of an image that is built from the folder `web`."""
    project.write({"web/Containerfile": f"FROM {probe_storage}\nCOPY marker.txt /marker.txt\n"})
    project.write({"web/marker.txt": project.name})
    return {"images": [{"name": f"{project.name}/web", "build": {"context": "web", **more}}]}


def test_an_image_is_built_tested_and_given_to_the_chart_by_digest(
    tool: Tool, project: GitProject, space: Namespace, cluster: ClusterInfo, probe_storage: str
) -> None:
    chart = project.chart("web", CHART, values={"image": {"repository": "example.com/web", "tag": "latest"}})
    tested = build(project, probe_storage, test=["/probe", "read", "/marker.txt"])
    project.declare({"web": {**chart, **tested}}, images={"builder": "buildah"})
    project.commit()

    tool.up(project).ok()

    (locked,) = tool.run("get", "lock", "-s", project.name, "-o", "json").ok().data["services"]["web"]["images"]
    assert locked["repository"] == f"{cluster.registry}/{project.name}/web"
    assert image_of(space) == f"{locked['repository']}:{locked['tag']}@{locked['digest']}"
    assert space.get("deployment", "web")["status"]["availableReplicas"] == 1


def test_an_image_whose_test_fails_is_not_deployed(
    tool: Tool, project: GitProject, space: Namespace, probe_storage: str
) -> None:
    web = project.manifests("web", deployment("web", f"{project.name}/web", "sleep"))
    project.declare({"web": {**web, **build(project, probe_storage, test=["/probe", "crash", "one test failed"])}})
    project.commit()

    tool.up(project, "--builder", "buildah").failed(1, "/probe crash one test failed", "one test failed", "not pushed")

    assert space.itself() is None


def test_an_image_that_ci_pushed_is_found_by_the_commit(
    tool: Tool, project: GitProject, space: Namespace, cluster: ClusterInfo, probe_storage: str
) -> None:
    repository = f"{cluster.registry}/{project.name}/web"
    web = project.manifests("web", deployment("web", f"{project.name}/web", "sleep"))
    project.declare({"web": {**web, "images": [{"name": f"{project.name}/web", "repository": repository}]}})
    sha = project.commit()
    push = ["buildah", "push", "--quiet", "--tls-verify=false", probe_storage, f"docker://{repository}:{sha}"]
    subprocess.run(push, check=True, timeout=60, capture_output=True)

    tool.up(project).ok()

    assert image_of(space).startswith(f"{repository}:{sha}@sha256:")


def test_the_configured_pull_secret_is_brought_into_the_sandbox(
    tool: Tool,
    project: GitProject,
    space: Namespace,
    cluster: ClusterInfo,
    namespace: str,
    probe_storage: str,
    tmp_path: Path,
) -> None:
    logins = json.dumps({"auths": {"registry.example.com": {"auth": "dXNlcjpwYXNz"}}})
    home = Namespace(cluster, namespace)
    secret = "kubernetes.io/dockerconfigjson"
    home.kubectl(
        "create", "secret", "generic", "logins", f"--type={secret}", f"--from-literal=.dockerconfigjson={logins}"
    )
    # The context's own namespace is where a user keeps it.
    content = yaml.safe_load(cluster.kubeconfig.read_text())
    next(c["context"] for c in content["contexts"] if c["name"] == cluster.context)["namespace"] = namespace
    (tmp_path / "config").write_text(yaml.safe_dump(content))
    web = project.manifests("web", deployment("web", f"{project.name}/web", "sleep"))
    project.declare(
        {"web": {**web, **build(project, probe_storage)}}, images={"builder": "buildah", "pullSecret": "logins"}
    )
    project.commit()

    tool.with_environment(KUBECONFIG=str(tmp_path / "config")).up(project).ok()

    assert space.get("secret", "logins")["data"] == home.get("secret", "logins")["data"]
    assert space.get("serviceaccount", "default")["imagePullSecrets"] == [{"name": "logins"}]


def test_a_pull_secret_that_is_not_there_is_said(tool: Tool, project: GitProject, space: Namespace) -> None:
    # Also where the project brings no images of its own: those that its manifests name may need it.
    web = project.manifests("web", config_map("web", text="x"))
    project.declare({"web": web}, images={"pullSecret": "no-such-logins"})
    project.commit()

    tool.up(project).failed(2, "no-such-logins", "default")

    assert space.itself() is None
