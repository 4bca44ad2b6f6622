"""Rights in a sandbox, where the platform gives them: the RoleBinding of its owner, and when it and the policies hold.

Under the chart ``charts/sandbox`` a developer may do nothing in a new namespace but make one RoleBinding: to the
platform's owner role, for the owner that the namespace names. All else follows from it. Both it and the namespace
are POSTed: server-side apply needs the right to patch before the object is there.
"""

from __future__ import annotations

import re
from typing import Final

from tenacity import AsyncRetrying, RetryError, retry_if_exception, retry_if_result, stop_after_delay, wait_fixed

from sandbox.cluster import objects
from sandbox.cluster.client import Cluster
from sandbox.cluster.errors import AlreadyExists, Forbidden, QuotaExceeded
from sandbox.model import labels
from sandbox.model.errors import Refused
from sandbox.model.objects import Manifest
from sandbox.provision.identity import Identity

_SERVICE_ACCOUNT: Final = re.compile(r"system:serviceaccount:([^:]+):([^:]+)")
_RBAC: Final = "rbac.authorization.k8s.io"
# The API server's caches of RoleBindings and of what policies ask for follow within milliseconds; servers that are
# busy, or several of them, need longer (seconds).
_BOUND = 20.0
_PAUSE = 0.05
# Policies of the chart that refuse everything until a guardrail, or the record, is there (admission/first.yaml).
_NOT_YET: Final = re.compile(r"ValidatingAdmissionPolicy 'sandbox-(?:quota|limits|network|record)-first'")


def owner_binding(identity: Identity, role: str) -> Manifest:
    """The RoleBinding of a sandbox's owner, and of whoever made it for them."""
    people = [identity.created_by] if identity.is_group else [*dict.fromkeys((identity.owner, identity.created_by))]
    group = [{"apiGroup": _RBAC, "kind": "Group", "name": identity.owner}] if identity.is_group else []
    return {
        "apiVersion": f"{_RBAC}/v1",
        "kind": "RoleBinding",
        "metadata": {
            "name": role,
            "namespace": identity.namespace,
            "labels": {labels.MANAGED_BY: labels.MANAGED_BY_VALUE},
        },
        "roleRef": {"apiGroup": _RBAC, "kind": "ClusterRole", "name": role},
        "subjects": [*group, *(_subject(user) for user in people)],
    }


def _subject(user: str) -> Manifest:
    account = _SERVICE_ACCOUNT.fullmatch(user)
    if account:
        return {"kind": "ServiceAccount", "namespace": account[1], "name": account[2]}
    return {"apiGroup": _RBAC, "kind": "User", "name": user}


async def take_ownership(cluster: Cluster, identity: Identity, role: str | None) -> None:
    """Bind the owner's role in a sandbox that is there, and wait until it counts; again it changes nothing.

    Args:
        role: the ClusterRole that the platform configuration names; None: rights come from elsewhere.

    Raises:
        Refused: the cluster does not let us, or the right does not come.
    """
    if role is None:
        return
    try:
        await objects.create(cluster, owner_binding(identity, role))
    except AlreadyExists:
        pass
    except Forbidden as error:
        if not await _may_work(cluster, identity):
            error.hint = "the sandbox is somebody else's, or the platform team must let you have sandboxes"
            raise
    retrying = AsyncRetrying(
        stop=stop_after_delay(_BOUND), wait=wait_fixed(_PAUSE), retry=retry_if_result(lambda allowed: not allowed)
    )
    try:
        await retrying(_may_work, cluster, identity)
    except RetryError:
        raise Refused(
            f"no rights in the namespace {identity.namespace}",
            why=f"the RoleBinding {role} is there and does not let {identity.created_by} write Secrets",
            hint=f"see whom it is for: kubectl get rolebinding {role} -n {identity.namespace} -o yaml",
        ) from None


async def _may_work(cluster: Cluster, identity: Identity) -> bool:
    return await cluster.can_i("create", "", "secrets", identity.namespace)


async def wait_until_admitted(cluster: Cluster, namespace: str, *, with_record: bool = False) -> None:
    """Wait until the cluster's policies have seen a sandbox's guardrails (and record), so that nothing is refused.

    What policies ask for, the API server takes from caches that lag a moment behind. A dry run finds out.

    Args:
        with_record: what runs needs the record besides.

    Raises:
        Refused: they still do not see them.
    """
    named = {"name": "sandbox-admission", "namespace": namespace}
    probe: Manifest = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": named}
    if with_record:
        probe = {"apiVersion": "v1", "kind": "Service", "metadata": named, "spec": {"ports": [{"port": 80}]}}
    retrying = AsyncRetrying(
        stop=stop_after_delay(_BOUND), wait=wait_fixed(_PAUSE), retry=retry_if_exception(_is_not_yet), reraise=True
    )
    try:
        await retrying(objects.create, cluster, probe, dry_run=True)
    except (AlreadyExists, QuotaExceeded):
        # Past the policies; the quota is the services' own matter.
        return
    except Forbidden as error:
        if _is_not_yet(error):
            raise
        # Another policy, or a kind that the profile does not allow: not what is asked here.
        return


def _is_not_yet(error: BaseException) -> bool:
    return isinstance(error, Forbidden) and bool(_NOT_YET.search(error.why))
