"""What a port of a Service means in a pod, and which programs there are."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from sandbox.cluster import pods, tools
from sandbox.cluster.discovery import _BUILT_IN, Resource
from sandbox.cluster.pods import is_ready, target_port
from sandbox.model.errors import InvalidInput

POD: dict[str, Any] = {
    "kind": "Pod",
    "metadata": {"name": "web-1"},
    "spec": {"containers": [{"ports": [{"name": "http", "containerPort": 8080}, {"containerPort": 9090}]}]},
}


def service(*ports: dict[str, Any]) -> dict[str, Any]:
    return {"kind": "Service", "metadata": {"name": "web"}, "spec": {"ports": list(ports)}}


@pytest.mark.parametrize(
    ("target", "port", "expected"),
    [
        (service({"name": "http", "port": 80, "targetPort": 8000}), 80, 8000),
        (service({"name": "http", "port": 80, "targetPort": 8000}), "80", 8000),
        (service({"name": "http", "port": 80, "targetPort": "http"}), "http", 8080),
        (service({"port": 80}), 80, 80),
        (POD, 1234, 1234),
        (POD, "http", 8080),
    ],
)
def test_ports(target: dict[str, Any], port: int | str, expected: int) -> None:
    assert target_port(target, port, POD) == expected


@pytest.mark.parametrize(
    ("target", "port", "hint"),
    [
        (service({"name": "http", "port": 80}), 443, "http (80)"),
        (service(), "http", "none"),
        (service({"name": "x", "port": 80, "targetPort": "nowhere"}), "x", "http"),
        (POD, "nowhere", "http"),
    ],
)
def test_ports_that_are_not_there(target: dict[str, Any], port: int | str, hint: str) -> None:
    with pytest.raises(InvalidInput, match="has no port") as caught:
        target_port(target, port, POD)
    assert hint in caught.value.hint


@pytest.mark.parametrize(
    ("metadata", "state", "ready"),
    [({}, "True", True), ({}, "False", False), ({"deletionTimestamp": "x"}, "True", False)],
)
def test_only_a_ready_pod_that_stays_takes_connections(metadata: Any, state: str, ready: bool) -> None:
    pod = {"metadata": metadata, "status": {"conditions": [{"type": "Ready", "status": state}]}}
    assert is_ready(pod) is ready


# -- paths


@pytest.mark.parametrize(
    ("key", "arguments", "expected"),
    [
        (("v1", "Pod"), ("shop", "web-1", "log"), "/api/v1/namespaces/shop/pods/web-1/log"),
        (("v1", "Namespace"), ("shop", "shop"), "/api/v1/namespaces/shop"),
        (("apps/v1", "Deployment"), (None, None), "/apis/apps/v1/deployments"),
        (("networking.k8s.io/v1", "NetworkPolicy"), ("a",), "/apis/networking.k8s.io/v1/namespaces/a/networkpolicies"),
        (("networking.k8s.io/v1", "Ingress"), ("a",), "/apis/networking.k8s.io/v1/namespaces/a/ingresses"),
        (("v1", "Endpoints"), ("a",), "/api/v1/namespaces/a/endpoints"),
        (("v1", "Secret"), ("a", "../b?x"), "/api/v1/namespaces/a/secrets/..%2Fb%3Fx"),
    ],
)
def test_paths(key: tuple[str, str], arguments: tuple[Any, ...], expected: str) -> None:
    assert _BUILT_IN[key].path(*arguments) == expected


def test_a_resource_says_its_version() -> None:
    assert Resource("a.b", "v1", "X", "xs", True, frozenset()).api_version == "a.b/v1"


# -- tools


def program(path: Path, text: str) -> Path:
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)
    return path


def test_tools_are_found_in_path_then_with_the_embedded_cluster(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    inside, outside = tmp_path / "embedded", tmp_path / "path"
    inside.mkdir()
    outside.mkdir()
    program(inside / "helm", "echo v4")
    monkeypatch.setenv("PATH", str(outside))
    monkeypatch.setattr("sandbox.cluster.providers.embedded_bin_dir", lambda: inside)
    assert tools.find_tool("helm") == inside / "helm"
    program(outside / "helm", "echo v3")
    assert tools.find_tool("helm") == outside / "helm"
    assert tools.find_tool("kubectl") is None


def test_versions_are_read_and_what_hangs_is_unknown(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program(tmp_path / "helm", "echo v3.17.0+gabc")
    program(tmp_path / "git", "echo git version 2.39.5")
    program(tmp_path / "kubectl", "exec /bin/sleep 60")
    (tmp_path / "kustomize").write_bytes(b"\x7fnot a program")
    (tmp_path / "kustomize").chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(tools, "_TIMEOUT_S", 2.0)
    monkeypatch.setattr("sandbox.cluster.providers.embedded_bin_dir", lambda: None)
    assert tools.tool_versions() == {"git": "2.39.5", "helm": "v3.17.0+gabc", "kubectl": "unknown"}


@pytest.mark.parametrize(
    ("state", "restarts", "previous"),
    [
        ({"running": {}}, 2, True),
        ({"waiting": {"reason": "CrashLoopBackOff"}}, 2, True),
        # Ended and not started again yet: the run before that one is gone from the node.
        ({"terminated": {"exitCode": 1}}, 2, False),
        # Ended for good, in its first run: there is none before.
        ({"terminated": {"exitCode": 0}}, 0, True),
    ],
)
def test_the_run_before_is_the_last_that_ended(state: dict[str, Any], restarts: int, previous: bool) -> None:
    pod = {"status": {"containerStatuses": [{"name": "main", "restartCount": restarts, "state": state}]}}
    options = pods._LogOptions(previous=True, tail=None, since=None, timestamps=False)
    assert pods._of_last_end(options, pod, "main").previous is previous
    assert not pods._of_last_end(replace(options, previous=False), pod, "main").previous
