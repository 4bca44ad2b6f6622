"""Which sandboxes there are, and which one is meant.

Nothing here writes, and nothing here imports what is slow to import: people and shells (completion) wait for it.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import AsyncIterator, Callable, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

from sandbox.cluster import objects
from sandbox.cluster.client import Cluster
from sandbox.cluster.errors import Forbidden, NotFound
from sandbox.cluster.platform import read_platform
from sandbox.model import labels
from sandbox.model.errors import InvalidInput, Refused
from sandbox.model.names import slug
from sandbox.model.objects import Manifest, ObjectRef
from sandbox.model.sandbox import Phase, Sandbox, is_sandbox
from sandbox.provision.identity import display_name

# RFC 1123 label: what a sandbox and a namespace can be called.
_LABEL = re.compile(r"[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?", re.ASCII)


@dataclass(frozen=True)
class Filter:
    """Which sandboxes to list; None and empty: all.

    Attributes:
        owner: a user name in full (``dana@example.com``) or as it is shown (``dana``).
        label_selector: as kubectl's ``-l``.
        expiring_within: those that expire until then, or have expired.
    """

    owner: str | None = None
    project: str | None = None
    phases: frozenset[Phase] = frozenset()
    label_selector: str = ""
    expiring_within: timedelta | None = None

    def selector(self) -> str:
        """The part that the API server can do."""
        parts = [labels.SELECTOR]
        if self.owner:
            parts.append(f"{labels.OWNER}={slug(display_name(self.owner))}")
        if self.project:
            parts.append(f"{labels.PROJECT}={slug(self.project)}")
        if self.label_selector:
            parts.append(self.label_selector)
        return ",".join(parts)

    def matches(self, sandbox: Sandbox, now: datetime) -> bool:
        """The part that labels cannot say."""
        if self.owner and self.owner not in (sandbox.owner, display_name(sandbox.owner)):
            return False
        if self.phases and sandbox.phase not in self.phases:
            return False
        if self.expiring_within is not None:
            return sandbox.expires_at is not None and sandbox.expires_at <= now + self.expiring_within
        return True


async def list_sandboxes(cluster: Cluster, wanted: Filter | None = None) -> list[Sandbox]:
    """The sandboxes that one may see, by name.

    Raises:
        Refused: no permission to list namespaces.
    """
    wanted = wanted or Filter()
    # The clock is asked only where it matters: it costs a request.
    now = await cluster.server_time() if wanted.expiring_within is not None else datetime.max
    found = [
        sandbox
        async for namespace in objects.list_(
            cluster, "v1", "Namespace", label_selector=wanted.selector(), metadata_only=True
        )
        if is_sandbox(namespace) and wanted.matches(sandbox := Sandbox.of(namespace, cluster.context), now)
    ]
    return sorted(found, key=lambda sandbox: sandbox.name)


async def watch_sandboxes(cluster: Cluster, wanted: Filter | None = None) -> AsyncIterator[tuple[str, Sandbox]]:
    """The sandboxes that there are, then every change: (ADDED, MODIFIED or DELETED, the sandbox)."""
    wanted = wanted or Filter()
    async for kind, namespace in objects.watch(
        cluster, "v1", "Namespace", label_selector=wanted.selector(), metadata_only=True
    ):
        # Who looks again after a gap is told of what went meanwhile by its name only.
        if kind != "SYNCED" and is_sandbox(namespace):
            sandbox = Sandbox.of(namespace, cluster.context)
            now = await cluster.server_time() if wanted.expiring_within is not None else datetime.max
            if wanted.matches(sandbox, now):
                yield kind, sandbox


SORT_KEYS: Mapping[str, Callable[[Sandbox], Any]] = {
    "name": lambda s: s.name,
    "namespace": lambda s: s.namespace,
    "owner": lambda s: (s.owner, s.name),
    "project": lambda s: (s.project, s.name),
    "phase": lambda s: (s.phase, s.name),
    # None sorts last: nothing is known about when it ends.
    "expires": lambda s: (s.expires_at is None, s.expires_at and s.expires_at.timestamp(), s.name),
    "age": lambda s: (s.created_at is None, s.created_at and -s.created_at.timestamp(), s.name),
}


def sort_sandboxes(found: Iterable[Sandbox], by: str) -> list[Sandbox]:
    """Sort by one of :data:`SORT_KEYS`; youngest first for ``age``.

    Raises:
        InvalidInput: no such key.
    """
    if by not in SORT_KEYS:
        raise InvalidInput(f"cannot sort by {by!r}", hint=f"sort by one of {', '.join(SORT_KEYS)}")
    return sorted(found, key=SORT_KEYS[by])


async def default_sandbox_name(
    cluster: Cluster, folder: Path | None = None, *, owner: str | None = None, prefix: str = ""
) -> str:
    """The name of the sandbox of the branch that is checked out in ``folder`` (default: the current one).

    Args:
        prefix: what its namespace begins with, where the cluster's platform configuration does not say it.

    Raises:
        InvalidInput: not in a git repository, or its ``sandbox.yaml`` is wrong.
        Unreachable: the cluster does not say who we are.
    """
    # git and pydantic are slow to import, and not needed when a name is given.
    from sandbox.project.load import load_project
    from sandbox.project.platform import parse_platform
    from sandbox.project.settings import load_settings
    from sandbox.provision.identity import identify
    from sandbox.provision.sources import repository_name
    from sandbox.source import git
    from sandbox.source.command import in_thread

    def local() -> tuple[str, str]:
        try:
            root = git.repository_root(folder or Path.cwd())
        except InvalidInput as error:
            hint = "run it in a clone of the project, or name the sandbox: -s NAME (`sandbox list` shows them)"
            raise InvalidInput(error.what, why=error.why, hint=hint) from None
        commit = git.resolve(root, "HEAD")
        loaded = load_project(root, name_hint=repository_name(commit.repo), allow_unknown_needs=True)
        return loaded.project.project, git.current_branch(root) or commit.short

    project, branch = await in_thread(local)
    owner = owner or load_settings().owner
    prefix = parse_platform(await read_platform(cluster)).namespace_prefix or prefix
    return (await identify(cluster, project=project, branch=branch, prefix=prefix, owner=owner)).name


async def find_sandbox(cluster: Cluster, name: str) -> Sandbox:
    """The sandbox of a name, or whose namespace has that name.

    Raises:
        NotFound: there is none; names near ones.
        Refused: that namespace is not a sandbox, or no permission to look.
    """
    by_label: list[Manifest] = []
    if _LABEL.fullmatch(name):
        selector = f"{labels.SELECTOR},{labels.NAME}={name}"
        try:
            by_label = [ns async for ns in objects.list_(cluster, "v1", "Namespace", label_selector=selector)]
        except Forbidden:
            # Who may not list all namespaces may still get their own by its name.
            by_label = []
    found = [ns for ns in by_label if is_sandbox(ns)]
    if len(found) > 1:
        raise InvalidInput(
            f"there are {len(found)} sandboxes called {name}",
            why="their namespaces: " + ", ".join(sorted(ns["metadata"]["name"] for ns in found)),
            hint="name one by its namespace with -n",
        )
    sandbox = Sandbox.of(found[0] if found else await _by_namespace(cluster, name), cluster.context)
    cluster.owners[sandbox.namespace] = sandbox.owner
    return sandbox


async def _by_namespace(cluster: Cluster, name: str) -> Manifest:
    namespace = None
    # No namespace can be called otherwise.
    if _LABEL.fullmatch(name):
        namespace = await get_or_list(cluster, name)
    if namespace is None:
        raise NotFound(f"there is no sandbox {name} in {cluster.context}", hint=await _near(cluster, name), status=404)
    if not is_sandbox(namespace):
        raise Refused(
            f"the namespace {name} is not a sandbox",
            why=f"it does not carry the label {labels.SELECTOR} and its own name in {labels.NAMESPACE}",
            hint="`sandbox list` shows the sandboxes that there are",
        )
    return namespace


async def get_or_list(cluster: Cluster, name: str) -> Manifest | None:
    """A namespace; of those that one may not get, the list tells whether they are there and whose they are.

    Raises:
        Forbidden: we may neither get it nor list.
    """
    try:
        return await objects.get(cluster, ObjectRef("", "v1", "Namespace", name))
    except Forbidden as refused:
        with suppress(Forbidden):
            async for found in objects.list_(cluster, "v1", "Namespace", field_selector=f"metadata.name={name}"):
                return found
            return None
        raise refused


async def _near(cluster: Cluster, name: str) -> str:
    try:
        known = [sandbox.name for sandbox in await list_sandboxes(cluster)]
    except Refused:
        known = []
    near = difflib.get_close_matches(name, known, cutoff=0.5)
    if near:
        return f"did you mean {' or '.join(near)}?"
    return "`sandbox list` shows the sandboxes that there are, `sandbox up` makes one"
