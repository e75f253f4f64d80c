"""Which eps and k1 suit some features, judged without identities: by how little the clusters change with eps."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from sklearn.metrics import adjusted_rand_score

from reidassoc.engine.associate import on_device
from reidassoc.engine.devices.device import open_device
from reidassoc.errors import DataError, SpecError
from reidassoc.files.features import FeatureFile, read_features
from reidassoc.ops.affinity import affinity
from reidassoc.ops.dbscan import dbscan
from reidassoc.pipeline import check_features
from reidassoc.registry.spec import several
from reidassoc.types import Features, Modality, Pair

Labels = npt.NDArray[np.int64]
SIZES = (5, 8, 12, 20, 30)  # k1 to try, as far as the samples allow
EPS = tuple(round(0.1 + 0.05 * step, 2) for step in range(17))  # 0.1, 0.15, …, 0.9
MOST_K2 = 6  # the published k2 of k1 = 30; half of k1 below that
STABLE = 0.9  # agreement of neighbours from which a clustering counts as unchanged
MOST_OUTLIERS = 0.5  # a share above which nothing is learnt from the rest
LARGEST = 0.1  # share of one cluster above which clusters have begun to merge into one,
LOPSIDED = 2.0  # if it is also more than this many times the share of a cluster of mean size
PLACE = 2 / 3  # how far up the stable range the advice lies: below it identities are still split, above it they merge


@dataclass(frozen=True)
class Point:
    """The clustering at one eps.

    Args:
        eps: largest Jaccard distance of neighbours.
        stability: adjusted Rand index with the clustering at the eps before, every outlier a cluster of its own; None at the
            first eps.
        clusters: K.
        outliers: share of the samples.
        largest: share of the samples in the largest cluster.
    """

    eps: float
    stability: float | None
    clusters: int
    outliers: float
    largest: float

    @property
    def stable(self) -> bool:
        """Whether it is hardly another one than at the eps before, and neither empty nor merged."""
        sound = neither_empty_nor_merged(self.clusters, self.outliers, self.largest)
        return sound and self.stability is not None and self.stability >= STABLE


@dataclass(frozen=True)
class Curve:
    """What one k1 gives.

    Args:
        curve: a point for each eps, per modality.
        stable: the longest range of eps, both ends included, that is stable in both modalities; None if there is none.
    """

    k1: int
    k2: int
    curve: Pair[tuple[Point, ...]]
    stable: tuple[float, float] | None

    @property
    def width(self) -> float:
        """Of the stable range; −1 if there is none."""
        return -1.0 if self.stable is None else self.stable[1] - self.stable[0]


@dataclass(frozen=True)
class Advice:
    """Every curve, and the spec that they speak for; None if nothing is stable."""

    curves: tuple[Curve, ...]
    clusterer: str | None


def advise(
    features: str | Path | FeatureFile,
    *,
    k1: int | Sequence[int] = (),
    min_samples: int = 4,
    device: str | torch.device = "auto",
) -> Advice:
    """Advise eps and k1 of ``dbscan`` without identities.

    For each k1 (k2 is half of it, at most 6), DBSCAN runs over a grid of eps in both modalities. Where identities are well
    apart the clustering hardly changes with eps: the longest range of eps that is stable in both modalities is found, the k1
    with the widest one is advised, and the eps two thirds up that range. A heuristic: a starting point, not a result.

    Args:
        features: a .safetensors or .npz file, or what was read from one. Identities in it are not looked at.
        k1: sizes to try; from 5 to 30 if not given.
        min_samples: of ``dbscan``.
        device: as for ``run``.

    Raises:
        ReidassocError: the file or a size is wrong.

    Examples:
        >>> from reidassoc.testing import toy_features
        >>> advise(FeatureFile(toy_features(), None), k1=[6]).curves[0].k2
        3
    """
    given = several(k1)
    if min_samples < 1:
        raise SpecError(f"min_samples must be at least 1, got {min_samples}")
    file = features if isinstance(features, FeatureFile) else read_features(features)
    where = open_device(device).device
    placed = Pair.build(lambda m: on_device(file.features[m], str(m), where))
    check_features(placed)
    fewest = min(map(len, placed))
    if fewest < 2:
        raise DataError(f"advice needs at least two samples of each modality, got {fewest}")
    if any(size < 2 or size >= fewest for size in given):
        raise SpecError(
            f"k1 must lie in [2, {fewest - 1}], below the samples of either modality, got {min(given)} to {max(given)}"
        )
    sizes = sorted(set(given)) or [size for size in SIZES if size < fewest] or [fewest - 1]
    curves = []
    for size in sizes:
        k2 = min(MOST_K2, max(1, size // 2))
        both = placed.map(lambda f: stability_curve(f, k1=size, k2=k2, min_samples=min_samples))  # noqa: B023
        curves.append(Curve(size, k2, both, stable_range(both)))
    best = max(curves, key=lambda curve: curve.width)
    if best.stable is None:
        return Advice(tuple(curves), None)
    low, high = best.stable
    eps = round(low + PLACE * (high - low), 2)
    return Advice(tuple(curves), f"dbscan(eps={eps}, min_samples={min_samples}, k1={best.k1}, k2={best.k2})")


def stability_curve(features: Features, *, k1: int, k2: int, min_samples: int) -> tuple[Point, ...]:
    """One modality's clusterings over the grid of eps."""
    similarity = affinity(features, k1=k1, k2=k2)
    points: list[Point] = []
    before: Labels | None = None
    for eps in EPS:
        labels = dbscan(similarity, eps=eps, min_samples=min_samples).cpu().numpy()
        stability = None if before is None else agreement(before, labels)
        points.append(Point(eps, stability, *shape_of(labels)))
        before = labels
    return tuple(points)


def agreement(one: Labels, other: Labels) -> float:
    """Adjusted Rand index of two clusterings of the same samples, every outlier a cluster of its own."""

    def alone(labels: Labels) -> Labels:
        return np.where(labels < 0, len(labels) + np.arange(len(labels)), labels)

    return float(adjusted_rand_score(alone(one), alone(other)))


def shape_of(labels: Labels) -> tuple[int, float, float]:
    """Clusters; share of the samples that are outliers; share in the largest cluster."""
    clustered = labels[labels >= 0]
    n = max(len(labels), 1)
    return len(np.unique(clustered)), 1 - len(clustered) / n, float(np.bincount(clustered, minlength=1).max() / n)


def neither_empty_nor_merged(clusters: int, outliers: float, largest: float) -> bool:
    """Whether a clustering can tell anything: enough samples are in clusters, and not most of them in one."""
    return clusters > 1 and outliers <= MOST_OUTLIERS and largest <= max(LARGEST, LOPSIDED / clusters)


def stable_range(curves: Pair[tuple[Point, ...]]) -> tuple[float, float] | None:
    """The longest run of eps that is stable in both modalities, the first of equals."""
    best: tuple[float, float] | None = None
    start: float | None = None
    for one, two in zip(*(curves[m] for m in Modality), strict=True):
        if not (one.stable and two.stable):
            start = None
            continue
        start = one.eps if start is None else start
        if best is None or one.eps - start > best[1] - best[0] + 1e-9:
            best = (start, one.eps)
    return best
