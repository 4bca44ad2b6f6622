"""provision/cleanupjob.py: what is said of the platform's clean-up, by what the cluster says of its Jobs."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest

from sandbox.model.objects import Manifest
from sandbox.provision.cleanupjob import health

NOW = datetime(2030, 1, 1, 12, tzinfo=UTC)
SUCCEEDED = {"lastSuccessfulTime": "2030-01-01T11:57:00Z"}
EXIT_3 = "Container cleanup for pod sandbox-system/sandbox-cleanup-1-x failed with exit code 3 matching FailJob rule"


def cron_job(status: dict[str, Any], **spec: Any) -> Manifest:
    return {"metadata": {"uid": "u"}, "spec": {"schedule": "*/5 * * * *", **spec}, "status": status}


def job(created: str, *conditions: dict[str, str]) -> Manifest:
    return {"metadata": {"creationTimestamp": created}, "status": {"conditions": list(conditions)}}


def pod(created: str, **state: Any) -> Manifest:
    return {"metadata": {"creationTimestamp": created}, "status": {"containerStatuses": [{"state": state}]}}


FAILED = {"type": "Failed", "status": "True", "message": EXIT_3}
HELD = pod("2030-01-01T11:59:00Z", waiting={"reason": "ImagePullBackOff", "message": "Back-off pulling image"})
STARTING = pod("2030-01-01T11:59:30Z", waiting={"reason": "ContainerCreating"})


@pytest.mark.parametrize(
    ("found", "jobs", "pods", "said", "is_well"),
    [
        (cron_job({}), [], [], "it has not succeeded yet (schedule */5 * * * *)", True),
        (cron_job(SUCCEEDED), [], [], "it last succeeded 3m ago (schedule */5 * * * *)", True),
        (cron_job(SUCCEEDED, suspend=True), [], [], "the CronJob is suspended; it last succeeded 3m ago", False),
        (
            cron_job({}),
            [],
            [pod("2030-01-01T11:50:00Z", running={}), HELD],
            "its pod does not start: ImagePullBackOff: Back-off pulling image; it has not succeeded yet",
            False,
        ),
        (cron_job(SUCCEEDED), [], [HELD, STARTING], "it last succeeded 3m ago (schedule */5 * * * *)", True),
        (
            cron_job(SUCCEEDED),
            [job("2030-01-01T11:58:00Z", FAILED)],
            [],
            f"its last pass failed: {EXIT_3}; it last succeeded 3m ago",
            False,
        ),
        (
            cron_job(SUCCEEDED),
            [job("2030-01-01T11:50:00Z", FAILED)],
            [],
            "it last succeeded 3m ago (schedule */5 * * * *)",
            True,
        ),
    ],
)
def test_what_is_said_of_the_clean_up(
    found: Manifest, jobs: list[Manifest], pods: list[Manifest], said: str, is_well: bool
) -> None:
    health_now = health(found, jobs, pods, NOW)

    assert (health_now.said, not health_now.mend) == (said, is_well)
