"""``sandbox exec``: a command in a running container of a service."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from sandbox.cli.completion import complete_services
from sandbox.cli.options import Common, Selection

if TYPE_CHECKING:
    from sandbox.model.objects import Manifest

_CONTAINER_ANNOTATION = "kubectl.kubernetes.io/default-container"


def exec_(
    common: Common,
    selection: Selection,
    service: Annotated[str, typer.Argument(metavar="SERVICE", autocompletion=complete_services)],
    command: Annotated[list[str], typer.Argument(metavar="-- COMMAND [ARGS]...", show_default=False)],
    container: Annotated[
        str | None, typer.Option("-c", "--container", metavar="NAME", help="Default: the pod's first or marked one.")
    ] = None,
    pod: Annotated[str | None, typer.Option("--pod", metavar="NAME", help="Default: a ready one, the newest.")] = None,
    stdin: Annotated[bool, typer.Option("-i", "--stdin", help="Pass standard input to the command.")] = False,
    tty: Annotated[bool, typer.Option("-t", "--tty", help="Give the command a terminal.")] = False,
) -> None:
    """Run a command in a service's container.

    Exits with the command's exit code.
    """
    import sys

    from sandbox.cli.run import run
    from sandbox.model.errors import InvalidInput

    if tty and not (stdin and sys.stdin.isatty()):
        raise InvalidInput(
            "there is no terminal to give to the command",
            why="standard input is not one" if stdin else "-t without -i",
            hint="use -it on a terminal, -i or nothing elsewhere",
        )
    code = run(_exec(common, selection, service, command, container, pod, stdin, tty))
    raise typer.Exit(code)


async def _exec(
    common: Common,
    selection: Selection,
    service: str,
    command: list[str],
    container: str | None,
    pod_name: str | None,
    stdin: bool,
    tty: bool,
) -> int:
    from contextlib import nullcontext

    from sandbox.cli.connect import reached, same_as
    from sandbox.cli.output import Stdout
    from sandbox.cli.terminal import raw_terminal, stdin_chunks, terminal_sizes
    from sandbox.cluster.pods import exec_ as execute
    from sandbox.provision.contents import check_awake, inside

    async with reached(common, selection) as (cluster, sandbox):
        pods = (await inside(cluster, sandbox)).pods(service)
        check_awake(sandbox, pods)
        pod = choose_pod(pods, service, pod_name)
        name, container = pod["metadata"]["name"], choose_container(pod, container)
        flags = (*(("-i",) if stdin else ()), *(("-t",) if tty else ()), "-c", container)
        same_as(common, cluster, "exec", name, *flags, "--", *command, namespace=sandbox.namespace)
        with raw_terminal() if tty else nullcontext():
            return await execute(
                cluster,
                sandbox.namespace,
                name,
                container,
                command,
                stdin=stdin_chunks() if stdin else None,
                tty=tty,
                stdout=Stdout(),
                sizes=terminal_sizes() if tty else None,
            )


def choose_pod(pods: list[Manifest], service: str, name: str | None) -> Manifest:
    """The pod of that name, else the newest ready one, else the newest that runs.

    Raises:
        InvalidInput: no such pod.
        OperationFailed: none runs.
    """
    from sandbox.cluster.pods import is_ready
    from sandbox.model.errors import InvalidInput, OperationFailed

    if name is not None:
        named = [pod for pod in pods if pod["metadata"]["name"] == name]
        if not named:
            known = ", ".join(pod["metadata"]["name"] for pod in pods) or "none"
            raise InvalidInput(f"service {service} has no pod {name}", why=f"its pods: {known}")
        return named[0]
    running = [pod for pod in pods if (pod.get("status") or {}).get("phase") == "Running"]
    if not running:
        raise OperationFailed(
            f"no pod of service {service} runs",
            why=", ".join(f"{p['metadata']['name']}: {(p.get('status') or {}).get('phase')}" for p in pods)
            or "it has no pods",
            hint="`sandbox status` shows why",
        )
    return next((pod for pod in running if is_ready(pod)), running[0])


def choose_container(pod: Manifest, name: str | None) -> str:
    """The container of that name, else the one that the pod marks as its default, else its first.

    Raises:
        InvalidInput: no such container.
    """
    from sandbox.model.errors import InvalidInput

    known = [container["name"] for container in pod["spec"]["containers"]]
    wanted = name or (pod["metadata"].get("annotations") or {}).get(_CONTAINER_ANNOTATION)
    if wanted in known:
        return str(wanted)
    if name is not None:
        raise InvalidInput(
            f"the pod {pod['metadata']['name']} has no container {name}", hint=f"one of {', '.join(known)}"
        )
    return str(known[0])
