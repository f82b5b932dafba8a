"""Installs what tests need beside Python packages.

For tests/serving a browser, a C compiler and TensorFlow.js for Node.js; called with `web`, what tests/web needs: a
browser and LiteRT.js.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

PROGRAMS = {"chromium": "chromium", "chromedriver": "chromium-driver", "node": "nodejs", "npm": "npm"}
COMPILER = {"g++": "g++"}
HERE = Path(__file__).resolve().parent
WEB = HERE.parents[1] / "examples" / "web"


def install_programs(programs: Any) -> None:
    """Installs Debian's packages of the programs that are missing."""
    missing = sorted({package for program, package in programs.items() if not shutil.which(program)})
    if not missing:
        return
    if not shutil.which("apt-get") or os.geteuid() != 0:
        sys.exit(f"these tests need {', '.join(missing)}: install them, or run it as root on Debian")
    quiet: dict[str, Any] = {"stdout": subprocess.DEVNULL, "env": {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}}
    subprocess.run(["apt-get", "update"], check=True, **quiet)
    subprocess.run(["apt-get", "install", "--yes", "--no-install-recommends", *missing], check=True, **quiet)


def install_node_packages(source: Path, folder: Path) -> None:
    """Installs what a `package-lock.json` names into a folder, without the packages' own install scripts."""
    folder.mkdir(exist_ok=True)
    for name in ("package.json", "package-lock.json"):
        shutil.copy(source / name, folder)
    _run(folder, "npm", "ci", "--ignore-scripts", "--no-audit", "--no-fund", "--loglevel=error")


def build_tensorflow_js(folder: Path) -> None:
    """Builds TensorFlow.js against the libraries of TensorFlow's wheel; its own are not in the package registry."""
    import importlib.util

    found = importlib.util.find_spec("tensorflow")
    assert found and found.origin
    wheel = Path(found.origin).parent
    # Its own install script would fetch those libraries.
    install_node_packages(HERE / "serving" / "runtimes" / "tfjs", folder)
    package = folder / "node_modules" / "@tensorflow" / "tfjs-node"
    libraries = package / "deps" / "lib"
    libraries.mkdir(parents=True)
    (package / "deps" / "include").symlink_to(wheel / "include")
    for link, target in (
        ("libtensorflow.so", "libtensorflow_cc.so.2"),
        ("libtensorflow_cc.so.2", "libtensorflow_cc.so.2"),
        ("libtensorflow_framework.so", "libtensorflow_framework.so.2"),
        ("libtensorflow_framework.so.2", "libtensorflow_framework.so.2"),
    ):
        (libraries / link).symlink_to(wheel / target)
    # Node.js's headers, where they are installed beside it, need not be fetched either.
    prefix = Path(str(shutil.which("node"))).resolve().parents[1]
    headers = [f"--nodedir={prefix}"] if (prefix / "include" / "node" / "node_version.h").is_file() else []
    _run(package, "npx", "--no-install", "node-pre-gyp", "install", "--build-from-source", *headers)


def _run(folder: Path, *command: Any) -> None:
    result = subprocess.run(command, cwd=folder, capture_output=True, text=True)
    if result.returncode:
        sys.exit(f"{' '.join(command)}:\n{result.stdout[-2000:]}{result.stderr[-4000:]}")


if __name__ == "__main__":
    if sys.argv[1:] == ["web"]:
        install_programs(PROGRAMS)
        install_node_packages(WEB, Path(sys.prefix) / "web")
    else:
        install_programs(PROGRAMS | COMPILER)
        build_tensorflow_js(Path(sys.prefix) / "tfjs")
