"""Unit rows whose inner products float32 writes exactly: equal however they are summed, with many ties."""

from __future__ import annotations

import torch
from torch import Tensor


def exact_rows(count: int, width: int, seed: int) -> Tensor:
    """(count, width) float32: four entries of ½ or −½ in each row, so that products are multiples of ¼."""
    draw = torch.Generator().manual_seed(seed)
    place = torch.rand(count, width, generator=draw).argsort(dim=1)[:, :4]
    sign = torch.randint(0, 2, place.shape, generator=draw) - 0.5
    return torch.zeros(count, width).scatter_(1, place, sign)
