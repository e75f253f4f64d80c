"""Scenes for associators that match clusters."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from support.golden_vectors import golden
from torch import Tensor

from reidassoc import Clustering, Clusters, Features, Pair, Scene


def golden_scene() -> Scene:
    stored = golden("cluster_matching")
    features = Pair(Features(stored["features_v"]), Features(stored["features_r"]))
    own = Pair(Clusters(stored["labels_v"], stored["centroids_v"]), Clusters(stored["labels_r"], stored["centroids_r"]))
    return Scene(0, 0, features, Clustering(own=own))


def clusters_of_one(visible: Tensor, infrared: Tensor) -> Scene:
    """Every sample is a cluster, so that the answer for samples is the matching itself."""
    x = Pair(F.normalize(visible.float(), dim=1), F.normalize(infrared.float(), dim=1))
    return Scene(0, 0, x.map(Features), Clustering(own=x.map(lambda rows: Clusters(torch.arange(len(rows)), rows))))


def random_scene(k_v: int, k_r: int, seed: int = 0) -> Scene:
    generator = torch.Generator().manual_seed(seed)
    return clusters_of_one(*(torch.randn(k, 16, generator=generator) for k in (k_v, k_r)))
