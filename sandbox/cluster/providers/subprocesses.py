"""Running the programs that make clusters: argv lists, bounded, ended with the caller."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from sandbox.model.errors import OperationFailed

_LAST_LINES = 12  # of a failed program's output that are worth showing
_PROXY_VARIABLES = {"http_proxy", "https_proxy", "all_proxy"}


@dataclass(frozen=True)
class Finished:
    """How a program ended and what it wrote."""

    argv: tuple[str, ...]
    code: int
    stdout: str
    stderr: str

    def last_lines(self) -> str:
        """The end of what it said, which is where programs put their reason."""
        return "\n".join((self.stderr or self.stdout).strip().splitlines()[-_LAST_LINES:])


async def run(
    argv: Sequence[str | Path],
    *,
    timeout: float,
    stdin: str | None = None,
    env: Mapping[str, str] | None = None,
    cwd: Path | None = None,
    on_line: Callable[[str], None] | None = None,
) -> Finished:
    """Run a program to its end, in a process group of its own.

    Args:
        argv: the program and its arguments; never a shell string.
        timeout: seconds after which the program is killed.
        on_line: called for each line on standard error while the program runs.

    Raises:
        OperationFailed: the program is not there, or takes longer than the bound.
    """
    words = tuple(str(word) for word in argv)
    try:
        process = await asyncio.create_subprocess_exec(
            *words,
            stdin=asyncio.subprocess.DEVNULL if stdin is None else asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            env=None if env is None else dict(env),
            cwd=cwd,
            start_new_session=True,
        )
    except OSError as error:
        raise OperationFailed(f"{words[0]} cannot be started", why=error.strerror or str(error)) from error
    try:
        async with asyncio.timeout(timeout):
            stdout, stderr, _ = await asyncio.gather(
                _read(process.stdout, None), _read(process.stderr, on_line), _feed(process.stdin, stdin)
            )
            code = await process.wait()
    except TimeoutError:
        raise OperationFailed(f"{Path(words[0]).name} did not end within {timeout:.0f} s") from None
    finally:
        await _end(process)
    return Finished(words, code, stdout, stderr)


async def run_checked(
    argv: Sequence[str | Path],
    what: str,
    *,
    timeout: float,
    stdin: str | None = None,
    env: Mapping[str, str] | None = None,
    cwd: Path | None = None,
    hint: str = "",
) -> str:
    """Run a program that has to succeed, and return its standard output.

    Args:
        what: what the program does, as the failure's first line: "the image cannot be pushed".

    Raises:
        OperationFailed: as in `run`, or with the program's last lines when it fails.
    """
    finished = await run(argv, timeout=timeout, stdin=stdin, env=env, cwd=cwd)
    if finished.code != 0:
        raise OperationFailed(what, why=finished.last_lines(), hint=hint)
    return finished.stdout


def direct_environment() -> dict[str, str]:
    """The environment without proxies: a cluster on this machine is never reached through one."""
    return {name: value for name, value in os.environ.items() if name.lower() not in _PROXY_VARIABLES}


async def _read(stream: asyncio.StreamReader | None, on_line: Callable[[str], None] | None) -> str:
    assert stream is not None
    if on_line is None:
        return (await stream.read()).decode(errors="replace")
    lines = []
    async for line in stream:
        text = line.decode(errors="replace").rstrip("\n")
        lines.append(text)
        on_line(text)
    return "\n".join(lines)


async def _feed(stream: asyncio.StreamWriter | None, content: str | None) -> None:
    if stream is None or content is None:
        return
    with suppress(BrokenPipeError, ConnectionResetError):  # the program's exit code tells more
        stream.write(content.encode())
        await stream.drain()
        stream.close()
        await stream.wait_closed()


async def _end(process: asyncio.subprocess.Process) -> None:
    """Make sure that nothing of a program goes on when its caller has gone."""
    if process.returncode is None:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        await process.wait()
