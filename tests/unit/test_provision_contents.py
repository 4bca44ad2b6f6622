"""provision/contents.py: what counts as awake in a sandbox that sleeps."""

from __future__ import annotations

import pytest

from sandbox.model import labels
from sandbox.model.errors import OperationFailed
from sandbox.model.objects import Manifest
from sandbox.model.sandbox import Sandbox
from sandbox.provision.contents import check_awake


def pod(phase: str, *, ends: bool = False) -> Manifest:
    return {"metadata": {"name": "p", **({"deletionTimestamp": "x"} if ends else {})}, "status": {"phase": phase}}


def sandbox(phase: str) -> Sandbox:
    return Sandbox.of({"metadata": {"name": "shop", "annotations": {labels.PHASE: phase}}}, "here")


@pytest.mark.parametrize("pods", [[], [pod("Succeeded")], [pod("Running", ends=True)]])
def test_a_sandbox_that_sleeps_says_so_also_while_its_pods_end(pods: list[Manifest]) -> None:
    check_awake(sandbox("Ready"), pods)
    check_awake(sandbox("Sleeping"), [*pods, pod("Running")])
    with pytest.raises(OperationFailed, match="the sandbox shop sleeps"):
        check_awake(sandbox("Sleeping"), pods)
