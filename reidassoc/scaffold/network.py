"""MyIdea: the network that turns images into features."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor, nn

from reidassoc import Network, NetworkOutput


class MyIdeaModule(nn.Module):
    """Maps ``{stream: images (B, 3, H, W)}`` to ``{stream: NetworkOutput}``; all streams pass together."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.width = width  # the engine reads it: D of the features
        self.body = nn.Sequential(
            nn.Conv2d(3, 32, 5, stride=2, padding=2), nn.BatchNorm2d(32), nn.ReLU(),
            nn.Conv2d(32, width, 3, stride=2, padding=1), nn.BatchNorm2d(width), nn.ReLU(),
        )  # fmt: skip
        self.neck = nn.BatchNorm1d(width)

    def forward(self, images: Mapping[str, Tensor]) -> dict[str, NetworkOutput]:
        sizes = [len(x) for x in images.values()]
        maps = self.body(torch.cat(list(images.values())))
        pooled = maps.mean((2, 3))  # (B, D)
        columns = (part.split(sizes) for part in (self.neck(pooled), pooled, maps))
        return {
            stream: NetworkOutput(*output) for stream, output in zip(images, zip(*columns, strict=True), strict=True)
        }


@dataclass(frozen=True, kw_only=True)
class MyIdea(Network):
    """Two convolutions, the mean over positions, and a BN neck."""

    width: Annotated[int, Field(ge=1, description="D, of the features")] = 128

    def build(self, *, size: tuple[int, int]) -> nn.Module:
        return MyIdeaModule(self.width)
