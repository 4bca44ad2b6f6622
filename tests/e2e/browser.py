"""Debian's chromium without a window, driven over its DevTools protocol
(https://chromedevtools.github.io/devtools-protocol/)."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp
import pytest

_OPTIONS = (
    "--headless",
    # As root in a container there is no sandbox; the pages are our own.
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--disable-dev-shm-usage",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--remote-debugging-port=0",
    "--window-size=1300,1000",
)
_BOUND = 60.0


@dataclass
class Page:
    """One page that is open.

    Attributes:
        requests: addresses that it asked for, the page's own first.
        said: what was written to its console or log: exceptions and broken rules of its policy, too.
    """

    socket: aiohttp.ClientWebSocketResponse
    requests: list[str] = field(default_factory=list)
    said: list[str] = field(default_factory=list)
    loaded: bool = False
    _numbers: Any = field(default_factory=lambda: itertools.count(1))

    async def call(self, method: str, **parameters: Any) -> dict[str, Any]:
        """Call a method of the protocol; fails the test where that fails."""
        number = next(self._numbers)
        await self.socket.send_json({"id": number, "method": method, "params": parameters})
        async with asyncio.timeout(_BOUND):
            while (answer := await self._next()).get("id") != number:
                pass
        assert "error" not in answer, f"{method}: {answer['error']}"
        return dict(answer["result"])

    async def open(self, path: Path) -> None:
        """Show a file, and wait until it was loaded."""
        for domain in ("Page", "Network", "Runtime", "Log"):
            await self.call(f"{domain}.enable")
        await self.call("Page.navigate", url=path.as_uri())
        async with asyncio.timeout(_BOUND):
            while not self.loaded:
                await self._next()

    async def evaluate(self, expression: str) -> Any:
        """The value of an expression in the page; a promise is awaited."""
        done = await self.call("Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in done, done["exceptionDetails"]
        return done["result"].get("value")

    async def until(self, expression: str, what: str) -> None:
        """Wait until an expression holds, which is asked for whenever the page is drawn anew."""
        asking = f"""new Promise(function (told) {{
            const end = Date.now() + {int(_BOUND * 500)};
            (function ask() {{ if ({expression}) told(true); else if (Date.now() > end) told(false);
                               else setTimeout(ask, 20); }})();
        }})"""
        assert await self.evaluate(asking), f"never came: {what}"

    async def _next(self) -> dict[str, Any]:
        message = dict(await self.socket.receive_json())
        about = message.get("params") or {}
        match message.get("method"):
            case "Page.loadEventFired":
                self.loaded = True
            case "Network.requestWillBeSent":
                self.requests.append(about["request"]["url"])
            case "Runtime.exceptionThrown":
                self.said.append(str(about["exceptionDetails"]))
            case "Log.entryAdded":
                self.said.append(about["entry"]["text"])
            case "Runtime.consoleAPICalled":
                self.said.append(str(about["args"]))
        return message


@asynccontextmanager
async def browser(profile: Path) -> AsyncIterator[Page]:
    """A browser with one empty page; ``profile`` is an empty folder of its own."""
    program = shutil.which("chromium")
    if program is None:
        pytest.skip("chromium is not installed")
    process = await asyncio.create_subprocess_exec(
        program,
        *_OPTIONS,
        f"--user-data-dir={profile}",
        "about:blank",
        stdout=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.DEVNULL,
    )
    try:
        port = await _port(profile / "DevToolsActivePort", process)
        async with aiohttp.ClientSession() as session:
            async with session.get(f"http://127.0.0.1:{port}/json/list") as answer:
                targets = await answer.json()
            address = next(target["webSocketDebuggerUrl"] for target in targets if target["type"] == "page")
            async with session.ws_connect(address, max_msg_size=2**27) as socket:
                yield Page(socket)
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.terminate()
        try:
            async with asyncio.timeout(10):
                await process.wait()
        except TimeoutError:
            process.kill()
            await process.wait()


async def _port(file: Path, process: asyncio.subprocess.Process) -> int:
    async with asyncio.timeout(_BOUND):
        while not (file.exists() and file.read_text()):
            assert process.returncode is None, f"chromium ended with {process.returncode}"
            await asyncio.sleep(0.05)
    return int(file.read_text().splitlines()[0])
