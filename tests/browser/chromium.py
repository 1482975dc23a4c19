"""A headless Chromium, driven over its own DevTools protocol: as much of it as the browser tests need.

Each page has a browser context of its own, so cookies are not shared. Every wait has a deadline."""

import asyncio
import contextlib
import itertools
import json
import os
import shutil
import signal
import tempfile
from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from typing import Any

from websockets.asyncio.client import ClientConnection, connect

NAMES = ("chromium", "chromium-browser", "google-chrome-stable", "google-chrome")
MISSING = "Chromium is missing: apt-get install chromium, or set NO_BROWSER=1 to go without the browser tests."
START_SECONDS = 30.0
WAIT_SECONDS = 20.0
OPTIONS = (
    "--headless=new",
    "--remote-debugging-port=0",
    "--no-first-run",
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-extensions",
    "--mute-audio",
)

NAMED_KEYS = {
    "Home": ("Home", 36),
    "End": ("End", 35),
    "ArrowLeft": ("ArrowLeft", 37),
    "ArrowRight": ("ArrowRight", 39),
    " ": ("Space", 32),
}
"""Key → where it is on the keyboard, and its number in key events; those of letters and digits are computed."""


class BrowserError(Exception):
    """A command failed in the browser, a script threw, or a deadline passed."""


def find_chromium() -> str:
    """The browser's program. Raises: BrowserError with what to do where there is none."""
    for name in NAMES:
        if found := shutil.which(name):
            return found
    raise BrowserError(MISSING)


class Browser:
    """One running browser; made by `running_browser`."""

    def __init__(self, socket: ClientConnection) -> None:
        self._socket = socket
        self._ids = itertools.count(1)
        self._answers: dict[int, asyncio.Future[dict[str, Any]]] = {}

    async def new_page(self, url: str, *, cookies: Mapping[str, str], bypass_csp: bool = False) -> "Page":
        """Open `url` with these cookies, which belong to its host; `bypass_csp` lets a test put its own page there."""
        context = (await self.call("Target.createBrowserContext"))["browserContextId"]
        target = await self.call("Target.createTarget", url="about:blank", browserContextId=context)
        attached = await self.call("Target.attachToTarget", targetId=target["targetId"], flatten=True)
        page = Page(self, attached["sessionId"])
        for name, value in cookies.items():
            await page.call("Network.setCookie", name=name, value=value, url=url)
        if bypass_csp:
            await page.call("Page.setBypassCSP", enabled=True)
        await page.call("Page.navigate", url=url)
        return page

    async def call(self, method: str, *, session: str | None = None, **params: Any) -> dict[str, Any]:
        """Send one command and return its result. Raises: BrowserError."""
        call_id = next(self._ids)
        answer: asyncio.Future[dict[str, Any]] = asyncio.get_running_loop().create_future()
        self._answers[call_id] = answer
        message = {"id": call_id, "method": method, "params": params}
        await self._socket.send(json.dumps(message if session is None else {**message, "sessionId": session}))
        try:
            async with asyncio.timeout(WAIT_SECONDS + 5):
                return await answer
        except TimeoutError as error:
            raise BrowserError(f"{method}: no answer") from error
        finally:
            del self._answers[call_id]

    async def read(self) -> None:
        """Hand answers out until the browser ends."""
        async for text in self._socket:
            message = json.loads(text)
            answer = self._answers.get(message.get("id", 0))
            if answer is None or answer.done():
                continue
            if "error" in message:
                answer.set_exception(BrowserError(message["error"]["message"]))
            else:
                answer.set_result(message["result"])


class Page:
    """One open page."""

    def __init__(self, browser: Browser, session: str) -> None:
        self._browser = browser
        self._session = session

    async def call(self, method: str, **params: Any) -> dict[str, Any]:
        return await self._browser.call(method, session=self._session, **params)

    async def evaluate(self, expression: str) -> Any:
        """The value of a JavaScript expression; a promise is awaited. Raises: BrowserError where it throws."""
        answer = await self.call("Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True)
        if "exceptionDetails" in answer:
            details = answer["exceptionDetails"]
            raise BrowserError(details.get("exception", {}).get("description", details["text"]))
        return answer["result"].get("value")

    async def wait(self, condition: str) -> None:
        """Wait until a JavaScript expression is true, through navigations. Raises: BrowserError."""
        deadline = asyncio.get_running_loop().time() + WAIT_SECONDS
        while True:
            with contextlib.suppress(BrowserError):  # a page that is being loaded has no world to ask
                if await self.evaluate(f"Boolean({condition})"):
                    return
            if asyncio.get_running_loop().time() > deadline:
                body = await self.evaluate("document.body.innerText")
                raise BrowserError(f"after {WAIT_SECONDS} s still not {condition}; the page says:\n{body}")
            await asyncio.sleep(0.02)

    async def press_control_end(self) -> None:
        """Take the cursor to the end of the text, as a person does."""
        await self.press("End", control=True)

    async def press(self, key: str, *, control: bool = False, shift: bool = False) -> None:
        """Press and release one key: a character, or a name of NAMED_KEYS. With Control it types nothing."""
        code, number = NAMED_KEYS.get(key) or _place_of(key)
        pressed = {"key": key, "code": code, "windowsVirtualKeyCode": number, "modifiers": 2 * control + 8 * shift}
        text = {"text": key} if len(key) == 1 and not control else {}
        await self.call("Input.dispatchKeyEvent", type="keyDown" if text else "rawKeyDown", **pressed, **text)
        await self.call("Input.dispatchKeyEvent", type="keyUp", **pressed)

    async def press_each(self, text: str) -> None:
        """Type on the keyboard into what has the focus: each character's key goes down and up."""
        for character in text:
            await self.press(character)

    async def type(self, text: str) -> None:
        """Put text into what has the focus, character by character, as an input method does."""
        for character in text:
            await self.call("Input.insertText", text=character)


def _place_of(character: str) -> tuple[str, int]:
    """A character's key and its number. Of punctuation neither: its code point is the number of another key."""
    if character.isascii() and character.isalpha():
        return f"Key{character.upper()}", ord(character.upper())
    if character.isascii() and character.isdigit():
        return f"Digit{character}", ord(character)
    return "", 0


@contextlib.asynccontextmanager
async def running_browser() -> AsyncIterator[Browser]:
    """A browser with a profile of its own, ended with all its processes. Raises: BrowserError."""
    program = find_chromium()
    # A browser that ends slowly may still write into its profile while it is being removed.
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as profile:
        options = [*OPTIONS, *(["--no-sandbox"] if os.geteuid() == 0 else []), f"--user-data-dir={profile}"]
        process = await asyncio.create_subprocess_exec(
            program,
            *options,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.DEVNULL,
            stderr=asyncio.subprocess.DEVNULL,
            env={**os.environ, "HOME": profile},
            start_new_session=True,
        )
        try:
            url = await _devtools_url(Path(profile), process)
            async with connect(url, max_size=None, compression=None) as socket:
                browser = Browser(socket)
                reading = asyncio.create_task(browser.read())
                try:
                    yield browser
                finally:
                    reading.cancel()
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            await process.wait()


async def _devtools_url(profile: Path, process: asyncio.subprocess.Process) -> str:
    """Where the browser listens: it writes port and path into its profile."""
    record = profile / "DevToolsActivePort"
    deadline = asyncio.get_running_loop().time() + START_SECONDS
    while process.returncode is None and asyncio.get_running_loop().time() < deadline:
        if record.exists() and len(lines := record.read_text().splitlines()) == 2:
            return f"ws://127.0.0.1:{lines[0]}{lines[1]}"
        await asyncio.sleep(0.02)
    raise BrowserError(f"the browser did not start (exit code {process.returncode})")
