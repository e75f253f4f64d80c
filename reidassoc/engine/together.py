"""The label stage of a run on several devices: the first rank makes the labels, the others are told."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Any

from lightning_fabric import Fabric
from torch import Tensor

from reidassoc.engine.checkpoint import pack_targets, unpack_targets
from reidassoc.engine.labelling import Labelled, label
from reidassoc.engine.ranks import first, told
from reidassoc.pipeline import Method
from reidassoc.recipe import Stage
from reidassoc.scene import Scene
from reidassoc.types import Clustering, Clusters, Features, Pair, Targets


def label_together(
    fabric: Fabric,
    method: Method,
    stage: Stage,
    features: Pair[Features],
    *,
    epoch: int,
    stage_epoch: int,
    seed: int,
    previous: Targets | None,
    losses: Pair[Tensor] | None,
    counts: Counter[str],
    identity: Pair[Tensor] | None = None,
) -> Labelled | None:
    """As :func:`reidassoc.engine.labelling.label`, the same on every rank: clusterings may differ in what is rounded."""
    found = None
    if first(fabric):
        found = label(
            method, stage, features, epoch=epoch, stage_epoch=stage_epoch, seed=seed, previous=previous, losses=losses,
            counts=counts, identity=identity,
        )  # fmt: skip
    if fabric.world_size == 1:
        return found
    data = told(fabric, {"labelled": packed(found), "counts": dict(counts)})
    if first(fabric):
        return found
    counts.clear()
    counts.update(data["counts"])
    known = data["labelled"]
    if known is None:
        return None
    scene = Scene(epoch, seed, features, unpacked(known["clustering"]), previous, losses, stage_epoch)
    targets = unpack_targets(known["targets"])
    assert targets is not None
    return Labelled(scene, targets, known["fresh"])


def packed(labelled: Labelled | None) -> dict[str, Any] | None:
    if labelled is None:
        return None
    clustering = labelled.scene.clustering
    groups = {"own": clustering.own, "shared": clustering.shared, **{f"+{k}": v for k, v in clustering.extra.items()}}
    return {
        "fresh": labelled.fresh,
        "targets": pack_targets(labelled.targets),
        "clustering": {
            name: [(clusters.labels, clusters.centroids) for clusters in both]
            for name, both in groups.items()
            if both is not None
        },
    }


def unpacked(groups: Mapping[str, Any]) -> Clustering:
    made = {name: Pair(*(Clusters(*clusters) for clusters in both)) for name, both in groups.items()}
    extra = {name.removeprefix("+"): both for name, both in made.items() if name.startswith("+")}
    return Clustering(made["own"], made.get("shared"), extra)
