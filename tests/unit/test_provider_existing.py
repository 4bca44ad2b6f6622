"""Existing clusters are used, never made or removed; and which provider `auto` takes."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from sandbox.cluster.providers import choose
from sandbox.cluster.providers.existing import ExistingProvider, reachable
from sandbox.cluster.providers.model import RUNNING, UNKNOWN
from sandbox.model.errors import InvalidInput, OperationFailed, Refused


@pytest.fixture
def listener() -> Iterator[str]:
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield f"https://127.0.0.1:{server.getsockname()[1]}"


@pytest.fixture
def closed() -> str:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return f"https://127.0.0.1:{free.getsockname()[1]}"


def write_kubeconfig(path: Path, servers: dict[str, str], current: str) -> None:
    content = {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": name, "cluster": {"server": server}} for name, server in servers.items()],
        "users": [{"name": "me", "user": {}}],
        "contexts": [{"name": name, "context": {"cluster": name, "user": "me"}} for name in servers],
        "current-context": current,
    }
    path.write_text(yaml.safe_dump(content))


@pytest.fixture
def kubeconfig(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("KUBECONFIG", str(tmp_path / "config"))
    monkeypatch.delenv("KUBERNETES_SERVICE_HOST", raising=False)
    return tmp_path / "config"


async def test_contexts_are_listed_with_what_is_known(kubeconfig: Path, listener: str, closed: str) -> None:
    write_kubeconfig(kubeconfig, {"up": listener, "down": closed, "sandbox-dev": listener}, "up")
    listed = {c.name: (c.state, c.context, c.kubeconfig) for c in await ExistingProvider().list()}
    assert listed == {"down": (UNKNOWN, "down", kubeconfig), "up": (RUNNING, "up", kubeconfig)}


def test_the_current_context_must_answer(kubeconfig: Path, listener: str, closed: str) -> None:
    write_kubeconfig(kubeconfig, {"up": listener, "down": closed}, "up")
    assert ExistingProvider().available() is None
    write_kubeconfig(kubeconfig, {"up": listener, "down": closed}, "down")
    assert "does not answer" in (ExistingProvider().available() or "")


def test_without_a_kubeconfig_it_says_so(kubeconfig: Path) -> None:
    assert "kubeconfig" in (ExistingProvider().available() or "")


async def test_nothing_is_made_removed_or_loaded() -> None:
    provider = ExistingProvider()
    with pytest.raises(Refused, match="cannot be created"):
        await provider.create("mine", progress=print)
    with pytest.raises(Refused, match="was not made by this tool"):
        await provider.delete("mine", print)
    with pytest.raises(Refused, match="registry of its own"):
        await provider.load_image("mine", "image:1", print)


def test_auto_takes_the_current_context_when_it_answers(kubeconfig: Path, listener: str) -> None:
    write_kubeconfig(kubeconfig, {"up": listener}, "up")
    assert choose("auto").name == "existing"


def test_auto_never_creates_with_existing(
    kubeconfig: Path, listener: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    write_kubeconfig(kubeconfig, {"up": listener}, "up")
    monkeypatch.setenv("PATH", str(tmp_path))  # neither kind nor docker
    monkeypatch.setattr("os.geteuid", lambda: 0)
    assert choose("auto", creating=True).name == "embedded"


def test_when_there_is_none_every_reason_is_said(
    kubeconfig: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr("os.geteuid", lambda: 1000)
    with pytest.raises(OperationFailed, match="no cluster can be had here") as failure:
        choose("auto")
    assert [line.split(":")[0] for line in failure.value.why.splitlines()] == ["existing", "kind", "embedded"]


def test_an_unknown_provider_is_said() -> None:
    with pytest.raises(InvalidInput, match="no provider 'minikube'"):
        choose("minikube")


def test_a_server_without_a_name_is_not_reachable() -> None:
    assert not reachable("https://does-not-exist.invalid")
