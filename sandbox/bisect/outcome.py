"""What became of one test, and whether it is the failure that is looked for. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from pydantic import BaseModel, ConfigDict

from sandbox.bisect.search import Answer
from sandbox.capture.model import Signature
from sandbox.capture.signature import same_failure, signature
from sandbox.model.failure import Finding

Kind = Literal["passed", "failed", "timed out", "not ready", "skipped"]
"""``failed``, ``timed out``: of the command. ``not ready``: it did not run. ``skipped``: it cannot tell."""

# As `git bisect run` has it: this state cannot be tested.
SKIP = 125
_EVIDENCE = 20


class Outcome(BaseModel):
    """What became of one test.

    Attributes:
        line: in one line; empty where it passed.
        evidence: the last lines of the command, or of the container that failed.
        signature: of what was not ready.
    """

    model_config = ConfigDict(frozen=True, extra="ignore")

    kind: Kind
    line: str = ""
    evidence: tuple[str, ...] = ()
    signature: Signature | None = None

    @property
    def said(self) -> str:
        """In one line, for people."""
        return f"{self.kind}: {self.line}" if self.line else self.kind

    def answer(self, bad: Outcome) -> Answer:
        """What it means for the search: only what the bad state does is the failure, all else is unresolved."""
        if self.kind == "passed":
            return "pass"
        if self.kind != bad.kind or self.kind == "skipped":
            return "unresolved"
        if self.kind == "not ready":
            return "fail" if same_failure(bad.signature, self.signature) else "unresolved"
        return "fail"


def of_command(finding: Finding | None) -> Outcome:
    """Of a command that ran; None: it passed."""
    if finding is None:
        return Outcome(kind="passed")
    kind: Kind = "failed"
    if finding.exit_code is None:
        kind = "timed out"
    elif finding.exit_code == SKIP:
        kind = "skipped"
    return Outcome(kind=kind, line=finding.message, evidence=finding.log_tail[-_EVIDENCE:])


def of_smoke(finding: Finding) -> Outcome:
    """Of a smoke test that failed."""
    return Outcome(kind="failed", line=finding.lines()[0], evidence=finding.log_tail[-_EVIDENCE:])


def of_findings(findings: Sequence[Finding]) -> Outcome:
    """Of services that did not become ready."""
    first = findings[0]
    return Outcome(
        kind="not ready",
        line=first.lines()[0],
        evidence=first.log_tail[-_EVIDENCE:] or (first.message,),
        signature=signature(findings),
    )
