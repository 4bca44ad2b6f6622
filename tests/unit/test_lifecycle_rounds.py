"""lifecycle/rounds.py: by which rules a cluster is cleaned up."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from sandbox.lifecycle import rounds
from sandbox.lifecycle.cleanup import Policy
from sandbox.lifecycle.locks import InCluster, InStore
from sandbox.lifecycle.rounds import Place, Rounds, Wishes
from sandbox.model.errors import OperationFailed


def say_platform(monkeypatch: pytest.MonkeyPatch, text: str | None) -> None:
    async def read(_cluster: Any) -> str | None:
        return text

    monkeypatch.setattr(rounds, "read_platform", read)


async def policy(wishes: Wishes | None = None) -> Policy:
    cluster: Any = SimpleNamespace(context="here")
    return await Rounds([Place()], wishes or Wishes(), lambda _line: None)._policy(cluster)


async def test_by_a_configuration_that_cannot_be_read_nothing_is_deleted(monkeypatch: pytest.MonkeyPatch) -> None:
    say_platform(monkeypatch, "warnBefore: soon\n")
    with pytest.raises(OperationFailed, match="nothing is deleted there"):
        await policy()


async def test_the_platform_decides_what_nobody_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    say_platform(monkeypatch, "warnBefore: 1h\n")
    found = await policy()
    assert (found.rules.warn_before.total_seconds(), found.needs_record) == (3600, False)
    assert isinstance(found.locks, InCluster)
    say_platform(monkeypatch, "captureStore: file:///srv/captures\n")
    assert _url(await policy()) == "file:///srv/captures"
    assert _url(await policy(Wishes(store="/srv/mine"))) == "file:///srv/mine"
    say_platform(monkeypatch, None)
    found = await policy()
    assert found.needs_record
    assert _url(found).endswith("/sandbox/captures")


def _url(found: Policy) -> str:
    assert isinstance(found.locks, InStore)
    return found.locks.store.url
