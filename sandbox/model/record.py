"""Lock and record: what was, or will be, deployed, precisely enough to do it again.

A lock holds no secret. A record holds the rendered manifests too (Secrets included) and therefore
lives only in the Secret ``sandbox-record`` of its namespace. Both are read back as untrusted input.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from sandbox.model.errors import InvalidInput
from sandbox.model.objects import Manifest, ObjectRef, digest

API_VERSION: Literal["sandbox.dev/v1"] = "sandbox.dev/v1"
# Where, in a capture store, the locks of deleted sandboxes are.
LOCKS_FOLDER = "locks/"
DeploymentKind = Literal["chart", "kustomize", "manifests"]


class _Data(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class ImageLock(_Data):
    """An image by digest; ``name`` is what the project's files call it."""

    name: str
    repository: str
    tag: str = ""
    digest: str


class ChartLock(_Data):
    """A Helm chart and the release it is installed as; ``digest`` is over the chart's files."""

    release: str
    name: str
    version: str
    app_version: str = ""
    digest: str


class ServiceLock(_Data):
    """One service, resolved: where it comes from and what it is deployed with.

    Attributes:
        repo, ref, commit: where its files are.
        declared_repo, declared_commit: where the sandbox.yaml (or layout) is that declares it; empty for what
            was found running without a record.
    """

    kind: DeploymentKind
    repo: str
    ref: str
    commit: str
    pushed: bool | None = None
    dirty: bool = False
    declared_repo: str = ""
    declared_commit: str = ""
    path: str = ""
    chart: ChartLock | None = None
    images: tuple[ImageLock, ...] = ()
    # Values files' names, in order.
    values_files: tuple[str, ...] = ()
    # What the command line gave on top, which is in no commit: `-f FILE`, `--set KEY`; values may be secret.
    given: tuple[str, ...] = ()
    # Over everything that decides what is deployed: chart or manifests, values, images. Equal: nothing to do.
    input_digest: str
    # Over the rendered manifests, Secret data included.
    manifest_digest: str


class Lock(_Data):
    """A version manifest, resolved. ``digest`` covers all the rest: an edited lock is noticed."""

    apiVersion: Literal["sandbox.dev/v1"] = API_VERSION
    kind: Literal["Lock"] = "Lock"
    project: str
    env: str
    services: dict[str, ServiceLock]
    tools: dict[str, str] = Field(default_factory=dict)
    created_at: datetime
    created_by: str = ""
    digest: str = ""

    def sealed(self) -> Lock:
        """The same lock with its digest filled in."""
        return self.model_copy(update={"digest": self._own_digest()})

    def verify(self) -> None:
        """Check that nobody edited it.

        Raises:
            InvalidInput: the digest does not match.
        """
        if self.digest != self._own_digest():
            raise InvalidInput(
                "the lock's contents do not match its digest",
                why=f"it says {self.digest or 'no digest'}, its contents give {self._own_digest()}",
                hint="a lock is not edited by hand: make a new one with `sandbox lock`",
            )

    def _own_digest(self) -> str:
        covered = self.model_dump(mode="json", exclude={"digest"})
        for service in covered["services"].values():
            if not service["given"]:
                # Locks that were made before there was this field keep their digests.
                del service["given"]
        return digest(covered)


class InventoryItem(_Data):
    """An object that the record owns."""

    group: str
    version: str
    kind: str
    name: str
    namespace: str = ""

    @classmethod
    def of(cls, ref: ObjectRef) -> InventoryItem:
        return cls(group=ref.group, version=ref.version, kind=ref.kind, name=ref.name, namespace=ref.namespace)

    @property
    def ref(self) -> ObjectRef:
        return ObjectRef(self.group, self.version, self.kind, self.name, self.namespace)


class HttpSmokeRecord(_Data):
    """The HTTP request that showed whether the service worked; the port by name or number."""

    path: str = Field(pattern="^/")
    port: str
    status: int = Field(ge=100, le=599)
    contains: str = ""


class ServiceRecord(_Data):
    """What one service put into the namespace.

    Attributes:
        manifests: as they were applied, hooks excluded; of a chart, as Helm rendered them.
        hooks: Helm hooks of a chart.
        values: the merged values of a chart.
        overrides: those of them that the command line gave (``-f``, ``--set``), before variables were filled in.
        smoke: its smoke test, where that is an HTTP request.
        revision: of the Helm release, where there is one.
        unfinished: a deployment of it began, and none has come to its end since; neighbours' deployments may have.
    """

    lock: ServiceLock
    manifests: list[Manifest]
    hooks: list[Manifest] = Field(default_factory=list)
    values: dict[str, Any] = Field(default_factory=dict)
    overrides: dict[str, Any] = Field(default_factory=dict)
    smoke: HttpSmokeRecord | None = None
    inventory: list[InventoryItem]
    needs: tuple[str, ...] = ()
    ports: dict[str, int] = Field(default_factory=dict)
    revision: int | None = None
    unfinished: bool = False

    @property
    def release(self) -> str | None:
        """The Helm release it is, where it is a chart."""
        return self.lock.chart.release if self.lock.chart else None

    def with_inventory_of(self, before: ServiceRecord | None) -> ServiceRecord:
        """The same, owning what an earlier deployment of it put there too: until that is pruned, it is still there."""
        if before is None:
            return self
        known = {item.ref.identity for item in self.inventory}
        more = [item for item in before.inventory if item.ref.identity not in known]
        return self.model_copy(update={"inventory": [*self.inventory, *more]})


class Record(_Data):
    """One deployment into one namespace. ``number`` counts up from 1.

    Attributes:
        namespace_uid: of the namespace; a copied record does not match its namespace.
        outcome: deployed, or failed (then ``failure`` says why, one line).
        patch: ``git diff --binary`` of a dirty tree.
    """

    apiVersion: Literal["sandbox.dev/v1"] = API_VERSION
    kind: Literal["Record"] = "Record"
    number: int
    at: datetime
    by: str
    namespace_uid: str
    outcome: Literal["deployed", "failed"]
    failure: str = ""
    lock: Lock
    services: dict[str, ServiceRecord]
    patch: str = ""

    def with_services(self, services: Mapping[str, ServiceRecord]) -> Record:
        """The same deployment with other services, in its lock too."""
        locks = {name: service.lock for name, service in services.items()}
        lock = self.lock.model_copy(update={"services": locks}).sealed()
        return self.model_copy(update={"services": dict(services), "lock": lock})
