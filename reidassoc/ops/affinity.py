"""The k-reciprocal affinity of one modality's samples, computed once per epoch whoever asks."""

from __future__ import annotations

from torch import Tensor

from reidassoc.ops.jaccard import jaccard_similarity
from reidassoc.types import Features


def affinity(features: Features, *, k1: int = 30, k2: int = 6) -> Tensor:
    """Return 1 − Jaccard distance as a sparse CSR matrix (N, N), remembered with the features.

    A pair that shares no neighbour is absent: similarity 0, distance exactly 1. Source: Zhong et al., CVPR 2017.
    """
    return features.memo(("affinity", k1, k2), lambda: jaccard_similarity(features.x, k1=k1, k2=k2))
