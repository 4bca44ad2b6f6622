"""Run a command in a root file system that holds little: started by ``confinement``, never imported.

Buildah's chroot isolation keeps a ``RUN`` in a folder, not in a world of its own: older versions let
it out by ``chroot`` again or by ``RUN --mount`` of a symbolic link. So the builder itself gets a root
that holds only what it needs, and what there is to find beyond the chroot is not the user's home.

Expects namespaces of its own (mount, PID, and network with ``--loopback``); ``unshare`` makes them.
Only the standard library, and nothing of this package: it runs with ``python -I``.
"""

from __future__ import annotations

import argparse
import ctypes
import fcntl
import os
import socket
import struct
import tempfile
from pathlib import Path

# From <sys/mount.h>.
MS_RDONLY, MS_NOSUID, MS_NODEV, MS_NOEXEC, MS_REMOUNT, MS_BIND, MS_REC, MS_PRIVATE = (
    0x1,
    0x2,
    0x4,
    0x8,
    0x20,
    0x1000,
    0x4000,
    0x40000,
)
MNT_DETACH = 0x2
# From <bits/ioctls.h> and <net/if.h>.
SIOCGIFFLAGS, SIOCSIFFLAGS, IFF_UP = 0x8913, 0x8914, 0x1

DEVICES = ("null", "zero", "full", "random", "urandom", "tty", "fuse")

_libc = ctypes.CDLL(None, use_errno=True)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--ro", action="append", default=[], type=Path)
    parser.add_argument("--rw", action="append", default=[], type=Path)
    parser.add_argument("--tmp", required=True, type=Path)
    parser.add_argument("--loopback", action="store_true")
    parser.add_argument("command", nargs="+")
    args = parser.parse_args()
    if args.loopback:
        bring_up_loopback()
    enter_new_root(args.ro, args.rw, args.tmp)
    os.execvp(args.command[0], args.command)


def enter_new_root(read_only: list[Path], writable: list[Path], tmp: Path) -> None:
    """Make a root of the named paths, minimal devices and a fresh /proc, and leave the old one behind."""
    mount("none", "/", "", MS_REC | MS_PRIVATE)
    root = Path(tempfile.mkdtemp(prefix="root-", dir=tmp))
    mount("tmpfs", root, "tmpfs", MS_NOSUID, "mode=755")
    for name in ("bin", "sbin", "lib", "lib32", "lib64", "libx32"):
        add_system_folder(root, Path("/") / name)
    # Before the others, which may lie below them.
    bind(tmp, root / "tmp")
    bind(tmp, root / "var/tmp")
    for path in read_only:
        bind(path, root / path.relative_to("/"), read_only=True)
    for path in writable:
        bind(path, root / path.relative_to("/"))
    add_devices(root / "dev")
    (root / "sys").mkdir()
    mount("/sys", root / "sys", "", MS_BIND | MS_REC)
    mount("none", root / "sys", "", MS_REMOUNT | MS_BIND | MS_RDONLY | MS_NOSUID | MS_NODEV | MS_NOEXEC)
    (root / "proc").mkdir()
    mount("proc", root / "proc", "proc", MS_NOSUID | MS_NODEV | MS_NOEXEC)
    leave_behind = root / ".old"
    leave_behind.mkdir()
    check(_libc.syscall(PIVOT_ROOT, os.fsencode(root), os.fsencode(leave_behind)), "pivot_root")
    os.chdir("/")
    check(_libc.umount2(b"/.old", MNT_DETACH), "umount2")
    Path("/.old").rmdir()


def add_system_folder(root: Path, path: Path) -> None:
    """/bin and its like: a link into /usr on most systems, a folder on others."""
    if path.is_symlink():
        (root / path.name).symlink_to(path.readlink())
    elif path.is_dir():
        bind(path, root / path.name, read_only=True)


def add_devices(folder: Path) -> None:
    folder.mkdir()
    mount("tmpfs", folder, "tmpfs", MS_NOSUID, "mode=755")
    for name in DEVICES:
        if Path("/dev", name).exists():
            bind(Path("/dev", name), folder / name)
    for link, target in (("fd", "/proc/self/fd"), ("stdin", "fd/0"), ("stdout", "fd/1"), ("stderr", "fd/2")):
        (folder / link).symlink_to(target)
    (folder / "shm").mkdir()
    mount("tmpfs", folder / "shm", "tmpfs", MS_NOSUID | MS_NODEV, "mode=1777")
    (folder / "pts").mkdir()
    mount("devpts", folder / "pts", "devpts", MS_NOSUID | MS_NOEXEC, "newinstance,ptmxmode=0666,mode=620")
    (folder / "ptmx").symlink_to("pts/ptmx")


def bind(source: Path, target: Path, *, read_only: bool = False) -> None:
    """Show a file or folder at another place; what is not there is left out."""
    if not source.exists():
        return
    if source.is_dir():
        target.mkdir(parents=True, exist_ok=True)
    else:
        target.parent.mkdir(parents=True, exist_ok=True)
        target.touch()
    mount(source, target, "", MS_BIND | MS_REC)
    if read_only:
        mount("none", target, "", MS_REMOUNT | MS_BIND | MS_RDONLY | MS_NOSUID | MS_NODEV)


def bring_up_loopback() -> None:
    """A new network namespace has its loopback interface down; tests that listen on 127.0.0.1 need it."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as control:
        request = struct.pack("16sh14x", b"lo", 0)
        flags = struct.unpack("16sh14x", fcntl.ioctl(control, SIOCGIFFLAGS, request))[1]
        fcntl.ioctl(control, SIOCSIFFLAGS, struct.pack("16sh14x", b"lo", flags | IFF_UP))


def mount(source: str | Path, target: str | Path, kind: str, flags: int, data: str = "") -> None:
    result = _libc.mount(
        os.fsencode(source), os.fsencode(target), kind.encode() or None, ctypes.c_ulong(flags), data.encode() or None
    )
    check(result, f"mount {target}")


def check(result: int, what: str) -> None:
    if result != 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{what}: {os.strerror(number)}")


# The C library has no wrapper; numbers from <sys/syscall.h>.
PIVOT_ROOT = {"x86_64": 155, "aarch64": 41, "riscv64": 41, "ppc64le": 203, "s390x": 217}[os.uname().machine]

if __name__ == "__main__":
    main()
