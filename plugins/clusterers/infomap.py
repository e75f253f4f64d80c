"""Infomap on a graph of neighbours: clusters are where a random walk stays. Needs the optional package infomap (GPL)."""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

import numpy as np
import torch
from pydantic import Field
from torch import Tensor

from reidassoc import OUTLIER, Clusterer, Clustering, Clusters, Features, Pair
from reidassoc.ops.affinity import affinity
from reidassoc.ops.neighbours import nearest
from reidassoc.ops.partition import by_first_member
from reidassoc.ops.precision import check_features
from reidassoc.ops.prototypes import clusters_of
from reidassoc.ops.seeds import seed_for
from reidassoc.registry.extras import needed

INFOMAP_SEEDS = 2**31 - 1  # it takes 1 to this


@dataclass(frozen=True, kw_only=True)
class Infomap(Clusterer):
    """Group images of one modality where a random walk over similar images stays longest; small groups are outliers.

    Infomap (Rosvall and Bergstrom, PNAS 2008), two levels, each modality by itself. ``graph`` cosine: every image is linked
    to its ``neighbours`` most similar ones (directed), the weight is the cosine. ``graph`` jaccard: images are linked by the
    k-reciprocal similarity (1 − Jaccard distance, undirected), of which associators get the same matrix for nothing. Links
    below ``floor`` are left out, and so are negative ones. Needs the package infomap: ``pip install 'reidassoc[infomap]'``.
    It is under the GPL, and therefore no dependency of reidassoc.

    Raises:
        PluginError: the package infomap is not installed.
    """

    paper: ClassVar[str] = "Rosvall and Bergstrom, PNAS 2008"

    graph: Annotated[Literal["cosine", "jaccard"], Field(description="what links images")] = "cosine"
    floor: Annotated[float, Field(ge=0, lt=1, description="least similarity of a link")] = 0.5
    neighbours: Annotated[int, Field(ge=1, description="links from an image, in the cosine graph")] = 15
    k1: Annotated[int, Field(ge=1, description="neighbours of a neighbourhood, in the Jaccard graph")] = 30
    k2: Annotated[int, Field(ge=1, description="neighbours over which those are averaged, likewise")] = 6
    min_cluster_size: Annotated[int, Field(ge=1, description="images of the smallest cluster")] = 2

    def __post_init__(self) -> None:
        needed("infomap", "infomap", by="clusterer infomap")  # so that a recipe is refused before any work

    def __call__(self, features: Pair[Features], *, epoch: int, seed: int, previous: Clustering | None) -> Clustering:
        drawn = 1 + seed_for(seed, epoch, "infomap") % INFOMAP_SEEDS
        return Clustering(own=features.map(lambda one: self.cluster(one, drawn)), k1=self.k1, k2=self.k2)

    def cluster(self, features: Features, seed: int) -> Clusters:
        """Cluster one modality."""
        check_features("features", features.x)
        labels = torch.full((len(features),), OUTLIER, dtype=torch.int64)
        links = self.links(features)
        if len(links):
            method = needed("infomap", "infomap", by="clusterer infomap").Infomap(
                two_level=True, directed=self.graph == "cosine", silent=True, seed=seed, num_trials=1
            )
            method.add_links(links)
            method.run()
            node, module = torch.from_numpy(modules(method)).T
            labels[node] = module
        labels = by_first_member(labels, least=self.min_cluster_size).to(features.x.device)
        return clusters_of(features.x, labels)

    def links(self, features: Features) -> np.ndarray[Any, np.dtype[np.float64]]:
        """(L, 3) float64: source, target, weight; sorted by source and target."""
        row, column, weight = self.cosine(features.x) if self.graph == "cosine" else self.jaccard(features)
        kept = (row != column) & (weight >= self.floor) & (weight > 0)
        if self.graph == "jaccard":
            kept &= row < column  # symmetric: each link once
        row, column, weight = (values[kept].cpu() for values in (row, column, weight))
        order = torch.argsort(row * len(features) + column)
        return torch.stack([row.double(), column.double(), weight.double()], dim=1)[order].numpy()

    def cosine(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """(L,) source, target and cosine of every image and its nearest ones, itself among them."""
        similarity, index = nearest(x, x, self.neighbours + 1)  # itself included
        row = torch.arange(len(x), device=x.device)[:, None].expand_as(index)
        return row.flatten(), index.flatten(), similarity.flatten()

    def jaccard(self, features: Features) -> tuple[Tensor, Tensor, Tensor]:
        """(L,) source, target and k-reciprocal similarity of every stored pair, both ways round."""
        similarity = affinity(features, k1=self.k1, k2=self.k2)
        rows = torch.arange(len(features), device=similarity.device)
        row = rows.repeat_interleave(similarity.crow_indices().diff())
        return row, similarity.col_indices(), similarity.values()


def modules(method: Any) -> np.ndarray[Any, np.dtype[np.int64]]:
    """(L, 2) int64: node and module, as Infomap writes them.

    Through a file: its Python iterators and faiss's are registered under one name by SWIG, and reading one with the other's
    code ends the process.
    """
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "modules.clu")
        method.write_clu(str(path))
        return np.loadtxt(path, dtype=np.int64, comments="#", usecols=(0, 1), ndmin=2)
