"""Charts and kustomizations, rendered by the real helm and kubectl. No cluster."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import subprocess
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml

from sandbox.cluster.helm import Helm
from sandbox.cluster.tools import find_tool
from sandbox.images.rewrite import references
from sandbox.model.errors import InvalidInput, Refused
from sandbox.model.images import ResolvedImage
from sandbox.project.config import Service
from sandbox.render.render import Rendered, RenderRequest, render
from sandbox.render.setvalues import _Scanner, parse_set
from tests.unit.test_render_setvalues import TABLE

pytestmark = pytest.mark.e2e

DIGEST = "sha256:" + "ab" * 32
WEB = ResolvedImage("shop/web", "10.0.0.1:5000/shop/web", "src-1", DIGEST, "built")
REQUEST = RenderRequest(
    env="dev",
    namespace="mine",
    variables={"SANDBOX_NAME": "one", "SANDBOX_ENV": "dev", "SANDBOX_HOST": "one.test", "SANDBOX_NAMESPACE": "mine"},
    services=("web", "orders"),
    kube_version="v1.36.3",
)


@pytest.fixture
def helm(tmp_path: Path) -> Helm:
    return Helm(tmp_path / "no-kubeconfig", "")


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    chart = tmp_path / "tree/web/chart"
    (chart / "templates").mkdir(parents=True)
    (chart / "Chart.yaml").write_text("apiVersion: v2\nname: web\nversion: 1.2.3\nappVersion: '9'\n")
    (chart / "values.yaml").write_text("image: {repository: shop/web, tag: latest}\nport: 80\nextra: {a: 1, b: 2}\n")
    (chart / "templates/deployment.yaml").write_text("""
apiVersion: apps/v1
kind: Deployment
metadata: {name: {{ .Release.Name }}}
spec:
  selector: {matchLabels: {app: web}}
  template:
    metadata: {labels: {app: web}}
    spec: {containers: [{name: web, image: "{{ .Values.image.repository }}:{{ .Values.image.tag }}"}]}
""")
    (chart / "templates/values.yaml").write_text("""
apiVersion: v1
kind: ConfigMap
metadata: {name: values}
data: {values: {{ .Values | toJson | quote }}}
""")
    (chart / "templates/migrate.yaml").write_text("""
apiVersion: batch/v1
kind: Job
metadata: {name: migrate, annotations: {helm.sh/hook: pre-upgrade}}
spec: {template: {spec: {restartPolicy: Never, containers: [{name: m, image: busybox}]}}}
""")
    return tmp_path / "tree"


def chart(**more: Any) -> Service:
    service = {"chart": {"path": "web/chart", **more.pop("chart", {})}, **more}
    return Service.model_validate(service, strict=False)


def values_of(rendered: Rendered) -> dict[str, Any]:
    config = next(item for item in rendered.manifests if item["kind"] == "ConfigMap")
    return dict(json.loads(config["data"]["values"]))


def write(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


async def test_a_chart_its_hooks_and_its_lock(tree: Path, helm: Helm) -> None:
    rendered = await render("web", chart(chart={"release": "shop-web"}), tree, REQUEST, helm)
    assert sorted(item["kind"] for item in rendered.manifests) == ["ConfigMap", "Deployment"]
    assert [item["metadata"]["name"] for item in rendered.hooks] == ["migrate"]
    assert rendered.chart is not None
    assert (rendered.chart.release, rendered.chart.name, rendered.chart.version) == ("shop-web", "web", "1.2.3")
    assert rendered.chart.app_version == "9"
    assert rendered.chart_path == tree / "web/chart"


async def test_later_values_win_and_null_takes_the_charts_away(tree: Path, helm: Helm, tmp_path: Path) -> None:
    write(tree / "values/dev.yaml", "port: 1\nextra: {a: null}\nhost: web.${SANDBOX_HOST}\nshell: $${X} ${OTHER}\n")
    extra = write(tmp_path / "mine.yaml", "port: 3\nenabled: no\n")
    service = chart(chart={"values": ["values/${SANDBOX_ENV}.yaml"], "set": {"port": 2, "name": "${SANDBOX_NAME}"}})
    request = replace(REQUEST, extra_values=[extra], set_values=["web.last=4,port=4", "orders.port=9", "all=x"])
    rendered = await render("web", service, tree, request, helm)
    seen = values_of(rendered)
    assert seen == {
        "port": 4,
        "extra": {"b": 2},
        "host": "web.one.test",
        "shell": "$${X} ${OTHER}",
        "name": "one",
        "enabled": False,
        "last": 4,
        "all": "x",
        "image": {"repository": "shop/web", "tag": "latest"},
    }
    assert rendered.values_files == ("values/dev.yaml", "mine.yaml")
    before = await render("web", service, tree, replace(request, set_values=[]), helm)
    assert values_of(before)["port"] == 3
    before = await render("web", service, tree, replace(request, set_values=[], extra_values=[]), helm)
    assert values_of(before)["port"] == 2


async def test_the_usual_place_of_an_image_needs_no_mapping(tree: Path, helm: Helm) -> None:
    service = chart(images=[{"name": "shop/web", "build": {}}])
    rendered = await render("web", service, tree, replace(REQUEST, images=[WEB]), helm)
    assert f"10.0.0.1:5000/shop/web:src-1@{DIGEST}" in references(rendered.manifests)


async def test_a_mapping_is_followed(tree: Path, helm: Helm) -> None:
    template = tree / "web/chart/templates/deployment.yaml"
    template.write_text(
        template.read_text().replace(
            '"{{ .Values.image.repository }}:{{ .Values.image.tag }}"', "{{ .Values.web.img }}"
        )
    )
    service = chart(images=[{"name": "shop/web", "build": {}, "values": {"web.img": "reference"}}])
    rendered = await render("web", service, tree, replace(REQUEST, images=[WEB]), helm)
    assert WEB.reference in references(rendered.manifests)


async def test_an_image_that_is_used_nowhere_is_an_error(tree: Path, helm: Helm) -> None:
    (tree / "web/chart/values.yaml").write_text("image: {tag: latest}\n")
    service = chart(chart={"set": {"image": {"repository": "shop/web"}}}, images=[{"name": "shop/web", "build": {}}])
    with pytest.raises(InvalidInput, match="the image shop/web is used nowhere") as caught:
        await render("web", service, tree, replace(REQUEST, images=[WEB]), helm)
    assert "shop/web:latest" in caught.value.why
    assert "images[].values" in caught.value.hint


async def test_a_chart_that_does_not_render_is_told_in_helms_words(tree: Path, helm: Helm) -> None:
    write(tree / "web/chart/templates/broken.yaml", "a: 1\nb: {{ .Values.no.such.value }}\n")
    with pytest.raises(InvalidInput) as caught:
        await render("web", chart(), tree, REQUEST, helm)
    assert "web/templates/broken.yaml:2" in caught.value.why


async def test_a_values_file_that_is_not_there_names_those_that_are(tree: Path, helm: Helm) -> None:
    write(tree / "values/qa.yaml", "")
    with pytest.raises(InvalidInput, match=r"values/dev\.yaml does not exist") as caught:
        await render("web", chart(chart={"values": ["values/${SANDBOX_ENV}.yaml"]}), tree, REQUEST, helm)
    assert caught.value.why == "the environment is dev; there are qa.yaml"


async def test_values_that_are_not_yaml_name_file_and_line(tree: Path, helm: Helm) -> None:
    write(tree / "values/dev.yaml", "a: 1\nb: [\n")
    with pytest.raises(InvalidInput, match=r"values/dev\.yaml:\d"):
        await render("web", chart(chart={"values": ["values/dev.yaml"]}), tree, REQUEST, helm)


async def test_equal_inputs_give_equal_digests_and_others_do_not(tree: Path, helm: Helm) -> None:
    service = chart(images=[{"name": "shop/web", "build": {}}])
    write(
        tree / "web/chart/templates/random.yaml",
        "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: {{ randAlpha 9 | lower }}}\n",
    )
    request = replace(REQUEST, images=[WEB])
    digests = [(await render("web", service, tree, request, helm)).input_digest for _ in range(2)]
    assert digests[0] == digests[1]
    other_image = replace(WEB, digest="sha256:" + "cd" * 32)
    digests = [digests[0]]
    for changed in (replace(request, images=[other_image]), replace(request, set_values=["a=1"])):
        digests.append((await render("web", service, tree, changed, helm)).input_digest)
    write(tree / "web/chart/files/data.txt", "x")
    digests.append((await render("web", service, tree, request, helm)).input_digest)
    assert len(set(digests)) == 4


async def test_a_sub_chart_of_the_tree_is_part_of_the_digest(tree: Path, helm: Helm) -> None:
    write(tree / "common/Chart.yaml", "apiVersion: v2\nname: common\nversion: 0.1.0\n")
    template = write(tree / "common/templates/a.yaml", "apiVersion: v1\nkind: Secret\nmetadata: {name: common}\n")
    with (tree / "web/chart/Chart.yaml").open("a") as file:
        file.write("dependencies: [{name: common, version: 0.1.0, repository: 'file://../../common'}]\n")

    async def rendered(copy: str) -> Rendered:
        # Each `up` exports a tree of its own.
        shutil.copytree(tree, tree.parent / copy)
        return await render("web", chart(), tree.parent / copy, REQUEST, helm)

    first, second = await rendered("first"), await rendered("second")
    assert "Secret" in {item["kind"] for item in first.manifests}
    assert first.input_digest == second.input_digest
    template.write_text(template.read_text() + "type: Opaque\n")
    assert (await rendered("third")).input_digest != first.input_digest


@pytest.mark.parametrize("address", ["file://../../../outside", "file:///etc"])
async def test_a_sub_chart_outside_of_the_tree_is_refused(tree: Path, helm: Helm, address: str) -> None:
    write(tree.parent / "outside/Chart.yaml", "apiVersion: v2\nname: outside\nversion: 0.1.0\n")
    with (tree / "web/chart/Chart.yaml").open("a") as file:
        file.write(f"dependencies: [{{name: outside, version: 0.1.0, repository: '{address}'}}]\n")
    with pytest.raises(Refused, match="a sub-chart outside of the repository"):
        await render("web", chart(), tree, REQUEST, helm)


async def test_a_link_out_of_the_chart_is_refused(tree: Path, helm: Helm) -> None:
    (tree / "web/chart/files").mkdir()
    (tree / "web/chart/files/passwd").symlink_to("/etc/passwd")
    with pytest.raises(Refused, match="leads out of the repository"):
        await render("web", chart(), tree, REQUEST, helm)


def test_set_values_are_what_helm_makes_of_them(tree: Path) -> None:
    """One Helm run for all: each argument that is one assignment, under a key of its own."""
    texts = {f"k{number}": text for number, (text, _) in enumerate(TABLE) if len(_Scanner(text).assignments()) == 1}
    arguments = [word for key, text in texts.items() for word in ("--set", f"{key}.{text}")]
    argv = [str(find_tool("helm")), "template", "x", str(tree / "web/chart"), "--show-only", "templates/values.yaml"]
    done = subprocess.run([*argv, *arguments], capture_output=True, text=True, timeout=60, check=True)
    seen = json.loads(yaml.safe_load(done.stdout)["data"]["values"])
    assert len(texts) > 30
    assert {key: seen[key] for key in texts} == {key: parse_set(text) for key, text in texts.items()}


class TestKustomize:
    @pytest.fixture
    def tree(self, tmp_path: Path) -> Path:
        tree = tmp_path / "tree"
        write(tree / "k8s/base/kustomization.yaml", "resources: [deployment.yaml]\n")
        write(
            tree / "k8s/base/deployment.yaml",
            "apiVersion: apps/v1\nkind: Deployment\nmetadata: {name: web}\nspec: {template: {spec: {containers:"
            " [{name: web, image: 'shop/web:dev', env: [{name: HOST, value: 'http://${SANDBOX_HOST}'}]}]}}}\n",
        )
        write(
            tree / "k8s/dev/kustomization.yaml",
            "resources: [../base]\nnamespace: elsewhere\nreplicas: [{name: web, count: 2}]\n"
            "configMapGenerator: [{name: settings, literals: ['SHELL=echo $${HOME} ${USER}']}]\n",
        )
        return tree

    SERVICE = Service.model_validate(
        {"kustomize": {"path": "k8s/${SANDBOX_ENV}"}, "images": [{"name": "shop/web", "build": {}}]}, strict=False
    )

    async def test_renders_with_images_and_variables(self, tree: Path, helm: Helm) -> None:
        rendered = await render("web", self.SERVICE, tree, replace(REQUEST, images=[WEB]), helm)
        config, deployment = sorted(rendered.manifests, key=lambda item: str(item["kind"]))
        assert deployment["spec"]["replicas"] == 2
        container = deployment["spec"]["template"]["spec"]["containers"][0]
        assert container["image"] == WEB.reference
        assert container["env"][0]["value"] == "http://one.test"
        assert config["data"] == {"SHELL": "echo $${HOME} ${USER}"}
        assert deployment["metadata"]["namespace"] == "elsewhere"
        again = await render("web", self.SERVICE, tree, replace(REQUEST, images=[WEB]), helm)
        assert again.input_digest == rendered.input_digest

    async def test_its_own_words_without_our_paths(self, tree: Path, helm: Helm) -> None:
        write(tree / "k8s/dev/kustomization.yaml", "resources: [../base]\nunknownField: 1\n")
        with pytest.raises(InvalidInput, match="the kustomization k8s/dev does not render") as caught:
            await render("web", self.SERVICE, tree, REQUEST, helm)
        assert "unknownField" in caught.value.why
        assert str(tree) not in caught.value.why

    async def test_an_image_that_it_does_not_use(self, tree: Path, helm: Helm) -> None:
        other = replace(WEB, name="shop/other", repository="10.0.0.1:5000/shop/other")
        with pytest.raises(InvalidInput, match="the image shop/other is used nowhere"):
            await render("web", self.SERVICE, tree, replace(REQUEST, images=[other]), helm)

    async def test_even_unchecked_it_finds_no_git_no_network_and_no_home(
        self, tree: Path, helm: Helm, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """The second wall, with the check taken down."""
        monkeypatch.setattr("sandbox.render.kustomize.check", lambda *_: None)
        monkeypatch.setenv("MY_TOKEN", "canary")
        remote = tree.parent / "remote"
        write(remote / "kustomization.yaml", "configMapGenerator: [{name: stolen}]\n")
        await asyncio.to_thread(make_repository, remote, tree)
        write(tree / "k8s/dev/kustomization.yaml", f"resources: ['file://{remote}?ref=HEAD']\n")
        with pytest.raises(InvalidInput) as caught:
            await render("web", self.SERVICE, tree, REQUEST, helm)
        assert "git" in caught.value.why
        assert "not found" in caught.value.why or "no 'git' program" in caught.value.why
        write(tree / "k8s/dev/kustomization.yaml", "configMapGenerator: [{name: env, envs: [e]}]\n")
        write(tree / "k8s/dev/e", "MY_TOKEN\nHOME\n")
        rendered = await render("web", without_images(self.SERVICE), tree, REQUEST, helm)
        assert not rendered.manifests[0]["data"].get("MY_TOKEN")
        assert str(Path.home()) != rendered.manifests[0]["data"]["HOME"]


def make_repository(folder: Path, home: Path) -> None:
    commit = ["-c", "user.name=a", "-c", "user.email=b", "commit", "-qm", "x"]
    for command in (["init", "-q"], ["add", "."], commit):
        environment = os.environ | {"HOME": str(home)}
        subprocess.run(["git", "-C", str(folder), *command], check=True, timeout=30, env=environment)


def without_images(service: Service) -> Service:
    return service.model_copy(update={"images": ()})


async def test_manifests_are_rendered_as_they_are(tmp_path: Path, helm: Helm) -> None:
    write(
        tmp_path / "k8s/a.yaml",
        "apiVersion: v1\nkind: Pod\nmetadata: {name: a}\nspec: {containers: [{name: a, image: shop/web}]}\n",
    )
    service = Service.model_validate(
        {"manifests": {"paths": ["k8s"]}, "images": [{"name": "shop/web", "build": {}}]}, strict=False
    )
    rendered = await render("web", service, tmp_path, replace(REQUEST, images=[WEB]), helm)
    assert references(rendered.manifests) == {WEB.reference}
    assert rendered.chart is None
