"""What every command that looks at a cluster begins with: the connection, and which sandbox is meant."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sandbox.cli.options import Common, Selection
from sandbox.cli.reporter import command_line, say

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sandbox.cluster.client import Cluster
    from sandbox.model.sandbox import Sandbox


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
    return await inspect.find_sandbox(cluster, given)


async def all_chosen(cluster: Cluster, common: Common, selection: Selection, names: Sequence[str]) -> list[Sandbox]:
    """The sandboxes that were named, each once; without names, the one that :func:`chosen` gives.

    Raises:
        as :func:`chosen`.
    """
    wanted: list[str | None] = [*dict.fromkeys(names)] or [None]
    return [await chosen(cluster, common, selection, name) for name in wanted]


def same_as(common: Common, cluster: Cluster, *arguments: str, namespace: str = "") -> None:
    """With ``-v``, say the kubectl command that does the same."""
    if common.verbose:
        kubeconfig = ("--kubeconfig", str(common.kubeconfig)) if common.kubeconfig else ()
        where = ("-n", namespace) if namespace else ()
        say(command_line(["kubectl", *kubeconfig, "--context", cluster.context, *where, *arguments]), colour="grey")
