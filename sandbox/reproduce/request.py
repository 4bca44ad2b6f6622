"""What the user of ``reproduce`` asked for."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path


@dataclass(frozen=True)
class ReproduceRequest:
    """What the user asked for; None where they left the choice to the project's or the product's defaults.

    Attributes:
        only: services to bring back, with what they need as far as a record says; empty: all.
        replace: ref by service that is to be at another commit than the captured one.
        build_args: of the images that are built for those.
        data: bring the contents of databases and caches back.
        before: those that `deploy` had taken before it, instead of those at the failure.
        identity: file with an age identity, for true values of Secrets and for contents that are encrypted.
        allow_tags: an image whose digest is gone or unknown may be taken by its tag.
        run_command: run the command of the capture on this machine.
        command_timeout: how long that may take.
        verdict_timeout: how long the failure may take to show.
        timeout: how long the databases may take to become ready, and one of them to be filled.
    """

    name: str | None = None
    quota: str | None = None
    ttl: str | None = None
    owner: str | None = None
    only: tuple[str, ...] = ()
    replace: Mapping[str, str] = field(default_factory=dict)
    build_args: Mapping[str, str] = field(default_factory=dict)
    data: bool = True
    before: bool = False
    identity: Path | None = None
    allow_tags: bool = False
    run_command: bool = False
    dry_run: bool = False
    verdict_timeout: timedelta = timedelta(minutes=2)
    timeout: timedelta = timedelta(minutes=10)
    command_timeout: timedelta = timedelta(minutes=10)
    folder: Path | None = None
