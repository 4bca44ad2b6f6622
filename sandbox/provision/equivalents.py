"""The git, helm and kubectl commands that do the same as a step: nobody has to trust a layer they cannot see through.

They are shown with ``-v`` and never run. Values and Secrets are named as files, never spelled out.
"""

from __future__ import annotations

from collections.abc import Sequence

from sandbox.model.record import ServiceRecord
from sandbox.model.source import Commit
from sandbox.provision.plan import ServicePlan

Argv = Sequence[str]


def export(commit: Commit) -> Argv:
    """Get the files of a commit."""
    return ["git", "-C", commit.repo, "archive", "--output=tree.tar", commit.sha]


def render(service: ServicePlan, namespace: str) -> Argv:
    """Render a service's manifests."""
    match service.lock.kind:
        case "chart":
            files = [f"--values={name}" for name in service.lock.values_files]
            return ["helm", "template", service.release or service.name, service.lock.path, "-n", namespace, *files]
        case "kustomize":
            return ["kubectl", "kustomize", service.lock.path]
        case _:
            return ["kubectl", "create", "--dry-run=client", "-o", "yaml", "-R", "-f", service.lock.path]


def create_namespace(context: str, namespace: str) -> Argv:
    return ["kubectl", "--context", context, "create", "-f", f"namespace-{namespace}.yaml"]


def apply(context: str, namespace: str, what: str) -> Argv:
    """Apply some manifests, as ``sandbox up --dry-run`` prints them."""
    return [
        *("kubectl", "--context", context, "-n", namespace, "apply", "--server-side", "--force-conflicts"),
        *("--field-manager", "sandbox", "-f", f"{what}.yaml"),
    ]


def deploy(context: str, namespace: str, service: ServicePlan) -> Argv:
    """Deploy one service."""
    if service.release is None:
        return apply(context, namespace, service.name)
    return [
        *("helm", "--kube-context", context, "-n", namespace, "upgrade", "--install", "--force-conflicts"),
        *(service.release, service.lock.path, "-f", f"{service.name}-values.yaml"),
    ]


def uninstall(context: str, namespace: str, release: str) -> Argv:
    return ["helm", "--kube-context", context, "-n", namespace, "uninstall", release]


def remove(context: str, namespace: str, service: ServiceRecord) -> Argv:
    """Remove what a service put into a namespace."""
    if service.release is not None:
        return uninstall(context, namespace, service.release)
    here = [str(item.ref) for item in service.inventory if item.namespace == namespace]
    return ["kubectl", "--context", context, "-n", namespace, "delete", "--ignore-not-found", *here]


def bring_back(context: str, namespace: str, name: str, service: ServiceRecord) -> Argv:
    """Bring a service back to what a record has of it."""
    if service.release is None or service.revision is None:
        return apply(context, namespace, name)
    revision = (service.release, str(service.revision))
    return ["helm", "--kube-context", context, "-n", namespace, "rollback", *revision, "--force-conflicts"]


def delete_namespace(context: str, namespace: str) -> Argv:
    return ["kubectl", "--context", context, "delete", "namespace", namespace]
