"""The golden vectors of tests/golden: outputs of the methods' published code."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from torch import Tensor

GOLDEN = Path(__file__).resolve().parents[1] / "golden"


def golden(name: str) -> dict[str, Tensor]:
    """Every array of a golden file as a tensor."""
    with np.load(GOLDEN / "s0" / f"{name}.npz") as file:
        return {key: torch.from_numpy(file[key]) for key in file.files}
