"""What is going to be deployed: everything resolved and rendered, nothing written yet."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

from sandbox.model.errors import InvalidInput
from sandbox.model.images import ResolvedImage
from sandbox.model.objects import Manifest, ObjectRef
from sandbox.model.record import HttpSmokeRecord, InventoryItem, Lock, Record, ServiceLock, ServiceRecord
from sandbox.model.source import Commit
from sandbox.project.config import Service
from sandbox.project.quotas import QuotaProfile
from sandbox.provision.identity import Identity


@dataclass(frozen=True)
class ServicePlan:
    """One service, ready to be deployed.

    Attributes:
        spec: how the project declares it; None for one that comes from a base.
        manifests: as rendered, placed in the namespace; without hooks.
        chart_path: folder of the chart, for a service that is installed by Helm.
        values: all values of the chart, merged.
        overrides: those that the command line gave.
        needs: services that must be ready before it.
    """

    name: str
    lock: ServiceLock
    manifests: list[Manifest]
    spec: Service | None = None
    hooks: list[Manifest] = field(default_factory=list)
    chart_path: Path | None = None
    values: dict[str, Any] = field(default_factory=dict)
    overrides: dict[str, Any] = field(default_factory=dict)
    images: tuple[ResolvedImage, ...] = ()
    needs: tuple[str, ...] = ()
    ports: Mapping[str, int] = field(default_factory=dict)

    @property
    def release(self) -> str | None:
        return self.lock.chart.release if self.lock.chart else None

    def is_same_as(self, before: ServiceRecord | None) -> bool:
        """Whether that record deployed exactly this, and came to its end."""
        return before is not None and not before.unfinished and before.lock.input_digest == self.lock.input_digest

    def record(self, manifests: list[Manifest] | None = None, revision: int | None = None) -> ServiceRecord:
        """The service's part of the record; ``manifests`` as the cluster stored them, where it did."""
        stored = self.manifests if manifests is None else manifests
        return ServiceRecord(
            lock=self.lock,
            manifests=stored,
            hooks=self.hooks,
            values=self.values,
            overrides=self.overrides,
            smoke=self._smoke(),
            inventory=[InventoryItem.of(ObjectRef.of(manifest)) for manifest in stored],
            needs=self.needs,
            ports=dict(self.ports),
            revision=revision,
        )

    def _smoke(self) -> HttpSmokeRecord | None:
        http = self.spec.smoke.http if self.spec and self.spec.smoke else None
        return http.recorded(self.spec.ports) if http and self.spec else None


@dataclass(frozen=True)
class Plan:
    """A whole deployment.

    Attributes:
        services: by name.
        kept: services of the sandbox that this deployment does not touch (``--only``).
        before: the sandbox's records, oldest first; empty for a new one.
        cluster_scoped: kinds of cluster-scoped objects that user and project let in, if the profile does.
        pull_secrets: names of the Secrets that are copied into the sandbox.
        shared: it goes into an environment, which is there for others too: no quota profile binds it.
    """

    identity: Identity
    commit: Commit | None
    env: str
    profile: QuotaProfile
    ttl: timedelta
    lock: Lock
    services: Mapping[str, ServicePlan]
    kept: Mapping[str, ServiceRecord]
    before: Sequence[Record]
    cluster_scoped: tuple[str, ...] = ()
    pull_secrets: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    shared: bool = False

    @classmethod
    def of_services(
        cls,
        services: Mapping[str, ServicePlan],
        *,
        identity: Identity,
        project: str,
        env: str,
        profile: QuotaProfile,
        ttl: timedelta,
        before: Sequence[Record],
        tools: Mapping[str, str],
        at: datetime,
    ) -> Plan:
        """A deployment of services that come from elsewhere than a commit of the project.

        Args:
            tools: versions by name.
            at: the server's time.
        """
        lock = Lock(
            project=project,
            env=env,
            services={name: service.lock for name, service in services.items()},
            tools=dict(tools),
            created_at=at,
            created_by=identity.created_by,
        )
        return cls(
            identity=identity,
            commit=None,
            env=env,
            profile=profile,
            ttl=ttl,
            lock=lock.sealed(),
            services=services,
            kept={},
            before=before,
        )

    @property
    def applied(self) -> Mapping[str, ServiceRecord]:
        """What the newest record, finished or not, put into the namespace."""
        return self.before[-1].services if self.before else {}

    @property
    def removed(self) -> dict[str, ServiceRecord]:
        """Services that were deployed and are not wanted any more."""
        return {n: s for n, s in self.applied.items() if n not in self.services and n not in self.kept}

    @property
    def changed(self) -> dict[str, ServicePlan]:
        """Services whose deployment differs from the newest record, or that it did not finish."""
        if not self.before or self.before[-1].outcome != "deployed":
            return dict(self.services)
        applied = self.applied
        return {name: service for name, service in self.services.items() if not service.is_same_as(applied.get(name))}

    @property
    def stale_releases(self) -> set[str]:
        """Helm releases that any of the records names and that no service has any more."""
        now = {s.release for s in self.services.values()} | {s.release for s in self.kept.values()}
        return {s.release for record in self.before for s in record.services.values() if s.release} - now


def in_order(needs: Mapping[str, Iterable[str]]) -> list[str]:
    """Services in an order in which each comes after those it needs; names decide among equals.

    Raises:
        InvalidInput: they need one another in a circle.
    """
    done: list[str] = []
    left = {name: {need for need in wanted if need in needs} for name, wanted in needs.items()}
    while left:
        free = sorted(name for name, wanted in left.items() if not wanted - set(done))
        if not free:
            raise InvalidInput(f"services need one another in a circle: {', '.join(sorted(left))}")
        done += free
        for name in free:
            del left[name]
    return done
