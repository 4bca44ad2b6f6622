"""``sandbox port-forward``: a service's port on this machine."""

from __future__ import annotations

import re
from typing import Annotated

import typer

from sandbox.cli.completion import complete_services
from sandbox.cli.options import Common, Selection

Service = Annotated[str, typer.Argument(metavar="SERVICE", autocompletion=complete_services)]
Address = Annotated[
    str,
    typer.Option("--address", metavar="IP", help="Local address to listen on; others than this machine's are open."),
]


def port_forward(
    common: Common,
    selection: Selection,
    service: Service,
    ports: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[[LOCAL:]REMOTE]...",
            show_default=False,
            help="REMOTE is a number or a name; without LOCAL the same number where free, with `:REMOTE` any.",
        ),
    ] = None,
    address: Address = "127.0.0.1",
) -> None:
    """Forward local ports to a service until Ctrl-C.

    Without ports: the service's first one, on the same port here where it is free, else on any.
    """
    from sandbox.cli.run import run

    run(_port_forward(common, selection, service, ports or [], address))


async def _port_forward(common: Common, selection: Selection, service: str, ports: list[str], address: str) -> None:
    import asyncio
    from contextlib import AsyncExitStack

    from sandbox.cli.connect import reached, same_as
    from sandbox.cli.output import write
    from sandbox.cluster.pods import port_forward as forward
    from sandbox.provision.contents import check_awake, door, inside

    wanted: list[tuple[int | None, str | None]] = [parse_port(text) for text in ports]
    async with reached(common, selection) as (cluster, sandbox), AsyncExitStack() as stack:
        found = await inside(cluster, sandbox)
        check_awake(sandbox, found.pods(service))
        defaults: list[tuple[int | None, str | None]] = [(None, None)]
        for local, remote in wanted or defaults:
            there = door(found, service, remote)
            here = free_port(address, there.port) if local is None else local
            shown = f"{here or ''}:{there.port}"
            same_as(common, cluster, "port-forward", str(there.target), shown, namespace=sandbox.namespace)
            opened = await stack.enter_async_context(
                forward(cluster, sandbox.namespace, there.target, here, there.port, address=address)
            )
            write(f"Forwarding from {shown_address(address)}:{opened} -> {there.target}:{there.port}")
        await asyncio.Event().wait()


def parse_port(text: str) -> tuple[int | None, str]:
    """Read ``8080:80``, ``:80`` (any local port: 0), ``80`` (None: the same one) or a port's name for the number.

    Raises:
        InvalidInput: not of that form.
    """
    from sandbox.model.errors import InvalidInput

    match = re.fullmatch(r"(?:(?P<local>\d{0,5}):)?(?P<remote>[a-z0-9](?:[a-z0-9-]{0,13}[a-z0-9])?)", text)
    if match is None or int(match["local"] or 0) > 65535:
        raise InvalidInput(
            f"{text!r} is not a port", hint="write it as REMOTE, LOCAL:REMOTE or :REMOTE, such as 8080:80"
        )
    local = match["local"]
    if local is None:
        return None, match["remote"]
    return int(local or 0), match["remote"]


def free_port(address: str, wanted: int) -> int:
    """The wanted port where it can be listened on here, else 0: any free one."""
    import socket

    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    with socket.socket(family) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((address, wanted))
        except OSError:
            # Taken, or below 1024 and not ours to take.
            return 0
    return wanted


def shown_address(address: str) -> str:
    return f"[{address}]" if ":" in address else address
