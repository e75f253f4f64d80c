"""A batch as losses see it: the views of one training step, with their labels at hand."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property

import torch.nn.functional as F
from torch import Tensor

from reidassoc.interfaces.scene import Scene
from reidassoc.types import STREAMS, Modality, SoftLabels, Targets


@dataclass(frozen=True)
class View:
    """One stream's share of a batch.

    Args:
        stream: ``visible``, ``augmented`` or ``infrared``.
        rows: (B,) int64, which samples of the modality these are.
        z: (B, D) with gradient, after the network's neck, not normalised.
        map: (B, C, h, w) feature map, if the network gives one; on several devices only where a part ``needs`` ``maps``.
        parts: part features by (query stream, map stream): (B, P, D).
    """

    stream: str
    rows: Tensor
    z: Tensor
    map: Tensor | None = None
    parts: Mapping[tuple[str, str], Tensor] = field(default_factory=dict)

    @property
    def modality(self) -> Modality:
        return STREAMS[self.stream]

    @cached_property
    def feature(self) -> Tensor:
        """(B, D) unit rows with gradient: what banks compare."""
        return F.normalize(self.z, dim=1)


@dataclass(frozen=True)
class Batch:
    """The views of one step, and the epoch's scene and targets."""

    views: Mapping[str, View]
    epoch: int
    scene: Scene
    targets: Targets
    _taken: dict[tuple[str, str], SoftLabels] = field(default_factory=dict, init=False, repr=False, compare=False)

    def __iter__(self) -> Iterator[View]:
        return iter(self.views.values())

    def __getitem__(self, stream: str) -> View:
        return self.views[stream]

    def labels(self, view: View, space: str) -> SoftLabels:
        """The targets of a view's samples in a label space, B rows."""
        if self.views.get(view.stream) is not view:
            return self.targets.of(view.modality, space).take(view.rows)
        if (view.stream, str(space)) not in self._taken:
            self._taken[view.stream, str(space)] = self.targets.of(view.modality, space).take(view.rows)
        return self._taken[view.stream, str(space)]

    def twin(self, view: View) -> View:
        """The other view of the same images: visible ↔ augmented; a stream seen once is its own twin."""
        name = {"visible": "augmented", "augmented": "visible"}.get(view.stream, view.stream)
        return self.views.get(name, view)
