"""Running git so that a repository's own configuration cannot run anything.

A repository is somebody else's: its configuration may name programs (fsmonitor, hooks, filters, textconv,
ssh commands, pagers), other repositories and other work trees. Three ways of running git follow from that:

* :data:`REFS` in the repository itself, for commands that read refs and nothing else; no transport is
  allowed, and what the configuration could run is overridden;
* :data:`OBJECTS` in a git folder of our own (``store.py``), with nobody's configuration;
* :data:`NETWORK` in a git folder of our own, with the user's configuration (proxies, credential helpers,
  ``insteadOf``), for the four transports that are allowed.

Git is run directly and not through GitPython: that cannot drop inherited variables (a hook's ``GIT_DIR`` and
``GIT_INDEX_FILE``), ends a process that takes too long with ``ps`` only where there is one, and takes 0.4 s to import.
"""

from __future__ import annotations

import contextlib
import contextvars
import os
import re
import signal
import subprocess
import tempfile
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import IO, Final, ParamSpec, TypeVar

from sandbox.model.errors import OperationFailed, SandboxError, Unreachable

P = ParamSpec("P")
T = TypeVar("T")

# Seconds. Local commands touch the disk only; a fetch may bring a large repository.
LOCAL_TIMEOUT: Final = 120.0
NETWORK_TIMEOUT: Final = 600.0
LARGEST_OUTPUT: Final = 128 * 1024 * 1024
_STDERR_KEPT = 64 * 1024
PROTOCOLS: Final = ("https", "ssh", "git", "file")


class Mode(Enum):
    """With whose configuration, and whether with a network."""

    REFS = "refs"
    OBJECTS = "objects"
    NETWORK = "network"


REFS, OBJECTS, NETWORK = Mode.REFS, Mode.OBJECTS, Mode.NETWORK

# Of the variables that steer git, those that are the user's way to reach servers. All others (GIT_DIR and its
# kin, set while a hook runs; GIT_EXTERNAL_DIFF, GIT_TRACE…) are dropped.
_KEPT = re.compile(
    r"GIT_(SSH|SSH_COMMAND|SSH_VARIANT|ASKPASS|SSL_\w+|HTTP_\w+|PROXY_\w+|EXEC_PATH"
    r"|CONFIG_GLOBAL|CONFIG_SYSTEM|CONFIG_NOSYSTEM|CONFIG_COUNT|CONFIG_KEY_\d+|CONFIG_VALUE_\d+)"
)
_ALWAYS: Mapping[str, str] = {
    "GIT_TERMINAL_PROMPT": "0",
    "GIT_OPTIONAL_LOCKS": "0",
    "GIT_NO_REPLACE_OBJECTS": "1",
    "GIT_GRAFT_FILE": os.devnull,
    "GIT_NO_LAZY_FETCH": "1",
    "GIT_PAGER": "cat",
    "LC_ALL": "C",
    "LANGUAGE": "C",
}
_OVERRIDES: Sequence[str] = (
    "core.fsmonitor=false",
    f"core.hooksPath={os.devnull}",
    f"core.attributesFile={os.devnull}",
    "core.untrackedCache=false",
    "core.gitProxy=",
    "core.alternateRefsCommand=",
    "core.quotePath=false",
    "diff.external=",
    "diff.ignoreSubmodules=all",
    "log.showSignature=false",
    "submodule.recurse=false",
    "fetch.recurseSubmodules=false",
    "gc.auto=0",
    "maintenance.auto=false",
    "protocol.version=2",
)


@dataclass(frozen=True)
class Completed:
    """What a git command gave."""

    returncode: int
    stdout: bytes
    stderr: str

    @property
    def text(self) -> str:
        """Its output without the last line break."""
        return os.fsdecode(self.stdout).rstrip("\n")


class GitFailed(OperationFailed):
    """A git command failed; ``why`` is what git said."""


def run_git(
    arguments: Sequence[str],
    mode: Mode,
    *,
    folder: Path,
    environment: Mapping[str, str] | None = None,
    stdin: bytes = b"",
    timeout: float | None = None,
    check: bool = True,
) -> Completed:
    """Run a git command to its end.

    Args:
        folder: working directory.
        environment: variables on top.
        timeout: seconds; a bound of its own for each mode where not given.
        check: raise when it fails.

    Raises:
        GitFailed: it failed, took too long, or wrote more than :data:`LARGEST_OUTPUT`.
        Unreachable: likewise, with a network.
        OperationFailed: there is no git.
    """
    with start_git(arguments, mode, folder=folder, environment=environment, stdin=stdin, timeout=timeout) as process:
        output = process.stdout.read(LARGEST_OUTPUT + 1)
        if len(output) > LARGEST_OUTPUT:
            process.stop()
            raise GitFailed(f"git {arguments[0]} wrote more than {LARGEST_OUTPUT // 1024**2} MiB")
        completed = process.finish(output)
    if check and completed.returncode != 0:
        raise failure(arguments, mode, completed)
    return completed


def failure(arguments: Sequence[str], mode: Mode, completed: Completed) -> SandboxError:
    """The error for a command that failed, in git's own words."""
    kind = Unreachable if mode is NETWORK else GitFailed
    said = completed.stderr or f"it ended with exit code {completed.returncode}"
    return kind(f"git {arguments[0]} failed", why=said)


class GitProcess:
    """A running git; in a process group of its own, ended when its time is up."""

    def __init__(self, process: subprocess.Popen[bytes], arguments: Sequence[str], mode: Mode, timeout: float) -> None:
        assert process.stdout is not None
        assert process.stderr is not None
        self.stdout: IO[bytes] = process.stdout
        self._process = process
        self._arguments = arguments
        self._mode = mode
        self._timeout = timeout
        self._is_late = False
        self._stderr = bytearray()
        self._reader = threading.Thread(target=self._read_stderr, args=(process.stderr,), daemon=True)
        self._reader.start()
        self._timer = threading.Timer(timeout, self._end_late)
        self._timer.daemon = True
        self._timer.start()

    def finish(self, output: bytes = b"") -> Completed:
        """Wait for its end.

        Raises:
            GitFailed: its time was up (Unreachable with a network).
        """
        returncode = self._process.wait()
        self._timer.cancel()
        self._reader.join(timeout=5)
        if self._is_late:
            kind = Unreachable if self._mode is NETWORK else GitFailed
            raise kind(f"git {self._arguments[0]} took longer than {self._timeout:.0f} s and was ended", why=self.said)
        return Completed(returncode, output, self.said)

    @property
    def said(self) -> str:
        """Its messages, without credentials and control characters."""
        return clean_message(os.fsdecode(bytes(self._stderr)))

    def stop(self) -> None:
        """End it and all that it started."""
        self._timer.cancel()
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()

    def close(self) -> None:
        """End it if it runs; give back what it holds."""
        if self._process.poll() is None:
            self.stop()
        self._timer.cancel()
        self._reader.join(timeout=5)
        self.stdout.close()

    def _end_late(self) -> None:
        self._is_late = True
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self._process.pid, signal.SIGKILL)

    def _read_stderr(self, stream: IO[bytes]) -> None:
        with stream:
            while chunk := stream.read1(8192):  # type: ignore[attr-defined]
                self._stderr += chunk
                del self._stderr[:-_STDERR_KEPT]


@contextlib.contextmanager
def start_git(
    arguments: Sequence[str],
    mode: Mode,
    *,
    folder: Path,
    environment: Mapping[str, str] | None = None,
    stdin: bytes = b"",
    timeout: float | None = None,
) -> Iterator[GitProcess]:
    """A running git whose output is read while it runs; ended when the block is left.

    Raises:
        OperationFailed: there is no git, or it could not be started.
    """
    bound = timeout if timeout is not None else (NETWORK_TIMEOUT if mode is NETWORK else LOCAL_TIMEOUT)
    # A file, not a pipe: git may write more than a pipe holds before it has read everything.
    with tempfile.TemporaryFile() as given:
        given.write(stdin)
        given.seek(0)
        try:
            started = subprocess.Popen(
                ["git", "--no-pager", *_options(), *arguments],
                stdin=given,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                cwd=folder,
                env=_environment(mode, environment or {}),
                start_new_session=True,
            )
        except FileNotFoundError as error:
            if error.filename != "git":
                raise OperationFailed(f"the folder {folder} does not exist") from None
            raise OperationFailed("git is not found", hint="install git 2.31 or later") from None
        except OSError as error:
            raise OperationFailed(f"git cannot be run in {folder}", why=error.strerror or str(error)) from None
    process = GitProcess(started, arguments, mode, bound)
    running = _running.get()
    if running is not None:
        running.add(process)
    try:
        yield process
    finally:
        process.close()
        if running is not None:
            running.discard(process)


def _options() -> list[str]:
    return [argument for override in _OVERRIDES for argument in ("-c", override)]


def _environment(mode: Mode, further: Mapping[str, str]) -> dict[str, str]:
    kept = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith("GIT_") or (mode is not OBJECTS and _KEPT.fullmatch(name))
    }
    allowed = ":".join(PROTOCOLS) if mode is NETWORK else "none"
    variables = {**kept, **_ALWAYS, "GIT_ALLOW_PROTOCOL": allowed}
    if mode is OBJECTS:
        variables |= {"GIT_CONFIG_GLOBAL": os.devnull, "GIT_CONFIG_NOSYSTEM": "1"}
    return {**variables, **further}


_CREDENTIALS = re.compile(r"(\w+://)[^/@\s'\"]+@")
_QUERY = re.compile(r"(https?://[^\s'\"?]+)\?[^\s'\"]+")


def clean_message(text: str) -> str:
    """A message without credentials in URLs and without control characters, which could steer a terminal."""
    plain = "".join(character if character.isprintable() or character == "\n" else " " for character in text)
    shown = _QUERY.sub(r"\1", _CREDENTIALS.sub(r"\1", plain))
    lines = [line.strip() for line in shown.splitlines()]
    return "\n".join(line for line in lines if line)


class Running:
    """The git processes of one call, so that a cancelled call can end them."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._processes: set[GitProcess] = set()
        self._is_stopped = False

    def add(self, process: GitProcess) -> None:
        with self._lock:
            self._processes.add(process)
            if self._is_stopped:
                process.stop()

    def discard(self, process: GitProcess) -> None:
        with self._lock:
            self._processes.discard(process)

    def stop(self) -> None:
        """End all that run; those that are started later end at once."""
        with self._lock:
            self._is_stopped = True
            for process in self._processes:
                process.stop()


_running: contextvars.ContextVar[Running | None] = contextvars.ContextVar("running_git", default=None)


async def in_thread(function: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> T:
    """Call a function of this package in a thread, as ``asyncio.to_thread``; cancelled, its git processes end."""
    import asyncio

    running = Running()
    context = contextvars.copy_context()
    context.run(_running.set, running)
    loop = asyncio.get_running_loop()
    call = loop.run_in_executor(None, lambda: context.run(function, *args, **kwargs))
    try:
        return await asyncio.shield(call)
    except asyncio.CancelledError:
        running.stop()
        # Not left behind: whoever cancelled may remove the folder that it writes to.
        with contextlib.suppress(Exception):
            async with asyncio.timeout(10):
                await asyncio.shield(call)
        raise
