"""A headless Chromium that reaches this machine only."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from selenium import webdriver
from selenium.webdriver.chrome.service import Service

FLAGS = (
    "--headless=new",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--force-device-scale-factor=1",
    "--hide-scrollbars",
    "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1",
)


def browser_programs() -> tuple[str, str]:
    """Returns where Chromium and its driver are.

    Raises:
        FileNotFoundError: when one is missing.
    """
    chromium, driver = shutil.which("chromium"), shutil.which("chromedriver")
    if not chromium or not driver:
        raise FileNotFoundError(
            "chromium and chromium-driver are needed: run make serve-test or make web-test as root, or install them"
        )
    return chromium, driver


@contextmanager
def browser(profile: Path, *, width: int = 1280, height: int = 960, dark: bool = False) -> Iterator[webdriver.Chrome]:
    """Gives a browser with a profile of its own, and ends it.

    Its log `performance` has, among others, all requests that its pages made.
    """
    chromium, driver = browser_programs()
    options = webdriver.ChromeOptions()
    options.binary_location = chromium
    for flag in (*FLAGS, f"--user-data-dir={profile}", f"--window-size={width},{height}"):
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    # Its own requests, to the driver on this machine, must not go to a proxy.
    service = Service(driver, env={**os.environ, "NO_PROXY": "127.0.0.1,localhost"})
    chrome = webdriver.Chrome(options, service)
    try:
        scheme = [{"name": "prefers-color-scheme", "value": "dark" if dark else "light"}]
        chrome.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": scheme})
        # The window's frame takes some of what was asked for.
        size = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": False}
        chrome.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
        yield chrome
    finally:
        chrome.quit()
