"""Which quota profiles there are for a project: the platform's alone, else the shipped ones, the user's, its own."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from sandbox.project.platform import Platform
from sandbox.project.quotas import QuotaProfile, load_profiles, shipped_folder
from sandbox.project.settings import Settings, settings_path

PROJECT_FOLDER = "quotas"


def known_profiles(
    settings: Settings,
    tree: Path | None,
    platform: Platform | None = None,
    *,
    say: Callable[[str], None] | None = None,
) -> dict[str, QuotaProfile]:
    """All quota profiles by name; a project's own win over the user's, which win over the shipped ones.

    Args:
        tree: root of the project's files; None: no project.
        platform: where it has profiles, they are the only ones: the API server holds sandboxes to them.
        say: is told of profiles that replace others or are not read.

    Raises:
        InvalidInput: a profile is wrong, or a folder that the settings name is not there.
    """
    own = [tree / PROJECT_FOLDER] if tree is not None and (tree / PROJECT_FOLDER).is_dir() else []
    own = [*settings.quota_paths(settings_path().parent), *own]
    if platform is not None and platform.governs_profiles:
        if own and say is not None:
            folders = ", ".join(str(folder) for folder in own)
            say(f"the cluster's platform configuration decides the quota profiles; those of {folders} do not count")
        return dict(platform.profiles)
    return load_profiles([shipped_folder(), *own], say=say)
