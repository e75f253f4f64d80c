"""Long runs stay flat: the stored one (`python benchmarks/soak.py` makes it anew), and a short one here."""

from __future__ import annotations

import gc
import json
import sys
from collections.abc import Mapping
from importlib import import_module
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from torch import Tensor

import reidassoc as ra
from reidassoc.recipe.model import Recipe
from reidassoc.recipe.override import override
from reidassoc.runs.folder import KEPT

ROOT = Path(__file__).resolve().parents[3]
BENCHMARKS = ROOT / "benchmarks"


def test_the_stored_long_run_stayed_flat() -> None:
    stored = json.loads((BENCHMARKS / "results" / "soak.json").read_text(encoding="utf-8"))
    assert stored["epochs"] >= 200
    assert set(stored["verdicts"]) == {"memory", "open files", "checkpoints", "disk"}
    assert all(stored["verdicts"].values())
    memory = stored["memory_bytes"]
    assert memory["last quarter"] - memory["second quarter"] <= max(16 << 20, 0.01 * memory["second quarter"])
    assert stored["open_files"]["later"] <= stored["open_files"]["first quarter"]
    assert stored["checkpoints"] == KEPT
    assert stored["disk_bytes_per_epoch"] <= 64 << 10
    said = (ROOT / "docs" / "reliability.md").read_text(encoding="utf-8")
    assert stored["date"] in said.partition("## Long runs")[2]


@pytest.mark.skipif(sys.platform != "linux", reason="the meters read /proc")
def test_an_epoch_leaves_nothing_behind(small: Recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ten epochs by the long run's meters, and the number of tensors that are alive after each."""
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    tensors: list[int] = []

    class Watch(import_module("soak").Watch):  # type: ignore[misc]
        def report(self, row: Mapping[str, Any]) -> None:
            super().report(row)
            gc.collect()
            tensors.append(sum(issubclass(type(found), Tensor) for found in gc.get_objects()))

    watch = Watch()
    ra.run(
        override(small, [("cross.epochs", 8), ("cross.iterations", 1)]), out=tmp_path / "run", device="cpu", log=watch
    )
    assert len(tensors) == 10
    assert len(set(watch.files[1:])) == 1
    assert max(watch.checkpoints) == KEPT
    assert len(set(tensors[4:])) == 1  # a stage's second epoch has all that an epoch can have of the one before
    assert (
        max(after - before for before, after in pairwise(watch.disk[2:-1])) <= 64 << 10
    )  # the last keeps exhibits, too
