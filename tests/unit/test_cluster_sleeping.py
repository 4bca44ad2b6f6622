"""What is put to sleep, what is remembered, and what wakes again."""

from __future__ import annotations

import copy
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sandbox.cluster.sleeping import plan_sleep, plan_wake, remembers, sleep_patch, wake_patch
from sandbox.model import labels
from sandbox.model.errors import InvalidInput
from sandbox.model.objects import Manifest

API = {
    "Deployment": "apps/v1",
    "StatefulSet": "apps/v1",
    "ReplicaSet": "apps/v1",
    "DaemonSet": "apps/v1",
    "ReplicationController": "v1",
    "CronJob": "batch/v1",
    "Job": "batch/v1",
    "Pod": "v1",
    "HorizontalPodAutoscaler": "autoscaling/v2",
    "ScaledObject": "keda.sh/v1alpha1",
    "ScaledJob": "keda.sh/v1alpha1",
    "Cluster": "postgresql.cnpg.io/v1",
    "Rollout": "argoproj.io/v1alpha1",
    "postgresql": "acid.zalan.do/v1",
    "Elasticsearch": "elasticsearch.k8s.elastic.co/v1",
}


def thing(kind: str, name: str = "x", owner: str = "", **more: Any) -> Manifest:
    owners = [{"apiVersion": API[owner], "kind": owner, "name": "boss", "controller": True}] if owner else []
    metadata = {"name": name, "ownerReferences": owners, "annotations": more.pop("annotations", {})}
    return {"apiVersion": API[kind], "kind": kind, "metadata": metadata, "spec": more.pop("spec", {}), **more}


def merged(target: Any, patch: Any) -> Any:
    """JSON merge patch (RFC 7386), as the API server does it."""
    if not isinstance(patch, dict):
        return patch
    result = dict(target) if isinstance(target, dict) else {}
    for key, value in patch.items():
        if value is None:
            result.pop(key, None)
        else:
            result[key] = merged(result.get(key), value)
    return result


SLEEPERS = [
    (thing("Deployment", spec={"replicas": 3}), ("spec", "replicas"), 0, 3),
    (thing("Deployment"), ("spec", "replicas"), 0, 1),
    (thing("StatefulSet", spec={"replicas": 2}), ("spec", "replicas"), 0, 2),
    (thing("ReplicaSet", spec={"replicas": 2}), ("spec", "replicas"), 0, 2),
    (thing("ReplicationController", spec={"replicas": 2}), ("spec", "replicas"), 0, 2),
    (thing("CronJob"), ("spec", "suspend"), True, False),
    (thing("CronJob", spec={"suspend": False}), ("spec", "suspend"), True, False),
    (thing("Job"), ("spec", "suspend"), True, False),
    (thing("Job", owner="CronJob"), ("spec", "suspend"), True, False),
    (thing("Rollout", spec={"replicas": 4}), ("spec", "replicas"), 0, 4),
    (thing("postgresql", spec={"numberOfInstances": 2}), ("spec", "numberOfInstances"), 0, 2),
    (thing("Cluster"), ("metadata", "annotations", "cnpg.io/hibernation"), "on", None),
    (
        thing("ScaledObject", annotations={"autoscaling.keda.sh/paused-replicas": "2"}),
        ("metadata", "annotations", "autoscaling.keda.sh/paused-replicas"),
        "0",
        "2",
    ),
    (thing("ScaledJob"), ("metadata", "annotations", "autoscaling.keda.sh/paused"), "true", None),
]


def at(manifest: Manifest, path: tuple[str, ...]) -> Any:
    node: Any = manifest
    for key in path:
        node = node.get(key)
    return node


@pytest.mark.parametrize(("manifest", "path", "asleep", "awake"), SLEEPERS)
def test_what_sleeps_wakes_as_it_was(manifest: Manifest, path: tuple[str, ...], asleep: Any, awake: Any) -> None:
    before = copy.deepcopy(manifest)
    planned, running = plan_sleep([manifest])
    assert (planned, running) == ([manifest], {})

    patch = sleep_patch(manifest)
    sleeping = merged(manifest, patch)

    assert at(sleeping, path) == asleep
    assert remembers(sleeping)
    assert sleep_patch(sleeping) is None, "a second time there is nothing to do"
    assert plan_sleep([sleeping]) == ([], {})
    assert plan_wake([sleeping]) == [sleeping]
    woken = merged(sleeping, wake_patch(sleeping))
    assert at(woken, path) == awake
    assert not remembers(woken)
    assert wake_patch(woken) is None
    assert manifest == before, "nothing is changed in place"


STAY: list[tuple[list[Manifest], str]] = [
    # Without replicas, suspended, finished: nothing to do, and nothing to say.
    ([thing("Deployment", spec={"replicas": 0})], ""),
    ([thing("CronJob", spec={"suspend": True})], ""),
    ([thing("Job", status={"conditions": [{"type": "Complete", "status": "True"}]})], ""),
    ([thing("Job", status={"conditions": [{"type": "Failed", "status": "True"}]})], ""),
    ([thing("Pod", status={"phase": "Succeeded"})], ""),
    # Their owners are put to sleep.
    ([thing("ReplicaSet", owner="Deployment", spec={"replicas": 1})], ""),
    ([thing("Pod", owner="ReplicaSet", status={"phase": "Running"})], ""),
    ([thing("Pod", owner="DaemonSet", status={"phase": "Running"})], ""),
    ([thing("ReplicaSet", owner="Rollout", spec={"replicas": 1})], ""),
    ([thing("Pod", owner="Cluster", status={"phase": "Running"})], ""),
    ([thing("HorizontalPodAutoscaler", owner="ScaledObject", spec={"minReplicas": 1})], ""),
    # A HorizontalPodAutoscaler leaves alone what has no replicas …
    ([thing("HorizontalPodAutoscaler", spec={"minReplicas": 1})], ""),
    # … unless it may itself go down to none.
    ([thing("HorizontalPodAutoscaler", spec={"minReplicas": 0})], "horizontalpodautoscaler.autoscaling/x"),
    ([thing("DaemonSet")], "daemonset.apps/x"),
    ([thing("Pod", status={"phase": "Running"})], "pod/x"),
    # An operator of which nothing is known would undo it.
    (
        [thing("StatefulSet", owner="Elasticsearch", spec={"replicas": 3})],
        "elasticsearch.elasticsearch.k8s.elastic.co/boss",
    ),
]


@pytest.mark.parametrize(("manifests", "said"), STAY)
def test_what_goes_on_running_is_said(manifests: list[Manifest], said: str) -> None:
    planned, awake = plan_sleep(manifests)

    assert planned == []
    assert list(awake) == ([said] if said else [])


def test_what_somebody_started_by_hand_stays_started() -> None:
    sleeping = merged(thing("Deployment", spec={"replicas": 3}), sleep_patch(thing("Deployment", spec={"replicas": 3})))
    by_hand = merged(sleeping, {"spec": {"replicas": 1}})

    woken = merged(by_hand, wake_patch(by_hand))
    assert woken["spec"]["replicas"] == 1
    assert not remembers(woken)
    # Put to sleep again, it is what it was last.
    again = merged(by_hand, sleep_patch(by_hand))
    assert merged(again, wake_patch(again))["spec"]["replicas"] == 1


@given(st.integers(1, 10_000))
def test_any_number_of_replicas_comes_back(replicas: int) -> None:
    awake = thing("StatefulSet", spec={"replicas": replicas, "serviceName": "x"})
    sleeping = merged(awake, sleep_patch(awake))

    assert merged(sleeping, wake_patch(sleeping))["spec"] == awake["spec"]


@pytest.mark.parametrize(
    "memory", ["", "3", "null", "[]", "{}", '{"value": "3"}', '{"value": -1}', '{"value": true}', '{"value": null}']
)
def test_what_cannot_be_remembered_is_not_guessed(memory: str) -> None:
    sleeping = thing("Deployment", spec={"replicas": 0}, annotations={labels.AWAKE: memory})

    with pytest.raises(InvalidInput, match=r"deployment\.apps/x"):
        wake_patch(sleeping)


def test_the_memory_is_json() -> None:
    patch = sleep_patch(thing("Deployment", spec={"replicas": 3}))

    assert patch is not None
    assert json.loads(patch["metadata"]["annotations"][labels.AWAKE]) == {"value": 3}


def test_what_a_deployment_copied_to_its_replica_sets_is_not_theirs() -> None:
    copied = {labels.AWAKE: '{"value": 3}'}
    owned = [
        thing("ReplicaSet", owner="Deployment", spec={"replicas": 0}, annotations=copied),
        thing("ReplicaSet", owner="Rollout", spec={"replicas": 0}, annotations=copied),
    ]

    assert plan_wake(owned) == []
