"""Is an object ready, still on its way, or failed for good? Pure functions over what the cluster says.

What counts as ready follows kstatus (https://github.com/kubernetes-sigs/cli-utils/blob/master/pkg/kstatus/README.md),
except that a Job is ready when it is complete. What counts as failed is ours, and weighs two wishes: a failure is
said in seconds, and what would mend itself is not called one. So each symptom carries how long it must last
(``grace``), and a crash is judged by what was around it (:func:`is_final`).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal

from sandbox.model.durations import from_rfc3339
from sandbox.model.errors import InvalidInput
from sandbox.model.failure import Finding
from sandbox.model.objects import Manifest, ObjectRef

State = Literal["ready", "progressing", "failed"]

# A container that crashes while other things are still starting (its database, say) may try this often:
# the kubelet's waits of 0, 10 and 20 s let it live through the first half minute.
UNSETTLED_RESTARTS = 3
# Nobody chose it where it is this: the API's default.
_DEFAULT_BACKOFF_LIMIT = 6
# A container without a readiness probe is ready as soon as it runs, also when it is about to crash: it has to stay
# up this long (by Kubernetes' whole seconds) before anybody may call it ready.
STAYS_UP_S = 2.5
# One that has crashed before has to stay up longer: a busy kubelet tells of the next crash seconds late.
_STAYS_UP_AFTER_CRASH_S = 5.0


@dataclass(frozen=True)
class Status:
    """How an object stands; ``message`` says what it waits for, or why it failed."""

    state: State
    message: str = ""


@dataclass(frozen=True)
class Symptom:
    """Something that is wrong now and is a failure if it stays.

    Attributes:
        grace: seconds that it must last.
        since: when it began, where the object says so (then the server's clock counts, else the watcher's).
        crash: the container ended by itself; then :func:`is_final` weighs the next two instead of ``grace``.
        restarts: how often it was started again.
        crashed_at: when it last ended.
    """

    finding: Finding
    grace: float = 0.0
    since: datetime | None = None
    crash: bool = False
    restarts: int = 0
    crashed_at: datetime | None = None


def is_final(symptom: Symptom, *, lasted: float, settled_at: datetime | None) -> bool:
    """Whether a symptom has become a failure.

    A crash is one when everything around the container was ready before it crashed (twice: once is forgiven);
    else the reason may have been that, and it may try again, but not for ever.

    Args:
        lasted: seconds that it was seen.
        settled_at: when the last of what it may depend on became ready; None: something is not.
    """
    if not symptom.crash:
        return lasted >= symptom.grace
    if symptom.restarts >= UNSETTLED_RESTARTS:
        return True
    if settled_at is None or symptom.restarts < 1:
        return False
    # Kubernetes' times are whole seconds: in the same second means that nobody knows which came first.
    return symptom.crashed_at is None or symptom.crashed_at > settled_at


# -- status -----------------------------------------------------------------------------------------------------


def status(obj: Manifest) -> Status:
    """How an object stands."""
    metadata = obj.get("metadata") or {}
    if metadata.get("deletionTimestamp"):
        return Status("progressing", "it is being deleted")
    observed = _state(obj).get("observedGeneration")
    if isinstance(observed, int) and observed < (metadata.get("generation") or 0):
        return Status("progressing", "the change is not taken up yet")
    group = obj.get("apiVersion", "").rpartition("/")[0]
    judge = _JUDGES.get((group, obj.get("kind", "")))
    return judge(obj) if judge else _custom(obj)


def _deployment(obj: Manifest) -> Status:
    state, wanted = _state(obj), _wanted(obj)
    if "observedGeneration" not in state:
        return Status("progressing", "not taken up yet")
    progressing = condition(obj, "Progressing")
    if progressing.get("reason") == "ProgressDeadlineExceeded":
        return Status("failed", f"ProgressDeadlineExceeded: {progressing.get('message', '')}")
    if (obj.get("spec") or {}).get("paused"):
        return Status("ready", "paused")
    updated, available = state.get("updatedReplicas", 0), state.get("availableReplicas", 0)
    if updated < wanted:
        return Status("progressing", f"{updated} of {wanted} replicas updated")
    if state.get("replicas", 0) > updated:
        return Status("progressing", f"{state['replicas'] - updated} old replicas are ending")
    if available < wanted:
        return Status("progressing", f"{available} of {wanted} replicas available")
    return Status("ready", f"{available} of {wanted} replicas available")


def _stateful_set(obj: Manifest) -> Status:
    state, wanted = _state(obj), _wanted(obj)
    if "observedGeneration" not in state:
        return Status("progressing", "not taken up yet")
    strategy = obj["spec"].get("updateStrategy") or {}
    ready, updated = state.get("readyReplicas", 0), state.get("updatedReplicas", 0)
    if ready < wanted:
        return Status("progressing", f"{ready} of {wanted} replicas ready")
    if state.get("replicas", 0) > wanted:
        return Status("progressing", f"{state['replicas'] - wanted} replicas are ending")
    partition = (strategy.get("rollingUpdate") or {}).get("partition") or 0
    must_update = 0 if strategy.get("type") == "OnDelete" else max(wanted - partition, 0)
    if state.get("currentRevision") != state.get("updateRevision") and updated < must_update:
        return Status("progressing", f"{updated} of {must_update} replicas updated")
    return Status("ready", f"{ready} of {wanted} replicas ready")


def _daemon_set(obj: Manifest) -> Status:
    state = _state(obj)
    if "observedGeneration" not in state or "desiredNumberScheduled" not in state:
        return Status("progressing", "not taken up yet")
    wanted = state["desiredNumberScheduled"]
    on_delete = (obj["spec"].get("updateStrategy") or {}).get("type") == "OnDelete"
    counts = {
        "scheduled": "currentNumberScheduled",
        "updated": "updatedNumberScheduled",
        "available": "numberAvailable",
    }
    if on_delete:
        del counts["updated"]
    for word, key in counts.items():
        if state.get(key, 0) < wanted:
            return Status("progressing", f"{state.get(key, 0)} of {wanted} pods {word}")
    return Status("ready", f"{wanted} of {wanted} pods available")


def _replica_set(obj: Manifest) -> Status:
    available, wanted = _state(obj).get("availableReplicas", 0), _wanted(obj)
    return Status("ready" if available >= wanted else "progressing", f"{available} of {wanted} replicas available")


def _job(obj: Manifest) -> Status:
    for kind in ("Failed", "FailureTarget"):
        failed = condition(obj, kind)
        if failed.get("status") == "True":
            return Status("failed", f"{failed.get('reason', 'Failed')}: {failed.get('message', '')}")
    if condition(obj, "Complete").get("status") == "True":
        return Status("ready", "complete")
    if (obj.get("spec") or {}).get("suspend"):
        return Status("ready", "suspended")
    state = _state(obj)
    tried = f", {state['failed']} failed so far" if state.get("failed") else ""
    return Status("progressing", f"{state.get('succeeded', 0)} of {_completions(obj)} completions{tried}")


def _completions(job: Manifest) -> int:
    return int((job.get("spec") or {}).get("completions") or 1)


def _claim(obj: Manifest) -> Status:
    phase = _state(obj).get("phase", "Pending")
    if phase == "Lost":
        return Status("failed", "its volume is lost")
    return Status("ready", "bound") if phase == "Bound" else Status("progressing", f"not bound yet ({phase})")


def _pod(obj: Manifest) -> Status:
    state = _state(obj)
    phase = state.get("phase", "Pending")
    if phase == "Succeeded":
        return Status("ready", "completed")
    if phase == "Failed":
        return Status("failed", f"{state.get('reason') or 'Failed'}: {state.get('message') or 'a container failed'}")
    ready = condition(obj, "Ready")
    if phase == "Running" and ready.get("status") == "True":
        return Status("ready", "ready")
    return Status("progressing", ready.get("message") or phase)


def _service(obj: Manifest) -> Status:
    spec = obj.get("spec") or {}
    if spec.get("type") == "LoadBalancer" and not spec.get("clusterIP"):
        return Status("progressing", "no address yet")
    return Status("ready")


def _namespace(obj: Manifest) -> Status:
    phase = _state(obj).get("phase", "Active")
    return Status("ready" if phase == "Active" else "progressing", phase)


def _crd(obj: Manifest) -> Status:
    names = condition(obj, "NamesAccepted")
    if names.get("status") == "False":
        return Status("failed", f"{names.get('reason')}: {names.get('message')}")
    established = condition(obj, "Established").get("status") == "True"
    return Status("ready") if established else Status("progressing", "not established yet")


def _by_condition(kind: str) -> Callable[[Manifest], Status]:
    def judge(obj: Manifest) -> Status:
        found = condition(obj, kind)
        if found.get("status") == "True":
            return Status("ready")
        return Status("progressing", _said(found) or f"not {kind} yet")

    return judge


def _always_ready(obj: Manifest) -> Status:
    return Status("ready")


_JUDGES: Mapping[tuple[str, str], Callable[[Manifest], Status]] = {
    ("apps", "Deployment"): _deployment,
    ("apps", "StatefulSet"): _stateful_set,
    ("apps", "DaemonSet"): _daemon_set,
    ("apps", "ReplicaSet"): _replica_set,
    ("", "ReplicationController"): _replica_set,
    ("batch", "Job"): _job,
    ("batch", "CronJob"): _always_ready,
    ("", "PersistentVolumeClaim"): _claim,
    ("", "Pod"): _pod,
    ("", "Service"): _service,
    ("", "Namespace"): _namespace,
    ("apiextensions.k8s.io", "CustomResourceDefinition"): _crd,
    ("apiregistration.k8s.io", "APIService"): _by_condition("Available"),
    # They have conditions that say how they do, not that they are ready.
    ("autoscaling", "HorizontalPodAutoscaler"): _always_ready,
    ("policy", "PodDisruptionBudget"): _always_ready,
    ("networking.k8s.io", "Ingress"): _always_ready,
    ("networking.k8s.io", "NetworkPolicy"): _always_ready,
}


def _custom(obj: Manifest) -> Status:
    """Any other kind, by the conventional conditions; one that has none is ready as soon as it is there."""
    stalled = condition(obj, "Stalled")
    if stalled.get("status") == "True":
        return Status("failed", _said(stalled) or "Stalled")
    reconciling = condition(obj, "Reconciling")
    if reconciling.get("status") == "True":
        return Status("progressing", _said(reconciling) or "Reconciling")
    generation = (obj.get("metadata") or {}).get("generation") or 0
    for kind in ("Ready", "Available"):
        found = condition(obj, kind)
        if found:
            observed = found.get("observedGeneration")
            if isinstance(observed, int) and observed < generation:
                return Status("progressing", "the change is not taken up yet")
            if found.get("status") == "True":
                return Status("ready", _said(found))
            return Status("progressing", _said(found) or f"not {kind} yet")
    return Status("ready")


# -- symptoms of pods -------------------------------------------------------------------------------------------

# The registry has answered, and will answer the same again.
_PULL_FINAL = re.compile(
    r"not found|manifest unknown|name unknown|does not exist|unauthorized|authentication required|no basic auth"
    r"|denied|forbidden|insufficient_scope|no match(ing manifest)? for|invalid reference|x509|gave HTTP response",
    re.IGNORECASE,
)
_PULL_TRANSIENT = re.compile(
    r"dial tcp|timeout|timed out|connection re(fused|set)|EOF|no such host|too many requests"
    r"|\b5\d\d\b|deadline|temporary|network is unreachable|no route to host|rate ?limit",
    re.IGNORECASE,
)
# Long enough for one more try of the kubelet (10 s after the first).
_PULL_TRANSIENT_GRACE_S = 20.0
_PULL_UNKNOWN_GRACE_S = 5.0
_START_FINAL = re.compile(r"executable file not found|no such file or directory|permission denied|not a directory")

# Waiting reasons of a container other than a crash and a pull; seconds of grace.
_WAITING: Mapping[str, float] = {
    "InvalidImageName": 0.0,
    "ErrImageNeverPull": 0.0,
    "ImageInspectError": 10.0,
    "RegistryUnavailable": _PULL_TRANSIENT_GRACE_S,
    # A Secret or ConfigMap that is missing may be applied a moment later.
    "CreateContainerConfigError": 3.0,
    "CreateContainerError": 5.0,
    "PreCreateHookError": 5.0,
    "PreStartHookError": 5.0,
    "PostStartHookError": 5.0,
}
_START_ERRORS = frozenset({"RunContainerError", "StartError", "ContainerCannotRun"})
_PULL_ERRORS = frozenset({"ErrImagePull", "ImagePullBackOff"})


def pod_findings(pod: Manifest, service: str) -> list[Finding]:
    """What is wrong with a pod now, whether or not it may still mend itself."""
    return [symptom.finding for symptom in pod_symptoms(pod, service)]


def pod_symptoms(pod: Manifest, service: str) -> list[Symptom]:
    """What is wrong with a pod now, and how long each may last; empty for one that is ending."""
    if pod["metadata"].get("deletionTimestamp"):
        return []
    restarts = (pod.get("spec") or {}).get("restartPolicy") != "Never"
    found = []
    for container in container_statuses(pod):
        symptom = _container_symptom(pod, service, container, restarts)
        if symptom:
            found.append(symptom)
    return [*found, *_unschedulable(pod, service)]


def container_statuses(pod: Manifest) -> Iterator[Manifest]:
    """Statuses of all containers, init containers first."""
    state = pod.get("status") or {}
    for key in ("initContainerStatuses", "containerStatuses"):
        yield from state.get(key) or ()


def _container_symptom(pod: Manifest, service: str, container: Manifest, restarts: bool) -> Symptom | None:
    state = container.get("state") or {}
    waiting, ended = state.get("waiting") or {}, state.get("terminated") or {}
    reason, message = waiting.get("reason", ""), waiting.get("message", "")

    def finding(said: str, why: str, exit_code: int | None = None) -> Finding:
        name = pod["metadata"]["name"]
        return Finding(said, why, f"pod/{name}", service, name, container["name"], exit_code)

    if reason in _PULL_ERRORS:
        return Symptom(finding(reason, message), _pull_grace(message))
    if reason in _WAITING:
        return Symptom(finding(reason, message), _WAITING[reason])
    if reason in _START_ERRORS:
        return Symptom(finding(reason, message), 0.0 if _START_FINAL.search(message) else 5.0)
    last = (container.get("lastState") or {}).get("terminated") or {}
    if reason == "CrashLoopBackOff" and last.get("reason") in _START_ERRORS:
        return Symptom(finding(last["reason"], last.get("message") or message, last.get("exitCode")))
    if ended and ended.get("reason") in _START_ERRORS and ended.get("exitCode"):
        return Symptom(finding(ended["reason"], ended.get("message", ""), ended["exitCode"]), 1.0)
    crash = (
        last if reason == "CrashLoopBackOff" else ended if restarts and _ended_badly(pod, container, ended) else None
    )
    if crash is None:
        return None
    said = "OOMKilled" if crash.get("reason") == "OOMKilled" else reason or crash.get("reason") or "Error"
    return Symptom(
        finding(said, _crash_message(crash, message), crash.get("exitCode")),
        crash=True,
        restarts=container.get("restartCount", 0),
        crashed_at=time_of(crash.get("finishedAt")),
    )


def restarted_symptom(pod: Manifest, service: str, now: datetime) -> Symptom | None:
    """A container between two crashes: Kubernetes calls it ready, since nothing probes it; None for any other pod.

    Args:
        now: the server's time.
    """
    unprobed = {c["name"] for c in (pod.get("spec") or {}).get("containers") or () if not c.get("readinessProbe")}
    for container in container_statuses(pod):
        ended = (container.get("lastState") or {}).get("terminated") or {}
        began = time_of(((container.get("state") or {}).get("running") or {}).get("startedAt"))
        if container["name"] not in unprobed or began is None or not _ended_badly(pod, container, ended):
            continue
        up = (now - began).total_seconds()
        if up < _STAYS_UP_AFTER_CRASH_S:
            name, restarts = pod["metadata"]["name"], container.get("restartCount", 0)
            why = _crash_message(ended, f"started again {max(up, 0):.0f}s ago, {restarts} restarts so far")
            reason = "OOMKilled" if ended.get("reason") == "OOMKilled" else ended.get("reason") or "Error"
            finding = Finding(reason, why, f"pod/{name}", service, name, container["name"], ended.get("exitCode"))
            return Symptom(finding, crash=True, restarts=restarts, crashed_at=time_of(ended.get("finishedAt")))
    return None


def _ended_badly(pod: Manifest, container: Manifest, ended: Mapping[str, Any]) -> bool:
    if not ended:
        return False
    if ended.get("exitCode"):
        return True
    # Ending well is right for an init container and for what may end; else it should have stayed.
    init = {c.get("name") for c in (pod.get("status") or {}).get("initContainerStatuses") or ()}
    policy = (pod.get("spec") or {}).get("restartPolicy", "Always")
    return policy == "Always" and container["name"] not in init


def _crash_message(crash: Mapping[str, Any], waiting: str) -> str:
    if crash.get("reason") == "OOMKilled":
        return "the container used more memory than its limit"
    if crash.get("message"):
        return str(crash["message"]).strip()
    if crash.get("exitCode") == 0:
        return "the process ended; a container that is to run all the time must not"
    # The kubelet's text has the pod's name and UID in it, which the finding says better.
    return re.sub(r" pod=\S+", "", waiting)


def _pull_grace(message: str) -> float:
    if _PULL_TRANSIENT.search(message) and not re.search(r"not found|manifest unknown", message):
        return _PULL_TRANSIENT_GRACE_S
    return 0.0 if _PULL_FINAL.search(message) else _PULL_UNKNOWN_GRACE_S


def _unschedulable(pod: Manifest, service: str) -> list[Symptom]:
    scheduled = condition(pod, "PodScheduled")
    if scheduled.get("status") != "False" or scheduled.get("reason") != "Unschedulable":
        return []
    message, name = scheduled.get("message", ""), pod["metadata"]["name"]
    grace = 8.0
    if re.search(
        r"unbound immediate PersistentVolumeClaims|node\(s\) (didn't find available persistent|unavailable.*volume)",
        message,
    ):
        # The volume is being made; when that fails, the claim's own events say so sooner.
        grace = 60.0
    elif re.search(r"node\.kubernetes\.io/(not-ready|unreachable|network-unavailable)|node\.cloudprovider", message):
        grace = 30.0
    finding = Finding("Unschedulable", message, f"pod/{name}", service, name)
    return [Symptom(finding, grace, since=time_of(scheduled.get("lastTransitionTime")))]


# -- symptoms of workloads --------------------------------------------------------------------------------------


def workload_symptoms(obj: Manifest, service: str) -> list[Symptom]:
    """What a workload says itself that its pods do not: it failed, or its pods cannot be created."""
    ref = str(ObjectRef.of(obj))
    found = []
    standing = status(obj)
    if standing.state == "failed":
        reason, _, message = standing.message.partition(": ")
        found.append(Symptom(Finding(reason, message, ref, service)))
    rejected = condition(obj, "ReplicaFailure")
    if rejected.get("status") == "True":
        message = rejected.get("message", "")
        grace = _rejection_grace(message)
        found.append(Symptom(Finding(rejected.get("reason") or "FailedCreate", message, ref, service), grace))
    return found


def retries_are_chosen(job: Manifest) -> bool:
    """Whether somebody said how often a Job's pods may fail, so that fewer is no failure."""
    limit = (job.get("spec") or {}).get("backoffLimit", _DEFAULT_BACKOFF_LIMIT)
    return bool(limit != _DEFAULT_BACKOFF_LIMIT)


def failed_pod_symptom(pod: Manifest, service: str, failures: int) -> Symptom | None:
    """A pod of a Job that ended badly and is replaced by another; None for any other pod.

    Args:
        failures: how many of the Job's pods failed so far.
    """
    if (pod.get("status") or {}).get("phase") != "Failed":
        return None
    name = pod["metadata"]["name"]
    for container in container_statuses(pod):
        ended = (container.get("state") or {}).get("terminated") or {}
        if ended.get("exitCode"):
            finding = Finding(
                ended.get("reason") or "Error",
                _crash_message(ended, ""),
                f"pod/{name}",
                service,
                name,
                container["name"],
                ended["exitCode"],
            )
            return Symptom(finding, crash=True, restarts=failures - 1, crashed_at=time_of(ended.get("finishedAt")))
    return None


# -- symptoms in events -----------------------------------------------------------------------------------------

_MISSING = re.compile(r"not found|non-existent|does not exist|couldn't find key|references non", re.IGNORECASE)


def event_findings(event: Manifest, service: str = "") -> list[Finding]:
    """The failure that an event tells of, whether or not it may still mend itself; empty for other events."""
    return [symptom.finding for symptom in event_symptoms(event, service)]


def event_symptoms(event: Manifest, service: str = "") -> list[Symptom]:
    """The failure that an event tells of, and how long it may last; empty for events that tell of none."""
    grace = _event_grace(event.get("reason") or "", event.get("message") or event.get("note") or "")
    if grace is None:
        return []
    about = event.get("involvedObject") or event.get("regarding") or {}
    group = about.get("apiVersion", "").rpartition("/")[0]
    ref = f"{about.get('kind', '').lower()}{'.' + group if group else ''}/{about.get('name', '')}"
    container = re.fullmatch(r"spec\.(?:initC|c)ontainers\{(.+)\}", about.get("fieldPath") or "")
    finding = Finding(
        event["reason"],
        (event.get("message") or event.get("note") or "").strip(),
        ref,
        service,
        about.get("name", "") if about.get("kind") == "Pod" else "",
        container[1] if container else "",
    )
    return [Symptom(finding, grace, since=event_times(event)[0])]


def _event_grace(reason: str, message: str) -> float | None:
    match reason:
        case "FailedCreate":
            return _rejection_grace(message)
        case "FailedMount":
            # `failed to sync secret cache` and time-outs pass; a name that is not there does not.
            return 5.0 if _MISSING.search(message) else 60.0
        case "FailedAttachVolume" | "FailedMapVolume":
            return 60.0
        case "FailedCreatePodSandBox":
            return 20.0
        case "ProvisioningFailed":
            return 3.0 if _MISSING.search(message) else 15.0
        case "FailedBinding":
            return 5.0 if "no storage class is set" in message else 60.0
        case "FailedScheduling":
            return 8.0
        case _:
            return None


def _rejection_grace(message: str) -> float:
    """Seconds that pods of a workload may be refused.

    Quota may come free while old pods end (GoogleContainerTools/skaffold#8972); a rule of the namespace stays.
    """
    if "exceeded quota" in message:
        return 8.0
    if re.search(r"failed quota|violates PodSecurity|(maximum|minimum) \S+ usage|denied (the )?request", message):
        return 1.0
    return 5.0


def event_times(event: Manifest) -> tuple[datetime | None, datetime | None]:
    """When an event was first and last seen (old and new form of events)."""
    series = event.get("series") or {}
    first = (
        event.get("firstTimestamp") or event.get("eventTime") or (event.get("metadata") or {}).get("creationTimestamp")
    )
    last = series.get("lastObservedTime") or event.get("lastTimestamp") or event.get("deprecatedLastTimestamp")
    return time_of(first), time_of(last or first)


_PROBE = re.compile(r"^(Readiness|Liveness|Startup) probe (failed|errored)", re.IGNORECASE)


def probe_failure(events: Iterable[Manifest], pod: str) -> str:
    """The last thing that a probe of a pod said on failing; empty where none did."""
    failing = (
        event
        for event in events
        if event.get("reason") == "Unhealthy"
        and (event.get("involvedObject") or {}).get("name") == pod
        and _PROBE.match(event.get("message") or "")
    )
    latest = max(failing, key=lambda event: str(event_times(event)[1]), default=None)
    return " ".join(str(latest["message"]).split()) if latest else ""


# -- reading --------------------------------------------------------------------------------------------------


def condition(obj: Manifest, kind: str) -> Manifest:
    """The condition of a type; empty where there is none."""
    conditions = _state(obj).get("conditions")
    for found in conditions if isinstance(conditions, list) else ():
        if isinstance(found, dict) and found.get("type") == kind:
            return found
    return {}


def time_of(text: Any) -> datetime | None:
    """A time as Kubernetes writes it; None where there is none."""
    try:
        return from_rfc3339(text) if isinstance(text, str) else None
    except InvalidInput:
        return None


def _said(found: Mapping[str, Any]) -> str:
    return ": ".join(part for part in (found.get("reason"), found.get("message")) if part)


def _state(obj: Manifest) -> Manifest:
    state = obj.get("status")
    return state if isinstance(state, dict) else {}


def _wanted(obj: Manifest) -> int:
    replicas = (obj.get("spec") or {}).get("replicas")
    return 1 if replicas is None else int(replicas)
