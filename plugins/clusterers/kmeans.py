"""K-means: as many clusters as one asks for, and no outliers."""

from __future__ import annotations

import importlib
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar

import numpy as np
import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor

from reidassoc import Clusterer, Clustering, Clusters, Features, Pair
from reidassoc.ops.memory_limit import block_rows
from reidassoc.ops.partition import by_first_member
from reidassoc.ops.precision import check_features, full_float32
from reidassoc.ops.prototypes import clusters_of
from reidassoc.ops.seeds import generator_for, seed_for

FAISS_SEEDS = 2**31  # it takes no larger one
ALL = 2**31 - 1  # images per centre from which faiss would start to leave some out
TINY = 1e-12  # so that there is always something to draw
BLOCK_ELEMENTS = 1 << 24  # similarities held at once, at most: 64 MiB of float32


@dataclass(frozen=True, kw_only=True)
class Kmeans(Clusterer):
    """Group images of one modality around K centres; every image belongs to one.

    Lloyd's K-means by faiss, from images drawn far apart (k-means++), each modality by itself; where faiss does not import,
    scikit-learn's. ``spherical`` keeps centres on the sphere, so that images go to the centre of the largest cosine. Centres
    that end without an image are left out; a modality with no more than K distinct images has one cluster for each of
    them. Equal seeds give equal clusters, on one machine with one number of threads.

    >>> from reidassoc.testing import toy_features
    >>> Kmeans(clusters=5)(toy_features(), epoch=0, seed=0, previous=None).own.map(lambda c: c.count)
    Pair(visible=5, infrared=5)
    """

    paper: ClassVar[str] = "Lloyd, IEEE Trans. Inf. Theory 1982; Arthur and Vassilvitskii, SODA 2007"

    clusters: Annotated[int, Field(ge=1, description="K of each modality")]
    infrared_clusters: Annotated[
        Annotated[int, Field(ge=1)] | None, Field(description="K of the infrared one, if another")
    ] = None
    spherical: Annotated[bool, Field(description="centres of unit length")] = False
    rounds: Annotated[int, Field(ge=1, description="of Lloyd's algorithm, at most")] = 50
    starts: Annotated[int, Field(ge=1, description="draws of the start, of which the best result is kept")] = 1

    def __call__(self, features: Pair[Features], *, epoch: int, seed: int, previous: Clustering | None) -> Clustering:
        count = Pair(self.clusters, self.infrared_clusters or self.clusters)
        return Clustering(
            own=Pair.build(lambda m: self.cluster(features[m], count[m], seed_for(seed, epoch, "kmeans")))
        )

    def cluster(self, features: Features, count: int, seed: int) -> Clusters:
        """Cluster one modality into at most ``count`` clusters."""
        check_features("features", features.x)
        x = features.x
        _, labels = torch.unique(x, dim=0, return_inverse=True)  # copies of an image are one: they can't be parted
        if len(x) and int(labels.max()) >= count:
            tries = [assign(x, self.centres(x, count, seed, number), self.spherical) for number in range(self.starts)]
            labels, _ = min(tries, key=lambda found: found[1])
        labels = by_first_member(labels)
        return clusters_of(x, labels)

    def centres(self, x: Tensor, count: int, seed: int, number: int) -> Tensor:
        """(K, D) float32: where Lloyd's algorithm ends, from the start of a number."""
        host = x.detach().cpu()
        start = far_apart(host, count, generator_for(seed, number)).numpy()
        if (faiss := load_faiss()) is not None:
            method = faiss.Kmeans(
                x.shape[1], count, niter=self.rounds, seed=seed_for(seed, number) % FAISS_SEEDS, spherical=self.spherical,
                min_points_per_centroid=1, max_points_per_centroid=ALL,
            )  # fmt: skip
            method.train(np.ascontiguousarray(host.numpy()), init_centroids=start)
            found = np.array(method.centroids, dtype=np.float32)
        else:  # spherical centres are those of its last round, at unit length
            from sklearn.cluster import KMeans

            found = KMeans(count, init=start, n_init=1, max_iter=self.rounds, tol=0).fit(host.numpy()).cluster_centers_
        centres = torch.from_numpy(found.astype(np.float32)).to(x.device)
        return F.normalize(centres, dim=1) if self.spherical else centres


def far_apart(x: Tensor, count: int, generator: torch.Generator) -> Tensor:
    """(K, D): rows of x (N, D), each drawn with a chance in proportion to its squared distance to those drawn before it."""
    square = (x * x).sum(dim=1)
    chosen = [int(torch.randint(len(x), (1,), generator=generator))]
    distance = torch.full_like(square, torch.inf)
    while len(chosen) < count:
        last = chosen[-1]
        distance = torch.minimum(distance, (square + square[last] - 2 * x @ x[last]).clamp(min=0))
        distance[last] = 0
        chosen.append(int(torch.multinomial(distance.double() + TINY, 1, generator=generator)))
    return x[chosen]


def load_faiss() -> Any:
    """The module faiss, or None where it does not import."""
    try:
        return importlib.import_module("faiss")
    except (ImportError, OSError):  # a library of its own is missing
        return None


def assign(x: Tensor, centres: Tensor, spherical: bool) -> tuple[Tensor, float]:
    """(N,) int64: the nearest centre, or the one of the largest inner product; and what all that costs, the less the better."""
    offset = torch.zeros_like(centres[:, 0]) if spherical else (centres * centres).sum(dim=1)
    with full_float32(x.device):
        rows = torch.split(x, block_rows(BLOCK_ELEMENTS, len(centres)))
        best = [(offset - 2 * some @ centres.T).min(dim=1) for some in rows]
    cost = sum(float(values.sum(dtype=torch.float64)) for values, _ in best)
    return torch.cat([index for _, index in best]), cost
