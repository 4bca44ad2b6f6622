"""Taking back what migrations did to databases: by the project's own step down, or by what the stores held before."""

from __future__ import annotations

import asyncio
import json
import secrets
import shutil
import time
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from tenacity import AsyncRetrying, retry_if_result, stop_after_delay, wait_fixed

from sandbox.capture.fixtures.dump import dump_fixtures
from sandbox.capture.fixtures.find import Found, find
from sandbox.capture.fixtures.model import Fixture, Limits
from sandbox.capture.fixtures.restore import restore_fixture, verify_fixture
from sandbox.capture.fixtures.store import RestoreRequest, stores
from sandbox.cluster import objects
from sandbox.deploy.context import Context
from sandbox.deploy.planning import Planned
from sandbox.model import labels, names
from sandbox.model.durations import parse_duration, to_rfc3339
from sandbox.model.errors import OperationFailed, Refused, SandboxError
from sandbox.model.failure import NotReady
from sandbox.model.objects import Manifest, pod_template
from sandbox.model.record import ServiceRecord
from sandbox.project.config import Fixtures, FixtureStore, MigrationDown, Service
from sandbox.provision import records
from sandbox.provision.plan import Plan, ServicePlan
from sandbox.provision.rollback import Restored
from sandbox.provision.smoke import run_job
from sandbox.provision.workspace import kept_folder

_FOLDER = "before-deployment"
_INDEX = "fixtures.json"
# For one dump: a database that takes longer is not dumped on the way of a deployment.
_DUMP_S = 1800.0
# A store that was changed and brought back itself may take a moment to answer again.
_STORE_BACK_S = 120.0
_WORKLOADS = ("Deployment", "StatefulSet", "DaemonSet")
# An image that never was there has migrated nothing.
_NEVER_RAN = frozenset(("ErrImagePull", "ImagePullBackOff", "InvalidImageName", "ErrImageNeverPull"))
_CONTAINER_FIELDS = (
    "name",
    "image",
    "imagePullPolicy",
    "env",
    "envFrom",
    "volumeMounts",
    "resources",
    "securityContext",
    "workingDir",
)
_POD_FIELDS = (
    "serviceAccountName",
    "imagePullSecrets",
    "securityContext",
    "nodeSelector",
    "tolerations",
    "priorityClassName",
    "hostAliases",
)


# -- the project's own step down --------------------------------------------------------------------------------


async def step_back(
    context: Context, name: str, spec: Service | None, failed: ServiceRecord, previous: ServiceRecord
) -> None:
    """Run the step down that a service declares; nothing where it declares none.

    Raises:
        NotReady: it failed; the database is as the failed version left it.
        OperationFailed: the service has no container to run it in.
    """
    if spec is None or spec.migrations is None or spec.migrations.down is None:
        return
    down = spec.migrations.down
    job = down_job(context.namespace, name, down, failed, previous)
    with context.reporter.step(f"Step back the migrations of {name}"):
        try:
            await run_job(context.cluster, context.namespace, name, job, parse_duration(down.timeout).total_seconds())
        except NotReady as error:
            if not all(finding.reason in _NEVER_RAN for finding in error.findings):
                raise
            context.reporter.info(f"{name}: the image that failed was never there, so it has migrated nothing")


def down_job(
    namespace: str, name: str, down: MigrationDown, failed: ServiceRecord, previous: ServiceRecord
) -> Manifest:
    """The Job of a step down: the service's own container, with another command, and nothing that leads others to it.

    Raises:
        OperationFailed: the service has no such container.
    """
    version = failed if down.version == "failed" else previous
    spec, container = _container(name, version.manifests, down.container)
    volumes = spec.get("volumes") or []
    known = {volume["name"] for volume in volumes}
    used = {field: container[field] for field in _CONTAINER_FIELDS if field in container}
    if "volumeMounts" in used:
        # A StatefulSet's own volumes are each pod's.
        used["volumeMounts"] = [mount for mount in used["volumeMounts"] if mount["name"] in known]
    given = {
        "SANDBOX_NAMESPACE": namespace,
        "SANDBOX_FROM_COMMIT": failed.lock.commit,
        "SANDBOX_TO_COMMIT": previous.lock.commit,
    }
    variables = [*(container.get("env") or []), *({"name": key, "value": value} for key, value in given.items())]
    pod: Manifest = {field: spec[field] for field in _POD_FIELDS if field in spec}
    label = {labels.SERVICE: name}
    return {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": {"name": names.slug(f"{name}-step-back", longest=52), "namespace": namespace, "labels": label},
        "spec": {
            "backoffLimit": 0,
            "ttlSecondsAfterFinished": 3600,
            "template": {
                "metadata": {"labels": label},
                "spec": {
                    **pod,
                    "restartPolicy": "Never",
                    "volumes": volumes,
                    "containers": [{**used, "command": list(down.command), "env": variables}],
                },
            },
        },
    }


def _container(name: str, manifests: Iterable[Manifest], wanted: str | None) -> tuple[Manifest, Manifest]:
    """The pod spec and the container of the first workload that has it."""
    for manifest in manifests:
        if manifest.get("kind") in _WORKLOADS:
            spec: Manifest = (pod_template(manifest) or {}).get("spec") or {}
            for container in spec.get("containers") or ():
                if wanted in (None, container.get("name")):
                    return spec, container
    raise OperationFailed(
        f"{name} has no container {wanted or ''} to step back with".replace("  ", " "),
        hint="name one of its workload's under migrations.down.container",
    )


# -- what the stores held before --------------------------------------------------------------------------------


@dataclass(frozen=True)
class Saved:
    """What stores held before a deployment.

    Attributes:
        services: those whose failure brings it back.
        at: when it was dumped, RFC 3339.
    """

    folder: Path
    services: frozenset[str]
    fixtures: tuple[Fixture, ...]
    at: str


async def save(context: Context, planned: Planned, services: Mapping[str, ServicePlan]) -> Saved | None:
    """Dump every store whose migration will run, before the first write; None where there is none.

    What an interrupted deployment has dumped before its own first write is used instead, where it is still here: now
    the stores may hold half of its migrations.

    Raises:
        Refused: a store cannot be dumped as a whole, so that it could not be brought back; or there is none.
    """
    good = records.last_deployed(planned.plan.before)
    wanted = {
        name: service.spec.migrations.stores
        for name, service in services.items()
        if service.spec and service.spec.migrations and service.spec.migrations.restore and good
        if name in good.services
    }
    if not wanted or good is None:
        return None
    folder = kept_folder(
        _FOLDER, names.slug(f"{context.cluster.context}-{context.namespace}-{good.number}", longest=100)
    )
    if planned.plan.before[-1].outcome == "failed" and (left := _read(folder)) is not None:
        context.reporter.warn(
            f"the data is as an interrupted deployment left it: a failure now restores what it held at {left.at}"
        )
        return left
    shutil.rmtree(folder, ignore_errors=True)
    with context.reporter.step("Dump what migrations will change") as step:
        pods = await _pods(context)
        declared = planned.sources.project.fixtures
        chosen = _chosen(planned.plan, wanted, find(pods, declared, stores())[0])
        fixtures = await _dump(context, pods, declared, chosen, folder)
        step.detail(", ".join(f"{fixture.name}: {fixture.size // 1024} KiB" for fixture in fixtures))
    saved = Saved(folder, frozenset(wanted), tuple(fixtures), to_rfc3339(datetime.now(UTC)))
    _write(saved)
    return saved


def forget(saved: Saved | None) -> None:
    """Remove what is not needed any more."""
    if saved is not None:
        shutil.rmtree(saved.folder, ignore_errors=True)


def _chosen(plan: Plan, wanted: Mapping[str, Sequence[str]], found: Sequence[Found]) -> list[Found]:
    chosen: dict[str, Found] = {}
    for name, given in wanted.items():
        meant = set(given) if given else _workloads(plan, (name, *plan.services[name].needs))
        mine = [one for one in found if {one.name, one.workload} & meant]
        missing = set(given) - {known for one in mine for known in (one.name, one.workload)}
        if missing or not mine:
            there = ", ".join(one.name for one in found) or "none"
            raise Refused(
                f"{name} restores fixtures when it fails, and there is no store {', '.join(sorted(missing or meant))}",
                why=f"found are {there}",
                hint=f"name its database under services.{name}.migrations.stores in sandbox.yaml",
            )
        chosen |= {one.name: one for one in mine}
    return list(chosen.values())


def _workloads(plan: Plan, services: Iterable[str]) -> set[str]:
    """Names of the workloads of some services, as the environment has them."""
    found = set()
    for name in services:
        if name in plan.applied:
            found |= {item.name for item in plan.applied[name].inventory if item.kind in _WORKLOADS}
    return found


async def _dump(
    context: Context, pods: Sequence[Manifest], declared: Fixtures, chosen: Sequence[Found], folder: Path
) -> list[Fixture]:
    """Whole and unmasked: it goes back to where it came from.

    Raises:
        Refused: one of them is not complete.
    """
    folder.mkdir(parents=True, mode=0o700)
    of = {one.pod for one in chosen}
    own = {name: store for name, store in declared.stores.items() if name in {one.name for one in chosen}}
    fixtures = await dump_fixtures(
        context.cluster,
        context.namespace,
        [pod for pod in pods if pod["metadata"]["name"] in of],
        Fixtures(stores=own),
        folder,
        limits=Limits(max_fixture=shutil.disk_usage(folder).free),
        deadline=time.monotonic() + _DUMP_S,
        # Nothing is masked, so nothing is made of it.
        hmac_key=secrets.token_bytes(32),
    )
    broken = [fixture for fixture in fixtures if fixture.status not in ("ok", "absent")]
    if broken:
        shutil.rmtree(folder, ignore_errors=True)
        raise Refused(
            "the data could not be brought back if the deployment failed: it cannot be dumped",
            why="\n".join(f"{fixture.name}: {fixture.status}: {fixture.why}" for fixture in broken),
            hint="mend the store first, or declare `migrations: {down: …}` instead of `restore: fixtures`",
        )
    return [fixture for fixture in fixtures if fixture.status == "ok"]


def _write(saved: Saved) -> None:
    """Last of all, as a whole: a dump without it was interrupted."""
    data = {
        "services": sorted(saved.services),
        "at": saved.at,
        "fixtures": [fixture.model_dump(mode="json") for fixture in saved.fixtures],
    }
    unfinished = saved.folder / f"{_INDEX}.new"
    unfinished.write_text(json.dumps(data), encoding="utf-8")
    unfinished.rename(saved.folder / _INDEX)


def _read(folder: Path) -> Saved | None:
    try:
        data: dict[str, Any] = json.loads((folder / _INDEX).read_text(encoding="utf-8"))
        fixtures = tuple(Fixture.model_validate(item) for item in data["fixtures"])
        return Saved(folder, frozenset(data["services"]), fixtures, str(data["at"]))
    except (OSError, ValueError, KeyError, TypeError):
        return None


async def _pods(context: Context) -> list[Manifest]:
    return [pod async for pod in objects.list_(context.cluster, "v1", "Pod", context.namespace)]


async def restore(
    context: Context, declared: Fixtures, saved: Saved, names: Collection[str], restored: Restored
) -> list[str]:
    """Bring back what stores held, where a service was deployed whose migrations may have changed it.

    Args:
        declared: the ``fixtures:`` of sandbox.yaml.
        names: the services that were deployed.
        restored: is told what could not be brought back.

    Returns:
        What was written since, and is lost.
    """
    concerned = sorted(saved.services & set(names))
    if not concerned:
        return []
    told = await asyncio.gather(*(_restore(context, declared, saved, fixture) for fixture in saved.fixtures))
    for error in (error for _, error in told if error):
        for name in concerned:
            said = f"its data is not restored: {error}; what it held at {saved.at} is in {saved.folder}"
            restored.failures[name] = "\n".join(filter(None, (restored.failures.get(name), said)))
    return [line for lost, _ in told for line in lost]


async def _restore(context: Context, declared: Fixtures, saved: Saved, fixture: Fixture) -> tuple[list[str], str]:
    """What is lost, and what went wrong."""
    lost: list[str] = []
    try:
        with context.reporter.step(f"Restore {fixture.name}") as step:
            pod = await _store_pod(context, declared, fixture)
            place = (context.cluster, context.namespace, pod, fixture)
            store = declared.stores.get(fixture.name, FixtureStore(kind=fixture.kind, container=fixture.container))
            lost = [f"{fixture.name}: {line}" for line in await verify_fixture(*place, declared=store)]
            for line in lost:
                context.reporter.warn(f"will be lost: {line}")
            step.detail(f"as it was at {saved.at}")
            await restore_fixture(*place, saved.folder, request=RestoreRequest(replace=True), declared=store)
        return lost, ""
    except SandboxError as error:
        return lost, str(error)


async def _store_pod(context: Context, declared: Fixtures, fixture: Fixture) -> Manifest:
    """The pod that runs the store now.

    Raises:
        OperationFailed: it does not come back.
    """

    async def look() -> Manifest | None:
        pods = await _pods(context)
        found, _ = find(pods, declared, stores())
        running = {one.pod for one in found if one.workload == fixture.workload and not one.trouble}
        return next((pod for pod in pods if pod["metadata"]["name"] in running), None)

    retrying = AsyncRetrying(
        stop=stop_after_delay(_STORE_BACK_S),
        wait=wait_fixed(0.5),
        retry=retry_if_result(lambda pod: pod is None),
        retry_error_callback=lambda _state: None,
    )
    pod: Manifest | None = await retrying(look)
    if pod is None:
        raise OperationFailed(f"no pod of {fixture.workload} runs", why=f"waited {_STORE_BACK_S:.0f} s for it")
    return pod
