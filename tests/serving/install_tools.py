"""Installs what tests/serving needs beside Python packages: a browser, a C compiler, TensorFlow.js for Node.js."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

PROGRAMS = {"chromium": "chromium", "chromedriver": "chromium-driver", "node": "nodejs", "npm": "npm", "g++": "g++"}
HERE = Path(__file__).resolve().parent


def install_programs():
    """Installs Debian's packages of the programs that are missing."""
    missing = sorted({package for program, package in PROGRAMS.items() if not shutil.which(program)})
    if not missing:
        return
    if not shutil.which("apt-get") or os.geteuid() != 0:
        sys.exit(f"make serve-test needs {', '.join(missing)}: install them, or run it as root on Debian")
    quiet = {"stdout": subprocess.DEVNULL, "env": {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}}
    subprocess.run(["apt-get", "update"], check=True, **quiet)
    subprocess.run(["apt-get", "install", "--yes", "--no-install-recommends", *missing], check=True, **quiet)


def build_tensorflow_js(folder):
    """Builds TensorFlow.js against the libraries of TensorFlow's wheel; its own are not in the package registry."""
    import importlib.util

    wheel = Path(importlib.util.find_spec("tensorflow").origin).parent
    folder.mkdir(exist_ok=True)
    for name in ("package.json", "package-lock.json"):
        shutil.copy(HERE / "runtimes" / "tfjs" / name, folder)
    # Without its own install script, which fetches those libraries.
    _run(folder, "npm", "ci", "--ignore-scripts", "--no-audit", "--no-fund", "--loglevel=error")
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
    prefix = Path(shutil.which("node")).resolve().parents[1]
    headers = [f"--nodedir={prefix}"] if (prefix / "include" / "node" / "node_version.h").is_file() else []
    _run(package, "npx", "--no-install", "node-pre-gyp", "install", "--build-from-source", *headers)


def _run(folder, *command):
    result = subprocess.run(command, cwd=folder, capture_output=True, text=True)
    if result.returncode:
        sys.exit(f"{' '.join(command)}:\n{result.stdout[-2000:]}{result.stderr[-4000:]}")


if __name__ == "__main__":
    install_programs()
    build_tensorflow_js(Path(sys.prefix) / "tfjs")
