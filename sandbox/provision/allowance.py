"""How many sandboxes of a profile an owner or a project may have at once.

The API server's admission policies cannot count (CEL sees one object), so this holds for whoever uses the client;
the clean-up flags what is over. Two `up`s at the same moment may both find room.
"""

from __future__ import annotations

from collections.abc import Sequence

from sandbox.cluster.client import Cluster
from sandbox.cluster.errors import Forbidden
from sandbox.model import names
from sandbox.model.durations import relative
from sandbox.model.errors import Refused
from sandbox.model.sandbox import Phase, Sandbox
from sandbox.project.quotas import QuotaProfile
from sandbox.provision import namespace as ns
from sandbox.provision.identity import Identity
from sandbox.provision.inspect import list_sandboxes
from sandbox.provision.reporter import Reporter


async def check(cluster: Cluster, profile: QuotaProfile, identity: Identity, reporter: Reporter) -> None:
    """Refuse one sandbox too many, before anything is built.

    A sandbox that is there already, with this profile, is not one more.

    Raises:
        Refused: naming the sandboxes that there are, and how to end one.
    """
    if profile.max_per_owner is None and profile.max_per_project is None:
        return
    namespace = await ns.find(cluster, identity.namespace)
    if namespace is not None and Sandbox.of(namespace, cluster.context).quota_profile == profile.name:
        return
    try:
        others = [s for s in await list_sandboxes(cluster) if _counts(s, profile, identity)]
    except Forbidden:
        reporter.warn(f"the sandboxes of the profile {profile.name} cannot be counted: you may not list namespaces")
        return
    mine = [s for s in others if s.owner == identity.owner]
    project = [s for s in others if s.project == names.slug(identity.project)]
    for who, found, most in (
        (identity.owner, mine, profile.max_per_owner),
        (f"the project {identity.project}", project, profile.max_per_project),
    ):
        if most is not None and len(found) >= most:
            await _refuse(cluster, profile, who, found, most)


def _counts(sandbox: Sandbox, profile: QuotaProfile, identity: Identity) -> bool:
    is_other = sandbox.namespace != identity.namespace
    return is_other and sandbox.quota_profile == profile.name and sandbox.phase is not Phase.TERMINATING


async def _refuse(cluster: Cluster, profile: QuotaProfile, who: str, found: Sequence[Sandbox], most: int) -> None:
    now = await cluster.server_time()
    # Those that end first are the most likely ones to do without.
    found = sorted(found, key=lambda s: (s.expires_at is None, s.expires_at, s.name))
    lines = [
        f"{s.name} of {s.owner}, project {s.project}"
        + (f", expires {relative(s.expires_at, now)}" if s.expires_at else "")
        for s in found
    ]
    raise Refused(
        f"{who} may have {most} {'sandbox' if most == 1 else 'sandboxes'} of the quota profile {profile.name} at once",
        why="\n".join(lines),
        hint=f"end one with `sandbox down {found[0].name}`, or choose another profile with --quota",
    )
