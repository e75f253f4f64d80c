"""Cross labels must hold in both directions."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch

from reidassoc import OUTLIER, Modality, Refiner, Scene, SoftLabels, Targets
from reidassoc.ops.sparse import add_at


@dataclass(frozen=True, kw_only=True)
class Agree(Refiner):
    """Keep a cross label only if the cluster that it names answers with the sample's own cluster.

    A cluster's answer is the most frequent cross label of its samples (all of them, where several are equally frequent). A
    cross label without such an answer, and that of a sample without an own cluster, gets weight 0; the distributions stay as
    they are. Targets without cross labels pass unchanged. Ours: the cluster-level form of mutual nearest neighbours.

    >>> from reidassoc.testing import toy_scene
    >>> from reidassoc import registry
    >>> scene = toy_scene()
    >>> targets = Targets.compose(scene.clustering, registry.build("associators", "pgm")(scene))
    >>> bool((Agree().refine(scene, targets).of("visible", "infrared").weight[:48] == 1).all())
    True
    """

    paper: ClassVar[str] = ""
    needs: ClassVar[frozenset[str]] = frozenset({"cross"})

    def refine(self, scene: Scene, targets: Targets) -> Targets:
        if not all(targets.has(modality, modality.other) for modality in Modality):
            return targets
        return targets.replaced({(m, str(m.other)): self.agreed(targets, m) for m in Modality})

    def agreed(self, targets: Targets, modality: Modality) -> SoftLabels:
        """The cross labels of one modality, those that are not answered with weight 0."""
        labels = targets.of(modality, modality.other)
        theirs, answer = targets.of(modality.other, modality.other), targets.of(modality.other, modality)
        if 0 in (labels.count, answer.count):
            return labels.with_weight(torch.zeros_like(labels.weight))
        mine, named, home, said = targets.of(modality, modality).hard, labels.hard, theirs.hard, answer.hard
        counts = (home != OUTLIER) & (said != OUTLIER)
        cell = home[counts] * answer.count + said[counts]
        votes = add_at(cell, torch.ones_like(cell, dtype=torch.float64), theirs.count * answer.count)
        votes = votes.view(theirs.count, answer.count)
        answers = (votes == votes.amax(dim=1, keepdim=True)) & (votes > 0)
        known = (mine != OUTLIER) & (named != OUTLIER)
        agreed = known & answers[named.clamp(min=0), mine.clamp(min=0)]
        return labels.with_weight(labels.weight * agreed)
