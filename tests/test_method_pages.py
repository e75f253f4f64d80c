"""Every published method has a page, the same sections on each."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from reidassoc import registry

ROOT = Path(__file__).parent.parent
PAGES = ROOT / "docs" / "methods"

SECTIONS = ["Idea", "Options", "Paper and code"]
# The associators of each page.
METHODS: dict[str, tuple[str, ...]] = {
    "mult": ("mult",),
    "mmm": ("mmm",),
    "salcr": ("salcr",),
    "pgm": ("pgm",),
    "otla": ("otla",),
    "bccm": ("bccm",),
    "adca": ("cma",),
    "cclnet": ("cclnet",),
    "gur": ("clu",),
    "hil": ("brst",),
    "rpnr": ("rpnr",),
    "nulc": ("nulc",),
}
NO_PAPER = {"from_file", "nearest", "oracle", "random", "unison"}  # unison has docs/unison.md
ALIASES = {"dagi"}


def text(page: str) -> str:
    return (PAGES / f"{page}.md").read_text(encoding="utf-8")


def test_every_published_associator_has_a_page_in_the_menu() -> None:
    published = {entry.name for entry in registry.entries("associators")} - NO_PAPER - ALIASES
    assert {rows[0] for rows in METHODS.values()} == published
    menu = (ROOT / "mkdocs.yml").read_text(encoding="utf-8")
    for page in METHODS:
        assert f": methods/{page}.md\n" in menu


@pytest.mark.parametrize("page", METHODS)
def test_a_page_has_its_sections_its_picture_and_its_options(page: str) -> None:
    assert re.findall(r"^## (.+)$", text(page), re.MULTILINE) == SECTIONS
    name = METHODS[page][0]
    idea, options = text(page).partition("## Options")[::2]
    assert f"../images/methods/{name}.svg" in idea
    assert "```text\n" in idea  # its formula
    assert f"reidassoc run --associator {name}" in options
    assert "`reidassoc show " in options
