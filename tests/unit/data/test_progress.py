"""Progress of long work: a line a minute, from every command that would be silent for longer."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from click.testing import CliRunner

import reidassoc as ra
from reidassoc.cli import cli
from reidassoc.data import check as checking
from reidassoc.data import progress as module
from reidassoc.data import store
from reidassoc.data.export import export
from reidassoc.data.progress import Progress
from reidassoc.engine.setup import training_images
from reidassoc.recipe.choose import choose
from reidassoc_plugins.datasets.synthetic import Synthetic


@pytest.fixture
def hasty(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every look at the clock is a minute later, and images are read in small blocks."""
    monkeypatch.setattr(module, "EVERY_S", 0.0)
    monkeypatch.setattr(store, "BLOCK", 40)
    monkeypatch.setattr(checking, "BLOCK", 100)


def test_a_line_comes_once_a_minute_and_none_at_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = iter([0.0, 1.0, 59.0, 60.0, 119.0, 121.0, 300.0])
    monkeypatch.setattr(module.time, "monotonic", lambda: next(clock))
    said: list[str] = []
    progress = Progress("reading images", said.append)
    for done in (1, 2, 3, 4, 5, 6):
        progress(done, 6)
    assert said == ["reading images: 3 of 6", "reading images: 5 of 6"]


def test_a_run_says_how_far_it_has_drawn_its_images(hasty: None) -> None:
    said: list[str] = []
    training_images(Synthetic(size="tiny"), choose(), said.append)
    assert said == [f"reading {m} images: {n} of 128" for m in ("visible", "infrared") for n in (40, 80, 120)]


def test_evaluate_and_features_speak_to_standard_error(finished: Path, hasty: None, tmp_path: Path) -> None:
    for words in (["evaluate", str(finished), "--json"], ["features", str(finished), "--out", str(tmp_path / "f.npz")]):
        done = CliRunner().invoke(cli, [*words, "--device", "cpu"], catch_exceptions=False)
        assert done.exit_code == 0
        assert "reading" not in done.stdout
        assert "reading infrared images: 40 of" in done.stderr
    said: list[str] = []
    recipe = choose(dataset="synthetic(size='tiny')", changes={"extract_batch": 60})
    ra.save_features(recipe, tmp_path / "g.npz", device="cpu", progress=said.append)
    assert "features of visible images: 120 of 128" in said


def test_data_check_says_little(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, hasty: None) -> None:
    export(Synthetic(size="tiny"), tmp_path / "tree", layout="regdb")
    done = CliRunner().invoke(cli, ["data", "check", str(tmp_path / "tree")], catch_exceptions=False)
    lines = done.stderr.splitlines()
    assert len(lines) > 2
    assert all(re.fullmatch(r"reading images: \d+ of \d+|(\d+) of \1 images", line) for line in lines)
    monkeypatch.setattr(module, "EVERY_S", 60.0)
    done = CliRunner().invoke(cli, ["data", "check", str(tmp_path / "tree")], catch_exceptions=False)
    assert done.stderr.splitlines() == lines[-1:]
