"""What is said of a namespace that is being deleted, by how long that has lasted."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from sandbox.cluster import ending
from sandbox.cluster.errors import Forbidden
from sandbox.model.durations import to_rfc3339
from sandbox.model.objects import Manifest

NOW = datetime(2030, 1, 1, tzinfo=UTC)
POD = {"metadata": {"name": "web", "finalizers": ["example.com/hold"]}}


class _Pretended:
    def __init__(self, *pods: Manifest, error: Exception | None = None) -> None:
        self.pods = pods
        self.error = error

    def known_time(self) -> datetime:
        return NOW

    async def list_(self, *_: Any, **__: Any) -> AsyncIterator[Manifest]:
        if self.error is not None:
            raise self.error
        for pod in self.pods:
            yield pod


@pytest.mark.parametrize(
    ("seconds", "pretended", "said"),
    [
        (5, _Pretended(), "Kubernetes is deleting what is in it"),
        (5, _Pretended(POD), "pod/web is held by its finalizers: example.com/hold"),
        (40, _Pretended(), "the control plane does not say what it waits for, and there are no pods"),
        (40, _Pretended(error=Forbidden("no")), "pods end first: `kubectl get pods -n shop` shows them"),
    ],
)
async def test_what_holds_a_namespace_without_conditions(
    monkeypatch: pytest.MonkeyPatch, seconds: int, pretended: _Pretended, said: str
) -> None:
    monkeypatch.setattr(ending, "objects", pretended)
    cluster: Any = pretended
    began = to_rfc3339(NOW - timedelta(seconds=seconds))

    (line,) = await ending.what_holds(cluster, {"metadata": {"name": "shop", "deletionTimestamp": began}})

    assert said in line
