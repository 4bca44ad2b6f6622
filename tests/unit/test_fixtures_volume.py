"""The Job that reads the volume of a store whose server is down: what it takes over, and what bounds it."""

from __future__ import annotations

from typing import Any

import pytest

from sandbox.capture.fixtures.find import Found
from sandbox.capture.fixtures.store import OnCopy, on_copy_of, stores
from sandbox.capture.fixtures.volume import copy_job, unreadable
from sandbox.cluster.holder import has_ended, identity
from sandbox.model import labels

SECRET = {"secretKeyRef": {"name": "db", "key": "password"}}


def pod(**volume: Any) -> dict[str, Any]:
    container = {
        "name": "main",
        "image": "postgres:15",
        "command": ["sh"],
        "env": [{"name": "PGHOST", "value": "elsewhere"}, {"name": "POSTGRES_PASSWORD", "valueFrom": SECRET}],
        "envFrom": [{"configMapRef": {"name": "settings"}}],
        "resources": {"limits": {"memory": "1Gi"}},
        "securityContext": {"allowPrivilegeEscalation": False},
        "volumeMounts": [{"name": "data", "mountPath": "/data", "subPath": "pg"}, {"name": "init", "mountPath": "/i"}],
    }
    volumes = [{"name": "data", **volume}, {"name": "init", "configMap": {"name": "init"}}]
    return {
        "metadata": {"name": "db-0"},
        "spec": {
            "nodeName": "one",
            "securityContext": {"runAsUser": 999},
            "tolerations": [{"key": "disks"}],
            "containers": [container, {"name": "exporter", "image": "exporter"}],
            "volumes": volumes,
        },
    }


CLAIM = {"persistentVolumeClaim": {"claimName": "data-db-0"}}
FOUND = Found("db", "postgresql", "db-0", "main", "db")


def job() -> dict[str, Any]:
    on_copy = OnCopy("serve() { :; }", {"PGHOST": "/sandbox/run"})
    return copy_job(pod(**CLAIM), FOUND, on_copy, limit=2**20, seconds=90)


def test_it_reads_the_volumes_only_and_copies_into_what_is_bounded() -> None:
    spec = job()["spec"]["template"]["spec"]
    [container] = spec["containers"]
    data, scratch = container["volumeMounts"]
    assert data == {"name": "data", "mountPath": "/data", "subPath": "pg", "readOnly": True}
    claim, room = spec["volumes"]
    assert claim["persistentVolumeClaim"] == {"claimName": "data-db-0", "readOnly": True}
    assert (room["name"], room["emptyDir"]) == (scratch["name"], {"sizeLimit": f"{1024 + 1024 * 1024}Ki"})
    assert container["command"][-1] == "1024"
    assert container["args"] == ["/data"]


def test_it_ends_and_goes_by_itself() -> None:
    made = job()
    assert made["spec"]["activeDeadlineSeconds"] == 90
    assert (made["spec"]["backoffLimit"], made["spec"]["ttlSecondsAfterFinished"]) == (0, 0)
    assert made["metadata"]["labels"] == {labels.VOLUME_COPY: "db"}
    assert not has_ended(made["metadata"]["annotations"][labels.HOLDER])


def test_it_runs_as_the_container_does_and_where_it_does() -> None:
    spec = job()["spec"]["template"]["spec"]
    [container] = spec["containers"]
    assert (container["image"], container["resources"]) == ("postgres:15", {"limits": {"memory": "1Gi"}})
    assert container["securityContext"] == {"allowPrivilegeEscalation": False}
    assert (spec["securityContext"], spec["tolerations"]) == ({"runAsUser": 999}, [{"key": "disks"}])
    [term] = spec["affinity"]["nodeAffinity"]["requiredDuringSchedulingIgnoredDuringExecution"]["nodeSelectorTerms"]
    assert term["matchFields"][0]["values"] == ["one"]
    assert spec["automountServiceAccountToken"] is False


def test_what_variables_refer_to_may_be_what_is_missing() -> None:
    [container] = job()["spec"]["template"]["spec"]["containers"]
    by_name = {variable["name"]: variable for variable in container["env"]}
    assert by_name["PGHOST"]["value"] == "/sandbox/run"
    assert by_name["POSTGRES_PASSWORD"]["valueFrom"]["secretKeyRef"]["optional"] is True
    assert container["envFrom"] == [{"configMapRef": {"name": "settings", "optional": True}}]


@pytest.mark.parametrize(
    ("volume", "readable"),
    [
        (CLAIM, True),
        ({"ephemeral": {"volumeClaimTemplate": {}}}, True),
        ({"emptyDir": {}}, False),
        ({"hostPath": {"path": "/"}}, False),
    ],
)
def test_what_no_other_pod_can_mount_cannot_be_read(volume: dict[str, Any], readable: bool) -> None:
    assert (unreadable(pod(**volume), "main") == "") is readable


def test_no_password_comes_to_a_redis_that_asks_for_none() -> None:
    on_copy = on_copy_of(stores()["redis"])
    assert on_copy is not None
    assert {on_copy.environment[name] for name in ("REDIS_PASSWORD", "REDISCLI_AUTH", "VALKEY_PASSWORD")} == {""}


def test_a_holder_has_ended_when_its_process_is_gone_from_this_machine() -> None:
    host = identity().partition("_")[0]
    assert not has_ended(identity())
    assert has_ended(f"{host}_999999999_1")
    assert not has_ended("elsewhere_999999999_1")
    assert not has_ended("")
