"""What counts as ready and as failed, kind by kind."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sandbox.cluster import readiness
from sandbox.cluster.readiness import Symptom, is_final, pod_symptoms, status
from sandbox.model.failure import Finding
from sandbox.model.objects import Manifest

NOW = datetime(2030, 1, 1, 12, 0, 30, tzinfo=UTC)


def obj(api_version: str, kind: str, spec: Any = None, state: Any = None, **metadata: Any) -> Manifest:
    found = {"apiVersion": api_version, "kind": kind, "metadata": {"name": "web", "generation": 2, **metadata}}
    return {**found, "spec": spec or {}, **({"status": state} if state is not None else {})}


def conditions(**states: str) -> list[dict[str, str]]:
    return [{"type": kind, "status": state, "reason": "R", "message": "m"} for kind, state in states.items()]


def deployment(wanted: int | None = 2, /, **state: Any) -> Manifest:
    spec = {} if wanted is None else {"replicas": wanted}
    return obj("apps/v1", "Deployment", spec, {"observedGeneration": 2, **state})


def stateful(spec: Any = None, **state: Any) -> Manifest:
    return obj("apps/v1", "StatefulSet", {"replicas": 2, **(spec or {})}, {"observedGeneration": 2, **state})


def daemon(**state: Any) -> Manifest:
    return obj("apps/v1", "DaemonSet", {}, {"observedGeneration": 2, **state})


def job(spec: Any = None, **state: Any) -> Manifest:
    return obj("batch/v1", "Job", spec, state)


def custom(state: Any = None, **metadata: Any) -> Manifest:
    return obj("example.com/v1", "Thing", {}, state, **metadata)


FULL = {"replicas": 2, "updatedReplicas": 2, "availableReplicas": 2, "readyReplicas": 2}
EXCEEDED = [{"type": "Progressing", "status": "False", "reason": "ProgressDeadlineExceeded", "message": "too slow"}]
REVISIONS = {"currentRevision": "a", "updateRevision": "b"}
DAEMONS = {"desiredNumberScheduled": 3, "currentNumberScheduled": 3, "updatedNumberScheduled": 3, "numberAvailable": 3}


@pytest.mark.parametrize(
    ("found", "state", "message"),
    [
        (deployment(**FULL), "ready", "2 of 2 replicas available"),
        (deployment(0), "ready", ""),
        (deployment(None, **{**FULL, "replicas": 1, "updatedReplicas": 1}), "ready", ""),
        (obj("apps/v1", "Deployment", {"replicas": 0}, {}), "progressing", "not taken up"),
        (deployment(**{**FULL, "observedGeneration": 1}), "progressing", "not taken up"),
        (deployment(**{**FULL, "updatedReplicas": 1}), "progressing", "1 of 2 replicas updated"),
        (deployment(**{**FULL, "replicas": 3}), "progressing", "1 old replicas are ending"),
        (deployment(**{**FULL, "availableReplicas": 1}), "progressing", "1 of 2 replicas available"),
        (deployment(**FULL, conditions=EXCEEDED), "failed", "ProgressDeadlineExceeded: too slow"),
        (stateful(**FULL), "ready", "2 of 2"),
        (stateful(**{**FULL, "readyReplicas": 1}), "progressing", "1 of 2 replicas ready"),
        (stateful(**{**FULL, **REVISIONS, "updatedReplicas": 1}), "progressing", "1 of 2 replicas updated"),
        (
            stateful(
                {"updateStrategy": {"rollingUpdate": {"partition": 1}}}, **{**FULL, **REVISIONS, "updatedReplicas": 1}
            ),
            "ready",
            "",
        ),
        (
            stateful({"updateStrategy": {"type": "OnDelete"}}, **{**FULL, **REVISIONS, "updatedReplicas": 0}),
            "ready",
            "",
        ),
        (stateful(**{**FULL, "replicas": 3}), "progressing", "1 replicas are ending"),
        (daemon(**DAEMONS), "ready", ""),
        (daemon(**{**DAEMONS, "desiredNumberScheduled": 0}), "ready", ""),
        (daemon(), "progressing", "not taken up"),
        (daemon(**{**DAEMONS, "updatedNumberScheduled": 1}), "progressing", "1 of 3 pods updated"),
        (daemon(**{**DAEMONS, "numberAvailable": 2}), "progressing", "2 of 3 pods available"),
        (job(), "progressing", "0 of 1 completions"),
        (job(failed=2), "progressing", "2 failed so far"),
        (job(conditions=conditions(Complete="True")), "ready", "complete"),
        (job(conditions=conditions(Failed="True")), "failed", "R: m"),
        (job(conditions=conditions(FailureTarget="True")), "failed", "R: m"),
        (job({"suspend": True}), "ready", "suspended"),
        (obj("batch/v1", "CronJob"), "ready", ""),
        (obj("v1", "PersistentVolumeClaim", {}, {"phase": "Bound"}), "ready", ""),
        (obj("v1", "PersistentVolumeClaim", {}, {"phase": "Pending"}), "progressing", "not bound"),
        (obj("v1", "PersistentVolumeClaim", {}, {"phase": "Lost"}), "failed", "lost"),
        (obj("v1", "Pod", {}, {"phase": "Succeeded"}), "ready", ""),
        (obj("v1", "Pod", {}, {"phase": "Running", "conditions": conditions(Ready="True")}), "ready", ""),
        (obj("v1", "Pod", {}, {"phase": "Running", "conditions": conditions(Ready="False")}), "progressing", "m"),
        (obj("v1", "Pod", {}, {"phase": "Failed", "reason": "Evicted", "message": "disk"}), "failed", "Evicted: disk"),
        (obj("v1", "Service", {"type": "ClusterIP"}), "ready", ""),
        (obj("v1", "Service", {"type": "LoadBalancer"}), "progressing", "address"),
        (obj("v1", "ConfigMap"), "ready", ""),
        (obj("apiextensions.k8s.io/v1", "CustomResourceDefinition", {}, {}), "progressing", "established"),
        (
            obj(
                "apiextensions.k8s.io/v1",
                "CustomResourceDefinition",
                {},
                {"conditions": conditions(Established="True")},
            ),
            "ready",
            "",
        ),
        (
            obj(
                "apiextensions.k8s.io/v1",
                "CustomResourceDefinition",
                {},
                {"conditions": conditions(NamesAccepted="False")},
            ),
            "failed",
            "R: m",
        ),
        (obj("autoscaling/v2", "HorizontalPodAutoscaler", {}, {"conditions": conditions(Ready="False")}), "ready", ""),
        (custom(), "ready", ""),
        (custom("text, where a mapping should be"), "ready", ""),
        (custom({"conditions": "text"}), "ready", ""),
        (custom({"conditions": conditions(Ready="True")}), "ready", "R: m"),
        (custom({"conditions": conditions(Ready="False")}), "progressing", "R: m"),
        (custom({"conditions": conditions(Ready="Unknown")}), "progressing", "R: m"),
        (custom({"conditions": conditions(Available="True")}), "ready", ""),
        (custom({"conditions": conditions(Ready="True", Reconciling="True")}), "progressing", ""),
        (custom({"conditions": conditions(Ready="False", Stalled="True")}), "failed", "R: m"),
        (custom({"observedGeneration": 1, "conditions": conditions(Ready="True")}), "progressing", "not taken up"),
        (
            custom({"conditions": [{"type": "Ready", "status": "True", "observedGeneration": 1}]}),
            "progressing",
            "not taken up",
        ),
        (
            custom({"conditions": conditions(Ready="True")}, deletionTimestamp="2030-01-01T00:00:00Z"),
            "progressing",
            "deleted",
        ),
    ],
)
def test_status(found: Manifest, state: str, message: str) -> None:
    standing = status(found)
    assert standing.state == state
    assert message in standing.message


_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["conditions", "type", "status"]), inner)
    ),
    max_leaves=8,
)


@given(_JSON)
def test_any_status_of_a_custom_resource_is_judged(state: Any) -> None:
    assert status(custom(state)).state in ("ready", "progressing", "failed")


# -- pods


def pod(*containers: Manifest, policy: str = "Always", init: list[Manifest] | None = None, **state: Any) -> Manifest:
    statuses = {"containerStatuses": list(containers), **({"initContainerStatuses": init} if init else {})}
    spec = {"restartPolicy": policy}
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": "web-1"},
        "spec": spec,
        "status": {**statuses, **state},
    }


def waiting(reason: str, message: str = "", *, restarts: int = 0, last: Manifest | None = None) -> Manifest:
    found = {"name": "main", "restartCount": restarts, "state": {"waiting": {"reason": reason, "message": message}}}
    return {**found, **({"lastState": {"terminated": last}} if last else {})}


def ended(code: int, reason: str = "Error", *, restarts: int = 0, **more: Any) -> Manifest:
    return {
        "name": "main",
        "restartCount": restarts,
        "state": {"terminated": {"exitCode": code, "reason": reason, **more}},
    }


BACK_OFF = "back-off 10s restarting failed container=main pod=web-1_shop(0123)"
CRASH = {"exitCode": 1, "reason": "Error", "finishedAt": "2030-01-01T12:00:20Z"}
NOT_FOUND = 'failed to resolve reference "reg/web:1": reg/web:1: not found'
DENIED = "pull access denied, repository does not exist or may require authorization"
REFUSED = 'failed to do request: Head "http://reg/v2": dial tcp 10.0.0.1:5000: connect: connection refused'


@pytest.mark.parametrize(
    ("container", "reason", "grace"),
    [
        (waiting("ErrImagePull", NOT_FOUND), "ErrImagePull", 0),
        (
            waiting("ImagePullBackOff", f'Back-off pulling image "reg/web:1": ErrImagePull: {NOT_FOUND}'),
            "ImagePullBackOff",
            0,
        ),
        (waiting("ErrImagePull", DENIED), "ErrImagePull", 0),
        (waiting("ErrImagePull", REFUSED), "ErrImagePull", 20),
        (waiting("ErrImagePull", "unexpected status: 503 Service Unavailable"), "ErrImagePull", 20),
        (waiting("ErrImagePull", "lookup reg: no such host"), "ErrImagePull", 20),
        (waiting("ImagePullBackOff", "Back-off pulling image"), "ImagePullBackOff", 5),
        (waiting("InvalidImageName", "bad"), "InvalidImageName", 0),
        (waiting("CreateContainerConfigError", 'secret "x" not found'), "CreateContainerConfigError", 3),
        (waiting("RunContainerError", "exec: no such file or directory"), "RunContainerError", 0),
        (waiting("RunContainerError", "device busy"), "RunContainerError", 5),
    ],
)
def test_a_container_that_does_not_start(container: Manifest, reason: str, grace: float) -> None:
    [symptom] = pod_symptoms(pod(container), "web")
    assert (symptom.finding.reason, symptom.grace, symptom.crash) == (reason, grace, False)
    assert symptom.finding.object == "pod/web-1"
    assert (symptom.finding.service, symptom.finding.pod, symptom.finding.container) == ("web", "web-1", "main")


@pytest.mark.parametrize(
    ("container", "reason", "message", "code"),
    [
        (waiting("CrashLoopBackOff", BACK_OFF, restarts=1, last=CRASH), "CrashLoopBackOff", "back-off 10s", 1),
        (
            waiting("CrashLoopBackOff", BACK_OFF, restarts=1, last={**CRASH, "message": "no database\n"}),
            "CrashLoopBackOff",
            "no database",
            1,
        ),
        (
            waiting("CrashLoopBackOff", BACK_OFF, restarts=1, last={**CRASH, "exitCode": 137, "reason": "OOMKilled"}),
            "OOMKilled",
            "more memory than its limit",
            137,
        ),
        (
            waiting("CrashLoopBackOff", BACK_OFF, restarts=1, last={**CRASH, "exitCode": 0, "reason": "Completed"}),
            "CrashLoopBackOff",
            "the process ended",
            0,
        ),
        (ended(1, restarts=1), "Error", "", 1),
        (ended(0, "Completed"), "Completed", "the process ended", 0),
    ],
)
def test_a_container_that_crashes(container: Manifest, reason: str, message: str, code: int) -> None:
    [symptom] = pod_symptoms(pod(container), "web")
    assert symptom.crash
    assert symptom.finding.reason == reason
    assert message in symptom.finding.message
    assert symptom.finding.exit_code == code
    assert "0123" not in symptom.finding.message


@pytest.mark.parametrize(
    "found",
    [
        pod({"name": "main", "restartCount": 5, "state": {"running": {}}, "lastState": {"terminated": CRASH}}),
        pod(waiting("ContainerCreating")),
        pod(waiting("PodInitializing")),
        pod(ended(0, "Completed"), policy="OnFailure"),
        pod(ended(1), policy="Never"),
        pod(waiting("PodInitializing"), init=[ended(0, "Completed")]),
        pod(),
        {
            **pod(waiting("ErrImagePull", NOT_FOUND)),
            "metadata": {"name": "web-1", "deletionTimestamp": "2030-01-01T00:00:00Z"},
        },
    ],
)
def test_pods_with_nothing_wrong(found: Manifest) -> None:
    assert pod_symptoms(found, "web") == []


def test_an_init_container_is_named() -> None:
    init = {**waiting("CrashLoopBackOff", BACK_OFF, restarts=2, last=CRASH), "name": "setup"}
    [symptom] = pod_symptoms(pod(waiting("PodInitializing"), init=[init]), "web")
    assert (symptom.finding.container, symptom.restarts) == ("setup", 2)


@pytest.mark.parametrize(
    ("message", "grace"),
    [
        ("0/1 nodes are available: 1 Insufficient cpu.", 8),
        ("0/1 nodes are available: pod has unbound immediate PersistentVolumeClaims.", 60),
        ("0/1 nodes are available: 1 node(s) had untolerated taint {node.kubernetes.io/not-ready: }.", 30),
    ],
)
def test_an_unschedulable_pod(message: str, grace: float) -> None:
    scheduled = {"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": message}
    found = pod(conditions=[{**scheduled, "lastTransitionTime": "2030-01-01T12:00:00Z"}])
    [symptom] = pod_symptoms(found, "web")
    assert (symptom.finding.reason, symptom.grace) == ("Unschedulable", grace)
    assert symptom.since == NOW - timedelta(seconds=30)


# -- is it final?


def crash(restarts: int, crashed_at: datetime | None = NOW) -> Symptom:
    return Symptom(Finding("CrashLoopBackOff", "", "pod/web-1"), crash=True, restarts=restarts, crashed_at=crashed_at)


@pytest.mark.parametrize(
    ("restarts", "settled", "final"),
    [
        (0, NOW - timedelta(seconds=60), False),
        (1, NOW - timedelta(seconds=60), True),
        (1, NOW - timedelta(seconds=1), True),
        # In the same second: nobody knows which was first.
        (1, NOW, False),
        (1, NOW + timedelta(seconds=1), False),
        (2, NOW + timedelta(seconds=1), False),
        (1, None, False),
        (2, None, False),
        (3, None, True),
        (3, NOW + timedelta(seconds=1), True),
    ],
)
def test_a_crash_is_final_when_nothing_around_it_can_be_the_reason(
    restarts: int, settled: datetime | None, final: bool
) -> None:
    assert is_final(crash(restarts), lasted=0, settled_at=settled) is final


def test_other_symptoms_are_final_after_their_grace() -> None:
    symptom = Symptom(Finding("ErrImagePull", "", "pod/web-1"), grace=5)
    assert not is_final(symptom, lasted=4.9, settled_at=None)
    assert is_final(symptom, lasted=5, settled_at=None)


# -- workloads and events

QUOTA = 'pods "web-1" is forbidden: exceeded quota: sandbox, requested: pods=1, used: pods=2, limited: pods=2'
SECURITY = 'pods "web-1" is forbidden: violates PodSecurity "restricted:latest": privileged'


def test_a_deployment_whose_pods_are_refused() -> None:
    refused = [{"type": "ReplicaFailure", "status": "True", "reason": "FailedCreate", "message": QUOTA}]
    [symptom] = readiness.workload_symptoms(deployment(conditions=refused), "web")
    assert (symptom.finding.reason, symptom.finding.object, symptom.grace) == ("FailedCreate", "deployment.apps/web", 8)


def test_a_failed_job_is_final_at_once() -> None:
    over = [{"type": "Failed", "status": "True", "reason": "BackoffLimitExceeded", "message": "limit reached"}]
    [symptom] = readiness.workload_symptoms(job(conditions=over), "web")
    assert (symptom.finding.reason, symptom.finding.message) == ("BackoffLimitExceeded", "limit reached")
    assert is_final(symptom, lasted=0, settled_at=None)


def event(reason: str, message: str, **about: Any) -> Manifest:
    involved = {"kind": "StatefulSet", "apiVersion": "apps/v1", "name": "db", "uid": "u", **about}
    times = {"firstTimestamp": "2030-01-01T12:00:00Z", "lastTimestamp": "2030-01-01T12:00:10Z"}
    return {"reason": reason, "message": message, "involvedObject": involved, **times}


@pytest.mark.parametrize(
    ("reason", "message", "grace"),
    [
        ("FailedCreate", QUOTA, 8),
        ("FailedCreate", SECURITY, 1),
        ("FailedCreate", "failed quota: sandbox: must specify limits.cpu for: main", 1),
        ("FailedCreate", 'error looking up service account shop/web: serviceaccount "web" not found', 5),
        ("FailedMount", 'MountVolume.SetUp failed for volume "c" : configmap "x" not found', 5),
        ("FailedMount", "failed to sync secret cache: timed out waiting for the condition", 60),
        ("FailedCreatePodSandBox", "network: failed to set up", 20),
        ("ProvisioningFailed", 'storageclass.storage.k8s.io "x" not found', 3),
        ("ProvisioningFailed", "rpc error", 15),
        ("FailedBinding", "no persistent volumes available for this claim and no storage class is set", 5),
    ],
)
def test_events_that_tell_of_failures(reason: str, message: str, grace: float) -> None:
    [symptom] = readiness.event_symptoms(event(reason, message), "db")
    assert (symptom.finding.reason, symptom.grace) == (reason, grace)
    assert symptom.finding.object == "statefulset.apps/db"
    assert symptom.since == datetime(2030, 1, 1, 12, tzinfo=UTC)
    assert readiness.event_findings(event(reason, message)) == [
        readiness.event_symptoms(event(reason, message))[0].finding
    ]


@pytest.mark.parametrize("reason", ["Pulled", "Unhealthy", "Killing", "BackOff", "ScalingReplicaSet", ""])
def test_events_that_do_not(reason: str) -> None:
    assert readiness.event_symptoms(event(reason, "whatever")) == []


def test_events_of_the_new_form_have_times_too() -> None:
    series = {"series": {"lastObservedTime": "2030-01-01T12:00:05Z"}, "eventTime": "2030-01-01T12:00:01Z"}
    assert readiness.event_times(series) == (NOW - timedelta(seconds=29), NOW - timedelta(seconds=25))


def test_the_last_word_of_a_probe() -> None:
    old = {**event("Unhealthy", "Readiness probe failed: old", kind="Pod", name="web-1")}
    new = {**old, "message": "Readiness probe failed:\n HTTP 500", "lastTimestamp": "2030-01-01T12:00:20Z"}
    other = {**new, "involvedObject": {"name": "web-2"}, "message": "Readiness probe failed: other"}
    assert readiness.probe_failure([new, old, other], "web-1") == "Readiness probe failed: HTTP 500"
    assert readiness.probe_failure([], "web-1") == ""


@pytest.mark.parametrize(("spec", "chosen"), [({}, False), ({"backoffLimit": 6}, False), ({"backoffLimit": 2}, True)])
def test_how_often_a_job_may_fail_is_somebodys_choice(spec: Any, chosen: bool) -> None:
    assert readiness.retries_are_chosen(job(spec)) is chosen


def test_a_failed_pod_of_a_job_counts_as_its_crash() -> None:
    failed = pod(ended(1, finishedAt="2030-01-01T12:00:20Z", message="no table"), policy="Never", phase="Failed")
    symptom = readiness.failed_pod_symptom(failed, "web", 2)
    assert symptom is not None
    assert (symptom.restarts, symptom.finding.exit_code, symptom.finding.message) == (1, 1, "no table")
    assert readiness.failed_pod_symptom(pod(ended(1), policy="Never", phase="Running"), "web", 1) is None
