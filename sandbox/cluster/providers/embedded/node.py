"""The process that holds a cluster (node-init): is it there, start it, end it."""

from __future__ import annotations

import asyncio
import fcntl
import os
import re
import select
import signal
import struct
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from sandbox.cluster.providers.embedded.programs import SYSTEM_PATH
from sandbox.cluster.providers.subprocesses import run
from sandbox.model.errors import OperationFailed

# struct flock of Linux: type, whence, start, length, pid.
_FLOCK = "hhqqi4x"
_START_BOUND = 15.0  # seconds until the new process holds its lock
_END_BOUND = 30.0
_POLL = 0.05


def holder(directory: Path) -> int | None:
    """The process that runs the cluster in this directory, in the kernel's own words."""
    return _locked_by(directory / "node.lock.host")


def _remainder(directory: Path) -> int | None:
    """The node's first process, which outlives a killed holder until its last child is gone."""
    return _locked_by(directory / "node.lock.node")


def _locked_by(path: Path) -> int | None:
    """Who holds an fcntl lock.

    node-init holds one for its whole life, and the kernel names the holder: a process number
    that was given to somebody else since is never mistaken for it.
    """
    try:
        descriptor = os.open(path, os.O_RDWR)
    except FileNotFoundError:
        return None
    try:
        query = struct.pack(_FLOCK, fcntl.F_WRLCK, os.SEEK_SET, 0, 0, 0)
        kind, _, _, _, pid = struct.unpack(_FLOCK, fcntl.fcntl(descriptor, fcntl.F_GETLK, query))
    finally:
        os.close(descriptor)
    return None if kind == fcntl.F_UNLCK else int(pid)


async def end_remainder(directory: Path) -> None:
    """Wait until the kernel has ended what an earlier, killed holder left."""
    await _end(lambda: _remainder(directory), signal.SIGKILL)


async def start(directory: Path, node_init: Path) -> None:
    """Start node-init so that it outlives this process, and wait until it holds the cluster.

    Raises:
        OperationFailed: it ended at once; its own words are in the error.
    """
    log = directory / "logs" / "node-init.log"
    log.parent.mkdir(exist_ok=True, mode=0o700)
    before = log.stat().st_size if log.exists() else 0
    environment = {"PATH": SYSTEM_PATH, "HOME": "/"}  # no proxies, no credentials of the user
    with log.open("ab") as output:
        process = await asyncio.create_subprocess_exec(
            "setsid",
            "--fork",
            str(node_init),
            "host",
            str(directory / "node-init.json"),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            env=environment,
            cwd="/",
        )
        await process.wait()
    deadline = asyncio.get_running_loop().time() + _START_BOUND
    while holder(directory) is None:
        said = log.read_bytes()[before:].decode(errors="replace").strip()
        if said or asyncio.get_running_loop().time() > deadline:
            raise OperationFailed("the node cannot be started", why=said or f"no sign of life in {_START_BOUND:.0f} s")
        await asyncio.sleep(_POLL)


async def kill(directory: Path) -> bool:
    """End the cluster's processes; False when there are none.

    Raises:
        OperationFailed: one is still there after the bound.
    """
    ended = await _end(lambda: holder(directory), signal.SIGQUIT)
    # Normally gone by now. After a kill -9 of the holder the kernel may still be ending them.
    return await _end(lambda: _remainder(directory), signal.SIGKILL) or ended


async def _end(find: Callable[[], int | None], by: signal.Signals) -> bool:
    """Signal a process and wait for its end; SIGKILL when it takes too long."""
    pid = find()
    if pid is None:
        return False
    for number in (by, signal.SIGKILL):
        with suppress(ProcessLookupError):
            handle = os.pidfd_open(pid)
            try:
                if find() == pid:  # else the number may be somebody else's by now
                    signal.pidfd_send_signal(handle, number)
                await asyncio.to_thread(select.select, [handle], [], [], _END_BOUND)
            finally:
                os.close(handle)
        if find() is None:
            return True
    raise OperationFailed("the cluster's processes do not end", why=f"process {pid} is there after SIGKILL")


def failures(directory: Path, count: int = 8) -> str:
    """The last lines that node-init wrote, and the last words of the program that ended last."""
    said = _last_lines(directory / "logs" / "node-init.log", count)
    ended = re.findall(r"([a-z-]+): ended after", "\n".join(said))
    if ended:
        said += [f"{ended[-1]}: {line}" for line in _last_lines(directory / "logs" / f"{ended[-1]}.log", 3)]
    return "\n".join(said)


def _last_lines(path: Path, count: int) -> list[str]:
    with suppress(OSError):
        return path.read_text(errors="replace").splitlines()[-count:]
    return []


async def remove_link(name: str) -> None:
    """Remove a network interface of the host, if it is there."""
    here = Path("/sys/class/net", name)
    if not here.exists():
        return
    finished = await run(["ip", "link", "delete", name], timeout=20)
    if finished.code != 0 and here.exists():  # it goes by itself with the node's network namespace
        raise OperationFailed(f"the interface {name} cannot be removed", why=finished.last_lines())


def remove_cgroups(name: str, root: Path = Path("/sys/fs/cgroup")) -> list[Path]:
    """Remove a cluster's cgroup folders from every hierarchy; those that are still in use are returned."""
    left = []
    for top in (root / name, *root.glob(f"*/{name}")):
        folders = [Path(path) for path, _, _ in os.walk(top, topdown=False)]
        for folder in folders:
            with suppress(OSError):
                folder.rmdir()
        if top.exists():
            left.append(top)
    return left
