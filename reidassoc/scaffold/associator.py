"""MyIdea: how clusters of the two modalities are associated."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from pydantic import Field

from reidassoc import Association, Associator, Scene
from reidassoc.ops.assignment import cosine_table, cross_labels, one_to_one


@dataclass(frozen=True, kw_only=True)
class MyIdea(Associator):
    """Match clusters one-to-one at the least sum of a power of their distances."""

    power: Annotated[float, Field(gt=0, description="large: one bad match is worse than several middling ones")] = 2.0

    def __call__(self, scene: Scene) -> Association:
        own = scene.clustering.own
        distance = 1 - cosine_table(own.visible.centroids, own.infrared.centroids)  # (K_v, K_r)
        partner = one_to_one(distance**self.power)
        return Association(cross=cross_labels(own, partner))
