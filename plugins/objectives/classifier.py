"""Classifier: the objective of MMM's released main stage, which has no bank."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from reidassoc import OUTLIER, SHARED, Bank, Banks, Batch, Modality, Objective, Scene, SoftLabels, Targets, View
from reidassoc.interfaces import Sampling
from reidassoc.ops.confidence import confidence
from reidassoc.ops.losses import soft_cross_entropy
from reidassoc.ops.seeds import NUMPY_SEEDS, seed_for
from reidassoc.ops.triplet import hardest_triplet

SPREAD = 0.001  # standard deviation of the classifier's first weights


@dataclass(frozen=True, kw_only=True)
class Classifier(Objective):
    """Classify images of both modalities into common pseudo-identities, and keep those apart by hard triplets.

    Labels of both modalities are read in one space. *Identity*: cross-entropy of a linear classifier on the feature after
    the neck, a mean over all rows of all streams, weighted by w: the probability that a sample's loss of the last epoch
    belongs to the lower of two Gaussians fitted to its modality's losses (scaled to [0, 1]). For the stage's first
    ``plain_epochs`` epochs, and while there are no losses, w = 1. *Triplet*: margin + distance to the farthest row of the
    same label − distance to the nearest of another, where positive; Euclidean, between unit features; from the stage's epoch
    ``triplet_from``. The classifier starts anew whenever labels are made: say ``relabel: once`` in the stage, as published.
    Source: Shi et al., MMM, ECCV 2024, arXiv 2401.06825, released code.
    """

    paper: ClassVar[str] = "Shi et al., ECCV 2024, arXiv 2401.06825"
    sampling: ClassVar[Sampling] = "paired"  # unless `draw` says otherwise
    needs: ClassVar[frozenset[str]] = frozenset({"cross", "losses"})  # `shared` for `cross` if `space` is shared
    variants: ClassVar[tuple[str, ...]] = ("space='shared', draw='shared'",)

    triplet: Annotated[float, Field(ge=0, description="weight of the triplet term")] = 1.0
    triplet_from: Annotated[int, Field(ge=0, description="epoch of the stage from which triplets count")] = 0
    margin: Annotated[float, Field(ge=0, description="of the triplets")] = 0.2
    plain_epochs: Annotated[int, Field(ge=0, description="epochs of the stage in which all samples count alike")] = 5
    space: Annotated[Literal["visible", "infrared", "shared"], Field(description="of the common labels")] = "infrared"
    draw: Annotated[Sampling, Field(description="from which labels batches are drawn")] = "paired"

    def __post_init__(self) -> None:
        object.__setattr__(self, "sampling", self.draw)
        object.__setattr__(self, "needs", frozenset({"shared" if self.space == SHARED else "cross", "losses"}))

    def modules(self, scene: Scene, targets: Targets) -> nn.Module:
        """The classifier (D → K), without bias."""
        count = targets.of(Modality.VISIBLE, self.space).count
        linear = nn.Linear(scene.features.visible.width, count, bias=False)
        nn.init.normal_(linear.weight, std=SPREAD)
        return linear

    def banks(self, scene: Scene, targets: Targets) -> Sequence[Bank]:
        for modality in Modality:
            self.trust(scene, targets, modality)  # once per epoch, on the host: so no step has to wait for it
        return ()

    def __call__(self, batch: Batch, banks: Banks, module: nn.Module | None = None) -> Mapping[str, Tensor]:
        assert module is not None  # the engine hands over what `modules` made
        views = list(batch)
        known = [batch.labels(view, self.space) for view in views]
        trust = [self.trust(batch.scene, batch.targets, view.modality)[view.rows] for view in views]
        weight = torch.cat([rows.weight * sure for rows, sure in zip(known, trust, strict=True)])
        labels = SoftLabels.joined(known).with_weight(weight)
        logits = module(torch.cat([view.z for view in views]))
        hard = torch.cat([rows.hard for rows in known])
        terms = {"identity": soft_cross_entropy(logits, labels)}
        if batch.scene.stage_epoch >= self.triplet_from:
            apart = hardest_triplet(torch.cat([view.feature for view in views]), hard, margin=self.margin)
            terms["triplet"] = self.triplet * apart
        return terms

    def per_sample(self, view: View, batch: Batch, banks: Banks, module: nn.Module | None = None) -> Tensor:
        """The cross-entropy of each row; NaN for one without a label."""
        assert module is not None
        labels = batch.labels(view, self.space)
        loss = -(labels.prob * F.log_softmax(module(view.z), dim=1)).sum(1)
        return torch.where(labels.hard == OUTLIER, torch.nan, loss)

    def trust(self, scene: Scene, targets: Targets, modality: Modality) -> Tensor:
        """(N,) float32 in [0, 1]: w of a modality's samples, remembered with the epoch's features."""
        labels = targets.of(modality, self.space)
        if scene.losses is None or scene.stage_epoch < self.plain_epochs:
            return torch.ones_like(labels.weight)
        losses = scene.losses[modality]

        def make() -> tuple[SoftLabels, Tensor]:
            seed = seed_for(scene.seed, scene.epoch, "classifier", modality) % NUMPY_SEEDS
            return labels, confidence(losses, labels.labelled, seed=seed)  # the labels are kept: their id is the key

        return scene.features[modality].memo(("classifier", self, id(labels), scene.epoch), make)[1]
