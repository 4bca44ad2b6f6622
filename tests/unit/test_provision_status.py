"""provision/status.py: from the objects that are there to how the services are."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from sandbox.model import labels
from sandbox.model.durations import to_rfc3339
from sandbox.model.objects import Manifest
from sandbox.provision.attribution import attribute
from sandbox.provision.status import ServiceStatus, service_statuses
from tests.unit.test_provision_inspect import record, service_record, thing

NOW = datetime(2030, 1, 31, 18, tzinfo=UTC)


def deployment(name: str, ready: int, wanted: int = 1) -> Manifest:
    available = {"type": "Available", "status": "True" if ready == wanted else "False"}
    return {
        **thing("Deployment", name, api="apps/v1", generation=1),
        "spec": {"replicas": wanted, "selector": {"matchLabels": {"app": name}}},
        "status": {
            "observedGeneration": 1,
            "replicas": wanted,
            "updatedReplicas": wanted,
            "readyReplicas": ready,
            "availableReplicas": ready,
            "conditions": [available, {"type": "Progressing", "status": "True", "reason": "NewReplicaSetAvailable"}],
        },
    }


def pod(name: str, deployment_name: str, *, container: dict[str, Any] | None = None, **facts: Any) -> Manifest:
    container = container or {"state": {"running": {}}, "ready": True}
    ready = "True" if container.get("ready") else "False"
    return {
        **thing(
            "Pod", name, owner=f"Deployment-{deployment_name}", creationTimestamp=to_rfc3339(NOW - timedelta(hours=1))
        ),
        "spec": {"containers": [{"name": "main"}], **facts},
        "status": {
            "phase": "Running",
            "conditions": [{"type": "Ready", "status": ready}],
            "containerStatuses": [{"name": "main", "restartCount": 0, **container}],
        },
    }


def crashing(restarts: int) -> dict[str, Any]:
    return {
        "ready": False,
        "restartCount": restarts,
        "state": {"waiting": {"reason": "CrashLoopBackOff", "message": "back-off"}},
        "lastState": {"terminated": {"exitCode": 7, "finishedAt": to_rfc3339(NOW)}},
    }


def event(about: Manifest, reason: str, message: str, *, ago: timedelta = timedelta(minutes=5)) -> Manifest:
    metadata = about["metadata"]
    return {
        **thing("Event", f"{metadata['name']}.1"),
        "type": "Warning",
        "reason": reason,
        "message": message,
        "firstTimestamp": to_rfc3339(NOW - ago),
        "lastTimestamp": to_rfc3339(NOW),
        "involvedObject": {"kind": about["kind"], "name": metadata["name"], "uid": metadata["uid"]},
    }


def look(*objects: Manifest, events: tuple[Manifest, ...] = (), **known: Any) -> dict[str, ServiceStatus]:
    found = known.pop("record", record(web=service_record(("apps", "Deployment", "web"))))
    return {service.name: service for service in service_statuses(objects, events, found, NOW)}


def test_ready() -> None:
    web = look(deployment("web", 1), pod("web-1", "web"))["web"]
    assert (web.state, web.ready, web.desired, web.restarts, web.findings) == ("ready", 1, 1, 0, ())
    assert (web.kind, web.commit) == ("manifests", "a" * 40)


def test_what_sleeps_is_not_partly_there_because_of_a_job_that_is_done() -> None:
    asleep = deployment("web", 0, 0)
    asleep["metadata"]["annotations"] = {labels.AWAKE: "2"}
    done = {
        **thing("Job", "migrate", api="batch/v1", labels={labels.SERVICE: "web"}),
        "spec": {"completions": 1},
        "status": {"succeeded": 1, "conditions": [{"type": "Complete", "status": "True"}]},
    }
    web = look(asleep, done)["web"]
    assert (web.state, web.ready, web.desired) == ("sleeping", 0, 0)
    assert (look(deployment("web", 1), done)["web"].ready, look(done)["web"].state) == (2, "failed")


def test_a_start_under_way_is_progressing() -> None:
    waiting = {"ready": False, "state": {"waiting": {"reason": "ContainerCreating"}}}
    assert look(deployment("web", 0), pod("web-1", "web", container=waiting))["web"].state == "progressing"


@pytest.mark.parametrize(("restarts", "state"), [(1, "failed"), (5, "failed")])
def test_a_crash_loop_is_a_failure_with_its_reason(restarts: int, state: str) -> None:
    web = look(deployment("web", 0), pod("web-1", "web", container=crashing(restarts)))["web"]
    assert (web.state, web.restarts) == (state, restarts)
    assert (web.findings[0].reason, web.findings[0].exit_code, web.findings[0].pod) == ("CrashLoopBackOff", 7, "web-1")


@pytest.mark.parametrize(
    ("up_for", "probe", "state", "ready"), [(4, {}, "failed", 0), (6, {}, "ready", 1), (1, {"httpGet": {}}, "ready", 1)]
)
def test_a_container_between_two_crashes_is_not_ready(
    up_for: int, probe: dict[str, Any], state: str, ready: int
) -> None:
    again = {
        "ready": True,
        "restartCount": 2,
        "state": {"running": {"startedAt": to_rfc3339(NOW - timedelta(seconds=up_for))}},
        "lastState": {"terminated": {"exitCode": 3, "reason": "Error", "finishedAt": to_rfc3339(NOW)}},
    }
    main = {"name": "main", **({"readinessProbe": probe} if probe else {})}
    web = look(deployment("web", 1), pod("web-1", "web", container=again, containers=[main]))["web"]
    assert (web.state, web.ready) == (state, ready)
    assert [finding.exit_code for finding in web.findings] == ([3] if state == "failed" else [])


def test_a_pod_that_crashed_after_its_workload_was_listed_is_not_ready() -> None:
    replica_set = {
        **thing("ReplicaSet", "web-1", api="apps/v1", owner="Deployment-web"),
        "spec": {"replicas": 2},
        "status": {"replicas": 2, "readyReplicas": 2, "availableReplicas": 2},
    }
    pods = [pod("web-1", "web", container=crashing(2)), pod("web-2", "web")]
    for each in pods:
        each["metadata"]["ownerReferences"] = [{"uid": "ReplicaSet-web-1", "kind": "ReplicaSet", "controller": True}]
    web = look(deployment("web", 2, 2), replica_set, *pods)["web"]
    assert (web.state, web.ready, web.desired) == ("failed", 1, 2)
    assert [finding.pod for finding in web.findings] == ["web-1"]


def test_replicas_that_fail_alike_are_one_finding() -> None:
    pods = [pod(f"web-{i}", "web", container=crashing(3)) for i in range(3)]
    assert len(look(deployment("web", 0, 3), *pods)["web"].findings) == 1


def test_a_quota_rejection_is_found_in_events() -> None:
    replica_set = {
        **thing("ReplicaSet", "web-1", api="apps/v1", owner="Deployment-web"),
        "spec": {"replicas": 1},
        "status": {"replicas": 0},
    }
    rejected = event(replica_set, "FailedCreate", "pods is forbidden: exceeded quota: sandbox")
    web = look(deployment("web", 0), replica_set, events=(rejected,))["web"]
    assert web.state == "failed"
    assert web.findings[0].reason == "FailedCreate"
    assert web.findings[0].service == "web"


def test_the_tries_of_a_workload_over_quota_are_one_finding_with_their_number() -> None:
    def rejected(pod_name: str, used: int, about: Manifest) -> Manifest:
        quota = f"exceeded quota: sandbox, requested: pods=1, used: pods={used}, limited: pods=3"
        return event(about, "FailedCreate", f'Error creating: pods "{pod_name}" is forbidden: {quota}')

    sets = [
        {
            **thing("ReplicaSet", name, api="apps/v1", owner=f"Deployment-{name.partition('-')[0]}"),
            "spec": {"replicas": 9},
            "status": {"replicas": 0},
        }
        for name in ("web-1", "db-1")
    ]
    events = (*(rejected(f"web-1-{i}", 2 + i % 2, sets[0]) for i in range(12)), rejected("db-1-x", 3, sets[1]))
    known = record(web=service_record(("apps", "Deployment", "web"), ("apps", "Deployment", "db")))

    web = look(deployment("web", 0), deployment("db", 0), *sets, events=events, record=known)["web"]

    assert [(f.object, f.message.partition(", limited: pods=3")[2]) for f in web.findings] == [
        ("replicaset/web-1", " (12 tries)"),
        ("replicaset/db-1", ""),
    ]


def test_what_an_event_tells_of_a_pod_that_runs_since_is_no_finding() -> None:
    crashed = pod("web-1", "web", container=crashing(1), nodeName="n")
    old = (event(crashed, "FailedScheduling", "0/1 nodes"), event(crashed, "FailedMount", 'configmap "x" not found'))
    reasons = {finding.reason for finding in look(deployment("web", 0), crashed, events=old)["web"].findings}
    assert reasons == {"CrashLoopBackOff"}


def test_an_event_of_what_is_ready_is_no_finding() -> None:
    running = pod("web-1", "web")
    seen = event(running, "FailedMount", 'configmap "x" not found')
    assert look(deployment("web", 1), running, events=(seen,))["web"].findings == ()


def test_a_job_that_came_through_in_the_end_has_no_findings() -> None:
    done = {"type": "Complete", "status": "True"}
    job = {
        **thing("Job", "migrate", api="batch/v1"),
        "spec": {"completions": 1},
        "status": {"succeeded": 1, "conditions": [done]},
    }
    failed = pod("migrate-1", "x", container={"ready": False, "state": {"terminated": {"exitCode": 1}}})
    failed["metadata"]["ownerReferences"] = [{"uid": "Job-migrate", "kind": "Job", "controller": True}]
    failed["status"]["phase"] = "Failed"
    known = record(web=service_record(("batch", "Job", "migrate")))
    web = look(job, failed, record=known)["web"]
    assert (web.state, web.findings) == ("ready", ())


@pytest.mark.parametrize(
    ("outcome", "message"), [("deployed", "not there any more"), ("failed", "the deployment failed")]
)
def test_what_the_record_names_and_is_not_there(outcome: str, message: str) -> None:
    known = record(web=service_record(("apps", "Deployment", "web"))).model_copy(update={"outcome": outcome})
    web = look(record=known)["web"]
    assert web.state == "failed"
    assert message in web.workloads[0].message


def test_objects_of_no_service_are_shown_too() -> None:
    found = look(deployment("web", 1), thing("PersistentVolumeClaim", "left-behind"))
    assert [w.object for w in found[""].workloads] == ["persistentvolumeclaim/left-behind"]


def test_without_a_record_services_are_told_by_their_labels() -> None:
    labelled = deployment("mailer", 1)
    labelled["metadata"]["labels"] = {"sandbox.dev/service": "mail"}
    assert look(labelled, record=None)["mail"].state == "ready"


def test_a_stateful_sets_claims_belong_to_its_service() -> None:
    database = {
        **thing("StatefulSet", "db", api="apps/v1"),
        "spec": {"replicas": 1, "volumeClaimTemplates": [{"metadata": {"name": "data"}}]},
    }
    known = record(db=service_record(("apps", "StatefulSet", "db")))
    claims = [thing("PersistentVolumeClaim", name) for name in ("data-db-0", "data-db-7", "data-other-0")]
    found = attribute([database, *claims], known)
    assert found == {
        "StatefulSet-db": "db",
        "PersistentVolumeClaim-data-db-0": "db",
        "PersistentVolumeClaim-data-db-7": "db",
    }
