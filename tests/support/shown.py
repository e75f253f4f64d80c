"""Run what the docs show: commands and Python, in an empty folder, at a size for tests."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from reidassoc import registry
from reidassoc.bench import plan, runner
from reidassoc.bench.worker import work
from reidassoc.cli import cli
from reidassoc.data.export import export
from reidassoc.engine import run as from_python
from reidassoc.engine import train
from reidassoc.recipe.choose import choose
from reidassoc.recipe.load import parse_recipe
from reidassoc.recipe.model import Recipe
from reidassoc.registry.spec import Spec

TREES = {"SYSU-MM01": "sysu_mm01", "RegDB": "regdb", "LLCM": "llcm"}  # /data/NAME in the docs
FENCE = re.compile(r'^```(\w+)(?: title="([^"]+)")?\n(.*?)^```$', re.M | re.S)


def blocks(text: str) -> Iterator[tuple[str, str, str]]:
    """(language, title or nothing, text) of every fenced block of a page."""
    for found in FENCE.finditer(text):
        yield found[1], found[2] or "", found[3]


def shrunk(recipe: Recipe, *, first: int = 1) -> Recipe:
    """A recipe for tests: the same parts on a tiny network and tiny data, one epoch per stage. Shrinking twice is once.

    Args:
        first: epochs of the first stage instead.
    """
    data = recipe.model_dump(mode="json")
    dataset = Spec.parse(data["dataset"])
    if dataset.name == "synthetic":
        data["dataset"] = "synthetic(size='tiny')"
    named = [str(part) for stage in data["stages"] for part in (*stage["objectives"], *stage["refiners"])]
    used = [Spec.parse(text.rpartition("* ")[2]) for text in named]
    parts = any(spec.name in {"fgsal", "gpcr"} and spec.options.get("parts", True) for spec in used)
    data["network"] = "two_stream(depth=18, parts=3, weights='none')" if parts else "tiny"
    data |= {"size": [64, 32], "evaluate_every": 0}
    for stage in data["stages"]:
        stage |= {"epochs": 1, "iterations": 1, "identities": 4, "images": 2}
    data["stages"][0]["epochs"] = first
    return parse_recipe(data, recipe.name)


@dataclass
class Shown:
    """A folder in which a page's blocks are run, one after the other.

    Args:
        place: an empty folder, the current one.
        data: holds what stands for /data.
    """

    place: Path
    data: Path
    names: dict[str, Any] = field(default_factory=dict)

    def shell(self, text: str) -> None:
        """Run the reidassoc commands of a block; nothing else may be in it."""
        for line in text.replace("\\\n", " ").splitlines():
            words = shlex.split(line, comments=True)
            if not words:
                continue
            assert words[0] == "reidassoc", f"not run: {line}"
            words = [word.replace("/data/", f"{self.data}/") for word in words[1:]]
            if words[0] == "run" and "--device" not in words:
                words += ["--device", "cpu"]
            done = CliRunner().invoke(cli, words)
            if done.exit_code != 0:
                raise AssertionError(f"{line}: {done.output}") from done.exception

    def python(self, text: str, title: str) -> None:
        """Run a block; one with a title is a file of that name, for the blocks after it."""
        if title:
            self.file(text, title)
        else:
            exec(compile(text, "a block of the docs", "exec"), self.names)

    def file(self, text: str, title: str) -> None:
        """Write a file that the page shows."""
        (self.place / title).write_text(text, encoding="utf-8")


def small_runs(monkeypatch: pytest.MonkeyPatch, *, first: int = 1) -> None:
    """Let every run, from the command line, Python or a grid, be of a shrunk recipe, in this process; `first` as there."""
    real = train.run

    def run(recipe: Recipe, **rest: Any) -> Any:
        return real(shrunk(recipe, first=first), **{**rest, "device": "cpu"})

    monkeypatch.setattr(train, "run", run)
    monkeypatch.setattr(from_python, "train", run)
    monkeypatch.setattr(plan, "choose", lambda **words: shrunk(choose(**words), first=first))
    monkeypatch.setattr(runner.Runner, "run", first_cells)


def first_cells(grid: runner.Runner, watch: Any) -> None:
    """Run a grid's first two cells; the table of the others is the same code."""
    work(replace(grid.plan, cells=grid.plan.cells[:2]), grid.store, device="cpu")


def trees(folder: Path) -> Path:
    """Tiny stand-ins for the datasets that the docs speak of."""
    dataset = registry.build("datasets", "synthetic(size='tiny')")
    for name, layout in TREES.items():
        export(dataset, folder / name, layout=layout)
    return folder
