"""Where a service's other commit is looked for."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import pytest

from sandbox.model.errors import InvalidInput
from sandbox.model.record import Lock, Record, ServiceLock, ServiceRecord
from sandbox.model.source import Commit
from sandbox.project.config import Project
from sandbox.project.load import LoadedProject
from sandbox.provision.sources import Declared, Source
from sandbox.reproduce.replacement import _Origin, _origin, _with_refs

NOW = datetime(2026, 5, 1, tzinfo=UTC)
HERE = "https://example.com/acme/shop.git"
ORDERS = "https://example.com/acme/orders.git"


def here(project: str = "shop", repo: str = HERE) -> Declared:
    manifests = {"manifests": {"paths": ("k8s",)}}
    services = {"web": manifests, "orders": {**manifests, "source": {"repo": "../orders.git"}}}
    loaded = Project.model_validate({"apiVersion": "sandbox.dev/v1", "project": project, "services": services})
    commit = Commit(repo, "main", "main", "a" * 40, "Dana <dana@example.com>", "Begin", NOW)
    return Declared(Source(commit, repo, Path("/nowhere")), LoadedProject(loaded, "file", None))


def record(name: str, repo: str, declared: str = "", project: str = "shop") -> Record:
    lock = ServiceLock(
        kind="manifests", repo=repo, ref="main", commit="b" * 40, declared_repo=declared,
        declared_commit="c" * 40 if declared else "", input_digest="i", manifest_digest="m",
    )  # fmt: skip
    whole = Lock(project=project, env="qa", services={name: lock}, created_at=NOW)
    services = {name: ServiceRecord(lock=lock, manifests=[], inventory=[])}
    return Record(number=1, at=NOW, by="ci", namespace_uid="u", outcome="failed", lock=whole, services=services)


@pytest.mark.parametrize(
    ("name", "around", "known", "origin"),
    [
        # The working tree, where it is the repository, by whatever address.
        ("web", here(), record("web", "git@example.com:acme/shop"), _Origin(None, "fix")),
        ("web", here(), None, _Origin(None, "fix")),
        # A checkout of CI without a remote is the same project.
        ("web", here(repo="/work/shop"), record("web", "/builds/17"), _Origin(None, "fix")),
        # A service whose files are elsewhere: the ref is of that repository.
        ("orders", here(), record("orders", ORDERS, HERE), _Origin(None, "HEAD", "fix")),
        # Another project's service of the same name is not meant.
        ("web", here("blog"), record("web", ORDERS), _Origin(ORDERS, "fix")),
        # Nothing here: as it was recorded.
        ("orders", None, record("orders", ORDERS), _Origin(ORDERS, "fix")),
        ("orders", None, record("orders", ORDERS, HERE), _Origin(HERE, "c" * 40, "fix")),
    ],
)
def test_where_a_commit_is_looked_for(
    name: str, around: Declared | None, known: Record | None, origin: _Origin
) -> None:
    assert _origin(name, "fix", around, known) == origin


def test_nobody_knows_where_a_service_comes_from() -> None:
    with pytest.raises(InvalidInput, match="nobody knows which repository api comes from") as refused:
        _origin("api", "fix", here(), None)
    assert "working tree" in refused.value.hint


def test_the_ref_is_that_of_the_services_own_repository() -> None:
    changed = _with_refs(here(), {"orders": "fix"}).project.services
    assert changed["orders"].source is not None
    assert changed["orders"].source.ref == "fix"
    assert changed["web"].source is None
