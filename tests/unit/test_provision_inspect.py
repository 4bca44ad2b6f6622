"""provision/inspect.py, contents.py, status.py, attribution.py and masking.py without a cluster."""

from __future__ import annotations

import base64
import json
from datetime import UTC, datetime, timedelta
from typing import Any, ClassVar

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sandbox.model import labels
from sandbox.model.errors import InvalidInput
from sandbox.model.objects import Manifest
from sandbox.model.record import ChartLock, InventoryItem, Lock, Record, ServiceLock, ServiceRecord
from sandbox.model.redaction import HIDDEN
from sandbox.model.sandbox import Phase, Sandbox
from sandbox.provision.attribution import attribute
from sandbox.provision.contents import Inside, door, endpoints
from sandbox.provision.inspect import Filter, sort_sandboxes
from sandbox.provision.masking import masked_manifest, masked_record, scrubbed, secret_values
from sandbox.provision.status import QuotaUse, replicas

NOW = datetime(2030, 1, 31, 18, tzinfo=UTC)


def thing(kind: str, name: str, *, api: str = "v1", owner: str = "", **metadata: Any) -> Manifest:
    owners = [{"uid": owner, "controller": True, "kind": "X", "name": "x"}] if owner else []
    return {
        "apiVersion": api,
        "kind": kind,
        "metadata": {"name": name, "uid": f"{kind}-{name}", "ownerReferences": owners, **metadata},
    }


def service_record(*items: tuple[str, str, str], release: str = "", **extra: Any) -> ServiceRecord:
    chart = ChartLock(release=release, name="c", version="1.0.0", digest="sha256:0") if release else None
    return ServiceRecord(
        lock=ServiceLock(
            kind="chart" if chart else "manifests",
            repo="r",
            ref="main",
            commit="a" * 40,
            chart=chart,
            input_digest="sha256:1",
            manifest_digest="sha256:2",
        ),
        inventory=[InventoryItem(group=g, version="v1", kind=k, name=n) for g, k, n in items],
        manifests=extra.pop("manifests", []),
        **extra,
    )


def record(**services: ServiceRecord) -> Record:
    lock = Lock(project="shop", env="dev", services={n: s.lock for n, s in services.items()}, created_at=NOW)
    return Record(
        number=1, at=NOW, by="dana", namespace_uid="u", outcome="deployed", lock=lock.sealed(), services=services
    )


def sandbox(name: str = "dana-shop-main", **facts: Any) -> Sandbox:
    given: dict[str, Any] = {
        "name": name,
        "namespace": name,
        "context": "c",
        "owner": "dana@example.com",
        "project": "shop",
        "phase": Phase.READY,
        "repo": "",
        "ref": "main",
        "commit": "a" * 40,
        "quota_profile": "small",
        "ttl": "8h",
        "created_at": NOW - timedelta(hours=1),
        "expires_at": NOW + timedelta(hours=7),
        "uid": "u",
    }
    return Sandbox(**(given | facts))


class TestAttribution:
    def test_the_records_inventory_decides_even_against_a_label(self) -> None:
        web = thing("Deployment", "web", api="apps/v1", labels={labels.SERVICE: "other"})
        found = attribute([web], record(shop=service_record(("apps", "Deployment", "web"))))
        assert found == {"Deployment-web": "shop"}

    def test_what_is_owned_belongs_to_its_owners_service(self) -> None:
        objects = [
            thing("Pod", "web-1-x", owner="ReplicaSet-web-1"),
            thing("ReplicaSet", "web-1", api="apps/v1", owner="Deployment-web"),
            thing("Deployment", "web", api="apps/v1"),
        ]
        found = attribute(objects, record(shop=service_record(("apps", "Deployment", "web"))))
        assert set(found.values()) == {"shop"}
        assert len(found) == 3

    @pytest.mark.parametrize(
        ("metadata", "service"),
        [
            ({"labels": {labels.SERVICE: "mailer"}}, "mailer"),
            ({"annotations": {"meta.helm.sh/release-name": "web-release"}}, "web"),
            ({"annotations": {"meta.helm.sh/release-name": "unrecorded"}}, "unrecorded"),
            ({"labels": {"app.kubernetes.io/instance": "web-release"}}, "web"),
            ({"labels": {"app.kubernetes.io/instance": "unrecorded"}}, None),
            ({}, None),
        ],
    )
    def test_without_inventory(self, metadata: dict[str, Any], service: str | None) -> None:
        found = attribute(
            [thing("Job", "j", api="batch/v1", **metadata)], record(web=service_record(release="web-release"))
        )
        assert found.get("Job-j") == service

    def test_a_hook_belongs_to_its_service(self) -> None:
        hook = {"apiVersion": "batch/v1", "kind": "Job", "metadata": {"name": "migrate"}}
        found = attribute(
            [thing("Job", "migrate", api="batch/v1"), thing("Pod", "migrate-x", owner="Job-migrate")],
            record(orders=service_record(hooks=[hook])),
        )
        assert found == {"Job-migrate": "orders", "Pod-migrate-x": "orders"}

    def test_no_record_and_no_label_is_no_service(self) -> None:
        assert attribute([thing("Pod", "debug")], None) == {}

    def test_owners_in_a_circle_end(self) -> None:
        a, b = thing("Pod", "a", owner="Pod-b"), thing("Pod", "b", owner="Pod-a")
        assert attribute([a, b], None) == {}


class TestFilter:
    @pytest.mark.parametrize(
        ("wanted", "selector"),
        [
            (Filter(), labels.SELECTOR),
            (Filter(owner="dana@example.com"), f"{labels.SELECTOR},{labels.OWNER}=dana"),
            (Filter(project="shop", label_selector="team=a"), f"{labels.SELECTOR},{labels.PROJECT}=shop,team=a"),
        ],
    )
    def test_what_the_server_does(self, wanted: Filter, selector: str) -> None:
        assert wanted.selector() == selector

    @pytest.mark.parametrize(
        ("wanted", "fits"),
        [
            (Filter(), True),
            (Filter(owner="dana@example.com"), True),
            (Filter(owner="dana"), True),
            # The label says dana for both.
            (Filter(owner="dana@elsewhere.com"), False),
            (Filter(phases=frozenset({Phase.READY})), True),
            (Filter(phases=frozenset({Phase.FAILED})), False),
            (Filter(expiring_within=timedelta(hours=7)), True),
            (Filter(expiring_within=timedelta(hours=6)), False),
        ],
    )
    def test_what_labels_cannot_say(self, wanted: Filter, fits: bool) -> None:
        assert wanted.matches(sandbox(), NOW) is fits

    def test_without_expiry_it_is_not_expiring(self) -> None:
        assert not Filter(expiring_within=timedelta(days=1)).matches(sandbox(expires_at=None), NOW)


class TestSorting:
    FOUND = (
        sandbox("b", expires_at=None, created_at=None, phase=Phase.FAILED),
        sandbox("c", expires_at=NOW, created_at=NOW),
        sandbox("a", expires_at=NOW + timedelta(hours=1), created_at=NOW - timedelta(days=1), owner="alex"),
    )

    @pytest.mark.parametrize(
        ("key", "names"),
        [("name", "abc"), ("expires", "cab"), ("age", "cab"), ("phase", "bac"), ("owner", "abc"), ("project", "abc")],
    )
    def test_by_key(self, key: str, names: str) -> None:
        assert "".join(s.name for s in sort_sandboxes(self.FOUND, key)) == names

    def test_an_unknown_key_names_the_known(self) -> None:
        with pytest.raises(InvalidInput) as caught:
            sort_sandboxes((), "colour")
        assert "expires" in caught.value.hint


@pytest.mark.parametrize(
    ("manifest", "expected"),
    [
        ({"kind": "Deployment", "spec": {"replicas": 3}, "status": {"readyReplicas": 2}}, (2, 3)),
        ({"kind": "Deployment", "spec": {"replicas": 0}, "status": {}}, (0, 0)),
        ({"kind": "StatefulSet", "spec": {}, "status": {}}, (0, 1)),
        ({"kind": "DaemonSet", "status": {"desiredNumberScheduled": 4, "numberReady": 1}}, (1, 4)),
        ({"kind": "Job", "spec": {"completions": 2}, "status": {"succeeded": 2}}, (2, 2)),
        ({"kind": "Pod", "status": {"conditions": [{"type": "Ready", "status": "True"}]}}, (1, 1)),
        ({"kind": "Pod", "status": {}}, (0, 1)),
        ({"kind": "PersistentVolumeClaim"}, (None, None)),
    ],
)
def test_replicas(manifest: Manifest, expected: tuple[int | None, int | None]) -> None:
    assert replicas(manifest) == expected


@pytest.mark.parametrize(("used", "hard", "share"), [("500m", "2", 0.25), ("1Gi", "1Gi", 1.0), ("0", "0", 0.0)])
def test_share_of_a_quota(used: str, hard: str, share: float) -> None:
    assert QuotaUse("x", used, hard).share == share


def a_service(name: str, *ports: tuple[str, int], **spec: Any) -> Manifest:
    return {
        **thing("Service", name),
        "spec": {"ports": [{"name": n, "port": p} if n else {"port": p} for n, p in ports], **spec},
    }


class TestDoor:
    def inside(self, *members: Manifest, ports: dict[str, int] | None = None) -> Inside:
        return Inside(record(web=service_record(ports=ports or {})), ("web",), {"web": members})

    def test_the_service_called_as_the_service_comes_first(self) -> None:
        found = door(self.inside(a_service("admin", ("", 1)), a_service("web", ("http", 80), ("metrics", 9))), "web")
        assert (str(found.target), found.port) == ("service/web", 80)

    def test_the_first_declared_port_is_the_default(self) -> None:
        inside = self.inside(a_service("web", ("metrics", 9), ("http", 80)), ports={"http": 80, "metrics": 9})
        assert door(inside, "web").port == 80

    @pytest.mark.parametrize(("wanted", "port"), [("metrics", 9), ("9", 9), ("http", 80), ("page", 80)])
    def test_by_name_number_or_declared_name(self, wanted: str, port: int) -> None:
        inside = self.inside(a_service("web", ("http", 80), ("metrics", 9)), ports={"page": 80})
        assert door(inside, "web", wanted).port == port

    def test_an_unknown_port_names_the_known(self) -> None:
        with pytest.raises(InvalidInput, match="no port grpc") as caught:
            door(self.inside(a_service("web", ("http", 80))), "web", "grpc")
        assert "http (80)" in caught.value.why

    def test_a_pod_where_there_is_no_service(self) -> None:
        pod = {**thing("Pod", "web-0"), "spec": {"containers": [{"ports": [{"containerPort": 8080, "name": "http"}]}]}}
        assert door(self.inside(pod), "web").target.name == "web-0"

    def test_nothing_to_connect_to(self) -> None:
        with pytest.raises(InvalidInput, match="no port to connect to"):
            door(self.inside(thing("Job", "j")), "web")

    def test_an_unknown_service_names_the_near_one(self) -> None:
        with pytest.raises(InvalidInput, match="no service wep") as caught:
            door(self.inside(), "wep")
        assert caught.value.hint == "did you mean web?"


def test_endpoints() -> None:
    ingress = {
        **thing("Ingress", "web", api="networking.k8s.io/v1"),
        "spec": {"tls": [{"hosts": ["a.example"]}], "rules": [{"host": "a.example"}, {"host": "b.example"}, {}]},
    }
    members = [a_service("web", ("http", 80)), a_service("out", ("x", 1), type="ExternalName"), ingress]
    found = [(e.object, e.port, e.url) for e in endpoints("web", members)]
    assert found == [
        ("service/web", 80, ""),
        ("ingress.networking.k8s.io/web", 443, "https://a.example/"),
        ("ingress.networking.k8s.io/web", 80, "http://b.example/"),
    ]


def encoded(text: str) -> str:
    return base64.b64encode(text.encode()).decode()


class TestMasking:
    SECRET: ClassVar[Manifest] = {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {"name": "db", "namespace": "x"},
        "data": {"password": encoded("hunter2hunter2"), "user": encoded("postgres")},
        "stringData": {"token": 'quo"ted-token'},
    }

    def test_a_record_shows_no_secret_anywhere(self) -> None:
        deployment = {
            **thing("Deployment", "db", api="apps/v1"),
            "spec": {
                "image": "postgres:16",
                "env": [{"name": "URL", "value": "postgres://u:hunter2hunter2@db"}],
                "encoded": encoded("hunter2hunter2"),
            },
        }
        made = record(
            db=service_record(
                manifests=[self.SECRET, deployment],
                values={
                    "password": "hunter2hunter2",
                    "nested": [{"url": "x:hunter2hunter2"}],
                    "image": {"tag": "postgres"},
                },
                release="db",
            )
        ).model_copy(update={"failure": "login hunter2hunter2 failed", "patch": '+token = "quo\\"ted-token"'})
        shown = masked_record(made)
        text = json.dumps(shown)
        for secret in ("hunter2hunter2", encoded("hunter2hunter2"), "ted-token"):
            assert secret not in text
        service = shown["services"]["db"]
        assert service["manifests"][0]["data"] == {"password": HIDDEN, "user": HIDDEN}
        # A database user's name hides no image.
        assert service["manifests"][1]["spec"]["image"] == "postgres:16"
        assert service["values"]["image"] == {"tag": "postgres"}
        assert shown["failure"] == f"login {HIDDEN} failed"
        # What is not secret stays as it was.
        assert shown["lock"] == made.model_dump(mode="json")["lock"]

    def test_short_values_are_no_secrets(self) -> None:
        short = {"kind": "Secret", "stringData": {"port": "5432", "enabled": "true"}}
        assert secret_values([short]) == frozenset()

    def test_a_manifest_without_secrets_stays_as_it_is(self) -> None:
        manifest = a_service("web", ("http", 80))
        assert masked_manifest(manifest, frozenset()) == manifest

    @given(st.text(min_size=8).filter(lambda s: len(s.strip()) >= 8), st.text(), st.text())
    def test_no_known_value_survives_in_a_text(self, secret: str, before: str, after: str) -> None:
        known = secret_values([{"kind": "Secret", "stringData": {"k": secret}}])
        shown = scrubbed({"a": [before + secret + after]}, known)["a"][0]
        assert secret.strip() not in shown.replace(HIDDEN, "") or secret.strip() in HIDDEN
