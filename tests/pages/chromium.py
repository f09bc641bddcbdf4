"""Chromium, headless, by its DevTools protocol: what a page logs and asks for, and how it looks.

aiohttp, which Ray brings, speaks the protocol.
"""

from __future__ import annotations

import asyncio
import base64
import itertools
import json
import shutil
import subprocess
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, TypeVar

import aiohttp

PROGRAM = shutil.which("chromium")
"""Debian's; None where it is not installed."""
Result = TypeVar("Result")


class Page:
    """One tab. `logged` are errors and warnings of the console, `requested` the addresses that were asked for."""

    def __init__(self, socket: aiohttp.ClientWebSocketResponse) -> None:
        self._socket, self._numbers = socket, itertools.count(1)
        self.logged: list[str] = []
        self.requested: list[str] = []
        self._loaded = False

    async def ask(self, method: str, **params: Any) -> dict[str, Any]:
        """Call a method of the protocol and hear of events until it answers."""
        number = next(self._numbers)
        await self._socket.send_json({"id": number, "method": method, "params": params})
        while True:
            message = await self._socket.receive_json(timeout=120)
            if message.get("id") == number:
                assert "error" not in message, (method, message)
                answer: dict[str, Any] = message["result"]
                return answer
            self._hear(message)

    def _hear(self, event: dict[str, Any]) -> None:
        match event.get("method"):
            case "Network.requestWillBeSent":
                self.requested.append(event["params"]["request"]["url"])
            case "Log.entryAdded":
                self.logged.append(event["params"]["entry"]["text"])
            case "Runtime.exceptionThrown":
                self.logged.append(json.dumps(event["params"]["exceptionDetails"]))
            case "Runtime.consoleAPICalled" if event["params"]["type"] in ("error", "warning", "assert"):
                self.logged.append(json.dumps(event["params"]["args"]))
            case "Page.loadEventFired":
                self._loaded = True

    async def open(self, path: Path, width: int, dark: bool = False, height: int = 900) -> None:
        """Load a file in a window of so many pixels."""
        for domain in ("Page", "Network", "Log", "Runtime"):
            await self.ask(f"{domain}.enable")
        await self.ask(
            "Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=False
        )
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        await self.ask("Emulation.setEmulatedMedia", features=[scheme])
        self._loaded = False
        await self.ask("Page.navigate", url=path.resolve().as_uri())
        while not self._loaded:
            self._hear(await self._socket.receive_json(timeout=120))

    async def value(self, expression: str) -> Any:
        """What an expression comes to there, awaited if it is a promise."""
        got = await self.ask("Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in got, got
        return got["result"].get("value")

    async def press(self, key: str) -> None:
        """A key, down and up."""
        about: dict[str, Any] = {"key": key, "code": key}
        about |= {"Tab": {"windowsVirtualKeyCode": 9}, "Enter": {"windowsVirtualKeyCode": 13, "text": "\r"}}.get(
            key, {}
        )
        about |= {"windowsVirtualKeyCode": 39} if key == "ArrowRight" else {}
        for kind in ("keyDown", "keyUp"):
            await self.ask("Input.dispatchKeyEvent", type=kind, **about)

    async def picture(self, whole: bool = True) -> bytes:
        """A PNG of the window, or of the whole page."""
        shot = await self.ask("Page.captureScreenshot", format="png", captureBeyondViewport=whole)
        return base64.b64decode(shot["data"])


@asynccontextmanager
async def _tab(folder: str) -> AsyncIterator[Page]:
    assert PROGRAM is not None
    options = ("--headless=new", "--no-sandbox", "--disable-gpu", "--no-first-run", "--remote-debugging-port=0")
    quiet = ("--disable-background-networking", "--disable-component-update", "--disable-dev-shm-usage")
    process = subprocess.Popen(
        [PROGRAM, *options, *quiet, f"--user-data-dir={folder}", "about:blank"],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        said = Path(folder) / "DevToolsActivePort"
        for _ in range(600):
            if said.exists() and said.read_text().count("\n"):
                break
            await asyncio.sleep(0.1)
        port = said.read_text().splitlines()[0]
        async with aiohttp.ClientSession() as session:
            async with session.get(f"http://127.0.0.1:{port}/json/list") as answer:
                tabs = await answer.json(content_type=None)
            address = next(tab["webSocketDebuggerUrl"] for tab in tabs if tab["type"] == "page")
            async with session.ws_connect(address, max_msg_size=0) as socket:
                yield Page(socket)
    finally:
        process.terminate()
        process.wait()


def in_a_tab(work: Callable[[Page], Awaitable[Result]]) -> Result:
    """What is done in a browser of its own, which is gone afterwards."""

    async def done() -> Result:
        with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
            async with _tab(folder) as page:
                return await work(page)

    return asyncio.run(done())
