"""Which samples a step trains on: P pseudo-identities × K images of each modality. All on the host."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from reidassoc.interfaces.plugins import Sampling
from reidassoc.types import SHARED, Modality, Pair, Targets

Rows = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Pool:
    """The samples of each label of a space, by modality; a label without samples on a needed side is not here."""

    members: tuple[Pair[Rows], ...]


@dataclass(frozen=True)
class Sampler:
    """Draws batches from the targets' hard labels.

    ``own``: each modality draws P of its own labels. ``paired``: half of the P labels come from the visible space (visible
    samples by own label, infrared ones by cross label), half from the infrared space. ``shared``: all from the shared space.
    """

    sampling: Sampling
    pools: tuple[Pool, ...]
    identities: int
    images: int

    @staticmethod
    def build(targets: Targets, sampling: Sampling, *, identities: int, images: int) -> Sampler:
        """Group the samples of some targets for batches of ``identities`` (P) labels with ``images`` (K) samples each."""
        hard = {key: labels.hard.cpu().numpy() for key, labels in targets.table.items()}
        none = np.empty(0, dtype=np.int64)
        if sampling == "own":
            pools = []
            for modality in Modality:
                groups = rows_by_label(hard[modality, str(modality)]).values()
                first = modality is Modality.VISIBLE
                pools.append(Pool(tuple(Pair(rows, none) if first else Pair(none, rows) for rows in groups)))
            return Sampler(sampling, tuple(pools), identities, images)
        spaces = [SHARED] if sampling == "shared" else [str(modality) for modality in Modality]
        pools = []
        for space in spaces:
            visible = rows_by_label(hard[Modality.VISIBLE, space])
            infrared = rows_by_label(hard[Modality.INFRARED, space])
            both = sorted(visible.keys() & infrared.keys())
            pools.append(Pool(tuple(Pair(visible[label], infrared[label]) for label in both)))
        return Sampler(sampling, tuple(pools), identities, images)

    @property
    def usable(self) -> bool:
        """Whether a batch can be drawn."""
        sizes = [len(pool.members) for pool in self.pools]
        return all(sizes) if self.sampling == "own" else any(sizes)

    @property
    def short(self) -> bool:
        """Whether there are fewer labels than a batch wants, so that some are drawn twice."""
        return any(len(pool.members) < wanted for pool, wanted in zip(self.pools, self.quota(), strict=True))

    def quota(self) -> list[int]:
        """How many labels each pool gives to a batch."""
        if self.sampling != "paired":
            return [self.identities] * len(self.pools)
        sizes = [len(pool.members) for pool in self.pools]
        if 0 in sizes:
            return [self.identities if size else 0 for size in sizes]
        return [self.identities - self.identities // 2, self.identities // 2]

    def batch(self, random: np.random.Generator) -> Pair[Rows]:
        """Draw one batch: up to P·K rows of each modality. Only where it is :attr:`usable`."""
        chosen: Pair[list[Rows]] = Pair([], [])
        for pool, quota in zip(self.pools, self.quota(), strict=True):
            if not pool.members or not quota:
                continue
            count = len(pool.members)
            picks = random.choice(count, quota, replace=count < quota)
            for pick in picks:
                for modality in Modality:
                    rows = pool.members[pick][modality]
                    if len(rows):
                        chosen[modality].append(random.choice(rows, self.images, replace=len(rows) < self.images))
        return chosen.map(np.concatenate)


def rows_by_label(labels: Rows) -> dict[int, Rows]:
    """Group rows by label in one sort; −1 is left out."""
    order = np.argsort(labels, kind="stable")
    values, starts = np.unique(labels[order], return_index=True)
    edges = [*starts, len(order)]
    groups = zip(values, edges[:-1], edges[1:], strict=True)
    return {int(value): order[start:stop] for value, start, stop in groups if value >= 0}
