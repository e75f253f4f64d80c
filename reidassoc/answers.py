"""What plug-ins answer, looked over where it is given: a wrong answer is theirs, not that of whoever stumbles over it later."""

from __future__ import annotations

import torch
from torch import Tensor

from reidassoc.scene import Scene
from reidassoc.types import Association, Clustering, Features, Modality, Pair, SoftLabels, Targets


def refuse_clustering(answer: object, features: Pair[Features]) -> None:
    """Raise ValueError, with what is wrong, unless it is a clustering of these samples, its clusters numbered without gaps."""
    if not isinstance(answer, Clustering):
        raise ValueError(f"must return a Clustering, got {named(answer)}")
    for modality in Modality:
        clusters, rows = answer.own[modality], len(features[modality])
        if len(clusters.labels) != rows:
            raise ValueError(f"{modality}: {len(clusters.labels)} labels for {rows} samples")
        try:
            clusters.validate()
        except ValueError as error:
            raise ValueError(f"{modality}: {error}") from None
        used = len(torch.unique(clusters.labels[clusters.labels >= 0]))
        if used != clusters.count:
            raise ValueError(
                f"{modality}: {clusters.count} clusters, but {used} have members; number them without gaps"
            )


def refuse_association(answer: object, scene: Scene) -> None:
    """Raise ValueError unless it is an association whose labels are of the scene's samples and clusters."""
    if not isinstance(answer, Association):
        raise ValueError(f"must return an Association, got {named(answer)}{'; is there a return?' * (answer is None)}")
    own = scene.clustering.own
    for name, clusters in (("cross", own.swapped), ("own", own), ("shared", None)):
        pair = getattr(answer, name)
        if pair is not None and not isinstance(pair, Pair):
            raise ValueError(f"{name} must be a Pair, got {named(pair)}")
        if pair is None:
            continue
        for modality in Modality:
            x = scene.features[modality].x
            count = clusters[modality].count if clusters is not None else getattr(pair.visible, "count", 0)
            refuse_labels(pair[modality], (len(x), count), x, f"{name} labels of the {modality} samples")


def refuse_targets(answer: object, before: Targets, scene: Scene) -> None:
    """Raise ValueError unless a refiner kept every entry of the targets that it was given, and their shapes."""
    if not isinstance(answer, Targets):
        raise ValueError(f"must return Targets, got {named(answer)}{'; is there a return?' * (answer is None)}")
    for (modality, space), labels in before.table.items():
        where = f"labels of the {modality} samples in space '{space}'"
        if not answer.has(modality, space):
            raise ValueError(f"lost the {where}; targets.replaced keeps what it does not name")
        found = answer.of(modality, space)
        if found is not labels:
            refuse_labels(found, (len(labels), labels.count), scene.features[modality].x, where)


def refuse_labels(labels: object, shape: tuple[int, int], x: Tensor, where: str) -> None:
    """Raise ValueError unless these are distributions of a shape, on the device of the features ``x``."""
    if not isinstance(labels, SoftLabels):
        raise ValueError(f"{where} must be SoftLabels, got {named(labels)}")
    found = (len(labels), labels.count)
    if found != shape:
        raise ValueError(f"{where} must be {shape}, samples × clusters, got {found}")
    if labels.weight.device != x.device:
        raise ValueError(f"{where} are on {labels.weight.device}, the features on {x.device}")
    try:
        labels.validate()
    except ValueError as error:
        raise ValueError(f"{where}: {error}") from None


def named(value: object) -> str:
    return type(value).__name__
