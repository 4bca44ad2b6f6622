"""Which quota profiles there are for a project: the shipped ones, the user's, the project's own."""

from __future__ import annotations

from pathlib import Path

from sandbox.project.quotas import QuotaProfile, load_profiles, shipped_folder
from sandbox.project.settings import Settings, settings_path

PROJECT_FOLDER = "quotas"


def known_profiles(settings: Settings, tree: Path | None) -> dict[str, QuotaProfile]:
    """All quota profiles by name; a project's own win over the user's, which win over the shipped ones.

    Args:
        tree: root of the project's files; None: no project.

    Raises:
        InvalidInput: a profile is wrong, or a folder that the settings name is not there.
    """
    folders = [shipped_folder(), *settings.quota_paths(settings_path().parent)]
    if tree is not None and (tree / PROJECT_FOLDER).is_dir():
        folders.append(tree / PROJECT_FOLDER)
    # In this tool's own repository the shipped folder is the project's too.
    return load_profiles(list({folder.resolve(): folder for folder in folders}.values()))
