"""A headless Chromium, controlled over the DevTools protocol by our own client.

It resolves no name but localhost, and connects to nothing else.
"""

from __future__ import annotations

import asyncio
import json
import time
from typing import TYPE_CHECKING, Any

import pytest

import fastws

from ..tools import TIMEOUT, Background, Echo, Program, require

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

OPTIONS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-default-apps",
    "--disable-dev-shm-usage",
    "--disable-extensions",
    "--disable-sync",
    "--no-proxy-server",
    "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE localhost, EXCLUDE 127.0.0.1",
    "--ignore-certificate-errors",
    "--remote-debugging-port=0",
)


@pytest.fixture(scope="session")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    chromium = require(
        "chromium",
        "chromium-browser",
        "google-chrome",
        install="apt-get install chromium, or your system's package of that name",
    )
    home = tmp_path_factory.mktemp("chromium")
    args = [*OPTIONS, f"--user-data-dir={home / 'profile'}", "about:blank"]
    with Program(chromium, *args, env={"HOME": str(home)}) as program:
        url = wait_for_url(program, home / "profile" / "DevToolsActivePort")
        with asyncio.Runner() as runner:
            browser = Browser(runner, url)
            try:
                yield browser
            finally:
                browser.close()


def wait_for_url(program: Program, path: Path) -> str:
    deadline = time.monotonic() + TIMEOUT
    while time.monotonic() < deadline:
        if program.has_ended:
            break
        # The port on one line, the path of the URL on the next.
        words = path.read_text().split() if path.exists() else ()
        if len(words) == 2:
            return f"ws://127.0.0.1:{words[0]}{words[1]}"
        time.sleep(0.02)
    pytest.fail(f"Chromium does not start:\n{program.errors}")


@pytest.fixture
def page(browser: Browser, base: Background) -> Iterator[Page]:
    """A new tab with an empty page from http://localhost."""
    page = Page(browser)
    try:
        page.navigate(base.url.replace("ws://127.0.0.1", "http://localhost"))
        yield page
    finally:
        page.close()


@pytest.fixture(scope="session")
def base() -> Iterator[Background]:
    async def never(ws: fastws.WebSocket) -> None:
        """Never called: there are no WebSockets here."""

    with Background(never, process_request=lambda _: fastws.Response.html("")) as server:
        yield server


@pytest.fixture(scope="session")
def echo() -> Iterator[Echo]:
    with Echo() as server:
        yield server


class Browser:
    """A connection to Chromium's DevTools.

    The event loop runs only while a command waits for its answer.
    """

    def __init__(self, runner: asyncio.Runner, url: str) -> None:
        self._runner = runner
        self._number = 0
        self.events: list[dict[str, Any]] = []
        self._ws: fastws.WebSocket = runner.run(self._connect(url))

    async def _connect(self, url: str) -> fastws.WebSocket:
        return await fastws.connect(url, max_message_size=64 << 20, ping_interval=None)

    def command(self, method: str, session: str | None = None, **params: Any) -> Any:
        """Send a command and return its result."""
        return self._runner.run(self._command(method, session, params))

    async def _command(self, method: str, session: str | None, params: dict[str, Any]) -> Any:
        self._number += 1
        number = self._number
        message = {"id": number, "method": method, "params": params}
        if session is not None:
            message["sessionId"] = session
        await self._ws.send(json.dumps(message))
        while True:
            answer = await self._next()
            if answer.get("id") == number:
                assert "error" not in answer, answer
                return answer["result"]

    def wait_for(self, method: str, session: str) -> None:
        """Wait for an event, unless it has happened already."""
        self._runner.run(self._wait_for(method, session))

    async def _wait_for(self, method: str, session: str) -> None:
        while not any(
            event["method"] == method and event.get("sessionId") == session for event in self.events
        ):
            await self._next()

    async def _next(self) -> dict[str, Any]:
        async with asyncio.timeout(TIMEOUT):
            message = json.loads(await self._ws.recv())
        if "id" not in message:
            self.events.append(message)
        return message

    def close(self) -> None:
        self._runner.run(self._ws.close())
        assert self._ws.close_code == 1000


class Page:
    """A tab."""

    def __init__(self, browser: Browser) -> None:
        self._browser = browser
        self._target = browser.command("Target.createTarget", url="about:blank")["targetId"]
        self._session = browser.command(
            "Target.attachToTarget", targetId=self._target, flatten=True
        )["sessionId"]
        for domain in ("Page", "Runtime", "Log"):
            self._command(f"{domain}.enable")

    def _command(self, method: str, **params: Any) -> Any:
        return self._browser.command(method, self._session, **params)

    def navigate(self, url: str) -> None:
        """Go to a URL and wait until the page is loaded."""
        self._browser.events.clear()
        answer = self._command("Page.navigate", url=url)
        assert "errorText" not in answer, answer
        self._browser.wait_for("Page.loadEventFired", self._session)

    def run(self, code: str, **values: Any) -> Any:
        """Run the body of an asynchronous function; return its result.

        Args:
            code: JavaScript.
            values: JSON values that `code` can use under these names.
        """
        constants = "".join(
            f"const {name} = {json.dumps(value)};" for name, value in values.items()
        )
        answer = self._command(
            "Runtime.evaluate",
            expression=f"(async () => {{ {constants}\n{code}\n}})()",
            awaitPromise=True,
            returnByValue=True,
        )
        assert "exceptionDetails" not in answer, answer["exceptionDetails"]
        return answer["result"].get("value")

    def wait_until(self, expression: str) -> None:
        """Wait until a JavaScript expression is true."""
        deadline = time.monotonic() + TIMEOUT
        while not self.run(f"return !!({expression});"):
            assert time.monotonic() < deadline, f"never: {expression}"
            time.sleep(0.02)

    def type(self, text: str) -> None:
        """Type like a user; a line end is the Enter key."""
        for line in text.splitlines(keepends=True):
            self._command("Input.insertText", text=line.removesuffix("\n"))
            if line.endswith("\n"):
                key = {"key": "Enter", "code": "Enter", "windowsVirtualKeyCode": 13}
                self._command("Input.dispatchKeyEvent", type="keyDown", text="\r", **key)
                self._command("Input.dispatchKeyEvent", type="keyUp", **key)

    @property
    def complaints(self) -> list[str]:
        """The errors in the browser's console: exceptions, violations of the CSP."""
        return [
            json.dumps(event["params"])
            for event in self._browser.events
            if event.get("sessionId") == self._session
            and (
                event["method"] == "Runtime.exceptionThrown"
                or (
                    event["method"] == "Log.entryAdded"
                    and event["params"]["entry"]["level"] == "error"
                )
            )
        ]

    def close(self) -> None:
        if self._target is not None:
            self._browser.command("Target.closeTarget", targetId=self._target)
            self._target = None
