"""What a test's outcome means: only what the bad state does is the failure."""

from __future__ import annotations

from pathlib import Path

import pytest

from sandbox.bisect import state
from sandbox.bisect.outcome import Outcome, of_command, of_findings
from sandbox.bisect.search import Answer
from sandbox.model.errors import OperationFailed
from sandbox.model.failure import Finding

PASSED = of_command(None)
FAILED = of_command(Finding("TestFailed", "exit code 3", "sh", exit_code=3, log_tail=("error: 3",)))
OTHERWISE = of_command(Finding("TestFailed", "ended by signal 9", "sh", exit_code=-9))
HUNG = of_command(Finding("TestFailed", "sh did not end within 5 s", "sh"))
SKIPPED = of_command(Finding("TestFailed", "exit code 125", "sh", exit_code=125))


def crash(service: str, line: str) -> Outcome:
    return of_findings([Finding("CrashLoopBackOff", "back-off", f"pod/{service}", service, log_tail=(line,))])


@pytest.mark.parametrize(
    ("outcome", "bad", "answer"),
    [
        (PASSED, FAILED, "pass"),
        (PASSED, crash("web", "error: x"), "pass"),
        (FAILED, FAILED, "fail"),
        (OTHERWISE, FAILED, "fail"),
        (HUNG, FAILED, "unresolved"),
        (HUNG, HUNG, "fail"),
        (FAILED, HUNG, "unresolved"),
        (SKIPPED, FAILED, "unresolved"),
        (crash("web", "error: x"), FAILED, "unresolved"),
        (crash("web", "error: x at 12:00:01"), crash("web", "error: x at 13:30:59"), "fail"),
        (crash("web", "error: x"), crash("web", "error: another one"), "unresolved"),
        (crash("web", "error: x"), crash("api", "error: x"), "unresolved"),
        (FAILED, crash("web", "error: x"), "unresolved"),
    ],
)
def test_answers(outcome: Outcome, bad: Outcome, answer: Answer) -> None:
    assert outcome.answer(bad) == answer


def test_what_was_answered_is_read_again(tmp_path: Path) -> None:
    path = tmp_path / "bisect" / "x.json"
    written = state.State(key="k", command=("true",), rounds=2)
    crashed = crash("web", "error: x")
    written.tested += [state.Tested(changes=("api", "web/images"), outcome=crashed, sandbox="x-1", seconds=1.5)]
    written.tested += [state.Tested(changes=(), outcome=PASSED, in_place=True)]
    state.save(path, written)
    assert state.load(path, "k") == written
    assert [other.name for other in path.parent.iterdir()] == ["x.json"]
    assert path.stat().st_mode & 0o077 == 0


@pytest.mark.parametrize("text", ["", "{", "[]", '{"key": "other"}', '{"key": "k", "tested": [{"changes": 3}]}'])
def test_what_cannot_be_read_is_forgotten(tmp_path: Path, text: str) -> None:
    path = tmp_path / "x.json"
    path.write_text(text)
    assert state.load(path, "k") is None


def test_a_folder_that_cannot_be_written_is_said(tmp_path: Path) -> None:
    (tmp_path / "bisect").write_text("a file")
    with pytest.raises(OperationFailed, match="cannot be written"):
        state.save(tmp_path / "bisect" / "x.json", state.State(key="k"))
