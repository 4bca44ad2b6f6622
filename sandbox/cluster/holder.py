"""Which process of which machine holds something in the cluster, and whether it is known to have ended."""

from __future__ import annotations

import os
import socket
from pathlib import Path


def identity() -> str:
    """This process, as ``host_pid_starttime``."""
    return f"{socket.gethostname()}_{_process(os.getpid())}"


def has_ended(holder: str) -> bool:
    """Whether a holder was a process of this machine that is gone; of other machines nobody here can tell."""
    host, _, process = holder.partition("_")
    return host == socket.gethostname() and process != _process(os.getpid()) and not _lives(process)


def _lives(process: str) -> bool:
    pid, _, _ = process.partition("_")
    return pid.isdecimal() and _process(int(pid)) == process


def _process(pid: int) -> str:
    """``pid_starttime``: a process id is used again, but not with the same start time."""
    try:
        # The command's name in parentheses may hold spaces; starttime is field 22 of proc(5).
        started = Path(f"/proc/{pid}/stat").read_bytes().rpartition(b")")[2].split()[19].decode()
    except OSError:
        started = "0"
    return f"{pid}_{started}"
