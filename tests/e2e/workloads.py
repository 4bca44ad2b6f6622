"""Manifests of small workloads that run the probe image."""

from __future__ import annotations

from typing import Any

from sandbox.model.objects import Manifest


def container(image: str, *arguments: str, name: str = "main", **more: Any) -> Manifest:
    return {"name": name, "image": image, "args": list(arguments), **more}


def serving(image: str, **more: Any) -> Manifest:
    """A container that answers on port 8080 and is ready when it does."""
    probe = {"httpGet": {"path": "/", "port": 8080}, "periodSeconds": 1}
    ports = [{"name": "http", "containerPort": 8080}]
    return container(image, "serve", "8080", ports=ports, readinessProbe=probe, **more)


def pod_spec(*containers: Manifest, **more: Any) -> Manifest:
    return {"terminationGracePeriodSeconds": 0, "containers": list(containers), **more}


def deployment(name: str, spec: Manifest, *, replicas: int = 1, **more: Any) -> Manifest:
    return _workload("Deployment", name, spec, {"replicas": replicas, **more})


def stateful_set(name: str, spec: Manifest, **more: Any) -> Manifest:
    return _workload("StatefulSet", name, spec, {"serviceName": name, **more})


def job(name: str, spec: Manifest, **more: Any) -> Manifest:
    template = {"spec": {"restartPolicy": "Never", **spec}}
    return {"apiVersion": "batch/v1", "kind": "Job", "metadata": {"name": name}, "spec": {"template": template, **more}}


def service(name: str) -> Manifest:
    spec = {"selector": {"app": name}, "ports": [{"name": "http", "port": 80, "targetPort": "http"}]}
    return {"apiVersion": "v1", "kind": "Service", "metadata": {"name": name}, "spec": spec}


def claim(name: str, **more: Any) -> Manifest:
    spec = {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Mi"}}, **more}
    return {"apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": {"name": name}, "spec": spec}


def _workload(kind: str, name: str, spec: Manifest, more: Manifest) -> Manifest:
    labels = {"app": name}
    template = {"metadata": {"labels": labels}, "spec": spec}
    return {
        "apiVersion": "apps/v1",
        "kind": kind,
        "metadata": {"name": name},
        "spec": {"selector": {"matchLabels": labels}, "template": template, **more},
    }
