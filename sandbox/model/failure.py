"""Why a deployment is not becoming ready, in the cluster's own words."""

from __future__ import annotations

from dataclasses import dataclass

from sandbox.model.errors import OperationFailed


@dataclass(frozen=True)
class Finding:
    """One reason for a failure.

    Attributes:
        reason: Kubernetes' own reason, such as CrashLoopBackOff, ImagePullBackOff, FailedCreate, Unschedulable.
        message: Kubernetes' own message.
        object: what it was seen on, such as ``pod/web-5d8f`` or ``job.batch/migrate``.
        service: the service it belongs to; empty where unknown.
        exit_code: of the container's last end, where there was one.
        log_tail: the container's last log lines (of the previous run when it restarted).
    """

    reason: str
    message: str
    object: str
    service: str = ""
    pod: str = ""
    container: str = ""
    exit_code: int | None = None
    log_tail: tuple[str, ...] = ()

    def lines(self) -> list[str]:
        """The finding as text: one line that says it, then the log lines, indented."""
        where = " · ".join(part for part in (self.service and f"service {self.service}", self.object) if part)
        container = f", container {self.container}" if self.container else ""
        code = f" (exit code {self.exit_code})" if self.exit_code is not None else ""
        head = f"{where}{container}: {self.reason}{code}"
        if self.message and self.message != self.reason:
            head += f": {self.message}"
        return [head, *(f"    {line}" for line in self.log_tail)]


class NotReady(OperationFailed):
    """Services failed, or did not become ready in time.

    Args:
        findings: why, most telling first; never empty.
    """

    def __init__(self, what: str, findings: list[Finding], *, hint: str = "") -> None:
        super().__init__(what, why="\n".join(line for f in findings for line in f.lines()), hint=hint)
        self.findings = findings
