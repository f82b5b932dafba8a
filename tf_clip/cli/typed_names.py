"""Errors in the words of the command line: they name the option that was typed, not the library's argument."""

from __future__ import annotations

import argparse
import re

# The library's arguments that options are called otherwise than.
_OPTION_OF = {
    "name_or_path": ("--model", "SRC"),
    "templates": ("--template",),
    "labels": ("--labels-file", "--labels"),
    "gradient_accumulation_steps": ("--accumulate",),
    "global_clipnorm": ("--clip-norm",),
    "ema_momentum": ("--ema",),
    "source": ("SRC", "DATA", "--data"),
    "kinds": ("--work",),
    "texts_file": ("--texts-file",),
}


def with_typed_names(message: str, options: argparse.Namespace) -> str:
    """Returns a message of the library with its arguments named as the command's options.

    Args:
        message: such as "`learning_rate` must be above 0. Received: learning_rate=0.0."
        options: the parsed options with the command's `parser`; None leaves the message as it is.

    Returns:
        Such as "`--learning-rate` must be above 0. Received: --learning-rate 0.0."
    """
    if options.parser is None:
        return message
    names = _names_of(options)
    if not names:
        return message
    any_name = "|".join(map(re.escape, names))
    message = re.sub(f"`({any_name})`", lambda match: f"`{names[match[1]]}`", message)
    # A positional argument is typed without its name.
    typed = {name: f"{option} " if option.startswith("-") else "" for name, option in names.items()}
    return re.sub(f"(?<=Received: )({any_name})=", lambda match: typed[match[1]], message)


def _names_of(options: argparse.Namespace) -> dict[str, str]:
    """Returns what each of the library's arguments is called in a command."""
    names = {
        action.dest: action.option_strings[-1] if action.option_strings else str(action.metavar or action.dest)
        for action in options.parser._actions
    }
    typed = {name for dest, name in names.items() if getattr(options, dest, None) is not None}
    for argument, candidates in _OPTION_OF.items():
        found = [name for name in candidates if name in typed]
        if found:
            names[argument] = found[0]
    return names
