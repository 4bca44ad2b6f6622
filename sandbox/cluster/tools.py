"""Which programs are there (helm, kubectl, git, …), and in which version."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import time
from pathlib import Path

_VERSION_ARGUMENTS = {
    "git": ("--version",),
    "helm": ("version", "--template", "{{ .Version }}"),
    "kubectl": ("version", "--client=true"),
    "kustomize": ("version",),
}
_VERSION = re.compile(r"v?\d+\.\d+[\w.+-]*")
# For all of them together: they run at the same time.
_TIMEOUT_S = 15.0


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
    running = {}
    for name, arguments in _VERSION_ARGUMENTS.items():
        path = find_tool(name)
        if path:
            try:
                running[name] = subprocess.Popen(
                    [path, *arguments],
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


def _version_of(process: subprocess.Popen[bytes], deadline: float) -> str:
    try:
        output, _ = process.communicate(timeout=max(deadline - time.monotonic(), 0.1))
    except subprocess.TimeoutExpired:
        process.kill()
        process.communicate()
        return "unknown"
    found = _VERSION.search(output.decode(errors="replace"))
    return found[0] if found else "unknown"
