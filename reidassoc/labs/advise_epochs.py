"""After how many epochs of its first stage a run's clusters settle, judged without identities."""

from __future__ import annotations

from dataclasses import dataclass
from os import PathLike
from pathlib import Path

import numpy as np

from reidassoc.errors import DataError, RecipeError
from reidassoc.files.npz import read_npz
from reidassoc.labs.advise import Labels, agreement, neither_empty_nor_merged, shape_of
from reidassoc.runs.folder import RunFolder, labels_name
from reidassoc.types import Modality, Pair

WINDOW = 3  # epochs over which agreement is averaged: single ones jump
TOLERANCE = 0.02  # of an adjusted Rand index; what is lost below the best is in the noise of a few samples
LATE = 0.9  # share of the stage after which it ended too early to tell


@dataclass(frozen=True)
class Epoch:
    """The clusters that one epoch began with.

    Args:
        epoch: so many epochs were trained before.
        agreement: adjusted Rand index with the clusters of the epoch before; None where there are none.
        clusters: K.
        outliers: share of the samples.
        largest: share of the samples in the largest cluster.
    """

    epoch: int
    agreement: Pair[float | None]
    clusters: Pair[int]
    outliers: Pair[float]
    largest: Pair[float]

    @property
    def least(self) -> float | None:
        """The agreement of the modality that is less settled; None if a modality's clusters are nothing to go by."""
        sound = all(map(neither_empty_nor_merged, self.clusters, self.outliers, self.largest))
        known = [value for value in self.agreement if value is not None]
        return min(known) if sound and len(known) == len(tuple(Modality)) else None


@dataclass(frozen=True)
class Settling:
    """How the clusters of a run's first stage settled.

    Args:
        stage: its name.
        total: its epochs.
        epochs: those whose labels are kept.
        settled: after how many epochs clusters hardly change; None if no epoch has sound clusters.
    """

    stage: str
    total: int
    epochs: tuple[Epoch, ...]
    settled: int | None

    @property
    def change(self) -> str | None:
        """The change to the recipe that this speaks for, as ``--set`` takes it."""
        return None if self.settled is None else f"{self.stage}.epochs={self.settled}"

    @property
    def late(self) -> bool:
        """Whether they settled only as the stage ended: then it may have been too short."""
        return self.settled is not None and self.settled >= LATE * self.total


def advise_epochs(run: str | PathLike[str]) -> Settling:
    """Advise after how many epochs of a run's first stage to go on to the next one, without identities.

    The own labels of neighbouring epochs are compared by the adjusted Rand index, averaged over three epochs; the advised
    epoch is the first at which the less settled modality comes within 0.02 of its highest. Epochs in which most samples are
    outliers, or in one cluster, don't count. A heuristic. Source of the quantity: Caron et al., DeepCluster, ECCV 2018, who
    watch the (normalised mutual) information between assignments of neighbouring epochs.

    Args:
        run: a run folder, or a run's result; unfinished ones do as well.

    Raises:
        CheckpointError: it is no run folder.
        RecipeError: its first stage makes labels once, so that nothing settles.
        DataError: it keeps the labels of too few epochs, or a file of them is spoilt.
    """
    folder = RunFolder.open(Path(run))
    stage = folder.recipe.stages[0]
    if stage.relabel == "once":
        raise RecipeError(f"{folder.path}: stage '{stage.name}' makes its labels once, so there is nothing to settle")
    epochs: list[Epoch] = []
    before: tuple[int, Pair[Labels]] | None = None
    for number in range(stage.epochs):
        path = folder.path / labels_name(number)
        if not path.is_file():  # not trained yet, or left out for want of clusters
            continue
        labels = own_labels(path)
        last = before[1] if before is not None and before[0] == number - 1 else None
        epochs.append(described(number, labels, last))
        before = number, labels
    if len(epochs) <= WINDOW:
        raise DataError(
            f"{folder.path} keeps the labels of {len(epochs)} epochs of stage '{stage.name}'; advice needs more than {WINDOW}"
        )
    return Settling(stage.name, stage.epochs, tuple(epochs), settled(epochs))


def own_labels(path: Path) -> Pair[Labels]:
    expected = "expected whole numbers 'own_visible' and 'own_infrared', as a run writes them"
    arrays = read_npz(path, "label file", expected)
    for modality in Modality:
        array = arrays.get(f"own_{modality}")
        if array is None or array.ndim != 1 or array.dtype.kind not in "iu" or not len(array):
            raise DataError(f"{path} has no labels of {modality} images; {expected}")
    return Pair.build(lambda m: arrays[f"own_{m}"].astype(np.int64))


def described(epoch: int, labels: Pair[Labels], before: Pair[Labels] | None) -> Epoch:
    def compared(modality: Modality) -> float | None:
        if before is None or len(before[modality]) != len(labels[modality]):
            return None
        return agreement(before[modality], labels[modality])

    shapes = labels.map(shape_of)
    clusters, outliers, largest = (Pair(*column) for column in zip(*shapes, strict=True))
    return Epoch(epoch, Pair.build(compared), clusters, outliers, largest)


def settled(epochs: list[Epoch]) -> int | None:
    """The first epoch whose agreement, averaged with those just before it, is nearly the highest."""
    smooth: dict[int, float] = {}
    for place in range(WINDOW - 1, len(epochs)):
        values = [epoch.least for epoch in epochs[place - WINDOW + 1 : place + 1]]
        known = [value for value in values if value is not None]
        if len(known) == WINDOW:
            smooth[epochs[place].epoch] = sum(known) / WINDOW
    if not smooth:
        return None
    best = max(smooth.values())
    return next(epoch for epoch, value in smooth.items() if value >= best - TOLERANCE)
