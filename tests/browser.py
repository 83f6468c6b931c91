"""A real browser without a window: Chromium, driven over its own protocol."""

import asyncio
import base64
import json
import os
import re
import shutil
import subprocess
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from tornado.websocket import WebSocketClientConnection, websocket_connect

REQUIRED = "ADVBN_REQUIRE_BROWSER"
_SECONDS = 60.0
_OPTIONS = (
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-sync",
    "--disable-background-networking", "--disable-component-update", "--disable-dev-shm-usage", "--hide-scrollbars",
    "--remote-debugging-port=0", "about:blank",
)  # fmt: skip
_LARGEST_MESSAGE = 256 * 2**20


class Page:
    """One page; whatever it logs, throws or asks the network for is kept in `events`."""

    def __init__(self, loop: asyncio.AbstractEventLoop, socket: WebSocketClientConnection) -> None:
        self._loop, self._socket, self._number = loop, socket, 0
        self.events: list[dict[str, Any]] = []
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.call(f"{domain}.enable")

    def call(self, method: str, **parameters: Any) -> dict[str, Any]:
        """Call a method of the protocol and return its result."""
        return self._loop.run_until_complete(asyncio.wait_for(self._call(method, parameters), _SECONDS))

    async def _call(self, method: str, parameters: dict[str, Any]) -> dict[str, Any]:
        self._number += 1
        await self._socket.write_message(json.dumps({"id": self._number, "method": method, "params": parameters}))
        while True:
            message = await self._next()
            if message.get("id") == self._number:
                assert "error" not in message, message
                result: dict[str, Any] = message["result"]
                return result

    async def _next(self) -> dict[str, Any]:
        text = await self._socket.read_message()
        assert text is not None, "the browser has gone"
        message: dict[str, Any] = json.loads(text)
        if "method" in message:
            self.events.append(message)
        return message

    def open(self, path: Path) -> None:
        """Open a file from the disk and wait until it has loaded."""
        self.events.clear()
        self.call("Page.navigate", url=path.absolute().as_uri())
        self._loop.run_until_complete(asyncio.wait_for(self._loaded(), _SECONDS))

    async def _loaded(self) -> None:
        while not any(event["method"] == "Page.loadEventFired" for event in self.events):
            await self._next()

    def evaluate(self, expression: str) -> Any:
        """Return the value of a JavaScript expression."""
        reply = self.call("Runtime.evaluate", expression=expression, returnByValue=True)
        assert "exceptionDetails" not in reply, reply
        return reply["result"].get("value")

    def complaints(self) -> list[dict[str, Any]]:
        """Return what the page logged or threw."""
        self.evaluate("1")
        kinds = {"Runtime.exceptionThrown", "Runtime.consoleAPICalled", "Log.entryAdded"}
        return [event for event in self.events if event["method"] in kinds]

    def requests(self) -> list[str]:
        """Return the addresses that the page asked for, but for those that hold their content themselves."""
        sent = [
            event["params"]["request"]["url"] for event in self.events if event["method"] == "Network.requestWillBeSent"
        ]
        return [address for address in sent if not address.startswith("data:")]

    def look(self, width: int, height: int = 900, *, dark: bool = False, script: bool = True) -> None:
        """Give the window a size, a colour scheme, and scripts or none."""
        self.call(
            "Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=width < 600
        )
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.call("Emulation.setEmulatedMedia", features=[scheme])
        self.call("Emulation.setScriptExecutionDisabled", value=not script)

    def screenshot(self, path: Path, *, whole: bool = False) -> None:
        """Write what is seen as a PNG."""
        reply = self.call("Page.captureScreenshot", format="png", captureBeyondViewport=whole)
        path.write_bytes(base64.b64decode(reply["data"]))


@contextmanager
def browser() -> Iterator[Page]:
    """Start Chromium with a page; skips where there is none, unless ADVBN_REQUIRE_BROWSER is set."""
    program = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if program is None:
        assert not os.environ.get(REQUIRED), "no Chromium was found, and ADVBN_REQUIRE_BROWSER is set"
        pytest.skip("no browser: Chromium is not installed")
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as profile:
        command = [program, f"--user-data-dir={profile}", *_OPTIONS]
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        loop = asyncio.new_event_loop()
        try:
            socket = loop.run_until_complete(_connect(_page_address(Path(profile), process)))
            yield Page(loop, socket)
            socket.close()
        finally:
            process.kill()
            process.wait()
            loop.run_until_complete(asyncio.sleep(0))
            loop.close()


async def _connect(address: str) -> WebSocketClientConnection:
    return await websocket_connect(address, max_message_size=_LARGEST_MESSAGE)


def _page_address(profile: Path, process: "subprocess.Popen[bytes]") -> str:
    port_file, end = profile / "DevToolsActivePort", time.monotonic() + _SECONDS
    while not port_file.exists() or not port_file.read_text():
        assert process.poll() is None, f"Chromium ended with {process.returncode}"
        assert time.monotonic() < end, "Chromium did not start"
        time.sleep(0.05)
    port = port_file.read_text().splitlines()[0]
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/json/list") as answer:
        pages = [target for target in json.load(answer) if target["type"] == "page"]
    address: str = pages[0]["webSocketDebuggerUrl"]
    return address


def require_self_contained(chromium: Page, page: Path) -> None:
    """A page logs nothing, asks for nothing but itself, and has no script."""
    chromium.look(1280)
    chromium.open(page)
    assert chromium.complaints() == []
    assert chromium.requests() == [page.as_uri()]
    text = page.read_text()
    assert not re.findall(r'(?:src|href)="(?!data:|#)[^"]*"', text)
    assert "<script" not in text


def require_fits_a_phone(chromium: Page, page: Path) -> None:
    """Nothing of a page is wider than a phone, also when all that is folded is opened."""
    chromium.look(360, 740)
    chromium.open(page)
    chromium.evaluate("document.querySelectorAll('details').forEach(each => each.open = true)")
    assert chromium.evaluate("document.documentElement.scrollWidth") <= 360
