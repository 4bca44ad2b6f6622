"""Where things are kept on this machine."""

from __future__ import annotations

import os
from pathlib import Path

import platformdirs


def cache_dir() -> Path:
    """What can be made again: `$SANDBOX_CACHE_DIR`, else `sandbox` in the user's cache directory (XDG)."""
    return _chosen("SANDBOX_CACHE_DIR") or platformdirs.user_cache_path("sandbox")


def state_dir() -> Path:
    """What cannot: `$SANDBOX_STATE_DIR`, else `sandbox` in the user's state directory (XDG)."""
    return _chosen("SANDBOX_STATE_DIR") or platformdirs.user_state_path("sandbox")


def user_kubeconfig() -> Path:
    """The kubeconfig file that new contexts go to: the first of `$KUBECONFIG`, else ~/.kube/config."""
    for entry in os.environ.get("KUBECONFIG", "").split(os.pathsep):
        if entry:
            return Path(entry).expanduser()
    return Path.home() / ".kube" / "config"


def _chosen(variable: str) -> Path | None:
    value = os.environ.get(variable)
    return Path(value).expanduser().absolute() if value else None
