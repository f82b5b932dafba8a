"""The loop of the scripts that run libraries in processes of their own."""

from __future__ import annotations

import json
import sys
import traceback
from collections.abc import Callable


def serve(*commands: Callable[..., None]) -> None:
    """Runs a command for each JSON list that comes in, `[name, words...]`, and answers "done" or "failed".

    Loading a library takes longer than most commands, so that one process serves a whole session.
    """
    by_name = {command.__name__: command for command in commands}
    answers, sys.stdout = sys.stdout, sys.stderr  # what libraries print goes to the log
    for line in sys.stdin:
        name, *words = json.loads(line)
        try:
            by_name[name](*words)
        except Exception:
            traceback.print_exc()
            print("failed", file=answers, flush=True)
        else:
            print("done", file=answers, flush=True)
