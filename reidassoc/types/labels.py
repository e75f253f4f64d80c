"""Labels: hard ones from a clusterer, soft ones from everything after it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property

import torch
from torch import Tensor

from reidassoc.types.modality import Pair

OUTLIER = -1  # the label of a sample that belongs to no cluster, or that has no label


@dataclass(frozen=True)
class Clusters:
    """One partition of N samples into K clusters and outliers.

    Args:
        labels: (N,) int64 in [−1, K); −1 = outlier.
        centroids: (K, D) float32, mean of the members' unit features, *not* re-normalised.

    Raises:
        ValueError: a shape or the labels' dtype differs from the above.
    """

    labels: Tensor
    centroids: Tensor

    def __post_init__(self) -> None:
        if self.labels.ndim != 1 or self.labels.dtype != torch.int64:
            raise ValueError(f"labels must be (N,) int64, got {tuple(self.labels.shape)} {self.labels.dtype}")
        if self.centroids.ndim != 2:
            raise ValueError(f"centroids must be (K, D), got {tuple(self.centroids.shape)}")

    @property
    def count(self) -> int:
        """K, the number of clusters."""
        return len(self.centroids)

    @property
    def clustered(self) -> Tensor:
        """(n,) int64: the rows that belong to a cluster."""
        return (self.labels != OUTLIER).nonzero().flatten()

    @property
    def largest(self) -> float:
        """Share of the samples that the largest cluster contains."""
        return float(torch.bincount(self.labels[self.clustered], minlength=1).max()) / max(1, len(self.labels))

    def validate(self) -> None:
        """Read the values (which stalls a GPU) and raise ValueError where they break the contract."""
        low, high = (int(self.labels.min()), int(self.labels.max())) if len(self.labels) else (OUTLIER, OUTLIER)
        if low < OUTLIER or high >= self.count:
            raise ValueError(f"labels must lie in [-1, {self.count}), got {low} to {high}")
        if not bool(torch.isfinite(self.centroids).all()):
            raise ValueError("centroids hold NaN or infinite values")


@dataclass(frozen=True)
class Clustering:
    """What a clusterer returns: a partition per modality; it may add one of both together, and further named ones.

    Args:
        own: each modality's own clusters; its label space bears the modality's name.
        shared: clusters of the union, space ``"shared"``: labels per modality, the same K, and each modality's centroids.
        extra: further partitions by name (multi-scale clustering, say).
        k1: of the k-reciprocal affinity on which the clusters were made, which associators and refiners share; None if the
            clusterer has none. The pipeline reads a clusterer's attributes ``k1`` and ``k2`` where it leaves them out.
        k2: likewise.
    """

    own: Pair[Clusters]
    shared: Pair[Clusters] | None = None
    extra: Mapping[str, Pair[Clusters]] = field(default_factory=dict)
    k1: int | None = None
    k2: int | None = None

    @property
    def usable(self) -> bool:
        """Whether each modality has at least one cluster."""
        return all(clusters.count > 0 for clusters in self.own)


@dataclass(frozen=True)
class SoftLabels:
    """A distribution over K clusters for each of N samples, as k probabilities a row and the clusters that they belong to.

    Dense labels have k = K: ``SoftLabels(prob)``. Certain ones have k = 1: :meth:`one_hot`. Rows that keep their k largest
    entries give ``index`` and ``count``. Code serves all of them if it reads ``hard``, ``labelled``, ``weight``, and ``prob`` of
    a batch's rows (``take``).

    Args:
        value: (N, k) float32 ≥ 0, rows sum to 1, or to 0 where there is no label.
        weight: (N,) float32 ≥ 0, how much a sample counts in a loss; all 1 if not given.
        index: (N, k) int64 in [0, K), the cluster of each value, different ones along a row wherever the value is not 0, of
            equal values the smaller one first; None: ``value[:, j]`` belongs to cluster j.
        count: K; the width of ``value`` if there is no ``index``.

    Raises:
        ValueError: a shape or a dtype differs from the above.
    """

    value: Tensor
    weight: Tensor = None  # type: ignore[assignment]  # filled in below
    index: Tensor | None = None
    count: int = None  # type: ignore[assignment]

    def __post_init__(self) -> None:
        value, index = self.value, self.index
        if value.ndim != 2 or not value.dtype.is_floating_point:
            raise ValueError(f"prob must be (N, K) floating point, got {tuple(value.shape)} {value.dtype}")
        if index is None:
            object.__setattr__(self, "count", value.shape[1])
        elif index.shape != value.shape or index.dtype != torch.int64:
            raise ValueError(f"index must be {tuple(value.shape)} int64, got {tuple(index.shape)} {index.dtype}")
        elif self.count is None:
            raise ValueError("count must be given with index: the number of clusters")
        if self.weight is None:
            object.__setattr__(self, "weight", value.new_ones(len(value)))
        if self.weight.shape != (len(value),):
            raise ValueError(f"weight must be ({len(value)},), got {tuple(self.weight.shape)}")

    @staticmethod
    def one_hot(labels: Tensor, count: int, weight: Tensor | None = None) -> SoftLabels:
        """Certain labels: ``labels`` (N,) int64 in [−1, count); −1 = no label."""
        column = labels[:, None][:, :count]  # (N, 1), or (N, 0) where there are no clusters
        return SoftLabels((column >= 0).float(), weight, column.clamp(min=0), count)  # type: ignore[arg-type]

    @staticmethod
    def joined(parts: Sequence[SoftLabels]) -> SoftLabels:
        """The rows of several labels of one space, in order, as a dense one: for those of a batch."""
        return SoftLabels(torch.cat([part.prob for part in parts]), torch.cat([part.weight for part in parts]))

    def __len__(self) -> int:
        return len(self.value)

    @property
    def prob(self) -> Tensor:
        """(N, K) float32: the dense matrix, made at each call unless the labels are dense."""
        if self.index is None:
            return self.value
        return self.value.new_zeros(len(self), self.count).scatter_add_(1, self.index, self.value)

    @cached_property
    def labelled(self) -> Tensor:
        """(N,) bool: rows that have a label, with a positive weight."""
        return (self.value.sum(1) > 0) & (self.weight > 0)

    @cached_property
    def hard(self) -> Tensor:
        """(N,) int64: the most probable cluster (the first one of equals), −1 where there is no label."""
        if self.value.shape[1] == 0:
            return torch.full((len(self),), OUTLIER, dtype=torch.int64, device=self.value.device)
        best = self.value.argmax(1)
        cluster = best if self.index is None else self.index.gather(1, best[:, None])[:, 0]
        return torch.where(self.labelled, cluster, OUTLIER)

    def take(self, rows: Tensor) -> SoftLabels:
        """The labels of some samples: ``rows`` (n,) int64 or bool (N,)."""
        index = None if self.index is None else self.index[rows]
        return replace(self, value=self.value[rows], weight=self.weight[rows], index=index)

    def with_weight(self, weight: Tensor) -> SoftLabels:
        """The same distributions with other weights (N,)."""
        return replace(self, weight=weight)

    def validate(self) -> None:
        """Read the values (which stalls a GPU) and raise ValueError where they break the contract."""
        total = self.value.sum(1)  # finite only if all its terms are
        if not bool(torch.isfinite(total).all()) or bool((self.value < 0).any()):
            raise ValueError("prob contains NaN, infinite or negative values")
        wrong = ((total - 1).abs() > 1e-3) & (total != 0)
        if bool(wrong.any()):
            row = int(wrong.nonzero()[0])
            raise ValueError(f"rows of prob must sum to 1 (or 0 = no label); row {row} sums to {float(total[row]):.4f}")
        if not bool(torch.isfinite(self.weight).all()) or bool((self.weight < 0).any()):
            raise ValueError("weight contains NaN, infinite or negative values")
        if self.index is not None:
            self._validate_index(self.index)

    def _validate_index(self, index: Tensor) -> None:
        if bool((index < 0).any()) or bool((index >= self.count).any()):
            raise ValueError(
                f"index must lie in [0, {self.count}), the clusters of the label space; "
                f"got {int(index.min())} to {int(index.max())}"
            )
        apart = -1 - torch.arange(index.shape[1], device=index.device)  # entries of 0 may name any cluster
        clusters = torch.where(self.value > 0, index, apart).sort(dim=1).values
        if bool((clusters.diff(dim=1) == 0).any()):
            raise ValueError("index must name different clusters along each row")
