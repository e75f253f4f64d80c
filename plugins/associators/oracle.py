"""The oracle: what a perfect association of these clusters would be worth. Diagnosis only: it sees true identities."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from reidassoc import OUTLIER, Association, Associator, Modality, Pair, Scene, SoftLabels
from reidassoc.ops.sparse import add_at


@dataclass(frozen=True, kw_only=True)
class Oracle(Associator):
    """Give every sample the other modality's cluster that holds most images of its true identity: the upper bound.

    For diagnosis only; every result of it is flagged. A sample whose identity has no clustered image in the other
    modality, or whose identity is unknown (negative), gets no label. Of equals the smaller cluster number wins.

    >>> from reidassoc.testing import toy_identity, toy_scene
    >>> association = Oracle()(toy_scene(), identity=toy_identity())
    >>> association.own is None
    True
    """

    needs = frozenset({"identity"})

    def __call__(self, scene: Scene, *, identity: Pair[Tensor] | None = None) -> Association:
        if identity is None:
            raise ValueError("oracle needs true identities: call it as oracle(scene, identity=Pair(visible, infrared))")
        for modality in Modality:
            count = len(scene.features[modality])
            if identity[modality].shape != (count,):
                shape = tuple(identity[modality].shape)
                raise ValueError(f"identity of the {modality} samples must be ({count},), got {shape}")
        return Association(cross=Pair.build(lambda modality: self.label(modality, scene, identity)))

    def label(self, modality: Modality, scene: Scene, identity: Pair[Tensor]) -> SoftLabels:
        """Label one modality's samples in the other one's space."""
        target = scene.clustering.own[modality.other]
        mine, theirs = identity[modality].to(target.labels.device), identity[modality.other].to(target.labels.device)
        if len(mine) == 0 or target.count == 0:
            return SoftLabels.one_hot(torch.full_like(mine, OUTLIER), target.count)
        names, number = torch.unique(torch.cat([mine, theirs]), return_inverse=True)
        known = (target.labels >= 0) & (theirs >= 0)
        cell = number[len(mine) :][known] * target.count + target.labels[known]
        table = add_at(cell, torch.ones(len(cell), device=cell.device), len(names) * target.count)
        most, cluster = table.view(len(names), target.count).max(dim=1)
        found = torch.where((most > 0) & (names >= 0), cluster, OUTLIER)
        return SoftLabels.one_hot(found[number[: len(mine)]], target.count)
