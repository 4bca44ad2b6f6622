"""Which store of captures a command works on."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from sandbox.cli.options import Common

if TYPE_CHECKING:
    from sandbox.cluster.client import Cluster
    from sandbox.store.store import Store

StoreOption = Annotated[
    str | None,
    typer.Option(
        "--store",
        metavar="URL",
        envvar="SANDBOX_CAPTURE_STORE",
        show_envvar=False,
        help="Folder or URL (s3://bucket/path) of the captures; default: the cluster's platform configuration, "
        "then the user settings, then a folder of yours.",
    ),
]


async def chosen_store(common: Common, given: str | None, cluster: Cluster | None = None) -> Store:
    """The store that was asked for; else the one that the platform team decided on, so that what one machine captures
    another one finds; else the user's.

    Args:
        cluster: an open connection; without one, one is made for the question.

    Raises:
        InvalidInput: it is no store.
    """
    from sandbox.project.settings import load_settings
    from sandbox.store.store import Store

    decided = given or await _of_platform(common, cluster) or load_settings().capture_store
    return Store.open(decided)


async def _of_platform(common: Common, cluster: Cluster | None) -> str | None:
    from sandbox.cli.reporter import say
    from sandbox.cluster.client import Cluster
    from sandbox.cluster.platform import read_platform
    from sandbox.model.errors import InvalidInput, SandboxError, Unreachable
    from sandbox.project.platform import parse_platform

    try:
        if cluster is not None:
            return parse_platform(await read_platform(cluster)).capture_store
        async with Cluster.connect(common.context, common.kubeconfig) as made:
            return parse_platform(await read_platform(made)).capture_store
    except (Unreachable, InvalidInput) as error:
        # Captures are looked at without the cluster, too; a named context that is wrong is an error.
        if isinstance(error, InvalidInput) and common.context:
            raise
        say(
            f"warning: the cluster does not say where captures are kept ({error}); using your own store",
            colour="yellow",
        )
        return None
    except SandboxError:
        return None
