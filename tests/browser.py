"""A headless Chromium for tests of pages, spoken to over its DevTools pipe.

    with Browser() as browser:
        page = browser.open(path, width=390, height=844)
        page.evaluate("document.title")

Nothing but the browser's program is needed: messages are JSON, each ended by a zero byte, on
file descriptors 3 and 4 of the process.
"""

from __future__ import annotations

import base64
import json
import os
import select
import shutil
import subprocess
import tempfile
import time
from collections import deque
from pathlib import Path
from typing import Any

PROGRAMS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
FLAGS = (
    "--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run",
    "--disable-background-networking", "--disable-component-update", "--disable-sync",
    "--disable-extensions", "--remote-debugging-pipe",
)  # fmt: skip
PATIENCE = 90  # seconds for one answer: machines that test are busy
KEYS = {"ArrowRight": 39, "ArrowLeft": 37, "Home": 36, "End": 35, "Tab": 9, "Space": 32}


def find_browser() -> str | None:
    """The program of an installed Chromium or Chrome, or None."""
    return next((path for name in PROGRAMS if (path := shutil.which(name))), None)


class Browser:
    """One process of the browser with a profile of its own; ends with the `with` block."""

    def __init__(self) -> None:
        self.profile = tempfile.TemporaryDirectory(ignore_cleanup_errors=True)
        theirs_in, self.to = os.pipe()
        self.source, theirs_out = os.pipe()
        # The shell puts the two ends where the browser expects them.
        script = f'exec "$@" 3<&{theirs_in} 4>&{theirs_out}'
        program = [find_browser() or "chromium", *FLAGS, f"--user-data-dir={self.profile.name}"]
        self.process = subprocess.Popen(
            ["bash", "-c", script, "browser", *program, "about:blank"],
            pass_fds=(theirs_in, theirs_out),
            stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )  # fmt: skip
        os.close(theirs_in)
        os.close(theirs_out)
        self.buffer = b""
        self.count = 0
        self.events: deque[dict] = deque()

    def __enter__(self) -> Browser:
        return self

    def __exit__(self, *_: object) -> None:
        self.process.kill()
        self.process.wait()
        os.close(self.to)
        os.close(self.source)
        self.profile.cleanup()

    def send(self, method: str, session: str | None = None, **params: Any) -> dict:
        """Call a DevTools method and return its result; RuntimeError if it has none."""
        self.count += 1
        message = {"id": self.count, "method": method, "params": params}
        if session:
            message["sessionId"] = session
        os.write(self.to, json.dumps(message).encode() + b"\0")
        while True:
            answer = self._receive(method)
            if answer.get("id") == self.count:
                if "error" in answer:
                    raise RuntimeError(f"{method}: {answer['error']['message']}")
                return answer["result"]
            self.events.append(answer)

    def _receive(self, method: str) -> dict:
        deadline = time.monotonic() + PATIENCE
        while b"\0" not in self.buffer:
            left = max(0.0, deadline - time.monotonic())
            ready, _, _ = select.select([self.source], [], [], left)
            data = os.read(self.source, 1 << 16) if ready else b""
            if not data:
                raise RuntimeError(f"The browser did not answer {method}.")
            self.buffer += data
        message, self.buffer = self.buffer.split(b"\0", 1)
        return json.loads(message)

    def open(self, path: Path, width: int, height: int, dark: bool = False) -> Page:
        """A file in a new tab of a width and height in CSS pixels, once it is loaded."""
        target = self.send("Target.createTarget", url="about:blank")["targetId"]
        attached = self.send("Target.attachToTarget", targetId=target, flatten=True)
        return Page(self, attached["sessionId"], path, width, height, dark)


class Page:
    """A tab: scripts, keys, pictures, and everything the page complained about."""

    def __init__(
        self, browser: Browser, session: str, path: Path, width: int, height: int, dark: bool
    ):
        self.browser, self.session = browser, session
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.send(f"{domain}.enable")
        self.send(
            "Emulation.setDeviceMetricsOverride",
            width=width, height=height, deviceScaleFactor=1, mobile=width < 600,
        )  # fmt: skip
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.send("Emulation.setEmulatedMedia", features=[scheme])
        self.send("Page.navigate", url=path.resolve().as_uri())
        self.wait_for("document.readyState === 'complete' && location.protocol === 'file:'")

    def send(self, method: str, **params: Any) -> dict:
        return self.browser.send(method, self.session, **params)

    def evaluate(self, expression: str) -> Any:
        """The value of a JavaScript expression; RuntimeError if it throws."""
        answer = self.send(
            "Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True
        )
        if "exceptionDetails" in answer:
            raise RuntimeError(f"{expression}: {answer['exceptionDetails']}")
        return answer["result"].get("value")

    def wait_for(self, expression: str) -> None:
        """Return when a JavaScript expression is true; RuntimeError after long waiting."""
        deadline = time.monotonic() + PATIENCE
        while not self.evaluate(expression):
            if time.monotonic() > deadline:
                raise RuntimeError(f"The page never came to {expression}.")
            time.sleep(0.02)

    def press(self, key: str, times: int = 1) -> None:
        """Press a key as a user does; it goes to the focused element."""
        code = {"key": " " if key == "Space" else key, "code": key}
        for _ in range(times):
            for kind in ("rawKeyDown", "keyUp"):
                self.send(
                    "Input.dispatchKeyEvent", type=kind, windowsVirtualKeyCode=KEYS[key], **code
                )

    def move(self, x: float, y: float) -> None:
        """Move the pointer to a place in the window, in CSS pixels."""
        self.send("Input.dispatchMouseEvent", type="mouseMoved", x=x, y=y)

    def screenshot(self, path: Path, whole: bool = False) -> None:
        """A PNG of the window, or of the whole page."""
        shot = self.send("Page.captureScreenshot", captureBeyondViewport=whole)
        if whole:
            size = self.send("Page.getLayoutMetrics")["cssContentSize"]
            shot = self.send(
                "Page.captureScreenshot", captureBeyondViewport=True, clip={**size, "scale": 1}
            )
        path.write_bytes(base64.b64decode(shot["data"]))

    def complaints(self) -> list[str]:
        """Exceptions, console errors, and requests that failed or left the disk, so far."""
        found = []
        for event in self.browser.events:
            if event.get("sessionId") != self.session:
                continue
            method, params = event["method"], event["params"]
            if method == "Runtime.exceptionThrown":
                found.append(str(params["exceptionDetails"]))
            elif method == "Runtime.consoleAPICalled" and params["type"] in ("error", "warning"):
                found.append(str(params["args"]))
            elif method == "Log.entryAdded" and params["entry"]["level"] in ("error", "warning"):
                found.append(f"{params['entry']['text']} {params['entry'].get('url', '')}")
            elif method == "Network.loadingFailed" and not params.get("canceled"):
                found.append(params["errorText"])
            elif method == "Network.requestWillBeSent":
                url = params["request"]["url"]
                if not url.startswith(("file:", "data:", "about:")):
                    found.append(f"request of {url[:80]}")
        return found
