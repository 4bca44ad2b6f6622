"""Start a service that is at another commit than the captured one, with its hooks and its smoke test, as ``up`` does.

Hooks of captured services are off: what they did is in the data. Those of another commit may be the fix.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from sandbox.model import labels
from sandbox.model.objects import Manifest
from sandbox.provision.plan import ServicePlan
from sandbox.provision.services import Place, apply_manifests, run_hooks, run_smoke
from sandbox.provision.smoke import run_job

Event = Literal["install", "upgrade"]
"""What a chart's hooks are told: whether the captured environment had the service before."""

_HOOK = "helm.sh/hook"
_WEIGHT = "helm.sh/hook-weight"


async def start(place: Place, service: ServicePlan, manifests: Sequence[Manifest], event: Event) -> None:
    """Run what comes before a service, then apply it; it is not waited for.

    Args:
        manifests: those of the service that are not there yet.

    Raises:
        NotReady: a hook failed; nothing of the service was started.
    """
    await _helm_hooks(place, service, f"pre-{event}")
    await run_hooks(place, service, "before")
    await apply_manifests(place, manifests)


async def finish(place: Place, service: ServicePlan, event: Event) -> None:
    """Run what comes when a service is ready: hooks and smoke test.

    Raises:
        NotReady: one of them failed.
    """
    await _helm_hooks(place, service, f"post-{event}")
    await run_hooks(place, service, "after")
    await run_smoke(place, service, service.manifests)


def mine(manifest: Manifest, services: Sequence[str]) -> bool:
    """Whether an object is of one of some services."""
    return (manifest["metadata"].get("labels") or {}).get(labels.SERVICE) in services


async def _helm_hooks(place: Place, service: ServicePlan, event: str) -> None:
    """A chart's hooks of one event, by weight and name, one after the other: Jobs are waited for."""
    for hook in sorted((h for h in service.hooks if event in _events(h)), key=_turn):
        if hook["kind"] == "Job":
            await run_job(place.cluster, place.namespace, service.name, hook, place.timeout)
        else:
            await apply_manifests(place, [hook])


def _events(hook: Manifest) -> set[str]:
    said = str((hook["metadata"].get("annotations") or {}).get(_HOOK, ""))
    return {event.strip() for event in said.split(",")}


def _turn(hook: Manifest) -> tuple[int, str, str]:
    said = str((hook["metadata"].get("annotations") or {}).get(_WEIGHT, "0"))
    weight = int(said) if said.lstrip("-").isdecimal() else 0
    return weight, str(hook["kind"]), str(hook["metadata"]["name"])
