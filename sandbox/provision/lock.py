"""``sandbox lock``: a project's services, resolved to commits and digests."""

from __future__ import annotations

from sandbox.cluster.client import Cluster
from sandbox.model.errors import InvalidInput
from sandbox.model.record import Lock
from sandbox.provision.planning import Planner
from sandbox.provision.reporter import Reporter
from sandbox.provision.request import UpRequest
from sandbox.provision.target import Target
from sandbox.provision.up import make_plan, validate
from sandbox.provision.workspace import workspace


async def make_lock(target: Target, request: UpRequest, reporter: Reporter) -> Lock:
    """Resolve what `up` with the same request would deploy. Images that do not exist yet are built.

    Raises:
        InvalidInput: the tree is dirty: a lock names commits.
        as :func:`sandbox.provision.up.up`.
    """
    if request.dirty:
        raise InvalidInput("a lock names commits, not a dirty tree", hint="commit first, or leave out --dirty")
    validate(request)
    with workspace() as folder:
        async with Cluster.connect(target.context, target.kubeconfig) as cluster:
            plan = await make_plan(Planner(cluster, target, folder, reporter), request, deploys=False)
    return plan.lock
