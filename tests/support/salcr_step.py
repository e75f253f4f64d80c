"""Training steps with part features: the published one of SALCR, and random ones."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from support.golden_vectors import golden
from support.training_step import R, V
from torch import Tensor

from reidassoc import Bank, Clustering, Clusters, Features, Pair, Scene, SoftLabels, Targets
from reidassoc.interfaces.banks import Banks, LiveBank
from reidassoc.interfaces.batch import Batch, View
from reidassoc.types import STREAMS, Modality

# The maps to which each stream's queries are put: its own, then view 1, then view 2.
MAPS = {
    "visible": ("visible", "infrared", "augmented"),
    "augmented": ("augmented", "infrared", "visible"),
    "infrared": ("infrared", "visible", "augmented"),
}


def published_step() -> tuple[dict[str, Tensor], Batch]:
    """The golden step; its instance banks are the scene's features, its cluster banks the centroids."""
    stored = golden("salcr_losses")
    views = {}
    for number, stream in enumerate(STREAMS):
        rows = slice(16 * number, 16 * number + 16)
        answers = [stored[name][rows].view(16, 3, 48) for name in ("part_self", "part_query1", "part_query2")]
        parts = {(stream, asked): x for asked, x in zip(MAPS[stream], answers, strict=True)}
        views[stream] = View(stream, torch.arange(16), stored["feat"][rows].clone().requires_grad_(), None, parts)

    def features(side: str) -> Features:
        return Features(stored[f"bank_m_{side}i"], extra={"parts": stored[f"bank_m_{side}pi"].transpose(0, 1)})

    def clusters(side: str) -> Clusters:
        return Clusters(torch.full((len(stored[f"bank_m_{side}i"]),), -1), stored[f"bank_m_{side}"])

    scene = Scene(0, 0, Pair(features("v"), features("r")), Clustering(Pair(clusters("v"), clusters("r"))))
    count = Pair(len(stored["bank_m_v"]), len(stored["bank_m_r"]))
    table = {
        (V, "visible"): SoftLabels.one_hot(stored["own_v"], count.visible),
        (V, "infrared"): SoftLabels.one_hot(stored["cross_v"], count.infrared),
        (R, "infrared"): SoftLabels.one_hot(stored["own_r"], count.infrared),
        (R, "visible"): SoftLabels.one_hot(stored["cross_r"], count.visible),
    }
    return stored, Batch(views, 0, scene, Targets(table))


def live_banks(vectors: dict[str, Tensor], temperature: float = 0.05) -> Banks:
    """Banks with the given vectors as they are."""
    return Banks(
        {
            name: LiveBank(Bank(name=name, space="visible", role="any", start=rows, temperature=temperature), rows)
            for name, rows in vectors.items()
        }
    )


def random_part_step(
    *, rows: int = 4, width: int = 5, parts: int = 2, images: tuple[int, int] = (12, 9), seed: int = 0
) -> Batch:
    """A batch with part features, random soft labels and labelled images, float64 where gradients flow."""
    generator = torch.Generator().manual_seed(seed)

    def some(*shape: int, dtype: torch.dtype = torch.float64) -> Tensor:
        return torch.randn(*shape, generator=generator, dtype=dtype)

    views = {}
    for stream in STREAMS:
        z = some(rows, width).requires_grad_()
        found = {(stream, asked): some(rows, parts, width).requires_grad_() for asked in MAPS[stream]}
        views[stream] = View(stream, torch.arange(rows), z, None, found)
    clusters = Pair(3, 2)
    features, own = [], []
    for count, size in zip(clusters, images, strict=True):
        x = F.normalize(some(size, width, dtype=torch.float32), dim=1)
        features.append(Features(x, extra={"parts": some(size, parts, width, dtype=torch.float32)}))
        labels = torch.arange(size) % (count + 1) - 1
        own.append(Clusters(labels, some(count, width, dtype=torch.float32)))
    scene = Scene(0, 0, Pair(*features), Clustering(Pair(*own)))
    table = {
        (m, str(s)): SoftLabels(some(rows, clusters[s]).softmax(1)) for m in Modality for s in Modality
    }  # fmt: skip
    return Batch(views, 0, scene, Targets(table))


def leaves(batch: Batch) -> list[Tensor]:
    """Every tensor of a batch through which gradients flow."""
    return [x for view in batch for x in (view.z, *view.parts.values())]


def with_leaves(batch: Batch, tensors: tuple[Tensor, ...]) -> Batch:
    """The batch with other tensors in place of :func:`leaves`."""
    left = list(tensors)
    views = {
        name: View(name, view.rows, left.pop(0), None, {pair: left.pop(0) for pair in view.parts})
        for name, view in batch.views.items()
    }
    return Batch(views, batch.epoch, batch.scene, batch.targets)


def reordered(batch: Batch, order: Tensor) -> Batch:
    """The batch with its rows in another order, the same in every stream."""
    views = {
        name: View(name, view.rows[order], view.z[order], None, {pair: x[order] for pair, x in view.parts.items()})
        for name, view in batch.views.items()
    }
    return Batch(views, batch.epoch, batch.scene, batch.targets)
