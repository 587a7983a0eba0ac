"""Reports in a real browser: Debian's chromium and chromium-driver, or any Chrome with its driver on the PATH."""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

BROWSERS = ("chromium", "chromium-browser", "google-chrome", "chrome")
AUDIT = (Path(__file__).parent / "audit.js").read_text(encoding="utf-8")


class Browser:
    """One page at a time, in a window of its own."""

    def __init__(self, driver: Any, downloads: Path) -> None:
        self.driver, self.downloads = driver, downloads
        self.width = 0

    def open(self, path: Path, width: int = 1280, dark: bool = False) -> None:
        self.look(width, dark, wait_s=0)
        self.driver.get_log("performance")
        self.driver.get_log("browser")
        self.driver.get(path.absolute().as_uri())
        self.js(AUDIT)

    def look(self, width: int, dark: bool, wait_s: float = 0.4) -> None:
        """Change the window; wait_s: plotly draws anew a moment after that."""
        if width != self.width:
            size = {"width": width, "height": 1000, "deviceScaleFactor": 1, "mobile": False}
            self.driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
            time.sleep(wait_s)
            self.width = width
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": [scheme]})

    def js(self, script: str, *arguments: Any) -> Any:
        return self.driver.execute_script(script, *arguments)

    def audit(self, name: str) -> Any:
        return self.js(f"return window.audit.{name}()")

    def all(self, selector: str) -> list[Any]:
        return list(self.driver.find_elements("css selector", selector))

    def texts(self, element: Any, selector: str) -> list[str]:
        """Return what can be read in parts of an element."""
        script = "return [...arguments[0].querySelectorAll(arguments[1])].map((e) => e.innerText.trim())"
        return list(self.js(script, element, selector))

    def one(self, selector: str) -> Any:
        return self.driver.find_element("css selector", selector)

    def complaints(self) -> list[str]:
        return [entry["message"] for entry in self.driver.get_log("browser")]

    def requests(self) -> list[str]:
        """Return the addresses asked for since the page was opened, its own among them; pictures it holds are none."""
        events = [json.loads(entry["message"])["message"] for entry in self.driver.get_log("performance")]
        asked = [e["params"]["request"]["url"] for e in events if e["method"] == "Network.requestWillBeSent"]
        return [address for address in asked if not address.startswith("data:")]


@pytest.fixture(scope="session")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    program = next(filter(None, map(shutil.which, BROWSERS)), None)
    chromedriver = shutil.which("chromedriver")
    if program is None or chromedriver is None:
        pytest.skip("needs Chromium and its driver (Debian: chromium, chromium-driver)")
    from selenium.webdriver import Chrome, ChromeOptions
    from selenium.webdriver.chrome.service import Service

    downloads = tmp_path_factory.mktemp("downloads")
    options = ChromeOptions()
    options.binary_location = program
    for argument in ("--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"):
        options.add_argument(argument)
    options.add_experimental_option("prefs", {"download.default_directory": str(downloads)})
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    driver = Chrome(options=options, service=Service(chromedriver))
    try:
        yield Browser(driver, downloads)
    finally:
        driver.quit()
