"""What a clean-up did, line by line, and what its exit code is. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum


class Action(StrEnum):
    """What a line is about."""

    WARNED = "warned"
    DELETED = "deleted"
    WOULD_WARN = "would-warn"
    WOULD_DELETE = "would-delete"
    SPARED = "spared"
    """It was due and is not deleted: extended, deployed into, gone, or its custom resources end first."""
    FLAGGED = "flagged"
    """Something is wrong with it that only people can mend; it stays."""
    STUCK = "stuck"
    FAILED = "failed"
    NOTICE = "notice"


@dataclass(frozen=True)
class Line:
    """One thing that was done or found.

    Attributes:
        time: the server's.
        deadline: when the sandbox was to end.
        lock: where its lock is kept now; ``restore``: the command that brings it back.
    """

    time: datetime
    context: str
    action: Action
    why: str
    namespace: str = ""
    uid: str = ""
    sandbox: str = ""
    owner: str = ""
    project: str = ""
    deadline: datetime | None = None
    lock: str = ""
    restore: str = ""


Tell = Callable[[Line], None]


@dataclass
class Pass:
    """One pass over one cluster.

    Attributes:
        phases: how many sandboxes there are in each phase.
        actions: how many lines of each kind were told.
        overdue: seconds by which the sandbox is late that is the latest and still there.
    """

    context: str
    phases: Counter[str] = field(default_factory=Counter)
    actions: Counter[Action] = field(default_factory=Counter)
    seconds: float = 0.0
    overdue: float = 0.0

    @property
    def looked_at(self) -> int:
        return sum(self.phases.values())


def exit_code(passes: Iterable[Pass]) -> int:
    """6 where something is left over, 3 where there is something to look at (and in a dry run, to do), else 0."""
    found = sum((one.actions for one in passes), Counter[Action]())
    if found[Action.FAILED] or found[Action.STUCK]:
        return 6
    if found[Action.FLAGGED] or found[Action.WOULD_DELETE] or found[Action.WOULD_WARN]:
        return 3
    return 0
