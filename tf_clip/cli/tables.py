"""Tables, bars, progress and warnings in a terminal."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import Progress
from rich.table import Table
from rich.text import Text

from tf_clip.cli.arguments import EXIT_DONE, EXIT_SOME_SKIPPED

_BAR_WIDTH = 24
_EIGHTHS = " ▏▎▍▌▋▊▉█"

_output = Console(highlight=False)
_messages = Console(stderr=True, highlight=False)


def show_scores(groups: Sequence[tuple[str, Sequence[tuple[str, float]]]], headings: tuple[str, str]) -> None:
    """Prints names with their scores, best first, each with a bar.

    Args:
        groups: what the names were scored for, and the (name, score) pairs.
        headings: of the first two columns.
    """
    table = Table(box=None, pad_edge=False)
    table.add_column(headings[0], style="bold", overflow="fold")
    table.add_column(headings[1], overflow="fold")
    table.add_column("score", justify="right")
    table.add_column("")
    for asked, scores in groups:
        for place, (name, score) in enumerate(scores):
            style = "green" if place == 0 else "dim"
            # Text objects: rich would read a path or label such as [red] as markup.
            first = Text(asked if place == 0 else "")
            table.add_row(first, Text(name, style=style), f"{score:.3f}", Text(bar(score), style=style))
    _output.print(table)


def bar(score: float) -> str:
    """Draws a score between 0 and 1 as a bar of block characters."""
    eighths = round(min(max(score, 0.0), 1.0) * _BAR_WIDTH * 8)
    whole, rest = divmod(eighths, 8)
    return _EIGHTHS[8] * whole + (_EIGHTHS[rest] if rest else "")


def show_facts(facts: Mapping[str, Any]) -> None:
    """Prints names and values in two columns."""
    table = Table(box=None, pad_edge=False, show_header=False)
    table.add_column(style="bold")
    table.add_column(overflow="fold")
    for name, value in facts.items():
        table.add_row(Text(name), Text(str(value)))
    _output.print(table)


def show_groups(
    groups: Mapping[str, Sequence[Sequence[str]]], headings: Sequence[str], numbers: Sequence[str] = ()
) -> None:
    """Prints groups of rows in one table, each below its title.

    Args:
        groups: from a title to the cells of its rows.
        headings: of the columns.
        numbers: the headings of the columns to align to the right.
    """
    table = Table(box=None, pad_edge=False)
    for place, heading in enumerate(headings):
        # People copy the first column: it is never wrapped, however narrow the terminal.
        table.add_column(
            heading, justify="right" if heading in numbers else "left", no_wrap=place == 0, overflow="fold"
        )
    for common, rows in groups.items():
        table.add_row(Text(common, style="bold"))
        for row in rows:
            table.add_row(*map(Text, row))
    _output.print(table)


def print_json(values: Any) -> None:
    """Prints a value as JSON."""
    print(printable(json.dumps(values, indent=2, ensure_ascii=False)))


def say(message: str) -> None:
    """Prints a line below a table."""
    _output.print(Text(printable(message)), soft_wrap=True)


def warn(message: str) -> None:
    """Prints a line on standard error."""
    _messages.print(Text(printable(message), style="yellow"), soft_wrap=True)


def skipped(paths: Sequence[Path], failures: Mapping[int, str]) -> list[dict[str, str]]:
    """Returns the images that were left out, and why."""
    return [{"image": str(paths[index]), "reason": reason} for index, reason in failures.items()]


def report(rows: Sequence[Mapping[str, str]]) -> int:
    """Warns of everything that was skipped, and returns the exit status.

    Args:
        rows: each skipped image or row with its reason.
    """
    for row in rows:
        warn(f"skipped {row.get('image') or row['where']}: {row['reason']}")
    return EXIT_SOME_SKIPPED if rows else EXIT_DONE


def printable(text: str) -> str:
    """Returns a text in which bytes of file names that are not UTF-8 are escapes, which JSON reads back."""
    return text.encode("utf-8", "backslashreplace").decode("utf-8")


def status(message: str) -> AbstractContextManager[Any]:
    """Shows a spinner on standard error while the block runs, if that is a terminal."""
    return _messages.status(message)


@contextmanager
def progress(message: str, total: int) -> Iterator[Callable[[int], None]]:
    """Shows a bar on standard error while the block runs; yields a function that advances it."""
    with Progress(console=_messages, transient=True, disable=not _messages.is_terminal) as bars:
        task = bars.add_task(message, total=total)
        yield lambda done: bars.advance(task, done)


def print_cells(cells: Sequence[str], width: int) -> None:
    """Prints a line of a table whose rows come one by one, each cell at least `width` wide."""
    print("  ".join(cell.rjust(width) for cell in cells), flush=True)


def note(message: str) -> None:
    """Prints a line on standard error at once."""
    print(message, file=sys.stderr, flush=True)


def is_terminal() -> bool:
    """Says whether standard error is a terminal, where a bar can move."""
    return _messages.is_terminal


def messages() -> Console:
    """Returns the console on standard error."""
    return _messages
