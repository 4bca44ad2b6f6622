"""What workloads refer to, and what is missing of it."""

from __future__ import annotations

from typing import Any

import pytest
import yaml

from sandbox.model.objects import Manifest
from sandbox.render.references import MissingReference, find_references, missing_references, provides


def load(text: str) -> list[Manifest]:
    return [item for item in yaml.safe_load_all(text) if item]


def pod(**spec: Any) -> Manifest:
    return {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "p"}, "spec": spec}


def container(**more: Any) -> dict[str, Any]:
    return {"containers": [{"name": "c", **more}]}


@pytest.mark.parametrize(
    ("spec", "expected"),
    [
        (
            container(env=[{"name": "A", "valueFrom": {"secretKeyRef": {"name": "s", "key": "k"}}}]),
            [("container c, env A", "Secret", "s", "k", False)],
        ),
        (
            container(
                env=[{"name": "A", "valueFrom": {"configMapKeyRef": {"name": "m", "key": "k", "optional": True}}}]
            ),
            [("container c, env A", "ConfigMap", "m", "k", True)],
        ),
        (container(env=[{"name": "A", "value": "1"}, {"name": "B", "valueFrom": {"fieldRef": {}}}]), []),
        (
            container(envFrom=[{"secretRef": {"name": "s"}}, {"configMapRef": {"name": "m", "optional": True}}]),
            [("container c, envFrom", "Secret", "s", "", False), ("container c, envFrom", "ConfigMap", "m", "", True)],
        ),
        (
            {"initContainers": [{"name": "i", "envFrom": [{"secretRef": {"name": "s"}}]}]},
            [("container i, envFrom", "Secret", "s", "", False)],
        ),
        (
            {"volumes": [{"name": "v", "secret": {"secretName": "s"}}]},
            [("volume v", "Secret", "s", "", False)],
        ),
        (
            {"volumes": [{"name": "v", "configMap": {"name": "m", "items": [{"key": "a"}, {"key": "b"}]}}]},
            [("volume v", "ConfigMap", "m", "a", False), ("volume v", "ConfigMap", "m", "b", False)],
        ),
        (
            {
                "volumes": [
                    {
                        "name": "v",
                        "projected": {
                            "sources": [
                                {"secret": {"name": "s", "items": [{"key": "k"}]}},
                                {"configMap": {"name": "m", "optional": True}},
                                {"serviceAccountToken": {}},
                            ]
                        },
                    }
                ]
            },
            [("volume v", "Secret", "s", "k", False), ("volume v", "ConfigMap", "m", "", True)],
        ),
        (
            {"volumes": [{"name": "v", "persistentVolumeClaim": {"claimName": "data"}}, {"name": "e", "emptyDir": {}}]},
            [("volume v", "PersistentVolumeClaim", "data", "", False)],
        ),
        (
            {"volumes": [{"name": "v", "csi": {"driver": "d", "nodePublishSecretRef": {"name": "s"}}}]},
            [("volume v", "Secret", "s", "", False)],
        ),
        ({"serviceAccountName": "app"}, [("serviceAccountName", "ServiceAccount", "app", "", False)]),
        ({"imagePullSecrets": [{"name": "regcred"}, {}]}, [("imagePullSecrets", "Secret", "regcred", "", False)]),
        ({"containers": None, "volumes": None}, []),
    ],
)
def test_finds_references_of_pods(spec: dict[str, Any], expected: list[tuple[Any, ...]]) -> None:
    found = find_references([pod(**spec)])
    assert [(r.field, r.kind, r.name, r.key, r.optional) for r in found] == expected


def test_looks_into_every_workload() -> None:
    template = {"spec": {"serviceAccountName": "app"}}
    workloads: list[Manifest] = [
        {"apiVersion": "apps/v1", "kind": kind, "metadata": {"name": "x"}, "spec": {"template": template}}
        for kind in ("Deployment", "StatefulSet", "DaemonSet", "ReplicaSet")
    ]
    workloads += load("{apiVersion: batch/v1, kind: Job, metadata: {name: x}, spec: {}}")
    workloads[-1]["spec"]["template"] = template
    cron = {"jobTemplate": {"spec": {"template": template}}}
    workloads.append({"apiVersion": "batch/v1", "kind": "CronJob", "metadata": {"name": "x"}, "spec": cron})
    assert len(find_references(workloads)) == 6


def test_ingress_and_gateway_certificates() -> None:
    ingress = load("""
apiVersion: networking.k8s.io/v1
kind: Ingress
metadata: {name: web}
spec: {tls: [{secretName: cert}, {hosts: [a]}]}
---
apiVersion: networking.k8s.io/v1
kind: Ingress
metadata: {name: issued, annotations: {cert-manager.io/issuer: le}}
spec: {tls: [{secretName: other}]}
---
apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata: {name: gate}
spec: {listeners: [{tls: {certificateRefs: [{name: g}, {name: foreign, namespace: x}]}}, {}]}
""")
    assert [(r.owner.name, r.name) for r in find_references(ingress)] == [("web", "cert"), ("gate", "g")]


def test_what_manifests_provide() -> None:
    found = dict(
        provides(
            load("""
{apiVersion: v1, kind: Secret, metadata: {name: s}, data: {a: eA==}, stringData: {b: x}}
---
{apiVersion: v1, kind: Secret, metadata: {name: t}, type: kubernetes.io/service-account-token}
---
{apiVersion: v1, kind: ConfigMap, metadata: {name: m}, data: {a: x}, binaryData: {b: eA==}}
---
{apiVersion: v1, kind: ConfigMap, metadata: {name: empty}}
---
apiVersion: apps/v1
kind: StatefulSet
metadata: {name: db}
spec: {replicas: 2, volumeClaimTemplates: [{metadata: {name: d}}]}
---
{apiVersion: cert-manager.io/v1, kind: Certificate, metadata: {name: c}, spec: {secretName: tls}}
---
{apiVersion: bitnami.com/v1alpha1, kind: SealedSecret, metadata: {name: sealed}, spec: {encryptedData: {k: x}}}
---
{apiVersion: external-secrets.io/v1, kind: ExternalSecret, metadata: {name: ext}, spec: {target: {name: made}}}
""")
        )
    )
    assert found == {
        ("Secret", "s"): {"a", "b"},
        ("Secret", "t"): None,
        ("ConfigMap", "m"): {"a", "b"},
        ("ConfigMap", "empty"): frozenset(),
        ("PersistentVolumeClaim", "d-db-0"): None,
        ("PersistentVolumeClaim", "d-db-1"): None,
        ("Secret", "tls"): None,
        ("Secret", "sealed"): {"k"},
        ("Secret", "made"): None,
    }


def refers(kind: str = "Secret", name: str = "db", key: str = "url", **more: Any) -> Manifest:
    ref = {"secretKeyRef" if kind == "Secret" else "configMapKeyRef": {"name": name, "key": key, **more}}
    return pod(**container(env=[{"name": "URL", "valueFrom": ref}]))


def test_a_missing_object_and_a_missing_key_are_told_apart() -> None:
    missing = missing_references({"web": [refers()]})
    assert [str(item) for item in missing] == ["service web: pod/p, container c, env URL: Secret db does not exist"]
    secret = load("{apiVersion: v1, kind: Secret, metadata: {name: db}, stringData: {uri: x}}")
    assert [str(item) for item in missing_references({"web": [refers(), *secret]})] == [
        "service web: pod/p, container c, env URL: Secret db has no key 'url'"
    ]


def test_other_services_and_the_namespace_provide_too() -> None:
    secret = load("{apiVersion: v1, kind: Secret, metadata: {name: db}, stringData: {url: x}}")
    assert missing_references({"web": [refers()], "db": secret}) == []
    assert missing_references({"web": [refers()]}, {("Secret", "db", ""), ("Secret", "db", "url")}) == []
    assert len(missing_references({"web": [refers()]}, {("Secret", "db", ""), ("Secret", "db", "other")})) == 1
    assert len(missing_references({"web": [refers()]}, {("ConfigMap", "db", ""), ("ConfigMap", "db", "url")})) == 1


def test_optional_ones_and_what_is_in_every_namespace_are_not_missing() -> None:
    everywhere = pod(
        serviceAccountName="default",
        volumes=[{"name": "v", "configMap": {"name": "kube-root-ca.crt", "items": [{"key": "ca.crt"}]}}],
    )
    assert missing_references({"web": [refers(optional=True), everywhere]}) == []


def only(missing: list[MissingReference]) -> MissingReference:
    assert len(missing) == 1
    return missing[0]


def test_what_an_operator_may_make_is_not_certain() -> None:
    assert only(missing_references({"web": [refers()]})).certain
    custom = load("{apiVersion: postgresql.cnpg.io/v1, kind: Cluster, metadata: {name: db}}")
    assert not only(missing_references({"web": [refers()], "db": custom})).certain
    role = load("""
apiVersion: rbac.authorization.k8s.io/v1
kind: Role
metadata: {name: maker}
rules: [{apiGroups: [""], resources: [secrets], verbs: [get, create]}]
""")
    assert not only(missing_references({"web": [refers(), *role]})).certain
    assert only(missing_references({"web": [refers(kind="ConfigMap"), *role]})).certain


def test_pods_start_without_pull_secrets_and_certificates() -> None:
    assert not only(missing_references({"web": [pod(imagePullSecrets=[{"name": "regcred"}])]})).blocking
    assert only(missing_references({"web": [refers()]})).blocking
