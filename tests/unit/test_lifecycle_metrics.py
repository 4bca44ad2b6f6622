"""What the clean-up tells Prometheus."""

from __future__ import annotations

import socket
import urllib.request
from collections import Counter

import pytest

from sandbox.lifecycle.metrics import Metrics
from sandbox.lifecycle.report import Action, Pass
from sandbox.model.errors import OperationFailed


def test_passes_add_up_and_are_served() -> None:
    metrics = Metrics()
    actions = Counter({Action.DELETED: 2, Action.WARNED: 1, Action.FAILED: 1, Action.STUCK: 3, Action.FLAGGED: 4})
    metrics.note(Pass("c", Counter({"Ready": 7, "Sleeping": 1}), actions, seconds=1.5, overdue=90.0))
    metrics.note(Pass("c", Counter({"Ready": 5}), Counter({Action.DELETED: 1}), seconds=0.5))
    metrics.note_failure("c")
    port = metrics.serve(0)

    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=5) as answer:
        text = answer.read().decode()

    for line in (
        'sandbox_sandboxes{context="c",phase="Ready"} 5.0',
        'sandbox_sandboxes{context="c",phase="Sleeping"} 0.0',
        'sandbox_cleanup_deleted_total{context="c"} 3.0',
        'sandbox_cleanup_warned_total{context="c"} 1.0',
        'sandbox_cleanup_failures_total{context="c"} 2.0',
        'sandbox_cleanup_stuck{context="c"} 0.0',
        'sandbox_cleanup_flagged{context="c"} 0.0',
        'sandbox_cleanup_overdue_seconds{context="c"} 0.0',
        'sandbox_cleanup_pass_seconds{context="c"} 0.5',
    ):
        assert line in text.splitlines()


def test_a_port_that_is_taken_is_said() -> None:
    with socket.socket() as taken:
        taken.bind(("0.0.0.0", 0))
        taken.listen()
        with pytest.raises(OperationFailed, match="metrics"):
            Metrics().serve(taken.getsockname()[1])
