"""Everything that can be known to fail is found here, before the first write."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from packaging.specifiers import InvalidSpecifier, SpecifierSet
from packaging.version import InvalidVersion, Version

from sandbox.cluster import discovery, objects
from sandbox.cluster.client import Cluster
from sandbox.model import labels
from sandbox.model.errors import Refused
from sandbox.model.objects import Manifest, ObjectRef, containers, pod_spec, split_api_version
from sandbox.model.quota import Asked, claims_of
from sandbox.project.config import Requires
from sandbox.project.quotas import QuotaProfile
from sandbox.provision import quota
from sandbox.provision.plan import Plan
from sandbox.render.references import missing_references
from sandbox.render.transform import belongs_to

# What a sandbox has from its profile; two of a kind would count twice, or bind more than the profile says.
_GUARDRAILS = ("ResourceQuota", "LimitRange", "Namespace")
# Also what templates bring of it.
_CLAIM = "PersistentVolumeClaim"


@dataclass(frozen=True)
class Checked:
    """A plan that keeps to the guardrails.

    Attributes:
        asked: what it asks of the quota.
        warnings: what may fail, for all that can be known.
    """

    asked: tuple[Asked, ...]
    warnings: tuple[str, ...]


async def check(cluster: Cluster, plan: Plan, *, may_lack: bool = False) -> Checked:
    """Hold a plan against the guardrails.

    Args:
        may_lack: workloads may refer to objects that nothing provides: that may be the failure that is brought back.

    Raises:
        Refused: with every reason of the first kind that is found.
    """
    manifests = {name: [*s.manifests, *s.hooks] for name, s in plan.services.items()}
    await _check_scope(cluster, plan, manifests)
    if not plan.shared:
        check_kinds(manifests, plan.profile)
        check_priority(manifests, plan.profile)
        check_pod_security(manifests, plan.profile.pod_security)
    warnings = await _check_references(cluster, plan, may_lack=may_lack)
    if plan.shared:
        return Checked((), tuple(warnings))
    asked, later = await quota.check(cluster, plan)
    return Checked(tuple(asked), (*warnings, *later))


def check_requirements(requires: Requires, found: Mapping[str, str]) -> None:
    """Hold the versions that a project requires against those that are here.

    Args:
        found: tool → version, such as ``{"helm": "v4.3.1"}``.

    Raises:
        Refused: a version is outside of what the project requires.
    """
    unmet = []
    for tool in ("sandbox", "helm", "kubernetes"):
        wanted = getattr(requires, tool)
        if not wanted:
            continue
        version = found.get(tool)
        if version is None:
            unmet.append(f"{tool} {wanted}: not found here")
        elif not _satisfies(version, wanted):
            unmet.append(f"{tool} {wanted}: here it is {version}")
    if unmet:
        raise Refused(
            "the project requires other versions", why="\n".join(unmet), hint="see `requires:` in sandbox.yaml"
        )


def _satisfies(version: str, wanted: str) -> bool:
    try:
        # Kubernetes vendors append +k3s1, -gke.100 and such, which PEP 440 does not know.
        plain = Version(version.lstrip("v").partition("+")[0].partition("-")[0])
        return SpecifierSet(wanted, prereleases=True).contains(plain)
    except (InvalidVersion, InvalidSpecifier):
        return False


async def _check_scope(cluster: Cluster, plan: Plan, manifests: Mapping[str, Sequence[Manifest]]) -> None:
    """Cluster-scoped objects need the user's word, the project's and the profile's."""
    permitted = set(plan.cluster_scoped) & set(plan.profile.allowed_cluster_scoped)
    refused = []
    for service, manifest in _each(manifests):
        resource = await discovery.resource_for(cluster, manifest["apiVersion"], manifest["kind"])
        if resource.namespaced:
            continue
        if full_kind(manifest) not in permitted:
            refused.append(f"{service}: {ObjectRef.of(manifest)}")
        elif plan.services[service].chart_path is None:
            # Of a chart's objects Helm itself takes none that is not its release's.
            await _check_owner(cluster, plan, service, manifest)
    if refused:
        allowed = ", ".join(plan.profile.allowed_cluster_scoped) or "none"
        raise Refused(
            "cluster-scoped objects do not belong into a sandbox: they would collide with other sandboxes'",
            why="\n".join(sorted(set(refused))),
            hint="take them out of the chart (often a value such as rbac.create or installCRDs), or use "
            "--allow-cluster-scoped for kinds that both `allowClusterScoped` in sandbox.yaml and the profile "
            f"{plan.profile.name} permit (it permits {allowed})",
        )


async def _check_owner(cluster: Cluster, plan: Plan, service: str, manifest: Manifest) -> None:
    ref = ObjectRef.of(manifest)
    found = await objects.get(cluster, ref)
    if found is not None and not belongs_to(found, plan.identity.namespace):
        raise Refused(
            f"{service}: {ref} exists and is not this sandbox's",
            why=f"its annotation {labels.NAMESPACE} does not say {plan.identity.namespace}",
            hint="make its name unique, such as with ${SANDBOX_NAMESPACE}",
        )


def full_kind(manifest: Manifest) -> str:
    """The kind with its API group, as profiles name it: ``ClusterRole.rbac.authorization.k8s.io``."""
    group, _ = split_api_version(manifest["apiVersion"])
    return f"{manifest['kind']}.{group}" if group else str(manifest["kind"])


def check_kinds(manifests: Mapping[str, Sequence[Manifest]], profile: QuotaProfile) -> None:
    """Refuse kinds that the profile does not let in, and guardrails of a service's own."""
    refused = [
        f"{service}: {ObjectRef.of(manifest)}"
        for service, manifest in _each(manifests)
        if not _is_permitted(full_kind(manifest), profile)
    ]
    if not _is_permitted(_CLAIM, profile):
        refused += [
            f"{service}: {ObjectRef.of(manifest)}: its template of a {_CLAIM}"
            for service, manifest in _each(manifests)
            if any(claims_of(manifest))
        ]
    if refused:
        only = f": only {', '.join(profile.allowed_kinds)}" if profile.allowed_kinds else ""
        raise Refused(
            f"the quota profile {profile.name} does not permit these objects{only}",
            why="\n".join(refused),
            hint="take them out of the service, or choose another profile with --quota",
        )


def _is_permitted(kind: str, profile: QuotaProfile) -> bool:
    if kind in profile.forbidden_kinds or kind in _GUARDRAILS:
        return False
    # Whether a cluster-scoped kind may come is said of its own.
    return not profile.allowed_kinds or kind in (*profile.allowed_kinds, *profile.allowed_cluster_scoped)


def check_priority(manifests: Mapping[str, Sequence[Manifest]], profile: QuotaProfile) -> None:
    """Refuse pods that name another PriorityClass than the profile's."""
    if profile.priority_class_name is None:
        return
    refused = [
        f"{service}: {ObjectRef.of(manifest)}: priorityClassName: {named}"
        for service, manifest in _each(manifests)
        if (named := (pod_spec(manifest) or {}).get("priorityClassName")) not in (None, "", profile.priority_class_name)
    ]
    if refused:
        raise Refused(
            f"the quota profile {profile.name} permits no PriorityClass but {profile.priority_class_name}",
            why="\n".join(refused),
            hint=f"name {profile.priority_class_name} or none in the service's values",
        )


def check_pod_security(manifests: Mapping[str, Sequence[Manifest]], level: str) -> None:
    """Find what Pod Security Admission would reject at the level ``baseline`` (and above).

    The API server has the last word; this says it before anything is written. Source of the rules: the
    Pod Security Standards of the Kubernetes documentation, controls of the level Baseline.

    Raises:
        Refused: naming workload and field.
    """
    if level == "privileged":
        return
    found = [
        f"{service}: {ObjectRef.of(manifest)}: {violation}"
        for service, manifest in _each(manifests)
        if (spec := pod_spec(manifest)) is not None
        for violation in _baseline_violations(spec)
    ]
    if found:
        raise Refused(
            f"pods that the pod security level {level!r} does not admit",
            why="\n".join(found),
            hint="a sandbox shares its nodes with others: drop these settings in its values",
        )


# Capabilities that the level Baseline lets a container add.
_BASELINE_CAPABILITIES = frozenset(
    [
        "AUDIT_WRITE",
        "CHOWN",
        "DAC_OVERRIDE",
        "FOWNER",
        "FSETID",
        "KILL",
        "MKNOD",
        "NET_BIND_SERVICE",
        "SETFCAP",
        "SETGID",
        "SETPCAP",
        "SETUID",
        "SYS_CHROOT",
    ]
)


def _baseline_violations(spec: Manifest) -> Iterable[str]:
    for field in ("hostNetwork", "hostPID", "hostIPC"):
        if spec.get(field):
            yield f"{field}: true"
    for volume in spec.get("volumes") or ():
        if "hostPath" in volume:
            yield f"volume {volume.get('name')}: hostPath {(volume['hostPath'] or {}).get('path')}"
    for container in [*containers(spec), *(spec.get("ephemeralContainers") or ())]:
        where = f"container {container.get('name')}"
        security = container.get("securityContext") or {}
        if security.get("privileged"):
            yield f"{where}: privileged: true"
        added = set((security.get("capabilities") or {}).get("add") or ()) - _BASELINE_CAPABILITIES
        if added:
            yield f"{where}: capabilities {', '.join(sorted(added))}"
        for port in container.get("ports") or ():
            if port.get("hostPort"):
                yield f"{where}: hostPort {port['hostPort']}"


async def _check_references(cluster: Cluster, plan: Plan, *, may_lack: bool) -> list[str]:
    """Refuse what certainly stays in ContainerCreating; what something may yet provide is a warning."""
    manifests = {name: [*s.manifests, *s.hooks] for name, s in plan.services.items()}
    kept = {name: list(s.manifests) for name, s in plan.kept.items()}
    existing = await _existing_objects(cluster, plan) if plan.before or plan.shared else set()
    missing = [m for m in missing_references({**kept, **manifests}, existing) if m.service in manifests]
    fatal = [item for item in missing if item.certain and item.blocking]
    if fatal and not may_lack:
        raise Refused(
            "workloads refer to objects that nothing provides",
            why="\n".join(str(item) for item in fatal),
            hint="add them to the service, mark the reference optional, or create them in the sandbox first",
        )
    return [str(item) for item in missing]


async def _existing_objects(cluster: Cluster, plan: Plan) -> set[tuple[str, str, str]]:
    """(kind, name, key) of what lies in the namespace besides what earlier deployments own."""
    found: set[tuple[str, str, str]] = set()
    owned = {item.ref.identity for service in plan.removed.values() for item in service.inventory}
    for kind in ("Secret", "ConfigMap", "ServiceAccount", "PersistentVolumeClaim"):
        async for item in objects.list_(cluster, "v1", kind, plan.identity.namespace):
            name = item["metadata"]["name"]
            if ("", kind, plan.identity.namespace, name) in owned:
                continue
            found.add((kind, name, ""))
            found |= {(kind, name, key) for key in {**(item.get("data") or {}), **(item.get("binaryData") or {})}}
    return found


def _each(manifests: Mapping[str, Sequence[Manifest]]) -> Iterable[tuple[str, Manifest]]:
    for service, items in manifests.items():
        for manifest in items:
            yield service, manifest
