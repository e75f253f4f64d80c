"""A network small enough for CPUs, with fixed oriented edges instead of pretrained weights."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Annotated, ClassVar

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from reidassoc import Modality, Network, NetworkOutput
from reidassoc.types import STREAMS
from reidassoc_plugins.networks.necks import neck
from reidassoc_plugins.networks.parts import PartHeads, as_rows, of_streams

LUMA = (0.299, 0.587, 0.114)  # ITU-R BT.601
DEVIATION = (0.229, 0.224, 0.225)  # ImageNet's, by which images were divided
ORIENTATIONS = 8
GRID = (16, 8)  # cells, whatever the size of the images
CONTRAST_FLOOR = 0.03  # of luminance in [0, 1]; noise on a flat ground is not blown up


class OrientedEdges(nn.Module):
    """Edge strength by orientation, blind to polarity: images (B, 3, H, W) -> (B, 8, h, w), at least 0.

    Luminance is divided by its local contrast and differentiated; an edge of strength m and direction φ adds
    m · cos⁴(φ − θ) to orientation θ of its cell, in which strengths are averaged. Nothing here learns. A dark coat on a
    light ground and a light one on a dark ground look the same: that, and nothing about identities, is what it brings in
    the place of pretrained weights.
    """

    luma: Tensor
    tuning: Tensor

    def __init__(self, grid: tuple[int, int]) -> None:
        super().__init__()
        self.grid = grid
        weight = torch.tensor([w * d for w, d in zip(LUMA, DEVIATION, strict=True)])
        self.register_buffer("luma", weight.view(3, 1), persistent=False)
        angle = torch.arange(ORIENTATIONS) * (math.pi / ORIENTATIONS)
        # cos⁴(φ − θ) = 3/8 + ½ cos 2(φ − θ) + ⅛ cos 4(φ − θ): five averages per cell serve all orientations.
        turned = [(2 * angle).cos() / 2, (2 * angle).sin() / 2, (4 * angle).cos() / 8, (4 * angle).sin() / 8]
        tuning = torch.stack([torch.full_like(angle, 3 / 8), *turned], 1)
        self.register_buffer("tuning", tuning.view(ORIENTATIONS, 5, 1, 1), persistent=False)

    @torch.no_grad()
    def forward(self, images: Tensor) -> Tensor:
        light = (images * self.luma.view(1, 3, 1, 1)).sum(1, keepdim=True)
        mean = local_mean(light, self.grid)
        spread = (local_mean(light.square(), self.grid) - mean.square()).clamp_min(0).sqrt()
        light = F.pad((light - mean) / (spread + CONTRAST_FLOOR), (1, 1, 1, 1), mode="replicate")
        smooth = light[:, :, :-2] + 2 * light[:, :, 1:-1] + light[:, :, 2:]
        along_x = (smooth[..., 2:] - smooth[..., :-2]) / 8
        smooth = light[..., :-2] + 2 * light[..., 1:-1] + light[..., 2:]
        along_y = (smooth[:, :, 2:] - smooth[:, :, :-2]) / 8
        strength = (along_x.square() + along_y.square()).sqrt().clamp_min(1e-6)
        cos_2 = (along_x.square() - along_y.square()) / strength.square()
        sin_2 = 2 * along_x * along_y / strength.square()
        cos_4, sin_4 = cos_2.square() - sin_2.square(), 2 * cos_2 * sin_2
        harmonics = strength * torch.cat([torch.ones_like(cos_2), cos_2, sin_2, cos_4, sin_4], 1)
        cells = F.adaptive_avg_pool2d(harmonics, self.grid)
        return F.conv2d(cells, self.tuning).clamp_min(0).sqrt()


def local_mean(x: Tensor, grid: tuple[int, int]) -> Tensor:
    """The mean around each pixel, over about three cells of the grid each way."""
    cells = F.avg_pool2d(F.adaptive_avg_pool2d(x, grid), 3, stride=1, padding=1, count_include_pad=False)
    return F.interpolate(cells, size=x.shape[2:], mode="bilinear", align_corners=False)


class TinyNet(nn.Module):
    """Fixed edges plus a learnt correction that starts at zero, on a grid; an orthogonal projection; a neck per modality."""

    def __init__(self, *, width: int, channels: int, size: tuple[int, int], parts: int = 0) -> None:
        super().__init__()
        self.width = width
        grid = (min(GRID[0], size[0]), min(GRID[1], size[1]))
        self.edges = OrientedEdges(grid)
        self.normal = nn.ModuleDict({m.value: nn.BatchNorm2d(ORIENTATIONS, affine=False) for m in Modality})
        self.stems = nn.ModuleDict({m.value: stem(channels) for m in Modality})
        self.branch = nn.Sequential(
            nn.Conv2d(channels, channels, 3, padding=1, bias=False),
            nn.BatchNorm2d(channels),
            nn.ReLU(inplace=True),
            nn.Conv2d(channels, ORIENTATIONS, 3, padding=1, bias=False),
        )
        nn.init.zeros_(self.branch[-1].weight)  # type: ignore[arg-type]
        self.project = nn.Linear(ORIENTATIONS * grid[0] * grid[1], width, bias=False)
        nn.init.orthogonal_(self.project.weight)
        self.necks = nn.ModuleDict({m.value: neck(width) for m in Modality})
        self.heads = PartHeads(parts, ORIENTATIONS * grid[1]) if parts else None

    def forward(self, images: Mapping[str, Tensor]) -> dict[str, NetworkOutput]:
        counts = {stream: len(x) for stream, x in images.items()}
        edges = self.edges(torch.cat(list(images.values())))
        split = dict(zip(counts, edges.split(list(counts.values())), strict=True))
        split = self.by_modality(self.normal, split)
        edges = torch.cat([split[stream] for stream in counts])
        split = self.by_modality(self.stems, split)
        maps = edges + self.branch(torch.cat([split[stream] for stream in counts]))
        pooled_rows = self.project(maps.flatten(1))
        rows = dict(zip(counts, pooled_rows.split(list(counts.values())), strict=True))
        found = dict(zip(counts, maps.split(list(counts.values())), strict=True))
        after = self.by_modality(self.necks, rows)
        parts = of_streams(self.heads, found, as_rows)
        return {s: NetworkOutput(z=after[s], pooled=rows[s], map=found[s], parts=parts[s]) for s in counts}

    @staticmethod
    def by_modality(norms: nn.ModuleDict, streams: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Normalise the streams of each modality together, so that visible and augmented share their statistics."""
        out: dict[str, Tensor] = {}
        for modality in Modality:
            own = {stream: x for stream, x in streams.items() if STREAMS[stream] is modality}
            if own:
                joined = norms[modality.value](torch.cat(list(own.values())))
                out.update(zip(own, joined.split([len(x) for x in own.values()]), strict=True))
        return out

    @torch.no_grad()
    def calibrate(self, batches: Iterable[Mapping[str, Tensor]]) -> None:
        """Take the batch norms' statistics from a few batches of ``{stream: images}``: without them, features of an untrained
        network are those of no modality."""
        norms = [m for m in self.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm)]
        momenta = [norm.momentum for norm in norms]
        training = self.training
        self.train()
        for norm in norms:
            norm.reset_running_stats()
            norm.momentum = None  # a plain average over the batches
        for images in batches:
            self(images)
        for norm, momentum in zip(norms, momenta, strict=True):
            norm.momentum = momentum
        self.train(training)


def stem(channels: int) -> nn.Sequential:
    """The branch's first layer."""
    conv = nn.Conv2d(ORIENTATIONS, channels, 3, padding=1, bias=False)
    return nn.Sequential(conv, nn.BatchNorm2d(channels), nn.ReLU(inplace=True))


@dataclass(frozen=True, kw_only=True)
class Tiny(Network):
    """Edges, a grid and a small convolutional branch: trains on a CPU in minutes; for the synthetic pedestrians."""

    variants: ClassVar[tuple[str, ...]] = ("parts=3",)

    width: Annotated[int, Field(ge=8, le=1024, description="of the embedding")] = 256
    channels: Annotated[int, Field(ge=1, description="of the learnt branch")] = 32
    parts: Annotated[int, Field(ge=0, le=16, description="part features per image (SALCR: 3); 0 = none")] = 0

    @property
    def gives(self) -> frozenset[str]:  # type: ignore[override]  # what it gives depends on its options
        return frozenset({"parts"}) if self.parts else frozenset()

    def build(self, *, size: tuple[int, int]) -> nn.Module:
        """Return the module for images of ``size`` (height, width).

        Raises:
            ValueError: the images have fewer rows than parts are asked for.
        """
        if size[0] < self.parts:
            raise ValueError(f"tiny(parts={self.parts}): images of {size[0]} x {size[1]} pixels are too small")
        return TinyNet(width=self.width, channels=self.channels, size=size, parts=self.parts)
