"""Runs the `sandbox` command in forks of a process that has imported it already.

A command imports for a second before it does anything; hundreds of them are most of the time of the
end-to-end tests. What a fork runs is the entry point of the installed command, in a folder, environment and
streams of its own. Tests of signals start the installed command itself.
"""

from __future__ import annotations

import contextlib
import importlib
import json
import os
import pkgutil
import select
import signal
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any


class Preloaded:
    """The process, started at the first command."""

    def __init__(self) -> None:
        self._server: subprocess.Popen[str] | None = None

    def run(
        self, arguments: Sequence[str], *, cwd: Path, environment: Mapping[str, str], timeout: float
    ) -> tuple[int, str, str]:
        """Run one command to its end: exit code, standard output, standard error.

        Raises:
            subprocess.TimeoutExpired: it did not end in time; it was killed.
        """
        with tempfile.TemporaryDirectory() as folder:
            out, err = Path(folder) / "out", Path(folder) / "err"
            request = {
                "arguments": list(arguments),
                "cwd": str(cwd),
                "environment": dict(environment),
                "out": str(out),
                "err": str(err),
                "timeout": timeout,
            }
            server = self._started()
            assert server.stdin is not None
            assert server.stdout is not None
            server.stdin.write(json.dumps(request) + "\n")
            server.stdin.flush()
            # It keeps to the timeout itself, unless it hangs.
            readable, _, _ = select.select([server.stdout], [], [], timeout + 30)
            line = server.stdout.readline() if readable else ""
            if not line:
                self.close()
                raise AssertionError(f"the preloaded process ended or hangs: {' '.join(arguments)}")
            code = json.loads(line)["code"]
            said = err.read_text()
            if code is None:
                raise subprocess.TimeoutExpired(["sandbox", *arguments], timeout, out.read_text(), said)
            return code, out.read_text(), said

    def close(self) -> None:
        """End the process."""
        if self._server is not None:
            self._server.kill()
            self._server.wait(10)
            self._server = None

    def _started(self) -> subprocess.Popen[str]:
        if self._server is None:
            self._server = subprocess.Popen(
                [sys.executable, "-m", __name__],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
                cwd=Path(__file__).parents[2],
            )
        return self._server


def serve() -> None:
    """Answer requests, one per line, one after the other."""
    _import_everything()
    answers = os.fdopen(os.dup(1), "w")
    for line in sys.stdin:
        request = json.loads(line)
        pid = os.fork()
        if pid == 0:
            # Never back into this loop, whatever happens.
            try:
                _become(request)
            finally:
                os._exit(99)
        answers.write(json.dumps({"code": _ended(pid, request["timeout"])}) + "\n")
        answers.flush()


def _import_everything() -> None:
    import sandbox

    for module in pkgutil.walk_packages(sandbox.__path__, "sandbox."):
        if not module.name.endswith("__main__"):
            importlib.import_module(module.name)


def _become(request: Mapping[str, Any]) -> None:
    """Be the command, in the place of this process."""
    os.setsid()
    os.chdir(request["cwd"])
    os.environ.clear()
    os.environ.update(request["environment"])
    flags = os.O_WRONLY | os.O_CREAT
    for number, (path, mode) in enumerate(
        [(os.devnull, os.O_RDONLY), (request["out"], flags), (request["err"], flags)]
    ):
        opened = os.open(path, mode, 0o600)
        os.dup2(opened, number)
        os.close(opened)
    sys.argv = ["sandbox", *request["arguments"]]
    from sandbox.cli.main import main

    code: object = 0
    try:
        main()
    except SystemExit as ended:
        code = ended.code
    except BaseException:
        traceback.print_exc()
        code = 99
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code if isinstance(code, int) else 0)


def _ended(pid: int, timeout: float) -> int | None:
    """The exit code of a child; None when it had to be killed."""
    deadline = time.monotonic() + timeout
    descriptor = os.pidfd_open(pid)
    try:
        readable, _, _ = select.select([descriptor], [], [], max(0.0, deadline - time.monotonic()))
        if not readable:
            # It leads a group of its own, with all that it started.
            with contextlib.suppress(ProcessLookupError):
                os.killpg(pid, signal.SIGKILL)
        status = os.waitpid(pid, 0)[1]
    finally:
        os.close(descriptor)
    return os.waitstatus_to_exitcode(status) if readable else None


if __name__ == "__main__":
    serve()
