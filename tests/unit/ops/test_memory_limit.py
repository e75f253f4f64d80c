"""The memory limit: the sizes of blocks, and where whole matrices end."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st
from support.exact_rows import exact_rows
from torch import Tensor

import reidassoc as ra
from reidassoc.cli import cli
from reidassoc.engine import checkpoint
from reidassoc.errors import RecipeError
from reidassoc.ops import neighbours
from reidassoc.ops.jaccard import jaccard_similarity
from reidassoc.ops.memory_limit import block_rows, dense_fits, memory_limit
from reidassoc.recipe.model import Recipe
from reidassoc.recipe.override import override
from reidassoc.runs.folder import RunFolder
from reidassoc.types import Targets


def test_blocks_shrink_with_the_limit_alone() -> None:
    assert block_rows(1 << 24, 1 << 10) == 1 << 14  # the default limit leaves the stated blocks as they are
    with memory_limit(100):
        assert block_rows(1 << 24, 1 << 10) == 1 << 14
    with memory_limit(0.5):
        assert block_rows(1 << 24, 1 << 10) == 1 << 12
        with memory_limit(None):  # none said: what holds goes on
            assert block_rows(1 << 24, 1 << 10) == 1 << 12
    assert block_rows(1 << 24, 1 << 30) == 1
    assert block_rows(1 << 24, 0) == 1 << 24


def test_what_fits_as_a_whole() -> None:
    assert dense_fits(22_258, 11_909)  # SYSU-MM01
    assert not dense_fits(200_000, 100_000)
    with memory_limit(100):
        assert dense_fits(200_000, 100_000)


@pytest.mark.parametrize("gib", [0, -1.0, float("nan")])
def test_a_limit_is_positive(gib: float) -> None:
    with pytest.raises(ValueError, match="positive number of GiB"), memory_limit(gib):
        pass


@given(seed=st.integers(0, 10_000), count=st.integers(1, 150))
def test_small_blocks_give_the_same_neighbours(seed: int, count: int) -> None:
    x = exact_rows(count, 16, seed)
    index, affinity = neighbours.nearest(x, x, 9)[1], jaccard_similarity(x, k1=9, k2=3)
    with memory_limit(1e-5):
        assert torch.equal(neighbours.nearest(x, x, 9)[1], index)
        torch.testing.assert_close(jaccard_similarity(x, k1=9, k2=3).to_dense(), affinity.to_dense())


QUICK = [
    ("evaluate_every", 0),
    ("intra.epochs", 1),
    ("cross.epochs", 1),
    ("intra.iterations", 2),
    ("cross.iterations", 2),
]


@pytest.fixture
def seen(monkeypatch: pytest.MonkeyPatch) -> list[Tensor | None]:
    """The clusters of top rows that runs have trained with; None of dense labels."""
    found: list[Tensor | None] = []
    write = RunFolder.write_labels

    def spy(self: RunFolder, epoch: int, targets: Targets) -> None:
        found.extend(of.index for of in targets.table.values())
        write(self, epoch, targets)

    monkeypatch.setattr(RunFolder, "write_labels", spy)
    return found


def test_a_recipe_says_the_limit(small: Recipe, tmp_path: Path, seen: list[Tensor | None]) -> None:
    """A run with top rows can be resumed, and the limit ends with it."""
    recipe = override(small, [*QUICK, ("memory_limit", 1e-5), ("cross.associator", "mult_near")])
    ra.run(recipe, out=tmp_path / "run", device="cpu")
    assert all(index is not None for index in seen[-4:])
    assert dense_fits(22_258, 11_909)
    last = checkpoint.newest(RunFolder(tmp_path / "run"), torch.device("cpu"))
    assert all(index is not None for _, _, index, _ in last["targets"]["table"].values())
    with pytest.raises(RecipeError, match=r"^--set memory_limit=0: expected more than 0, got 0$"):
        override(small, [("memory_limit", 0)])


def test_associate_takes_a_limit(tmp_path: Path) -> None:
    x = F.normalize(torch.eye(6).repeat_interleave(8, 0) + 0.05 * torch.randn(48, 6), dim=1).numpy()
    np.savez(tmp_path / "features.npz", visible=x, infrared=x)
    asked = [str(tmp_path / "features.npz"), "--clusterer", "dbscan(k1=8)", "--out", str(tmp_path / "labels.npz")]
    done = CliRunner().invoke(cli, ["associate", *asked, "--associator", "mult_near", "--memory-limit", "1e-6"])
    assert done.exit_code == 0, done.output
    with np.load(tmp_path / "labels.npz") as found:
        assert (found["own_visible"] == np.arange(6).repeat(8)).all()
    assert CliRunner().invoke(cli, ["associate", *asked, "--memory-limit", "0"]).exit_code == 2
