"""The world that a builder runs in, where the builder itself is not enough of a wall.

Buildah and podman, run by root with chroot isolation, share the machine with the build: its processes, and (in
versions before the fixes of 2024) its files. Here they get namespaces of their own and a root file system
that holds the system's programs, certificates and name resolution, the builder's storage, and the build context.
"""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

_LAUNCHER = Path(__file__).with_name("confined.py")

# What a builder reads on the machine: programs, certificates, name resolution, users, registries' settings.
_SYSTEM_PATHS = (
    "/usr",
    "/etc/alternatives",
    "/etc/ca-certificates",
    "/etc/cni",
    "/etc/containers",
    "/etc/group",
    "/etc/host.conf",
    "/etc/hosts",
    "/etc/ld.so.cache",
    "/etc/localtime",
    "/etc/mime.types",
    "/etc/nsswitch.conf",
    "/etc/passwd",
    "/etc/pki",
    "/etc/resolv.conf",
    "/etc/ssl",
    "/etc/subgid",
    "/etc/subuid",
)
# No more capabilities than a build needs: with this one a process leaves a chroot.
DROPPED_CAPABILITIES = ("CAP_SYS_CHROOT",)


@dataclass(frozen=True)
class Confinement:
    """How to start a builder confined.

    Attributes:
        storage: the folders where the builder keeps images and state.
        work: temporary folder; it is the builder's /tmp and /var/tmp.
    """

    storage: tuple[Path, ...]
    work: Path

    def wrap(self, argv: Sequence[str | Path], *, reads: Sequence[Path] = (), network: bool = True) -> list[str]:
        """The command that runs ``argv`` confined; it ends with everything in it when it is killed.

        Args:
            reads: further files and folders that are visible, read-only.
            network: False gives a network of its own with a loopback interface only.
        """
        words: list[str] = ["unshare", "--mount", "--pid", "--ipc", "--uts", "--fork", "--kill-child"]
        if not network:
            words.append("--net")
        words += ["--", sys.executable, "-I", str(_LAUNCHER), "--tmp", str(self.work)]
        if not network:
            words.append("--loopback")
        for path in (*map(Path, _SYSTEM_PATHS), *_resolver(), *reads):
            words += ["--ro", str(path)]
        for path in self.storage:
            words += ["--rw", str(path)]
        return [*words, "--", *(os.fspath(word) for word in argv)]


@cache
def is_possible() -> bool:
    """Whether builders can be confined: Linux, root, and util-linux' ``unshare``."""
    return sys.platform == "linux" and os.geteuid() == 0 and shutil.which("unshare") is not None


def _resolver() -> list[Path]:
    """Where /etc/resolv.conf leads when it is a link (systemd-resolved keeps it below /run)."""
    link = Path("/etc/resolv.conf")
    return [link.resolve()] if link.is_symlink() else []
