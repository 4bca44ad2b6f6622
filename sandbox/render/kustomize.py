"""Kustomizations, rendered by kustomize itself with nothing to reach but the exported tree.

Kustomize fetches remote resources by git and HTTP, and can run plugins. Here every path of every kustomization is
checked before it runs (it must be a file or folder of the tree), and it runs without git, without a way out by
HTTP, without plugins, with an empty HOME.
"""

from __future__ import annotations

import asyncio
import re
import tempfile
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

from sandbox.cluster.tools import find_tool
from sandbox.cluster.yamlstream import manifests_of
from sandbox.images.process import run
from sandbox.model.errors import InvalidInput, OperationFailed, Refused
from sandbox.model.objects import Manifest
from sandbox.project.yamlfile import parse_yaml
from sandbox.render.manifests import inside, split_documents

FILE_NAMES = ("kustomization.yaml", "kustomization.yml", "Kustomization")
_LIMIT = timedelta(minutes=1)
_MOST_KUSTOMIZATIONS = 200

# Fields whose entries are folders or files to read (kustomize's `types.Kustomization`).
_RESOURCES = ("resources", "bases", "components")
_PLUGIN_FIELDS = ("generators", "transformers", "validators")
_PATH_LISTS = ("crds", "configurations", "patchesStrategicMerge", "files", "envs", "paths")
_PATHS = ("path", "env")
_HELM_FIELDS = ("helmCharts", "helmChartInflationGenerator", "helmGlobals")
# How kustomize's git client recognises a remote: before it looks whether there is such a folder.
_REMOTE = re.compile(r"://|^git::|^[^/\s]+@[^/\s]+[:/]|^(?:www\.)?github\.com[/:]|^gh:|\?", re.IGNORECASE)
_FUNCTION_ANNOTATIONS = ("config.kubernetes.io/function", "config.k8s.io/function")


async def build(tree: Path, path: str) -> list[Manifest]:
    """Render a kustomization of the tree.

    Raises:
        InvalidInput: there is none, or kustomize refuses it (in its own words).
        Refused: it reaches for something outside of the tree, or for a plugin.
        OperationFailed: neither kubectl nor kustomize is there.
    """
    folder = inside(tree, path, "the kustomization")
    check(tree, path)
    with tempfile.TemporaryDirectory(prefix="sandbox-kustomize-") as temporary:
        output = Path(temporary) / "manifests.yaml"
        home = Path(temporary) / "home"
        home.mkdir()
        argv = [*_command(), "--load-restrictor", "LoadRestrictionsRootOnly", "--output", str(output), str(folder)]
        ended = await run(argv, env=_environment(home), limit=_LIMIT, cwd=home)
        if ended.code != 0:
            raise InvalidInput(
                f"the kustomization {path} does not render", why=ended.last_lines().replace(f"{tree.resolve()}/", "")
            )
        text = await asyncio.to_thread(output.read_text)
    return await asyncio.to_thread(manifests_of, text, shown_as=f"what the kustomization {path} renders")


def check(tree: Path, path: str) -> None:
    """Refuse a kustomization that reaches out of the tree or runs programs, without running it.

    Raises:
        InvalidInput: a file that is not there, or is not YAML.
        Refused: a remote resource, a plugin, a chart that would be fetched, or a link out of the tree.
    """
    root = tree.resolve()
    waiting, seen = [inside(tree, path, "the kustomization")], set[Path]()
    while waiting:
        folder = waiting.pop()
        if folder in seen:
            continue
        seen.add(folder)
        if len(seen) > _MOST_KUSTOMIZATIONS:
            raise Refused(f"the kustomization {path} is made of more than {_MOST_KUSTOMIZATIONS} others")
        waiting += _check_one(root, folder)


def _check_one(root: Path, folder: Path) -> list[Path]:
    """Check one kustomization; returns the folders of those that it is made of."""
    file = next((folder / name for name in FILE_NAMES if (folder / name).is_file()), None)
    if file is None:
        shown = folder.relative_to(root).as_posix()
        raise InvalidInput(f"no kustomization.yaml in {shown}")
    shown = file.relative_to(root).as_posix()
    inside(root, shown, "the kustomization")
    data = parse_yaml(file.read_text(errors="replace"), shown_as=shown).data
    if not isinstance(data, dict):
        raise InvalidInput(f"{shown} is no kustomization")
    for field in _HELM_FIELDS:
        if data.get(field):
            raise Refused(
                f"{shown}: {field} is not rendered", why="it fetches and runs charts from inside of kustomize",
                hint="declare the chart as a service of its own (`chart:`)",
            )  # fmt: skip
    folders = []
    for field in _RESOURCES:
        for entry in _texts(data.get(field)):
            target = _local(root, folder, entry, f"{shown}: {field}")
            if target.is_dir():
                folders.append(target)
            else:
                _refuse_functions(target.read_text(errors="replace"), target.relative_to(root).as_posix())
    for field in _PLUGIN_FIELDS:
        for entry in _texts(data.get(field)):
            folders += _check_plugin(root, folder, entry, f"{shown}: {field}")
    _check_paths(root, folder, data, shown)
    return folders


def _check_plugin(root: Path, folder: Path, entry: str, where: str) -> list[Path]:
    """A generator, transformer or validator: written in place, a file, or a folder with a kustomization."""
    text, shown = entry, where
    if "\n" not in entry:
        target = _local(root, folder, entry, where)
        if target.is_dir():
            return [target]
        text, shown = target.read_text(errors="replace"), target.relative_to(root).as_posix()
    _refuse_functions(text, shown)
    for _, document in split_documents(text):
        data = parse_yaml(document, shown_as=shown).data
        if isinstance(data, dict) and data.get("apiVersion") != "builtin":
            raise Refused(
                f"{shown}: {data.get('kind')} is a kustomize plugin",
                why="plugins are programs of the repository, and would run on this machine",
                hint="only built-in ones (`apiVersion: builtin`) are used",
            )
        if isinstance(data, dict) and data.get("kind") == "HelmChartInflationGenerator":
            raise Refused(f"{shown}: HelmChartInflationGenerator is not rendered", hint="use `chart:` of a service")
        _check_paths(root, folder, data, shown)
    return []


def _refuse_functions(text: str, shown: str) -> None:
    if any(annotation in text for annotation in _FUNCTION_ANNOTATIONS):
        raise Refused(
            f"{shown} asks for a function to be run ({_FUNCTION_ANNOTATIONS[0]})",
            why="functions are programs of the repository, and would run on this machine",
        )


def _check_paths(root: Path, folder: Path, node: Any, shown: str) -> None:
    """Check everything that names a file, at whatever depth (patches, replacements, generators, OpenAPI)."""
    for field, entry in _path_entries(node):
        # A patch may be written in place; generators write `key=file`.
        if "\n" in entry or entry.lstrip().startswith(("{", "[")):
            continue
        name = entry.partition("=")[2] or entry if field == "files" else entry
        # Paths inside of objects (fieldPaths, JSON patches) begin with a slash or name no file.
        if field == "path" and not _REMOTE.search(name) and not (folder / name).exists():
            continue
        _local(root, folder, name, f"{shown}: {field}")


def _path_entries(node: Any) -> Iterator[tuple[str, str]]:
    if isinstance(node, list):
        for item in node:
            yield from _path_entries(item)
    elif isinstance(node, dict):
        for key, value in node.items():
            if key in _PATHS and isinstance(value, str):
                yield key, value
            elif key in _PATH_LISTS:
                yield from ((key, entry) for entry in _texts(value))
            if isinstance(value, dict | list):
                yield from _path_entries(value)


def _local(root: Path, folder: Path, entry: str, where: str) -> Path:
    """The file or folder of the tree that an entry names."""
    if _REMOTE.search(entry):
        raise Refused(
            f"{where}: {entry} is remote",
            why="what a sandbox runs comes from the commit, not from wherever a URL leads today",
            hint="copy it into the repository (kustomize localize does)",
        )
    target = (folder / entry).resolve()
    if not target.is_relative_to(root):
        raise Refused(f"{where}: {entry} leads out of the repository", hint="only files of the commit are read")
    if not target.exists():
        raise InvalidInput(f"{where}: {entry} does not exist in the commit")
    return target


def _texts(value: Any) -> list[str]:
    return [item for item in value if isinstance(item, str)] if isinstance(value, list) else []


def _command() -> list[str]:
    if kubectl := find_tool("kubectl"):
        return [str(kubectl), "kustomize"]
    if kustomize := find_tool("kustomize"):
        return [str(kustomize), "build"]
    raise OperationFailed("neither kubectl nor kustomize is there", hint="install kubectl; `sandbox doctor` checks it")


def _environment(home: Path) -> dict[str, str]:
    """No programs to find (git among them), no user's files, and a proxy where nobody listens."""
    nowhere = "http://127.0.0.1:9"
    return {
        "HOME": str(home),
        "PATH": str(home),
        "TMPDIR": str(home),
        "KUBECONFIG": "/dev/null",
        **dict.fromkeys(("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "http_proxy", "https_proxy"), nowhere),
    }
