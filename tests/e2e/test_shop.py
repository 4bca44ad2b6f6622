"""The example shop, when its deployments fail: captured, rolled back, and brought back with what was in its stores."""

from __future__ import annotations

import re
import subprocess
import sys
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from html import unescape
from pathlib import Path
from typing import Any

import pytest
import yaml

from sandbox.cluster.providers import ClusterInfo, embedded_bin_dir
from sandbox.model import labels
from tests.conftest import kubectl
from tests.e2e.bounded import until
from tests.e2e.datastores import base_image
from tests.e2e.projects import Ended, Manifest, Namespace, Tool

ENV = "integration"
_MAKE = Path(__file__).parents[2] / "examples" / "shop" / "make-repositories"
_FILES = {
    "orders/values/integration.yaml": "demoOrders: false\n",
    "web/values/integration.yaml": "environment: integration\n",
    "catalogue/deploy/overlays/integration/kustomization.yaml": (
        "apiVersion: kustomize.config.k8s.io/v1beta1\nkind: Kustomization\nresources: [../../base]\n"
    ),
}
# Branch of the shop → what is wrong with it, in the words of who noticed. Each fails in `orders`.
BROKEN = {
    "crash": "not set: PAYMENT_URL",
    "migration": 'column "customer_mail" does not exist',
    # Of an order that was refunded, and of a cart that is there.
    "smoke": "GET /api/summary answered 500, not 200",
    "smoke-redis": "GET /api/summary answered 503, not 200",
}
_ROWS = """
INSERT INTO orders (customer, status, currency, total_cents) VALUES
  ('Ada', 'placed', 'EUR', 4200), ('Grace', 'refunded', 'EUR', 1990), ('Edsger', 'placed', 'EUR', 900);
INSERT INTO order_lines VALUES (1, 'enamel-mug', 'Enamel mug', 2, 2100), (2, 'tea-towel', 'Tea towel', 1, 1990);
"""
_CART = ("HSET", "cart:visitor-0001", "enamel-mug", "2")
_ORDERS = (
    "SELECT md5(string_agg(row(o.id, customer, status, total_cents, placed_at, sku)::text, '|' ORDER BY o.id))"
    " || ' ' || count(*) FROM orders o LEFT JOIN order_lines ON order_id = o.id"
)


class Place:
    """A namespace in which the shop runs."""

    def __init__(self, space: Namespace) -> None:
        self.space = space

    def within(self, workload: str, *command: str, stdin: str | None = None) -> str:
        """What a command in a pod of a workload says."""
        where = ("--namespace", self.space.name, "exec", "-i", workload, "--")
        return kubectl(self.space.cluster, *where, *command, stdin=stdin).strip()

    def fill(self) -> None:
        """Orders, of which one was refunded, and a cart."""
        psql = ("psql", "-q", "-U", "postgres", "-d", "shop", "-v", "ON_ERROR_STOP=1")
        self.within("statefulset/postgres", *psql, stdin=_ROWS)
        self.within("deployment/redis", "redis-cli", *_CART)

    def rows(self) -> str:
        return self.within("statefulset/postgres", "psql", "-U", "postgres", "-d", "shop", "-At", "-c", _ORDERS)

    def keys(self) -> str:
        return self.within("deployment/redis", "redis-cli", "HGETALL", _CART[1])

    def page(self) -> tuple[str, ...]:
        """What the shop shows people and programs."""
        ask = (
            "import http.client as h, sys\n"
            "for path in sys.argv[1:]:\n"
            "    c = h.HTTPConnection('127.0.0.1', 8080, timeout=30); c.request('GET', path); r = c.getresponse()\n"
            "    print(r.status, r.read().decode().replace(chr(10), ' '))\n"
        )
        paths = ("/", "/api/overview", "/api/cart?session=visitor-0001")
        return tuple(self.within("deployment/web", "python3", "-c", ask, *paths).splitlines())

    def state(self) -> tuple[object, ...]:
        """All that people would miss."""
        return self.page(), self.rows(), self.keys()


@dataclass(frozen=True)
class Failed:
    """A branch whose deployment failed, and its capture."""

    ended: Ended
    capture: str


class Shop(Place):
    """The shop in an environment, with rows and keys in its stores; its repository."""

    def __init__(self, cluster: ClusterInfo, tool: Tool, folder: Path) -> None:
        super().__init__(Namespace(cluster, f"env-{uuid.uuid4().hex[:8]}"))
        self.tool = tool.with_environment(
            SANDBOX_CAPTURE_STORE=str(folder / "captures"), SANDBOX_BUILD_ARG_BASE_IMAGE=base_image(cluster)
        )
        self.folder = folder / "shop"
        subprocess.run([sys.executable, str(_MAKE), str(folder)], check=True, capture_output=True, timeout=120)
        for branch in ("main", *(f"broken/{name}" for name in BROKEN)):
            self._declare_environment(branch)
        self._failed: dict[str, Failed] = {}
        self.good = ""
        self.was: tuple[object, ...] = ()

    def _declare_environment(self, branch: str) -> None:
        self.git("switch", "--quiet", branch)
        for path, text in _FILES.items():
            (self.folder / path).parent.mkdir(parents=True, exist_ok=True)
            (self.folder / path).write_text(text)
        with (self.folder / "sandbox.yaml").open("a") as file:
            file.write(f"  {ENV}:\n    namespace: {self.space.name}\n")
        self.git("add", "--all")
        self.git("commit", "--quiet", "--message", "Integrate")
        self.git("switch", "--quiet", "main")

    def git(self, *arguments: str) -> None:
        subprocess.run(["git", *arguments], cwd=self.folder, check=True, capture_output=True, timeout=30)

    def run(self, *arguments: str) -> Ended:
        # Images are built too.
        return self.tool.run(*arguments, cwd=self.folder, timeout=480)

    def deploy(self, ref: str, *arguments: str) -> Ended:
        return self.run("deploy", ENV, "--ref", ref, "--timeout", "120s", "-o", "json", *arguments)

    def capture(self, namespace: str) -> str:
        return self.run("capture", "create", "-n", namespace, "-o", "name").ok().out.strip()

    def failed(self, name: str) -> Failed:
        """A broken branch, deployed once."""
        if name not in self._failed:
            ended = self.deploy(f"broken/{name}", "--only", "orders")
            assert ended.code == 1, ended.err
            self._failed[name] = Failed(ended, ended.data["capture"]["id"])
        return self._failed[name]

    def images_of_orders(self, capture: str) -> set[str]:
        """Of its API, as the pods of a capture name them."""
        services = self.run("capture", "show", capture, "-o", "json").ok().data["services"]
        [images] = [service["images"] for service in services if service["name"] == "orders"]
        return {image["named"] for image in images if image["container"] == "orders"}

    def said_at_once(self, capture: str, words: str) -> None:
        """Page, text and difference of a capture tell first what was wrong."""
        shown = self.run("capture", "show", capture).ok().out
        assert words in "\n".join(shown.splitlines()[:5]), shown
        page = self.folder.parent / f"{capture}.html"
        self.run("capture", "show", capture, "--html", str(page)).ok()
        assert words in unescape(page.read_text().partition("<nav>")[0])


@pytest.fixture(scope="module")
def shop(cluster: ClusterInfo, tool: Tool, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shop]:
    made = Shop(cluster, tool, tmp_path_factory.mktemp("shop"))
    made.deploy("main").ok()
    made.fill()
    made.good, made.was = made.capture(made.space.name), made.state()
    assert all(answer.startswith("200 ") for answer in made.page())
    assert made.rows().endswith(" 3")
    yield made
    kubectl(cluster, "delete", "namespace", made.space.name, "--wait=false")


@dataclass(frozen=True)
class Again:
    """A failure that was brought back."""

    place: Place
    data: dict[str, Any]
    err: str


def again(shop: Shop, capture: str) -> Iterator[Again]:
    name = f"again-{uuid.uuid4().hex[:8]}"
    ended = shop.run("reproduce", capture, "--name", name, "--verdict-timeout", "90s", "-o", "json")
    assert ended.out, ended.err
    yield Again(Place(Namespace(shop.space.cluster, name)), ended.data, ended.err)
    kubectl(shop.space.cluster, "delete", "namespace", name, "--wait=false", "--ignore-not-found")


def differs_at_once(shop: Shop, good: str, bad: str, words: str) -> None:
    """The difference of two captures tells first what is wrong, then in which service something changed."""
    first = shop.run("capture", "diff", good, bad).out.splitlines()[:6]
    assert words in first[1], first
    assert any(line.startswith(("service", "image", "values")) and " orders " in line for line in first), first


@pytest.mark.parametrize("name", BROKEN)
def test_it_is_captured_and_rolled_back_and_the_page_answers_with_its_old_data(shop: Shop, name: str) -> None:
    failed = shop.failed(name)

    failed.ended.failed(1, BROKEN[name], "rolled back")
    # A Service leads nowhere for a moment after its pods are ready.
    until(lambda: shop.state() == shop.was or None, "the page answers with its old data", 30)
    shop.said_at_once(failed.capture, BROKEN[name])
    differs_at_once(shop, shop.good, failed.capture, BROKEN[name])


# The crash comes back below, as plain Helm deployed it.
@pytest.mark.parametrize("name", [name for name in BROKEN if name != "crash"])
def test_it_fails_the_same_in_a_sandbox_with_the_same_rows_and_keys(shop: Shop, name: str) -> None:
    for found in again(shop, shop.failed(name).capture):
        assert found.data["verdict"]["verdict"] == "same failure", found.err
        assert (found.place.rows(), found.place.keys()) == (shop.rows(), shop.keys())


# -- what `sandbox` never saw before


@dataclass(frozen=True)
class ByHelm:
    """The shop by plain kubectl and helm, whose last `helm upgrade` broke it; its captures before and after."""

    place: Place
    good: str
    bad: str


@pytest.fixture(scope="module")
def by_helm(shop: Shop) -> Iterator[ByHelm]:
    cluster = shop.space.cluster
    place = Place(Namespace(cluster, f"helm-{uuid.uuid4().hex[:8]}"))
    kubectl(cluster, "create", "namespace", place.space.name)
    place.space.kubectl("apply", "-f", "-", stdin=yaml.safe_dump_all(_without_charts(shop)))
    for store in ("statefulset/postgres", "deployment/redis", "deployment/catalogue"):
        place.space.kubectl("rollout", "status", store, "--timeout=120s")
    [image] = shop.images_of_orders(shop.good)
    _helm_upgrade(shop, place.space, image)
    place.space.kubectl("rollout", "status", "deployment/orders", "--timeout=120s")
    place.fill()
    good = shop.capture(place.space.name)
    [broken] = shop.images_of_orders(shop.failed("crash").capture) - {image}
    _helm_upgrade(shop, place.space, broken)
    until(lambda: _crashes(place.space) or None, "it crashes")
    yield ByHelm(place, good, shop.capture(place.space.name))
    kubectl(cluster, "delete", "namespace", place.space.name, "--wait=false")


def _without_charts(shop: Shop) -> list[Manifest]:
    """What is not deployed by Helm, with the images that run in the environment."""
    folder = shop.folder
    texts = [path.read_text() for path in sorted((folder / "data").glob("*/*.yaml"))]
    texts.append(kubectl(shop.space.cluster, "kustomize", str(folder / f"catalogue/deploy/overlays/{ENV}")))
    found = [manifest for text in texts for manifest in yaml.safe_load_all(text) if manifest]
    ran = {c["name"]: c["image"] for pod in shop.space.list("pods") for c in pod["spec"]["containers"]}
    for manifest in found:
        for container in manifest.get("spec", {}).get("template", {}).get("spec", {}).get("containers", ()):
            container["image"] = ran[container["name"]]
    return found


def _helm_upgrade(shop: Shop, space: Namespace, image: str) -> None:
    """`helm upgrade --install` as anybody runs it."""
    programs = embedded_bin_dir()
    assert programs is not None
    repository, _, tag = image.partition("/shop/orders:")
    where = ["--kubeconfig", str(space.cluster.kubeconfig), "--kube-context", space.cluster.context, "-n", space.name]
    given = ["--set", f"image.repository={repository}/shop/orders", "--set", f"image.tag={tag}"]
    command = [str(programs / "helm"), *where, "upgrade", "--install", "orders", str(shop.folder / "orders/chart")]
    subprocess.run([*command, *given], check=True, capture_output=True, timeout=150)


def _crashes(space: Namespace) -> bool:
    statuses = [s for pod in space.list("pods") for s in pod.get("status", {}).get("containerStatuses", ())]
    return any(s["restartCount"] and "waiting" in s["state"] for s in statuses if s["name"] == "orders")


@pytest.fixture(scope="module")
def helm_again(shop: Shop, by_helm: ByHelm) -> Iterator[Again]:
    yield from again(shop, by_helm.bad)


def test_what_plain_helm_broke_is_told_at_once(shop: Shop, by_helm: ByHelm) -> None:
    shop.said_at_once(by_helm.bad, BROKEN["crash"])
    differs_at_once(shop, by_helm.good, by_helm.bad, BROKEN["crash"])


def test_what_plain_helm_broke_fails_the_same_in_a_sandbox(by_helm: ByHelm, helm_again: Again) -> None:
    assert helm_again.data["verdict"]["verdict"] == "same failure", helm_again.err
    assert BROKEN["crash"] in "\n".join(helm_again.data["verdict"]["evidence"])
    assert helm_again.place.rows() == by_helm.place.rows()
    assert helm_again.place.keys() == by_helm.place.keys()


def test_the_report_says_what_a_comparison_of_both_namespaces_says(by_helm: ByHelm, helm_again: Again) -> None:
    """Made here by nothing but what the API server says of both; that which failed still runs."""
    reported = {line["name"]: line["outcome"] for line in helm_again.data["report"]}
    here, there = (_comparable(place.space) for place in (by_helm.place, helm_again.place))
    expected = {
        name: "unavailable" if name not in there else "reproduced" if there[name] == what else "substituted"
        for name, what in here.items()
    }
    assert {name: reported.get(name) for name in expected} == expected


_SERVER_GIVEN = ("clusterIP", "clusterIPs", "volumeName")


def _comparable(space: Namespace) -> dict[str, Any]:
    """What people wrote of the objects of a namespace, by name as kubectl writes it."""
    kinds = {
        "deployment.apps": "deployments", "statefulset.apps": "statefulsets", "service": "services",
        "configmap": "configmaps", "secret": "secrets",
    }  # fmt: skip
    found = {}
    for kind, plural in kinds.items():
        for item in space.list(plural):
            name = item["metadata"]["name"]
            if name == "kube-root-ca.crt" or item.get("type") == "helm.sh/release.v1" or name.startswith("sandbox"):
                continue
            spec = {key: value for key, value in item.get("spec", {}).items() if key not in _SERVER_GIVEN}
            template = spec.get("template", {})
            template.get("metadata", {}).get("labels", {}).pop(labels.SERVICE, None)
            for container in template.get("spec", {}).get("containers", ()):
                # Its digest says what it is; a tag beside that says nothing.
                container["image"] = re.sub(r":[^/@]*@", "@", container["image"])
            found[f"{kind}/{name}"] = {"spec": spec, "data": item.get("data"), "type": item.get("type")}
    return found


def test_a_database_that_the_deployment_itself_broke_is_read_from_its_volume_and_rolled_back(shop: Shop) -> None:
    shop.git("switch", "--quiet", "--create", "broken/store", "main")
    manifest = shop.folder / "data/postgres/statefulset.yaml"
    manifest.write_text(manifest.read_text().replace("shared_buffers=32MB", "no_such_setting=1"))
    shop.git("commit", "--quiet", "--all", "--message", "Tune")
    shop.git("switch", "--quiet", "main")

    ended = shop.deploy("broken/store", "--only", "postgres")

    ended.failed(1, "no_such_setting", "rolled back")
    fixtures = shop.run("capture", "show", ended.data["capture"]["id"], "-o", "json").ok().data["fixtures"]
    [database] = [fixture for fixture in fixtures if fixture["name"] == "postgres"]
    assert (database["status"], database["why"]) == ("ok", "")
    assert "of a copy of its volume" in database["notes"][0]
    [rows] = [t["rows"] for d in database["facts"]["databases"] for t in d["tables"] if t["name"] == "orders"]
    assert rows == 3
    until(lambda: shop.state() == shop.was or None, "the page answers with its old data", 30)
