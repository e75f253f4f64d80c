"""What plug-ins answer, looked over where it is given: a wrong answer is theirs, not that of whoever stumbles over it later."""

from __future__ import annotations

from typing import get_args

import torch
from torch import Tensor, nn

from reidassoc.interfaces.banks import Bank, Level
from reidassoc.interfaces.scene import Scene
from reidassoc.types import STREAMS, Association, Clustering, Features, Modality, Pair, SoftLabels, Targets

LEVELS = get_args(Level)


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


def refuse_banks(answer: object, scene: Scene, targets: Targets) -> None:
    """Raise ValueError unless these are banks whose rows, and the streams that feed them, fit the epoch's labels or images."""
    if not isinstance(answer, (list, tuple)):
        raise ValueError(
            f"banks must return a sequence of Bank, got {named(answer)}{'; is there a return?' * (answer is None)}"
        )
    for bank in answer:
        if not isinstance(bank, Bank):
            raise ValueError(f"banks must return a sequence of Bank, got a {named(bank)} in it")
        try:
            refuse_bank(bank, scene, targets)
        except ValueError as error:
            raise ValueError(f"bank '{bank.name}': {error}") from None


def refuse_bank(bank: Bank, scene: Scene, targets: Targets) -> None:
    if bank.level not in LEVELS:
        raise ValueError(f"its level must be {' or '.join(LEVELS)}, got {bank.level!r}")
    space, rows, strange = str(bank.space), len(bank.start), sorted(set(bank.fed_by) - set(STREAMS))
    if strange:
        raise ValueError(f"is fed by {', '.join(strange)}; streams are {', '.join(STREAMS)}")
    if bank.level == "instance":
        if space not in tuple(Modality):
            raise ValueError(f"a row is an image, so its space must be {' or '.join(Modality)}, got '{space}'")
        count = len(scene.features[Modality(space)])
        if rows != count:
            raise ValueError(f"starts from {rows} rows, but there are {count} {space} images, and a row is an image")
        if others := [stream for stream in bank.fed_by if STREAMS[stream] != space]:
            raise ValueError(
                f"its rows are {space} images, but it is fed by {', '.join(others)}, too; declare a bank for each modality"
            )
        return
    known = {str(space): labels.count for (_, space), labels in targets.table.items()}
    if space not in known:
        raise ValueError(f"has the space '{space}', of which there are no labels; there are {', '.join(sorted(known))}")
    if rows != known[space]:
        raise ValueError(f"starts from {rows} rows, but its space has {known[space]} clusters")
    for stream in bank.fed_by:
        if not targets.has(STREAMS[stream], space):
            raise ValueError(f"is fed by {stream}, whose images have no labels in its space '{space}'")


def refuse_module(answer: object) -> None:
    """Raise ValueError unless it is what an objective may train beside the network: a module, or None."""
    if not (answer is None or isinstance(answer, nn.Module)):
        raise ValueError(f"modules must return a torch.nn.Module, or None for nothing to train, got {named(answer)}")


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
