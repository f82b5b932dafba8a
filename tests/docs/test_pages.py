"""README and docs: their Python blocks run, and their links lead somewhere."""

import re

import pytest

from helpers import ROOT
from helpers.pages import PAGES, blocks


@pytest.mark.docs
@pytest.mark.parametrize("page", [page for page in PAGES if blocks(page, "python")], ids=lambda page: page.name)
def test_python_blocks_run_in_order(page, workplace, run):
    (workplace / "page.py").write_text("\n".join(blocks(page, "python")), encoding="utf-8")
    run(["page.py"], workplace)


@pytest.mark.docs
@pytest.mark.parametrize("page", [page for page in PAGES if blocks(page, "python litert")], ids=lambda page: page.name)
def test_python_blocks_that_need_litert_run_in_order(page, workplace, run):
    (workplace / "page.py").write_text("\n".join(blocks(page, "python litert")), encoding="utf-8")
    run(["page.py"], workplace)


@pytest.mark.parametrize("page", [*PAGES, *sorted(ROOT.glob("examples/**/README.md"))], ids=lambda page: str(page.name))
def test_links_lead_somewhere(page):
    for target in re.findall(r"\]\(([^)#]+)\)", page.read_text(encoding="utf-8")):
        if "://" not in target:
            assert (page.parent / target).exists(), f"{page.name} links to {target}"
