"""Adding a cluster to the user's kubeconfig and taking it out again."""

from __future__ import annotations

import copy
import os
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import yaml
from filelock import FileLock, Timeout

from sandbox.cluster.providers.places import state_dir
from sandbox.model.errors import Busy, InvalidInput

Config = dict[str, Any]
_LISTS = ("clusters", "users", "contexts")
_LOCK_BOUND = 20.0  # seconds


def with_entries(config: Config, added: Config) -> Config:
    """A kubeconfig with the named entries of another one added or replaced.

    Everything else stays, in its order. `current-context` is set only where there is none.
    """
    merged: Config = copy.deepcopy(config) if config else {"apiVersion": "v1", "kind": "Config", "preferences": {}}
    for key in _LISTS:
        new = {entry["name"]: entry for entry in added.get(key) or []}
        kept = [new.pop(entry["name"], entry) for entry in merged.get(key) or []]
        merged[key] = [*kept, *new.values()]
    if not merged.get("current-context") and added.get("current-context"):
        merged["current-context"] = added["current-context"]
    return merged


def without_entry(config: Config, name: str) -> Config:
    """A kubeconfig without the cluster, user and context of this name."""
    reduced = copy.deepcopy(config)
    for key in _LISTS:
        if key in reduced:
            reduced[key] = [entry for entry in reduced[key] or [] if entry["name"] != name]
    if reduced.get("current-context") == name:
        reduced["current-context"] = ""
    return reduced


def read(path: Path) -> Config:
    """A kubeconfig file's content; empty when there is no such file.

    Raises:
        InvalidInput: it is there and is not a kubeconfig.
    """
    try:
        content = yaml.safe_load(path.read_text())
    except FileNotFoundError:
        return {}
    except yaml.YAMLError as error:
        # The problem and its place only: the text around it may hold a token.
        mark = getattr(error, "problem_mark", None)
        where = f" in line {mark.line + 1}" if mark else ""
        raise _not_a_kubeconfig(path, f"{getattr(error, 'problem', None) or 'not YAML'}{where}") from None
    except UnicodeDecodeError:
        raise _not_a_kubeconfig(path, "it is not text") from None
    except (ValueError, RecursionError):
        # A date that there is not, or nesting without end.
        raise _not_a_kubeconfig(path, "it cannot be read") from None
    except OSError as error:
        raise InvalidInput(f"the kubeconfig {path} cannot be read", why=error.strerror or str(error)) from error
    if content is None:
        return {}
    if not isinstance(content, dict):
        raise _not_a_kubeconfig(path, "it is not a mapping")
    for key in _LISTS:
        entries = content.get(key) or []
        if not isinstance(entries, list) or not all(isinstance(e, dict) and "name" in e for e in entries):
            raise _not_a_kubeconfig(path, f"{key} is not a list of named entries")
    return content


def add(path: Path, added: Config) -> None:
    """Merge entries into a kubeconfig file, under a lock and atomically."""
    _change(path, lambda config: with_entries(config, added))


def remove(path: Path, name: str) -> bool:
    """Take a cluster's entries out of a kubeconfig file; False when there were none."""
    if not any(entry["name"] == name for key in _LISTS for entry in read(path).get(key) or []):
        return False
    _change(path, lambda config: without_entry(config, name))
    return True


def write(path: Path, config: Config) -> None:
    """Write a kubeconfig that only its owner can read; a reader sees the old one or the new one."""
    target = path.resolve()  # a symbolic link stays one
    target.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    descriptor, temporary = tempfile.mkstemp(dir=target.parent, prefix=f".{target.name}.")  # mode 0600
    try:
        with os.fdopen(descriptor, "w") as file:
            yaml.safe_dump(config, file, sort_keys=False)
            file.flush()
            os.fsync(file.fileno())
        Path(temporary).replace(target)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise


def _change(path: Path, change: Callable[[Config], Config]) -> None:
    state_dir().mkdir(parents=True, exist_ok=True, mode=0o700)
    try:
        with FileLock(state_dir() / "kubeconfig.lock", timeout=_LOCK_BOUND):
            before = read(path)
            after = change(before)
            if after != before:
                write(path, after)
    except Timeout:
        raise Busy(f"another process is changing {path}", why=f"it took longer than {_LOCK_BOUND:.0f} s") from None


def _not_a_kubeconfig(path: Path, why: str) -> InvalidInput:
    return InvalidInput(f"{path} is not a kubeconfig", why=why, hint="mend it, or set KUBECONFIG to another file")
