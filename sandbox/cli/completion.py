"""What the shell may complete from the cluster. Always quick, never an error: a shell waits for it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

import typer

_BOUND_SECONDS = 2.0


def complete_sandboxes(ctx: typer.Context, incomplete: str) -> list[str]:
    """Names of sandboxes."""
    from sandbox.provision.inspect import list_sandboxes

    async def names(cluster: Any) -> list[str]:
        return [sandbox.name for sandbox in await list_sandboxes(cluster)]

    return _matching(ctx, incomplete, names)


def complete_owners(ctx: typer.Context, incomplete: str) -> list[str]:
    """Owners of sandboxes."""
    from sandbox.provision.identity import display_name
    from sandbox.provision.inspect import list_sandboxes

    async def owners(cluster: Any) -> list[str]:
        return sorted({display_name(sandbox.owner) for sandbox in await list_sandboxes(cluster)})

    return _matching(ctx, incomplete, owners)


def complete_services(ctx: typer.Context, incomplete: str) -> list[str]:
    """Services of the sandbox that the command is about."""
    from sandbox.provision import contents, inspect

    given = ctx.params.get("sandbox") or ctx.params.get("namespace")

    async def services(cluster: Any) -> list[str]:
        sandbox = await inspect.find_sandbox(cluster, given or await inspect.default_sandbox_name(cluster))
        return await contents.service_names(cluster, sandbox)

    return _matching(ctx, incomplete, services)


def complete_contexts(ctx: typer.Context, incomplete: str) -> list[str]:
    """Contexts of the kubeconfig."""
    from sandbox.cluster.client import contexts

    try:
        return [name for name in contexts(ctx.params.get("kubeconfig")) if name.startswith(incomplete)]
    except Exception:
        return []


def _matching(ctx: typer.Context, incomplete: str, find: Callable[[Any], Awaitable[list[str]]]) -> list[str]:
    import asyncio

    from sandbox.cluster.client import Cluster

    async def bounded() -> list[str]:
        async with asyncio.timeout(_BOUND_SECONDS):
            async with Cluster.connect(ctx.params.get("context"), ctx.params.get("kubeconfig")) as cluster:
                return await find(cluster)

    try:
        return [name for name in asyncio.run(bounded()) if name.startswith(incomplete)]
    except Exception:
        # A traceback, or any line at all, would land in the middle of what the user types.
        return []
