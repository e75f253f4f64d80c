"""Every published method has a page, the same sections on each, and its figures are those of the stored cells."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import pytest

from reidassoc import registry
from reidassoc.bench.plan import read_plan
from reidassoc.bench.results import Results, read_results
from reidassoc.options import options_of

sys.path.insert(0, str(Path(__file__).parent.parent / "docs"))
from method_results import MARKER, METHODS, PAGES, ROOT, STORE, table

SECTIONS = ["Idea", "Options", "Paper and code", "Our results"]
NO_PAPER = {"from_file", "nearest", "oracle", "random", "unison"}  # unison has docs/unison.md
ALIASES = {"dagi"}


@pytest.fixture(scope="module")
def stored() -> Results:
    return read_results([STORE])


def text(page: str) -> str:
    return (PAGES / f"{page}.md").read_text(encoding="utf-8")


def test_every_published_associator_has_a_page_in_the_menu() -> None:
    published = {entry.name for entry in registry.entries("associators")} - NO_PAPER - ALIASES
    assert {rows[0] for rows in METHODS.values()} == published
    menu = (ROOT / "mkdocs.yml").read_text(encoding="utf-8")
    for page in METHODS:
        assert f": methods/{page}.md\n" in menu


@pytest.mark.parametrize("page", METHODS)
def test_a_page_has_the_four_sections_its_picture_and_its_options(page: str) -> None:
    assert re.findall(r"^## (.+)$", text(page), re.MULTILINE) == SECTIONS
    name = METHODS[page][0]
    idea, options = text(page).partition("## Options")[::2]
    assert f"../images/methods/{name}.svg" in idea
    assert "```text\n" in idea  # its formula
    assert f"reidassoc run --associator {name}" in options
    assert "`reidassoc show " in options


@pytest.mark.parametrize("page", METHODS)
def test_a_page_s_table_is_that_of_the_stored_cells(page: str, stored: Results) -> None:
    shown = text(page)
    assert f"<!-- table: {MARKER} -->\n{table(page, stored)}<!-- end of table -->" in shown


def test_the_stored_cells_are_those_of_the_benchmark(stored: Results) -> None:
    """Every method at every seed, under the recipe that it has today."""
    plan = read_plan(ROOT / "benchmarks" / "specs" / "every_method.yaml")
    wanted = {(cell.method, cell.id) for cell in plan.cells}
    assert {(outcome.row, f"{outcome.data['digest']}-s{outcome.seed}") for outcome in stored.outcomes} == wanted


def test_every_clusterer_has_a_section_with_its_options() -> None:
    shown = text("clustering")
    names = registry.names("clusterers")
    assert sorted(re.findall(r"^## `(\w+)`$", shown, re.MULTILINE)) == names
    for name in names:
        assert f"| [`{name}`](#{name}) |" in shown
        assert (f"<!-- options: clusterer {name} -->" in shown) == bool(options_of(registry.get("clusterers", name)))
