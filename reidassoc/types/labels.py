"""Labels: hard ones from a clusterer, soft ones from everything after it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property

import torch
from torch import Tensor

from reidassoc.types.modality import Pair

DENSE_ENTRIES = 1 << 27  # of a label matrix: 512 MiB; a larger one keeps the largest entries of each row
OUTLIER = -1  # the label of a sample that belongs to no cluster, or about which there is no opinion


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
    """A distribution over K clusters for each of N samples.

    Where N · K is large it is a :class:`TopLabels`, whose ``prob`` would fill the memory. Code that has to serve both reads
    ``hard`` and ``opinion``, takes a batch's or block's rows with ``take``, which are dense, and changes weights by
    ``weighted``.

    Args:
        prob: (N, K) float32, rows sum to 1, or to 0 where there is no opinion.
        weight: (N,) float32 ≥ 0, how much a sample counts in a loss; all 1 if not given.

    Raises:
        ValueError: a shape differs from the above, or ``prob`` is not floating point.
    """

    prob: Tensor
    weight: Tensor = None  # type: ignore[assignment]  # filled in below

    def __post_init__(self) -> None:
        if self.prob.ndim != 2 or not self.prob.dtype.is_floating_point:
            raise ValueError(f"prob must be (N, K) floating point, got {tuple(self.prob.shape)} {self.prob.dtype}")
        if self.weight is None:
            object.__setattr__(self, "weight", self.prob.new_ones(len(self.prob)))
        if self.weight.shape != (len(self.prob),):
            raise ValueError(f"weight must be ({len(self.prob)},), got {tuple(self.weight.shape)}")

    @staticmethod
    def one_hot(labels: Tensor, count: int, weight: Tensor | None = None) -> SoftLabels:
        """Certain labels: ``labels`` (N,) int64 in [−1, count); a row of −1 has no opinion."""
        if len(labels) * count > DENSE_ENTRIES:
            known = labels[:, None] >= 0
            return TopLabels(labels[:, None].clamp(min=0), known.float(), count, weight)
        prob = torch.zeros(len(labels), count + 1, device=labels.device)
        prob[torch.arange(len(labels), device=labels.device), torch.where(labels < 0, count, labels)] = 1.0
        return SoftLabels(prob[:, :count].contiguous(), weight)  # type: ignore[arg-type]

    @staticmethod
    def joined(parts: Sequence[SoftLabels]) -> SoftLabels:
        """The rows of several labels of one space, in order, as a dense one: for those of a batch."""
        return SoftLabels(torch.cat([part.prob for part in parts]), torch.cat([part.weight for part in parts]))

    def __len__(self) -> int:
        return len(self.prob)

    @property
    def count(self) -> int:
        """K, the number of clusters of the space."""
        return self.prob.shape[1]

    @cached_property
    def opinion(self) -> Tensor:
        """(N,) bool: rows that say something, with a positive weight."""
        return (self.prob.sum(1) > 0) & (self.weight > 0)

    @cached_property
    def hard(self) -> Tensor:
        """(N,) int64: the most probable cluster (the first one of equals), −1 where there is no opinion."""
        if self.count == 0:
            return torch.full((len(self),), OUTLIER, dtype=torch.int64, device=self.prob.device)
        return torch.where(self.opinion, self.prob.argmax(1), OUTLIER)

    def take(self, rows: Tensor) -> SoftLabels:
        """The labels of some samples: ``rows`` (n,) int64 or bool (N,)."""
        return SoftLabels(self.prob[rows], self.weight[rows])

    def weighted(self, weight: Tensor) -> SoftLabels:
        """The same distributions with other weights (N,)."""
        return SoftLabels(self.prob, weight)

    def validate(self) -> None:
        """Read the values (which stalls a GPU) and raise ValueError where they break the contract."""
        total = self.prob.sum(1)  # finite only if all its terms are
        if not bool(torch.isfinite(total).all()) or bool((self.prob < 0).any()):
            raise ValueError("prob holds NaN, infinite or negative values")
        wrong = ((total - 1).abs() > 1e-3) & (total != 0)
        if bool(wrong.any()):
            row = int(wrong.nonzero()[0])
            raise ValueError(
                f"rows of prob must sum to 1 (or 0 = no opinion); row {row} sums to {float(total[row]):.4f}"
            )
        if not bool(torch.isfinite(self.weight).all()) or bool((self.weight < 0).any()):
            raise ValueError("weight holds NaN, infinite or negative values")


class TopLabels(SoftLabels):
    """A distribution over K clusters that is not 0 for at most k of them: N · k numbers instead of N · K.

    Args:
        index: (N, k) int64 in [0, count), the clusters, different ones wherever the value is not 0.
        value: (N, k) float32, their probabilities, descending along a row, of equal ones the smaller index first; a row's
            sum is 1, or 0 where there is no opinion.
        count: K.
        weight: (N,) float32 ≥ 0; all 1 if not given.

    Raises:
        ValueError: a shape or the dtype of ``index`` differs from the above, or there is no cluster.
    """

    index: Tensor
    value: Tensor

    def __init__(self, index: Tensor, value: Tensor, count: int, weight: Tensor | None = None) -> None:
        if index.ndim != 2 or index.dtype != torch.int64 or index.shape != value.shape:
            raise ValueError(
                f"index and value must be (N, k), int64 and floating point, got {tuple(index.shape)} {index.dtype} "
                f"and {tuple(value.shape)} {value.dtype}"
            )
        if index.shape[1] < 1 or count < 1:
            raise ValueError(f"k and count must be at least 1, got {index.shape[1]} and {count}")
        weight = value.new_ones(len(value)) if weight is None else weight
        if weight.shape != (len(value),):
            raise ValueError(f"weight must be ({len(value)},), got {tuple(weight.shape)}")
        for name, held in {"index": index, "value": value, "weight": weight, "_count": count}.items():
            object.__setattr__(self, name, held)

    def __len__(self) -> int:
        return len(self.value)

    @property
    def prob(self) -> Tensor:
        """(N, K) float32, made at each call: for a few rows only."""
        dense = self.value.new_zeros(len(self), self.count)
        return dense.scatter_add_(1, self.index, self.value)

    @property
    def count(self) -> int:
        return self._count  # type: ignore[attr-defined, no-any-return]

    @cached_property
    def opinion(self) -> Tensor:
        return (self.value.sum(1) > 0) & (self.weight > 0)

    @cached_property
    def hard(self) -> Tensor:
        return torch.where(self.opinion, self.index[:, 0], OUTLIER)

    def take(self, rows: Tensor) -> SoftLabels:
        """The labels of some samples, dense unless they are very many."""
        few = TopLabels(self.index[rows], self.value[rows], self.count, self.weight[rows])
        return few if len(few) * self.count > DENSE_ENTRIES else SoftLabels(few.prob, few.weight)

    def weighted(self, weight: Tensor) -> SoftLabels:
        return TopLabels(self.index, self.value, self.count, weight)

    def validate(self) -> None:
        """As of dense labels; also that values descend and that no row names a cluster twice."""
        if bool((self.index < 0).any()) or bool((self.index >= self.count).any()):
            raise ValueError(f"index must lie in [0, {self.count})")
        if bool((self.value.diff(dim=1) > 0).any()):
            raise ValueError("value must descend along each row")
        apart = -1 - torch.arange(self.index.shape[1], device=self.index.device)  # entries of 0 may name any cluster
        named = torch.where(self.value > 0, self.index, apart).sort(dim=1).values
        if bool((named.diff(dim=1) == 0).any()):
            raise ValueError("index must name different clusters along each row")
        SoftLabels(self.value, self.weight).validate()
