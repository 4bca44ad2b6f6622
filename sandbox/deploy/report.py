"""How a deployment into an environment ended, as data: for one screen, for machines, for CI's pages."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

from sandbox.model.errors import SandboxError
from sandbox.model.failure import Finding, NotReady

Outcome = Literal["deployed", "planned", "refused", "rolled back", "incomplete"]
"""``refused``: nothing was written. ``rolled back``: as it was before, or removed where there was nothing before.
``incomplete``: neither the new nor the old; ``services`` say what stands."""


@dataclass(frozen=True)
class Failure:
    """Why it failed.

    Attributes:
        findings: of pods, jobs and tests, the most telling first; empty where it was something else.
        exit_code: what the error stands for by itself.
    """

    what: str
    why: str = ""
    hint: str = ""
    findings: tuple[Finding, ...] = ()
    exit_code: int = 1

    @classmethod
    def of(cls, error: SandboxError) -> Failure:
        findings = tuple(error.findings) if isinstance(error, NotReady) else ()
        return cls(error.what, error.why, error.hint, findings, error.exit_code)

    def explained_by(self, capture: Captured) -> Failure:
        """The same with what the capture found, where the error came from a tool that saw no pod (Helm, kubectl)."""
        return self if self.findings else replace(self, findings=capture.findings)

    @property
    def line(self) -> str:
        """It in one line."""
        return self.findings[0].lines()[0] if self.findings else self.what


@dataclass(frozen=True)
class Captured:
    """The capture that was taken before the rollback.

    Attributes:
        id: empty where there is none; ``error`` says why.
        store: URL.
        seconds: that it held up the rollback.
        missing: what is not complete in it, one line each.
        findings: what it found to be failing, the most telling first.
    """

    id: str = ""
    store: str = ""
    partial: bool = False
    seconds: float = 0.0
    missing: tuple[str, ...] = ()
    findings: tuple[Finding, ...] = ()
    error: str = ""


@dataclass(frozen=True)
class ServiceEnd:
    """Where one service stands.

    Attributes:
        action: created, upgraded, unchanged, kept, pruned; rolled back, removed; stands (it could not be brought back).
        commit: that it is at.
        detail: why it stands, or what else there is to say.
    """

    name: str
    action: str
    commit: str = ""
    detail: str = ""


@dataclass(frozen=True)
class Report:
    """The end of a deployment.

    Attributes:
        record: number of the newest record.
        back_at: number of the record whose deployment is there again.
        lost: rows and keys that a restore took away, one line each.
        look, reproduce: commands that work on anyone's machine; empty where there is nothing to look at.
        rollback_seconds: until the services were back and ready, or given up; 0 where nothing was to be rolled back.
        seconds: from the beginning to the end.
    """

    environment: str
    namespace: str
    context: str
    outcome: Outcome
    services: tuple[ServiceEnd, ...] = ()
    commit: str = ""
    subject: str = ""
    record: int | None = None
    back_at: int | None = None
    failure: Failure | None = None
    capture: Captured | None = None
    lost: tuple[str, ...] = ()
    look: str = ""
    reproduce: str = ""
    notes: tuple[str, ...] = ()
    rollback_seconds: float = 0.0
    seconds: float = 0.0

    @property
    def exit_code(self) -> int:
        """The command's, by the contract of docs/commands.md."""
        if self.outcome in ("deployed", "planned"):
            return 0
        if self.outcome == "incomplete":
            return 6
        return self.failure.exit_code if self.failure and self.outcome == "refused" else 1

    @property
    def headline(self) -> str:
        """How it ended, in one line."""
        at = f" of {self.commit[:12]}" if self.commit else ""
        what = self.commit[:12] or "the lock"
        match self.outcome:
            case "deployed":
                return f"{self.environment}: {what} is deployed, record {self.record}"
            case "planned":
                return f"{self.environment}: {what} would be deployed; nothing was changed"
            case "refused":
                return f"{self.environment}: the deployment{at} was not begun; nothing was changed"
            case "rolled back":
                back = f"record {self.back_at}" if self.back_at is not None else "before: there was nothing"
                return f"{self.environment}: the deployment{at} failed and was rolled back to {back}"
            case "incomplete":
                return f"{self.environment}: the deployment{at} failed, and the rollback is incomplete"


def lines(report: Report) -> list[str]:
    """The report on one screen: how it ended, why, what stands, what to do next."""
    found = [report.headline]
    if report.failure:
        found += ["", *failure_lines(report.failure)]
    if report.outcome == "incomplete":
        found += ["", "What stands:"]
        found += [f"  {_service_line(service)}" for service in report.services if service.action != "kept"]
    if report.lost:
        found += ["", "Lost with the data that was restored:", *(f"  {line}" for line in report.lost)]
    if report.capture:
        found += ["", *_capture_lines(report.capture)]
    if report.look:
        found.append(f"look at it:   {report.look}")
    if report.reproduce:
        found.append(f"reproduce it: {report.reproduce}")
    return found


def failure_lines(failure: Failure, *, most: int = 12) -> list[str]:
    """What failed and why: the words of the first finding in full, of the others their first lines."""
    if not failure.findings:
        return [line for line in (failure.what, *failure.why.splitlines()[:most], _hinted(failure.hint)) if line]
    head, *log = failure.findings[0].lines()
    # Of pods the error says what the finding does; a tool's own words are worth a line.
    said = [] if failure.why.startswith(head) else failure.why.splitlines()[:2]
    found = [failure.what, *said, head, *log[-most:]]
    found += [finding.lines()[0] for finding in failure.findings[1:4]]
    if len(failure.findings) > 4:
        found.append(f"and {len(failure.findings) - 4} more")
    return found


def _hinted(hint: str) -> str:
    return f"hint: {hint}" if hint else ""


def _service_line(service: ServiceEnd) -> str:
    at = f" at {service.commit[:12]}" if service.commit else ""
    return f"{service.name}: {service.action}{at}{': ' if service.detail else ''}{service.detail}"


def _capture_lines(capture: Captured) -> list[str]:
    if not capture.id:
        return [f"captured:     nothing: {capture.error}"]
    partial = " (partial)" if capture.partial else ""
    found = [f"captured:     {capture.id}{partial}, in {capture.seconds:.1f} s"]
    return found + [f"  missing: {line}" for line in capture.missing[:5]]


def commands(capture: Captured, *, named_store: bool, can_reproduce: bool, commit: str) -> tuple[str, str]:
    """The commands that show and reproduce a failure, for whoever reads this on another machine.

    Args:
        named_store: the store must be named: neither the platform's configuration nor a default leads there.
        can_reproduce: whether this version of the tool brings a capture back.
        commit: that failed: without ``reproduce`` its services can be had again, not their data.
    """
    store = f" --store {capture.store}" if named_store else ""
    look = f"sandbox capture show {capture.id}{store}" if capture.id else ""
    if capture.id and can_reproduce:
        return look, f"sandbox reproduce {capture.id}{store}"
    return look, f"sandbox up --ref {commit[:12]}" if commit else ""


def stood(services: Sequence[ServiceEnd]) -> list[str]:
    """The services that could not be brought back."""
    return [service.name for service in services if service.action == "stands"]
