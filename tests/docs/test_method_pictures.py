"""The pictures of the methods' pages are what their command draws today."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "docs"))
from method_pictures import IMAGES, NAMES, PERSONS, picture, scene, shares


def test_every_method_has_its_picture() -> None:
    assert sorted(path.stem for path in IMAGES.glob("*.svg")) == sorted(NAMES)


@pytest.mark.parametrize("name", ["pgm", "cma", "rpnr"])  # decided by sums that no rounding turns
def test_a_picture_is_today_s(name: str) -> None:
    assert picture(name, scene()) == (IMAGES / f"{name}.svg").read_text(encoding="utf-8")


def test_what_a_picture_says_is_what_the_docs_say() -> None:
    few, all_of_them = shares("cma", scene()), shares("pgm", scene())
    assert bool((all_of_them.visible.sum(1) == 1).all())  # everybody gets a partner
    assert 0 < int((few.visible.sum(1) == 1).sum()) < len(PERSONS.visible)  # only the surest get one
