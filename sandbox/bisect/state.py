"""What a search has found out so far, in a file of the user's: a search that was interrupted goes on from it."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from sandbox.bisect.outcome import Outcome
from sandbox.bisect.search import Changes
from sandbox.model.errors import OperationFailed

_LARGEST = 16 * 1024 * 1024


class Tested(BaseModel):
    """One test: the changes that were made, and what became of it.

    Attributes:
        sandbox: its name.
        seconds: of deployment and command together.
        in_place: whether what it tested before was changed in its place.
    """

    model_config = ConfigDict(frozen=True, extra="ignore")

    changes: tuple[str, ...]
    outcome: Outcome
    sandbox: str = ""
    seconds: float = 0.0
    in_place: bool = False

    @property
    def made(self) -> Changes:
        return frozenset(self.changes)


class State(BaseModel):
    """A search.

    Attributes:
        key: of what is compared, and how it is tested.
        good, bad, command: for people who find the file.
        rounds: in which something was tested, in all runs together.
    """

    model_config = ConfigDict(extra="ignore")

    key: str
    good: str = ""
    bad: str = ""
    command: tuple[str, ...] = ()
    rounds: int = 0
    tested: list[Tested] = Field(default_factory=list)

    @property
    def outcomes(self) -> dict[Changes, Outcome]:
        return {one.made: one.outcome for one in self.tested}


def load(path: Path, key: str) -> State | None:
    """What was written; None: nothing, nothing readable, or of another search."""
    try:
        if path.stat().st_size > _LARGEST:
            return None
        found = State.model_validate_json(path.read_bytes())
    except (OSError, ValidationError):
        return None
    return found if found.key == key else None


def save(path: Path, state: State) -> None:
    """Write it as a whole: whoever is killed meanwhile leaves what was there before.

    Raises:
        OperationFailed: it cannot be written.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        descriptor, name = tempfile.mkstemp(prefix=f".{path.name}-", dir=path.parent)
        try:
            with os.fdopen(descriptor, "w") as file:
                file.write(state.model_dump_json(indent=1))
                file.flush()
                os.fsync(file.fileno())
            Path(name).replace(path)
        except BaseException:
            Path(name).unlink(missing_ok=True)
            raise
    except OSError as error:
        raise OperationFailed(
            f"the state of the search cannot be written to {path}",
            why=error.strerror or str(error),
            hint="SANDBOX_STATE_DIR names another folder",
        ) from None
