"""What the user of ``up`` asked for."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class UpRequest:
    """What the user asked for; None where they left the choice to the project's defaults.

    Attributes:
        folder: any folder of the working tree (None: the current one).
        only: services to deploy, with what they need; empty for all.
        set_values: ``service.path=value`` as helm's ``--set``; without a service, for all charts.
        overrides: what the command line of an earlier deployment gave the chart of a service, by service.
        lock: deploy exactly what this lock says: a file, a URL such as the clean-up tells (``s3://…/locks/x.yaml``), or
            the name of a sandbox that was deleted.
        owner: for whom, when not for the authenticated user (CI); ``owner_group``: for a group of users instead.
        rebuild: whether images of a lock that are gone from their registries may be built again.
        timeout: how long one service may take to become ready.
    """

    folder: Path | None = None
    repo: str | None = None
    ref: str | None = None
    name: str | None = None
    quota: str | None = None
    ttl: str | None = None
    env: str | None = None
    base: str | None = None
    only: tuple[str, ...] = ()
    values_files: tuple[Path, ...] = ()
    set_values: tuple[str, ...] = ()
    overrides: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    build_args: Mapping[str, str] = field(default_factory=dict)
    lock: Path | str | None = None
    owner: str | None = None
    owner_group: str | None = None
    dirty: bool = False
    dry_run: bool = False
    wait: bool = True
    rollback_on_failure: bool = False
    allow_cluster_scoped: bool = False
    builder: str | None = None
    registry: str | None = None
    rebuild: bool = True
    timeout: timedelta = timedelta(minutes=5)
