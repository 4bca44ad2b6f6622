"""The programs of the operating system that a node needs, and which Debian packages bring them."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path

from sandbox.cluster.providers.subprocesses import run_checked
from sandbox.model.errors import OperationFailed

# Debian leaves the sbin folders out of an ordinary user's PATH.
SYSTEM_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
CNI_DIRECTORIES = ("/usr/lib/cni", "/opt/cni/bin", "/usr/libexec/cni")

# program -> Debian package; every one of them is run by the node or by load-image.
NODE_PROGRAMS = {
    "runc": "runc",
    "iptables": "iptables",
    "nft": "nftables",
    "conntrack": "conntrack",
    "ip": "iproute2",
    "mount": "mount",
    "buildah": "buildah",
    "skopeo": "skopeo",
}
CNI_PLUGINS = ("ptp", "host-local", "portmap", "loopback")
CNI_PACKAGE = "containernetworking-plugins"
_INSTALL_TIMEOUT = 900.0  # seconds


def cni_directory() -> Path | None:
    """The folder that holds all CNI plugins the node uses."""
    for candidate in CNI_DIRECTORIES:
        if all((Path(candidate) / plugin).exists() for plugin in CNI_PLUGINS):
            return Path(candidate)
    return None


def missing_packages() -> list[str]:
    """The Debian packages whose programs are not here."""
    path = os.pathsep.join([os.environ.get("PATH", ""), SYSTEM_PATH])
    packages = [package for program, package in NODE_PROGRAMS.items() if shutil.which(program, path=path) is None]
    if cni_directory() is None:
        packages.append(CNI_PACKAGE)
    return packages


async def require(*, install: bool, progress: Callable[[str], None]) -> None:
    """Make sure that the node's programs are here.

    Args:
        install: whether missing ones may be installed with apt-get; also `SANDBOX_INSTALL_PACKAGES=1`.

    Raises:
        OperationFailed: some are missing and may not or cannot be installed.
    """
    missing = missing_packages()
    if not missing:
        return
    command = ["apt-get", "install", "--yes", "--no-install-recommends", *missing]
    allowed = install or os.environ.get("SANDBOX_INSTALL_PACKAGES") == "1"
    if not (allowed and os.geteuid() == 0 and shutil.which("apt-get")):
        raise OperationFailed(
            "programs that the embedded cluster needs are missing",
            why=f"not found: {', '.join(missing)} (names of the Debian packages)",
            hint=f"as root: `apt-get update && {' '.join(command)}`, or let it be done: SANDBOX_INSTALL_PACKAGES=1",
        )
    environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    progress("installing " + ", ".join(missing))
    update = ["apt-get", "update"]
    await run_checked(update, "apt-get update failed", timeout=_INSTALL_TIMEOUT, env=environment)
    await run_checked(command, "apt-get install failed", timeout=_INSTALL_TIMEOUT, env=environment)
    if still := missing_packages():
        raise OperationFailed("packages were installed and their programs are still missing", why=", ".join(still))
