"""Going back to an earlier record."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from sandbox.cluster import sleeping
from sandbox.cluster.client import Cluster
from sandbox.cluster.helm import Helm
from sandbox.cluster.lease import deployment_lease
from sandbox.cluster.waiting import wait_ready
from sandbox.model.errors import InvalidInput, OperationFailed, PartlyDone, SandboxError
from sandbox.model.record import Record, ServiceRecord
from sandbox.model.sandbox import Phase
from sandbox.provision import equivalents, records
from sandbox.provision import namespace as ns
from sandbox.provision.inspect import find_sandbox
from sandbox.provision.plan import in_order
from sandbox.provision.reporter import Reporter
from sandbox.provision.services import Place, apply_manifests, prune
from sandbox.provision.target import Target


async def rollback(
    target: Target, name: str, *, to: int | None, reporter: Reporter, dry_run: bool = False, timeout: float = 300.0
) -> Record:
    """Bring a sandbox back to the record before, or to one by its number.

    Returns:
        The record that is (or would be) deployed again.

    Raises:
        InvalidInput: there is no such record.
        PartlyDone: some services could not be brought back; they are named.
    """
    async with Cluster.connect(target.context, target.kubeconfig) as cluster:
        sandbox = await find_sandbox(cluster, name)
        known = await records.load_records(cluster, sandbox.namespace)
        wanted = choose_record(known, to)
        if dry_run:
            return wanted
        user = await cluster.whoami()
        place = Place(
            cluster, sandbox.namespace, Helm(cluster.kubeconfig_path, cluster.context, cluster=cluster), timeout
        )
        async with deployment_lease(cluster, sandbox.namespace):
            if sandbox.phase == Phase.SLEEPING:
                with reporter.step("Wake"):
                    await sleeping.wake(cluster, sandbox.namespace)
            with reporter.step(f"Roll back to record {wanted.number}"):
                for service in wanted.services.values():
                    chart, revision = service.lock.chart, service.revision
                    if chart and revision:
                        reporter.command(
                            equivalents.roll_back(cluster.context, sandbox.namespace, chart.release, revision)
                        )
                done = await go_back(place, known, wanted, by=user.username)
            await ns.finish(cluster, sandbox.namespace, Phase.READY)
        return done


def choose_record(known: Sequence[Record], to: int | None) -> Record:
    """The record to go back to: the one asked for, else the last that was deployed before the newest.

    Raises:
        InvalidInput: with the numbers that there are.
    """
    candidates = deployed = [record for record in known if record.outcome == "deployed"]
    if known and known[-1].outcome == "deployed" and to is None:
        candidates = candidates[:-1]
    chosen = [record for record in candidates if to in (None, record.number)]
    if chosen:
        return chosen[-1]
    numbers = ", ".join(str(record.number) for record in deployed) or "none"
    asked = f"record {to}" if to is not None else "record before"
    running = "; the newest is what runs now" if deployed and to is None else ""
    raise InvalidInput(
        f"there is no {asked} to roll back to", why=f"deployed records: {numbers}{running}", hint="sandbox history"
    )


async def go_back(place: Place, known: Sequence[Record], wanted: Record, *, by: str) -> Record:
    """Bring every service back to what a record deployed, those that came later first.

    Raises:
        PartlyDone: naming what could not be brought back and why; the rest was.
    """
    present = known[-1].services
    failures: list[str] = []
    restored: dict[str, ServiceRecord] = {}
    order = in_order({name: service.needs for name, service in {**wanted.services, **present}.items()})
    for name in reversed([name for name in order if name not in wanted.services]):
        with _collecting(failures, name):
            await prune(place, name, present[name], None)
    for name in [name for name in order if name in wanted.services]:
        before = present.get(name)
        with _collecting(failures, name):
            restored[name] = await _restore(place, name, wanted.services[name], before)
    if not failures and place.wait:
        with _collecting(failures, "waiting"):
            targets = {name: service.manifests for name, service in restored.items()}
            await wait_ready(place.cluster, place.namespace, targets, timeout=place.timeout)
    if failures:
        raise PartlyDone(
            f"the rollback of {place.namespace} to record {wanted.number} is incomplete",
            why="\n".join(failures),
            hint="`sandbox status` shows what runs; `sandbox up` deploys anew",
        )
    record = wanted.model_copy(
        update={
            "number": known[-1].number + 1,
            "at": await place.cluster.server_time(),
            "by": by,
            "services": restored,
        }
    )
    await records.save(place.cluster, place.namespace, record)
    return record


async def _restore(place: Place, name: str, wanted: ServiceRecord, present: ServiceRecord | None) -> ServiceRecord:
    chart = wanted.lock.chart
    if chart is None:
        await apply_manifests(place, wanted.manifests)
        restored = wanted
    else:
        restored = await _restore_release(place, wanted, chart.release)
    if present is not None:
        await prune(place, name, present, restored)
    return restored


async def _restore_release(place: Place, wanted: ServiceRecord, release: str) -> ServiceRecord:
    current = await place.helm.release(release, place.namespace)
    if current is not None and current.revision == wanted.revision and current.status == "deployed":
        return wanted
    if wanted.revision is None or current is None:
        raise OperationFailed(f"the release {release} is gone", hint="`sandbox up` deploys it anew")
    revision = await place.helm.rollback(release, wanted.revision, place.namespace)
    return wanted.model_copy(update={"revision": revision})


@contextmanager
def _collecting(failures: list[str], service: str) -> Iterator[None]:
    """Go on after a failure of one service, and note it."""
    try:
        yield
    except SandboxError as error:
        failures.append(f"{service}: {error}")
