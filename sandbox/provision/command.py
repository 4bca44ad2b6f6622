"""The test that decides on a deployment: a command on this machine, with ways to all services kept open meanwhile."""

from __future__ import annotations

import os
import re
import shlex
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from datetime import timedelta

from sandbox.cluster.client import Cluster
from sandbox.cluster.pods import port_forward
from sandbox.images.process import run
from sandbox.model.errors import OperationFailed, SandboxError
from sandbox.model.failure import Finding, NotReady
from sandbox.model.objects import ObjectRef
from sandbox.model.record import ServiceRecord

# Ports whose names (IANA's, or what people write) say that no HTTP is spoken there.
_NOT_HTTP = re.compile(r"postgres(ql)?|mysql|mariadb|redis|mongo(db)?|amqps?|kafka|memcached?|tcp.*|smtp|ldaps?|dns")
_SHOWN_LINES = 20


async def run_test(
    cluster: Cluster,
    namespace: str,
    environment: str,
    services: Mapping[str, ServiceRecord],
    command: Sequence[str],
    *,
    timeout: timedelta,
    on_line: Callable[[str], None],
) -> None:
    """Run a command of the user's; it passes with exit code 0.

    Its environment is ours with ``KUBECONFIG``, ``SANDBOX_NAME``, ``SANDBOX_NAMESPACE`` and, for each service with
    ports, ``SANDBOX_<SERVICE>_URL``.

    Raises:
        NotReady: it failed, or took too long; with its last lines.
        OperationFailed: it cannot be started.
    """
    async with ways_to(cluster, namespace, services) as addresses:
        given = {
            **os.environ,
            "KUBECONFIG": str(cluster.kubeconfig_path),
            "SANDBOX_NAME": environment,
            "SANDBOX_NAMESPACE": namespace,
            **addresses,
        }
        lines: list[str] = []

        def note(line: str) -> None:
            lines.append(line)
            del lines[:-_SHOWN_LINES]
            on_line(line)

        try:
            ended = await run(command, env=given, limit=timeout, on_line=note)
        except OperationFailed as error:
            if not lines and "cannot be started" in error.what:
                raise
            raise _failed(command, error.what, None, lines) from None
    if ended.code != 0:
        raise _failed(command, _said(ended.code), ended.code, lines)


def _said(code: int) -> str:
    return f"ended by signal {-code}" if code < 0 else f"exit code {code}"


def _failed(command: Sequence[str], message: str, code: int | None, lines: Sequence[str]) -> NotReady:
    finding = Finding(
        reason="TestFailed", message=message, object=shlex.join(command), exit_code=code, log_tail=tuple(lines)
    )
    return NotReady("the test failed", [finding])


@asynccontextmanager
async def ways_to(
    cluster: Cluster, namespace: str, services: Mapping[str, ServiceRecord]
) -> AsyncIterator[dict[str, str]]:
    """Forward a local port to the first port of each service; yields the environment variables that say so."""
    async with AsyncExitStack() as stack:
        found: dict[str, str] = {}
        for name, record in services.items():
            for number, (port_name, port) in enumerate(record.ports.items()):
                target = _service_with(record, port)
                if target is None:
                    continue
                try:
                    local = await stack.enter_async_context(port_forward(cluster, namespace, target, 0, port))
                except SandboxError:
                    # A neighbour that is down is not ours to judge; who needs it is told by the variable's absence.
                    continue
                found.update(variables(name, port_name, local, first=number == 0))
        yield found


def variables(service: str, port_name: str, local: int, *, first: bool) -> dict[str, str]:
    """``SANDBOX_<SERVICE>_URL`` of a service's first port, ``SANDBOX_<SERVICE>_<PORT>_URL`` of every port."""
    scheme = "https" if port_name.startswith("https") else "tcp" if _NOT_HTTP.fullmatch(port_name) else "http"
    url = f"{scheme}://127.0.0.1:{local}"
    found = {f"SANDBOX_{_variable(service)}_{_variable(port_name)}_URL": url}
    return {**found, f"SANDBOX_{_variable(service)}_URL": url} if first else found


def _variable(text: str) -> str:
    return re.sub(r"[^A-Z0-9]", "_", text.upper())


def _service_with(record: ServiceRecord, port: int) -> ObjectRef | None:
    """The Service object of a service that has a port."""
    for manifest in record.manifests:
        if (manifest.get("apiVersion"), manifest.get("kind")) == ("v1", "Service"):
            ports = (manifest.get("spec") or {}).get("ports") or ()
            if any(entry.get("port") == port for entry in ports):
                return ObjectRef.of(manifest)
    return None
