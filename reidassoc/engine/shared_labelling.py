"""The label stage of a run on several devices: the first rank makes the labels, the others receive them.

The first rank alone runs the plug-ins. So the ranks need not agree in what a plug-in does, and a plug-in knows nothing of
them.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from typing import Any

from lightning_fabric import Fabric

from reidassoc.engine.checkpoint import pack_targets, unpack_targets
from reidassoc.engine.devices.ranks import first, told
from reidassoc.engine.label_stage import Given, Labelled
from reidassoc.types import Clustering, Clusters, Pair


def label_together(
    fabric: Fabric, given: Given, counts: Counter[str], make: Callable[[], Labelled | None]
) -> Labelled | None:
    """Return what ``make`` returns on the first rank, on every rank.

    Args:
        given: what the labels are made from, the same on every rank.
        counts: what ``make`` counts in; made the same on every rank.
        make: is called on the first rank alone.
    """
    if first(fabric):
        labelled = make()
        told(fabric, {"labelled": packed(labelled), "counts": dict(counts)})
        return labelled
    data = told(fabric, None)
    counts.clear()
    counts.update(data["counts"])
    stored = data["labelled"]
    if stored is None:
        return None
    targets = unpack_targets(stored["targets"])
    assert targets is not None
    return Labelled(given.scene(unpacked(stored["clustering"], stored["affinity"])), targets, stored["fresh"])


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
        "affinity": {"k1": clustering.k1, "k2": clustering.k2},
    }


def unpacked(groups: Mapping[str, Any], affinity: Mapping[str, int | None]) -> Clustering:
    made = {name: Pair(*(Clusters(*clusters) for clusters in both)) for name, both in groups.items()}
    extra = {name.removeprefix("+"): both for name, both in made.items() if name.startswith("+")}
    return Clustering(made["own"], made.get("shared"), extra, **affinity)
