"""Options that several commands share, each written down once.

A command takes a group of them as one parameter (``common: Common``); :func:`expand` turns the
group's fields into options of the command.
"""

from __future__ import annotations

import dataclasses
import functools
import inspect
import typing
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from sandbox.cli.completion import complete_contexts, complete_owners, complete_sandboxes
from sandbox.cli.formats import Format

if TYPE_CHECKING:
    from sandbox.provision.target import Target

Output = Annotated[Format, typer.Option("-o", "--output", help="How the data is written.", case_sensitive=False)]
Watch = Annotated[bool, typer.Option("-w", "--watch", help="Keep watching and show changes.")]
Yes = Annotated[bool, typer.Option("-y", "--yes", help="Do not ask.")]
Names = Annotated[
    list[str] | None,
    typer.Argument(
        metavar="NAME",
        autocompletion=complete_sandboxes,
        show_default=False,
        help="Default: the current branch's sandbox.",
    ),
]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Say what would happen; change nothing.")]
ValuesFiles = Annotated[
    list[Path] | None,
    typer.Option("-f", "--values", metavar="FILE", help="More values for the charts.", exists=True, dir_okay=False),
]
SetValues = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="KEY=VALUE", help="One chart value; SERVICE.KEY=VALUE for one service."),
]
BuildArgs = Annotated[
    list[str] | None,
    typer.Option(
        "--build-arg",
        metavar="NAME=VALUE",
        help="Build argument of the images; also SANDBOX_BUILD_ARG_NAME in the environment.",
    ),
]
Builder = Annotated[
    str | None,
    typer.Option("--builder", metavar="NAME", help="docker, buildah, podman, none or auto; default: from settings."),
]
Registry = Annotated[
    str | None,
    typer.Option("--registry", metavar="HOST/PATH", help="Where built images go; default: from settings."),
]
ForOwner = Annotated[str | None, typer.Option("--owner", metavar="NAME", help="For whom (used by CI); default: you.")]
ServiceTimeout = Annotated[
    str, typer.Option("--timeout", metavar="DURATION", help="How long one service may take to become ready.")
]

Identity = Annotated[
    Path | None,
    typer.Option(
        "--identity",
        metavar="FILE",
        help="age or SSH private key that reads what the capture has encrypted: contents, and values of Secrets.",
        exists=True,
        dir_okay=False,
    ),
]
AllowTags = Annotated[
    bool,
    typer.Option("--allow-tags", help="Take an image by its tag where its digest is gone; the result says so."),
]
Quota = Annotated[
    str | None,
    typer.Option("--quota", metavar="PROFILE", help="Quota profile; default: from sandbox.yaml, else small."),
]
TimeToLive = Annotated[
    str | None,
    typer.Option("--ttl", metavar="DURATION", help="Time to live: 30m, 8h, 2d; default: from sandbox.yaml, else 8h."),
]
AllowWrite = Annotated[
    bool,
    typer.Option(
        "--allow-write",
        help="Read the volume of a database that is down, with a Job in the namespace that is removed afterwards.",
    ),
]


@dataclass(frozen=True)
class Common:
    """Options of every command; they may stand before the command too (``sandbox --context X list``)."""

    context: Annotated[
        str | None,
        typer.Option(
            "--context",
            metavar="NAME",
            envvar="SANDBOX_CONTEXT",
            show_envvar=False,
            autocompletion=complete_contexts,
            help="kubeconfig context; default: the current one.",
        ),
    ] = None
    kubeconfig: Annotated[
        Path | None,
        typer.Option("--kubeconfig", metavar="FILE", help="kubeconfig file; default: KUBECONFIG, then ~/.kube/config."),
    ] = None
    namespace_prefix: Annotated[
        str | None,
        typer.Option(
            "--namespace-prefix",
            metavar="PREFIX",
            envvar="SANDBOX_NAMESPACE_PREFIX",
            show_envvar=False,
            help="What sandboxes' namespaces start with; default: the platform's, else from the user settings.",
        ),
    ] = None
    verbose: Annotated[
        bool, typer.Option("-v", "--verbose", help="Show the git, helm and kubectl commands that do the same.")
    ] = False
    debug: Annotated[bool, typer.Option("--debug", help="Show a traceback when something fails.")] = False

    def target(self) -> Target:
        """Where to work: these options, completed by the user's settings."""
        from sandbox.project.settings import load_settings
        from sandbox.provision.target import Target

        prefix = self.namespace_prefix if self.namespace_prefix is not None else load_settings().namespace_prefix
        return Target(context=self.context, kubeconfig=self.kubeconfig, namespace_prefix=prefix or "")

    def over(self, outer: Common) -> Common:
        """These options where they are given, else those that stood before the command."""
        given = {name: value for name, value in vars(self).items() if value not in (None, False)}
        return dataclasses.replace(outer, **given)


@dataclass(frozen=True)
class Selection:
    """Which sandbox; by default the current branch's."""

    sandbox: Annotated[
        str | None,
        typer.Option(
            "-s",
            "--sandbox",
            metavar="NAME",
            envvar="SANDBOX_NAME",
            show_envvar=False,
            autocompletion=complete_sandboxes,
            help="Name of the sandbox; default: the current branch's.",
        ),
    ] = None
    namespace: Annotated[
        str | None,
        typer.Option("-n", "--namespace", metavar="NAMESPACE", help="The sandbox, by its namespace."),
    ] = None
    owner: Annotated[
        str | None,
        typer.Option(
            "--owner",
            metavar="NAME",
            autocompletion=complete_owners,
            help="Whose sandbox of the current branch; default: yours.",
        ),
    ] = None

    @property
    def given(self) -> str | None:
        """The name or namespace that was asked for; None: the current branch's sandbox."""
        return self.sandbox or self.namespace


def expand(function: Callable[..., None]) -> Callable[..., None]:
    """Give a command the options of the groups (dataclasses) that it takes as parameters.

    The result has one keyword parameter for each field, which is what typer reads; ``Common`` is
    completed by what stood before the command.
    """
    hints = typing.get_type_hints(function, include_extras=True)
    own: list[inspect.Parameter] = []
    groups: dict[str, type[Any]] = {}
    for parameter in inspect.signature(function).parameters.values():
        annotation = hints.get(parameter.name, parameter.annotation)
        if isinstance(annotation, type) and dataclasses.is_dataclass(annotation):
            groups[parameter.name] = annotation
        else:
            own.append(parameter.replace(annotation=annotation, kind=inspect.Parameter.KEYWORD_ONLY))
    members = {name: tuple(field.name for field in dataclasses.fields(group)) for name, group in groups.items()}
    options = [option for group in groups.values() for option in _options(group)]
    context_name = next((p.name for p in own if p.annotation is typer.Context), None)
    context = inspect.Parameter("typer_context", inspect.Parameter.KEYWORD_ONLY, annotation=typer.Context)

    @functools.wraps(function)
    def command(**given: Any) -> None:
        ctx: typer.Context = given[context_name] if context_name else given.pop(context.name)
        for name, group in groups.items():
            value = group(**{member: given.pop(member) for member in members[name]})
            if isinstance(value, Common):
                value = value.over(outer_options(ctx))
            given[name] = value
        function(**given)

    parameters = [*own, *options, *([] if context_name else [context])]
    command.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    command.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
    return command


def outer_options(ctx: typer.Context) -> Common:
    """What was given before the command."""
    outer = ctx.find_root().obj
    return outer if isinstance(outer, Common) else Common()


def _options(group: type[Any]) -> list[inspect.Parameter]:
    hints = typing.get_type_hints(group, include_extras=True)
    return [
        inspect.Parameter(
            field.name, inspect.Parameter.KEYWORD_ONLY, default=field.default, annotation=hints[field.name]
        )
        for field in dataclasses.fields(group)
    ]
