"""The two-stream ResNet of the field: a stem for each modality, one body for both."""

from __future__ import annotations

from collections.abc import Mapping
from copy import deepcopy
from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal

import torch
import torchvision
from pydantic import Field
from torch import Tensor, nn

from reidassoc.interfaces import Network, NetworkOutput
from reidassoc.weights import Layout, imagenet_state, load_into, read_state
from reidassoc_plugins.networks.layouts import LAYOUTS
from reidassoc_plugins.networks.necks import neck
from reidassoc_plugins.networks.non_local import NonLocal
from reidassoc_plugins.networks.parts import PartHeads, of_streams
from reidassoc_plugins.networks.pooling import generalised_mean

STEM = {"visible": "visible", "augmented": "visible", "infrared": "infrared"}  # the stem by which a stream enters
STRIDE = 16  # of the whole network, its last stage kept at full resolution
NON_LOCAL = {"layer2": 2, "layer3": 3}  # so many of a stage's last blocks are followed by a non-local one
HALVINGS = {"layer1": 8, "layer2": 4, "layer3": 2, "layer4": 1}  # by how much a stage is narrower than the last


@dataclass(frozen=True, kw_only=True)
class TwoStream(Network):
    """ResNet with a stem per modality and one shared body, GeM pooling and a BN neck.

    Last stride 1; SALCR's part heads and AGW's non-local blocks are options.

    >>> network = TwoStream(depth=18, weights="none").build(size=(64, 32))
    >>> network({"infrared": torch.zeros(2, 3, 64, 32)})["infrared"].z.shape
    torch.Size([2, 512])
    """

    paper: ClassVar[str] = "Ye et al., AGW, TPAMI 2021"
    variants: ClassVar[tuple[str, ...]] = ("parts=3",)
    layouts: ClassVar[Mapping[str, Layout]] = LAYOUTS

    depth: Annotated[Literal[18, 34, 50], Field(description="layers of the ResNet")] = 50
    non_local: Annotated[bool, Field(description="AGW's non-local blocks in the second and third stage")] = False
    parts: Annotated[int, Field(ge=0, description="part features per image (SALCR: 3); 0 = none")] = 0
    weights: Annotated[str, Field(description="start: imagenet, none, or a file of weights")] = "imagenet"

    @property
    def gives(self) -> frozenset[str]:  # type: ignore[override]  # what it gives depends on its options
        return frozenset({"parts"}) if self.parts else frozenset()

    def build(self, *, size: tuple[int, int]) -> nn.Module:
        """Return the module for images of ``size`` (height, width).

        Raises:
            ValueError: the images are too small for the network or its parts.
            CheckpointError: the weights file can't be read or does not fit.
            DataError: the ImageNet weights can't be had.
        """
        positions = -(-size[0] // STRIDE) * -(-size[1] // STRIDE)
        if min(size) < 1 or positions < max(self.parts, 1):
            raise ValueError(f"two_stream(parts={self.parts}): images of {size[0]} x {size[1]} pixels are too small")
        module = TwoStreamModule(self.depth, non_local=self.non_local, parts=self.parts)
        if self.weights == "imagenet":
            load_into(module, imagenet_state(self.depth), LAYOUTS.values(), source="the ImageNet weights")
        elif self.weights != "none":
            load_into(module, read_state(self.weights), LAYOUTS.values(), source=self.weights)
        return module


class TwoStreamModule(nn.Module):
    """Maps ``{stream: images (B, 3, H, W)}`` to ``{stream: NetworkOutput}``, for any of the three streams.

    Streams that share a stem pass it together, visible first, then augmented; after the stems all pass the body together,
    in the order visible, augmented, infrared: so batch-norm statistics are joint, as in the published networks.

    Args:
        depth: 18, 34 or 50.
        non_local: whether to add AGW's non-local blocks.
        parts: P of the part heads; 0 = none.
    """

    def __init__(self, depth: int, *, non_local: bool = False, parts: int = 0) -> None:
        super().__init__()
        resnet = getattr(torchvision.models, f"resnet{depth}")(weights=None)
        stem = nn.Sequential()
        for name in ("conv1", "bn1", "relu", "maxpool"):
            stem.add_module(name, getattr(resnet, name))
        self.stems = nn.ModuleDict({"visible": stem, "infrared": deepcopy(stem)})
        self.shared = nn.ModuleDict({name: getattr(resnet, name) for name in HALVINGS})
        keep_resolution(resnet.layer4[0])
        self.width: int = resnet.fc.in_features
        self.non_local = nn.ModuleDict()
        for name, stage in self.shared.items():
            count = min(NON_LOCAL.get(name, 0), len(list(stage.children()))) if non_local else 0
            self.non_local[name] = nn.ModuleList(NonLocal(self.width // HALVINGS[name]) for _ in range(count))
        self.neck = neck(self.width)
        self.heads = PartHeads(parts, self.width) if parts else None

    def forward(self, images: Mapping[str, Tensor]) -> dict[str, NetworkOutput]:
        if not images or set(images) - set(STEM):
            raise ValueError(f"two_stream takes the streams {', '.join(STEM)}, got {', '.join(images) or 'none'}")
        streams = [stream for stream in STEM if stream in images]
        sizes = [len(images[stream]) for stream in streams]
        entered = []
        for modality, stem in self.stems.items():
            entering = [images[stream] for stream in streams if STEM[stream] == modality]
            if entering:
                entered.append(stem(torch.cat(entering)))
        x = self.body(torch.cat(entered))
        pooled = generalised_mean(x)
        maps = dict(zip(streams, torch.split(x, sizes), strict=True))
        parts = of_streams(self.heads, maps)
        outputs = zip(streams, torch.split(self.neck(pooled), sizes), torch.split(pooled, sizes), strict=True)
        return {stream: NetworkOutput(z, before, maps[stream], parts[stream]) for stream, z, before in outputs}

    def body(self, x: Tensor) -> Tensor:
        """The shared stages, each followed block by block by its non-local ones, if any."""
        for name, stage in self.shared.items():
            blocks, extra = list(stage.children()), list(self.non_local[name].children())
            for number, block in enumerate(blocks, start=len(extra) - len(blocks)):
                x = block(x)
                if number >= 0:
                    x = extra[number](x)
        return x


def keep_resolution(block: nn.Module) -> None:
    """Take the stride out of a stage's first block: last stride 1."""
    for module in block.modules():
        if isinstance(module, nn.Conv2d):
            module.stride = (1, 1)
