"""How good pseudo-labels are, against true identities: from contingency tables, in O(N + non-empty cells), never N × N."""

from __future__ import annotations

from dataclasses import asdict, dataclass

import numpy as np
import numpy.typing as npt
from scipy.sparse import coo_matrix, csr_matrix
from sklearn import metrics
from torch import Tensor

from reidassoc.types import OUTLIER, Modality, Pair, Targets

Labels = npt.NDArray[np.int64]
Shares = tuple[float | None, float | None]


@dataclass(frozen=True, kw_only=True)
class LabelQuality:
    """The quality of one label space. Shares lie in [0, 1]; ``None`` where there is nothing to divide by.

    A pair is right if both samples are of one identity, and predicted if both are labelled alike. Recall is over
    *all* right pairs, so a sample without label costs recall; ARI, FMI, AMI and V-measure are over labelled samples
    of both modalities together. A sample of unknown identity (negative) makes no pair, neither right nor wrong, and has
    no part in ARI, FMI, AMI and V-measure; coverage, clusters and association rate count it.

    Args:
        coverage_visible: share of the visible samples that have a label in this space.
        coverage_infrared: the same of the infrared samples.
        precision_visible: right pairs among the predicted pairs of visible samples.
        recall_visible: predicted pairs among the right pairs of visible samples.
        precision_infrared: as above, of infrared samples.
        recall_infrared: as above, of infrared samples.
        precision_cross: as above, of pairs of one visible and one infrared sample.
        recall_cross: as above, of pairs of one visible and one infrared sample.
        ari: adjusted Rand index.
        fmi: Fowlkes-Mallows index.
        ami: adjusted mutual information (arithmetic mean).
        v_measure: V-measure, beta 1.
        association_rate: share of the non-empty clusters that hold samples of both modalities.
        clusters: non-empty clusters.
        identities: known identities among all samples, labelled or not.
    """

    coverage_visible: float | None
    coverage_infrared: float | None
    precision_visible: float | None
    recall_visible: float | None
    precision_infrared: float | None
    recall_infrared: float | None
    precision_cross: float | None
    recall_cross: float | None
    ari: float | None
    fmi: float | None
    ami: float | None
    v_measure: float | None
    association_rate: float | None
    clusters: int
    identities: int


def label_quality(targets: Targets, identity: Pair[Tensor]) -> dict[str, float]:
    """Return the quality of every label space of ``targets``, flat: ``{"visible/ari": …, "infrared/recall_cross": …}``.

    Figures that are undefined (no predicted pair, no known identity, a modality without labels in the space) are left
    out, so that the result goes into a JSON line as it is.

    Args:
        targets: hard labels are read from it; a row without opinion counts as unlabelled.
        identity: (N,) int64 per modality, rows as in the targets; negative = unknown.

    Raises:
        ValueError: a space has not one label for each identity.
    """
    spaces = dict.fromkeys(space for _, space in targets.table)
    flat: dict[str, float] = {}
    for space in spaces:
        nothing = identity.map(lambda known: known.new_full((len(known),), OUTLIER))
        labels = Pair.build(
            lambda m, space=space, nothing=nothing: targets.of(m, space).hard if targets.has(m, space) else nothing[m]  # type: ignore[misc]
        )
        quality = measure(labels, identity)
        flat |= {f"{space}/{name}": value for name, value in asdict(quality).items() if value is not None}
    return flat


def measure(labels: Pair[Tensor], identity: Pair[Tensor]) -> LabelQuality:
    """Measure one label space.

    Args:
        labels: (N,) int64 per modality, −1 = no label; the same number is the same cluster in both.
        identity: (N,) int64 per modality; negative = unknown.

    Raises:
        ValueError: lengths differ.

    Examples:
        >>> import torch
        >>> labels = Pair(torch.tensor([0, 0, 1]), torch.tensor([0, -1]))
        >>> quality = measure(labels, identity=Pair(torch.tensor([5, 5, 6]), torch.tensor([5, 6])))
        >>> quality.precision_cross, quality.recall_cross, quality.association_rate
        (1.0, 0.6666666666666666, 0.5)
    """
    for modality in Modality:
        if labels[modality].shape != identity[modality].shape:
            raise ValueError(
                f"{modality}: {tuple(labels[modality].shape)} labels for {tuple(identity[modality].shape)} identities; "
                "give the identities of exactly the samples that were labelled"
            )
    predicted: Pair[Labels] = labels.map(lambda tensor: np.asarray(tensor.cpu(), dtype=np.int64))
    given: Pair[Labels] = identity.map(lambda tensor: np.asarray(tensor.cpu(), dtype=np.int64))
    known = given.map(lambda array: array >= 0)
    used = np.unique(np.concatenate([array[array != OUTLIER] for array in predicted]))
    names = np.unique(np.concatenate([given[m][known[m]] for m in Modality]))
    true = Pair.build(lambda m: np.searchsorted(names, given[m][known[m]]))
    judged = Pair.build(lambda m: predicted[m][known[m]])
    table = Pair.build(lambda m: contingency(judged[m], true[m], used, len(names)))
    size = true.map(lambda array: np.bincount(array, minlength=len(names)).astype(np.float64))

    right_both = float(table.visible.multiply(table.infrared).sum())
    in_cluster = table.map(lambda cells: np.asarray(cells.sum(1), dtype=np.float64).ravel())
    within = Pair.build(lambda m: pairs_within(table[m], in_cluster[m], size[m]))
    covered = predicted.map(lambda array: share(float((array != OUTLIER).sum()), len(array)))
    held = predicted.map(lambda array: np.isin(used, array))
    agreement = agreements(judged, true)
    return LabelQuality(
        coverage_visible=covered.visible,
        coverage_infrared=covered.infrared,
        precision_visible=within.visible[0],
        recall_visible=within.visible[1],
        precision_infrared=within.infrared[0],
        recall_infrared=within.infrared[1],
        precision_cross=share(right_both, float(in_cluster.visible @ in_cluster.infrared)),
        recall_cross=share(right_both, float(size.visible @ size.infrared)),
        ari=agreement[0],
        fmi=agreement[1],
        ami=agreement[2],
        v_measure=agreement[3],
        association_rate=share(float((held.visible & held.infrared).sum()), len(used)),
        clusters=len(used),
        identities=len(names),
    )


def contingency(label: Labels, person: Labels, used: Labels, people: int) -> csr_matrix:
    """Samples per (cluster, identity), (K, I) sparse; ``used`` are the K labels, ``person`` counts identities from 0."""
    kept = label != OUTLIER
    cluster = np.searchsorted(used, label[kept])
    return coo_matrix((np.ones(len(cluster)), (cluster, person[kept])), shape=(len(used), people)).tocsr()


def pairs_within(table: csr_matrix, in_cluster: npt.NDArray[np.float64], size: npt.NDArray[np.float64]) -> Shares:
    """Pair precision and recall among the samples of one modality."""
    right = float((table.data * (table.data - 1)).sum())
    return share(right, float(in_cluster @ (in_cluster - 1))), share(right, float(size @ (size - 1)))


def agreements(predicted: Pair[Labels], true: Pair[Labels]) -> tuple[float | None, ...]:
    """ARI, FMI, AMI and V-measure of the labelled samples of both modalities together; None where there is no pair."""
    label, identity = np.concatenate([*predicted]), np.concatenate([*true])
    kept = label != OUTLIER
    if kept.sum() < 2:
        return None, None, None, None
    label, identity = label[kept], identity[kept]
    pairs = all(len(np.unique(values)) < len(values) for values in (label, identity))  # some predicted, and some right
    return (
        float(metrics.adjusted_rand_score(identity, label)),
        float(metrics.fowlkes_mallows_score(identity, label)) if pairs else None,
        float(metrics.adjusted_mutual_info_score(identity, label)),
        float(metrics.v_measure_score(identity, label)),
    )


def share(part: float, whole: float) -> float | None:
    return part / whole if whole else None


def coverage(targets: Targets) -> float | None:
    """Share of all samples that are labelled in the other modality's space; None if there are no samples."""
    said = [targets.of(m, m.other).labelled for m in Modality if targets.has(m, m.other)]
    total = sum(len(targets.of(m, m)) for m in Modality)
    return sum(int(flags.sum()) for flags in said) / total if total else None
