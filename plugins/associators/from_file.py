"""Labels that were made elsewhere."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, ClassVar

import numpy as np
import torch
from pydantic import Field

from reidassoc import OUTLIER, Association, Associator, Modality, Pair, Scene, SoftLabels
from reidassoc.errors import DataError
from reidassoc.files.npz import Arrays, read_npz
from reidassoc.ops.prototypes import updated_centroids

FORM = (
    "expected int64 'cross_visible', 'cross_infrared' and, if the clusters are its own, 'own_visible', 'own_infrared'"
)


@dataclass(frozen=True, kw_only=True)
class FromFile(Associator):
    """Take the labels from a file, as ``reidassoc associate`` writes them, every epoch the same.

    An .npz archive of int64 arrays: ``cross_visible`` and ``cross_infrared``, the labels of each modality's samples in the other
    one's clusters, and optionally ``own_visible`` and ``own_infrared``, which replace the clusterer's labels; −1 = none. Row i
    is the i-th image of the dataset. Own labels may use fewer clusters than the clusterer found, never more: banks are built
    for those. A space's banks start from the means of the file's own clusters. In a recipe or on the command line:
    ``from_file(path='labels.npz')``.

    Raises:
        DataError: (when called) the file is missing or no such archive, or its labels don't fit the scene.
    """

    variants: ClassVar[tuple[str, ...]] = ("path='labels.npz'",)

    path: Annotated[Path, Field(description=".npz file with cross_* and perhaps own_* labels")]

    def __call__(self, scene: Scene) -> Association:
        path = self.path.expanduser()
        arrays = self.read(path)
        cross = Pair.build(lambda m: self.labels(arrays, f"cross_{m}", scene, m, m.other, path))
        if not any(f"own_{modality}" in arrays for modality in Modality):
            return Association(cross=cross)
        own = Pair.build(lambda m: self.labels(arrays, f"own_{m}", scene, m, m, path))
        x, before = scene.features.map(lambda f: f.x), scene.clustering.own.map(lambda clusters: clusters.centroids)
        start = {str(m): updated_centroids(x[m], own[m].hard, before[m]) for m in Modality}
        return Association(cross=cross, own=own, prototypes=start)

    def read(self, path: Path) -> Arrays:
        """Every array of the file; no pickled object is ever loaded."""
        return read_npz(path, "label file", FORM)

    def labels(
        self, arrays: Arrays, name: str, scene: Scene, modality: Modality, space: Modality, path: Path
    ) -> SoftLabels:
        """One checked array as labels of a modality's samples in a space."""
        features, count = scene.features[modality], scene.clustering.own[space].count
        if name not in arrays:
            raise DataError(f"{path} has no array '{name}'; {FORM}; it has: {', '.join(arrays) or 'none'}")
        values = arrays[name]
        if values.ndim != 1 or values.dtype.kind not in "iu":
            raise DataError(f"{path}: '{name}' must be (N,) int64, got {values.shape} {values.dtype}")
        if len(values) != len(features):
            raise DataError(
                f"{path}: '{name}' holds {len(values)} labels, but there are {len(features)} {modality} samples; give one "
                "for every training image, in the dataset's order"
            )
        if len(values) and (int(values.min()) < OUTLIER or int(values.max()) >= count):
            raise DataError(
                f"{path}: '{name}' must lie in [-1, {count}), for the clusterer found {count} {space} clusters; got "
                f"{values.min()} to {values.max()}; cluster with the clusterer and the features that the labels came from"
            )
        place = torch.argsort(torch.argsort(features.index, stable=True), stable=True)  # row i is the i-th image
        labels = torch.from_numpy(values.astype(np.int64)).to(features.x.device)[place]
        return SoftLabels.one_hot(labels, count)
