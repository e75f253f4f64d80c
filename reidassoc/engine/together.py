"""The label stage of a run on several devices: the first rank makes the labels, the others help it, and are told.

The first rank alone runs the plug-ins. Where it comes to work that can be shared (`reidassoc.ops.shares`: neighbours,
Jaccard affinities), it tells the others what to compute, and each does its part. So the ranks need not agree in what a
plug-in does, and a plug-in knows nothing of them.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from itertools import pairwise
from typing import Any

from lightning_fabric import Fabric
from torch import Tensor

from reidassoc.engine.checkpoint import pack_targets, unpack_targets
from reidassoc.engine.labelling import Given, Labelled
from reidassoc.engine.ranks import first, told
from reidassoc.ops.shares import known, shared_by
from reidassoc.types import Clustering, Clusters, Pair


def label_together(
    fabric: Fabric, given: Given, counts: Counter[str], make: Callable[[], Labelled | None]
) -> Labelled | None:
    """Return what ``make`` returns on the first rank, on every rank; clusterings may differ in what is rounded.

    Args:
        given: what the labels are made from, the same on every rank.
        counts: what ``make`` counts in; made the same on every rank.
        make: is called on the first rank alone.
    """
    if fabric.world_size == 1:
        return make()
    ranks = Ranks(fabric, [features.x for features in given.features])
    if first(fabric):
        with shared_by(ranks):
            found = make()
        ranks.dismiss()
        told(fabric, {"labelled": packed(found), "counts": dict(counts)})
        return found
    ranks.help()
    data = told(fabric, None)
    counts.clear()
    counts.update(data["counts"])
    labelled = data["labelled"]
    if labelled is None:
        return None
    targets = unpack_targets(labelled["targets"])
    assert targets is not None
    return Labelled(given.scene(unpacked(labelled["clustering"], labelled["affinity"])), targets, labelled["fresh"])


class Ranks:
    """All ranks as a team: see :class:`reidassoc.ops.shares.Team`.

    Args:
        there: tensors that every rank has; they are named instead of sent.
    """

    def __init__(self, fabric: Fabric, there: Sequence[Tensor]) -> None:
        self.fabric, self.there = fabric, there
        self.size = fabric.world_size

    def __call__(self, name: str, edges: Sequence[int], arguments: Sequence[Any]) -> list[tuple[Tensor, ...]]:
        """Tell the others about some work, and do the first part of it; on the first rank."""
        told(self.fabric, {"work": name, "edges": list(edges), "arguments": [self.named(x) for x in arguments]})
        return self.parts(name, edges, arguments)

    def dismiss(self) -> None:
        told(self.fabric, {"work": None})

    def help(self) -> None:
        """Do parts of what the first rank asks for, until it dismisses; on the other ranks."""
        while (task := told(self.fabric, None))["work"] is not None:
            self.parts(task["work"], task["edges"], [self.found(x) for x in task["arguments"]])

    def parts(self, name: str, edges: Sequence[int], arguments: Sequence[Any]) -> list[tuple[Tensor, ...]]:
        """Every rank's part of some work, on every rank; its own one computed here."""
        spans = list(pairwise(edges))
        start, stop = spans[self.fabric.global_rank]
        own = known(name)(start, stop, *arguments) if stop > start else ()
        found = [told(self.fabric, own, source=rank) for rank in range(self.size)]
        return [tuple(part) for part, (start, stop) in zip(found, spans, strict=True) if stop > start]

    def named(self, value: Any) -> Any:
        """A tensor that every rank has as its number among those; else the value itself."""
        for number, tensor in enumerate(self.there):
            if isinstance(value, Tensor) and value.is_set_to(tensor):
                return {"there": number}
        return value

    def found(self, value: Any) -> Any:
        return self.there[value["there"]] if isinstance(value, Mapping) else value


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
