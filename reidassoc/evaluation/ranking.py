"""CMC, mAP and mINP of one query set against one gallery, by a protocol's rule, from distances of any sign and scale."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from reidassoc.errors import DataError
from reidassoc.types import Rule

MAX_RANK = 20
CHUNK = 4_000_000  # distances sorted at once: about 150 MB of working memory


@dataclass(frozen=True)
class Ranking:
    """How Q queries fared. All figures are fractions of 1.

    Args:
        first: (Q,) int64 rank of the query's first match as CMC counts it, from 1; 0 if nothing in the gallery is relevant.
        average_precision: (Q,) float64, mean of the precision at each relevant rank; NaN where ``first`` is 0.
        inverse_penalty: (Q,) float64, INP: relevant images / rank of the last of them; NaN where ``first`` is 0.
    """

    first: Tensor
    average_precision: Tensor
    inverse_penalty: Tensor

    def __len__(self) -> int:
        return len(self.first)

    @property
    def counted(self) -> int:
        """Queries with a relevant image: the means are over these."""
        return int((self.first > 0).sum())

    @property
    def left_out(self) -> int:
        """Queries without any relevant image."""
        return len(self.first) - self.counted

    @property
    def cmc(self) -> Tensor:
        """(20,) float64: share of the counted queries whose first match is at rank 1, 2, …, 20 or before; NaN if none counts."""
        first = self.first[self.first > 0].clamp(max=MAX_RANK + 1)
        hits = torch.bincount(first, minlength=MAX_RANK + 2)[1 : MAX_RANK + 1]
        return hits.cumsum(0).double() / len(first)

    @property
    def mean_average_precision(self) -> float:
        """Over the counted queries; NaN if none counts."""
        return self._mean(self.average_precision)

    @property
    def mean_inverse_penalty(self) -> float:
        """Over the counted queries; NaN if none counts."""
        return self._mean(self.inverse_penalty)

    def _mean(self, values: Tensor) -> float:
        return float(values[self.first > 0].mean())

    @staticmethod
    def join(parts: Sequence[Ranking]) -> Ranking:
        """The ranking of all parts' queries, in order."""
        return Ranking(
            torch.cat([part.first for part in parts]),
            torch.cat([part.average_precision for part in parts]),
            torch.cat([part.inverse_penalty for part in parts]),
        )


def rank(
    distance: Tensor,
    *,
    query_identity: Tensor,
    gallery_identity: Tensor,
    query_camera: Tensor,
    gallery_camera: Tensor,
    rule: Rule,
) -> Ranking:
    """Score every query: sort once, drop the ignored images, read off the ranks.

    Equal distances are ranked in gallery order. AP and INP use the full ranking; under ``rule.first_occurrence`` CMC
    counts only the nearest image of each gallery identity. A gallery image of unknown identity is neither right nor wrong:
    it is left out. A query of unknown identity has no match. An unknown camera is not the same as any other.

    Args:
        distance: (Q, G) floating point, small is near.
        query_identity: (Q,) int64; negative = unknown, as in the other columns.
        gallery_identity: (G,) int64.
        query_camera: (Q,) int64.
        gallery_camera: (G,) int64.
        rule: which gallery images a query ignores, and how CMC counts.

    Returns:
        A ``Ranking`` on the CPU.

    Raises:
        ValueError: a shape differs from the above.
        DataError: a distance is NaN.

    Examples:
        >>> ranking = rank(
        ...     torch.tensor([[0.3, 0.1, 0.2]]),
        ...     query_identity=torch.tensor([7]), gallery_identity=torch.tensor([5, 7, 7]),
        ...     query_camera=torch.tensor([3]), gallery_camera=torch.tensor([1, 2, 1]),
        ...     rule=Rule(ignored_cameras=((3, 2),)),
        ... )
        >>> ranking.mean_average_precision
        1.0
    """
    if distance.ndim != 2 or not distance.dtype.is_floating_point:
        raise ValueError(f"distance must be (Q, G) floating point, got {tuple(distance.shape)} {distance.dtype}")
    queries, gallery = distance.shape
    named = {"query_identity": (query_identity, queries), "gallery_identity": (gallery_identity, gallery)}
    named |= {"query_camera": (query_camera, queries), "gallery_camera": (gallery_camera, gallery)}
    for name, (column, length) in named.items():
        if column.shape != (length,):
            raise ValueError(f"{name} must be ({length},) to fit the distances, got {tuple(column.shape)}")
    refuse_nan(distance)
    device = distance.device
    query_identity, query_camera = query_identity.to(device), query_camera.to(device)
    gallery_identity, gallery_camera = gallery_identity.to(device), gallery_camera.to(device)
    if not bool((known := gallery_identity >= 0).all()):
        distance, gallery_identity, gallery_camera = distance[:, known], gallery_identity[known], gallery_camera[known]
    step = max(1, CHUNK // max(gallery, 1))
    parts = [
        rank_chunk(
            distance[start : start + step],
            query_identity[start : start + step],
            gallery_identity,
            query_camera[start : start + step],
            gallery_camera,
            rule,
        )
        for start in range(0, max(queries, 1), step)
    ]
    return Ranking.join(parts)


def refuse_nan(distance: Tensor) -> None:
    """Raise DataError if a distance is NaN; infinite ones have their place."""
    if bool(torch.isnan(distance).any()):
        raise DataError(
            "the features to rank hold NaN: the run has diverged; take an earlier checkpoint or a lower learning rate"
        )


def rank_chunk(
    distance: Tensor,
    query_identity: Tensor,
    gallery_identity: Tensor,
    query_camera: Tensor,
    gallery_camera: Tensor,
    rule: Rule,
) -> Ranking:
    """`rank` for a few queries, on one device, with all that is (Q, G) held at once."""
    queries, gallery = distance.shape
    if gallery == 0:
        nothing = torch.full((queries,), float("nan"), dtype=torch.float64)
        return Ranking(torch.zeros(queries, dtype=torch.int64), nothing, nothing)
    same_identity = query_identity[:, None] == gallery_identity
    order = nearest_first(distance)
    kept = ~ignored(rule, same_identity, query_camera, gallery_camera).gather(1, order)
    relevant = same_identity.gather(1, order) & kept
    position = kept.cumsum(1, dtype=torch.int32)  # rank of each kept image among the kept ones, from 1
    found = relevant.cumsum(1, dtype=torch.int32)
    total = found[:, -1]

    answered = total > 0
    precision = torch.where(relevant, found.double() / position.clamp(min=1), 0.0)
    average_precision = precision.sum(1) / total
    last = torch.where(relevant, position, 0).amax(1)
    inverse_penalty = total.double() / last
    first = torch.where(relevant, position, gallery + 1).amin(1)
    if rule.first_occurrence:
        first = identity_rank(first, position, kept, gallery_identity, order)
    first = torch.where(answered, first, 0).long()
    return Ranking(first.cpu(), average_precision.cpu(), inverse_penalty.cpu())


def ignored(rule: Rule, same_identity: Tensor, query_camera: Tensor, gallery_camera: Tensor) -> Tensor:
    """(Q, G) bool: gallery images that a query ignores by the protocol's rule.

    Args:
        rule: the protocol's.
        same_identity: (Q, G) bool.
        query_camera: (Q,) int64.
        gallery_camera: (G,) int64.
    """
    found = torch.zeros_like(same_identity)
    for query_side, gallery_side in rule.ignored_cameras:
        found |= (query_camera == query_side)[:, None] & (gallery_camera == gallery_side)
    if rule.ignore_same_identity_camera:
        found |= same_identity & (query_camera[:, None] == gallery_camera) & (gallery_camera >= 0)
    return found


def nearest_first(distance: Tensor) -> Tensor:
    """Stable argsort of each row, (Q, G) int64.

    On a CPU, float32 distances are sorted as whole numbers that carry their column: NumPy does that several times faster.
    """
    if distance.device.type != "cpu" or distance.dtype != torch.float32:
        return distance.argsort(dim=1, stable=True)
    bits = (distance.contiguous() + 0.0).view(torch.int32)  # adding 0 makes −0 and 0 one number
    rising = torch.where(bits < 0, bits ^ 0x7FFFFFFF, bits)  # in the order of the floats
    keys = ((rising.long() << 32) | torch.arange(distance.shape[1])).numpy()
    keys.sort(axis=1)
    return torch.from_numpy(keys) & 0xFFFFFFFF


def identity_rank(first: Tensor, position: Tensor, kept: Tensor, gallery_identity: Tensor, order: Tensor) -> Tensor:
    """Rank of the match among gallery identities: one more than the identities whose nearest image comes before it."""
    identities, code = torch.unique(gallery_identity, return_inverse=True)
    gallery = len(gallery_identity)
    nearest = position.new_full((len(position), len(identities)), gallery + 1)
    nearest.scatter_reduce_(1, code[order], torch.where(kept, position, gallery + 1), reduce="amin")
    return 1 + (nearest < first[:, None]).sum(1)
