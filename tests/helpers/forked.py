"""Runs scripts and `tf-clip` as somebody would, a process each, without the seconds in which each imports TensorFlow.

Processes are forked from one that has imported it and has done nothing else, so that each begins as good as new;
each ends as one does, since what hangs at the end of a program should fail here.
"""

from __future__ import annotations

import ctypes
import multiprocessing
import os
import runpy
import sys
import traceback
from pathlib import Path

from helpers import environment

_PROCESSES = multiprocessing.get_context("forkserver")
_PROCESSES.set_forkserver_preload(["keras", "tensorflow_text"])


def run_forked(command: list[str], folder: Path, printed: Path) -> str:
    """Runs `python COMMAND` in `folder`, writes what it prints into `printed`, and returns its standard output.

    `command` begins with a script's path, or with "-m" and a module's name. Fails unless it ends with exit status 0.
    """
    process = _PROCESSES.Process(target=_run, args=(command, folder, printed))
    process.start()
    process.join(300)
    if process.is_alive():
        process.kill()
        process.join()
    errors = printed.with_suffix(".errors").read_text("utf-8")
    output = printed.read_text("utf-8")
    assert process.exitcode == 0, f"exit status {process.exitcode}\n{output}{errors}"
    return output


def _run(command: list[str], folder: Path, printed: Path) -> None:
    for descriptor, path in ((1, printed), (2, printed.with_suffix(".errors"))):
        os.dup2(os.open(path, os.O_CREAT | os.O_TRUNC | os.O_WRONLY), descriptor)
    os.chdir(folder)
    os.environ.update(environment(COLUMNS="100"))
    status = 1
    try:
        _script(command, folder)
        status = 0
    except SystemExit as ended:
        if isinstance(ended.code, str):
            print(ended.code, file=sys.stderr)
        else:
            status = ended.code or 0
    except BaseException:
        traceback.print_exc()
    # multiprocessing would stop here; a process of its own waits for its threads and ends the interpreter, too.
    ctypes.pythonapi.Py_Exit(status)


def _script(command: list[str], folder: Path) -> None:
    if command[0] == "-m":
        sys.argv = command[1:]
        sys.path.insert(0, str(folder))
        runpy.run_module(command[1], run_name="__main__", alter_sys=True)
    else:
        sys.argv = command
        sys.path.insert(0, str(Path(command[0]).resolve().parent))
        runpy.run_path(command[0], run_name="__main__")
