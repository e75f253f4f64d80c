"""Synthetic features of as many people and images as a data set has, and how well labels name the people.

Unit vectors of identities of uneven size (395 at SYSU-MM01's size): each a shared direction plus one of its own in each
modality, an offset per modality and white noise, from the stated seed.
"""

from __future__ import annotations

import torch
from torch import Tensor

from reidassoc.types import Features, Pair

VISIBLE, INFRARED, IDENTITIES, WIDTH = 22_258, 11_909, 395, 2048  # of SYSU-MM01's training set


def synthetic(
    scale: float, seed: int, noise: float = 1.0, *, width: int = WIDTH
) -> tuple[Pair[Features], Pair[Tensor]]:
    """Features and true identities; sizes and identities shrink with `scale`."""
    counts = Pair(*(max(8, round(count * scale)) for count in (VISIBLE, INFRARED)))
    return crowd(counts, max(2, round(IDENTITIES * scale)), seed, noise, width=width)


def crowd(
    counts: Pair[int], identities: int, seed: int, noise: float = 1.0, *, width: int = WIDTH
) -> tuple[Pair[Features], Pair[Tensor]]:
    """Features and true identities of so many images of so many people."""
    shared = torch.randn(identities, width, generator=torch.Generator().manual_seed(seed))

    def one(count: int, number: int) -> tuple[Features, Tensor]:
        generator = torch.Generator().manual_seed(seed + number)
        share = torch.exp(0.4 * torch.randn(identities, generator=generator))
        identity = torch.multinomial(share, count, replacement=True, generator=generator)
        identity = identity.sort().values
        centre = shared + 0.5 * torch.randn(identities, width, generator=generator)
        centre += 0.5 * torch.randn(1, width, generator=generator)
        x = torch.empty(len(identity), width)
        for rows in torch.arange(len(x)).split(2048):
            part = centre[identity[rows]] + noise * torch.randn(len(rows), width, generator=generator)
            x[rows] = torch.nn.functional.normalize(part, dim=1)
        return Features(x), identity

    (visible, identity_v), (infrared, identity_r) = one(counts.visible, 1), one(counts.infrared, 2)
    return Pair(visible, infrared), Pair(identity_v, identity_r)


def agreement(labels: Tensor, identity: Tensor) -> float:
    """Share of samples whose cluster's commonest identity is their own."""
    kept = labels >= 0
    if not bool(kept.any()):
        return 0.0
    table = torch.zeros(int(labels.max()) + 1, int(identity.max()) + 1)
    table.index_put_((labels[kept], identity[kept]), torch.ones(int(kept.sum())), accumulate=True)
    return float((table.argmax(1)[labels[kept]] == identity[kept]).sum() / len(labels))
