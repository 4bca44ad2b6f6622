"""What builders are run by."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.e2e.bounded import until
from tests.e2e.projects import descendants

_RUNS = """
import asyncio, os, sys
from datetime import timedelta
from sandbox.images.process import run

asyncio.run(run([*sys.argv[1:], "sleep", "600"], env=os.environ, limit=timedelta(minutes=10)))
"""
_CONFINED = ("unshare", "--mount", "--pid", "--fork", "--kill-child")


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="Linux tells children of the death of their parent")
@pytest.mark.parametrize("around", [(), _CONFINED], ids=["alone", "confined"])
def test_a_builder_ends_when_its_caller_is_killed(around: tuple[str, ...]) -> None:
    if around and os.geteuid() != 0:
        pytest.skip("only root's builders are confined like this")
    with subprocess.Popen([sys.executable, "-c", _RUNS, *around]) as caller:
        running = until(lambda: next(filter(_is_sleep, descendants(caller.pid)), None), "the builder runs")
        caller.kill()

    until(lambda: None if _is_sleep(running) else True, "the builder ends", 10)


def _is_sleep(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().startswith(b"sleep\0")
    except OSError:
        return False
