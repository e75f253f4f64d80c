"""MMM: clusters are matched by several memories each."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor

from reidassoc import OUTLIER, Association, Associator, Modality, Pair, Scene
from reidassoc.ops.assignment import cross_labels, in_rounds
from reidassoc.ops.memories import memory_cost, sub_memories
from reidassoc.ops.seeds import NUMPY_SEEDS, seed_for


@dataclass(frozen=True, kw_only=True)
class Mmm(Associator):
    """Match the clusters of the two modalities by the distances between several memories of each.

    Multi-Memory Learning and Matching: Shi et al., "Multi-Memory Matching for unsupervised visible-infrared person
    re-identification", ECCV 2024, arXiv 2401.06825. K-means splits every cluster into ``memories`` centres. The cost of a
    pair sums, over the centres of one side (``direction``), the distance to the nearest centre of the other side.

    ``hungarian`` (paper, default) matches one-to-one at the least total cost and the leftovers of the larger side in
    further rounds, so that every cluster has a partner. ``greedy`` (released code, whose direction is ``infrared``) lets
    every visible cluster take its cheapest infrared one if that costs less than ``limit``; an infrared cluster's partner
    is then the cheapest of those that took it, or nobody. A sample's cross label is its cluster's partner. Own labels are
    the clusterer's; outliers have no cross label.

    >>> from reidassoc.testing import toy_scene
    >>> cross = Mmm()(toy_scene()).cross
    >>> sorted(set(cross.visible.hard.tolist())) == [-1, *range(8)]
    True
    """

    paper: ClassVar[str] = "Shi et al., ECCV 2024, arXiv 2401.06825"

    memories: Annotated[int, Field(ge=1, description="sub-memories per cluster")] = 4
    matcher: Annotated[Literal["hungarian", "greedy"], Field(description="paper: hungarian, code: greedy")] = (
        "hungarian"
    )
    direction: Annotated[
        Literal["visible", "infrared"], Field(description="whose sub-memories the cost sums (paper, code)")
    ] = "visible"
    limit: Annotated[float, Field(gt=0, description="greedy: clusters that cost as much stay unmatched")] = 20.0

    def __call__(self, scene: Scene) -> Association:
        own = scene.clustering.own
        partner = self.match(Pair.build(lambda modality: self.split(scene, modality)))
        return Association(cross=cross_labels(own, partner))

    def split(self, scene: Scene, modality: Modality) -> Tensor:
        """(K, n, D) sub-memories of a modality's clusters."""
        own = scene.clustering.own[modality]
        seed = seed_for(scene.seed, scene.epoch, "mmm") % NUMPY_SEEDS
        return sub_memories(scene.features[modality].x, own.labels, own.count, count=self.memories, seed=seed)

    def match(self, memories: Pair[Tensor]) -> Pair[Tensor]:
        """Match clusters by their sub-memories (K, n, D): each one's partner (K,) int64 on the host, −1 = nobody."""
        if self.direction == "visible":
            cost = memory_cost(memories.visible, memories.infrared)
        else:
            cost = memory_cost(memories.infrared, memories.visible).T
        return in_rounds(cost) if self.matcher == "hungarian" else self.greedy(cost)

    def greedy(self, cost: Tensor) -> Pair[Tensor]:
        """Every visible cluster takes its cheapest infrared one; an infrared one answers the cheapest that took it."""
        if 0 in cost.shape:
            return Pair(*(torch.full((size,), OUTLIER, dtype=torch.int64) for size in cost.shape))
        least, taken = cost.min(dim=1)
        near = least < self.limit
        courted = torch.full_like(cost, torch.inf)
        rows = near.nonzero().flatten()
        courted[rows, taken[rows]] = least[rows]
        answer, suitor = courted.min(dim=0)
        return Pair(
            torch.where(near, taken, OUTLIER),
            torch.where(answer.isfinite(), suitor, OUTLIER),
        )
