"""Cross-modality feature propagation: every feature becomes a mean of its neighbours in both modalities.

Source: SALCR, IJCV 2025, arXiv 2504.19244 (CMFP).
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from reidassoc.ops.neighbours import nearest
from reidassoc.ops.precision import check_features
from reidassoc.ops.sparse import csr_from_counts, product, row_normalised
from reidassoc.types import Pair


def propagate(features: Pair[Tensor], *, k: int) -> Pair[Tensor]:
    """Replace every feature by the normalised sum of two means: over its k nearest of either modality.

    f ← normalise(mean over the k nearest visible + mean over the k nearest infrared features), each mean weighted by the
    cosine similarity, negative ones counting 0; in its own modality a sample is its own first neighbour. A mean whose
    weights are all 0 is left out. Where the k-th similarity is shared by several, the smaller indices are taken (the
    published code takes all of them). On query and gallery together this is a transductive re-ranking, and has to be
    reported as one.

    Args:
        features: (N_v, D) and (N_r, D) floating, unit rows.
        k: neighbours of either modality; at most all of them are used.

    Returns:
        the same shapes, float32, unit rows.

    Raises:
        ValueError: k < 1, widths that differ, or values that are not finite.
    """
    if k < 1:
        raise ValueError(f"k must be at least 1, got {k}")
    if features.visible.shape[1:] != features.infrared.shape[1:]:
        shapes = " and ".join(str(tuple(x.shape)) for x in features)
        raise ValueError(f"features of both modalities must have the same width, got {shapes}")
    check_features("visible features", features.visible)
    check_features("infrared features", features.infrared)
    x = features.map(lambda rows: rows.detach().float().contiguous())
    return x.map(lambda mine: F.normalize(sum((_mean(mine, keys, k) for keys in x), torch.zeros_like(mine)), dim=1))


def _mean(queries: Tensor, keys: Tensor, k: int) -> Tensor:
    """(N, D): the mean of each query's k nearest keys by their clipped similarity; 0 where that has no weight."""
    similarity, index = nearest(queries, keys, k)
    n, width = index.shape
    count = torch.full((n,), width, dtype=torch.int64, device=queries.device)
    weights = csr_from_counts(count, index.flatten(), similarity.clamp(min=0).flatten(), len(keys))
    return product(row_normalised(weights), keys)
