"""What the API server itself holds sandboxes to, where the chart is installed: every way round it that we know, tried.

Requests go to the API server as they are: nothing of ours stands between. People are told apart by `platform_cluster`:
`dana` and `mallory` are developers; `strong` may do everything as far as RBAC goes, so what is refused to her is
refused by a policy; `stranger` has nothing to do with sandboxes.
"""

from __future__ import annotations

import asyncio
import base64
import json
import os
import re
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from sandbox.cluster.providers.embedded.provider import EmbeddedProvider
from sandbox.model import labels
from sandbox.model.durations import to_rfc3339
from sandbox.model.sandbox import Phase
from sandbox.provision.guardrails import guardrails
from tests.conftest import TEST_CLUSTER, kubectl
from tests.e2e.api import api_of
from tests.e2e.bounded import until
from tests.e2e.handmade import LOCK, definition
from tests.e2e.people import Manifest, Person, by_token
from tests.e2e.platform_cluster import (
    DOMAIN,
    VALUES,
    Ground,
    account,
    bindings,
    changed,
    config_map,
    group,
    inside,
    install,
    lay_ground,
    network_policies,
    path_of,
    pod,
    service,
    user,
)
from tests.e2e.preloaded import Preloaded
from tests.e2e.projects import GitProject, Tool, documents, temporary_project
from tests.e2e.projects import config_map as settings_map
from tests.e2e.projects import deployment as workload_of
from tests.e2e.projects import service as service_of

# A cluster of its own: these policies hold for the whole of it.
_NAME = os.environ.get("SANDBOX_TEST_ADMISSION_CLUSTER", f"{TEST_CLUSTER}-adm")
PROFILES = ["small", "medium", "large", "tight"]


@pytest.fixture(scope="module")
def ground(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ground]:
    """A control plane with the chart on it; deleted afterwards, unless the caller named one."""
    if reason := EmbeddedProvider().available():
        pytest.skip(f"no embedded cluster: {reason}")
    info = asyncio.run(EmbeddedProvider().create(_NAME, control_plane_only=True, progress=print))
    made = lay_ground(info, tmp_path_factory.mktemp("people"))
    classes = [("other", 10), ("sandboxes", 1)]
    for name, value in classes:
        document = (
            f"{{apiVersion: scheduling.k8s.io/v1, kind: PriorityClass, metadata: {{name: {name}}}, value: {value}}}"
        )
        kubectl(info, "apply", "-f", "-", stdin=document)
    yield made
    made.clear()
    if "SANDBOX_TEST_ADMISSION_CLUSTER" not in os.environ:
        asyncio.run(EmbeddedProvider().delete(_NAME, print))


@pytest.fixture(scope="module")
def mine(ground: Ground) -> str:
    """Dana's sandbox of the profile small: whole. No test here changes it, for all is refused."""
    return ground.sandbox(ground.dana)


@pytest.fixture(scope="module")
def tight(ground: Ground) -> str:
    """Dana's sandbox of the profile tight: whole."""
    return ground.sandbox(ground.dana, "tight")


def after(**delta: float) -> str:
    return to_rfc3339(datetime.now(UTC) + timedelta(**delta))


# --- what must work -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("profile", PROFILES)
def test_the_guardrails_that_the_tool_makes_of_a_profile_are_the_ones_that_are_held(
    ground: Ground, profile: str
) -> None:
    """The chart writes the profiles down in CEL, the tool in Python: they must mean the same."""
    name = ground.sandbox(ground.dana, profile)

    for rail in guardrails(ground.profile(profile), name):
        ground.dana.apply(path_of(rail), rail).ok()


def test_a_developer_makes_a_sandbox_works_in_it_and_deletes_it(ground: Ground) -> None:
    name = ground.sandbox(ground.dana)
    dana = ground.dana

    dana.create(inside(name, "pods"), pod(name, "web")).ok()
    dana.create(inside(name, "configmaps"), config_map(name, "settings")).ok()
    dana.merge(f"/api/v1/namespaces/{name}", note(**{labels.EXPIRES_AT: after(hours=3)})).ok()
    dana.merge(f"/api/v1/namespaces/{name}", note(**{labels.PHASE: "Ready", labels.PINNED_UNTIL: after(hours=4)})).ok()
    dana.delete(f"/api/v1/namespaces/{name}").ok()


def test_the_tool_may_write_every_phase_of_its_own(ground: Ground) -> None:
    path = f"/api/v1/namespaces/{ground.sandbox(ground.dana)}"

    for phase in set(Phase) - {Phase.TERMINATING, Phase.UNKNOWN}:
        ground.dana.merge(path, note(**{labels.PHASE: phase, labels.AWAKE: "Ready"})).ok()


def test_a_service_account_owns_a_sandbox_too(ground: Ground) -> None:
    name = ground.sandbox(ground.robot)

    ground.robot.create(inside(name, "configmaps"), config_map(name, "settings")).ok()


def test_a_deleted_sandbox_goes_with_its_guardrails(ground: Ground) -> None:
    name = ground.sandbox(ground.dana)
    ground.dana.delete(f"/api/v1/namespaces/{name}").ok()

    def gone() -> bool | None:
        return True if api_of(ground.info).get("ns", name) is None else None

    until(gone, f"{name} is gone, with what the policies protect", 90)


def test_the_guardrails_are_not_deleted_while_the_sandbox_ends(ground: Ground) -> None:
    """Its pods end first, and have the network until then."""
    name = ground.sandbox(ground.dana)
    ground.admin.create(inside(name, "pods"), pod(name, "held")).ok()
    ground.admin.merge(inside(name, "pods/held"), {"metadata": {"finalizers": ["example.com/hold"]}}).ok()
    ground.dana.delete(f"/api/v1/namespaces/{name}").ok()

    def ending() -> bool | None:
        metadata = ground.admin.get(inside(name, "pods/held")).ok()["metadata"]
        return True if "deletionTimestamp" in metadata else None

    try:
        until(ending, f"the pod of {name} is being deleted", 30)
        ground.dana.delete(network_policies(name, "/sandbox-default-deny")).refused("cannot be deleted")
        ground.dana.delete(inside(name, "configmaps/sandbox-record")).refused("cannot be deleted")
    finally:
        ground.admin.merge(inside(name, "pods/held"), {"metadata": {"finalizers": None}}).ok()


def test_ci_makes_a_sandbox_for_somebody_and_both_work_in_it(ground: Ground) -> None:
    ci, dana = ground.ci, ground.dana
    manifest = ground.manifest(ci, annotations={labels.OWNER_USER: dana.user})
    name = ground.create(ci, manifest).ok()["metadata"]["name"]
    both = ground.binding(name, user(dana.user), account("ci", "deployer"))
    ci.create(bindings(name), both).ok()

    for person in (ci, dana):
        read = lambda person=person: True if person.get(inside(name, "secrets")).status == 200 else None  # noqa: E731
        until(read, f"{person.user} works in {name}", 10)


def test_a_group_owns_a_sandbox(ground: Ground) -> None:
    notes = {labels.OWNER_USER: None, labels.OWNER_GROUP: "sandbox-developers"}
    name = ground.create(ground.dana, ground.manifest(ground.dana, annotations=notes)).ok()["metadata"]["name"]

    # Anybody of the group may take it up, for the group.
    ground.mallory.create(bindings(name), ground.binding(name, group("sandbox-developers"))).ok()


def test_charts_bring_roles_and_further_network_policies(ground: Ground, mine: str) -> None:
    role = {"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "Role", "metadata": {"name": "reader"}}
    rules = [{"apiGroups": [""], "resources": ["pods"], "verbs": ["get"]}]
    api = inside(mine, "roles", "apis/rbac.authorization.k8s.io/v1")
    ground.dana.create(api, {**role, "rules": rules}).ok()
    binding = ground.binding(mine, account(mine, "default"), role="reader")
    binding["roleRef"]["kind"] = "Role"
    ground.dana.create(bindings(mine), binding).ok()
    ground.dana.create(bindings(mine), ground.binding(mine, account(mine, "default"), role="view")).ok()
    peers = [{"podSelector": {"matchLabels": {"app": "web"}}}, own_namespace(mine)]
    ground.dana.create(network_policies(mine), policy("chart", ingress=[{"from": peers}])).ok()
    ground.dana.create(network_policies(mine), policy("deny", ingress=[], egress=[], types=("Ingress", "Egress"))).ok()


def test_hosts_of_its_own_are_a_sandboxs_to_take(ground: Ground, mine: str) -> None:
    for host in (f"{mine}.{DOMAIN}", f"web.{mine}.{DOMAIN}"):
        ground.dana.create(ingresses(mine), ingress(host.replace(".", "-"), host), dryRun="All").ok()


# --- making a sandbox otherwise than one must -----------------------------------------------------------------

CREATIONS: dict[str, tuple[Callable[[], dict[str, Any]], str]] = {
    "not a sandbox at all": (lambda: {"labels": {labels.MANAGED_BY: None}}, "sandboxes only"),
    "managed by another tool": (lambda: {"labels": {labels.MANAGED_BY: "helm"}}, "sandboxes only"),
    "under another's name": (lambda: {"annotations": {labels.OWNER_USER: "mallory@example.com"}}, "owner-user"),
    "made by another": (lambda: {"annotations": {labels.CREATED_BY: "mallory@example.com"}}, "created-by"),
    "of nobody": (lambda: {"annotations": {labels.OWNER_USER: None}}, "exactly one"),
    "of a group that is not mine": (
        lambda: {"annotations": {labels.OWNER_USER: None, labels.OWNER_GROUP: "platform-team"}},
        "a group of yours",
    ),
    "of everybody": (
        lambda: {"annotations": {labels.OWNER_USER: None, labels.OWNER_GROUP: "system:authenticated"}},
        "own no sandboxes",
    ),
    "of two": (lambda: {"annotations": {labels.OWNER_GROUP: "sandbox-developers"}}, "exactly one"),
    "of an unknown profile": (lambda: {"annotations": {labels.QUOTA_PROFILE: "unlimited"}}, "quota-profile"),
    "of no profile": (lambda: {"annotations": {labels.QUOTA_PROFILE: None}}, "quota-profile"),
    "without an end": (lambda: {"annotations": {labels.EXPIRES_AT: None}}, "expires-at"),
    "with an end that nobody can read": (lambda: {"annotations": {labels.EXPIRES_AT: "next week"}}, "expires-at"),
    "with an end on no calendar": (lambda: {"annotations": {labels.EXPIRES_AT: "2030-13-45T00:00:00Z"}}, ""),
    "with an end in local time": (lambda: {"annotations": {labels.EXPIRES_AT: "2030-01-01T00:00:00"}}, "expires-at"),
    "without a longest life": (lambda: {"annotations": {labels.MAX_EXPIRES_AT: None}}, "max-expires-at"),
    "with a longer life than the profile's": (
        lambda: {"annotations": {labels.MAX_EXPIRES_AT: after(days=15)}},
        "max-expires-at",
    ),
    "with an end after the longest life": (lambda: {"annotations": {labels.EXPIRES_AT: after(days=2)}}, "no later"),
    "with a first end after maxTTL": (
        lambda: {"annotations": {labels.EXPIRES_AT: after(days=5), labels.MAX_EXPIRES_AT: after(days=13)}},
        "maxTTL",
    ),
    "pinned for a century": (lambda: {"annotations": {labels.PINNED_UNTIL: after(days=36_500)}}, "pinned-until"),
    "created tomorrow": (lambda: {"annotations": {labels.CREATED_AT: after(days=1)}}, "created-at"),
    "created last year": (lambda: {"annotations": {labels.CREATED_AT: after(days=-365)}}, "created-at"),
    "ready from the beginning": (lambda: {"annotations": {labels.PHASE: "Ready"}}, "phase"),
    "with another namespace's annotation": (lambda: {"annotations": {labels.NAMESPACE: "shop"}}, "own name"),
    "without a name": (lambda: {"labels": {labels.NAME: None}}, "sandbox.dev/name"),
    "called as another's sandbox": (lambda: {"labels": {labels.NAME: "mallory-shop"}}, "sandbox.dev/name"),
    "without pod security": (lambda: {"labels": {"pod-security.kubernetes.io/enforce": None}}, "pod-security"),
    "with less pod security": (
        lambda: {"labels": {"pod-security.kubernetes.io/enforce": "privileged"}},
        "pod-security",
    ),
    "with pod security of an older version": (
        lambda: {"labels": {"pod-security.kubernetes.io/enforce-version": "v1.20"}},
        "labels",
    ),
    "let into everybody's sandboxes": (lambda: {"labels": {"sandbox.dev/allow-ingress": "true"}}, "labels"),
    "trusted by another team": (lambda: {"labels": {"team": "payments"}}, "labels"),
    "with a long story": (lambda: {"annotations": {"sandbox.dev/x": "a" * 2049}}, "2048 bytes"),
    "with many stories": (lambda: {"annotations": {f"sandbox.dev/x{i}": "" for i in range(40)}}, "40 annotations"),
    "with rights in the cloud": (lambda: {"annotations": {"iam.amazonaws.com/permitted": ".*"}}, "annotations"),
    "on nodes of its choice": (
        lambda: {"annotations": {"scheduler.alpha.kubernetes.io/node-selector": "pool=gpu"}},
        "annotations",
    ),
    "that never ends": (lambda: {"finalizers": ["example.com/never"]}, "finalizers"),
    "that is owned": (
        lambda: {"ownerReferences": [{"apiVersion": "v1", "kind": "Node", "name": "n", "uid": "u"}]},
        "owned by no object",
    ),
}


@pytest.mark.parametrize("way", CREATIONS)
def test_no_sandbox_is_made(ground: Ground, way: str) -> None:
    changes, words = CREATIONS[way]

    ground.create(ground.dana, ground.manifest(ground.dana, **changes())).refused(words)


def test_no_sandbox_is_made_under_a_name_of_the_system(ground: Ground) -> None:
    for name in ("kube-mine", "sandbox-system", "openshift-mine", "istio-mine", "gatekeeper-system", "monitoring"):
        here: dict[str, Any] = {"name": name, "labels": {labels.NAME: name}, "annotations": {labels.NAMESPACE: name}}
        ground.create(ground.dana, ground.manifest(ground.dana, **here)).refused("not for sandboxes")


@pytest.mark.parametrize("name", ["ci", "robots", "shared-kafka"])
def test_no_sandbox_is_made_under_a_name_to_which_the_values_give_something(ground: Ground, name: str) -> None:
    """Its ServiceAccounts would be CI, or its pods what others' sandboxes may reach."""
    here: dict[str, Any] = {"name": name, "labels": {labels.NAME: name}, "annotations": {labels.NAMESPACE: name}}

    ground.create(ground.dana, ground.manifest(ground.dana, **here)).refused("not for sandboxes")


def test_no_sandbox_is_made_that_kubernetes_would_not_end(ground: Ground) -> None:
    manifest = {**ground.manifest(ground.dana), "spec": {"finalizers": ["example.com/never"]}}

    ground.create(ground.dana, manifest).refused("finalizers")


def test_no_sandbox_is_made_for_another_by_the_strong_either(ground: Ground) -> None:
    changes: dict[str, Any] = {"annotations": {labels.OWNER_USER: "dana@example.com"}}

    ground.create(ground.strong, ground.manifest(ground.strong, **changes)).refused("owner-user")


def test_ci_does_not_say_that_another_made_it(ground: Ground) -> None:
    changes: dict[str, Any] = {
        "annotations": {labels.OWNER_USER: "dana@example.com", labels.CREATED_BY: "dana@example.com"}
    }

    ground.create(ground.ci, ground.manifest(ground.ci, **changes)).refused("created-by")


def test_ci_gives_no_sandbox_to_the_system(ground: Ground) -> None:
    changes: dict[str, Any] = {"annotations": {labels.OWNER_USER: "system:admin"}}

    ground.create(ground.ci, ground.manifest(ground.ci, **changes)).refused("own no sandboxes")


# --- changing one ---------------------------------------------------------------------------------------------


def note(**notes: str | None) -> Manifest:
    return {"metadata": {"annotations": notes}}


def label(**more: str | None) -> Manifest:
    return {"metadata": {"labels": more}}


CHANGES: dict[str, tuple[Callable[[], Manifest], str]] = {
    "take off the label": (lambda: label(**{labels.MANAGED_BY: None}), "labels"),
    "change the label": (lambda: label(**{labels.MANAGED_BY: "Sandbox"}), "labels"),
    "be let into others' sandboxes": (lambda: label(**{"sandbox.dev/allow-ingress": "true"}), "labels"),
    "take another's name": (lambda: label(**{labels.NAME: "mallory-shop"}), "labels"),
    "lower pod security": (lambda: label(**{"pod-security.kubernetes.io/enforce": "privileged"}), "pod-security"),
    "take off pod security": (lambda: label(**{"pod-security.kubernetes.io/enforce": None}), "pod-security"),
    "pin pod security to an old version": (
        lambda: label(**{"pod-security.kubernetes.io/enforce-version": "v1.20"}),
        "labels",
    ),
    "live longer than the longest life": (lambda: note(**{labels.EXPIRES_AT: after(days=2)}), "no later"),
    "extend the longest life": (lambda: note(**{labels.MAX_EXPIRES_AT: after(days=5)}), "never change"),
    "take off the longest life": (lambda: note(**{labels.MAX_EXPIRES_AT: None}), "max-expires-at"),
    "take off the end": (lambda: note(**{labels.EXPIRES_AT: None}), "expires-at"),
    "spoil the end": (lambda: note(**{labels.EXPIRES_AT: "never"}), "expires-at"),
    "spoil the end by a thirteenth month": (lambda: note(**{labels.EXPIRES_AT: "2030-13-01T00:00:00Z"}), ""),
    "spoil the pin": (lambda: note(**{labels.PINNED_UNTIL: "forever"}), "pinned-until"),
    "pin for ever": (lambda: note(**{labels.PINNED_UNTIL: "9999-12-31T23:59:59Z"}), "pinned-until"),
    "give it away": (lambda: note(**{labels.OWNER_USER: "mallory@example.com"}), "never change"),
    "choose another profile": (lambda: note(**{labels.QUOTA_PROFILE: "large"}), "never change"),
    "be younger": (lambda: note(**{labels.CREATED_AT: after(hours=-1)}), "never change"),
    "be another namespace": (lambda: note(**{labels.NAMESPACE: "kube-system"}), "never change"),
    "keep it from ending": (lambda: {"metadata": {"finalizers": ["example.com/never"]}}, "finalizers"),
    "tell a long story": (lambda: note(**{"sandbox.dev/x": "é" * 1025}), "2048 bytes"),
    "tell many stories": (lambda: note(**{f"sandbox.dev/x{i}": "" for i in range(40)}), "40 annotations"),
    "say that it is ending": (lambda: note(**{labels.PHASE: "Terminating"}), "phase"),
    "say what no terminal should show": (lambda: note(**{labels.PHASE: "\x1b[2J"}), "phase"),
    "have rights in the cloud": (lambda: note(**{"iam.amazonaws.com/permitted": ".*"}), "annotations"),
}


@pytest.mark.parametrize("way", CHANGES)
def test_a_sandbox_does_not_change(ground: Ground, mine: str, way: str) -> None:
    change, words = CHANGES[way]

    ground.dana.merge(f"/api/v1/namespaces/{mine}", change()).refused(words)


def test_a_sandbox_does_not_change_through_the_back_doors_of_its_namespace(ground: Ground, mine: str) -> None:
    path = f"/api/v1/namespaces/{mine}"
    without = changed(ground.dana.get(path).ok(), {"labels": {labels.MANAGED_BY: None}})

    for door in ("finalize", "status"):
        # Dana has no right to them; where somebody has it, the policy holds.
        ground.dana.ask("PUT", f"{path}/{door}", without).refused("cannot")
        ground.strong.ask("PUT", f"{path}/{door}", without).refused("status and finalizers")
    ground.strong.merge(f"{path}/status", label(**{labels.MANAGED_BY: None})).refused("status and finalizers")


def test_a_sandbox_is_replaced_as_little_as_it_is_patched(ground: Ground, mine: str) -> None:
    path = f"/api/v1/namespaces/{mine}"
    without = changed(ground.dana.get(path).ok(), {"labels": {labels.MANAGED_BY: None}})

    ground.dana.ask("PUT", path, without).refused("labels")
    bare = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": mine}}
    # Owned by nobody so far, so applying it empty takes nothing off; with the label in another spelling it would.
    ground.dana.apply(path, {**bare, "metadata": {"name": mine, "labels": {labels.MANAGED_BY: "x"}}}).refused("labels")


def test_another_developers_sandbox_is_out_of_reach(ground: Ground, mine: str) -> None:
    mallory = ground.mallory

    mallory.get(f"/api/v1/namespaces/{mine}").refused("cannot get")
    mallory.merge(f"/api/v1/namespaces/{mine}", note(**{labels.EXPIRES_AT: after(hours=1)})).refused("cannot patch")
    mallory.delete(f"/api/v1/namespaces/{mine}").refused("cannot delete")
    mallory.get(inside(mine, "secrets")).refused("cannot list")
    mallory.create(inside(mine, "pods"), pod(mine, "mine-now")).refused("cannot create")


# --- rights ---------------------------------------------------------------------------------------------------


def test_nobody_takes_ownership_of_anothers_sandbox(ground: Ground, mine: str) -> None:
    for subject in (user(ground.mallory.user), user(ground.dana.user), account(mine, "default")):
        ground.mallory.create(bindings(mine), ground.binding(mine, subject)).refused("not yours")


def test_a_developer_makes_no_role_bindings_outside_of_sandboxes(ground: Ground) -> None:
    for namespace in ("default", "kube-system", "sandbox-system", ground.stranger_namespace):
        binding = ground.binding(namespace, user(ground.dana.user))
        ground.dana.create(bindings(namespace), binding).refused("in your sandboxes only")


def test_a_developer_spreads_the_developers_role_nowhere(ground: Ground, mine: str) -> None:
    """A right that one has oneself may be bound, says RBAC: the policies say where and which."""
    ground.dana.create(bindings("default"), ground.binding("default", user("x"), role="sandbox-developer")).refused()
    binding = ground.binding(mine, account(mine, "default"), role="sandbox-developer")
    ground.dana.create(bindings(mine), binding).refused("ClusterRoles")


SUBJECTS: dict[str, Manifest] = {
    "everybody": group("system:authenticated"),
    "anybody": group("system:unauthenticated"),
    "nobody in particular": user("system:anonymous"),
    "a colleague": user("mallory@example.com"),
    "all developers": group("sandbox-developers"),
    "all ServiceAccounts": group("system:serviceaccounts"),
    "the ServiceAccounts as a group": group("system:serviceaccounts:kube-system"),
    "another namespace's ServiceAccount": account("kube-system", "default"),
    "a group without a name": group(""),
}


@pytest.mark.parametrize("who", SUBJECTS)
def test_an_owner_lets_nobody_else_in(ground: Ground, mine: str, who: str) -> None:
    answer = ground.dana.create(bindings(mine), ground.binding(mine, SUBJECTS[who]))
    if who == "a group without a name":
        assert answer.status in (403, 422)
    else:
        answer.refused("owner, its creator")
    ground.dana.create(bindings(mine), ground.binding(mine, SUBJECTS[who], role="view")).refused()


def test_an_owner_lets_nobody_in_by_changing_a_binding(ground: Ground, mine: str) -> None:
    made = ground.dana.create(bindings(mine), ground.binding(mine, account(mine, "default"))).ok()
    path = f"{bindings(mine)}/{made['metadata']['name']}"

    ground.dana.merge(path, {"subjects": [group("system:authenticated")]}).refused("owner, its creator")


def test_a_role_binding_has_no_crowd_of_subjects(ground: Ground, mine: str) -> None:
    crowd = [account(mine, f"a{number}") for number in range(21)]

    ground.dana.create(bindings(mine), ground.binding(mine, *crowd)).refused("20 subjects")
    ground.dana.create(bindings(mine), ground.binding(mine, *crowd[:20]), dryRun="All").ok()


@pytest.mark.parametrize("role", ["cluster-admin", "admin", "edit", "system:node"])
def test_an_owner_binds_no_strong_role(ground: Ground, mine: str, role: str) -> None:
    ground.dana.create(bindings(mine), ground.binding(mine, user(ground.dana.user), role=role)).refused()
    # As far as RBAC goes she could.
    binding = ground.binding(mine, account(mine, "default"), role=role)
    ground.strong.create(bindings(mine), binding).refused("ClusterRoles")


def test_an_owner_makes_no_role_that_is_more_than_they_are(ground: Ground, mine: str) -> None:
    role = {"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "Role", "metadata": {"name": "more"}}
    rules = [{"apiGroups": [""], "resources": ["resourcequotas/status"], "verbs": ["update"]}]

    answer = ground.dana.create(inside(mine, "roles", "apis/rbac.authorization.k8s.io/v1"), {**role, "rules": rules})
    answer.refused("attempting to grant RBAC permissions not currently held")


# --- guardrails -----------------------------------------------------------------------------------------------


def quota(namespace: str, rest: str = "resourcequotas/sandbox") -> str:
    return inside(namespace, rest)


GUARDRAILS: dict[str, tuple[str, Manifest, str]] = {
    "raise a limit": ("resourcequotas/sandbox", {"spec": {"hard": {"pods": "1000"}}}, "quota profile small"),
    "take off a limit": ("resourcequotas/sandbox", {"spec": {"hard": {"pods": None}}}, "quota profile small"),
    "add a limit that hides another": (
        "resourcequotas/sandbox",
        {"spec": {"hard": {"count/pods": "1"}}},
        "quota profile small",
    ),
    "let the quota count some pods only": (
        "resourcequotas/sandbox",
        {"spec": {"scopes": ["Terminating"], "hard": {"pods": "20"}}},
        "",
    ),
    "raise the default of containers": (
        "limitranges/sandbox",
        {"spec": {"limits": [{"type": "Container", "default": {"cpu": "8", "memory": "8Gi"}}]}},
        "quota profile small",
    ),
    "empty the LimitRange": ("limitranges/sandbox", {"spec": {"limits": []}}, "quota profile small"),
}


@pytest.mark.parametrize("way", GUARDRAILS)
def test_a_guardrail_does_not_change(ground: Ground, mine: str, way: str) -> None:
    path, patch, words = GUARDRAILS[way]

    ground.dana.merge(inside(mine, path), patch).refused(words)


@pytest.mark.parametrize("rail", ["resourcequotas/sandbox", "limitranges/sandbox"])
def test_a_guardrail_is_not_deleted(ground: Ground, mine: str, rail: str) -> None:
    ground.dana.delete(inside(mine, rail)).refused()
    ground.strong.delete(inside(mine, rail)).refused("cannot be deleted")


def test_the_network_policy_is_not_deleted(ground: Ground, mine: str) -> None:
    ground.dana.delete(network_policies(mine, "/sandbox-default-deny")).refused("cannot be deleted")


RAILS = {
    "resourcequotas/sandbox": "api/v1",
    "limitranges/sandbox": "api/v1",
    "networkpolicies/sandbox-default-deny": "apis/networking.k8s.io/v1",
    "configmaps/sandbox-record": "api/v1",
}
# Owned by what is not there: the garbage collector, which may do everything, deletes it.
ORPHANED = [{"apiVersion": "v1", "kind": "ConfigMap", "name": "no", "uid": "11111111-2222-3333-4444-555555555555"}]


@pytest.mark.parametrize("rail", RAILS)
def test_a_guardrail_is_not_left_to_the_garbage_collector(ground: Ground, mine: str, rail: str) -> None:
    path = inside(mine, rail, RAILS[rail])

    ground.dana.merge(path, {"metadata": {"ownerReferences": ORPHANED}}).refused("owned by no object")
    ground.dana.merge(path, {"metadata": {"finalizers": ["example.com/hold"]}}).refused("no finalizers")


def test_no_guardrail_is_made_for_the_garbage_collector(ground: Ground) -> None:
    name = ground.own(ground.dana)
    for rail in guardrails(ground.profile("small"), name):
        owned = changed(rail, {"ownerReferences": ORPHANED})
        ground.dana.apply(path_of(owned), owned).refused("owned by no object")
        ground.dana.apply(path_of(rail), rail).ok()
    uid = ground.dana.get(f"/api/v1/namespaces/{name}").ok()["metadata"]["uid"]
    record = changed(config_map(name, "sandbox-record", namespaceUID=uid), {"ownerReferences": ORPHANED})
    ground.dana.create(inside(name, "configmaps"), record).refused("owned by no object")


def test_guardrails_are_not_deleted_all_together(ground: Ground, mine: str) -> None:
    for path in (inside(mine, "resourcequotas"), inside(mine, "limitranges"), network_policies(mine)):
        ground.strong.delete(path).refused("cannot be deleted")
    for kind in ("resourcequota", "limitrange"):
        assert kubectl(ground.info, "get", kind, "sandbox", "-n", mine, "-o", "name").strip()


def test_the_status_of_the_quota_is_not_written(ground: Ground, mine: str) -> None:
    """A limit is what the status says, until the controller looks again."""
    path = inside(mine, "resourcequotas/sandbox/status")
    patch = {"status": {"hard": {"pods": "1000"}}}

    ground.dana.merge(path, patch).refused("cannot patch")
    ground.strong.merge(path, patch).refused("the system's")


def test_another_profiles_guardrails_are_not_this_ones(ground: Ground) -> None:
    name = ground.own(ground.dana, "small")

    for rail in guardrails(ground.profile("large"), name):
        if rail["kind"] == "ResourceQuota":
            ground.dana.apply(path_of(rail), rail).refused("quota profile small")
    for rail in guardrails(ground.profile("tight"), name):
        ground.dana.apply(path_of(rail), rail).refused("quota profile small")


def own_namespace(name: str) -> Manifest:
    return {"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": name}}}


def policy(
    name: str,
    *,
    ingress: list[Manifest] | None = None,
    egress: list[Manifest] | None = None,
    types: tuple[str, ...] = ("Ingress",),
) -> Manifest:
    spec: Manifest = {"podSelector": {}, "policyTypes": list(types)}
    spec |= {"ingress": ingress} if ingress is not None else {}
    spec |= {"egress": egress} if egress is not None else {}
    return {"apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy", "metadata": {"name": name}, "spec": spec}


WIDE: dict[str, Manifest] = {
    "everybody": {},
    "everybody, spelt out": {"from": []},
    "all namespaces": {"from": [{"namespaceSelector": {}}]},
    "all addresses": {"from": [{"ipBlock": {"cidr": "0.0.0.0/0"}}]},
    "another namespace": {"from": [{"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "default"}}}]},
    "all namespaces but one": {
        "from": [
            {
                "namespaceSelector": {
                    "matchExpressions": [{"key": "kubernetes.io/metadata.name", "operator": "NotIn", "values": ["x"]}]
                }
            }
        ]
    },
    "ours and all": {"from": [{"podSelector": {}}, {"namespaceSelector": {}, "podSelector": {}}]},
}


@pytest.mark.parametrize("whom", WIDE)
def test_one_more_network_policy_lets_nobody_in(ground: Ground, mine: str, whom: str) -> None:
    ground.dana.create(network_policies(mine), policy("more", ingress=[WIDE[whom]])).refused("further NetworkPolicy")


def test_the_network_policy_is_not_widened(ground: Ground, mine: str) -> None:
    path = network_policies(mine, "/sandbox-default-deny")

    ground.dana.merge(path, {"spec": {"ingress": [{}]}}).refused("quota profile small")
    ground.dana.merge(path, {"spec": {"podSelector": {"matchLabels": {"app": "none"}}}}).refused("quota profile small")
    ground.dana.merge(path, {"spec": {"policyTypes": ["Egress"]}}).refused("quota profile small")


@pytest.mark.parametrize(
    "rule", [{}, {"to": [{"ipBlock": {"cidr": "0.0.0.0/0"}}]}, {"to": [{"namespaceSelector": {}}]}]
)
def test_one_more_network_policy_lets_nothing_out_where_the_profile_says_what(
    ground: Ground, tight: str, rule: Manifest
) -> None:
    more = policy("more", egress=[rule], types=("Egress",))

    ground.dana.create(network_policies(tight), more).refused("let out")


# --- before the guardrails are there --------------------------------------------------------------------------


def test_nothing_is_made_until_the_guardrails_are_there(ground: Ground) -> None:
    name = ground.own(ground.dana)
    things = {
        "pods": pod(name, "early"),
        "services": service(name, "early"),
        "configmaps": config_map(name, "early"),
        "secrets": {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "early"}},
        "persistentvolumeclaims": claim("early"),
    }
    for plural, manifest in things.items():
        ground.dana.create(inside(name, plural), manifest).refused("-first")
    # Not even for those whom other policies do not bind: what makes pods for others must not either.
    ground.admin.create(inside(name, "pods"), pod(name, "early")).refused("-first")
    workload = {"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "early"}, "spec": deployment()}
    ground.dana.create(inside(name, "deployments", "apis/apps/v1"), workload).refused("-first")


FIRST = {
    "ResourceQuota": "sandbox-quota-first",
    "LimitRange": "sandbox-limits-first",
    "NetworkPolicy": "sandbox-network-first",
}


@pytest.mark.parametrize("missing", FIRST)
def test_nothing_is_made_while_one_guardrail_is_missing(ground: Ground, missing: str) -> None:
    name = ground.own(ground.dana)
    for rail in guardrails(ground.profile("small"), name):
        if rail["kind"] != missing:
            ground.dana.apply(path_of(rail), rail).ok()

    def said() -> bool | None:
        answer = ground.dana.create(inside(name, "configmaps"), config_map(name, "early"))
        answer.refused("-first")
        # One of those that refuse is named; the caches may lag behind what is there.
        return True if FIRST[missing] in answer.message else None

    until(said, f"{FIRST[missing]} is what refuses", 20)


def test_a_quota_of_another_name_is_not_the_quota(ground: Ground) -> None:
    name = ground.own(ground.dana)
    other = {"apiVersion": "v1", "kind": "ResourceQuota", "metadata": {"name": "mine"}, "spec": {"hard": {"pods": "9"}}}
    ground.dana.create(inside(name, "resourcequotas"), other).ok()

    ground.dana.create(inside(name, "pods"), pod(name, "early")).refused("-first")


def test_nothing_runs_without_the_record_by_which_the_clean_up_knows_it(ground: Ground) -> None:
    name = ground.own(ground.dana)
    for rail in guardrails(ground.profile("small"), name):
        ground.dana.apply(path_of(rail), rail).ok()

    def guarded() -> bool | None:
        answer = ground.dana.create(inside(name, "configmaps"), config_map(name, "probe"), dryRun="All")
        return True if answer.status == 200 else None

    until(guarded, "the guardrails are seen", 20)
    ground.dana.create(inside(name, "pods"), pod(name, "early")).refused("sandbox-record-first")
    false = config_map(name, "sandbox-record", namespaceUID="11111111-2222-3333-4444-555555555555")
    ground.dana.create(inside(name, "configmaps"), false).refused("namespace's UID")


def test_the_record_is_neither_spoilt_nor_deleted(ground: Ground, mine: str) -> None:
    """The clean-up leaves alone what no record shows to be a sandbox: that would be the way to live for ever."""
    path = inside(mine, "configmaps/sandbox-record")

    ground.dana.merge(path, {"data": {"namespaceUID": "x"}}).refused("namespace's UID")
    ground.dana.merge(path, {"data": {"namespaceUID": None}}).refused("namespace's UID")
    ground.dana.delete(path).refused("cannot be deleted")
    ground.dana.delete(inside(mine, "configmaps")).refused("cannot be deleted")
    ground.dana.merge(path, {"data": {"number": "2"}}).ok()


# --- what runs in it ------------------------------------------------------------------------------------------


def deployment() -> Manifest:
    template = {"metadata": {"labels": {"app": "x"}}, "spec": pod("", "")["spec"]}
    return {"replicas": 1, "selector": {"matchLabels": {"app": "x"}}, "template": template}


def claim(name: str) -> Manifest:
    spec = {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}}
    return {"apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": {"name": name}, "spec": spec}


def ingresses(namespace: str) -> str:
    return inside(namespace, "ingresses", "apis/networking.k8s.io/v1")


def ingress(name: str, host: str | None) -> Manifest:
    backend = {"service": {"name": "web", "port": {"number": 80}}}
    http = {"paths": [{"path": "/", "pathType": "Prefix", "backend": backend}]}
    rule = {"http": http, **({"host": host} if host else {})}
    metadata = {"name": name}
    return {"apiVersion": "networking.k8s.io/v1", "kind": "Ingress", "metadata": metadata, "spec": {"rules": [rule]}}


def without_limit(*resources: str) -> Manifest:
    """A container whose limits of these are 0, which is none."""
    nothing = dict.fromkeys(resources, "0")
    return {"name": "free", "image": "registry.invalid/none:1", "resources": {"requests": nothing, "limits": nothing}}


PODS: dict[str, tuple[Manifest, str]] = {
    "privileged": (
        {"containers": [{"name": "main", "image": "none", "securityContext": {"privileged": True}}]},
        "PodSecurity",
    ),
    "with the node's network": ({"hostNetwork": True}, "PodSecurity"),
    "with the node's files": ({"volumes": [{"name": "root", "hostPath": {"path": "/"}}]}, "PodSecurity"),
    "on a node of its choice": ({"nodeName": "control-plane"}, "nodeName"),
    "before all others": ({"priorityClassName": "system-node-critical"}, "PriorityClass"),
    "before some others": ({"priorityClassName": "other"}, "PriorityClass"),
    "without limits": ({"containers": [without_limit("cpu", "memory")]}, "a limit of 0 is no limit"),
    "without a limit of memory": ({"containers": [without_limit("memory")]}, "a limit of 0 is no limit"),
    "with an init container without limits": (
        {"initContainers": [without_limit("cpu")]},
        "a limit of 0 is no limit",
    ),
    "with a sidecar without limits": (
        {"initContainers": [{**without_limit("cpu", "memory"), "restartPolicy": "Always"}]},
        "a limit of 0 is no limit",
    ),
    "whose probe takes ten years": (
        {
            "containers": [
                {
                    "name": "main",
                    "image": "registry.invalid/none:1",
                    "livenessProbe": {"exec": {"command": ["x"]}, "terminationGracePeriodSeconds": 315_360_000},
                }
            ]
        },
        "300 seconds",
    ),
    "that takes a GPU": (
        {
            "containers": [
                {"name": "main", "image": "none", "resources": {"limits": {"nvidia.com/gpu": "1", "cpu": "1"}}},
            ]
        },
        "exceeded quota",
    ),
    "that takes ten years to end": ({"terminationGracePeriodSeconds": 315_360_000}, "300 seconds"),
}


@pytest.mark.parametrize("how", PODS)
def test_no_pod_runs(ground: Ground, mine: str, how: str) -> None:
    spec, words = PODS[how]

    ground.dana.create(inside(mine, "pods"), pod(mine, "bad", **spec)).refused(words)


def test_a_pod_of_a_controller_is_held_to_it_too(ground: Ground, mine: str) -> None:
    spec = deployment()
    spec["template"]["spec"]["priorityClassName"] = "other"
    workload = {"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "hurry"}, "spec": spec}
    ground.dana.create(inside(mine, "deployments", "apis/apps/v1"), workload).ok()

    def refused() -> str | None:
        jsonpath = "-o=jsonpath={.items[*].status.conditions[*].message}"
        said = kubectl(ground.info, "get", "replicasets", "-n", mine, jsonpath)
        return said if "PriorityClass" in said else None

    assert "sandbox-pods" in until(refused, "the ReplicaSet says why it has no pod", 30)
    ground.dana.delete(inside(mine, "deployments/hurry", "apis/apps/v1")).ok()


def test_a_pod_has_its_limits_ever_after(ground: Ground, mine: str) -> None:
    ground.dana.create(inside(mine, "pods"), pod(mine, "limited")).ok()
    free = {**without_limit("cpu"), "name": "main"}
    free["resources"] = {part: {"cpu": "0", "memory": "64Mi"} for part in ("requests", "limits")}

    patch = {"spec": {"containers": [free]}}
    ground.dana.ask(
        "PATCH", inside(mine, "pods/limited/resize"), patch, content_type="application/strategic-merge-patch+json"
    ).refused("a limit of 0 is no limit")


@pytest.fixture
def running(ground: Ground, mine: str) -> Iterator[Callable[..., None]]:
    """Makes pods that are on a node, as far as the API server knows: only those take their time to end."""
    node = f"none-{os.getpid()}"
    ground.admin.create("/api/v1/nodes", {"apiVersion": "v1", "kind": "Node", "metadata": {"name": node}}).ok()
    made: list[str] = []

    def run(name: str, **spec: Any) -> None:
        ground.dana.create(inside(mine, "pods"), pod(mine, name, **spec)).ok()
        made.append(name)
        target = {"apiVersion": "v1", "kind": "Node", "name": node}
        binding = {"apiVersion": "v1", "kind": "Binding", "metadata": {"name": name}, "target": target}
        ground.admin.create(inside(mine, f"pods/{name}/binding"), binding).ok()
        ground.admin.merge(inside(mine, f"pods/{name}/status"), {"status": {"phase": "Running"}}).ok()

    yield run
    for name in made:
        ground.admin.delete(inside(mine, f"pods/{name}"), gracePeriodSeconds="0")
    ground.admin.delete(f"/api/v1/nodes/{node}").ok()


def test_a_pod_does_not_take_years_to_end(ground: Ground, mine: str, running: Callable[..., None]) -> None:
    path = inside(mine, "pods/ending")
    running("ending", terminationGracePeriodSeconds=300)
    years = {"gracePeriodSeconds": 315_360_000}
    eviction = {"apiVersion": "policy/v1", "kind": "Eviction", "metadata": {"name": "ending", "namespace": mine}}

    ground.dana.delete(path, gracePeriodSeconds="315360000").refused("300 seconds")
    ground.dana.delete(inside(mine, "pods"), gracePeriodSeconds="315360000").refused("300 seconds")
    ground.dana.ask("DELETE", path, {"apiVersion": "v1", "kind": "DeleteOptions", **years}).refused("300 seconds")
    ground.dana.create(f"{path}/eviction", {**eviction, "deleteOptions": years}).refused("300 seconds")
    assert "deletionTimestamp" not in ground.dana.get(path).ok()["metadata"]
    ground.dana.create(f"{path}/eviction", {**eviction, "deleteOptions": {"dryRun": ["All"]}}).ok()
    ground.dana.delete(path).ok()


def test_a_pod_gets_no_privileged_container_afterwards(ground: Ground, mine: str) -> None:
    ground.dana.create(inside(mine, "pods"), pod(mine, "plain")).ok()
    path = inside(mine, "pods/plain/ephemeralcontainers")
    more = {"name": "debug", "image": "registry.invalid/none:1"}

    bad = {**more, "securityContext": {"privileged": True}}
    ground.dana.merge(path, {"spec": {"ephemeralContainers": [bad]}}).refused("PodSecurity")
    ground.dana.merge(path, {"spec": {"ephemeralContainers": [more]}}).ok()


SERVICES: dict[str, tuple[Manifest, str]] = {
    "on every node": ({"type": "NodePort"}, "exceeded quota"),
    "with a load balancer": ({"type": "LoadBalancer"}, "exceeded quota"),
    "with others' addresses": ({"externalIPs": ["10.0.0.1"]}, "externalIPs"),
    "by the name of another host": ({"type": "ExternalName", "externalName": "www.example.com"}, "ExternalName"),
    "by the name of an address": ({"type": "ExternalName", "externalName": "169.254.169.254"}, "ExternalName"),
    "by the API server's name": (
        {"type": "ExternalName", "externalName": "kubernetes.default.svc.cluster.local"},
        "ExternalName",
    ),
    "by a name of the system's": (
        {"type": "ExternalName", "externalName": "webhook.gatekeeper-system.svc.cluster.local"},
        "ExternalName",
    ),
}


@pytest.mark.parametrize("how", SERVICES)
def test_no_service_opens_a_sandbox(ground: Ground, mine: str, how: str) -> None:
    spec, words = SERVICES[how]

    ground.dana.create(inside(mine, "services"), service(mine, "bad", **spec)).refused(words)


def test_no_service_becomes_one_that_opens_a_sandbox(ground: Ground, mine: str) -> None:
    ground.dana.create(inside(mine, "services"), service(mine, "good")).ok()
    path = inside(mine, "services/good")

    ground.dana.merge(path, {"spec": {"externalIPs": ["10.0.0.1"]}}).refused("externalIPs")
    ground.dana.merge(path, {"spec": {"type": "NodePort"}}).refused("exceeded quota")
    outside = {"type": "ExternalName", "externalName": "www.example.com", "clusterIP": None, "clusterIPs": None}
    ground.dana.merge(path, {"spec": outside}).refused("ExternalName")


def test_no_claim_takes_a_volume_by_its_name_or_anothers_data(ground: Ground, mine: str) -> None:
    path = inside(mine, "persistentvolumeclaims")
    named, foreign, good = claim("named"), claim("foreign"), claim("good")
    named["spec"]["volumeName"] = "somebodys"
    source = {"apiGroup": "snapshot.storage.k8s.io", "kind": "VolumeSnapshot", "name": "x", "namespace": "default"}
    foreign["spec"]["dataSourceRef"] = source

    ground.dana.create(path, named).refused("volumeName")
    # Kubernetes forgets what it does not support (CrossNamespaceVolumeDataSource), or this policy refuses it.
    made = ground.dana.create(path, foreign, dryRun="All")
    assert made.status in (403, 422) or "namespace" not in made.body["spec"].get("dataSourceRef", {})
    ground.dana.create(path, good).ok()
    ground.dana.merge(f"{path}/good", {"spec": {"volumeName": "somebodys"}}).refused("volumeName")
    # The controller that binds claims is not held to it.
    ground.admin.merge(f"{path}/good", {"spec": {"volumeName": "its-own"}}).ok()
    ground.dana.merge(f"{path}/good", note(**{"example.com/any": "thing"})).ok()


FINALIZERS = ["example.com/never", "kubernetes.io/pvc-protection", "batch.kubernetes.io/job-tracking"]


@pytest.mark.parametrize("finalizer", FINALIZERS)
def test_an_owner_puts_on_no_finalizer_that_nobody_takes_off(ground: Ground, mine: str, finalizer: str) -> None:
    bad = changed(ground.binding(mine, account(mine, "default")), {"finalizers": [finalizer]})
    ground.dana.create(bindings(mine), bad).refused("no finalizers")
    plain = config_map(mine, f"plain-{FINALIZERS.index(finalizer)}")
    path = inside(mine, f"configmaps/{plain['metadata']['name']}")
    ground.dana.create(inside(mine, "configmaps"), plain).ok()
    ground.dana.merge(path, {"metadata": {"finalizers": [finalizer]}}).refused("no finalizers")


def test_no_template_brings_what_its_owner_may_not(ground: Ground, mine: str) -> None:
    """Controllers make what templates say with accounts of the system's."""
    held, tracked, named, kept = (deployment() for _ in range(4))
    held["template"] = changed(held["template"], {"finalizers": ["example.com/never"]})
    # It is the job controller's, which looks after pods of Jobs only.
    tracked["template"] = changed(tracked["template"], {"finalizers": ["batch.kubernetes.io/job-tracking"]})
    for spec, wrong in ((named, {"volumeName": "somebodys"}), (kept, {})):
        template = claim("data")
        template["spec"] |= wrong
        template["metadata"] |= {} if wrong else {"finalizers": ["example.com/never"]}
        spec |= {"serviceName": "web", "volumeClaimTemplates": [template]}
    for kind, name, spec in (
        ("Deployment", "held", held),
        ("Deployment", "tracked", tracked),
        ("StatefulSet", "named", named),
        ("StatefulSet", "kept", kept),
    ):
        workload = {"apiVersion": "apps/v1", "kind": kind, "metadata": {"name": name}, "spec": spec}
        ground.dana.create(inside(mine, f"{kind.lower()}s", "apis/apps/v1"), workload).ok()

    def refused() -> bool | None:
        events = ground.admin.get(inside(mine, "events")).ok()["items"]
        said = " ".join(f"{event['involvedObject']['name']}: {event['message']}" for event in events)
        wanted = (
            r"held-\S+: [^:]*[^.]*pods begin without finalizers",
            r"tracked-\S+: .*?pods begin without finalizers",
            "do not name their volume",
            "claims of a sandbox begin without",
        )
        return True if all(re.search(words, said) for words in wanted) else None

    until(refused, "the controllers are told of all four", 60)
    pods = ground.admin.get(inside(mine, "pods")).ok()["items"]
    assert not [pod["metadata"]["name"] for pod in pods if pod["metadata"]["name"].startswith(("held-", "tracked-"))]
    claims = ground.admin.get(inside(mine, "persistentvolumeclaims")).ok()["items"]
    assert not [c["metadata"]["name"] for c in claims if c["metadata"]["name"].startswith("data-")]


def test_a_pod_of_a_job_is_not_made_somebody_elses(ground: Ground, mine: str) -> None:
    """The job controller would let go of it, and nobody take its finalizer off."""
    template = {**deployment()["template"], "metadata": {}}
    template["spec"] = {**template["spec"], "restartPolicy": "Never"}
    job = {"apiVersion": "batch/v1", "kind": "Job", "metadata": {"name": "once"}, "spec": {"template": template}}
    ground.dana.create(inside(mine, "jobs", "apis/batch/v1"), job).ok()

    def pod() -> Manifest | None:
        found = ground.admin.get(inside(mine, "pods")).ok()["items"]
        return next((p for p in found if p["metadata"]["name"].startswith("once-")), None)

    made = until(pod, "the Job has made its pod", 60)
    assert made["metadata"]["finalizers"] == ["batch.kubernetes.io/job-tracking"]
    record = ground.admin.get(inside(mine, "configmaps/kube-root-ca.crt")).ok()["metadata"]
    other = {"apiVersion": "v1", "kind": "ConfigMap", "name": record["name"], "uid": record["uid"], "controller": True}
    path = inside(mine, f"pods/{made['metadata']['name']}")

    for owners in ([other], []):
        ground.dana.merge(path, {"metadata": {"ownerReferences": owners}}).refused("Jobs stay theirs")
    ground.dana.merge(path, label(team="payments")).ok()


def test_no_finalizer_gets_in_by_the_status(ground: Ground, mine: str) -> None:
    spec = {**deployment(), "replicas": 0}
    workload = {"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "still"}, "spec": spec}
    ground.dana.create(inside(mine, "deployments", "apis/apps/v1"), workload).ok()
    path = inside(mine, "deployments/still/status", "apis/apps/v1")

    answer = ground.dana.merge(path, {"metadata": {"finalizers": ["example.com/never"]}})

    assert answer.status == 403 or not answer.ok()["metadata"].get("finalizers"), answer


def test_operators_and_the_api_server_put_on_their_finalizers(ground: Ground, mine: str) -> None:
    plain = config_map(mine, "operated")
    path = inside(mine, "configmaps/operated")
    ground.dana.create(inside(mine, "configmaps"), plain).ok()

    ground.strong.merge(path, {"metadata": {"finalizers": ["operator.example.com/clean"]}}).ok()
    ground.dana.merge(path, label(team="payments")).ok()
    ground.dana.delete(path, propagationPolicy="Foreground").ok()
    ground.strong.merge(path, {"metadata": {"finalizers": None}}).ok()


def test_services_lead_to_those_of_a_base(ground: Ground, mine: str) -> None:
    """As `sandbox up --base` makes them."""
    spec = {"type": "ExternalName", "externalName": "catalogue.shop-qa.svc.cluster.local"}

    ground.dana.create(inside(mine, "services"), service(mine, "catalogue", **spec)).ok()


@pytest.mark.parametrize("host", [None, f"shop.{DOMAIN}", "shop.example.com", "*.sandbox.example.com"])
def test_no_ingress_takes_anothers_host(ground: Ground, mine: str, host: str | None) -> None:
    ground.dana.create(ingresses(mine), ingress("bad", host)).refused("hosts of a sandbox")


HOSTS_BY_ANNOTATION = [
    "nginx.ingress.kubernetes.io/server-alias",
    "nginx.ingress.kubernetes.io/configuration-snippet",
    "nginx.ingress.kubernetes.io/server-snippet",
    "external-dns.alpha.kubernetes.io/hostname",
]


@pytest.mark.parametrize("key", HOSTS_BY_ANNOTATION)
def test_no_ingress_takes_anothers_host_by_an_annotation(ground: Ground, mine: str, key: str) -> None:
    whole = changed(ingress("bad", f"{mine}.{DOMAIN}"), {"annotations": {key: "www.example.com"}})

    ground.dana.create(ingresses(mine), whole).refused("no other hosts")


def test_no_service_takes_anothers_host_by_an_annotation(ground: Ground, mine: str) -> None:
    named = {"external-dns.alpha.kubernetes.io/hostname": "www.example.com"}
    whole = changed(service(mine, "bad"), {"annotations": named})

    ground.dana.create(inside(mine, "services"), whole).refused("no names")


def test_endpoints_are_not_written_by_hand(ground: Ground, mine: str) -> None:
    """They would lead an ingress controller, which may go everywhere, into others' namespaces."""
    endpoint = {"apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", "metadata": {"name": "to-others"}}
    body = {**endpoint, "addressType": "IPv4", "endpoints": [{"addresses": ["10.0.0.9"]}], "ports": []}

    ground.dana.create(inside(mine, "endpointslices", "apis/discovery.k8s.io/v1"), body).refused("cannot create")


def test_kinds_that_a_profile_forbids_are_not_brought(ground: Ground, tight: str) -> None:
    level = {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}, "runAsNonRoot": True}
    level["seccompProfile"] = {"type": "RuntimeDefault"}
    container = {"name": "main", "image": "registry.invalid/none:1", "securityContext": level}
    bare = pod(tight, "bare", containers=[container])
    ground.dana.create(inside(tight, "pods"), bare).refused("does not allow a Pod")
    spec = {key: value for key, value in deployment().items() if key != "replicas"}
    daemon = {"apiVersion": "apps/v1", "kind": "DaemonSet", "metadata": {"name": "bad"}, "spec": spec}
    path = inside(tight, "daemonsets", "apis/apps/v1")
    ground.dana.create(path, daemon).refused("does not allow a DaemonSet.apps")


def test_kinds_that_a_profile_does_not_allow_are_not_brought(ground: Ground) -> None:
    name = ground.sandbox(ground.dana, "narrow")
    ground.dana.create(inside(name, "services"), service(name, "web")).ok()
    # What sandboxes are made of needs no word.
    ground.dana.create(inside(name, "configmaps"), config_map(name, "release")).ok()

    ground.dana.create(inside(name, "persistentvolumeclaims"), claim("x")).refused(
        "does not allow a PersistentVolumeCl"
    )
    workload = {"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "bad"}, "spec": deployment()}
    ground.dana.create(inside(name, "deployments", "apis/apps/v1"), workload).refused("narrow does not allow a Deploy")


def test_no_template_brings_claims_where_the_profile_lets_none_in(ground: Ground) -> None:
    """Controllers of the system's make them, of StatefulSets and of pods' ephemeral volumes."""
    name = ground.sandbox(ground.dana, "narrow")
    # Without a kubelet; that pods are made for it is enough.
    node = {"apiVersion": "v1", "kind": "Node", "metadata": {"name": name}}
    ground.admin.create("/api/v1/nodes", node).ok()
    spec = {**deployment(), "serviceName": "web", "volumeClaimTemplates": [claim("data")]}
    workload = {"apiVersion": "apps/v1", "kind": "StatefulSet", "metadata": {"name": "web"}, "spec": spec}
    ground.dana.create(inside(name, "statefulsets", "apis/apps/v1"), workload).ok()
    volume = {"name": "scratch", "ephemeral": {"volumeClaimTemplate": {"spec": claim("x")["spec"]}}}
    ground.dana.create(inside(name, "pods"), pod(name, "bare", volumes=[volume])).ok()
    template = changed(deployment()["template"], {})
    template["spec"]["volumes"] = [volume]
    daemon = {"selector": deployment()["selector"], "template": template}
    body = {"apiVersion": "apps/v1", "kind": "DaemonSet", "metadata": {"name": "everywhere"}, "spec": daemon}
    ground.dana.create(inside(name, "daemonsets", "apis/apps/v1"), body).ok()
    run = {"spec": {"template": {"spec": {**template["spec"], "restartPolicy": "Never"}}}}
    body = {"apiVersion": "batch/v1", "kind": "CronJob", "metadata": {"name": "nightly"}}
    ground.dana.create(
        inside(name, "cronjobs", "apis/batch/v1"), {**body, "spec": {"schedule": "* * * * *", "jobTemplate": run}}
    ).ok()
    # It missed a run, so that the next one is now and not in a minute.
    ran = {"status": {"lastScheduleTime": after(minutes=-2)}}
    ground.admin.merge(inside(name, "cronjobs/nightly/status", "apis/batch/v1"), ran).ok()

    def refused() -> bool | None:
        events = ground.admin.get(inside(name, "events")).ok()["items"]
        words = "narrow does not allow a PersistentVolumeClaim"
        said = {event["involvedObject"]["name"].partition("-")[0] for event in events if words in event["message"]}
        return True if said >= {"web", "bare", "everywhere", "nightly"} else None

    try:
        until(refused, "the controllers are refused the claims of all four", 120)
    finally:
        ground.admin.delete(f"/api/v1/nodes/{name}").ok()
    assert ground.admin.get(inside(name, "persistentvolumeclaims")).ok()["items"] == []


def test_what_is_over_the_quota_is_not_made(ground: Ground, tight: str) -> None:
    over = claim("big")
    over["spec"]["resources"]["requests"]["storage"] = "5Gi"

    ground.dana.create(inside(tight, "persistentvolumeclaims"), over).refused("maximum storage usage")


def test_a_service_account_of_a_sandbox_is_held_to_the_same(ground: Ground, tmp_path: Any) -> None:
    """A pod's own account, or one whose token a developer takes, is no way round."""
    name = ground.sandbox(ground.dana)
    ground.dana.create(bindings(name), ground.binding(name, account(name, "default"))).ok()
    inner = by_token(ground.info, tmp_path, name, "default")
    until(lambda: True if inner.get(inside(name, "secrets")).status == 200 else None, "the account's rights", 10)

    inner.merge(f"/api/v1/namespaces/{name}", label(**{labels.MANAGED_BY: None})).refused("labels")
    inner.merge(f"/api/v1/namespaces/{name}", note(**{labels.EXPIRES_AT: after(days=2)})).refused("no later")
    inner.merge(inside(name, "resourcequotas/sandbox"), {"spec": {"hard": {"pods": "99"}}}).refused("quota profile")
    inner.create(network_policies(name), policy("more", ingress=[{}])).refused("further NetworkPolicy")
    inner.create(bindings(name), ground.binding(name, group("system:authenticated"))).refused("owner, its creator")
    ground.create(inner, ground.manifest(inner)).refused("cannot create")


# --- the clean-up's account -----------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def cleaner(ground: Ground, tmp_path_factory: pytest.TempPathFactory) -> Any:
    return by_token(ground.info, tmp_path_factory.mktemp("cleaner"), "sandbox-system", "sandbox-cleanup")


def test_the_clean_up_deletes_and_notes_sandboxes(ground: Ground, cleaner: Any) -> None:
    name = ground.sandbox(ground.dana)

    cleaner.merge(f"/api/v1/namespaces/{name}", note(**{labels.PHASE: "Expiring"})).ok()
    cleaner.get(inside(name, "configmaps/sandbox-record")).ok()
    cleaner.delete(f"/api/v1/namespaces/{name}").ok()


def test_no_annotations_keep_the_clean_up_from_marking(ground: Ground, cleaner: Any) -> None:
    name = ground.sandbox(ground.dana)
    path = f"/api/v1/namespaces/{name}"
    there = ground.dana.merge(path, note(**{labels.PHASE: None})).ok()["metadata"]["annotations"]
    ground.dana.merge(path, note(**{f"sandbox.dev/x{number}": "" for number in range(40 - len(there))})).ok()
    ground.dana.merge(path, note(**{labels.PHASE: "Ready"})).refused("40 annotations")

    cleaner.merge(path, note(**{labels.PHASE: "Ready"})).refused("changes nothing")
    cleaner.merge(path, note(**{labels.PHASE: "Expiring"})).ok()


def test_the_clean_up_deletes_listed_custom_resources_in_sandboxes_only(ground: Ground, cleaner: Any) -> None:
    sandbox, group = ground.sandbox(ground.dana), "things.example.com"
    kubectl(ground.info, "create", "-f", "-", stdin=json.dumps(definition(group)))
    kubectl(ground.info, "wait", "--for=condition=Established", "--timeout=60s", f"crd/things.{group}")
    everywhere = f"/apis/{group}/v1/things"
    try:
        until(lambda: True if cleaner.get(everywhere).status == 200 else None, "it is served", 60)
        for name in (sandbox, ground.stranger_namespace):
            path = inside(name, "things", f"apis/{group}/v1")
            thing = {"apiVersion": f"{group}/v1", "kind": "Thing", "metadata": {"name": "web", "namespace": name}}
            ground.admin.create(path, thing).ok()
            cleaner.create(path, thing).refused("cannot create")
        elsewhere = inside(ground.stranger_namespace, "things", f"apis/{group}/v1")
        cleaner.delete(f"{elsewhere}/web").refused("sandboxes only")
        cleaner.delete(elsewhere).refused("cannot deletecollection")
        cleaner.delete(inside(sandbox, "things/web", f"apis/{group}/v1")).ok()
        ground.admin.get(f"{elsewhere}/web").ok()
    finally:
        kubectl(ground.info, "delete", "crd", f"things.{group}", "--wait=false")


def test_the_clean_up_deletes_nothing_else(ground: Ground, cleaner: Any, mine: str) -> None:
    for name in (ground.stranger_namespace, "robots", "sandbox-system"):
        cleaner.delete(f"/api/v1/namespaces/{name}").refused("sandboxes only")
        cleaner.merge(f"/api/v1/namespaces/{name}", note(**{labels.PHASE: "Ready"})).refused("sandboxes only")
    # By this policy or by that of namespaces: one of those that refuse is named.
    cleaner.merge(f"/api/v1/namespaces/{mine}", label(**{labels.MANAGED_BY: None})).refused("Policy 'sandbox-")
    cleaner.merge(f"/api/v1/namespaces/{mine}", note(**{labels.EXPIRES_AT: after(hours=1)})).refused("changes nothing")
    cleaner.get(inside(mine, "secrets")).refused("cannot list")
    cleaner.get(inside(mine, "configmaps/kube-root-ca.crt")).refused("cannot get")
    cleaner.create(inside(mine, "pods"), pod(mine, "p")).refused("cannot create")


# --- nothing changes for anybody else -------------------------------------------------------------------------


def test_nothing_changes_outside_of_sandboxes(ground: Ground) -> None:
    """Somebody with the usual rights of a namespace's admin does what they ever did."""
    here, eve = ground.stranger_namespace, ground.stranger
    unlimited = {"apiVersion": "v1", "kind": "ResourceQuota", "metadata": {"name": "sandbox"}, "spec": {"hard": {}}}

    eve.create(inside(here, "configmaps"), config_map(here, "sandbox-record", namespaceUID="x")).ok()
    eve.delete(inside(here, "configmaps/sandbox-record")).ok()
    eve.create(inside(here, "pods"), pod(here, "p", hostNetwork=True, nodeName="n")).ok()
    eve.create(inside(here, "services"), service(here, "s", type="NodePort", externalIPs=["10.0.0.1"])).ok()
    eve.create(network_policies(here), policy("open", ingress=[{}])).ok()
    eve.create(ingresses(here), ingress("any", "shop.example.com")).ok()
    eve.create(bindings(here), ground.binding(here, group("system:authenticated"), role="view")).ok()
    ground.strong.create(inside(here, "resourcequotas"), unlimited).ok()
    ground.strong.delete(inside(here, "resourcequotas/sandbox")).ok()
    for kind in ("pods/p", "services/s"):
        eve.delete(inside(here, kind)).ok()
    for path in (network_policies(here, "/open"), f"{ingresses(here)}/any"):
        eve.delete(path).ok()


def test_others_namespaces_are_made_and_changed_as_ever(ground: Ground) -> None:
    name = f"plain-{os.getpid()}"
    plain = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name, "finalizers": ["example.com/mine"]}}
    strong, path = ground.strong, f"/api/v1/namespaces/{name}"

    strong.create("/api/v1/namespaces", plain).ok()
    strong.merge(path, label(team="payments")).ok()
    strong.merge(path, note(**{"iam.amazonaws.com/permitted": ".*"})).ok()
    strong.merge(path, {"metadata": {"finalizers": None}}).ok()
    strong.delete(path).ok()


def test_no_namespace_that_is_there_is_made_a_sandbox(ground: Ground) -> None:
    """The clean-up would delete it."""
    path = f"/api/v1/namespaces/{ground.stranger_namespace}"

    ground.strong.merge(path, label(**{labels.MANAGED_BY: labels.MANAGED_BY_VALUE})).refused("never becomes one")


def test_admins_are_not_bound(ground: Ground) -> None:
    name = ground.sandbox(ground.dana)
    admin, path = ground.admin, f"/api/v1/namespaces/{name}"

    admin.merge(path, note(**{labels.MAX_EXPIRES_AT: after(days=300), labels.EXPIRES_AT: after(days=200)})).ok()
    admin.merge(inside(name, "resourcequotas/sandbox"), {"spec": {"hard": {"pods": "50"}}}).ok()
    admin.delete(inside(name, "limitranges/sandbox")).ok()


def test_a_profile_that_changes_stops_nothing_that_runs(ground: Ground, tmp_path: Any) -> None:
    """The platform team gives `tight` more pods: sandboxes go on with what they have, new ones get it."""
    name = ground.sandbox(ground.dana, "tight")
    before = ground.profile("tight")
    profiles = {
        "tight": {
            **VALUES["profiles"]["tight"],
            "resourceQuota": {**VALUES["profiles"]["tight"]["resourceQuota"], "pods": 6},
        }
    }
    install(ground.info, tmp_path, {**VALUES, "profiles": profiles})
    try:
        rails = {rail["kind"]: rail for rail in guardrails(before, name)}
        more = {"spec": {"hard": {"pods": "6"}}}

        def raised() -> bool | None:
            return True if ground.dana.merge(quota(name), more).status == 200 else None

        until(raised, "the new profile holds", 60)
        ground.dana.apply(path_of(rails["ResourceQuota"]), rails["ResourceQuota"]).refused("quota profile tight")
        ground.dana.create(inside(name, "services"), service(name, "later")).ok()
    finally:
        install(ground.info, tmp_path, VALUES)
        until(lambda: True if ground.dana.merge(quota(name), {"spec": {"hard": {"pods": "4"}}}).status == 200 else None,
              "the old profile holds again", 60)  # fmt: skip


# --- the tool itself, with the rights of a developer ------------------------------------------------------------


@pytest.fixture
def project(ground: Ground, tmp_path: Path) -> Iterator[GitProject]:
    """A project with a chart and manifests; its one workload has no pods, for there is no node."""
    with temporary_project(ground.info, tmp_path) as made:
        still = workload_of("web", "registry.invalid/none:1", replicas=0)
        made.declare(
            {
                "web": made.manifests("web", still, service_of("web"), settings_map("settings", colour="blue")),
                "store": made.chart("store", documents(settings_map("store", colour="red"))),
            }
        )
        made.commit()
        yield made


@pytest.fixture
def run_as(ground: Ground, preloaded: Preloaded, tmp_path: Path) -> Callable[[Person], Tool]:
    """The tool of somebody, who has nothing but their kubeconfig."""

    def tool_of(person: Person) -> Tool:
        home = tmp_path / person.kubeconfig.stem
        home.mkdir(exist_ok=True)
        return Tool(replace(ground.info, kubeconfig=person.kubeconfig), home, preloaded)

    return tool_of


@pytest.mark.parametrize("who", ["dana", "robot"])
def test_everything_that_a_developer_does_works_with_their_rights(
    ground: Ground, run_as: Callable[[Person], Tool], project: GitProject, who: str
) -> None:
    person: Person = getattr(ground, who)
    tool = run_as(person)

    made = tool.up(project, "--quota", "medium").ok().data
    assert made["sandbox"]["owner"] == person.user
    found = kubectl(
        ground.info, "get", "resourcequota", "sandbox", "-n", project.name, "-o", "jsonpath={.spec.hard.pods}"
    )
    assert found == ground.profile("medium").resource_quota["pods"]
    again = tool.up(project, "--quota", "medium").ok().data
    assert {service["action"] for service in again["services"]} == {"unchanged"}

    project.manifests("web", settings_map("settings", colour="green"))
    project.commit()
    tool.up(project, "--quota", "medium").ok()
    shown = tool.run("status", project.name, "-o", "json").ok().data
    assert shown["sandbox"]["phase"] == "Ready"
    assert project.name in {sandbox["name"] for sandbox in tool.run("list", "-A", "-o", "json").ok().data}
    assert len(tool.run("history", "-s", project.name, "-o", "json").ok().data) == 2
    tool.run("rollback", "-s", project.name, "--yes").ok()
    colour = kubectl(ground.info, "get", "cm", "settings", "-n", project.name, "-o", "jsonpath={.data.colour}")
    assert colour == "blue"
    tool.run("extend", project.name, "12h").ok()
    tool.run("down", project.name, "--yes").ok()
    assert not kubectl(ground.info, "get", "ns", project.name, "--ignore-not-found").strip()


def test_doctor_says_what_the_platform_decided(
    ground: Ground, run_as: Callable[[Person], Tool], project: GitProject
) -> None:
    ended = run_as(ground.dana).run("doctor", "-o", "json", cwd=project.folder)

    checks = {check["name"]: check for check in ended.data}
    assert "quota profiles large, medium, narrow, small, tight" in checks["platform configuration"]["detail"]
    assert "of the platform" in checks["quota profiles"]["detail"]
    assert checks["may: have sandboxes"]["status"] == "ok"
    # How the clean-up does is for those who may look into its namespace.
    assert "clean-up" not in checks
    admins = run_as(ground.admin).run("doctor", "-o", "json", cwd=project.folder).data
    assert "it has not succeeded yet" in next(check["detail"] for check in admins if check["name"] == "clean-up")
    assert {name for name, check in checks.items() if check["status"] == "fail"} <= {"builder", "registry"}
    stranger = run_as(ground.stranger).run("doctor", "-o", "json", cwd=project.folder)
    refused = next(check for check in stranger.data if check["name"] == "may: have sandboxes")
    assert (refused["status"], "create namespaces" in refused["detail"]) == ("fail", True)


def test_what_the_clean_up_deleted_comes_back_by_its_name(
    ground: Ground, run_as: Callable[[Person], Tool], project: GitProject, cleaner: Person
) -> None:
    """The platform names no capture store: locks stay in the cluster, where its developers may read them."""
    name, tool = project.name, run_as(ground.dana)
    sha = tool.up(project).ok().data["commit"]["sha"]
    project.manifests("web", settings_map("settings", colour="green"))
    project.commit()
    ground.admin.merge(f"/api/v1/namespaces/{name}", note(**{labels.EXPIRES_AT: "2020-01-01T00:00:00Z"})).ok()

    done = run_as(cleaner).run("cleanup", "--yes", "-o", "json", "-l", f"{labels.PROJECT}={name}").ok()
    (deleted,) = [line for line in map(json.loads, done.out.splitlines()) if line["action"] == "deleted"]
    assert deleted["restore"] == f"sandbox up --lock {deleted['lock']} --name {name} --quota small"
    assert deleted["lock"].startswith(f"configmap://sandbox-locks/{name}-")
    until(lambda: True if ground.admin.get(f"/api/v1/namespaces/{name}").status == 404 else None, "it is gone", 60)
    kept = inside("sandbox-locks", f"configmaps/{deleted['lock'].rpartition('/')[2]}")
    ground.stranger.get(kept).refused("cannot get")
    ground.dana.delete(kept).refused("cannot delete")
    cleaner.delete(inside("sandbox-system", "configmaps/sandbox-config")).refused("cannot delete")

    tool.up(project, "--lock", f"{name}x").failed(2, "no lock of a deleted sandbox", f"did you mean {name}")
    tool.run("extend", name, "1h").failed(1, "there is no sandbox", f"`sandbox up --lock {name}`")
    # A name is anybody's by now; whose code is deployed must not be.
    theirs = run_as(ground.mallory).up(project, "--lock", name)
    theirs.failed(4, f"it is of {ground.dana.user}", f"--lock {deleted['lock']}")
    # The name that the branch's sandbox would have is another's.
    again = tool.run("up", "--lock", name, "-o", "json", cwd=project.folder).ok()
    assert again.data["sandbox"]["name"] == name
    assert (again.data["commit"]["sha"], again.data["sandbox"]["ref"]) == (sha, "main")
    assert deleted["lock"] in again.err
    # What its owner deletes leaves its lock too, in a place of theirs.
    ended = tool.run("down", name, "--yes").ok()
    assert f"sandbox up --lock file://{tool.home}/" in ended.err
    (gone,) = [line for line in ended.err.splitlines() if "comes back with" in line]
    tool.up(project, *gone.partition("sandbox up ")[2].split()[:2]).ok()


def test_a_developer_is_told_which_rights_a_clean_up_takes(ground: Ground, run_as: Callable[[Person], Tool]) -> None:
    name = ground.sandbox(ground.dana)
    ground.dana.merge(f"/api/v1/namespaces/{name}", note(**{labels.EXPIRES_AT: after(minutes=-1)})).ok()

    ended = run_as(ground.mallory).run("cleanup", "--yes", "-l", f"{labels.NAME}={name}", "-o", "json")

    lacking = "get configmaps/sandbox-record, create events, delete namespaces in all namespaces"
    assert ended.failed(4, "may not clean up", lacking, "sandbox down").out == ""


def test_a_lock_too_large_to_keep_buys_no_time(
    ground: Ground, run_as: Callable[[Person], Tool], cleaner: Person
) -> None:
    name = ground.sandbox(ground.dana)
    lock = json.dumps(json.loads(LOCK) | {"more": base64.b64encode(os.urandom(200_000)).decode()})
    ground.dana.merge(inside(name, "configmaps/sandbox-record"), {"data": {"lock": lock}}).ok()
    # Late by a minute only: a place for locks that is away would be waited for.
    ground.dana.merge(f"/api/v1/namespaces/{name}", note(**{labels.EXPIRES_AT: after(minutes=-1)})).ok()

    done = run_as(cleaner).run("cleanup", "--yes", "-o", "json", "-l", f"{labels.NAME}={name}").failed(6)
    said = {line["action"]: line["why"] for line in map(json.loads, done.out.splitlines()) if line.get("namespace")}
    assert said.keys() == {"deleted", "failed"}
    assert "too large" in said["failed"]


def test_a_profile_of_ones_own_does_not_count(
    ground: Ground, run_as: Callable[[Person], Tool], project: GitProject
) -> None:
    huge = {"apiVersion": "sandbox.dev/v1", "kind": "QuotaProfile", "name": "huge", "resourceQuota": {"pods": "9000"}}
    project.write({"quotas/huge.yaml": documents(huge)})
    project.commit()

    run_as(ground.dana).up(project, "--quota", "huge").failed(2, "there is no quota profile 'huge'")


def test_a_sandbox_keeps_its_profile(ground: Ground, run_as: Callable[[Person], Tool], project: GitProject) -> None:
    tool = run_as(ground.dana)
    tool.up(project).ok()

    tool.up(project, "--quota", "medium").failed(4, "has the quota profile small", "sandbox down")


def test_an_up_that_was_killed_before_it_had_rights_goes_on(
    ground: Ground, run_as: Callable[[Person], Tool], project: GitProject
) -> None:
    """The namespace is there and the RoleBinding is not: nobody may work in it, its owner may still take it up."""
    tool = run_as(ground.dana)
    tool.up(project).ok()
    kubectl(ground.info, "delete", "rolebinding", "sandbox-owner", "-n", project.name)

    def locked_out() -> bool | None:
        return True if ground.dana.get(inside(project.name, "secrets")).status == 403 else None

    until(locked_out, "dana has no rights in it any more", 20)
    tool.up(project).ok()


def test_ci_makes_a_sandbox_for_a_developer_who_goes_on_with_it(
    ground: Ground, run_as: Callable[[Person], Tool], project: GitProject
) -> None:
    made = run_as(ground.ci).up(project, "--owner", ground.dana.user).ok().data
    assert made["sandbox"]["owner"] == ground.dana.user

    project.manifests("web", settings_map("settings", colour="green"))
    project.commit()
    run_as(ground.dana).up(project).ok()
    run_as(ground.ci).up(project, "--owner", ground.dana.user).ok()
    run_as(ground.dana).run("down", project.name, "--yes").ok()


def test_nobody_but_ci_makes_a_sandbox_for_another(
    ground: Ground, run_as: Callable[[Person], Tool], project: GitProject
) -> None:
    # Before anything is built: a dry run builds nothing, and asks the API server too.
    for more in ((), ("--dry-run",)):
        words = ("--owner", ground.mallory.user, *more)
        run_as(ground.dana).up(project, *words).failed(4, "only CI makes sandboxes for others")


def test_who_may_make_no_namespaces_is_told_before_anything_is_built(
    ground: Ground, run_as: Callable[[Person], Tool], project: GitProject
) -> None:
    ended = run_as(ground.stranger).up(project, "--dry-run").failed(4, "no permission to create the namespace")
    assert f"{ground.stranger.user} may not create namespaces" in ended.err


def test_a_group_has_a_sandbox_in_which_all_its_members_work(
    ground: Ground, run_as: Callable[[Person], Tool], project: GitProject
) -> None:
    run_as(ground.dana).up(project, "--owner-group", "platform-team").failed(4, "a group of yours")
    made = run_as(ground.dana).up(project, "--owner-group", "sandbox-developers").ok().data
    assert made["sandbox"]["owner"] == "sandbox-developers"

    project.manifests("web", settings_map("settings", colour="green"))
    project.commit()
    mallorys = run_as(ground.mallory)
    mallorys.up(project).failed(4, "it belongs to sandbox-developers")
    mallorys.up(project, "--owner-group", "sandbox-developers").ok()
    mallorys.run("extend", project.name, "12h").ok()
    mallorys.run("down", project.name, "--yes").ok()


def test_the_platform_says_how_namespaces_begin(
    ground: Ground, run_as: Callable[[Person], Tool], project: GitProject, tmp_path: Path
) -> None:
    tool = run_as(ground.dana)
    install(ground.info, tmp_path, {**VALUES, "admission": {**VALUES["admission"], "namespacePrefix": "sbx-"}})
    try:
        until(
            lambda: True if ground.create(ground.dana, ground.manifest(ground.dana)).status == 403 else None,
            "the policies want the prefix",
            60,
        )
        plan = tool.plan(project, "--name", project.name)["plan"]
        assert plan["sandbox"]["namespace"] == f"sbx-{project.name}"
        other = tool.run("up", "--dry-run", "--name", project.name, "--namespace-prefix", "x-", cwd=project.folder).ok()
        assert "namespaces of sandboxes begin with sbx-" in other.err
        checks = {c["name"]: c for c in tool.run("doctor", "-o", "json", cwd=project.folder).data}
        assert "namespaces begin with sbx-" in checks["platform configuration"]["detail"]
    finally:
        install(ground.info, tmp_path, VALUES)
        until(
            lambda: True if ground.create(ground.dana, ground.manifest(ground.dana)).status == 200 else None,
            "the policies want no prefix any more",
            60,
        )


def test_anothers_sandbox_is_not_deleted(ground: Ground, run_as: Callable[[Person], Tool], project: GitProject) -> None:
    run_as(ground.dana).up(project).ok()

    mallorys = run_as(ground.mallory)
    refused = mallorys.run("down", project.name, "--yes").failed(4, f"a sandbox of {ground.dana.user}")
    assert refused.err.count("is forbidden") == 1, "it is said once"
    mallorys.run("extend", project.name, "1h").failed(4, f"a sandbox of {ground.dana.user}")
    mallorys.run("status", project.name).failed(4, f"a sandbox of {ground.dana.user}")
    # A name with a typing error in it is no matter of rights, although nobody may get just any namespace.
    mallorys.run("status", f"{project.name}x").failed(1, "there is no sandbox", f"did you mean {project.name}")
    mallorys.run("status", "robots").failed(4, "is not a sandbox")
    assert kubectl(ground.info, "get", "ns", project.name, "-o", "jsonpath={.status.phase}") == "Active"
