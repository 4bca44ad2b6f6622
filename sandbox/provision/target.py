"""Which cluster a command works on."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Target:
    """A kubeconfig context (None: the current one), its file (None: kubectl's rules), and how namespaces begin."""

    context: str | None = None
    kubeconfig: Path | None = None
    namespace_prefix: str = ""
