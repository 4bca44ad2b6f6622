"""What is found in a tree without sandbox.yaml, and what `sandbox init` writes of it."""

# ruff: noqa: E501 - tables

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sandbox.model.errors import InvalidInput
from sandbox.project.config import Project, Service, ServiceEnvironment
from sandbox.project.detect import detect
from sandbox.project.init import render_initial
from sandbox.project.load import load_project

EXAMPLES = Path(__file__).parents[2] / "examples"


def chart(name: str, *, kind: str = "application", dependencies: str = "") -> str:
    return f"apiVersion: v2\nname: {name}\nversion: 1.0.0\ntype: {kind}\n{dependencies}"


def deployment(name: str, image: str) -> str:
    return (
        f"apiVersion: apps/v1\nkind: Deployment\nmetadata: {{name: {name}}}\n"
        f"spec: {{template: {{spec: {{containers: [{{name: main, image: '{image}'}}]}}}}}}\n"
    )


def service(name: str, port: int) -> str:
    return (
        f"apiVersion: v1\nkind: Service\nmetadata: {{name: {name}}}\nspec: {{ports: [{{name: http, port: {port}}}]}}\n"
    )


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    return tmp_path


def write(tree: Path, files: dict[str, str]) -> None:
    for name, text in files.items():
        (tree / name).parent.mkdir(parents=True, exist_ok=True)
        (tree / name).write_text(text)


def found(tree: Path, files: dict[str, str], hint: str = "shop") -> dict[str, Service]:
    """The services that are found; and `init` writes them so that they are read back as they are."""
    write(tree, files)
    project = detect(tree, hint)
    (tree / "sandbox.yaml").write_text(render_initial(project))
    assert load_project(tree, name_hint="other").project == project
    (tree / "sandbox.yaml").unlink()
    return dict(project.services)


def test_one_chart_with_its_image(tree: Path) -> None:
    services = found(
        tree,
        {
            "chart/Chart.yaml": chart("web"),
            "chart/values.yaml": "image: {repository: ghcr.io/acme/frontend, tag: latest}\nservice: {port: 8080}\n",
            "chart/templates/x.yaml": "{{ this is no YAML",
            "Containerfile": "FROM scratch\n",
        },
    )
    web = services["web"]
    assert list(services) == ["web"]
    assert web.paths == ("chart",)
    assert [(image.name, image.build and image.build.context) for image in web.images] == [
        ("ghcr.io/acme/frontend", ".")
    ]
    assert web.ports == {"http": 8080}


def test_several_charts_each_with_its_own_containerfile(tree: Path) -> None:
    files = {}
    for name in ("web", "orders"):
        files[f"{name}/chart/Chart.yaml"] = chart(name)
        files[f"{name}/chart/values.yaml"] = f"image: {{registry: ghcr.io, repository: acme/{name}}}\n"
        files[f"{name}/Dockerfile"] = "FROM scratch\n"
        files[f"{name}/chart/values/dev.yaml"] = files[f"{name}/chart/values/qa.yaml"] = ""
    files["Dockerfile"] = "FROM scratch\n"
    services = found(tree, files)
    for name in ("web", "orders"):
        chart_source = services[name].chart
        assert chart_source is not None
        assert chart_source.values == (f"{name}/chart/values/${{SANDBOX_ENV}}.yaml",)
        assert [(i.name, i.build and i.build.context) for i in services[name].images] == [
            (f"ghcr.io/acme/{name}", name)
        ]


def test_helm_charts_beside_helm_values(tree: Path) -> None:
    files = {f"helm-charts/{name}/Chart.yaml": chart(f"acme-{name}") for name in ("web", "orders", "mailer")}
    for path in ("web/dev", "web/qa", "orders/qa", "orders/prod"):
        files[f"helm-values/{path}-config.yaml"] = ""
    files["services/web/Dockerfile"] = ""
    files["helm-charts/web/values.yaml"] = "image: {repository: acme/web}\n"
    services = found(tree, files)
    assert list(services) == ["mailer", "orders", "web"]
    web, orders, mailer = services["web"].chart, services["orders"].chart, services["mailer"].chart
    assert web is not None
    assert orders is not None
    assert mailer is not None
    assert web.values == ("helm-values/web/${SANDBOX_ENV}-config.yaml",)
    # It has nothing for the default environment: what there is, is listed.
    assert orders.values == ()
    assert services["orders"].environments == {
        "prod": ServiceEnvironment(values=("helm-values/orders/prod-config.yaml",)),
        "qa": ServiceEnvironment(values=("helm-values/orders/qa-config.yaml",)),
    }
    assert mailer.values == ()
    build = services["web"].images[0].build
    assert build is not None
    assert build.context == "services/web"


@pytest.mark.parametrize(
    ("files", "pattern"),
    [
        (["chart/values-dev.yaml", "chart/values-qa.yaml"], "chart/values-${SANDBOX_ENV}.yaml"),
        (["chart/values.dev.yaml"], "chart/values.${SANDBOX_ENV}.yaml"),
        (["values/web/dev.yaml"], "values/web/${SANDBOX_ENV}.yaml"),
        (["values/dev.yaml"], "values/${SANDBOX_ENV}.yaml"),
        (["values-dev.yaml"], "values-${SANDBOX_ENV}.yaml"),
    ],
)
def test_where_values_per_environment_are(tree: Path, files: list[str], pattern: str) -> None:
    services = found(tree, {"chart/Chart.yaml": chart("web"), "chart/values.yaml": "", **dict.fromkeys(files, "")})
    source = services["web"].chart
    assert source is not None
    assert source.values == (pattern,)


def test_without_a_dev_environment_the_nearest_one_is_the_default(tree: Path) -> None:
    write(tree, {"chart/Chart.yaml": chart("web"), "chart/values/prod.yaml": "", "chart/values/qa.yaml": ""})
    assert detect(tree, "shop").defaults.env == "qa"


def test_library_charts_subcharts_and_local_dependencies_are_no_services(tree: Path) -> None:
    services = found(
        tree,
        {
            "charts/app/Chart.yaml": chart(
                "app", dependencies="dependencies: [{name: part, repository: 'file://../part'}]\n"
            ),
            "charts/app/charts/redis/Chart.yaml": chart("redis"),
            "charts/part/Chart.yaml": chart("part"),
            "charts/common/Chart.yaml": chart("common", kind="library"),
        },
    )
    assert list(services) == ["app"]


def test_other_peoples_folders_are_left_out(tree: Path) -> None:
    skipped = ["examples", "tests", "vendor", "node_modules", ".github", "web/testdata", "third_party"]
    files = {f"{folder}/x/Chart.yaml": chart("x") for folder in skipped}
    assert list(found(tree, {**files, "web/chart/Chart.yaml": chart("web")})) == ["web"]


def test_overlays_are_one_service_and_bases_none(tree: Path) -> None:
    services = found(
        tree,
        {
            "orders/deploy/base/kustomization.yaml": "resources: [d.yaml, s.yaml, ../component]\n",
            "orders/deploy/base/d.yaml": deployment("orders", "acme/orders:dev"),
            "orders/deploy/base/s.yaml": service("orders", 9000),
            "orders/deploy/component/kustomization.yaml": "kind: Component\n",
            "orders/deploy/overlays/dev/kustomization.yaml": "resources: [../../base]\n",
            "orders/deploy/overlays/staging/kustomization.yaml": "bases: [../../base]\n",
            "orders/Containerfile": "",
        },
    )
    assert list(services) == ["orders"]
    orders = services["orders"]
    assert orders.paths == ("orders/deploy/overlays/${SANDBOX_ENV}",)
    assert [(i.name, i.build and i.build.context) for i in orders.images] == [("acme/orders", "orders")]
    assert orders.ports == {"http": 9000}


def test_an_overlay_that_is_missing_for_the_default_environment(tree: Path) -> None:
    base = {"resources": "resources: [../../base]\n"}["resources"]
    services = found(
        tree,
        {
            "a/overlays/dev/kustomization.yaml": base,
            "a/base/kustomization.yaml": "",
            "b/overlays/qa/kustomization.yaml": base,
            "b/overlays/prod/kustomization.yaml": base,
            "b/base/kustomization.yaml": "",
        },
    )
    assert services["a"].paths == ("a/overlays/${SANDBOX_ENV}",)
    assert services["b"].paths == ("b/overlays/qa",)
    assert set(services["b"].environments) == {"qa", "prod"}


def test_a_base_that_nobody_refers_to_is_a_service(tree: Path) -> None:
    assert found(tree, {"k8s/kustomization.yaml": "resources: []\n"})["shop"].paths == ("k8s",)


def test_folders_of_manifests(tree: Path) -> None:
    services = found(
        tree,
        {
            "mailer/k8s/deployment.yaml": deployment("mailer", "registry:5000/acme/mailer@sha256:" + "0" * 64),
            "mailer/k8s/more/service.yaml": service("mailer", 25),
            "mailer/Dockerfile": "",
            "k8s/cart/all.yml": deployment("cart", "cart:1") + "---\n" + service("cart", 80),
            "k8s/pay/all.yml": deployment("pay", "elsewhere:1"),
            "pay/Dockerfile": "",
            "config/settings.yaml": "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: no-workload}\n",
            "skaffold.yaml": "apiVersion: skaffold/v4\nkind: Config\n",
            "broken/x.yaml": "kind: Deployment\n  apiVersion: [\n",
        },
    )
    assert {name: item.paths for name, item in services.items()} == {
        "mailer": ("mailer/k8s",),
        "cart": ("k8s/cart",),
        "pay": ("k8s/pay",),
    }
    assert [image.name for image in services["mailer"].images] == ["registry:5000/acme/mailer"]
    assert services["mailer"].ports == {"http": 25}
    # Nothing says that the image `elsewhere` is what pay/Dockerfile builds.
    assert services["pay"].images == ()


def test_a_folder_with_manifests_of_its_own_is_one_service_with_all_below(tree: Path) -> None:
    services = found(
        tree,
        {
            "k8s/namespace.yaml": "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: shared}\n",
            "k8s/web/d.yaml": deployment("web", "web:1"),
            "k8s/orders/d.yaml": deployment("orders", "orders:1"),
        },
    )
    assert {name: item.paths for name, item in services.items()} == {"shop": ("k8s",)}


def test_manifests_in_the_root_are_named_one_by_one(tree: Path) -> None:
    services = found(
        tree, {"app.yaml": deployment("x", "x:1"), "ci.yaml": "steps: []\n", "web/k8s/d.yaml": deployment("web", "w")}
    )
    assert {name: item.paths for name, item in services.items()} == {"shop": ("app.yaml",), "web": ("web/k8s",)}


def test_manifests_per_environment(tree: Path) -> None:
    services = found(
        tree, {"k8s/dev/d.yaml": deployment("x", "x:1"), "k8s/prod/d.yaml": deployment("x", "x:1"), "Dockerfile": ""}
    )
    assert services["shop"].paths == ("k8s/${SANDBOX_ENV}",)


def test_two_services_of_one_name_are_told_apart_by_their_paths(tree: Path) -> None:
    services = found(tree, {"a/x/chart/Chart.yaml": chart("api"), "b/x/chart/Chart.yaml": chart("api")})
    assert {item.paths for item in services.values()} == {("a/x/chart",), ("b/x/chart",)}
    assert len(services) == 2


@pytest.mark.parametrize(
    "files",
    [
        {},
        {"README.md": "x"},
        {"examples/chart/Chart.yaml": chart("x")},
        {"config.yaml": "a: 1\n"},
        {"lib/Chart.yaml": chart("lib", kind="library")},
    ],
)
def test_nothing_to_deploy_is_said(tree: Path, files: dict[str, str]) -> None:
    write(tree, files)
    with pytest.raises(InvalidInput) as raised:
        load_project(tree, name_hint="x")
    assert "nothing to deploy is found" in raised.value.what
    assert "Chart.yaml" in raised.value.why


def test_hostile_contents_do_no_harm(tree: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    outside = tmp_path_factory.mktemp("outside")
    write(outside, {"chart/Chart.yaml": chart("secret")})
    (tree / "link").symlink_to(outside)
    (tree / "loop").symlink_to(tree)
    bomb = "a: &a [x, x]\nb: &b [*a, *a]\n" + "".join(f"c{n}: &c{n} [{', '.join(['*b'] * 9)}]\n" for n in range(3))
    services = found(
        tree,
        {
            "web/chart/Chart.yaml": chart("web"),
            "web/chart/values.yaml": bomb,
            "bad/Chart.yaml": "name: [not, a, name]\n",
            "deep/k8s/d.yaml": "[" * 3000,
            "odd/Chart.yaml": chart("Odd Name!"),
            "odd/values.yaml": "image: {repository: 'not a name'}\nservice: {port: many}\n",
            "odd/Dockerfile": "",
        },
    )
    assert "web" in services
    assert "secret" not in services
    assert all(item.paths[0].split("/")[0] in ("web", "bad", "odd") for item in services.values())


def test_too_many_folders_are_an_error(tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sandbox.project.detect._MOST_FOLDERS", 5)
    write(tree, {f"d{n}/x": "" for n in range(10)})
    with pytest.raises(InvalidInput, match="too many to look through"):
        detect(tree, "x")


@pytest.mark.parametrize(
    ("hint", "name"), [("shop", "shop"), ("My Shop", "My-Shop"), ("ünï", "n"), ("...", "x-"), ("", "project")]
)
def test_the_projects_name_is_the_hint_made_fit(tree: Path, hint: str, name: str) -> None:
    write(tree, {"chart/Chart.yaml": chart("web")})
    assert detect(tree, hint).project.startswith(name)


def test_loading_says_what_was_found(tree: Path) -> None:
    write(tree, {"chart/Chart.yaml": chart("web")})
    loaded = load_project(tree, name_hint="shop")
    assert (loaded.source, loaded.path) == ("detected", None)
    assert loaded.notes == ["no sandbox.yaml; found web (chart chart); `sandbox init` writes it down"]


def test_the_example_is_found_as_its_own_file_declares_it() -> None:
    declared = load_project(EXAMPLES / "shop", name_hint="shop").project
    detected = detect(EXAMPLES / "shop", "shop")
    for name in ("web", "orders", "catalogue"):
        assert detected.services[name].kind == declared.services[name].kind
        assert detected.services[name].paths == declared.services[name].paths
        assert [image.name for image in detected.services[name].images] == [
            image.name for image in declared.services[name].images
        ]


FULL = {
    "apiVersion": "sandbox.dev/v1",
    "project": "shop",
    "requires": {"helm": ">=3.14"},
    "defaults": {"env": "qa", "quota": "medium", "ttl": "2d", "base": "staging"},
    "images": {"registry": "ghcr.io/acme", "wait": "5m"},
    "allowClusterScoped": ["ClusterRole.rbac.authorization.k8s.io"],
    "services": {
        "a": {"source": {"repo": "../a.git"}, "manifests": {"paths": ["k8s"]}, "needs": ["b", {"service": "c", "as": "shared"}]},
        "b": {
            "source": {"repo": "../b.git", "ref": "v1"},
            "chart": {"path": "chart", "set": {"a": {"b": "no"}, "port": "8080", "on": True, "empty": None, "x": ["#", ": "]}},
            "ports": {"http": 80},
            "smoke": {"http": {"contains": "yes"}},
        },
    },
    "environments": {"staging": {"namespace": "shop-staging"}},
}  # fmt: skip


def test_all_that_a_project_can_hold_is_written_and_read_back(tree: Path) -> None:
    project = Project.model_validate(FULL, strict=False)
    text = render_initial(project)
    (tree / "sandbox.yaml").write_text(text)
    assert load_project(tree, name_hint="x").project == project
    assert "# Used where an option is not given" in text


names = st.from_regex(r"\A[a-z0-9]([-a-z0-9]{0,8}[a-z0-9])?\Z")
words = st.sampled_from(
    ["no", "y", "on", "null", "~", "", "0644", "1_000", "1e3", ".inf", "2024-01-31", "12:30", "#", "a: b"]
)
leaves = (
    st.none() | st.booleans() | st.integers(-9999, 9999) | words
    | st.text(st.characters(codec="utf-8", exclude_categories=["Cs", "Cc"]), max_size=10)
)  # fmt: skip


@given(st.dictionaries(names, st.dictionaries(names, leaves, max_size=3), min_size=1, max_size=3))
def test_whatever_the_values_are_they_are_read_back(services: dict[str, dict[str, object]]) -> None:
    from sandbox.project.validation import validate
    from sandbox.project.yamlfile import parse_yaml

    project = Project.model_validate(
        {
            "apiVersion": "sandbox.dev/v1",
            "project": "x",
            "services": {name: {"chart": {"path": "c", "set": values}} for name, values in services.items()},
        },
        strict=False,
    )
    assert validate(Project, parse_yaml(render_initial(project), shown_as="x")) == project
