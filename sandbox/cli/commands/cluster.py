"""``sandbox cluster``: where a cluster comes from, for those who have none."""

from __future__ import annotations

from enum import StrEnum
from typing import TYPE_CHECKING, Annotated

import typer

from sandbox.cli.formats import Format
from sandbox.cli.options import Common, DryRun, Output, Yes

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sandbox.cli.output import Column
    from sandbox.cluster.providers import ClusterInfo, Progress, Provider

DEFAULT_NAME = "sandbox"


class ProviderName(StrEnum):
    """Where clusters come from."""

    AUTO = "auto"
    EXISTING = "existing"
    KIND = "kind"
    EMBEDDED = "embedded"


ProviderOption = Annotated[
    ProviderName,
    typer.Option("--provider", help="auto: kind where Docker and kind are there, else embedded.", case_sensitive=False),
]
NameArgument = Annotated[str, typer.Argument(metavar="NAME", help="Name of the cluster.")]

app = typer.Typer(no_args_is_help=True, help="Make, list and delete clusters to try things on.")


@app.command()
def create(
    common: Common,
    name: NameArgument = DEFAULT_NAME,
    provider: ProviderOption = ProviderName.AUTO,
    control_plane_only: Annotated[
        bool,
        typer.Option("--control-plane-only", help="embedded: an API server without nodes; no root, and no pods."),
    ] = False,
    install_packages: Annotated[
        bool, typer.Option("--install-packages", help="embedded: install missing Debian packages with apt-get.")
    ] = False,
    output: Output = Format.TABLE,
) -> None:
    """Make a cluster, or find or mend the one of this name.

    Its context is added to the kubeconfig. `embedded` is real upstream Kubernetes on one Linux machine,
    as root and without Docker; its programs are built the first time, which takes minutes.
    """
    from sandbox.cli.output import show_data, show_list
    from sandbox.cli.reporter import reporter
    from sandbox.cli.run import run
    from sandbox.cluster.providers import choose

    chosen = choose(provider, creating=True)
    with reporter(verbose=common.verbose) as talk, talk.step(f"Cluster {name} ({chosen.name})") as step:
        info = run(
            chosen.create(
                name,
                control_plane_only=control_plane_only,
                install_packages=install_packages,
                progress=step.detail,
            )
        )
    if output in (Format.JSON, Format.YAML):
        show_data(info, output)
    else:
        show_list([info], _columns(), output, name=lambda c: c.name)


@app.command("list")
def list_(
    common: Common,
    provider: Annotated[
        ProviderName, typer.Option("--provider", help="Only those of one provider.", case_sensitive=False)
    ] = ProviderName.AUTO,
    output: Output = Format.TABLE,
) -> None:
    """List the clusters that this machine's providers know."""
    from sandbox.cli.output import show_list
    from sandbox.cli.run import run
    from sandbox.cluster.providers import all_providers, choose

    providers = all_providers() if provider is ProviderName.AUTO else [choose(provider)]
    show_list(run(_all(providers)), _columns(), output, name=lambda c: c.name)


@app.command()
def delete(
    common: Common,
    names: Annotated[list[str] | None, typer.Argument(metavar="NAME", show_default=False)] = None,
    provider: Annotated[
        ProviderName, typer.Option("--provider", help="Whose cluster it is; auto: looked up.", case_sensitive=False)
    ] = ProviderName.AUTO,
    dry_run: DryRun = False,
    yes: Yes = False,
) -> None:
    """Delete clusters with everything that belongs to them: processes, mounts, interfaces, the kubeconfig context.

    A cluster that is gone already is no error. Clusters that were not made by this tool are never deleted.
    """
    from sandbox.cli.confirm import confirm
    from sandbox.cli.reporter import reporter, say
    from sandbox.cli.run import run

    wanted = names or [DEFAULT_NAME]
    if dry_run:
        for name in wanted:
            say(f"would delete the cluster {name}")
        return
    confirm(f"Delete the cluster {', '.join(wanted)} with everything in it?", yes=yes)
    for name in wanted:
        with reporter(verbose=common.verbose) as talk, talk.step(f"Delete the cluster {name}") as step:
            deleted = run(_delete(name, provider, step.detail))
        if not deleted:
            say(f"there is no cluster {name}")


@app.command("load-image")
def load_image(
    common: Common,
    image: Annotated[
        str, typer.Argument(metavar="IMAGE", help="In docker's or buildah's storage, or a docker or OCI archive.")
    ],
    name: Annotated[str, typer.Option("--name", metavar="NAME", help="Name of the cluster.")] = DEFAULT_NAME,
    provider: Annotated[
        ProviderName, typer.Option("--provider", help="Whose cluster it is; auto: looked up.", case_sensitive=False)
    ] = ProviderName.AUTO,
) -> None:
    """Put an image of this machine into a cluster's registry and print its reference by digest."""
    from sandbox.cli.output import write
    from sandbox.cli.reporter import reporter
    from sandbox.cli.run import run

    with reporter(verbose=common.verbose) as talk, talk.step(f"Load {image}") as step:
        reference = run(_load(name, image, provider, step.detail))
    write(reference)


def _columns() -> list[Column[ClusterInfo]]:
    from sandbox.cli.output import Column

    colours = {"running": "green", "broken": "red"}
    return [
        Column("NAME", lambda c: c.name),
        Column("PROVIDER", lambda c: c.provider),
        Column("STATE", lambda c: c.state, colour=lambda c: colours.get(c.state, "")),
        Column("VERSION", lambda c: c.version or ""),
        Column("CONTEXT", lambda c: c.context),
        Column("REGISTRY", lambda c: c.registry or ""),
        Column("KUBECONFIG", lambda c: str(c.kubeconfig), wide=True),
    ]


async def _all(providers: Sequence[Provider]) -> list[ClusterInfo]:
    return [info for provider in providers for info in await provider.list()]


async def _delete(name: str, provider: ProviderName, progress: Progress) -> bool:
    owner = await _owner(name, provider)
    return False if owner is None else await owner.delete(name, progress)


async def _load(name: str, image: str, provider: ProviderName, progress: Progress) -> str:
    from sandbox.model.errors import InvalidInput

    owner = await _owner(name, provider)
    if owner is None:
        raise InvalidInput(f"there is no cluster {name}", hint="`sandbox cluster list` shows those there are")
    return await owner.load_image(name, image, progress)


async def _owner(name: str, provider: ProviderName) -> Provider | None:
    """The provider that a cluster is of; one that the tool makes goes before a context of the same name."""
    from sandbox.cluster.providers import all_providers, choose
    from sandbox.model.errors import InvalidInput

    if provider is not ProviderName.AUTO:
        return choose(provider)
    owners = [p for p in all_providers() if any(info.name == name for info in await p.list())]
    made = [p for p in owners if p.name != ProviderName.EXISTING] or owners
    if len(made) > 1:
        raise InvalidInput(
            f"several clusters are called {name}",
            why=", ".join(p.name for p in made),
            hint="say which with --provider",
        )
    return made[0] if made else None
