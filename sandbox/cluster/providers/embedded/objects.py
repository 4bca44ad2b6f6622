"""What a fresh cluster is given: names for pods, storage, and where its registry is. Pure functions."""

from __future__ import annotations

from typing import Any

import yaml

from sandbox.cluster.providers.embedded.configuration import DNS_ADDRESS, Layout

_DNS_PORTS = ({"name": "dns", "protocol": "UDP", "port": 53}, {"name": "dns-tcp", "protocol": "TCP", "port": 53})


def manifests(layout: Layout) -> list[dict[str, Any]]:
    """The objects of a cluster with a node, in the order in which they are applied."""
    return [_storage_class(), *_dns_rights(), *_dns_service(layout), _registry_hosting(layout)]


def _storage_class() -> dict[str, Any]:
    return {
        "apiVersion": "storage.k8s.io/v1",
        "kind": "StorageClass",
        "metadata": {"name": "standard", "annotations": {"storageclass.kubernetes.io/is-default-class": "true"}},
        "provisioner": "kubernetes.io/host-path",
        "reclaimPolicy": "Delete",
        "volumeBindingMode": "Immediate",
    }


def _dns_rights() -> list[dict[str, Any]]:
    role = {
        "apiVersion": "rbac.authorization.k8s.io/v1",
        "kind": "ClusterRole",
        "metadata": {"name": "system:coredns"},
        "rules": [
            {
                "apiGroups": [""],
                "resources": ["endpoints", "services", "pods", "namespaces"],
                "verbs": ["list", "watch"],
            },
            {"apiGroups": ["discovery.k8s.io"], "resources": ["endpointslices"], "verbs": ["list", "watch"]},
        ],
    }
    binding = {
        "apiVersion": "rbac.authorization.k8s.io/v1",
        "kind": "ClusterRoleBinding",
        "metadata": {"name": "system:coredns"},
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "system:coredns"},
        "subjects": [{"apiGroup": "rbac.authorization.k8s.io", "kind": "User", "name": "system:coredns"}],
    }
    return [role, binding]


def _dns_service(layout: Layout) -> list[dict[str, Any]]:
    """CoreDNS is a process of the node, so its Service has no selector and its endpoints are written here."""
    metadata = {"name": "kube-dns", "namespace": "kube-system", "labels": {"k8s-app": "kube-dns"}}
    service = {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": metadata,
        "spec": {"clusterIP": DNS_ADDRESS, "ports": [dict(port) for port in _DNS_PORTS]},
    }
    endpoints = {
        "apiVersion": "discovery.k8s.io/v1",
        "kind": "EndpointSlice",
        "metadata": {
            "name": "kube-dns-node",
            "namespace": "kube-system",
            "labels": {"kubernetes.io/service-name": "kube-dns", "endpointslice.kubernetes.io/managed-by": "sandbox"},
        },
        "addressType": "IPv4",
        "endpoints": [{"addresses": [layout.address], "conditions": {"ready": True}}],
        "ports": [dict(port) for port in _DNS_PORTS],
    }
    return [service, endpoints]


def _registry_hosting(layout: Layout) -> dict[str, Any]:
    """The standard way to say where a cluster's local registry is (KEP-1755)."""
    hosting = {"host": layout.registry, "hostFromContainerRuntime": layout.registry}
    return {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": "local-registry-hosting", "namespace": "kube-public"},
        "data": {"localRegistryHosting.v1": yaml.safe_dump(hosting)},
    }
