"""pyhelm3's command with its one dangerous part replaced: how Helm is run.

pyhelm3 runs ``sh -c``: a cancelled Helm went on for a minute, because the signal reached the shell only. Here it
is an argv, in a process group of its own, that ends with us. A module of its own because importing pyhelm3 takes
half a second, which only those who run Helm are to wait for.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
from pathlib import Path
from typing import Any

import pyhelm3
from pyhelm3 import errors

from sandbox.cluster.parent import end_with_parent
from sandbox.cluster.yamlstream import json_for_yaml

# Helm marks the release as failed when it is told to end; a request or two.
_GRACE_S = 5.0
# Flags and environment of Helm name another cluster or storage than the one that is meant.
_OVERRIDES = ("HELM_KUBE", "HELM_NAMESPACE", "HELM_DRIVER", "HELM_DEBUG")
# A helm process lives for a second and needs some 50 MB: collecting garbage is a third of its CPU time. Over the limit
# it is collected as ever; who has set these keeps them.
_MEMORY = {"GOGC": "off", "GOMEMLIMIT": "256MiB"}


class HelmCommand(pyhelm3.Command):  # type: ignore[misc]
    """Runs Helm without a shell.

    Args:
        force_conflicts: take over fields that somebody changed by hand, as Helm 3 did (Helm 4 applies server-side
            and refuses otherwise).
    """

    def __init__(self, *, executable: Path, kubeconfig: Path, context: str, force_conflicts: bool) -> None:
        super().__init__(executable=str(executable), kubeconfig=kubeconfig, kubecontext=context)
        self._force_conflicts = force_conflicts

    def argv(self, command: list[Any]) -> list[str]:
        """The whole command line. Values never are in it: they go to Helm's standard input."""
        forced = self._force_conflicts and command[0] in ("upgrade", "rollback")
        # Applying in the server, it refuses unknown fields itself; Helm would read all schemas first. (pyhelm3 0.5
        # takes the flag apart into letters.)
        unchecked = forced and command[0] == "upgrade"
        return [
            self._executable,
            *(str(part) for part in command),
            *(["--force-conflicts"] if forced and "--force-conflicts" not in command else []),
            *(["--disable-openapi-validation"] if unchecked else []),
            "--kubeconfig",
            str(self._kubeconfig),
            "--kube-context",
            str(self._kubecontext),
        ]

    async def run(self, command: list[Any], input: bytes | None = None) -> bytes:
        """Run Helm and return what it puts out.

        Args:
            input: values as JSON; pyhelm3 writes emojis in them in a way that Helm cannot read.

        Raises:
            pyhelm3.errors.Error: it failed; its own words are in ``stderr``.
        """
        if input is not None:
            input = json_for_yaml(json.loads(input)).encode()
        process = await _started(self.argv(command), reads=input is not None)
        try:
            stdout, stderr = await process.communicate(input)
        finally:
            if process.returncode is None:
                await _end(process)
        code = process.returncode or 0
        if code != 0:
            raise errors.Error(code, stdout, stderr)
        return stdout


def helm_environment() -> dict[str, str]:
    """Helm's environment: ours, without what would lead it to another cluster or storage."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith(_OVERRIDES)}
    return {**_MEMORY, **environment, "HELM_DRIVER": "secret"}


async def _started(argv: list[str], *, reads: bool) -> asyncio.subprocess.Process:
    """Start Helm. Cancelled in that moment, it is ended as later on: asyncio would kill Helm alone, then wait until
    the children that it leaves have closed their ends of its pipes."""
    starting = asyncio.ensure_future(
        asyncio.create_subprocess_exec(
            *argv,
            stdin=asyncio.subprocess.PIPE if reads else asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            env=helm_environment(),
            start_new_session=True,
            # This copies our memory's tables while all else here waits: not for what ends by itself in a moment.
            preexec_fn=None if argv[1] == "template" else end_with_parent(),
        )
    )
    try:
        return await asyncio.shield(starting)
    except asyncio.CancelledError:
        await _end(await starting)
        raise


async def _end(process: asyncio.subprocess.Process) -> None:
    """End Helm: politely, so that it unlocks its release; then not."""
    for sent, patience in ((signal.SIGTERM, _GRACE_S), (signal.SIGKILL, None)):
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, sent)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(patience):
                await process.wait()
            return
