"""What `sandbox up` needs and whether it is here: tools, cluster, permissions, where images come from.

Every check says what it found and, where something is amiss, how to mend it. Nothing is changed.
"""

from __future__ import annotations

import asyncio
import platform
from collections.abc import Mapping
from contextlib import AsyncExitStack
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from pathlib import Path
from typing import Any

from packaging.version import InvalidVersion, Version

from sandbox import __version__
from sandbox.cluster import objects, tools
from sandbox.cluster.client import Cluster
from sandbox.cluster.errors import Forbidden
from sandbox.cluster.platform import CONFIG_MAP, NAMESPACE, find_platform
from sandbox.images import builders
from sandbox.images import registry as registries
from sandbox.model.durations import short_duration
from sandbox.model.errors import SandboxError
from sandbox.project.config import ImagesConfig
from sandbox.project.load import LoadedProject, load_project
from sandbox.project.platform import Platform, parse_platform
from sandbox.project.settings import Settings, load_settings
from sandbox.provision import cleanupjob, preflight
from sandbox.provision.planning import local_registry
from sandbox.provision.profiles import known_profiles
from sandbox.provision.sources import repository_name
from sandbox.provision.target import Target
from sandbox.source import git


class Verdict(StrEnum):
    """``ok``; ``warn``: something works less well or is not there for all projects; ``fail``: `up` will fail."""

    OK = "ok"
    WARN = "warn"
    FAIL = "fail"


@dataclass(frozen=True)
class Check:
    """One thing that was looked at.

    Attributes:
        name: what was looked at, such as ``helm`` or ``permission: workloads``.
        detail: what was found.
        mend: what to do about it; empty when all is well.
    """

    name: str
    status: Verdict
    detail: str
    mend: str = ""


@dataclass(frozen=True)
class Permission:
    """What we do with some kinds of objects.

    Attributes:
        purpose: what for, as the check is called.
        verbs: of the Kubernetes API.
        resources: (API group, resource), subresources after a slash.
        namespaced: whether it is asked for the sandbox's namespace or for the whole cluster.
        required: whether every `up` needs it; else only projects that bring such objects do.
    """

    purpose: str
    verbs: tuple[str, ...]
    resources: tuple[tuple[str, str], ...]
    namespaced: bool = True
    required: bool = True


_WRITE = ("get", "list", "watch", "create", "patch", "delete")

# The rights that `up`, `down` and the commands that look at a sandbox use, and nothing else.
PERMISSIONS: tuple[Permission, ...] = (
    Permission("namespaces", ("get", "list", "create", "patch", "delete"), (("", "namespaces"),), namespaced=False),
    Permission(
        "guardrails",
        ("get", "create", "patch"),
        (("", "resourcequotas"), ("", "limitranges"), ("networking.k8s.io", "networkpolicies")),
    ),
    # Helm keeps its releases in Secrets, and updates them.
    Permission("records and Helm releases", (*_WRITE, "update"), (("", "secrets"),)),
    Permission("deployment lock", ("get", "create", "update", "patch", "delete"), (("coordination.k8s.io", "leases"),)),
    Permission(
        "workloads",
        _WRITE,
        (
            ("apps", "deployments"),
            ("apps", "statefulsets"),
            ("apps", "daemonsets"),
            ("batch", "jobs"),
            ("batch", "cronjobs"),
        ),
    ),
    Permission(
        "configuration, services, storage",
        _WRITE,
        (("", "configmaps"), ("", "services"), ("", "serviceaccounts"), ("", "persistentvolumeclaims")),
    ),
    Permission(
        "seeing why something fails",
        ("get", "list", "watch"),
        (("", "pods"), ("apps", "replicasets"), ("", "events")),
    ),
    Permission("logs", ("get",), (("", "pods/log"),)),
    Permission("exec and port-forward", ("create",), (("", "pods/exec"), ("", "pods/portforward")), required=False),
    Permission(
        "roles and ingresses of charts",
        _WRITE,
        (
            ("rbac.authorization.k8s.io", "roles"),
            ("rbac.authorization.k8s.io", "rolebindings"),
            ("networking.k8s.io", "ingresses"),
        ),
        required=False,
    ),
)

# Expiry is counted by the server's clock; what is shown as "in 7h" is compared with this machine's.
_CLOCK_TOLERANCE = timedelta(seconds=30)
_DEFAULT_CLASS = "storageclass.kubernetes.io/is-default-class"
# Server-side apply of all kinds, ValidatingAdmissionPolicy and pod security are stable from here on.
_OLDEST_SERVER = Version("1.28")
# At a time: enough to hide the round trip, too few to meet the API server's limits.
_PARALLEL_REVIEWS = 8
_ASK_FOR_RIGHTS = "ask whoever runs the cluster for these rights (kubectl auth can-i says the same)"


async def examine(
    target: Target, *, folder: Path | None = None, builder: str | None = None, registry: str | None = None
) -> list[Check]:
    """Look at everything that `up` needs, for the project around ``folder`` (default: the current one) if there is one.

    Args:
        builder: instead of the one that project and settings name.
        registry: likewise.
    """
    settings, settings_check = await asyncio.to_thread(_settings)
    root = await asyncio.to_thread(_root, folder or Path.cwd())
    project, project_check = await asyncio.to_thread(_project, root)
    images = project.project.images if project else ImagesConfig()
    platform_configuration = Platform()
    checks = [_client(), *_tools(project), settings_check, project_check]
    async with AsyncExitStack() as stack:
        cluster, reached = await _reach(target, stack)
        checks += reached
        if cluster is not None:
            platform_configuration, platform_check = await _platform(cluster, settings)
            checks += [platform_check, *await _inside(cluster, settings, project, platform_configuration)]
            registry = registry or platform_configuration.registry or images.registry or settings.registry
            registry = registry or await _local_registry(cluster)
    chosen = builder or (images.builder if images.builder != "auto" else settings.builder or "auto")
    registry = registry or images.registry or settings.registry
    checks += [await _builder(chosen, project), await _registry(registry)]
    checks.append(await asyncio.to_thread(_profiles, settings, project, root, platform_configuration))
    return checks


def _failed(name: str, error: SandboxError, status: Verdict = Verdict.FAIL) -> Check:
    why = f": {error.why.splitlines()[0]}" if error.why else ""
    return Check(name, status, f"{error.what}{why}", error.hint)


# --- this machine -----------------------------------------------------------------------------------


def _client() -> Check:
    return Check("sandbox", Verdict.OK, f"{__version__}, Python {platform.python_version()}, {platform.system()}")


def _tools(project: LoadedProject | None) -> list[Check]:
    """git always; helm and kubectl as far as the project needs them."""
    versions = tools.tool_versions()
    kinds = {service.kind for service in project.project.services.values()} if project else set()

    def tool(name: str, what_for: str, missing: Verdict) -> Check:
        path = tools.find_tool(name)
        if path is None:
            return Check(name, missing, f"not found in PATH; needed for {what_for}", f"install {name}")
        return Check(name, Verdict.OK, f"{versions.get(name, 'unknown version')} ({path})")

    return [
        tool("git", "reading commits", Verdict.FAIL),
        tool("helm", "charts", Verdict.FAIL if "chart" in kinds else Verdict.WARN),
        tool("kubectl", "kustomizations and port-forward", Verdict.FAIL if "kustomize" in kinds else Verdict.WARN),
    ]


def _settings() -> tuple[Settings, Check]:
    try:
        settings = load_settings()
    except SandboxError as error:
        return Settings(), _failed("settings", error)
    chosen = {"registry": settings.registry, "builder": settings.builder, "namespace prefix": settings.namespace_prefix}
    said = [f"{name} {value}" for name, value in chosen.items() if value]
    return settings, Check("settings", Verdict.OK, ", ".join(said) or "none of your own: the defaults hold")


def _root(folder: Path) -> Path | None:
    """The root of the working tree around a folder, or None: doctor can be run anywhere."""
    try:
        return git.repository_root(folder)
    except SandboxError:
        return None


def _repository_name(root: Path) -> str:
    """The name that `up` would give a project without a file."""
    try:
        return repository_name(git.resolve(root, None).repo)
    except SandboxError:
        # Nothing is committed yet.
        return root.name


def _project(root: Path | None) -> tuple[LoadedProject | None, Check]:
    if root is None:
        return None, Check("project", Verdict.OK, "the current folder is in no git repository")
    try:
        loaded = load_project(root, name_hint=_repository_name(root))
    except SandboxError as error:
        return None, _failed("project", error)
    how = "sandbox.yaml" if loaded.source == "file" else "found by its layout; `sandbox init` writes it down"
    services = ", ".join(loaded.project.services)
    return loaded, Check("project", Verdict.OK, f"{loaded.project.project}: {services} ({how})")


async def _builder(preferred: str, project: LoadedProject | None) -> Check:
    """What builds images; that there is nothing is a failure only for a project whose images are built."""
    found = await builders.detect(preferred)
    if found.builder is not None or preferred == "none":
        return Check("builder", Verdict.OK, found.reason)
    services = project.project.services.values() if project else ()
    builds = any(image.build for service in services for image in service.images)
    return Check(
        "builder",
        Verdict.FAIL if builds else Verdict.WARN,
        found.reason,
        "install docker, buildah or podman, or let CI build (images.builder: none)",
    )


async def _registry(registry: str | None) -> Check:
    if registry is None:
        return Check(
            "registry",
            Verdict.WARN,
            "none is configured: images cannot be built, only found",
            "set images.registry in sandbox.yaml, or registry in your settings",
        )
    try:
        await registries.ping(registry)
    except SandboxError as error:
        return _failed("registry", error)
    return Check("registry", Verdict.OK, registry)


def _profiles(
    settings: Settings, project: LoadedProject | None, root: Path | None, platform_configuration: Platform
) -> Check:
    said: list[str] = []
    try:
        profiles = known_profiles(settings, root, platform_configuration, say=said.append)
    except SandboxError as error:
        return _failed("quota profiles", error)
    wanted = project.project.defaults.quota if project else "small"
    if wanted not in profiles:
        known = ", ".join(profiles)
        return Check("quota profiles", Verdict.FAIL, f"the project asks for {wanted}; there are {known}", "mend it")
    whose = " of the platform" if platform_configuration.governs_profiles else ""
    notes = "".join(f"; {note}" for note in said)
    return Check("quota profiles", Verdict.OK, f"{', '.join(profiles)}{whose}; used: {wanted}{notes}")


# --- the cluster ------------------------------------------------------------------------------------


async def _reach(target: Target, stack: AsyncExitStack) -> tuple[Cluster | None, list[Check]]:
    """Connect; None when there is no kubeconfig or no answer."""
    try:
        cluster = await stack.enter_async_context(Cluster.connect(target.context, target.kubeconfig))
    except SandboxError as error:
        return None, [_failed("kubeconfig", error)]
    context = Check("kubeconfig", Verdict.OK, f"context {cluster.context}, {cluster.kubeconfig_path}")
    try:
        version = await cluster.version()
        clock = _clock(await cluster.server_time(), datetime.now(UTC))
        user = await cluster.whoami()
    except SandboxError as error:
        return None, [context, _failed("cluster", error)]
    groups = ", ".join(group for group in user.groups if group != "system:authenticated")
    who = f"{user.username} ({groups})" if groups else user.username
    return cluster, [context, _server(version, cluster.server), clock, Check("you are", Verdict.OK, who)]


async def _cleanup(cluster: Cluster, platform_configuration: Platform) -> list[Check]:
    """Whether something deletes what has expired, as far as one may see; without a platform that is nobody's duty."""
    if not platform_configuration.governs_profiles:
        return []
    name = "clean-up"
    try:
        found = await cleanupjob.look(cluster)
    except SandboxError as error:
        return [_failed(name, error, Verdict.WARN)]
    if found is None:
        return []
    return [Check(name, Verdict.WARN if found.mend else Verdict.OK, found.said, found.mend)]


async def _platform(cluster: Cluster, settings: Settings) -> tuple[Platform, Check]:
    """What the platform team decided; that it decided nothing is no fault."""
    name = "platform configuration"
    where = f"ConfigMap {CONFIG_MAP} in {NAMESPACE}"
    try:
        text = await find_platform(cluster)
        decided = parse_platform(text)
    except Forbidden as error:
        mend = "where the chart `sandbox` is installed, everybody may read it: ask whoever runs the cluster"
        return Platform(), Check(name, Verdict.WARN, f"may not be read ({where}): {error.why}", mend)
    except SandboxError as error:
        return Platform(), _failed(name, error)
    if text is None:
        return decided, Check(name, Verdict.OK, f"none ({where}): the profiles of tool, user and project hold")
    called = f"{decided.cluster_name}: " if decided.cluster_name else ""
    prefix, own = decided.namespace_prefix, settings.namespace_prefix
    begins = f"; namespaces begin with {prefix}" if prefix else ""
    said = f"{called}quota profiles {', '.join(decided.profiles) or 'none'}{begins}"
    if prefix and own not in ("", prefix):
        mend = "take namespacePrefix out of your settings: the platform's counts"
        return decided, Check(name, Verdict.WARN, f"{said}, not with your {own}", mend)
    return decided, Check(name, Verdict.OK, said)


def _server(version: str, address: str) -> Check:
    said = f"Kubernetes {version} at {address}"
    try:
        if Version(version.partition("+")[0].partition("-")[0]) < _OLDEST_SERVER:
            return Check("cluster", Verdict.FAIL, said, f"Kubernetes {_OLDEST_SERVER} or newer is needed")
    except InvalidVersion:
        return Check("cluster", Verdict.WARN, f"{said}: its version cannot be read")
    return Check("cluster", Verdict.OK, said)


def _clock(server: datetime, here: datetime) -> Check:
    gap = server - here
    if abs(gap) <= _CLOCK_TOLERANCE:
        return Check("clock", Verdict.OK, "agrees with the cluster's")
    which = "behind" if gap > timedelta() else "ahead of"
    return Check(
        "clock",
        Verdict.WARN,
        f"this machine is {short_duration(gap)} {which} the cluster: expiry counts by the cluster's clock",
        "set this machine's clock",
    )


async def _inside(
    cluster: Cluster, settings: Settings, project: LoadedProject | None, platform_configuration: Platform
) -> list[Check]:
    checks = await _requirements(cluster, project)
    checks += await _permissions(cluster, settings, platform_configuration.owner_role)
    checks.append(await _default_storage(cluster))
    return [*checks, *await _cleanup(cluster, platform_configuration)]


async def _requirements(cluster: Cluster, project: LoadedProject | None) -> list[Check]:
    """The project's own ``requires:``."""
    if project is None:
        return []
    versions = {"sandbox": __version__, **await asyncio.to_thread(tools.tool_versions)}
    try:
        preflight.check_requirements(project.project.requires, {**versions, "kubernetes": await cluster.version()})
    except SandboxError as error:
        return [_failed("requires", error)]
    return [Check("requires", Verdict.OK, "the versions that the project asks for are here")]


async def _permissions(cluster: Cluster, settings: Settings, owner_role: str | None) -> list[Check]:
    """One check for each purpose; every verb of every resource is asked for.

    Rights in a sandbox are asked for in a namespace that is not there yet: whoever creates namespaces
    needs them in each that they create. Where the platform gives them by a role, that role is what is needed.
    """
    if owner_role is not None:
        return [await _platforms_permissions(cluster, owner_role)]
    namespace = f"{settings.namespace_prefix or ''}sandbox-doctor"
    at_once = asyncio.Semaphore(_PARALLEL_REVIEWS)

    async def denied(permission: Permission, group: str, resource: str, verb: str) -> str | None:
        where = namespace if permission.namespaced else ""
        async with at_once:
            allowed = await cluster.can_i(verb, group, resource, where)
        return None if allowed else f"{verb} {resource}{f'.{group}' if group else ''}"

    async def one(permission: Permission) -> Check:
        name = f"may: {permission.purpose}"
        asked = [(group, resource, verb) for group, resource in permission.resources for verb in permission.verbs]
        try:
            refused = [r for r in await asyncio.gather(*(denied(permission, *a) for a in asked)) if r]
        except SandboxError as error:
            return _failed(name, error, Verdict.WARN)
        if refused:
            status = Verdict.FAIL if permission.required else Verdict.WARN
            return Check(name, status, f"not allowed: {', '.join(refused)}", _ASK_FOR_RIGHTS)
        return Check(name, Verdict.OK, ", ".join(permission.verbs))

    return list(await asyncio.gather(*(one(permission) for permission in PERMISSIONS)))


async def _platforms_permissions(cluster: Cluster, owner_role: str) -> Check:
    """What a developer needs where the chart is installed; all else comes with the role in each sandbox."""
    name, rbac = "may: have sandboxes", "rbac.authorization.k8s.io"
    wanted = {
        "create namespaces": cluster.can_i("create", "", "namespaces"),
        "list namespaces": cluster.can_i("list", "", "namespaces"),
        f"create rolebindings.{rbac}": cluster.can_i("create", rbac, "rolebindings"),
        f"bind clusterroles.{rbac}/{owner_role}": cluster.can_i("bind", rbac, "clusterroles", name=owner_role),
    }
    try:
        allowed = dict(zip(wanted, await asyncio.gather(*wanted.values()), strict=True))
    except SandboxError as error:
        return _failed(name, error, Verdict.WARN)
    refused = [what for what, may in allowed.items() if not may]
    if refused:
        mend = "ask whoever runs the cluster for a group of the chart's access.developerGroups"
        return Check(name, Verdict.FAIL, f"not allowed: {', '.join(refused)}", mend)
    return Check(name, Verdict.OK, f"the rest comes with the ClusterRole {owner_role} in each sandbox")


async def _default_storage(cluster: Cluster) -> Check:
    name = "storage class"
    try:
        classes = [item async for item in objects.list_(cluster, "storage.k8s.io/v1", "StorageClass")]
    except SandboxError as error:
        return _failed(name, error, Verdict.WARN)
    default = [c["metadata"]["name"] for c in classes if _annotation(c, _DEFAULT_CLASS) == "true"]
    if not default:
        known = ", ".join(c["metadata"]["name"] for c in classes) or "none"
        return Check(
            name,
            Verdict.WARN,
            f"no default one (there are: {known})",
            "claims that name no class stay pending: name one in the charts' values, or have a default one set",
        )
    return Check(name, Verdict.OK, f"{', '.join(default)} (default)")


def _annotation(manifest: Mapping[str, Any], key: str) -> str:
    return str((manifest["metadata"].get("annotations") or {}).get(key, ""))


async def _local_registry(cluster: Cluster) -> str | None:
    """The registry that the cluster announces (KEP-1755), as kind and the embedded cluster do."""
    try:
        return await local_registry(cluster)
    except SandboxError:
        return None
