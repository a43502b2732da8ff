"""A headless Chromium and a headless Firefox, controlled by our own client.

Chromium speaks the DevTools protocol, Firefox WebDriver BiDi. They connect to this machine only.
"""

from __future__ import annotations

import asyncio
import json
import re
import time
from base64 import b64decode
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


# Firefox connects to nothing but this machine: everything else would go through a proxy at the
# discard port, where nothing listens.
PREFERENCES = {
    "network.proxy.type": 1,
    "network.proxy.http": "127.0.0.1",
    "network.proxy.http_port": 9,
    "network.proxy.ssl": "127.0.0.1",
    "network.proxy.ssl_port": 9,
    "app.normandy.enabled": False,
    "browser.safebrowsing.downloads.remote.enabled": False,
    "browser.shell.checkDefaultBrowser": False,
    "datareporting.policy.dataSubmissionEnabled": False,
    "extensions.update.enabled": False,
    "services.settings.server": "data:,none",
    "toolkit.telemetry.enabled": False,
}


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


@pytest.fixture(scope="session")
def firefox(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    program = require(
        "firefox-esr",
        "firefox",
        install="apt-get install firefox-esr, or your system's package of that name",
    )
    home = tmp_path_factory.mktemp("firefox")
    profile = home / "profile"
    profile.mkdir()
    (profile / "user.js").write_text(
        "".join(
            f"user_pref({json.dumps(name)}, {json.dumps(value)});\n"
            for name, value in PREFERENCES.items()
        )
    )
    args = ["--headless", "--no-remote", "--profile", str(profile), "--remote-debugging-port=0"]
    with Program(program, *args, "about:blank", env={"HOME": str(home)}) as running:
        running.wait_for_errors("WebDriver BiDi listening on ")
        match = re.search(r"listening on (ws://\S+)", running.errors)
        assert match is not None
        with asyncio.Runner() as runner:
            browser = Browser(runner, f"{match[1]}/session")
            wanted = {"alwaysMatch": {"acceptInsecureCerts": True}}
            browser.command("session.new", capabilities=wanted)
            browser.command("session.subscribe", events=["log.entryAdded"])
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


@pytest.fixture(scope="module", params=["chromium", "firefox"])
def tab(request: pytest.FixtureRequest) -> Iterator[Tab]:
    """A tab of either browser; a test should navigate to its page first."""
    if request.param == "chromium":
        tab: Tab = Page(request.getfixturevalue("browser"))
    else:
        tab = FirefoxTab(request.getfixturevalue("firefox"))
    try:
        yield tab
    finally:
        tab.close()


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
    """A connection to Chromium's DevTools, or to Firefox.

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

    def wait_for(self, method: str, session: str, **params: Any) -> None:
        """Wait for an event with these parameters, unless it has happened already."""
        self._runner.run(self._wait_for(method, session, params))

    async def _wait_for(self, method: str, session: str, params: dict[str, Any]) -> None:
        while not any(
            event["method"] == method
            and event.get("sessionId") == session
            and event["params"].items() >= params.items()
            for event in self.events
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


class Tab:
    """A tab of a browser."""

    def navigate(self, url: str) -> None:
        """Go to a URL and wait until the page is loaded."""
        raise NotImplementedError

    def evaluate(self, expression: str) -> Any:
        """Return the result of a promise, which is a JSON value."""
        raise NotImplementedError

    def insert(self, text: str) -> None:
        """Type text without line breaks."""
        raise NotImplementedError

    def press(self, key: str, *, shift: bool = False) -> None:
        """Press a key of KEYS."""
        raise NotImplementedError

    @property
    def complaints(self) -> list[str]:
        """The errors in the browser's console: exceptions, violations of the CSP."""
        raise NotImplementedError

    def close(self) -> None:
        raise NotImplementedError

    def run(self, code: str, **values: Any) -> Any:
        """Run the body of an asynchronous function; return its result.

        Args:
            code: JavaScript.
            values: JSON values that `code` can use under these names.
        """
        constants = "".join(
            f"const {name} = {json.dumps(value)};" for name, value in values.items()
        )
        return self.evaluate(f"(async () => {{ {constants}\n{code}\n}})()")

    def wait_until(self, expression: str) -> None:
        """Wait until a JavaScript expression is true."""
        deadline = time.monotonic() + TIMEOUT
        while not self.run(f"return !!({expression});"):
            assert time.monotonic() < deadline, f"never: {expression}"
            time.sleep(0.02)

    def type(self, text: str) -> None:
        """Type like a user; a line end is the Enter key."""
        for line in text.splitlines(keepends=True):
            self.insert(line.removesuffix("\n"))
            if line.endswith("\n"):
                self.press("Enter")


# Codes for Chromium and for Firefox.
KEYS = {
    "Enter": (13, "\ue007"),
    "Escape": (27, "\ue00c"),
    "End": (35, "\ue010"),
    "ArrowUp": (38, "\ue013"),
    "ArrowRight": (39, "\ue014"),
    "ArrowDown": (40, "\ue015"),
}


class Page(Tab):
    """A tab of Chromium."""

    def __init__(self, browser: Browser) -> None:
        self._browser = browser
        self._target = browser.command("Target.createTarget", url="about:blank")["targetId"]
        self._session = browser.command(
            "Target.attachToTarget", targetId=self._target, flatten=True
        )["sessionId"]
        for domain in ("Page", "Runtime", "Log"):
            self._command(f"{domain}.enable")
        self._command("Page.setLifecycleEventsEnabled", enabled=True)

    def _command(self, method: str, **params: Any) -> Any:
        return self._browser.command(method, self._session, **params)

    def navigate(self, url: str) -> None:
        self._browser.events.clear()
        answer = self._command("Page.navigate", url=url)
        assert "errorText" not in answer, answer
        # (The page before may have been loaded only now.)
        event = {"name": "load", "loaderId": answer["loaderId"]}
        self._browser.wait_for("Page.lifecycleEvent", self._session, **event)

    def evaluate(self, expression: str) -> Any:
        answer = self._command(
            "Runtime.evaluate",
            expression=expression,
            awaitPromise=True,
            returnByValue=True,
            userGesture=True,
        )
        assert "exceptionDetails" not in answer, answer["exceptionDetails"]
        return answer["result"].get("value")

    def insert(self, text: str) -> None:
        self._command("Input.insertText", text=text)

    def press(self, key: str, *, shift: bool = False) -> None:
        event = {
            "key": key,
            "code": key,
            "windowsVirtualKeyCode": KEYS[key][0],
            "modifiers": 8 if shift else 0,
        }
        text = {"text": "\r"} if key == "Enter" else {}
        self._command("Input.dispatchKeyEvent", type="keyDown", **text, **event)
        self._command("Input.dispatchKeyEvent", type="keyUp", **event)

    def resize(self, width: int, height: int, *, scheme: str = "light") -> None:
        """Look like a screen of this size, in CSS pixels, and with this colour scheme."""
        self._command(
            "Emulation.setDeviceMetricsOverride",
            width=width,
            height=height,
            deviceScaleFactor=1,
            mobile=width < 500,
        )
        features = [
            {"name": "prefers-color-scheme", "value": scheme},
            {"name": "pointer", "value": "coarse" if width < 500 else "fine"},
        ]
        self._command("Emulation.setEmulatedMedia", features=features)

    def screenshot(self) -> bytes:
        """Return a picture of the page as PNG."""
        return b64decode(
            self._command("Page.captureScreenshot", captureBeyondViewport=True)["data"]
        )

    @property
    def complaints(self) -> list[str]:
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


class FirefoxTab(Tab):
    """A tab of Firefox."""

    def __init__(self, browser: Browser) -> None:
        self._browser = browser
        self._context = browser.command("browsingContext.create", type="tab")["context"]

    def navigate(self, url: str) -> None:
        self._browser.events.clear()
        self._browser.command(
            "browsingContext.navigate", context=self._context, url=url, wait="complete"
        )

    def evaluate(self, expression: str) -> Any:
        answer = self._browser.command(
            "script.evaluate",
            expression=f"{expression}.then((value) => JSON.stringify(value) ?? 'null')",
            target={"context": self._context},
            awaitPromise=True,
            userActivation=True,
        )
        assert answer["type"] == "success", answer
        return json.loads(answer["result"]["value"])

    def insert(self, text: str) -> None:
        self._act([{"type": kind, "value": key} for key in text for kind in ("keyDown", "keyUp")])

    def press(self, key: str, *, shift: bool = False) -> None:
        keys = ["\ue008"] * shift + [KEYS[key][1]]
        self._act(
            [{"type": "keyDown", "value": key} for key in keys]
            + [{"type": "keyUp", "value": key} for key in reversed(keys)]
        )

    def _act(self, actions: list[dict[str, str]]) -> None:
        source = {"type": "key", "id": "keyboard", "actions": actions}
        self._browser.command("input.performActions", context=self._context, actions=[source])

    @property
    def complaints(self) -> list[str]:
        return [
            json.dumps(event["params"])
            for event in self._browser.events
            if event["method"] == "log.entryAdded"
            and event["params"]["level"] == "error"
            and event["params"]["source"].get("context") == self._context
        ]

    def close(self) -> None:
        self._browser.command("browsingContext.close", context=self._context)
