"""How the platform's clean-up does: its CronJob, and what becomes of its Jobs and their pods."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from sandbox.cluster import objects
from sandbox.cluster.client import Cluster
from sandbox.cluster.errors import Forbidden
from sandbox.cluster.platform import NAMESPACE
from sandbox.model.durations import from_rfc3339, relative
from sandbox.model.objects import Manifest, ObjectRef

NAME: Final = "sandbox-cleanup"
_CRON_JOB: Final = ObjectRef("batch", "v1", "CronJob", NAME, NAMESPACE)
_PODS: Final = "app.kubernetes.io/component=cleanup"
_LOGS: Final = f"kubectl -n {NAMESPACE} logs -l {_PODS} --tail=-1"
# On the way to the first container; all else that a container waits for is a fault.
_STARTING: Final = ("ContainerCreating", "PodInitializing", "")


@dataclass(frozen=True)
class Health:
    """What is said of the clean-up; ``mend``: what to do about it, empty where all is well."""

    said: str
    mend: str = ""


async def look(cluster: Cluster) -> Health | None:
    """How the clean-up does; None for those who may not look into the namespace of the platform.

    Raises:
        SandboxError: the cluster does not say.
    """
    try:
        found = await objects.get(cluster, _CRON_JOB)
        if found is None:
            return Health(
                f"there is no CronJob {NAME}: nothing deletes by itself what has expired",
                "set cleanup.enabled of the chart, or run `sandbox cleanup --yes` from a cron of your own",
            )
        jobs = [job async for job in objects.list_(cluster, "batch/v1", "Job", NAMESPACE)]
        pods = [pod async for pod in objects.list_(cluster, "v1", "Pod", NAMESPACE, _PODS)]
    except Forbidden:
        return None
    return health(found, [job for job in jobs if _is_of(job, found)], pods, await cluster.server_time())


def health(cron_job: Manifest, jobs: Sequence[Manifest], pods: Sequence[Manifest], now: datetime) -> Health:
    """The same of what was found. Pure.

    Args:
        now: the server's time.
    """
    spec, state = cron_job["spec"], cron_job.get("status") or {}
    success = state.get("lastSuccessfulTime")
    when = f"it last succeeded {relative(from_rfc3339(success), now)}" if success else "it has not succeeded yet"
    if spec.get("suspend"):
        return Health(
            f"the CronJob is suspended; {when}",
            f'kubectl -n {NAMESPACE} patch cronjob {NAME} -p \'{{"spec":{{"suspend":false}}}}\'',
        )
    if held := _held(pods):
        return Health(
            f"its pod does not start: {held}; {when}",
            "set cleanup.image (and imagePullSecrets) of the chart to an image that the nodes can pull",
        )
    if failure := _failure(jobs, success):
        return Health(f"its last pass failed: {failure}; {when}", _LOGS)
    return Health(f"{when} (schedule {spec['schedule']})")


def _held(pods: Sequence[Manifest]) -> str:
    """Why the newest pod's container cannot start; empty where it can."""
    newest = max(pods, key=_created, default=None)
    for container in ((newest or {}).get("status") or {}).get("containerStatuses") or ():
        waiting = (container.get("state") or {}).get("waiting") or {}
        if waiting.get("reason", "") not in _STARTING:
            return f"{waiting['reason']}: {waiting.get('message', '')}".rstrip(": ")
    return ""


def _failure(jobs: Sequence[Manifest], success: str | None) -> str:
    """How the newest Job failed, where none has succeeded since; empty where it did not."""
    newest = max(jobs, key=_created, default=None)
    if newest is None or (success is not None and success > _created(newest)):
        return ""
    conditions = (newest.get("status") or {}).get("conditions") or ()
    failed = next((c for c in conditions if c.get("type") == "Failed" and c.get("status") == "True"), None)
    return str(failed.get("message") or failed.get("reason") or "no reason is given") if failed else ""


def _created(manifest: Manifest) -> str:
    # RFC 3339 of one zone: in order as text.
    return str(manifest["metadata"].get("creationTimestamp", ""))


def _is_of(job: Manifest, cron_job: Manifest) -> bool:
    return any(
        owner.get("uid") == cron_job["metadata"]["uid"] for owner in job["metadata"].get("ownerReferences") or ()
    )
