"""examples/web laid out as its README says, served from this machine, and used as a person would."""

from __future__ import annotations

import functools
import re
import shlex
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, ClassVar

from selenium.common.exceptions import TimeoutException
from selenium.webdriver import Chrome
from selenium.webdriver.common.by import By
from selenium.webdriver.support.ui import WebDriverWait

from helpers import ROOT, environment

WEB, IMAGES = ROOT / "examples" / "web", ROOT / "examples" / "images"
NODE_MODULES = Path(sys.prefix) / "web" / "node_modules"
"""Where `tests/helpers/install_tools.py web` puts LiteRT.js."""


def commands() -> list[list[str]]:
    """Returns the commands of the page's README."""
    (block,) = re.findall(r"^```sh\n(.*?)^```", (WEB / "README.md").read_text(encoding="utf-8"), re.M | re.S)
    return [shlex.split(line) for line in block.splitlines()]


def lay_out(workplace: Path) -> Path:
    """Runs the README's commands up to the server, and returns the page's folder.

    `npm ci` has been run before, so that tests need no network.
    """
    (workplace / "examples").symlink_to(ROOT / "examples")
    folder = workplace
    *layout, server = commands()
    assert server == ["python", "-m", "http.server", "--bind", "127.0.0.1"]
    for command in layout:
        if command[0] == "cd":
            folder = folder / command[1]
        elif command == ["npm", "ci"]:
            (folder / "node_modules").symlink_to(NODE_MODULES)
        else:
            run(command, folder)
    return folder


def run(command: Sequence[str], folder: Path) -> None:
    """Runs one command; `tf-clip` is this copy's."""
    if command[0] == "tf-clip":
        command = [sys.executable, "-m", "tf_clip", *command[1:]]
    result = subprocess.run(command, cwd=folder, env=environment(), capture_output=True, text=True, timeout=600)
    assert result.returncode == 0, result.stdout + result.stderr


def without(name: str, folder: Path, copy: Path) -> Path:
    """Fills a copy of a page's folder with all but one thing, and returns it."""
    for path in folder.iterdir():
        if path.name != name:
            (copy / path.name).symlink_to(path)
    return copy


def with_model(folder: Path, copy: Path, *options: str) -> Path:
    """Fills a copy of a page's folder with the shipped model exported otherwise, and returns it."""
    command = ["tf-clip", "export", "litert", "model", "--parts", "image,text_from_utf8", *options]
    run(command, without("model", folder, copy))
    return copy


class _Handler(SimpleHTTPRequestHandler):
    """As `python -m http.server` answers."""

    headers_of_all: ClassVar[dict[str, str]] = {}

    def end_headers(self) -> None:
        for name, value in self.headers_of_all.items():
            self.send_header(name, value)
        super().end_headers()

    def log_message(self, *_: Any) -> None:
        pass


class _IsolatedHandler(_Handler):
    """What a server of threads must send."""

    headers_of_all: ClassVar[dict[str, str]] = {
        "Cross-Origin-Opener-Policy": "same-origin",
        "Cross-Origin-Embedder-Policy": "require-corp",
    }


@contextmanager
def served(folder: Path, *, isolated: bool = False) -> Iterator[str]:
    """Serves a folder, and gives its address."""
    handler = functools.partial(_IsolatedHandler if isolated else _Handler, directory=str(folder))
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_address[1]}"
        finally:
            server.shutdown()
            thread.join()


class WebPage:
    """The page as a person uses it.

    Args:
        chrome: the browser.
        url: where the page is.
        until: what its status says when it has started.
    """

    def __init__(self, chrome: Chrome, url: str, until: str = "Ready") -> None:
        self.chrome, self.url = chrome, url
        chrome.get(url)
        self.wait_for(until)

    def find(self, selector: str) -> Any:
        return self.chrome.find_element(By.CSS_SELECTOR, selector)

    def texts(self, selector: str) -> list[str]:
        return [found.text for found in self.chrome.find_elements(By.CSS_SELECTOR, selector)]

    def wait_for(self, part: str) -> None:
        try:
            WebDriverWait(self.chrome, 90).until(lambda _: part in self.find("#status").text)
        except TimeoutException:
            raise AssertionError(f"no {part!r}, but {self.find('#status').text!r}") from None

    def type(self, sentence: str, until: str | None = None) -> None:
        # By script, as the driver has no keys for what is beyond the first plane.
        script = "arguments[0].value = arguments[1]; arguments[0].dispatchEvent(new InputEvent('input'))"
        self.chrome.execute_script(script, self.find("#sentence"), sentence)
        self.wait_for(until or f"“{sentence}” fits ")

    def choose(self, *paths: Path) -> None:
        self.find("#files").send_keys("\n".join(map(str, paths)))

    def take_examples(self) -> None:
        self.find("#examples").click()

    def ranking(self) -> list[tuple[str, float]]:
        """Returns names and cosines as shown, best first."""
        return list(zip(self.texts(".name"), map(float, self.texts(".score")), strict=True))

    def bars(self) -> list[float]:
        """Returns how long each bar is, as a share of its rail."""
        script = "return [...document.querySelectorAll('.rail div')].map(bar => parseFloat(bar.style.width) / 100)"
        return list(self.chrome.execute_script(script))
