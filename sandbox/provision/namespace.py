"""The namespace of a sandbox: made with its expiry, found again, and what its annotations say."""

from __future__ import annotations

import json
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime, timedelta

from tenacity import AsyncRetrying, RetryError, retry_if_result, stop_after_delay, wait_fixed

from sandbox.cluster import objects
from sandbox.cluster.client import Cluster
from sandbox.cluster.errors import AlreadyExists, Conflict, Forbidden, RequestFailed
from sandbox.model import labels
from sandbox.model.durations import format_duration, from_rfc3339, parse_duration, to_rfc3339
from sandbox.model.errors import InvalidInput, OperationFailed, Refused
from sandbox.model.objects import Manifest, ObjectRef
from sandbox.model.sandbox import Phase, Sandbox, is_sandbox
from sandbox.model.source import Commit
from sandbox.project.quotas import QuotaProfile
from sandbox.provision.guardrails import pod_security_labels
from sandbox.provision.identity import Identity, namespace_labels
from sandbox.provision.inspect import get_or_list

# How long a namespace of the same name that is being deleted may take before we give up.
_TERMINATING_BOUND = 120.0
# Namespaces change rarely; more changes than this under our hands are a fight.
_TRIES = 5


@dataclass(frozen=True)
class Lifetime:
    """How long a sandbox lives, counted from the server's time.

    Attributes:
        longest: from the sandbox's creation, however often it is extended.
    """

    ttl: timedelta
    longest: timedelta
    now: datetime

    @property
    def expires_at(self) -> datetime:
        return self.now + self.ttl


def reference(namespace: str) -> ObjectRef:
    return ObjectRef("", "v1", "Namespace", namespace)


async def find(cluster: Cluster, name: str) -> Manifest | None:
    """The namespace, also for those who may not get just any namespace; None where it is not there."""
    try:
        return await get_or_list(cluster, name)
    except Forbidden:
        return None


async def check_may_create(cluster: Cluster, identity: Identity, profile: QuotaProfile | None, ttl: timedelta) -> None:
    """Find out now what would be refused only after everything was built.

    Args:
        profile: that it is going to have; then the cluster's policies are asked too: whose it may be, what it may be
            called, how long it may live. None: nothing is deployed.
        ttl: how long it is going to live.

    Raises:
        Refused: no permission to create namespaces, or this one.
    """
    if profile is not None:
        lifetime = Lifetime(ttl, profile.lifetime, cluster.known_time())
        try:
            await objects.create(cluster, _new(identity, profile, lifetime, None, {}), dry_run=True)
            return
        except AlreadyExists:
            # Another `up` of it was faster.
            return
        except Forbidden as error:
            if not error.is_about_rights:
                raise
        except RequestFailed:
            # A webhook of others that knows no dry runs says nothing of a real one.
            pass
    if not await cluster.can_i("create", "", "namespaces"):
        raise Refused(
            f"no permission to create the namespace {identity.namespace}",
            why=f"{identity.created_by} may not create namespaces in {cluster.context}",
            hint="ask for the right (`kubectl auth can-i create namespaces`), or name a sandbox that is there",
        )


async def existing(cluster: Cluster, identity: Identity) -> Manifest | None:
    """The sandbox's namespace where it is there already and is this sandbox; None where it is not there.

    Raises:
        Refused: a namespace of that name is there which is not this sandbox.
        OperationFailed: one is being deleted and does not end.
    """
    namespace = await _settled(cluster, identity.namespace)
    if namespace is not None:
        check_is_meant(cluster, identity, namespace)
    return namespace


def check_is_meant(cluster: Cluster, identity: Identity, namespace: Manifest) -> None:
    """Refuse a namespace that has the sandbox's name and is something else.

    Raises:
        Refused: saying what it is.
    """
    if not is_sandbox(namespace):
        raise Refused(
            f"the namespace {identity.namespace} exists and is not a sandbox",
            why=f"it does not carry the label {labels.SELECTOR} and its own name in {labels.NAMESPACE}",
            hint="choose another name with --name",
        )
    found = Sandbox.of(namespace, cluster.context)
    if not identity.owns(found):
        raise Refused(
            f"the namespace {identity.namespace} is another sandbox",
            why=f"it belongs to {found.owner}, project {found.project}",
            hint="choose another name with --name",
        )


async def _settled(cluster: Cluster, name: str) -> Manifest | None:
    """The namespace, once it is not being deleted any more."""
    retrying = AsyncRetrying(
        stop=stop_after_delay(_TERMINATING_BOUND),
        wait=wait_fixed(1),
        retry=retry_if_result(lambda ns: ns is not None and "deletionTimestamp" in ns["metadata"]),
    )
    try:
        return await retrying(find, cluster, name)
    except RetryError as error:
        conditions = (error.last_attempt.result().get("status") or {}).get("conditions") or []
        raise OperationFailed(
            f"the namespace {name} is being deleted and does not end",
            why="\n".join(c.get("message", "") for c in conditions if c.get("status") == "True"),
            hint="see what holds it, or choose another name with --name",
        ) from None


async def create(
    cluster: Cluster,
    identity: Identity,
    profile: QuotaProfile,
    lifetime: Lifetime,
    commit: Commit | None,
    tools: Mapping[str, str],
) -> Manifest:
    """Create the namespace, its expiry in the very request, so that nothing can leave one without.

    Raises:
        Forbidden: no permission to create namespaces.
        Refused: somebody created another namespace of that name meanwhile.
    """
    try:
        return await objects.create(cluster, _new(identity, profile, lifetime, commit, tools))
    except AlreadyExists:
        # Another `up` of the same sandbox was faster.
        found = await existing(cluster, identity)
        if found is None:
            raise
        return found


def _new(
    identity: Identity, profile: QuotaProfile, lifetime: Lifetime, commit: Commit | None, tools: Mapping[str, str]
) -> Manifest:
    """The Namespace of a new sandbox."""
    return {
        "apiVersion": "v1",
        "kind": "Namespace",
        "metadata": {
            "name": identity.namespace,
            "labels": {**namespace_labels(identity), **pod_security_labels(profile)},
            "annotations": {
                labels.NAMESPACE: identity.namespace,
                labels.CREATED_AT: to_rfc3339(lifetime.now),
                labels.OWNER_GROUP if identity.is_group else labels.OWNER_USER: identity.owner,
                labels.CREATED_BY: identity.created_by,
                **_source_annotations(commit, identity),
                **_deployment_annotations(profile, lifetime, tools),
                **({labels.MAX_TTL: profile.max_ttl} if profile.max_ttl else {}),
                labels.PHASE: Phase.PROVISIONING,
            },
        },
    }


async def begin(
    cluster: Cluster,
    namespace: Manifest,
    identity: Identity,
    profile: QuotaProfile,
    lifetime: Lifetime,
    commit: Commit | None,
    tools: Mapping[str, str],
) -> Manifest:
    """Note on an existing sandbox what is going to be deployed into it now.

    Raises:
        Refused: its longest life is over.
    """
    patch = {
        "metadata": {
            "labels": pod_security_labels(profile),
            "annotations": {
                **_source_annotations(commit, identity),
                **_deployment_annotations(profile, lifetime, tools, namespace),
                labels.MAX_TTL: profile.max_ttl,
                labels.PHASE: Phase.PROVISIONING,
            },
        }
    }
    return await _patch(cluster, identity.namespace, patch)


async def prolong(cluster: Cluster, namespace: Manifest, lifetime: Lifetime) -> Manifest:
    """Let the expiry count from now, up to the sandbox's longest life; one that is later already stays.

    Raises:
        Refused: its longest life is over.
    """
    annotations = expiry_annotations(lifetime, namespace)
    # An `up` that was killed between its record and its last words left it like this.
    if (namespace["metadata"].get("annotations") or {}).get(labels.PHASE) == Phase.PROVISIONING:
        annotations[labels.PHASE] = Phase.READY
    patch = {"metadata": {"annotations": annotations}}
    return await _patch(cluster, namespace["metadata"]["name"], patch)


async def finish(cluster: Cluster, name: str, phase: Phase) -> Manifest:
    """Write how a deployment ended, and let the time to live count from now, its end; one that slept sleeps no more.

    Raises:
        OperationFailed: it is gone, or being deleted.
    """
    note: dict[str, str | None] = {labels.PHASE: phase, labels.AWAKE: None}
    for _ in range(_TRIES):
        namespace = await objects.get(cluster, reference(name))
        if namespace is None:
            raise OperationFailed(f"the sandbox {name} is gone", hint="run `sandbox up` again: it makes it anew")
        expiry = from_now_on(namespace, await cluster.server_time())
        version = namespace["metadata"]["resourceVersion"] if expiry else None
        with suppress(Conflict):
            return await _patch(cluster, name, {"metadata": {"annotations": {**note, **expiry}}}, version)
    # Somebody moves its end all the time; theirs counts.
    return await _patch(cluster, name, {"metadata": {"annotations": note}})


def from_now_on(namespace: Manifest, now: datetime) -> dict[str, str]:
    """What moves a sandbox's expiry to a time to live from now, within its longest life; empty where it is later."""
    try:
        end = now + parse_duration((namespace["metadata"].get("annotations") or {}).get(labels.TTL, ""))
    except InvalidInput:
        return {}
    end = min(end, _time(namespace, labels.MAX_EXPIRES_AT) or end)
    before = _time(namespace, labels.EXPIRES_AT)
    return {} if before is not None and before >= end else {labels.EXPIRES_AT: to_rfc3339(end)}


async def _patch(cluster: Cluster, name: str, patch: Manifest, version: str | None = None) -> Manifest:
    patched = await objects.patch_merge(cluster, reference(name), patch, resource_version=version)
    # A PATCH on a namespace that is being deleted succeeds.
    if "deletionTimestamp" in patched["metadata"]:
        raise OperationFailed(f"the sandbox {name} is being deleted", hint="run `sandbox up` again when it is gone")
    return patched


def _source_annotations(commit: Commit | None, identity: Identity) -> dict[str, str]:
    if commit is None:
        return {labels.REF: identity.branch}
    return {labels.REPO: commit.repo, labels.REF: commit.branch or commit.ref, labels.COMMIT: commit.sha}


def _deployment_annotations(
    profile: QuotaProfile, lifetime: Lifetime, tools: Mapping[str, str], namespace: Manifest | None = None
) -> dict[str, str]:
    return {
        **expiry_annotations(lifetime, namespace),
        labels.QUOTA_PROFILE: profile.name,
        labels.TOOLS: json.dumps(dict(tools), sort_keys=True),
    }


def expiry_annotations(lifetime: Lifetime, namespace: Manifest | None) -> dict[str, str]:
    """When a sandbox ends, counted from now, within its longest life.

    Args:
        namespace: as it is; None for one that is to be made.

    Raises:
        Refused: its longest life is over.
    """
    if namespace is None:
        return {
            labels.EXPIRES_AT: to_rfc3339(lifetime.expires_at),
            labels.TTL: format_duration(lifetime.ttl),
            labels.MAX_EXPIRES_AT: to_rfc3339(lifetime.now + lifetime.longest),
        }
    end = longest_life(namespace, lifetime.longest)
    if end <= lifetime.now:
        raise Refused(
            f"the sandbox {namespace['metadata']['name']} has reached its longest life",
            why=f"it was to end at {to_rfc3339(end)} ({labels.MAX_EXPIRES_AT}), however often it is extended",
            hint="delete it with `sandbox down`, then run `sandbox up` again",
        )
    # Somebody may have extended it further than this deployment would; a broken value is mended.
    expires_at = max(lifetime.expires_at, _time(namespace, labels.EXPIRES_AT) or lifetime.expires_at)
    # What its creation wrote down is never written again, not even in another spelling: admission refuses it.
    known = {} if _time(namespace, labels.MAX_EXPIRES_AT) else {labels.MAX_EXPIRES_AT: to_rfc3339(end)}
    return {
        labels.EXPIRES_AT: to_rfc3339(min(expires_at, end)),
        labels.TTL: format_duration(lifetime.ttl),
        **known,
    }


def longest_life(namespace: Manifest, longest: timedelta) -> datetime:
    """When a sandbox ends at the latest: what its creation wrote down, else counted from its creation.

    Args:
        longest: the life that its profile allows; for a namespace that says nothing, or nothing readable.
    """
    created = from_rfc3339(namespace["metadata"]["creationTimestamp"])
    return _time(namespace, labels.MAX_EXPIRES_AT) or created + longest


def _time(namespace: Manifest, annotation: str) -> datetime | None:
    try:
        return from_rfc3339((namespace["metadata"].get("annotations") or {}).get(annotation, ""))
    except InvalidInput:
        return None
