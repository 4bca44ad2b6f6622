"""Programs that end with the process that started them, also when that one is killed."""

from __future__ import annotations

import ctypes
import signal
import sys
from collections.abc import Callable

_PR_SET_PDEATHSIG = 1


def end_with_parent(number: signal.Signals = signal.SIGTERM) -> Callable[[], None] | None:
    """What a child does first (``preexec_fn``) so that it ends when we are killed (Linux): else it would go on, and a
    second command run against it.

    Args:
        number: the signal that it is sent then.
    """
    if not sys.platform.startswith("linux"):
        return None
    libc = ctypes.CDLL(None, use_errno=True)

    def ask_for_a_signal() -> None:
        libc.prctl(_PR_SET_PDEATHSIG, number)

    return ask_for_a_signal
