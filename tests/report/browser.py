"""A headless Chromium for tests of pages, driven by Selenium.

Debian and Ubuntu: apt install chromium chromium-driver; `needs_browser` skips where they are not.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from selenium import webdriver
from selenium.webdriver.common.keys import Keys

DRIVER, BROWSER = shutil.which("chromedriver"), shutil.which("chromium")
FLAGS = ("--headless=new", "--no-sandbox", "--disable-dev-shm-usage", "--disable-gpu",
         "--disable-background-networking", "--force-device-scale-factor=1")  # fmt: skip
LOCAL = ("file:", "data:", "about:")  # addresses
PATIENCE = 90  # seconds: machines that test are busy

needs_browser = pytest.mark.skipif(
    not (DRIVER and BROWSER), reason="no Chromium here (Debian: apt install chromium-driver)"
)


class Browser:
    """One process of the browser; `open` shows a file in it."""

    def __init__(self) -> None:
        options = webdriver.ChromeOptions()
        options.binary_location = BROWSER
        for flag in FLAGS:
            options.add_argument(flag)
        options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
        service = webdriver.ChromeService(executable_path=DRIVER)
        self.driver = webdriver.Chrome(options=options, service=service)
        self.driver.set_page_load_timeout(PATIENCE)
        self.driver.set_script_timeout(PATIENCE)

    def open(self, path: Path, width: int, height: int, dark: bool = False) -> None:
        """A file in a window of a width and height in CSS pixels, once its images are there."""
        self.complaints()  # those of the page before
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        size = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 600}
        self.driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": [scheme]})
        self.driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
        self.driver.get(path.resolve().as_uri())

    def evaluate(self, expression: str) -> Any:
        """The value of a JavaScript expression."""
        return self.driver.execute_script(f"return {expression}")

    def press(self, key: str, times: int = 1) -> None:
        """Press a key, by its name in Selenium's `Keys`; it goes to the focused element."""
        self.driver.switch_to.active_element.send_keys(getattr(Keys, key) * times)

    def move(self, x: float, y: float) -> None:
        """Move the pointer to a place in the window, in CSS pixels."""
        actions = webdriver.ActionChains(self.driver)
        actions.w3c_actions.pointer_action.move_to_location(round(x), round(y))
        actions.perform()

    def complaints(self) -> list[str]:
        """Errors and warnings of the console, and requests that left the disk, since last asked."""
        found = [entry["message"] for entry in self.driver.get_log("browser")]
        for entry in self.driver.get_log("performance"):
            event = json.loads(entry["message"])["message"]
            url = event["params"].get("request", {}).get("url", "file:")
            if event["method"] == "Network.requestWillBeSent" and not url.startswith(LOCAL):
                found.append(f"request of {url[:80]}")
        return found
