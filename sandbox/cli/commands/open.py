"""``sandbox open``: a service's page in the browser, or fetched once through the tunnel."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from sandbox.cli.commands.port_forward import Address, Service, free_port, shown_address
from sandbox.cli.options import Common, Selection

if TYPE_CHECKING:
    pass

# A Service's endpoints follow its pods' readiness with a little delay.
_CHECK_BOUND_SECONDS = 15.0
_MOST_BODY_BYTES = 10 * 1024 * 1024


def open_(
    common: Common,
    selection: Selection,
    service: Service,
    port: Annotated[
        str | None, typer.Option("--port", metavar="NAME", help="Name or number; default: the service's first port.")
    ] = None,
    path: Annotated[str, typer.Option("--path", metavar="PATH", help="What to open there.")] = "/",
    scheme: Annotated[
        str | None, typer.Option("--scheme", metavar="http|https", help="Default: https for a port 443 or so called.")
    ] = None,
    address: Address = "127.0.0.1",
    no_browser: Annotated[bool, typer.Option("--no-browser", help="Print the URL instead of opening it.")] = False,
    check: Annotated[
        str | None,
        typer.Option("--check", metavar="PATH", help="Fetch this page once, print it, and exit: 0 for a 2xx status."),
    ] = None,
) -> None:
    """Open a service in the browser, until Ctrl-C.

    The way there is a port-forward: it needs no Ingress and ends with the command.
    """
    from sandbox.cli.run import run

    run(_open(common, selection, service, port, scheme, address, path, no_browser, check))


async def _open(
    common: Common,
    selection: Selection,
    service: str,
    port: str | None,
    scheme: str | None,
    address: str,
    path: str,
    no_browser: bool,
    check: str | None,
) -> None:
    import asyncio

    from sandbox.cli.connect import reached, same_as
    from sandbox.cli.output import write
    from sandbox.cli.reporter import say
    from sandbox.cluster.pods import port_forward
    from sandbox.model.errors import InvalidInput
    from sandbox.provision.contents import check_awake, door, inside

    if scheme not in (None, "http", "https"):
        raise InvalidInput(f"{scheme!r} is not a scheme of web pages", hint="http or https")
    async with reached(common, selection) as (cluster, sandbox):
        found = await inside(cluster, sandbox)
        check_awake(sandbox, found.pods(service))
        there = door(found, service, port)
        chosen_scheme = scheme or ("https" if there.port == 443 or there.port_name == "https" else "http")
        here = 0 if check is not None else free_port(address, there.port)
        ports = f"{here or ''}:{there.port}"
        same_as(common, cluster, "port-forward", str(there.target), ports, namespace=sandbox.namespace)
        async with port_forward(cluster, sandbox.namespace, there.target, here, there.port, address=address) as opened:
            base = f"{chosen_scheme}://{shown_address(address)}:{opened}"
            if check is not None:
                await check_page(base + rooted(check), f"{there.target}:{there.port} of {sandbox.name}")
                return
            url = base + rooted(path)
            if no_browser or not await asyncio.to_thread(_browse, url):
                write(url)
            else:
                say(f"opened {url}")
            say(f"forwarding to {there.target}:{there.port} in {sandbox.namespace}; Ctrl-C ends it")
            await asyncio.Event().wait()


def rooted(path: str) -> str:
    return path if path.startswith("/") else f"/{path}"


def _browse(url: str) -> bool:
    """Open the browser; False where there is none."""
    import webbrowser

    try:
        return webbrowser.open(url)
    except webbrowser.Error:
        return False


async def check_page(url: str, what: str) -> None:
    """Fetch a page and print its status (stderr) and body (stdout).

    Raises:
        OperationFailed: it does not answer in time, or not with a 2xx status.
    """
    import aiohttp
    from tenacity import AsyncRetrying, retry_if_exception_type, stop_after_delay, wait_fixed

    from sandbox.cli.output import printable, write_bytes
    from sandbox.cli.reporter import say
    from sandbox.model.errors import OperationFailed

    retrying = AsyncRetrying(
        stop=stop_after_delay(_CHECK_BOUND_SECONDS),
        wait=wait_fixed(0.5),
        retry=retry_if_exception_type((aiohttp.ClientError, TimeoutError, ConnectionError)),
        reraise=True,
    )
    timeout = aiohttp.ClientTimeout(total=_CHECK_BOUND_SECONDS)
    try:
        async for attempt in retrying:
            with attempt:
                # Its certificate is made for another name than this machine's.
                async with aiohttp.ClientSession(timeout=timeout) as session, session.get(url, ssl=False) as answer:
                    status, reason = answer.status, answer.reason or ""
                    body = await answer.content.read(_MOST_BODY_BYTES)
    except (aiohttp.ClientError, TimeoutError, ConnectionError) as error:
        raise OperationFailed(
            f"{what} does not answer within {_CHECK_BOUND_SECONDS:.0f} s",
            why=str(error) or type(error).__name__,
            hint="`sandbox status` shows how the service is, `sandbox logs SERVICE` what it says",
        ) from None
    say(f"HTTP {status} {printable(reason)}")
    write_bytes(body if body.endswith(b"\n") else body + b"\n")
    if not 200 <= status < 300:
        raise OperationFailed(f"{what} answered with HTTP {status}")
