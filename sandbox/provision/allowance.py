"""How many sandboxes an owner or a project may have at once, of a profile and altogether.

The API server's admission policies cannot count (CEL sees one object), so this holds for whoever uses the client;
the clean-up flags what is over. Two `up`s at the same moment may both find room.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from sandbox.cluster.client import Cluster
from sandbox.cluster.errors import Forbidden
from sandbox.model import names
from sandbox.model.durations import relative
from sandbox.model.errors import Refused
from sandbox.model.sandbox import Phase, Sandbox
from sandbox.project.platform import Limits
from sandbox.project.quotas import QuotaProfile
from sandbox.provision import namespace as ns
from sandbox.provision.identity import Identity
from sandbox.provision.inspect import list_sandboxes
from sandbox.provision.reporter import Reporter


@dataclass(frozen=True)
class _Limit:
    """At most so many sandboxes of those that ``of`` takes."""

    most: int | None
    who: str
    what: str
    of: Callable[[Sandbox], bool]
    hint: str = ""


async def check(
    cluster: Cluster, profile: QuotaProfile, limits: Limits, identity: Identity, reporter: Reporter
) -> None:
    """Refuse one sandbox too many, before anything is built.

    A sandbox that is there already, with this profile, is not one more.

    Args:
        limits: of the platform configuration, whatever the profile.

    Raises:
        Refused: naming the sandboxes that there are, and how to end one.
    """
    held = [limit for limit in _limits(profile, limits, identity) if limit.most is not None]
    if not held:
        return
    namespace = await ns.find(cluster, identity.namespace)
    present = Sandbox.of(namespace, cluster.context) if namespace is not None else None
    if present is not None and present.quota_profile == profile.name:
        return
    try:
        others = [s for s in await list_sandboxes(cluster) if _counts(s, identity)]
    except Forbidden:
        reporter.warn("the sandboxes that there are cannot be counted: you may not list namespaces")
        return
    for limit in held:
        found = [sandbox for sandbox in others if limit.of(sandbox)]
        if limit.most is not None and len(found) >= limit.most:
            await _refuse(cluster, limit, found)


def _limits(profile: QuotaProfile, limits: Limits, identity: Identity) -> list[_Limit]:
    def is_mine(sandbox: Sandbox) -> bool:
        return sandbox.owner == identity.owner

    def is_of_project(sandbox: Sandbox) -> bool:
        return sandbox.project == names.slug(identity.project)

    def has_profile(sandbox: Sandbox) -> bool:
        return sandbox.quota_profile == profile.name

    project, what = f"the project {identity.project}", f" of the quota profile {profile.name}"
    other = ", or choose another profile with --quota"
    return [
        _Limit(profile.max_per_owner, identity.owner, what, lambda s: has_profile(s) and is_mine(s), other),
        _Limit(profile.max_per_project, project, what, lambda s: has_profile(s) and is_of_project(s), other),
        _Limit(limits.sandboxes_per_owner, identity.owner, "", is_mine),
        _Limit(limits.sandboxes_per_project, project, "", is_of_project),
    ]


def _counts(sandbox: Sandbox, identity: Identity) -> bool:
    return sandbox.namespace != identity.namespace and sandbox.phase is not Phase.TERMINATING


async def _refuse(cluster: Cluster, limit: _Limit, found: Sequence[Sandbox]) -> None:
    now = await cluster.server_time()
    # Those that end first are the most likely ones to do without.
    found = sorted(found, key=lambda s: (s.expires_at is None, s.expires_at, s.name))
    lines = [
        f"{s.name} of {s.owner}, project {s.project}"
        + (f", expires {relative(s.expires_at, now)}" if s.expires_at else "")
        for s in found
    ]
    raise Refused(
        f"{limit.who} may have {limit.most} {'sandbox' if limit.most == 1 else 'sandboxes'}{limit.what} at once",
        why="\n".join(lines),
        hint=f"end one with `sandbox down {found[0].name}`{limit.hint}",
    )
