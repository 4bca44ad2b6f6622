"""provision/preflight.py: what a quota profile says of kinds and priorities, before anything is written."""

from __future__ import annotations

from typing import Any

import pytest

from sandbox.model.errors import Refused
from sandbox.model.objects import Manifest
from sandbox.project.quotas import QuotaProfile
from sandbox.provision.preflight import check_kinds, check_priority


def profile(**more: Any) -> QuotaProfile:
    data = {"apiVersion": "sandbox.dev/v1", "kind": "QuotaProfile", "name": "tiny", "resourceQuota": {"pods": "5"}}
    return QuotaProfile.model_validate({**data, **more}, strict=False)


def thing(kind: str, api: str = "v1", **spec: Any) -> Manifest:
    return {"apiVersion": api, "kind": kind, "metadata": {"name": "it"}, "spec": spec}


DEPLOYMENT = thing("Deployment", "apps/v1")
ROLE = thing("ClusterRole", "rbac.authorization.k8s.io/v1")


@pytest.mark.parametrize(
    ("rules", "manifest", "permitted"),
    [
        ({}, DEPLOYMENT, True),
        ({"forbiddenKinds": ["Deployment.apps"]}, DEPLOYMENT, False),
        ({"forbiddenKinds": ["Deployment"]}, DEPLOYMENT, True),
        ({"forbiddenKinds": ["Service"]}, thing("Service"), False),
        ({"allowedKinds": ["Deployment.apps"]}, DEPLOYMENT, True),
        ({"allowedKinds": ["Deployment.apps"]}, thing("Service"), False),
        ({"allowedKinds": ["Service"], "allowedClusterScoped": ["ClusterRole.rbac.authorization.k8s.io"]}, ROLE, True),
        # The guardrails are the sandbox's own.
        ({"allowedKinds": ["ResourceQuota"]}, thing("ResourceQuota"), False),
        ({}, thing("LimitRange"), False),
    ],
)
def test_a_profile_says_which_kinds_may_come(rules: dict[str, Any], manifest: Manifest, permitted: bool) -> None:
    if permitted:
        check_kinds({"web": [manifest]}, profile(**rules))
        return
    with pytest.raises(Refused, match="tiny does not permit") as refused:
        check_kinds({"web": [manifest]}, profile(**rules))
    assert refused.value.why.startswith(f"web: {manifest['kind'].lower()}")


EPHEMERAL = {"name": "scratch", "ephemeral": {"volumeClaimTemplate": {"spec": {}}}}


@pytest.mark.parametrize(
    "manifest",
    [
        thing("StatefulSet", "apps/v1", volumeClaimTemplates=[{"metadata": {"name": "data"}}]),
        thing("Deployment", "apps/v1", template={"spec": {"containers": [], "volumes": [EPHEMERAL]}}),
        thing("Pod", containers=[], volumes=[EPHEMERAL]),
    ],
)
def test_a_profile_without_claims_lets_no_template_of_one_in(manifest: Manifest) -> None:
    check_kinds({"db": [manifest]}, profile())
    check_kinds({"db": [DEPLOYMENT]}, profile(forbiddenKinds=["PersistentVolumeClaim"]))
    with pytest.raises(Refused, match="tiny does not permit") as refused:
        check_kinds({"db": [manifest]}, profile(forbiddenKinds=["PersistentVolumeClaim"]))
    assert refused.value.why.endswith("its template of a PersistentVolumeClaim")


@pytest.mark.parametrize(
    ("named", "permitted"), [(None, True), ("", True), ("sandboxes", True), ("system-node-critical", False)]
)
def test_a_profile_says_which_priority_pods_may_name(named: str | None, permitted: bool) -> None:
    pods = {"template": {"spec": {"containers": [], **({} if named is None else {"priorityClassName": named})}}}
    found = {"web": [thing("Deployment", "apps/v1", **pods)]}

    check_priority(found, profile())
    if permitted:
        check_priority(found, profile(priorityClassName="sandboxes"))
        return
    with pytest.raises(Refused, match="no PriorityClass but sandboxes") as refused:
        check_priority(found, profile(priorityClassName="sandboxes"))
    assert "web: deployment.apps/it: priorityClassName: system-node-critical" in refused.value.why
