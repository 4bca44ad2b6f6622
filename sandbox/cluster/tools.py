"""Which programs are there (helm, kubectl, git, …), and in which version.

Helm alone takes a tenth of a second to say its version, and every ``up`` records it: what a binary said is remembered
until the file changes.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import subprocess
import time
from collections.abc import Mapping
from pathlib import Path

from sandbox.cluster.providers.places import cache_dir

_VERSION_ARGUMENTS = {
    "git": ("--version",),
    "helm": ("version", "--template", "{{ .Version }}"),
    "kubectl": ("version", "--client=true"),
    "kustomize": ("version",),
}
_VERSION = re.compile(r"v?\d+\.\d+[\w.+-]*")
# For all of them together: they run at the same time.
_TIMEOUT_S = 15.0
# ELF, and Mach-O in its two usual forms.
_BINARIES = (b"\x7fELF", b"\xcf\xfa\xed\xfe", b"\xca\xfe\xba\xbe")
_REMEMBERED_MOST = 50


def find_tool(name: str) -> Path | None:
    """A program in ``PATH``, else the embedded cluster's own; None where there is none."""
    found = shutil.which(name)
    if found:
        return Path(found)
    from sandbox.cluster.providers import embedded_bin_dir

    folder = embedded_bin_dir()
    program = folder / name if folder else None
    return program if program and os.access(program, os.X_OK) else None


def tool_versions() -> dict[str, str]:
    """Versions of the programs that are there, by name; of one that does not say it in time: ``unknown``."""
    found = {name: path for name in _VERSION_ARGUMENTS if (path := find_tool(name))}
    return versions_of(found)


def versions_of(paths: Mapping[str, Path]) -> dict[str, str]:
    """Versions of these programs (``git``, ``helm``, ``kubectl``, ``kustomize``), as :func:`tool_versions`."""
    known = _remembered()
    keys = {name: _identity(name, path) for name, path in paths.items()}
    asked = _ask({name: path for name, path in paths.items() if keys[name] not in known})
    told = {keys[name]: version for name, version in asked.items() if keys[name] and version != "unknown"}
    if told:
        _remember({**known, **told})
    return {name: known.get(keys[name]) or asked[name] for name in paths if keys[name] in known or name in asked}


def _ask(paths: Mapping[str, Path]) -> dict[str, str]:
    running = {}
    for name, path in paths.items():
        try:
            running[name] = subprocess.Popen(
                [path, *_VERSION_ARGUMENTS[name]],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                start_new_session=True,
            )
        except OSError:
            # Found, and not to be run: another machine's program, or a script without its interpreter.
            continue
    deadline = time.monotonic() + _TIMEOUT_S
    return {name: _version_of(process, deadline) for name, process in running.items()}


def _identity(name: str, path: Path) -> str:
    """What changes when a program does; empty for one that may start another (a script, a version switcher's shim)."""
    try:
        real = path.resolve(strict=True)
        with real.open("rb") as file:
            binary = file.read(4) in _BINARIES
        state = real.stat()
    except OSError:
        return ""
    if not binary or not real.name.startswith(name):
        return ""
    return f"{name} {real} {state.st_ino} {state.st_size} {state.st_mtime_ns}"


def _memory() -> Path:
    return cache_dir() / "tool-versions.json"


def _remembered() -> dict[str, str]:
    try:
        found = json.loads(_memory().read_text())
    except (OSError, ValueError):
        return {}
    return {str(k): str(v) for k, v in found.items()} if isinstance(found, dict) else {}


def _remember(versions: Mapping[str, str]) -> None:
    path = _memory()
    beside = path.with_name(f".{path.name}.{os.getpid()}")
    # Without a cache it is only slower.
    with contextlib.suppress(OSError):
        path.parent.mkdir(parents=True, exist_ok=True)
        beside.write_text(json.dumps(dict(list(versions.items())[-_REMEMBERED_MOST:])))
        beside.replace(path)


def _version_of(process: subprocess.Popen[bytes], deadline: float) -> str:
    try:
        output, _ = process.communicate(timeout=max(deadline - time.monotonic(), 0.1))
    except subprocess.TimeoutExpired:
        process.kill()
        process.communicate()
        return "unknown"
    found = _VERSION.search(output.decode(errors="replace"))
    return found[0] if found else "unknown"
