"""The stages that make labels: neighbours, clustering, association. Methods are called by the pipeline, its checks included."""

from __future__ import annotations

import baselines
import torch
from bench import Bench, largest, same, verdict
from meter import Row
from torch import Tensor

from reidassoc.interfaces.scene import Scene
from reidassoc.ops.affinity import affinity
from reidassoc.ops.dbscan import dbscan
from reidassoc.ops.jaccard import jaccard_similarity
from reidassoc.ops.memories import memory_cost, sub_memories
from reidassoc.ops.neighbours import nearest
from reidassoc.ops.propagation import propagate
from reidassoc.ops.transport import transport
from reidassoc.pipeline import associate, cluster
from reidassoc.types import Association, Features, Pair
from reidassoc_plugins.associators.mult import Mult
from reidassoc_plugins.clusterers.dbscan import Dbscan

K1, CMFP_K, MEMORIES = 30, 20, 4
LABEL_BAR, LABEL_GIB, SAME_LABELS = 1.6, 1.6, 0.999  # times the floor; above the imports; share of samples


def neighbours(b: Bench) -> Row:
    x = b.x.visible
    gflop = 2 * len(x) ** 2 * b.width / 1e9
    return b.row(
        "neighbours",
        lambda: nearest(x, x, K1)[1],
        lambda: baselines.nearest(x, K1),
        same,
        size=f"{len(x)} x {b.width}, k = {K1}",
        floor=b.rates.products(gflop),
    )


def jaccard(b: Bench) -> Row:
    x = b.x.visible
    return b.row(
        "jaccard",
        lambda: jaccard_similarity(x),
        lambda: baselines.jaccard_distance(x),
        lambda got, want: largest(1 - got.to_dense(), want),
        size=f"{len(x)} x {b.width}",
        floor=b.rates.products(2 * len(x) ** 2 * b.width / 1e9),
    )


def clusters(b: Bench) -> Row:
    similarity = affinity(b.scene[0].features.visible)
    distance = 1 - similarity.to_dense() if b.plain else torch.empty(0)
    return b.row(
        "dbscan",
        lambda: dbscan(similarity, eps=0.6, min_samples=4),
        lambda: baselines.dbscan(distance.clamp(min=0)),
        same,
        size=str(similarity.shape[0]),
    )


def centroid_transport(b: Bench) -> Row:
    x, y = b.x.visible, b.centroids.infrared
    return b.row(
        "centroid transport",
        lambda: transport(x, y, strength=25.0).row_argmax(),
        lambda: baselines.transport(x, y).argmax(dim=1),
        same,
        size=f"{len(x)} x {len(y)}",
        floor=b.rates.products(2 * len(x) * len(y) * b.width / 1e9) + b.rates.reads(500 * len(x) * len(y) * 4e-9),
    )


def instance_transport(b: Bench) -> Row:
    x, y = b.x
    return b.row(
        "instance transport",
        lambda: transport(x, y, strength=25.0, fast=True).row_argmax(),
        lambda: baselines.transport(x, y).argmax(dim=1),
        same,
        floor=b.rates.products(2 * len(x) * len(y) * b.width / 1e9) + b.rates.reads(500 * len(x) * len(y) * 4e-9),
    )


def label_transfer(b: Bench) -> Row:
    scene, _ = b.scene
    scene.affinity()

    def plain() -> list[Tensor]:
        distance = scene.affinity().map(lambda a: a.to_dense().neg_().add_(1))
        moved = Pair.build(lambda m: baselines.transport(b.x[m], b.centroids[m.other]).argmax(dim=1))
        own, cross = baselines.mult(b.x, b.centroids, distance, baselines.transport(*b.x), moved)
        return [y.argmax(dim=1) for y in (*own, *cross)]

    return b.row("label transfer (mult)", lambda: hard(associate(Mult(), scene)), plain, equal_labels)


def equal_labels(got: list[Tensor], want: list[Tensor]) -> str:
    """Own and cross labels of both modalities, beside those of the plain version: its whole matrices and 500 plain rounds."""
    own, cross = (float((torch.cat(got[s]) == torch.cat(want[s])).double().mean()) for s in (slice(2), slice(2, 4)))
    met = verdict(f"asked {100 * SAME_LABELS} %", min(own, cross) >= SAME_LABELS)
    return f"own {100 * own:.3f} %, cross {100 * cross:.3f} % equal; {met}"


def hard(association: Association) -> list[Tensor]:
    assert association.own is not None
    assert association.cross is not None
    return [labels.hard for labels in (*association.own, *association.cross)]


def label_stage(b: Bench) -> Row:
    """Clustering and MULT together, from the features on."""
    v, r = (len(x) for x in b.x)
    gflop = 2 * b.width * (v * v + r * r + v * r) / 1e9
    floor = b.rates.products(gflop) + b.rates.reads(500 * v * r * 4e-9)

    def ours() -> list[Tensor]:
        features = b.scene[0].features.map(lambda f: Features(f.x))  # nothing remembered
        return hard(associate(Mult(), Scene(0, 0, features, cluster(Dbscan(), features))))

    return b.row(
        "label stage",
        ours,
        floor=floor,
        bar=(lambda s, p: verdict(f"{LABEL_BAR} x floor, {LABEL_GIB} GiB", s <= LABEL_BAR * floor and p <= LABEL_GIB))
        if b.scale >= 1
        else None,
    )


def mmm(b: Bench) -> Row:
    labels = b.scene[0].clustering.own.map(lambda c: c.labels)

    def ours() -> Tensor:
        one, two = (
            sub_memories(x, y, int(y.max()) + 1, count=MEMORIES, seed=0) for x, y in zip(b.x, labels, strict=True)
        )
        return memory_cost(one, two)

    return b.row(
        "mmm matching",
        ours,
        lambda: baselines.memory_matching_cost(b.x, labels, memories=MEMORIES, seed=0),
        largest,
        size=" x ".join(str(int(y.max()) + 1) for y in labels) + f" clusters, {MEMORIES} memories",
    )


def cmfp(b: Bench) -> Row:
    return b.row(
        "cmfp",
        lambda: propagate(b.x, k=CMFP_K),
        lambda: baselines.propagated(b.x, k=CMFP_K),
        lambda got, want: largest(torch.cat(list(got)), torch.cat(list(want))),
        floor=b.rates.products(2 * sum(map(len, b.x)) ** 2 * b.width / 1e9),
    )
