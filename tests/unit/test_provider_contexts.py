"""The user's kubeconfig: our entries come and go, everything else stays."""

from __future__ import annotations

import stat
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from sandbox.cluster.providers import contexts
from sandbox.model.errors import InvalidInput

names = st.text(alphabet="abc-", min_size=1, max_size=4)
scalars = st.one_of(st.none(), st.booleans(), st.integers(), st.text(max_size=5))


def listed(key: str) -> st.SearchStrategy[list[dict[str, Any]]]:
    body = st.dictionaries(st.text(alphabet="xyz", min_size=1, max_size=3), scalars, max_size=2)
    return st.dictionaries(names, body, max_size=4).map(
        lambda entries: [{"name": name, key: content} for name, content in entries.items()]
    )


configs: st.SearchStrategy[dict[str, Any]] = st.fixed_dictionaries(
    {"apiVersion": st.just("v1"), "kind": st.just("Config")},
    optional={
        "clusters": st.one_of(st.none(), listed("cluster")),
        "users": listed("user"),
        "contexts": listed("context"),
        "current-context": st.one_of(st.just(""), names),
        "preferences": st.just({"colors": True}),
        "extensions": st.just([{"name": "other"}]),
    },
)


def entry(name: str, server: str = "https://10.200.0.2:6443") -> dict[str, Any]:
    return {
        "clusters": [{"name": name, "cluster": {"server": server}}],
        "users": [{"name": name, "user": {"token": "t"}}],
        "contexts": [{"name": name, "context": {"cluster": name, "user": name}}],
        "current-context": name,
    }


def by_name(config: dict[str, Any], key: str) -> dict[str, Any]:
    return {item["name"]: item for item in config.get(key) or []}


@pytest.fixture(autouse=True)
def _state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SANDBOX_STATE_DIR", str(tmp_path / "state"))


@given(config=configs)
def test_adding_keeps_every_other_entry_and_its_order(config: dict[str, Any]) -> None:
    merged = contexts.with_entries(config, entry("sandbox-new"))
    for key in ("clusters", "users", "contexts"):
        before = [item for item in config.get(key) or [] if item["name"] != "sandbox-new"]
        assert [item for item in merged[key] if item["name"] != "sandbox-new"] == before
        assert by_name(merged, key)["sandbox-new"] == entry("sandbox-new")[key][0]
    assert merged["current-context"] == (config.get("current-context") or "sandbox-new")
    assert {k: v for k, v in config.items() if k in {"preferences", "extensions"}}.items() <= merged.items()


@given(config=configs)
def test_adding_twice_is_adding_once(config: dict[str, Any]) -> None:
    once = contexts.with_entries(config, entry("sandbox-new"))
    assert contexts.with_entries(once, entry("sandbox-new")) == once


@given(config=configs)
def test_removing_undoes_adding(config: dict[str, Any]) -> None:
    removed = contexts.without_entry(contexts.with_entries(config, entry("sandbox-new")), "sandbox-new")
    for key in ("clusters", "users", "contexts"):
        assert removed[key] == (config.get(key) or [])
    assert removed["current-context"] == (config.get("current-context") or "")


def test_a_new_file_is_private_and_the_first_context_current(tmp_path: Path) -> None:
    path = tmp_path / "kube" / "config"
    contexts.add(path, entry("sandbox-a"))
    contexts.add(path, entry("sandbox-b"))
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    written = yaml.safe_load(path.read_text())
    assert written["current-context"] == "sandbox-a"
    assert [item["name"] for item in written["contexts"]] == ["sandbox-a", "sandbox-b"]


def test_an_entry_is_replaced(tmp_path: Path) -> None:
    contexts.add(tmp_path / "config", entry("a", "https://old"))
    contexts.add(tmp_path / "config", entry("a", "https://new"))
    assert by_name(contexts.read(tmp_path / "config"), "clusters")["a"]["cluster"]["server"] == "https://new"


def test_many_at_once_lose_nothing(tmp_path: Path) -> None:
    path = tmp_path / "config"
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda n: contexts.add(path, entry(f"c{n}")), range(24)))
    assert set(by_name(contexts.read(path), "contexts")) == {f"c{n}" for n in range(24)}


def test_a_symbolic_link_stays_one(tmp_path: Path) -> None:
    real, link = tmp_path / "real", tmp_path / "link"
    real.write_text("{}")
    link.symlink_to(real)
    contexts.add(link, entry("a"))
    assert link.is_symlink()
    assert "a" in by_name(contexts.read(real), "contexts")


def test_removing_what_is_not_there_writes_nothing(tmp_path: Path) -> None:
    path = tmp_path / "config"
    assert not contexts.remove(path, "a")
    assert not path.exists()


@pytest.mark.parametrize("text", ["[1, 2]", "clusters: {a: b}", "contexts: [unnamed]", "a: [", "\x00"])
def test_what_is_no_kubeconfig_is_refused_and_left_alone(tmp_path: Path, text: str) -> None:
    path = tmp_path / "config"
    path.write_text(text)
    with pytest.raises(InvalidInput, match="is not a kubeconfig"):
        contexts.add(path, entry("a"))
    assert path.read_text() == text


def test_an_error_does_not_show_what_is_in_the_file(tmp_path: Path) -> None:
    path = tmp_path / "config"
    path.write_text("users:\n- name: a\n  user: {token: s3cr3t-token: x}\n")
    with pytest.raises(InvalidInput) as failure:
        contexts.read(path)
    assert "s3cr3t" not in str(failure.value)
    assert "line 3" in str(failure.value)
