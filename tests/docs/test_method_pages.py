"""Every method has a page, all alike, with the figures of the stored cells; every other part of a stage has a section."""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path

import pytest

from reidassoc import registry
from reidassoc.bench.plan import read_plan
from reidassoc.recipe.load import load_recipe, shipped_recipes
from reidassoc.registry.options import options_of
from reidassoc.tables.read import Results, read_results

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "docs"))
from method_results import MARKER, METHODS, PAGES, ROOT, STORE, table

SECTIONS = ["Idea", "Options", "Paper and code", "Our results"]
NO_PAPER = {"from_file", "nearest", "oracle", "random", "unison"}  # unison has docs/unison.md
ALIASES = {"dagi", "mult_near"}  # further names on a method's page
PARTS = {"refiners": "refining", "objectives": "losses"}  # kind: page


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


def test_what_has_no_page_has_a_formula_and_networks_have_their_options() -> None:
    overview = (ROOT / "docs" / "methods.md").read_text(encoding="utf-8")
    formulas = overview.partition("## Baselines and bounds")[2].partition("```text\n")[2].partition("```")[0]
    assert set(re.findall(r"^\w+", formulas, re.MULTILINE)) == NO_PAPER - {"unison"}
    for name in registry.names("networks"):
        assert f"<!-- options: network {name} -->" in overview


def test_every_picture_s_caption_names_the_command_that_made_it() -> None:
    pages = {page: page.read_text(encoding="utf-8") for page in (ROOT / "docs").rglob("*.md")}
    shown = [
        (page, found.end()) for page, body in pages.items() for found in re.finditer(r"^!\[.*\)$", body, re.MULTILINE)
    ]
    assert len(shown) > 12
    for page, end in shown:
        assert "made by" in pages[page][end : end + 400].lower(), page


@pytest.mark.parametrize("kind", PARTS)
def test_every_refiner_and_objective_has_a_section_with_its_formula_and_options(kind: str) -> None:
    assert f": methods/{PARTS[kind]}.md\n" in (ROOT / "mkdocs.yml").read_text(encoding="utf-8")
    shown, what = text(PARTS[kind]), kind.removesuffix("s")
    sections = dict(re.findall(r"^## `(\w+)`$\n(.*?)(?=^## )", shown, re.MULTILINE | re.DOTALL))
    assert sorted(sections) == registry.names(kind)
    for name, section in sections.items():
        assert f"| [`{name}`](#{name}) |" in shown
        assert "```text\n" in section, f"{name} has no formula"
        assert "*Against " in section, f"{name} is compared with nothing"
        expected = [f"{what} {name}"] if options_of(registry.get(kind, name)) else []
        assert re.findall(r"<!-- options: (.+?) -->", section) == expected


def test_the_recipes_named_are_those_that_have_it() -> None:
    """Families of recipes, by what stands in their stages after the first (of `base`, in its only one)."""
    having: dict[str, set[str]] = {name: set() for kind in PARTS for name in registry.names(kind)}
    for recipe in shipped_recipes():
        stages = load_recipe(recipe).stages
        for part in (part for stage in stages[1:] or stages for part in (*stage.refiners, *stage.objectives)):
            having[part.use.name].add(recipe.partition("/")[0])
    shown = "".join(map(text, PARTS.values()))
    rows = re.findall(r"^\| \[`(\w+)`\]\(#\w+\) \|[^|]*\|[^|]*\|([^|]*)\|", shown, re.MULTILINE)
    assert {name: set(re.findall(r"`(\w+)`", cell)) for name, cell in rows} == having


def test_what_agree_and_propagate_do_is_what_is_stored() -> None:
    path = ROOT / "benchmarks" / "results" / "unison_settings.json"
    grids = json.loads(path.read_text(encoding="utf-8"))["mean_f1"].values()
    scores = {setting: 100 * score for grid in grids for setting, score in grid.items()}
    both = [setting.removesuffix("+agree") for setting in scores if setting.endswith("+agree")]
    rows = re.findall(r"^\| `(.+?)` \| ([\d.]+) \| ([\d.]+) \| ([\d.]*) ?\|$", text("refining"), re.MULTILINE)
    assert [row[0] for row in rows] == both
    for setting, alone, agree, propagate in rows:
        smoothed = scores.get(f"{setting}+propagate")
        assert (alone, agree) == (f"{scores[setting]:.1f}", f"{scores[f'{setting}+agree']:.1f}")
        assert propagate == ("" if smoothed is None else f"{smoothed:.1f}")
        assert scores[f"{setting}+agree"] > scores[setting]  # as the page says
        assert smoothed is None or smoothed < scores[setting]
