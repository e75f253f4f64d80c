"""The losses of all samples, one by one: what confidence in a label is read off."""

from __future__ import annotations

import torch
from lightning_fabric import Fabric
from torch import Tensor, nn

from reidassoc.data.store import ImageStore
from reidassoc.data.transforms import normalise
from reidassoc.engine.devices import ranks
from reidassoc.engine.label_stage import Labelled
from reidassoc.engine.objective_modules import Heads
from reidassoc.engine.out_of_memory import by_batches
from reidassoc.interfaces.banks import Banks
from reidassoc.interfaces.batch import Batch, View
from reidassoc.recipe.compose import Method
from reidassoc.recipe.requirements import needs
from reidassoc.types import Modality, Pair


def wanted(method: Method) -> bool:
    """Whether a part of a stage asks for the samples' losses."""
    return any("losses" in needs(weighted.part) for weighted in (*method.objectives, *method.refiners))


@torch.no_grad()
def sample_losses(
    network: nn.Module, stores: Pair[ImageStore], fabric: Fabric, method: Method, labelled: Labelled, banks: Banks,
    heads: Heads, *, batch: int,
) -> Pair[Tensor] | None:  # fmt: skip
    """Return the loss of every sample, (N,) float32 per modality: a pass in evaluation mode, images as they are.

    It is the weighted sum of what the objectives' ``per_sample`` say; NaN where one of them says nothing of a sample. None
    if no objective has any.
    """

    def of_modality(modality: Modality) -> list[Tensor | None]:
        good = stores[modality].good
        own = torch.arange(len(good))[ranks.own_share(fabric, len(good))]
        if not len(own):  # fewer images than ranks: the first one says whether there is a loss, and is left out
            loss = of_chunk(modality, torch.arange(1), good)
            return [None if loss is None else loss[:0]]
        return [loss for (loss,) in by_batches(own, batch, lambda rows: (of_chunk(modality, rows, good),))]

    def of_chunk(modality: Modality, rows: Tensor, good: Tensor) -> Tensor | None:
        stream, pixels = str(modality), stores[modality].read(good[rows])
        with fabric.autocast():
            output = network({stream: normalise(pixels.to(fabric.device, non_blocking=True))})[stream]
        parts = {pair: part.float() for pair, part in output.parts.items()}
        view = View(stream, rows.to(fabric.device), output.z.float(), output.map, parts)
        shown = Batch({stream: view}, labelled.scene.epoch, labelled.scene, labelled.targets)
        found = []
        for number, weighted in enumerate(method.objectives):
            loss = weighted.part.per_sample(view, shown, banks, **heads.of(number, weighted.name))
            if loss is not None:
                found.append(weighted.weight * loss.float())
        return torch.stack(found).sum(0) if found else None

    network.eval()
    for head in heads:
        head.module.eval()
    losses = Pair.build(of_modality)
    network.train()
    for head in heads:
        head.module.train()
    if any(chunk is None for modality in losses for chunk in modality):
        return None
    return Pair.build(lambda m: ranks.gathered(fabric, torch.cat(losses[m]), len(stores[m].good)))  # type: ignore[arg-type]
