"""``sandbox promote``: what passed in one environment goes to the next, and nothing is built on the way."""

from __future__ import annotations

from pathlib import Path

from sandbox.cluster.client import Cluster
from sandbox.model.errors import OperationFailed
from sandbox.model.record import Lock, Record
from sandbox.provision import records
from sandbox.provision.environment import EnvironmentPlace
from sandbox.provision.locks import write_lock
from sandbox.provision.reporter import Reporter
from sandbox.source.urls import same_repository


async def passed_lock(source: EnvironmentPlace, repository: str, reporter: Reporter) -> Lock:
    """The lock of what a repository has in an environment, as it last came through there.

    Args:
        repository: its address; a repository without services of its own there promotes all of them.

    Raises:
        OperationFailed: nothing came through there.
        Refused: its records cannot be read.
    """
    async with Cluster.connect(source.target.context, source.target.kubeconfig) as cluster:
        known = await records.load_records(cluster, source.namespace)
    good = records.last_deployed(known)
    if good is None:
        raise OperationFailed(
            f"nothing has come through in {source.name} yet", hint=f"`sandbox deploy {source.name}` first"
        )
    if known[-1].number != good.number:
        reporter.warn(
            f"the newest deployment into {source.name}, record {known[-1].number}, failed ({known[-1].failure}): "
            f"record {good.number} is promoted"
        )
    lock = lock_of(good, repository)
    for name in lock.services:
        if given := good.services[name].lock.given:
            reporter.warn(
                f"{name} passed in {source.name} with {', '.join(given)} of the command line, which do not go with it"
            )
    return lock


def lock_of(record: Record, repository: str) -> Lock:
    """The services of a repository in a record, as a lock; all of them where none is its own.

    What was adopted there comes from no commit, and stays behind; so do values of the command line, which were meant
    for that environment.
    """
    locks = {name: service.lock for name, service in record.services.items() if service.lock.declared_commit}
    known = {name: lock.model_copy(update={"given": ()}) for name, lock in locks.items()}
    own = {name: lock for name, lock in known.items() if same_repository(lock.repo, repository)}
    return record.lock.model_copy(update={"services": own or known}).sealed()


def write(lock: Lock, folder: Path) -> Path:
    """The lock as a file, for a deployment to read."""
    path = folder / "promoted.lock.json"
    path.write_text(write_lock(lock), encoding="utf-8")
    return path
