"""Checkpoints as the authors of the methods release them."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import torch

GOLDEN = Path(__file__).resolve().parents[1] / "golden" / "network"


def released(form: str, path: Path, **more: Any) -> dict[str, torch.Tensor]:
    """A checkpoint with the published keys and shapes, wrapped as the authors wrap theirs."""
    state = {}
    for number, line in enumerate((GOLDEN / f"state_dict_{form}.txt").read_text().splitlines()):
        key, _, shape = line.partition(" ")
        sizes = tuple(int(n) for n in re.findall(r"\d+", shape))
        scale = 1 + number / 1000 if re.search(r"(running_var|(bn\d|bottleneck).*weight)$", key) else 0.0
        state[key] = torch.full(sizes, (number % 5 - 2) / 1000 if len(sizes) > 1 else scale)
        if key.endswith("num_batches_tracked"):
            state[key] = torch.tensor(number)
    torch.save({"state_dict": {f"module.{key}": tensor for key, tensor in state.items()}, **more}, path)
    return state
