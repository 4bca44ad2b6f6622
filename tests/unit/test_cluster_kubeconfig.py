"""kubeconfig files are read as kubectl reads them, and what is wrong with one is said."""

from __future__ import annotations

import base64
import os
from pathlib import Path
from typing import Any

import pytest
import yaml

from sandbox.cluster import kubeconfig
from sandbox.cluster.client import Cluster, contexts
from sandbox.model.errors import InvalidInput, Unreachable


def config(name: str, *, current: bool = True, **changes: Any) -> dict[str, Any]:
    return {
        "apiVersion": "v1",
        "kind": "Config",
        **({"current-context": name} if current else {}),
        "contexts": [{"name": name, "context": {"cluster": name, "user": name, "namespace": "team"}}],
        "clusters": [{"name": name, "cluster": {"server": f"https://{name}.example:6443/"}}],
        "users": [{"name": name, "user": {"token": "t0ken"}}],
        **changes,
    }


def write(path: Path, document: Any) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(document if isinstance(document, str) else yaml.safe_dump(document))
    return path


def test_one_file_gives_its_current_context(tmp_path: Path) -> None:
    file = write(tmp_path / "config", config("a"))
    found = kubeconfig.find(None, file)
    assert (found.context, found.server, found.namespace, found.file) == ("a", "https://a.example:6443", "team", file)


def test_several_files_merge_and_the_first_to_define_wins(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = write(tmp_path / "1", config("a"))
    second = write(tmp_path / "2", {**config("b"), "users": [{"name": "a", "user": {"token": "other"}}]})
    missing = tmp_path / "3"
    monkeypatch.setenv("KUBECONFIG", os.pathsep.join(map(str, (first, missing, second))))
    assert contexts() == ["a", "b"]
    assert kubeconfig.find("a", None).user["token"] == "t0ken"
    with pytest.raises(InvalidInput, match="names the user 'b'"):
        kubeconfig.find("b", None)


async def test_a_context_spread_over_files_gets_a_kubeconfig_of_its_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = config("a")
    first = write(tmp_path / "1", {**whole, "users": []})
    second = write(tmp_path / "2", {"users": whole["users"]})
    monkeypatch.setenv("KUBECONFIG", os.pathsep.join(map(str, (first, second))))
    async with Cluster.connect() as cluster:
        path = cluster.kubeconfig_path
        assert path not in (first, second)
        assert path.stat().st_mode & 0o777 == 0o600
        assert kubeconfig.find(None, path).user["token"] == "t0ken"
    assert not path.exists()


def test_paths_are_relative_to_the_file_that_holds_them(tmp_path: Path) -> None:
    document = config("a", users=[{"name": "a", "user": {"tokenFile": "secret/token", "exec": {"command": "./login"}}}])
    file = write(tmp_path / "folder" / "config", document)
    found = kubeconfig.find(None, file)
    assert found.user["tokenFile"] == str(tmp_path / "folder" / "secret" / "token")
    assert found.user["exec"]["command"] == str(tmp_path / "folder" / "login")


def test_a_plugin_without_a_slash_is_looked_up_in_path(tmp_path: Path) -> None:
    document = config("a", users=[{"name": "a", "user": {"exec": {"command": "login"}}}])
    assert kubeconfig.find(None, write(tmp_path / "c", document)).user["exec"]["command"] == "login"


def test_certificates_are_read_from_data_or_file(tmp_path: Path) -> None:
    write(tmp_path / "ca.pem", "PEM of a file")
    section = {"certificate-authority-data": base64.b64encode(b"PEM of data").decode()}
    assert kubeconfig.pem(section, "certificate-authority", "x") == "PEM of data"
    assert kubeconfig.pem({"certificate-authority": str(tmp_path / "ca.pem")}, "certificate-authority", "x") == (
        "PEM of a file"
    )
    with pytest.raises(InvalidInput, match="cannot be read"):
        kubeconfig.pem({"certificate-authority": str(tmp_path / "none")}, "certificate-authority", "x")


def test_no_kubeconfig_says_where_it_was_looked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("KUBECONFIG", raising=False)
    monkeypatch.delenv("KUBERNETES_SERVICE_HOST", raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    with pytest.raises(Unreachable) as caught:
        Cluster.connect()
    assert str(tmp_path / ".kube" / "config") in caught.value.why
    assert "--kubeconfig" in caught.value.hint
    assert contexts() == []


def test_an_unknown_context_names_the_known_ones(tmp_path: Path) -> None:
    with pytest.raises(InvalidInput) as caught:
        Cluster.connect("nope", write(tmp_path / "c", config("a")))
    assert "'nope'" in caught.value.what
    assert "one of: a" in caught.value.hint


def test_no_current_context_asks_for_one(tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match="no context is chosen"):
        Cluster.connect(None, write(tmp_path / "c", config("a", current=False)))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("token: {secret-token", "is not YAML"),
        ("[1, 2]", "is not a mapping"),
        ("contexts: 3", "is not a list"),
        ("contexts: [{nome: a}]", "is not a list"),
        ("clusters: [{name: a, cluster: 7}]", "is not a list"),
    ],
)
def test_a_broken_kubeconfig_is_refused_without_its_contents(tmp_path: Path, text: str, expected: str) -> None:
    with pytest.raises(InvalidInput, match=expected) as caught:
        Cluster.connect("a", write(tmp_path / "c", text))
    assert "secret-token" not in str(caught.value)


def test_a_cluster_without_a_server_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match="no usable server"):
        Cluster.connect(None, write(tmp_path / "c", config("a", clusters=[{"name": "a", "cluster": {}}])))


def test_a_pod_uses_its_service_account(tmp_path: Path) -> None:
    for name, text in (("token", "t"), ("namespace", "here"), ("ca.crt", "PEM")):
        write(tmp_path / name, text)
    environment = {"KUBERNETES_SERVICE_HOST": "fd00::1", "KUBERNETES_SERVICE_PORT": "443"}
    found = kubeconfig.in_cluster(environment, tmp_path)
    assert found is not None
    assert (found.server, found.namespace, found.ca) == ("https://[fd00::1]:443", "here", "PEM")
    assert found.user == {"tokenFile": str(tmp_path / "token")}
    assert kubeconfig.in_cluster({}, tmp_path) is None
