"""Running a builder: argv only, bounded, its output passed on line by line, ended with its caller."""

from __future__ import annotations

import asyncio
import os
import signal
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

from sandbox.cluster.parent import end_with_parent
from sandbox.model.errors import OperationFailed

Progress = Callable[[str], None]

LAST_LINES = 20
# Time to clean up (unmount, remove working containers) before the whole process group is killed.
_GRACE_SECONDS = 3.0
_LONGEST_LINE = 4_096


@dataclass(frozen=True)
class Ended:
    """How a program ended.

    Attributes:
        code: exit code; negative for a signal.
        output: standard output and error as one text, the last megabyte of it.
    """

    code: int
    output: str

    def last_lines(self) -> str:
        """Its last 20 lines, which is where builders say what went wrong."""
        return "\n".join(self.output.rstrip().splitlines()[-LAST_LINES:])


async def run(
    argv: Sequence[str | Path],
    *,
    env: Mapping[str, str],
    limit: timedelta,
    cwd: Path | None = None,
    stdin: bytes = b"",
    on_line: Progress | None = None,
) -> Ended:
    """Run a program to its end; cancelling ends it and everything that it started, and so does the end of this process.

    Args:
        env: its whole environment.
        limit: how long it may take.
        on_line: called with each line of its output, while it runs.

    Raises:
        OperationFailed: it cannot be started, or takes longer than the limit.
    """
    words = [os.fspath(word) for word in argv]
    try:
        process = await asyncio.create_subprocess_exec(
            *words,
            stdin=asyncio.subprocess.PIPE if stdin else asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
            env=dict(env),
            cwd=cwd,
            start_new_session=True,
            # unshare(1), around builders that run as root, takes no other; it kills what is in it.
            preexec_fn=end_with_parent(signal.SIGKILL),
        )
    except OSError as error:
        raise OperationFailed(f"{words[0]} cannot be started", why=error.strerror or str(error)) from error
    try:
        async with asyncio.timeout(limit.total_seconds()):
            if process.stdin:
                with suppress(BrokenPipeError, ConnectionResetError):
                    process.stdin.write(stdin)
                    await process.stdin.drain()
                process.stdin.close()
            assert process.stdout is not None
            output = await _read(process.stdout, on_line)
            code = await process.wait()
    except TimeoutError:
        raise OperationFailed(f"{Path(words[0]).name} did not end within {limit.total_seconds():.0f} s") from None
    finally:
        await _end(process)
    return Ended(code, output)


async def _read(stream: asyncio.StreamReader, on_line: Progress | None) -> str:
    """All output; lines that never end are cut, and only the end of very much is kept."""
    kept: deque[str] = deque(maxlen=10_000)
    rest = b""
    while chunk := await stream.read(65_536):
        *lines, rest = (rest + chunk).split(b"\n")
        if len(rest) > _LONGEST_LINE:
            lines.append(rest)
            rest = b""
        for line in lines:
            _take(line, kept, on_line)
    if rest:
        _take(rest, kept, on_line)
    return "\n".join(kept)


def _take(line: bytes, kept: deque[str], on_line: Progress | None) -> None:
    # A carriage return redraws a progress bar: only what stays on the screen is of use.
    text = line.decode(errors="replace").rstrip("\r").rpartition("\r")[2][:_LONGEST_LINE]
    kept.append(text)
    if on_line and text.strip():
        on_line(text)


async def _end(process: asyncio.subprocess.Process) -> None:
    if process.returncode is not None:
        return
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGTERM)
    # The output must be read on, or a program that still writes never ends.
    with suppress(TimeoutError):
        async with asyncio.timeout(_GRACE_SECONDS):
            await process.communicate()
            return
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    await process.wait()
