"""The commands that the pages show run, and print what is shown."""

import re
import shlex

import pytest

from helpers import ROOT
from helpers.pages import PAGES, blocks

pytestmark = pytest.mark.docs


def test_commands_of_the_command_line_page_run(workplace, run):
    commands = "".join(blocks(ROOT / "docs" / "command_line.md", "sh")).splitlines()
    assert commands
    for command in commands:
        program, *arguments = shlex.split(command)
        assert program == "tf-clip"
        assert run(["-m", "tf_clip", *arguments], workplace)


def names(output):
    """The words of a table, without scores and bars, which differ in the last digit between machines."""
    return [re.sub(r"-?\d\.\d{3}.*|[ ]+", " ", line).strip() for line in output.splitlines() if line.strip()]


def test_the_readme_shows_what_the_demo_prints(run):
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    commands = re.findall(r"^\t@\$\(BIN\)/tf-clip (.*)$", makefile, re.MULTILINE)
    shown = re.findall(r"<!-- demo:.*?-->\n```text\n(.*?)^```", PAGES[0].read_text("utf-8"), re.MULTILINE | re.DOTALL)
    assert len(commands) == len(shown) == 2
    for command, expected in zip(commands, shown, strict=True):
        arguments = shlex.split(command.replace("--html demo.html", ""))
        assert names(run(["-m", "tf_clip", *arguments])) == names(expected)
