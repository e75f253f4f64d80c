"""Refuse paths that don't lead to what a command expects, before anything heavy is imported."""

from __future__ import annotations

import shlex
from collections.abc import Iterable
from pathlib import Path

from reidassoc.errors import CheckpointError, DataError, RecipeError, nearest_file

FEATURE_ARRAYS = "expected floats 'visible' (N_v, D) and 'infrared' (N_r, D) in a .npz or .safetensors file"
NAMED_WEIGHTS = ("imagenet", "none")  # of networks


def refuse_no_file(path: Path, what: str, expected: str) -> None:
    """Raise DataError where no file of arrays is."""
    if not path.is_file():
        raise DataError(f"no {what} {path}{nearest_file(path, '.npz', '.safetensors')}; {expected}")


def refuse_no_features(path: Path) -> None:
    """Raise DataError where no feature file is."""
    if (path / "recipe.yaml").is_file():
        next_step = shlex.join(["reidassoc", "features", str(path), "--out", "FILE"])
        raise DataError(f"{path} is a run folder, not a feature file; next: {next_step}")
    refuse_no_file(path, "feature file", FEATURE_ARRAYS)


def refuse_no_run(path: Path) -> None:
    """Raise CheckpointError where no run folder is."""
    if not (path / "recipe.yaml").is_file():
        raise CheckpointError(
            f"{path} is no run folder: it has no recipe.yaml{nearest_file(path)}; expected one made by reidassoc run"
        )


def refuse_no_results(path: Path) -> None:
    """Raise DataError where nothing is at all."""
    if not path.exists():
        raise DataError(
            f"{path} is no run folder, benchmark folder or exported cell: it has no result.json{nearest_file(path)}"
        )


def refuse_no_grid(path: Path) -> None:
    """Raise RecipeError where no benchmark spec is."""
    if not path.is_file():
        meant = nearest_file(path, ".yaml", ".yml")
        raise RecipeError(
            f"no benchmark spec {path}{meant}; expected a YAML file such as benchmarks/specs/synthetic.yaml"
        )


def refuse_no_dataset(root: Path, layouts: Iterable[str]) -> None:
    """Raise DataError where no root of a dataset is."""
    root = root.expanduser()
    if not root.exists():
        near = nearest_file(root)
        raise DataError(f"{root} does not exist{near}; expected the root of a dataset: {', '.join(layouts)}")


def refuse_no_weights(weights: str) -> None:
    """Raise CheckpointError where neither a name of weights nor a file of them is given."""
    if weights not in NAMED_WEIGHTS and not Path(weights).expanduser().is_file():
        raise CheckpointError(
            f"no weights file {weights}{nearest_file(Path(weights), '.pt', '.pth', '.safetensors')}; expected a "
            ".safetensors file or a torch checkpoint"
        )


def check_ending(path: Path) -> None:
    """Refuse a name that is neither .safetensors nor .npz, and a folder that is not there, before any work."""
    if path.suffix not in {".safetensors", ".npz"}:
        raise DataError(f"feature files end in .safetensors or .npz, got '{path}'")
    check_folder(path)


def check_folder(path: Path) -> None:
    """Refuse a file whose folder is not there, before any work."""
    if not path.parent.is_dir():
        raise DataError(f"can't write {path}: there is no folder {path.parent}")
