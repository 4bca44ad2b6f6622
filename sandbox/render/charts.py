"""Helm charts as folders of the tree: what they may reach, and what they are."""

from __future__ import annotations

import hashlib
import tarfile
from pathlib import Path
from typing import Any

from sandbox.model.errors import InvalidInput, Refused
from sandbox.model.objects import digest
from sandbox.model.record import ChartLock
from sandbox.project.yamlfile import load_yaml
from sandbox.render.manifests import inside

# Helm writes them anew, with the time; what they decide is in charts/.
_WRITTEN_BY_HELM = ("Chart.lock", "requirements.lock")
_LARGEST_MEMBER = 64 << 20


def check(chart: Path, named: str, tree: Path) -> None:
    """Refuse a chart that reaches out of the tree, by a link or by a sub-chart's ``file://`` address.

    Raises:
        InvalidInput: there is no chart.
        Refused: it reaches out.
    """
    _check(chart, named, tree.resolve(), set())


def lock(chart: Path, named: str, release: str, tree: Path) -> ChartLock:
    """What the chart is. The digest covers its files and sub-charts, by content.

    Raises:
        InvalidInput: its ``Chart.yaml`` has no name or no version.
    """
    data = _metadata(chart, named)
    if not data.get("name") or not data.get("version"):
        raise InvalidInput(f"{named}/Chart.yaml has no name or no version")
    return ChartLock(
        release=release,
        name=str(data["name"]),
        version=str(data["version"]),
        app_version=str(data.get("appVersion") or ""),
        digest=_folder_digest(chart, tree.resolve()),
    )


def _check(chart: Path, named: str, root: Path, seen: set[Path]) -> None:
    if chart in seen:
        return
    seen.add(chart)
    for file in chart.rglob("*"):
        if file.is_symlink():
            inside(root, file.relative_to(root).as_posix(), f"the chart {named}:")
    for dependency in _metadata(chart, named).get("dependencies") or ():
        address = str(dependency.get("repository") or "") if isinstance(dependency, dict) else ""
        if not address.startswith("file://"):
            continue
        folder = (chart / address.removeprefix("file://")).resolve()
        if not folder.is_relative_to(root):
            raise Refused(
                f"the chart {named} has a sub-chart outside of the repository",
                why=f"{dependency.get('name')}: {address}",
                hint="only files of the commit are read",
            )
        _check(folder, folder.relative_to(root).as_posix(), root, seen)


def _metadata(chart: Path, named: str) -> dict[str, Any]:
    file = chart / "Chart.yaml"
    if not file.is_file():
        raise InvalidInput(f"there is no Chart.yaml in {named}", hint="`chart.path` is the folder of the chart")
    data = load_yaml(file, shown_as=f"{named}/Chart.yaml").data
    if not isinstance(data, dict):
        raise InvalidInput(f"{named}/Chart.yaml is not a chart's")
    return data


def _folder_digest(folder: Path, root: Path, above: tuple[Path, ...] = ()) -> str:
    """Over names and contents of all files; links are followed, as Helm does, inside of the tree.

    Raises:
        InvalidInput: a link leads in a circle.
    """
    if folder in above:
        raise InvalidInput(f"a link in the chart leads in a circle: {folder.relative_to(root)}")
    state = hashlib.sha256()
    for file in sorted(folder.rglob("*")):
        name = file.relative_to(folder).as_posix()
        if name in _WRITTEN_BY_HELM:
            continue
        if file.is_symlink() and file.is_dir():
            state.update(
                f"{name}\0{_folder_digest(file.resolve(), root, (*above, folder, *folder.parents))}\0".encode()
            )
        elif file.is_file():
            state.update(f"{name}\0{_file_digest(file)}\0".encode())
    return f"sha256:{state.hexdigest()}"


def _file_digest(file: Path) -> str:
    if file.suffix == ".tgz" and file.parent.name == "charts":
        try:
            return _archive_digest(file)
        except (tarfile.TarError, OSError, EOFError):
            # Helm says best what is wrong with it.
            pass
    return digest(file.read_bytes())


def _archive_digest(file: Path) -> str:
    """Over what a packaged sub-chart holds: Helm packages one of the tree again each time, with other times in it."""
    members = {}
    with tarfile.open(file) as archive:
        for member in archive:
            if member.isfile() and member.size <= _LARGEST_MEMBER:
                content = archive.extractfile(member)
                members[member.name] = digest(content.read()) if content else ""
    return digest(members)
