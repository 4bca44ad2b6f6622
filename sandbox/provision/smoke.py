"""Smoke tests and hooks: the project's own word on whether a service works.

Commands of a project are untrusted: they run as Jobs inside the sandbox, under its guardrails.
"""

from __future__ import annotations

from collections.abc import Sequence

import aiohttp
from tenacity import AsyncRetrying, RetryError, retry_if_exception_type, stop_after_delay, wait_fixed

from sandbox.cluster import objects, pods
from sandbox.cluster.client import Cluster
from sandbox.cluster.waiting import wait_ready
from sandbox.model import labels, names
from sandbox.model.durations import parse_duration
from sandbox.model.errors import OperationFailed
from sandbox.model.failure import Finding, NotReady
from sandbox.model.images import ResolvedImage
from sandbox.model.objects import Manifest, ObjectRef
from sandbox.model.record import HttpSmokeRecord
from sandbox.project.config import Hook, Service

# A service that is ready may still need a moment behind its Service (endpoints are eventual).
_HTTP_BOUND = 15.0
_MOST_BODY = 1_000_000


async def run_smoke(
    cluster: Cluster,
    namespace: str,
    name: str,
    service: Service,
    manifests: Sequence[Manifest],
    images: Sequence[ResolvedImage],
) -> None:
    """Run a service's smoke test.

    Args:
        manifests: the service's; the HTTP test calls the first Service object among them that has the port.

    Raises:
        NotReady: it failed, with what came instead.
        OperationFailed: it cannot be run: no such port, no image.
    """
    smoke = service.smoke
    assert smoke is not None
    if smoke.http is not None:
        http = smoke.http.recorded(service.ports)
        await run_http_smoke(cluster, namespace, name, http, manifests, _seconds(smoke.timeout))
    if hook := smoke_hook(service, images):
        await run_command(cluster, namespace, name, "smoke", hook, images)


def smoke_hook(service: Service, images: Sequence[ResolvedImage]) -> Hook | None:
    """The command of a service's smoke test, as a hook; None where it has none."""
    smoke = service.smoke
    if smoke is None or not smoke.command:
        return None
    image = smoke.image or (images[0].name if images else "")
    return Hook(name="smoke", command=smoke.command, image=image, timeout=smoke.timeout)


async def run_command(
    cluster: Cluster, namespace: str, service: str, stage: str, hook: Hook, images: Sequence[ResolvedImage]
) -> None:
    """Run a command in one of the service's images (or any other) as a Job, and wait for its end.

    Raises:
        NotReady: the Job failed, with its log, or took too long.
    """
    await run_job(
        cluster, namespace, service, command_job(namespace, service, stage, hook, images), _seconds(hook.timeout)
    )


async def run_job(cluster: Cluster, namespace: str, service: str, job: Manifest, timeout: float) -> None:
    """Run a Job, in the place of the last one of its name, and wait for its end.

    Raises:
        NotReady: it failed, with its log, or took too long (seconds).
    """
    ref = ObjectRef.of(job)
    # A Job's template is immutable: the one of the last run goes first.
    await objects.delete(cluster, ref)
    await gone(cluster, ref, timeout=30.0)
    await objects.apply(cluster, job, namespace=namespace)
    await wait_ready(cluster, namespace, {service: [job]}, timeout=timeout)


def command_job(namespace: str, service: str, stage: str, hook: Hook, images: Sequence[ResolvedImage]) -> Manifest:
    """The Job of a hook or smoke command: one try, restricted pod security, gone after an hour."""
    name = names.slug(f"{service}-{stage}-{hook.name}" if hook.name != stage else f"{service}-{stage}", longest=52)
    return {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": {"name": name, "namespace": namespace, "labels": {labels.SERVICE: service}},
        "spec": {
            "backoffLimit": 0,
            "ttlSecondsAfterFinished": 3600,
            "template": {
                "metadata": {"labels": {labels.SERVICE: service}},
                "spec": {
                    "restartPolicy": "Never",
                    "automountServiceAccountToken": False,
                    "securityContext": {"seccompProfile": {"type": "RuntimeDefault"}},
                    "containers": [
                        {
                            "name": "command",
                            "image": _image(hook, images),
                            "command": list(hook.command),
                            "env": [
                                {"name": k, "value": v} for k, v in {"SANDBOX_NAMESPACE": namespace, **hook.env}.items()
                            ],
                            "securityContext": {
                                "allowPrivilegeEscalation": False,
                                "capabilities": {"drop": ["ALL"]},
                            },
                        }
                    ],
                },
            },
        },
    }


def _image(hook: Hook, images: Sequence[ResolvedImage]) -> str:
    """The digest of one of the service's own images, or any other image as it is named."""
    return next((image.reference for image in images if image.name == hook.image), hook.image)


def _seconds(duration: str) -> float:
    return parse_duration(duration).total_seconds()


async def gone(cluster: Cluster, ref: ObjectRef, timeout: float) -> None:
    try:
        async for attempt in AsyncRetrying(
            stop=stop_after_delay(timeout), wait=wait_fixed(0.2), retry=retry_if_exception_type(OperationFailed)
        ):
            with attempt:
                if await objects.get(cluster, ref) is not None:
                    raise OperationFailed(f"{ref} is still there")
    except RetryError:
        raise OperationFailed(f"{ref} of the last run was not deleted within {timeout:.0f} s") from None


def service_with_port(service: str, manifests: Sequence[Manifest], port: str) -> Manifest:
    """The Service object that has a port of that name or number.

    Raises:
        OperationFailed: none has.
    """
    known = []
    for manifest in manifests:
        if (manifest.get("apiVersion"), manifest.get("kind")) != ("v1", "Service"):
            continue
        for entry in (manifest.get("spec") or {}).get("ports") or ():
            if port in (str(entry.get("name")), str(entry.get("port"))):
                return manifest
            known.append(f"{manifest['metadata']['name']}:{entry.get('name') or entry.get('port')}")
    raise OperationFailed(
        f"service {service} has no Service with the port {port}",
        why=f"its Services have {', '.join(known) or 'none'}",
        hint="correct the port of its smoke test in sandbox.yaml",
    )


def port_number(target: Manifest, port: str) -> int:
    """The number of a Service's port, given by name or number."""
    for entry in target["spec"]["ports"]:
        if port in (str(entry.get("name")), str(entry.get("port"))):
            return int(entry["port"])
    raise KeyError(port)


async def run_http_smoke(
    cluster: Cluster,
    namespace: str,
    name: str,
    smoke: HttpSmokeRecord,
    manifests: Sequence[Manifest],
    timeout: float,
) -> None:
    """Ask a service over HTTP, until the answer is as told.

    Args:
        name: the service's.
        manifests: its own; the first Service among them that has the port is asked.
        timeout: seconds.

    Raises:
        NotReady: it never was, with what came instead.
        OperationFailed: no Service has the port.
    """
    port = smoke.port
    target = service_with_port(name, manifests, port)
    ref = ObjectRef.of(target)
    try:
        async for attempt in AsyncRetrying(
            stop=stop_after_delay(min(timeout, _HTTP_BOUND)),
            wait=wait_fixed(0.5),
            retry=retry_if_exception_type(_Unexpected),
        ):
            with attempt:
                async with pods.port_forward(cluster, namespace, ref.name, 0, port_number(target, port)) as local_port:
                    await _expect(f"http://127.0.0.1:{local_port}", smoke)
    except RetryError as error:
        cause = str(error.last_attempt.exception())
        finding = Finding(reason="SmokeTestFailed", message=cause, object=str(ref), service=name)
        raise NotReady(f"the smoke test of {name} failed", [finding]) from None


class _Unexpected(Exception):
    """The answer is not the expected one (yet)."""


async def _expect(base: str, smoke: HttpSmokeRecord) -> None:
    try:
        async with (
            aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=10)) as session,
            session.get(base + smoke.path, allow_redirects=False) as response,
        ):
            body = (await response.content.read(_MOST_BODY)).decode(errors="replace")
    except (TimeoutError, aiohttp.ClientError, OSError) as error:
        raise _Unexpected(f"GET {smoke.path}: {str(error) or type(error).__name__}") from error
    if response.status != smoke.status:
        raise _Unexpected(f"GET {smoke.path} answered {response.status}, not {smoke.status}: {body[:300].strip()}")
    if smoke.contains and smoke.contains not in body:
        raise _Unexpected(f"GET {smoke.path} does not contain {smoke.contains!r}: {body[:300].strip()}")
