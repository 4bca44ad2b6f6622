"""Whose a namespace is, as the platform's admission holds it true: a user's or a group's."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from sandbox.model import labels


@dataclass(frozen=True)
class Owner:
    """Exactly one of them; neither where nobody said it. Names are in full (``dana@example.com``)."""

    user: str = ""
    group: str = ""

    @classmethod
    def of(cls, manifest: Mapping[str, Any]) -> Owner:
        """Read the annotations of an object."""
        note = manifest["metadata"].get("annotations") or {}
        user = note.get(labels.OWNER_USER) or ""
        return cls(user=user, group="" if user else note.get(labels.OWNER_GROUP) or "")

    def annotations(self) -> dict[str, str]:
        """What says the same on another object."""
        said = {labels.OWNER_USER: self.user, labels.OWNER_GROUP: self.group}
        return {key: name for key, name in said.items() if name}

    def __str__(self) -> str:
        return self.user or (f"the group {self.group}" if self.group else "an owner that was not kept with it")
