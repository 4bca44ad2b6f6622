"""How many sandboxes somebody may have, of a profile and altogether."""

from __future__ import annotations

from datetime import UTC, datetime
from types import SimpleNamespace
from typing import Any

import pytest

from sandbox.model.errors import Refused
from sandbox.model.sandbox import Phase, Sandbox
from sandbox.project.platform import Limits
from sandbox.project.quotas import QuotaProfile
from sandbox.provision import allowance
from sandbox.provision.identity import Identity
from tests.unit.test_provision_inspect import sandbox

ME = Identity("dana@example.com", "dana@example.com", "shop", "main", "new", "new")
OTHERS = [
    sandbox("first"),
    sandbox("second", quota_profile="large"),
    sandbox("erins", owner="erin@example.com"),
    sandbox("blog", project="blog", owner="finn@example.com"),
    sandbox("ending", phase=Phase.TERMINATING),
]


async def check(
    monkeypatch: pytest.MonkeyPatch, limits: Limits, *there: Sandbox, present: Any = None, **more: Any
) -> None:
    async def listed(_: Any) -> list[Sandbox]:
        return list(there)

    async def found(*_: Any) -> Any:
        return present

    async def now() -> datetime:
        return datetime(2030, 1, 31, 18, tzinfo=UTC)

    monkeypatch.setattr(allowance, "list_sandboxes", listed)
    monkeypatch.setattr("sandbox.provision.allowance.ns.find", found)
    about = {"apiVersion": "sandbox.dev/v1", "kind": "QuotaProfile", "name": "small", "resourceQuota": {"pods": "1"}}
    cluster: Any = SimpleNamespace(server_time=now, context="c")
    reporter: Any = SimpleNamespace(warn=pytest.fail)
    await allowance.check(cluster, QuotaProfile.model_validate({**about, **more}), limits, ME, reporter)


@pytest.mark.parametrize(
    ("limits", "more", "said"),
    [
        (Limits(sandboxes_per_owner=2), {}, "dana@example.com may have 2 sandboxes at once"),
        (Limits(sandboxes_per_project=3), {}, "the project shop may have 3 sandboxes at once"),
        (Limits(), {"maxPerOwner": 1}, "dana@example.com may have 1 sandbox of the quota profile small at once"),
        (Limits(), {"maxPerProject": 2}, "the project shop may have 2 sandboxes of the quota profile small at once"),
    ],
)
async def test_one_too_many_is_refused(
    monkeypatch: pytest.MonkeyPatch, limits: Limits, more: dict[str, int], said: str
) -> None:
    with pytest.raises(Refused) as refused:
        await check(monkeypatch, limits, *OTHERS, **more)

    assert refused.value.what == said
    assert "sandbox down" in refused.value.hint
    assert ("--quota" in refused.value.hint) == ("profile" in said)


async def test_as_many_as_are_allowed_are_allowed(monkeypatch: pytest.MonkeyPatch) -> None:
    limits = Limits(sandboxes_per_owner=3, sandboxes_per_project=4)

    await check(monkeypatch, limits, *OTHERS, maxPerOwner=2, maxPerProject=3)


async def test_one_that_is_there_is_not_one_more(monkeypatch: pytest.MonkeyPatch) -> None:
    metadata = {"name": "new", "annotations": {"sandbox.dev/quota-profile": "small"}}

    await check(monkeypatch, Limits(sandboxes_per_owner=1), *OTHERS, present={"metadata": metadata}, maxPerOwner=1)
