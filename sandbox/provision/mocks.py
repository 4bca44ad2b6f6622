"""Stand-ins for services: one image that answers on their ports, or manifests of the project."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from sandbox.model import labels
from sandbox.model.objects import Manifest, digest
from sandbox.model.record import ServiceLock
from sandbox.project.config import Mock, Service
from sandbox.provision.plan import ServicePlan
from sandbox.provision.sources import Source
from sandbox.render.manifests import read_manifests


def plan(name: str, service: Service, source: Source, namespace: str) -> ServicePlan:
    """The plan of a service's stand-in.

    Raises:
        InvalidInput: its manifests cannot be read.
    """
    mock = service.mock
    assert mock is not None, "selection refuses a mock that is not declared"
    manifests = mock_manifests(name, mock, service.ports, source.tree, namespace)
    lock = ServiceLock(
        kind="manifests",
        repo=source.commit.repo,
        ref=source.commit.branch or source.commit.ref,
        commit=source.commit.sha,
        pushed=source.commit.pushed,
        dirty=source.commit.dirty,
        path=mock.manifests.paths[0] if mock.manifests else "",
        input_digest=digest(manifests),
        manifest_digest=digest(manifests),
    )
    return ServicePlan(name=name, lock=lock, manifests=manifests, ports=service.ports)


def mock_manifests(name: str, mock: Mock, ports: Mapping[str, int], tree: Path, namespace: str) -> list[Manifest]:
    """The objects of a stand-in."""
    if mock.manifests is not None:
        found = read_manifests(tree, mock.manifests.paths)
        return [_placed(manifest, name, namespace) for manifest in found]
    metadata = {"name": name, "namespace": namespace, "labels": {labels.SERVICE: name, "app.kubernetes.io/name": name}}
    selector = {"app.kubernetes.io/name": name}
    container = {
        "name": "mock",
        "image": mock.image,
        "command": list(mock.command) or None,
        "env": [{"name": key, "value": value} for key, value in mock.env.items()],
        "ports": [{"name": port, "containerPort": number} for port, number in ports.items()],
    }
    deployment: Manifest = {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": metadata,
        "spec": {
            "selector": {"matchLabels": selector},
            "template": {
                "metadata": {"labels": {**selector, labels.SERVICE: name}},
                "spec": {"containers": [{key: value for key, value in container.items() if value}]},
            },
        },
    }
    service: Manifest = {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": metadata,
        "spec": {
            "selector": selector,
            "ports": [{"name": port, "port": number, "targetPort": number} for port, number in ports.items()],
        },
    }
    return [deployment, service] if ports else [deployment]


def _placed(manifest: Manifest, name: str, namespace: str) -> Manifest:
    metadata = manifest["metadata"]
    marked = {**(metadata.get("labels") or {}), labels.SERVICE: name}
    return {**manifest, "metadata": {**metadata, "namespace": namespace, "labels": marked}}
