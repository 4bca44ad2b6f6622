"""The namespace of a sandbox and the guardrails inside it."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime, timedelta

from tenacity import AsyncRetrying, RetryError, retry_if_result, stop_after_delay, wait_fixed

from sandbox.cluster import objects
from sandbox.cluster.client import Cluster
from sandbox.cluster.errors import AlreadyExists, Forbidden
from sandbox.model import labels
from sandbox.model.durations import format_duration, from_rfc3339, to_rfc3339
from sandbox.model.errors import InvalidInput, OperationFailed, Refused
from sandbox.model.objects import Manifest, ObjectRef
from sandbox.model.sandbox import Phase, Sandbox, is_sandbox
from sandbox.model.source import Commit
from sandbox.project.quotas import QuotaProfile
from sandbox.provision.identity import Identity, namespace_labels

# How long a namespace of the same name that is being deleted may take before we give up.
_TERMINATING_BOUND = 120.0
_QUOTA_BOUND = 20.0


@dataclass(frozen=True)
class Lifetime:
    """How long a sandbox lives, counted from the server's time."""

    ttl: timedelta
    now: datetime

    @property
    def expires_at(self) -> datetime:
        return self.now + self.ttl


def reference(namespace: str) -> ObjectRef:
    return ObjectRef("", "v1", "Namespace", namespace)


async def find(cluster: Cluster, name: str) -> Manifest | None:
    """The namespace, also for those who may not get just any namespace; None where it is not there."""
    try:
        return await objects.get(cluster, reference(name))
    except Forbidden:
        # A developer's rights in a namespace begin when it is theirs; that it is not there, the list tells.
        with suppress(Forbidden):
            async for found in objects.list_(cluster, "v1", "Namespace", field_selector=f"metadata.name={name}"):
                return found
        return None


async def check_may_create(cluster: Cluster, identity: Identity) -> None:
    """Find out now what would be refused only after everything was built.

    Raises:
        Refused: no permission to create namespaces.
    """
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
    manifest: Manifest = {
        "apiVersion": "v1",
        "kind": "Namespace",
        "metadata": {
            "name": identity.namespace,
            "labels": {**namespace_labels(identity), **pod_security_labels(profile)},
            "annotations": {
                labels.NAMESPACE: identity.namespace,
                labels.CREATED_AT: to_rfc3339(lifetime.now),
                labels.OWNER_USER: identity.owner,
                labels.CREATED_BY: identity.created_by,
                **_source_annotations(commit, identity),
                **_deployment_annotations(profile, lifetime, tools),
                labels.PHASE: Phase.PROVISIONING,
            },
        },
    }
    try:
        return await objects.create(cluster, manifest)
    except AlreadyExists:
        # Another `up` of the same sandbox was faster.
        found = await existing(cluster, identity)
        if found is None:
            raise
        return found


async def begin(
    cluster: Cluster,
    namespace: Manifest,
    identity: Identity,
    profile: QuotaProfile,
    lifetime: Lifetime,
    commit: Commit | None,
    tools: Mapping[str, str],
) -> Manifest:
    """Note on an existing sandbox what is going to be deployed into it now."""
    patch = {
        "metadata": {
            "labels": pod_security_labels(profile),
            "annotations": {
                **_source_annotations(commit, identity),
                **_deployment_annotations(profile, lifetime, tools, namespace),
                labels.PHASE: Phase.PROVISIONING,
            },
        }
    }
    return await _patch(cluster, identity.namespace, patch)


async def prolong(cluster: Cluster, namespace: Manifest, lifetime: Lifetime) -> Manifest:
    """Let the expiry count from now; one that is later already stays."""
    patch = {"metadata": {"annotations": _expiry_annotations(lifetime, namespace)}}
    return await _patch(cluster, namespace["metadata"]["name"], patch)


async def set_phase(cluster: Cluster, name: str, phase: Phase) -> Manifest:
    return await _patch(cluster, name, {"metadata": {"annotations": {labels.PHASE: phase}}})


async def _patch(cluster: Cluster, name: str, patch: Manifest) -> Manifest:
    patched = await objects.patch_merge(cluster, reference(name), patch)
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
        **_expiry_annotations(lifetime, namespace),
        labels.QUOTA_PROFILE: profile.name,
        labels.TOOLS: json.dumps(dict(tools), sort_keys=True),
    }


def _expiry_annotations(lifetime: Lifetime, namespace: Manifest | None) -> dict[str, str]:
    expires_at = lifetime.expires_at
    before = ((namespace or {}).get("metadata", {}).get("annotations") or {}).get(labels.EXPIRES_AT)
    if before:
        # Somebody extended it further than this deployment would; a broken value is mended.
        try:
            expires_at = max(expires_at, from_rfc3339(before))
        except InvalidInput:
            expires_at = lifetime.expires_at
    return {labels.EXPIRES_AT: to_rfc3339(expires_at), labels.TTL: format_duration(lifetime.ttl)}


def pod_security_labels(profile: QuotaProfile) -> dict[str, str]:
    """Pod Security Admission's labels (``pod-security.kubernetes.io/…``) for the profile's level."""
    return {f"pod-security.kubernetes.io/{mode}": profile.pod_security for mode in ("enforce", "warn")}


def guardrails(profile: QuotaProfile, namespace: str) -> list[Manifest]:
    """ResourceQuota, LimitRange and NetworkPolicies of a profile."""
    metadata = {"namespace": namespace, "labels": {labels.MANAGED_BY: labels.MANAGED_BY_VALUE}}
    rails: list[Manifest] = []
    if profile.resource_quota:
        rails.append(
            {
                "apiVersion": "v1",
                "kind": "ResourceQuota",
                "metadata": {**metadata, "name": labels.QUOTA_NAME},
                "spec": {"hard": dict(profile.resource_quota)},
            }
        )
    if profile.limit_range:
        rails.append(
            {
                "apiVersion": "v1",
                "kind": "LimitRange",
                "metadata": {**metadata, "name": labels.LIMIT_RANGE_NAME},
                "spec": {"limits": limits(profile)},
            }
        )
    if profile.network == "default-deny":
        rails.append(_default_deny(metadata))
    return rails


def limits(profile: QuotaProfile) -> list[Manifest]:
    """The items of a profile's LimitRange, as Kubernetes writes them."""
    return [item.model_dump(by_alias=True, exclude_defaults=True) for item in profile.limit_range]


def _default_deny(metadata: Mapping[str, object]) -> Manifest:
    """Let in what comes from the sandbox itself, and from namespaces that the platform marks for it (ingress)."""
    return {
        "apiVersion": "networking.k8s.io/v1",
        "kind": "NetworkPolicy",
        "metadata": {**metadata, "name": labels.NETWORK_POLICY_NAME},
        "spec": {
            "podSelector": {},
            "policyTypes": ["Ingress"],
            "ingress": [
                {
                    "from": [
                        {"podSelector": {}},
                        {"namespaceSelector": {"matchLabels": {f"{labels.DOMAIN}/allow-ingress": "true"}}},
                    ]
                }
            ],
        },
    }


async def apply_guardrails(cluster: Cluster, profile: QuotaProfile, namespace: str) -> None:
    """Apply the guardrails and wait until the quota counts.

    Until the quota controller has filled in ``status.hard``, the API server rejects pods with
    "status unknown for quota".

    Raises:
        OperationFailed: the quota controller did not take notice in time.
    """
    rails = guardrails(profile, namespace)
    await asyncio.gather(*(objects.apply(cluster, rail, namespace=namespace) for rail in rails))
    if not profile.resource_quota:
        return
    quota = ObjectRef("", "v1", "ResourceQuota", labels.QUOTA_NAME, namespace)
    wanted = set(profile.resource_quota)
    retrying = AsyncRetrying(
        stop=stop_after_delay(_QUOTA_BOUND),
        wait=wait_fixed(0.05),
        retry=retry_if_result(
            lambda found: found is None or not wanted <= set((found.get("status") or {}).get("hard") or {})
        ),
    )
    try:
        await retrying(objects.get, cluster, quota)
    except RetryError:
        raise OperationFailed(
            f"the quota of {namespace} did not become active within {_QUOTA_BOUND:.0f} s",
            why="the controller manager has not filled in status.hard",
            hint="see whether the cluster's kube-controller-manager runs, then run `sandbox up` again",
        ) from None
