"""The preflight's arithmetic against the API server's: what passes is never rejected, and what fits is never refused.

Dry runs would not do: they check an object against the quota but do not count it. So everything is really created,
on a control plane without nodes; its controllers make pods, which nobody starts.
"""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from decimal import Decimal
from typing import Any

from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from tenacity import AsyncRetrying, retry_if_result, stop_after_delay, wait_fixed

from sandbox.cluster import objects
from sandbox.cluster.client import Cluster
from sandbox.cluster.errors import FromServer
from sandbox.cluster.providers import ClusterInfo
from sandbox.model.objects import ObjectRef
from sandbox.model.pod_resources import amount
from sandbox.project.quotas import QuotaProfile
from sandbox.provision.guardrails import apply_guardrails
from tests.e2e.quota_cases import BOUNDED, OF_WORKLOADS, Case, cases, plain_objects, total, workloads

# Each example is so many cases, side by side in namespaces of their own.
_AT_ONCE = 6
_BOUND = 20.0
_SETTINGS = settings(
    deadline=None,
    # Smaller is not simpler here, and costs namespaces.
    phases=[Phase.explicit, Phase.reuse, Phase.generate],
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.large_base_example],
)


@settings(_SETTINGS, max_examples=8)
@given(st.lists(cases(plain_objects(), BOUNDED), min_size=_AT_ONCE, max_size=_AT_ONCE))
def test_objects_are_counted_as_the_api_server_counts_them(control_plane: ClusterInfo, found: list[Case]) -> None:
    asyncio.run(_all(control_plane, found, _created))


@settings(_SETTINGS, max_examples=10)
@given(st.lists(cases(workloads(), OF_WORKLOADS), min_size=_AT_ONCE, max_size=_AT_ONCE))
def test_what_controllers_make_of_workloads_is_counted_as_they_make_it(
    control_plane: ClusterInfo, found: list[Case]
) -> None:
    asyncio.run(_all(control_plane, found, _deployed))


async def _created(cluster: Cluster, namespace: str, case: Case) -> None:
    before = await _used(cluster, namespace)
    refusals = case.refusals(before)
    rejected = []
    for item in case.objects:
        try:
            await objects.create(cluster, item, namespace=namespace)
        except FromServer as error:
            rejected.append(str(error))
    assert bool(refusals) == bool(rejected), f"{case}\npreflight: {refusals}\nserver: {rejected}"
    if not rejected:
        assert await _counted(cluster, namespace, before) == _predicted(case), case


async def _deployed(cluster: Cluster, namespace: str, case: Case) -> None:
    before = await _used(cluster, namespace)
    refusals = case.refusals(before)
    rejected = []
    for item in case.objects:
        try:
            await objects.create(cluster, item, namespace=namespace)
        except FromServer as error:
            rejected.append(str(error))
    if refusals:
        # Rejected here, or by its controller's word.
        assert rejected or await _until(_failures, cluster, namespace), f"{case}\npreflight: {refusals}"
        return
    assert not rejected, f"{case}\nserver: {rejected}"
    predicted = _predicted(case)

    async def all_counted() -> bool:
        return await _counted(cluster, namespace, before) == predicted

    settled = await _until(all_counted)
    failures = await _failures(cluster, namespace)
    assert settled, f"{case}\npredicted {predicted}, used {await _counted(cluster, namespace, before)}: {failures}"
    assert not failures, f"{case}\ncontrollers: {failures}"


async def _failures(cluster: Cluster, namespace: str) -> list[str]:
    """What controllers could not make."""
    reasons = ("FailedCreate", "ReplicaSetCreateError")
    return [e["message"] async for e in objects.list_(cluster, "v1", "Event", namespace) if e.get("reason") in reasons]


async def _all(
    info: ClusterInfo, found: Sequence[Case], check: Callable[[Cluster, str, Case], Awaitable[None]]
) -> None:
    async with Cluster.connect(info.context, info.kubeconfig) as cluster:

        async def one(case: Case) -> None:
            async with _namespace(cluster, case) as namespace:
                await check(cluster, namespace, case)

        await asyncio.gather(*(one(case) for case in found))


@asynccontextmanager
async def _namespace(cluster: Cluster, case: Case) -> AsyncIterator[str]:
    """A namespace with a case's guardrails, put there as `up` does; deleted afterwards, without waiting for it."""
    name = f"quota-{uuid.uuid4().hex[:10]}"
    await objects.create(cluster, {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}})
    try:
        for kind, given_name in (("ServiceAccount", "default"), ("ConfigMap", "kube-root-ca.crt")):
            await _there(cluster, ObjectRef("", "v1", kind, given_name, name))
        profile = {
            "apiVersion": "sandbox.dev/v1",
            "kind": "QuotaProfile",
            "name": "case",
            "resourceQuota": dict(case.hard),
            "limitRange": list(case.limit_range),
            "network": "open",
        }
        await apply_guardrails(cluster, QuotaProfile.model_validate(profile, strict=False), name)
        yield name
    finally:
        await objects.delete(cluster, ObjectRef("", "v1", "Namespace", name))


async def _used(cluster: Cluster, namespace: str) -> dict[str, str]:
    quota = await objects.get(cluster, ObjectRef("", "v1", "ResourceQuota", "sandbox", namespace))
    assert quota is not None
    return dict(quota["status"]["used"])


async def _counted(cluster: Cluster, namespace: str, before: Mapping[str, str]) -> dict[str, Decimal]:
    used = await _used(cluster, namespace)
    return {name: amount(value) - amount(before[name]) for name, value in used.items()}


def _predicted(case: Case) -> dict[str, Decimal]:
    asked = case.asked()
    return {name: total(asked, name) for name in case.hard}


async def _there(cluster: Cluster, ref: ObjectRef) -> None:
    assert await _until(objects.get, cluster, ref), f"{ref} was not made within {_BOUND:.0f} s"


async def _until(ask: Callable[..., Awaitable[Any]], *about: object) -> Any:
    """Ask until there is something; the last answer, too, when nothing comes in time."""
    retrying = AsyncRetrying(
        stop=stop_after_delay(_BOUND),
        wait=wait_fixed(0.05),
        retry=retry_if_result(lambda found: not found),
        retry_error_callback=lambda state: state.outcome.result() if state.outcome else None,
    )
    return await retrying(ask, *about)
