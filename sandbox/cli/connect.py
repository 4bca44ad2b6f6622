"""What every command that looks at a cluster begins with: the connection, and which sandbox is meant."""

from __future__ import annotations

from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, TypeVar

from sandbox.cli.options import Common, Selection
from sandbox.cli.reporter import command_line, say

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Sequence

    from sandbox.cluster.client import Cluster
    from sandbox.model.sandbox import Sandbox

T = TypeVar("T")


async def chosen(cluster: Cluster, common: Common, selection: Selection, name: str | None = None) -> Sandbox:
    """The sandbox that was asked for, by default the current branch's.

    Raises:
        OperationFailed: there is none.
        InvalidInput: none was named and this is no git repository.
    """
    from sandbox.provision import inspect

    given = name or selection.given
    if given is None:
        prefix = common.target().namespace_prefix
        given = await inspect.default_sandbox_name(cluster, owner=selection.owner, prefix=prefix)
    return await found(cluster, common, given)


async def found(cluster: Cluster, common: Common, name: str) -> Sandbox:
    """The sandbox of a name; of one that is gone and whose lock is kept, the error says how it comes back.

    Raises:
        OperationFailed: there is none.
    """
    from sandbox.cluster.errors import NotFound
    from sandbox.provision import inspect

    try:
        return await inspect.find_sandbox(cluster, name)
    except NotFound as error:
        from sandbox.provision.locks import was_deleted

        if await was_deleted(cluster, name, common.target().namespace_prefix):
            error.hint = f"it was deleted and its lock is kept: `sandbox up --lock {name}` brings it back"
        raise


@asynccontextmanager
async def reached(
    common: Common, selection: Selection, name: str | None = None
) -> AsyncIterator[tuple[Cluster, Sandbox]]:
    """A connection, and the sandbox or the environment of the current folder's project that was asked for in it.

    For commands that look, and for those that go back: an environment is never deleted, prolonged or put to sleep.

    Raises:
        as :func:`chosen`.
    """
    from sandbox.cluster.client import Cluster
    from sandbox.provision.environment import as_sandbox, known_environment

    given = name or selection.given
    place = await known_environment(common.target(), given) if given else None
    if place is None:
        async with Cluster.connect(common.context, common.kubeconfig) as cluster:
            yield cluster, await chosen(cluster, common, selection, name)
    else:
        async with Cluster.connect(place.target.context, place.target.kubeconfig) as cluster:
            yield cluster, await as_sandbox(cluster, place)


async def all_chosen(cluster: Cluster, common: Common, selection: Selection, names: Sequence[str]) -> list[Sandbox]:
    """The sandboxes that were named, each once; without names, the one that :func:`chosen` gives.

    Raises:
        as :func:`chosen`.
    """
    wanted: list[str | None] = [*dict.fromkeys(names)] or [None]
    return [await chosen(cluster, common, selection, name) for name in wanted]


async def change_each(
    common: Common,
    selection: Selection,
    names: Sequence[str],
    change: Callable[[Cluster, Sandbox], Awaitable[T]],
) -> list[T | Exception]:
    """Change the sandboxes that were named, side by side; one that cannot be stops none of the others.

    Returns:
        What became of each, or what stood in the way.
    """
    import asyncio

    from sandbox.cluster.client import Cluster
    from sandbox.model.errors import SandboxError

    async with Cluster.connect(common.context, common.kubeconfig) as cluster:
        sandboxes = await all_chosen(cluster, common, selection, names)

        async def one(sandbox: Sandbox) -> T | Exception:
            try:
                return await change(cluster, sandbox)
            except SandboxError as error:
                return error

        return list(await asyncio.gather(*(one(sandbox) for sandbox in sandboxes)))


def done_of(outcomes: Sequence[T | Exception]) -> list[T]:
    """What was done, of :func:`change_each`'s outcomes."""
    return [outcome for outcome in outcomes if not isinstance(outcome, Exception)]


def raise_failures(outcomes: Sequence[object]) -> None:
    """Raise what stood in the way, where something did; when what was done has been shown."""
    errors = [outcome for outcome in outcomes if isinstance(outcome, Exception)]
    if len(errors) == 1:
        raise errors[0]
    if errors:
        raise ExceptionGroup("some sandboxes stay as they are", errors)


def same_as(common: Common, cluster: Cluster, *arguments: str, namespace: str = "") -> None:
    """With ``-v``, say the kubectl command that does the same."""
    if common.verbose:
        kubeconfig = ("--kubeconfig", str(common.kubeconfig)) if common.kubeconfig else ()
        where = ("-n", namespace) if namespace else ()
        say(command_line(["kubectl", *kubeconfig, "--context", cluster.context, *where, *arguments]), colour="grey")
