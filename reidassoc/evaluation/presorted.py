"""Many trials from one sort: the gallery is sorted once per query, and each trial reads off its own part."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from reidassoc.evaluation.ranking import Ranking
from reidassoc.ops.compiled.dispatch import compiled_ranking, over_rows
from reidassoc.types import Rule


def rank_sorted(
    order: Tensor,
    distance: Tensor,
    rows: Tensor,
    gallery: Tensor,
    *,
    query_identity: Tensor,
    gallery_identity: Tensor,
    query_camera: Tensor,
    gallery_camera: Tensor,
    rule: Rule,
) -> Ranking | None:
    """What `rank` says of distance[rows][:, gallery], without another sort.

    Args:
        order: (R, G) int32, `nearest_first(distance)`.
        distance: (R, G) float32 on the CPU.
        rows: (Q,) int64 rows of the queries.
        gallery: (g,) int64 columns of the trial's gallery.
        query_identity: (Q,) int64, and so ``query_camera``.
        gallery_identity: (G,) int64 of all columns, and so ``gallery_camera``.
        rule: which gallery images a query ignores, and how CMC counts.

    Returns:
        The ranking, or None where it must be made by `rank`: no numba, or a gallery that names an image twice.
    """
    kernels = compiled_ranking(distance.device)
    if kernels is None or distance.dtype != torch.float32 or len(torch.unique(gallery)) < len(gallery):
        return None
    gallery = gallery[gallery_identity[gallery] >= 0]  # as `rank` does
    place = torch.full((distance.shape[1],), -1, dtype=torch.int32)
    place[gallery] = torch.arange(len(gallery), dtype=torch.int32)
    known, code = torch.unique(gallery_identity, return_inverse=True)
    at = torch.searchsorted(known, query_identity).clamp(max=max(len(known) - 1, 0))
    me = torch.where(known[at] == query_identity, at, -1) if len(known) else torch.full_like(query_identity, -1)
    first = torch.zeros(len(rows), dtype=torch.int64)
    average_precision, inverse_penalty = (torch.full((len(rows),), torch.nan, dtype=torch.float64) for _ in range(2))
    if len(known):
        ignored = np.array(rule.ignored_cameras, dtype=np.int64).reshape(-1, 2)
        tensors = (rows, order, distance, place, me, query_camera, code, gallery_camera)
        arrays = [tensor.contiguous().numpy() for tensor in tensors]
        out = [tensor.numpy() for tensor in (first, average_precision, inverse_penalty)]
        rules = (ignored, rule.ignore_same_identity_camera, rule.first_occurrence)
        over_rows(lambda start, stop: kernels.score_rows(start, stop, *arrays, *rules, *out), len(rows))
    return Ranking(first, average_precision, inverse_penalty)
