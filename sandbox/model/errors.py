"""The errors that commands end with, and the exit code that each stands for.

An error says three things: what failed, why (in the words of the server, pod or tool that
refused), and what to do next. Exit codes are the contract of ``docs/commands.md``.
"""

from __future__ import annotations

from typing import ClassVar


class SandboxError(Exception):
    """What failed; the base of all errors that are shown without a traceback.

    Args:
        what: what failed, one line, without a full stop.
        why: the cause, in the words of whoever refused; may have several lines.
        hint: what the user can do about it.
    """

    exit_code: ClassVar[int] = 1

    def __init__(self, what: str, *, why: str = "", hint: str = "") -> None:
        super().__init__(what)
        self.what = what
        self.why = why
        self.hint = hint

    def __str__(self) -> str:
        return f"{self.what}: {self.why}" if self.why else self.what


class OperationFailed(SandboxError):
    """The operation was tried and failed (exit 1)."""


class InvalidInput(SandboxError):
    """Wrong usage, or a file that does not say what it must (exit 2)."""

    exit_code = 2


class Refused(SandboxError):
    """A guardrail, quota, ownership rule or drift stands in the way (exit 4)."""

    exit_code = 4


class Unreachable(SandboxError):
    """A cluster, registry or git remote does not answer, or refuses the credentials (exit 5)."""

    exit_code = 5


class PartlyDone(SandboxError):
    """Some of it was done and some could not be; what stands is named (exit 6)."""

    exit_code = 6


class Busy(SandboxError):
    """Another deployment holds the environment (exit 7)."""

    exit_code = 7
