"""The public contract checks pass what is right, and name what is wrong."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import pytest
import torch

from reidassoc import (
    Association,
    Associator,
    Clusterer,
    Clustering,
    Clusters,
    Modality,
    Pair,
    Refiner,
    Scene,
    SoftLabels,
    Targets,
)
from reidassoc.ops.assignment import cosine_table
from reidassoc.ops.prototypes import clusters_of
from reidassoc.testing import (
    CASES,
    ContractError,
    check_associator,
    check_clusterer,
    check_permutation,
    check_refiner,
    check_renumbering,
    check_swap,
    permuted,
    swapped,
    toy_scene,
)
from reidassoc_plugins.associators.nearest import Nearest
from reidassoc_plugins.clusterers.dbscan import Dbscan

Broken = Callable[[Scene, Association], Association]


@dataclass(frozen=True, kw_only=True)
class Wrapped(Associator):
    """Nearest, then something else."""

    after: Broken

    def __call__(self, scene: Scene) -> Association:
        return self.after(scene, Nearest()(scene))


def cross_of(association: Association) -> Pair[SoftLabels]:
    assert association.cross is not None
    return association.cross


def write_features(scene: Scene, result: Association) -> Association:
    scene.features.visible.x.mul_(2)
    return result


def write_labels(scene: Scene, result: Association) -> Association:
    scene.clustering.own.infrared.labels.fill_(-1)
    return result


def no_distribution(scene: Scene, result: Association) -> Association:
    return replace(result, cross=cross_of(result).map(lambda labels: SoftLabels(labels.prob * 2)))


def own_space(scene: Scene, result: Association) -> Association:
    return replace(result, cross=scene.clustering.own.map(lambda c: SoftLabels.one_hot(c.labels, c.count)))


def draw_anew(scene: Scene, result: Association) -> Association:
    def shuffled(labels: SoftLabels) -> SoftLabels:
        return labels.take(torch.randperm(len(labels)))

    return replace(result, cross=cross_of(result).map(shuffled))


def fail(scene: Scene, result: Association) -> Association:
    raise RuntimeError("no such luck")


def wrong_prototypes(scene: Scene, result: Association) -> Association:
    return replace(result, prototypes={"visible": torch.zeros(99, 2)})


@pytest.mark.parametrize(
    ("after", "complaint"),
    [
        (write_features, r"wrote into its input\.features\.visible\.x"),
        (write_labels, r"wrote into its input\.clustering\.own\.infrared\.labels"),
        (no_distribution, "must sum to 1"),
        (own_space, "prob must be"),
        (draw_anew, "differ at"),
        (fail, "RuntimeError: no such luck"),
        (wrong_prototypes, "prototypes of 'visible'"),
        (lambda scene, result: None, "must return an Association, got NoneType"),
    ],
)
def test_a_broken_associator_is_named(after: Broken, complaint: str) -> None:
    check_associator(Wrapped(after=lambda scene, result: result))
    with pytest.raises(ContractError, match=complaint):
        check_associator(Wrapped(after=after))


def test_dependence_on_order_is_noticed() -> None:
    def by_position(scene: Scene, result: Association) -> Association:
        def one(labels: SoftLabels) -> SoftLabels:
            return SoftLabels.one_hot(torch.arange(len(labels)) % max(1, labels.count), max(1, labels.count))

        return replace(result, cross=cross_of(result).map(one))

    with pytest.raises(ContractError, match="permuting the samples leaves only"):
        check_permutation(Wrapped(after=by_position), {"ordinary": CASES["ordinary"]})


def test_dependence_on_the_modality_is_noticed() -> None:
    def only_visible(scene: Scene, result: Association) -> Association:
        cross = cross_of(result)
        nobody = SoftLabels(torch.zeros_like(cross.infrared.prob))
        return replace(result, cross=Pair(cross.visible, nobody))

    with pytest.raises(ContractError, match="swapping the modalities leaves only"):
        check_swap(Wrapped(after=only_visible), {"ordinary": CASES["ordinary"]})


def test_ties_are_no_difference() -> None:
    """Several clusters are as probable: which of them comes first is no answer of the method's."""

    def uniform(scene: Scene, result: Association) -> Association:
        def one(labels: SoftLabels) -> SoftLabels:
            return SoftLabels((labels.prob * 0 + 1) / max(1, labels.count))

        return replace(result, cross=cross_of(result).map(one))

    for check in (check_permutation, check_renumbering, check_swap):
        check(Wrapped(after=uniform))

    def first(scene: Scene, result: Association) -> Association:
        def one(labels: SoftLabels) -> SoftLabels:
            return SoftLabels.one_hot(torch.zeros(len(labels), dtype=torch.int64), max(1, labels.count))

        return replace(result, cross=cross_of(result).map(one))

    def half(scene: Scene, result: Association) -> Association:
        both = [cross_of(uniform(scene, result)), cross_of(first(scene, result))]
        return replace(result, cross=Pair.build(lambda m: SoftLabels(0.99 * both[0][m].prob + 0.01 * both[1][m].prob)))

    for wrong in (first, half):
        with pytest.raises(ContractError, match="numbering the clusters anew leaves only"):
            check_renumbering(Wrapped(after=wrong), {"ordinary": CASES["ordinary"]})


def test_an_outlier_s_minus_one_as_an_index_is_noticed() -> None:
    def by_index(scene: Scene, result: Association) -> Association:
        own = scene.clustering.own
        if not scene.clustering.usable:
            return result
        cosine = cosine_table(own.visible.centroids, own.infrared.centroids).float()
        table = Pair(cosine.softmax(1), cosine.T.softmax(1))
        return Association(cross=Pair.build(lambda modality: SoftLabels(table[modality][own[modality].labels])))

    check_renumbering(Nearest())
    check_associator(Wrapped(after=by_index))
    with pytest.raises(ContractError, match="of the outliers' labels the same"):
        check_renumbering(Wrapped(after=by_index))


@dataclass(frozen=True, kw_only=True)
class Loser(Refiner):
    """Forgets an entry."""

    def refine(self, scene: Scene, targets: Targets) -> Targets:
        return Targets(dict(list(targets.table.items())[1:]))


@dataclass(frozen=True, kw_only=True)
class Writer(Refiner):
    """Writes into its input."""

    def refine(self, scene: Scene, targets: Targets) -> Targets:
        for labels in targets.table.values():
            labels.prob.zero_()
        return targets


def test_a_broken_refiner_is_named() -> None:
    with pytest.raises(ContractError, match="lost the labels"):
        check_refiner(Loser())
    with pytest.raises(ContractError, match="wrote into its input"):
        check_refiner(Writer())


@dataclass(frozen=True, kw_only=True)
class Shifted(Clusterer):
    """DBSCAN with one cluster too many, or with normalised centroids."""

    normalise: bool

    def __call__(self, features, *, epoch, seed, previous):  # type: ignore[no-untyped-def]
        def spoil(clusters: Clusters) -> Clusters:
            if self.normalise:
                return Clusters(clusters.labels, torch.nn.functional.normalize(clusters.centroids, dim=1))
            return Clusters(clusters.labels, torch.cat([clusters.centroids, clusters.centroids.new_zeros(1, 32)]))

        clustering = Dbscan(k1=8)(features, epoch=epoch, seed=seed, previous=previous)
        return Clustering(own=clustering.own.map(spoil))


@dataclass(frozen=True, kw_only=True)
class Moody(Clusterer):
    """DBSCAN, and every image in one of two clusters by chance."""

    def __call__(self, features, *, epoch, seed, previous):  # type: ignore[no-untyped-def]
        return Clustering(own=features.map(lambda f: clusters_of(f.x, torch.randperm(len(f)) % min(2, len(f)))))


def test_a_broken_clusterer_is_named() -> None:
    with pytest.raises(ContractError, match="two calls with the same seed differ"):
        check_clusterer(Moody())
    with pytest.raises(ContractError, match="have members"):
        check_clusterer(Shifted(normalise=False))
    with pytest.raises(ContractError, match="un-normalised means"):
        check_clusterer(Shifted(normalise=True))


def test_a_scene_of_a_later_epoch_moves_its_last_labels_with_its_samples() -> None:
    toy = CASES["previous_cross"]
    scene = toy.scene()
    assert (scene.epoch, scene.stage_epoch) == (1, 1)
    assert scene.previous is not None
    assert [of.count for of in toy.last.own] != [of.count for of in scene.clustering.own]
    toy.last.own.map(Clusters.validate)
    order = scene.features.map(lambda f: torch.arange(len(f)).flip(0))
    for (modality, space), labels in scene.previous.table.items():
        labels.validate()
        moved, other = permuted(scene, order).previous, swapped(scene).previous
        assert moved is not None
        assert other is not None
        assert torch.equal(moved.of(modality, space).prob, labels.prob.flip(0))
        assert torch.equal(other.of(modality.other, Modality(space).other).prob, labels.prob)
    previous = CASES["previous_own"].scene().previous
    assert previous is not None
    assert not previous.has(Modality.VISIBLE, "infrared")


def test_a_clusterer_is_told_of_the_last_epoch_s_clusters() -> None:
    told = []

    @dataclass(frozen=True, kw_only=True)
    class Told(Clusterer):
        """DBSCAN that looks back."""

        def __call__(self, features, *, epoch, seed, previous):  # type: ignore[no-untyped-def]
            told.append((epoch, previous))
            return Dbscan(k1=8)(features, epoch=epoch, seed=seed, previous=previous)

    check_clusterer(Told(), {name: CASES[name] for name in ("ordinary", "previous_own")})
    assert [(epoch, previous is None) for epoch, previous in told] == [(0, True)] * 2 + [(1, False)] * 2


def test_cameras_are_numbered_as_a_dataset_s() -> None:
    features = CASES["cameras"].scene().features
    assert [sorted(set(f.camera.tolist())) for f in features] == [[1, 2, 4, 5], [3, 6]]
    assert all(len(f.tracklet.unique()) < len(f) and bool((f.tracklet >= 0).all()) for f in features)


def test_toy_scenes_keep_their_own_contract() -> None:
    for toy in CASES.values():
        scene = toy.scene()
        for modality in ("visible", "infrared"):
            scene.clustering.own[modality].validate()
            norm = scene.features[modality].x.norm(dim=1)
            torch.testing.assert_close(norm, torch.ones_like(norm))
        scene.features.visible.x.zero_()
        assert toy.scene().features.visible.x.norm() > 0  # a fresh one
    assert not torch.equal(toy_scene(seed=0).features.visible.x, toy_scene(seed=1).features.visible.x)
