"""sandbox.yaml: what it may say, and what is said when it is wrong."""

# ruff: noqa: E501 - tables of messages

from __future__ import annotations

from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from sandbox.model.errors import InvalidInput
from sandbox.project.config import Project, merge
from sandbox.project.load import LoadedProject, load_project

FULL = """\
apiVersion: sandbox.dev/v1
project: shop
requires: {sandbox: ">=0.1", helm: ">=3.14", kubernetes: ">=1.28"}
defaults: {env: dev, quota: small, ttl: 8h, base: qa}
images: {registry: ghcr.io/acme/shop, pullSecret: regcred, builder: auto, wait: 10m}
allowClusterScoped: [ClusterRole.rbac.authorization.k8s.io]
services:
  web:
    chart:
      path: web/chart
      release: web
      values: ["web/values/${SANDBOX_ENV}.yaml"]
      set: {ingress: {host: "${SANDBOX_HOST}"}, drop: null, debug: no}
    environments:
      qa: {values: [web/values/qa.yaml], set: {ingress: {tls: true}}}
    images:
    - name: shop/web
      build: {context: web, containerfile: Containerfile, args: {A: b}, target: x, test: [python3, -m, unittest]}
      values: {image.repository: repository, image.tag: tag}
    needs: [orders, {service: mailer, as: mock}, {service: far-away, as: shared}]
    ports: {http: 8080, metrics: 9090}
    smoke: {http: {path: /healthz, port: http, status: 200, contains: "ok"}}
    hooks: {beforeDeploy: [{name: seed, command: [seed, --all], image: shop/web}], afterDeploy: []}
  orders:
    source: {repo: "../orders.git", ref: main}
    kustomize: {path: k8s/overlays/dev}
    environments: {qa: {path: k8s/overlays/qa}}
    images: [{name: shop/orders, repository: ghcr.io/acme/orders}]
  mailer:
    manifests: {paths: [mailer]}
    environments: {qa: {paths: [mailer/qa.yaml]}}
    mock: {image: "docker.io/axllent/mailpit:v1.20", env: {MP_MAX: "5"}}
    smoke: {command: [check], image: acme/check}
environments:
  qa: {context: prod-eu, namespace: shop-qa, values: {web: [web/values/qa.yaml]}}
fixtures:
  stores:
    ledger:
      kind: postgresql
      workload: ledger-db
      container: main
      user: ledger
      passwordFrom: {secretKeyRef: {name: ledger, key: password}}
      databases: [ledger]
    sessions: {skip: true}
  mask: {ledger.accounts.holder: name, ledger.public.accounts.email: email}
"""


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    for name in ("web/chart/Chart.yaml", "web/values/dev.yaml", "web/values/qa.yaml", "web/Containerfile",
                 "mailer/a.yaml", "mailer/qa.yaml", "k8s/kustomization.yaml"):  # fmt: skip
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("")
    return tmp_path


def load(tree: Path, text: str, **options: Any) -> LoadedProject:
    (tree / "sandbox.yaml").write_text(text)
    return load_project(tree, name_hint="hint", **options)


def error_of(tree: Path, text: str, **options: Any) -> InvalidInput:
    with pytest.raises(InvalidInput) as raised:
        load(tree, text, **options)
    return raised.value


def with_service(lines: str) -> str:
    """A project with one more service, whose text begins in line 6; in line 4 is `services.web`."""
    body = "\n".join(f"    {line}" for line in lines.splitlines())
    return (
        f"apiVersion: sandbox.dev/v1\nproject: shop\nservices:\n  web: {{chart: {{path: web/chart}}}}\n  x:\n{body}\n"
    )


def test_everything_that_it_may_say(tree: Path) -> None:
    loaded = load(tree, FULL)
    project = loaded.project
    assert (loaded.source, loaded.path) == ("file", tree / "sandbox.yaml")
    assert (project.project, project.defaults.base, project.images.pull_secret) == ("shop", "qa", "regcred")
    web = project.services["web"]
    assert [need.as_ for need in web.needs] == ["sandbox", "mock", "shared"]
    assert web.chart is not None
    assert web.chart.set == {"ingress": {"host": "${SANDBOX_HOST}"}, "drop": None, "debug": False}
    assert list(web.ports) == ["http", "metrics"]
    assert [service.kind for service in project.services.values()] == ["chart", "kustomize", "manifests"]
    assert project.environment_names() == {"qa"}
    assert loaded.notes == []


def test_a_service_as_an_environment_has_it(tree: Path) -> None:
    project = load(tree, FULL).project
    chart = project.service_in("web", "qa").chart
    assert chart is not None
    assert chart.values == ("web/values/${SANDBOX_ENV}.yaml", "web/values/qa.yaml", "web/values/qa.yaml")
    assert chart.set["ingress"] == {"host": "${SANDBOX_HOST}", "tls": True}
    assert project.service_in("orders", "qa").paths == ("k8s/overlays/qa",)
    assert project.service_in("orders", "dev").paths == ("k8s/overlays/dev",)
    assert project.service_in("mailer", "qa").paths == ("mailer/qa.yaml",)
    assert project.service_in("web", "nowhere").chart == project.services["web"].chart


def test_merging_values() -> None:
    assert merge({"a": {"b": 1, "c": 2}, "d": [1]}, {"a": {"b": None}, "d": [2]}) == {
        "a": {"b": None, "c": 2},
        "d": [2],
    }


# (the service's lines, what is said, what more must be in why or hint)
SERVICE_ERRORS = [
    ("chart: {pth: web/chart}", "sandbox.yaml:6: services.x.chart.path: is missing", "services.x.chart.pth: is not a known key; did you mean 'path'?"),
    ("chart:\n  path: web/chart\n  vaules: [a]", "sandbox.yaml:8: services.x.chart.vaules: is not a known key; did you mean 'values'?", "known are path, release, values, set"),
    ("chart: {path: web/chart}\nimagse: []", "sandbox.yaml:7: services.x.imagse: is not a known key; did you mean 'images'?", ""),
    ("chart: {path: 12}", "sandbox.yaml:6: services.x.chart.path: must be text, not the number 12", "quotes"),
    ("chart: web/chart", "sandbox.yaml:6: services.x.chart: must be a mapping, not text", ""),
    ("chart: {path: web/chart, values: a.yaml}", "services.x.chart.values: must be a list, not text", "dash"),
    ("chart: {path: web/chart, values: [1]}", "services.x.chart.values[0]: must be text", ""),
    ("chart:", "sandbox.yaml:6: services.x.chart: is empty", "remove the key"),
    ("ports: {http: 80}", "sandbox.yaml:5: services.x: needs exactly one of chart, kustomize and manifests, and has none", ""),
    ("chart: {path: web/chart}\nkustomize: {path: k8s}", "sandbox.yaml:5: services.x: needs exactly one of chart, kustomize and manifests, and has chart and kustomize", ""),
    ("chart: {path: ../web}", "services.x.chart.path: '../web' leaves the repository", ""),
    ("chart: {path: a/../../web}", "services.x.chart.path: 'a/../../web' leaves the repository", ""),
    ("chart: {path: /etc}", "services.x.chart.path: '/etc' must be relative", ""),
    ("chart: {path: ~/x}", "services.x.chart.path: '~/x' must be relative", ""),
    ("chart: {path: 'web\\chart'}", "folders are separated by /", ""),
    ("chart: {path: web/chrat, release: x}", "services.x.chart.path: web/chrat does not exist; did you mean 'chart'?", "relative to the root"),
    ("chart: {path: mailer, release: x}", "services.x.chart.path: mailer is not a chart: it has no Chart.yaml", ""),
    ("kustomize: {path: mailer}", "services.x.kustomize.path: mailer has no kustomization.yaml", ""),
    ("manifests: {paths: []}", "services.x.manifests.paths: must not be empty", ""),
    ("manifests: {paths: [none]}", "services.x.manifests.paths[0]: none does not exist", ""),
    ("chart: {path: web/chart, values: [web]}", "services.x.chart.values[0]: web is not a file", ""),
    ("manifests: {paths: [mailer]}\nenvironments: {qa: {values: [web/values/qa.yaml]}}", "services.x.environments.qa: only a chart takes values", ""),
    ("manifests: {paths: [mailer]}\nenvironments: {qa: {path: k8s}}", "only a kustomization has a path", ""),
    ("kustomize: {path: k8s}\nenvironments: {qa: {paths: [k8s]}}", "only manifests have paths", ""),
    ("manifests: {paths: [mailer]}\nports: {http: 99999}", "services.x.ports.http: input should be less than or equal to 65535", ""),
    ("manifests: {paths: [mailer]}\nports: {http: '80'}", "services.x.ports.http: must be a whole number, not text", ""),
    ("manifests: {paths: [mailer]}\nports: {Main: 80}", "services.x.ports.Main: 'Main' is not a port name", ""),
    ("manifests: {paths: [mailer]}\nneeds: [web, web]", "services.x.needs[1]: 'web' is needed twice", ""),
    ("manifests: {paths: [mailer]}\nneeds: [{service: web, as: moc}]", "services.x.needs[0].as: must be 'sandbox', 'shared', 'mock' or 'skip', not 'moc'", ""),
    ("manifests: {paths: [mailer]}\nneeds: [{service: web, as: mock}]", "services.x.needs[0]: web has no mock", "services.web.mock"),
    ("manifests: {paths: [mailer]}\nneeds: [x]", "the needs go in a circle: x needs x", ""),
    ("manifests: {paths: [mailer]}\nsmoke: {http: {path: /}}", "services.x.smoke.http: nothing says at which port", ""),
    ("manifests: {paths: [mailer]}\nports: {http: 80}\nsmoke: {http: {port: htpp}}", "there is no port 'htpp'; did you mean 'http'?", ""),
    ("manifests: {paths: [mailer]}\nsmoke: {http: {port: 0}}", "services.x.smoke.http.port: ", ""),
    ("manifests: {paths: [mailer]}\nsmoke: {http: {path: healthz, port: 80}}", "services.x.smoke.http.path: ", ""),
    ("manifests: {paths: [mailer]}\nsmoke: {}", "services.x.smoke: needs exactly one of http and command", ""),
    ("manifests: {paths: [mailer]}\nsmoke: {command: [x]}", "services.x.smoke: has a command, and nothing says in which image", ""),
    ("manifests: {paths: [mailer]}\nimages: [{name: a}]", "services.x.images[0]: needs exactly one of build and repository", ""),
    ("manifests: {paths: [mailer]}\nimages: [{name: 'a:1', repository: b}]", "services.x.images[0].name: 'a:1' is not an image name without tag", ""),
    ("manifests: {paths: [mailer]}\nimages: [{name: a, repository: b}, {name: a, repository: c}]", "services.x.images[1].name: 'a' is given twice", ""),
    ("manifests: {paths: [mailer]}\nimages: [{name: a, repository: b, values: {i: tag}}]", "only a chart takes values", ""),
    ("manifests: {paths: [mailer]}\nimages: [{name: a, build: {context: none}}]", "services.x.images[0].build.context: none does not exist", ""),
    ("manifests: {paths: [mailer]}\nimages: [{name: a, build: {context: web, containerfile: Nope}}]", "containerfile: web/Nope does not exist", ""),
    ("manifests: {paths: [mailer]}\nimages: [{name: a, build: {args: {A: 1}}}]", "services.x.images[0].build.args.A: must be text, not the number 1", "quotes"),
    ("manifests: {paths: [mailer]}\nhooks: {beforeDeploy: [{name: a, command: [], image: b}]}", "services.x.hooks.beforeDeploy[0].command: must not be empty", ""),
    ("manifests: {paths: [mailer]}\nmock: {image: a, manifests: {paths: [mailer]}}", "services.x.mock: needs exactly one of image and manifests", ""),
    ("manifests: {paths: [mailer]}\nhooks: {afterDeploy: [{name: a, command: ['${SANDBOX_NAMES}'], image: b}]}", "services.x.hooks.afterDeploy[0].command[0]: ${SANDBOX_NAMES} does not exist; did you mean", "SANDBOX_HOST"),
    ("chart: {path: web/chart, release: web}", "services.x.chart.release: the release 'web' is that of the service web too", ""),
    ("chart: {path: web/chart, release: Web}", "services.x.chart.release: 'Web' is not a Helm release name", ""),
    ("manifests: {paths: [mailer]}\nimages: [{name: a, build: {context: web}, extra: 1}]", "services.x.images[0].extra: is not a known key", "known are name, build, repository, values"),
]  # fmt: skip


@pytest.mark.parametrize(("lines", "what", "more"), SERVICE_ERRORS, ids=[what[:60] for _, what, _ in SERVICE_ERRORS])
def test_errors_name_file_line_and_key(tree: Path, lines: str, what: str, more: str) -> None:
    error = error_of(tree, with_service(lines))
    assert what in error.what
    assert error.what.startswith("sandbox.yaml:")
    assert more in f"{error.why} {error.hint}"


PROJECT_ERRORS = [
    ("", "sandbox.yaml:1: is empty"),
    ("- a\n", "sandbox.yaml:1: must be a mapping"),
    ("apiVersion: sandbox.dev/v2\nproject: x\nservices: {a: {chart: {path: web/chart}}}\n", "sandbox.yaml:1: apiVersion: must be 'sandbox.dev/v1', not 'sandbox.dev/v2'"),
    ("apiVersion: sandbox.dev/v1\nservices: {a: {chart: {path: web/chart}}}\n", "sandbox.yaml:1: project: is missing"),
    ("apiVersion: sandbox.dev/v1\nproject: x\nservices: {}\n", "sandbox.yaml:3: services: must not be empty"),
    ("apiVersion: sandbox.dev/v1\nproject: x\nservices:\n  Web_1: {chart: {path: web/chart}}\n", "sandbox.yaml:4: services.Web_1: 'Web_1' is not a name of lower-case letters"),
    ("apiVersion: sandbox.dev/v1\nproject: x\nservices:\n  a: {chart: {path: web/chart}}\n  a: {chart: {path: web/chart}}\n", "sandbox.yaml:5: services.a: is given twice"),
    ("apiVersion: sandbox.dev/v1\nproject: x\ndefaults: {ttl: 8 hours}\nservices: {a: {chart: {path: web/chart}}}\n", "sandbox.yaml:3: defaults.ttl: '8 hours' is not a duration; write it as 30m"),
    ("apiVersion: sandbox.dev/v1\nproject: x\nrequires: {helm: 'newest'}\nservices: {a: {chart: {path: web/chart}}}\n", "sandbox.yaml:3: requires.helm: Invalid specifier"),
    ("apiVersion: sandbox.dev/v1\nproject: x\nimages: {builder: kaniko}\nservices: {a: {chart: {path: web/chart}}}\n", "sandbox.yaml:3: images.builder: must be 'auto', 'docker'"),
    ("apiVersion: sandbox.dev/v1\nproject: x\nservices: {a: {chart: {path: web/chart}}}\nenvironments: {qa: {values: {b: []}}}\n", "sandbox.yaml:4: environments.qa.values.b: there is no service 'b'"),
    ("apiVersion: sandbox.dev/v1\nproject: x\nservices: {a: {chart: {path: web/chart}}}\nenvironments: {qa: {values: {a: [none.yaml]}}}\n", "sandbox.yaml:4: environments.qa.values.a[0]: none.yaml does not exist"),
    ("apiVersion: sandbox.dev/v1\nproject: x\nservices: {a: {chart: {path: web/chart}}\n", "sandbox.yaml:4:1: is not valid YAML"),
    ("apiVersion: sandbox.dev/v1\nproject: x\nservices: {" + "a" * 60 + ": {chart: {path: web/chart}}}\n", "is too long for a Helm release"),
]  # fmt: skip


@pytest.mark.parametrize(("text", "what"), PROJECT_ERRORS, ids=[what[:60] for _, what in PROJECT_ERRORS])
def test_errors_of_the_whole_file(tree: Path, text: str, what: str) -> None:
    assert what in error_of(tree, text).what


def test_all_problems_are_told_at_once(tree: Path) -> None:
    error = error_of(tree, with_service("chart: {path: none}\nneeds: [{service: web, as: mock}]"))
    assert "services.x.chart.path" in error.what
    assert "also sandbox.yaml:7: services.x.needs[0]: web has no mock" in error.why


def test_a_circle_of_needs_is_told_in_its_order(tree: Path) -> None:
    text = "apiVersion: sandbox.dev/v1\nproject: x\nservices:\n" + "".join(
        f"  {name}:\n    manifests: {{paths: [mailer]}}\n    needs: [{need}]\n"
        for name, need in {"a": "b", "b": "c", "c": "a", "d": "a"}.items()
    )
    error = error_of(tree, text)
    circle = error.what.partition("the needs go in a circle: ")[2].split(" needs ")
    assert circle[0] == circle[-1]
    assert set(circle) == {"a", "b", "c"}
    assert all((one, other) in {("a", "b"), ("b", "c"), ("c", "a")} for one, other in pairwise(circle))


def test_a_circle_that_a_mock_or_a_shared_service_breaks_is_none(tree: Path) -> None:
    text = (
        "apiVersion: sandbox.dev/v1\nproject: x\nservices:\n"
        "  a: {manifests: {paths: [mailer]}, needs: [b], mock: {image: i}}\n"
        "  b: {manifests: {paths: [mailer]}, needs: [{service: a, as: mock}]}\n"
    )
    assert load(tree, text).project.services


def test_a_need_that_is_not_declared(tree: Path) -> None:
    text = with_service("manifests: {paths: [mailer]}\nneeds: [wbe, {service: other, as: shared}]")
    assert load(tree, text).notes == ["x needs wbe, which is not declared here; did you mean 'web'?"]
    error = error_of(tree, text, allow_unknown_needs=False)
    assert "sandbox.yaml:7: services.x.needs[0]: there is no service 'wbe'; did you mean 'web'?" in error.what
    assert "as: shared" in error.hint


def test_paths_of_another_repository_are_not_looked_for(tree: Path) -> None:
    assert load(tree, with_service("source: {repo: 'https://git.example/x.git'}\nchart: {path: its/chart}")).project


def test_links_out_of_the_tree_are_refused(tree: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    outside = tmp_path_factory.mktemp("outside")
    (outside / "Chart.yaml").write_text("")
    (tree / "linked").symlink_to(outside)
    assert "leads out of the repository" in error_of(tree, with_service("chart: {path: linked, release: x}")).what
    (tree / "sandbox.yaml").rename(outside / "sandbox.yaml")
    (tree / "sandbox.yaml").symlink_to(outside / "sandbox.yaml")
    with pytest.raises(InvalidInput, match="symbolic link out of the repository"):
        load_project(tree, name_hint="x")


def test_both_names_of_the_file_are_too_many(tree: Path) -> None:
    (tree / "sandbox.yml").write_text(FULL)
    assert load_project(tree, name_hint="x").path == tree / "sandbox.yml"
    assert "there are both" in error_of(tree, FULL).what


def test_nothing_changes_afterwards(tree: Path) -> None:
    project: Project = load(tree, FULL).project
    with pytest.raises(ValueError, match="frozen"):
        project.services["web"].ports = {}  # type: ignore[misc]
