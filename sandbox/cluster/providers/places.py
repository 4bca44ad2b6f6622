"""Where things are kept on this machine."""

from __future__ import annotations

import os
from pathlib import Path


def cache_dir() -> Path:
    """What can be made again: `$SANDBOX_CACHE_DIR`, else `sandbox` below the XDG cache directory."""
    return _directory("SANDBOX_CACHE_DIR", "XDG_CACHE_HOME", ".cache")


def state_dir() -> Path:
    """What cannot: `$SANDBOX_STATE_DIR`, else `sandbox` below the XDG state directory."""
    return _directory("SANDBOX_STATE_DIR", "XDG_STATE_HOME", ".local/state")


def user_kubeconfig() -> Path:
    """The kubeconfig file that new contexts go to, as kubectl chooses it."""
    for entry in os.environ.get("KUBECONFIG", "").split(os.pathsep):
        if entry:
            return Path(entry).expanduser()
    return Path.home() / ".kube" / "config"


def _directory(own: str, standard: str, below_home: str) -> Path:
    if value := os.environ.get(own):
        return Path(value).expanduser().absolute()
    if value := os.environ.get(standard):
        return Path(value).expanduser().absolute() / "sandbox"
    return Path.home() / below_home / "sandbox"
