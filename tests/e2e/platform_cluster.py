"""A cluster on which the chart is installed, the people who use it, and sandboxes made with nothing but requests."""

from __future__ import annotations

import copy
import subprocess
import uuid
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import yaml

from sandbox.cluster.providers import ClusterInfo, embedded_bin_dir
from sandbox.model import labels
from sandbox.model.durations import to_rfc3339
from sandbox.project.platform import Platform, parse_platform
from sandbox.project.quotas import QuotaProfile
from sandbox.provision.guardrails import guardrails
from tests.conftest import kubectl
from tests.e2e.api import api_of
from tests.e2e.bounded import until
from tests.e2e.people import Answer, Manifest, Person, by_certificate, by_token

CHART = Path(__file__).parents[2] / "charts" / "sandbox"
DOMAIN = "sandbox.example.com"
# The profiles that are shipped, one that forbids what a profile can forbid, and one that allows little.
VALUES: Manifest = {
    "profiles": {
        "tight": {
            "description": "next to nothing",
            "resourceQuota": {
                "requests.cpu": "1000m",
                "limits.cpu": 2,
                "requests.memory": "1Gi",
                "pods": 4,
                "services": "8",
                "services.loadbalancers": "0",
                "services.nodeports": "0",
                "secrets": "40",
                "configmaps": "20",
            },
            "limitRange": [
                {"type": "Container", "default": {"cpu": "0.2"}, "max": {"cpu": "500m", "memory": "1Gi"}},
                {"type": "PersistentVolumeClaim", "max": {"storage": "1Gi"}},
            ],
            "maxTTL": "4h",
            "podSecurity": "restricted",
            "network": "restricted",
            "egress": [
                {"cidr": "10.20.0.0/16", "except": ["10.20.1.0/24"], "ports": [{"port": 5432}]},
                {"namespace": "shared-kafka", "ports": [{"port": 9092, "endPort": 9094, "protocol": "TCP"}]},
                {"namespaceLabels": {"team": "data"}},
            ],
            "priorityClassName": "sandboxes",
            "forbiddenKinds": ["DaemonSet.apps", "Pod"],
        },
        "narrow": {
            "resourceQuota": {"pods": 4, "configmaps": "9"},
            "limitRange": [{"type": "PersistentVolumeClaim", "max": {"storage": "1Gi"}}],
            "allowedKinds": ["Service", "Pod", "StatefulSet.apps", "DaemonSet.apps", "CronJob.batch"],
        },
    },
    "access": {
        "developerGroups": ["sandbox-developers", "system:serviceaccounts:robots"],
        "ciGroups": ["sandbox-ci", "system:serviceaccounts:ci"],
    },
    "admission": {"exempt": {"groups": ["system:masters", "platform-team"]}, "ingressDomains": [DOMAIN]},
    "cleanup": {
        "schedule": "0 0 1 1 *",
        "customResources": [{"group": "things.example.com", "resource": "things"}],
    },
}


def helm(cluster: ClusterInfo | None, *arguments: str) -> subprocess.CompletedProcess[str]:
    """The embedded cluster's helm; what it said, whether it succeeded or not."""
    folder = embedded_bin_dir()
    assert folder is not None, "the embedded cluster is built"
    where = [] if cluster is None else [f"--kubeconfig={cluster.kubeconfig}", f"--kube-context={cluster.context}"]
    argv = [str(folder / "helm"), *where, *arguments]
    return subprocess.run(argv, capture_output=True, text=True, timeout=120, check=False)


def install(cluster: ClusterInfo, folder: Path, values: Mapping[str, Any]) -> None:
    """Install the chart, or bring it to these values."""
    file = folder / "values.yaml"
    file.write_text(yaml.safe_dump(dict(values)))
    words = ("--namespace", "sandbox-system", "--create-namespace", "--values", str(file))
    done = helm(cluster, "upgrade", "--install", "sandbox", str(CHART), *words)
    assert done.returncode == 0, done.stderr


@dataclass
class Ground:
    """The cluster and its people.

    Attributes:
        dana, mallory: developers, with certificates.
        robot: a developer that is a ServiceAccount.
        ci: a ServiceAccount that makes sandboxes for others.
        strong: somebody to whom RBAC allows everything, and the policies nothing more than to others.
        admin: whom the policies do not bind.
        stranger: no developer; has the ClusterRole admin in a namespace of their own.
    """

    info: ClusterInfo
    platform: Platform
    dana: Person
    mallory: Person
    robot: Person
    ci: Person
    strong: Person
    admin: Person
    stranger: Person
    stranger_namespace: str
    _made: list[str] = field(default_factory=list)

    def manifest(self, person: Person, profile: str = "small", **changes: Any) -> Manifest:
        """The Namespace that `sandbox up` would POST for somebody; ``changes`` to labels and annotations."""
        name = f"t{uuid.uuid4().hex[:9]}"
        now = datetime.now(UTC)
        level = self.profile(profile).pod_security
        made: Manifest = {
            "apiVersion": "v1",
            "kind": "Namespace",
            "metadata": {
                "name": name,
                "labels": {
                    labels.MANAGED_BY: labels.MANAGED_BY_VALUE,
                    labels.OWNER: "dana",
                    labels.PROJECT: "shop",
                    labels.NAME: name,
                    "pod-security.kubernetes.io/enforce": level,
                    "pod-security.kubernetes.io/warn": level,
                },
                "annotations": {
                    labels.NAMESPACE: name,
                    labels.CREATED_AT: to_rfc3339(now),
                    labels.OWNER_USER: person.user,
                    labels.CREATED_BY: person.user,
                    labels.EXPIRES_AT: to_rfc3339(now + timedelta(hours=2)),
                    labels.MAX_EXPIRES_AT: to_rfc3339(now + timedelta(hours=12)),
                    labels.TTL: "2h",
                    labels.PHASE: "Provisioning",
                    labels.QUOTA_PROFILE: profile,
                },
            },
        }
        return changed(made, changes)

    def profile(self, name: str) -> QuotaProfile:
        return self.platform.profiles[name]

    def create(self, person: Person, manifest: Manifest) -> Answer:
        answer = person.create("/api/v1/namespaces", manifest)
        if answer.status < 300:
            self._made.append(manifest["metadata"]["name"])
        return answer

    def binding(self, namespace: str, *subjects: Manifest, role: str = "sandbox-owner") -> Manifest:
        group = "rbac.authorization.k8s.io"
        return {
            "apiVersion": f"{group}/v1",
            "kind": "RoleBinding",
            "metadata": {"name": f"b{uuid.uuid4().hex[:6]}", "namespace": namespace},
            "roleRef": {"apiGroup": group, "kind": "ClusterRole", "name": role},
            "subjects": list(subjects),
        }

    def own(self, person: Person, profile: str = "small") -> str:
        """A sandbox of somebody in which they may work, and nothing else is there yet; its name."""
        made = self.create(person, self.manifest(person, profile)).ok()
        name: str = made["metadata"]["name"]
        person.create(bindings(name), self.binding(name, user(person.user))).ok()

        def usable() -> bool | None:
            return True if person.get(inside(name, "serviceaccounts/default")).status == 200 else None

        until(usable, f"{person.user} has rights in {name}, and there is an account for pods", 20)
        return name

    def sandbox(self, person: Person, profile: str = "small") -> str:
        """A whole sandbox, guardrails and record included; its name."""
        name = self.own(person, profile)
        for rail in guardrails(self.profile(profile), name):
            person.apply(path_of(rail), rail).ok()
        uid = person.get(f"/api/v1/namespaces/{name}").ok()["metadata"]["uid"]
        record = config_map(name, "sandbox-record", namespaceUID=uid)
        person.create(inside(name, "configmaps"), record).ok()

        def admitted() -> bool | None:
            seen = person.create(inside(name, "services"), service(name, "probe"), dryRun="All").status == 200
            quota = person.get(inside(name, "resourcequotas/sandbox")).ok()
            return True if seen and quota.get("status", {}).get("hard") else None

        until(admitted, f"the guardrails of {name} are seen", 20)
        return name

    def clear(self) -> None:
        for name in self._made:
            api_of(self.info).delete_namespace(name)


def changed(made: Manifest, changes: Mapping[str, Any]) -> Manifest:
    """A manifest with metadata changed: ``labels``/``annotations`` are merged (None removes), the rest replaced."""
    made = copy.deepcopy(made)
    for key, change in changes.items():
        if isinstance(change, Mapping) and isinstance(made["metadata"].get(key), dict):
            merged = {**made["metadata"][key], **change}
            made["metadata"][key] = {name: value for name, value in merged.items() if value is not None}
        else:
            made["metadata"][key] = change
    return made


def lay_ground(info: ClusterInfo, folder: Path) -> Ground:
    """Install the chart with :data:`VALUES` and make everybody's credentials."""
    install(info, folder, VALUES)
    for name in ("robots", "ci", "strangers"):
        kubectl(info, "apply", "-f", "-", stdin=f"{{apiVersion: v1, kind: Namespace, metadata: {{name: {name}}}}}")
    bind = ("--dry-run=client", "-o", "yaml")
    made = kubectl(
        info, "create", "clusterrolebinding", "strong", "--clusterrole=cluster-admin", "--group=strong", *bind
    )
    made += "---\n" + kubectl(
        info, "create", "rolebinding", "a", "-n", "strangers", "--clusterrole=admin", "--user=eve@example.com", *bind
    )
    kubectl(info, "apply", "-f", "-", stdin=made)
    text = kubectl(
        info, "get", "cm", "sandbox-config", "-n", "sandbox-system", "-o", r"jsonpath={.data.platform\.yaml}"
    )
    ground = Ground(
        info=info,
        platform=parse_platform(text),
        dana=by_certificate(info, folder, "dana@example.com", ["sandbox-developers"]),
        mallory=by_certificate(info, folder, "mallory@example.com", ["sandbox-developers"]),
        robot=by_token(info, folder, "robots", "robot"),
        ci=by_token(info, folder, "ci", "deployer"),
        strong=by_certificate(info, folder, "strong@example.com", ["strong"]),
        admin=by_certificate(info, folder, "ops@example.com", ["platform-team", "strong"]),
        stranger=by_certificate(info, folder, "eve@example.com"),
        stranger_namespace="strangers",
    )
    until(lambda: _all_hold(ground), "the policies hold", 60)
    return ground


def _all_hold(ground: Ground) -> bool | None:
    """Policies come into force some time after they are made: one try for the first of them, one for the last."""
    bare = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "bare"}}
    first = ground.dana.create("/api/v1/namespaces", bare, dryRun="All")
    elsewhere = ground.binding("default", user(ground.dana.user))
    last = ground.dana.create(bindings("default"), elsewhere, dryRun="All")
    words = "ValidatingAdmissionPolicy"
    return True if words in first.message and words in last.message else None


def inside(namespace: str, rest: str, api: str = "api/v1") -> str:
    return f"/{api}/namespaces/{namespace}/{rest}"


def bindings(namespace: str) -> str:
    return inside(namespace, "rolebindings", "apis/rbac.authorization.k8s.io/v1")


def network_policies(namespace: str, rest: str = "") -> str:
    return inside(namespace, f"networkpolicies{rest}", "apis/networking.k8s.io/v1")


def path_of(rail: Manifest) -> str:
    """Where a guardrail is."""
    plural = {"ResourceQuota": "resourcequotas", "LimitRange": "limitranges", "NetworkPolicy": "networkpolicies"}
    api = "api/v1" if rail["apiVersion"] == "v1" else f"apis/{rail['apiVersion']}"
    metadata = rail["metadata"]
    return inside(metadata["namespace"], f"{plural[rail['kind']]}/{metadata['name']}", api)


def user(name: str) -> Manifest:
    return {"apiGroup": "rbac.authorization.k8s.io", "kind": "User", "name": name}


def group(name: str) -> Manifest:
    return {"apiGroup": "rbac.authorization.k8s.io", "kind": "Group", "name": name}


def account(namespace: str, name: str) -> Manifest:
    return {"kind": "ServiceAccount", "namespace": namespace, "name": name}


def config_map(namespace: str, name: str, **data: str) -> Manifest:
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name, "namespace": namespace}, "data": data}


def service(namespace: str, name: str, **spec: Any) -> Manifest:
    metadata = {"name": name, "namespace": namespace}
    return {"apiVersion": "v1", "kind": "Service", "metadata": metadata, "spec": {"ports": [{"port": 80}], **spec}}


def pod(namespace: str, name: str, **spec: Any) -> Manifest:
    container = {"name": "main", "image": "registry.invalid/none:1"}
    metadata = {"name": name, "namespace": namespace}
    return {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": {"containers": [container], **spec}}
