"""Clusterer `mixed` and objective `joint`: contract, parity, what follows from symmetry."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from support.golden_vectors import golden
from support.training_step import R, V, a_batch, double, random_step, update

from reidassoc import (
    OUTLIER,
    SHARED,
    Clustering,
    Clusters,
    Features,
    Modality,
    Pair,
    Scene,
    SoftLabels,
    Targets,
    registry,
)
from reidassoc.errors import RecipeError
from reidassoc.interfaces.banks import Banks
from reidassoc.interfaces.batch import Batch
from reidassoc.ops.jaccard import jaccard_similarity
from reidassoc.ops.prototypes import centroids
from reidassoc.testing import CASES, check_clusterer, toy_features
from reidassoc_plugins.clusterers.dbscan import Dbscan
from reidassoc_plugins.clusterers.mixed import Mixed
from reidassoc_plugins.objectives.joint import Joint


def call(clusterer: Mixed, features: Pair[Features]) -> Clustering:
    clustering: Clustering = clusterer(features, epoch=0, seed=0, previous=None)
    return clustering


def groups(labels: torch.Tensor) -> set[frozenset[int]]:
    """A partition without its numbering."""
    return {frozenset((labels == k).nonzero().flatten().tolist()) for k in torch.unique(labels).tolist() if k >= 0}


@pytest.mark.parametrize(
    "spec", ["mixed", "mixed(k1=8, mixed_k1=10, mixed_k2=4)", "mixed(min_samples=1)", "mixed(eps=1.0)"]
)
def test_contract(spec: str) -> None:
    check_clusterer(registry.build("clusterers", spec))


@pytest.mark.parametrize("name", CASES)
def test_shared_clusters_hold_both_modalities(name: str) -> None:
    features = CASES[name].features
    shared = call(Mixed(k1=8, mixed_k1=12, mixed_k2=4, min_samples=2), features).shared
    assert shared is not None
    assert shared.visible.count == shared.infrared.count
    for mine, clusters in zip(features, shared, strict=True):
        clusters.validate()
        assert torch.equal(torch.unique(clusters.labels[clusters.labels >= 0]), torch.arange(clusters.count))
        torch.testing.assert_close(clusters.centroids, centroids(mine.x, clusters.labels, clusters.count))


@pytest.mark.parametrize(("k1", "k2"), [(30, 12), (20, 6)])
def test_the_distance_is_the_published_one_and_so_are_its_clusters(k1: int, k2: int) -> None:
    from sklearn.cluster import DBSCAN

    stored = golden("cmc_jaccard")
    expected, infrared = stored[f"k1_{k1}_k2_{k2}"], stored["is_infrared"]
    similarity = jaccard_similarity(stored["features"], k1=k1, k2=k2, group=infrared.long())
    torch.testing.assert_close(1 - similarity.to_dense(), expected, atol=1e-4, rtol=0)

    features = Pair(Features(stored["features"][~infrared]), Features(stored["features"][infrared]))
    assert not bool(infrared[: len(features.visible)].any())  # stored visible first, as `mixed` stacks them
    shared = call(Mixed(mixed_k1=k1, mixed_k2=k2), features).shared
    assert shared is not None
    wanted = torch.from_numpy(
        DBSCAN(eps=0.6, min_samples=4, metric="precomputed").fit_predict(expected.double().numpy())
    )
    kept = {group for group in groups(wanted) if len({bool(infrared[i]) for i in group}) == 2}
    assert kept
    assert groups(torch.cat([shared.visible.labels, shared.infrared.labels])) == kept


def test_own_clusters_are_those_of_dbscan() -> None:
    features = toy_features()
    mine = call(Mixed(k1=10), features)
    plain = Dbscan(k1=10)(features, epoch=0, seed=0, previous=None)
    for one, two in zip(mine.own, plain.own, strict=True):
        assert torch.equal(one.labels, two.labels)


def test_the_order_of_samples_and_modalities_does_not_matter() -> None:
    features, clusterer = toy_features(), Mixed(k1=10, mixed_k1=12, mixed_k2=4)
    shared = call(clusterer, features).shared
    assert shared is not None
    assert shared.visible.count > 1
    order = features.map(lambda f: torch.randperm(len(f), generator=torch.Generator().manual_seed(3)))
    moved = call(clusterer, Pair.build(lambda m: Features(features[m].x[order[m]]))).shared
    other = call(clusterer, features.swapped).shared
    assert moved is not None
    assert other is not None
    size = len(features.visible)
    before = groups(torch.cat([shared.visible.labels, shared.infrared.labels]))
    back = Pair.build(lambda m: torch.empty_like(order[m]).scatter_(0, order[m], moved[m].labels))
    assert groups(torch.cat([back.visible, back.infrared])) == before
    assert size == len(features.infrared)
    assert groups(torch.cat([other.infrared.labels, other.visible.labels])) == before


def test_it_can_be_relaxed_up_to_a_limit() -> None:
    assert Mixed(eps=0.65).relaxed() == Mixed(eps=0.7)
    assert Mixed(eps=0.7).relaxed() is None


def shared_step(*, shared: int = 3) -> tuple[Scene, Batch]:
    """A random step with hard labels in a shared space, too, outliers among them."""
    scene, batch = random_step()
    generator = torch.Generator().manual_seed(1)

    def union(modality: Modality) -> Clusters:
        labels = torch.randint(-1, shared, (6,), generator=generator)
        return Clusters(labels, torch.randn(shared, 8, generator=generator))

    both = Pair.build(union)
    scene = Scene(0, 0, scene.features, Clustering(scene.clustering.own, both))
    table = dict(batch.targets.table)
    for modality in Modality:
        table[modality, SHARED] = SoftLabels.one_hot(both[modality].labels, shared)
    return scene, Batch(batch.views, 0, scene, Targets(table))


def test_joint_is_three_cross_entropies() -> None:
    scene, batch = shared_step()
    banks = double(Banks.rebuild(Joint().banks(scene, batch.targets)))
    terms = Joint()(batch, banks)
    assert list(terms) == ["visible", "infrared", "shared"]
    prototype = (scene.clustering.shared.visible.centroids + scene.clustering.shared.infrared.centroids) / 2  # type: ignore[union-attr]
    torch.testing.assert_close(banks["joint.shared"].vectors.float(), F.normalize(prototype, dim=1))
    streams = ("visible", "augmented", "infrared")
    logits = torch.cat([banks["joint.shared"].logits(batch[s].feature) for s in streams])
    labels = torch.cat([batch.labels(batch[s], SHARED).hard for s in streams])
    assert bool((labels == OUTLIER).any())
    torch.testing.assert_close(terms["shared"], F.cross_entropy(logits, labels, ignore_index=-1))
    for modality, mine in ((V, streams[:2]), (R, streams[2:])):
        prob = torch.cat([batch.labels(batch[s], modality).prob for s in mine])
        logits = torch.cat([banks[f"joint.{modality}"].logits(batch[s].feature) for s in mine])
        torch.testing.assert_close(terms[str(modality)], F.cross_entropy(logits, prob))
    update(banks, batch)


def test_gradients_of_joint_are_those_of_the_loss() -> None:
    scene, batch = shared_step()
    banks = double(Banks.rebuild(Joint().banks(scene, batch.targets)))

    def losses(*z: torch.Tensor) -> tuple[torch.Tensor, ...]:
        made = a_batch(dict(zip(batch.views, z, strict=True)), batch.targets.table, scene)
        return tuple(Joint()(made, banks).values())

    assert torch.autograd.gradcheck(losses, [view.z for view in batch])  # each term by itself


def test_permuting_the_batch_changes_no_loss_of_joint() -> None:
    scene, batch = shared_step()
    order = torch.tensor([4, 0, 5, 2, 1, 3])
    table = {key: labels.take(order) for key, labels in batch.targets.table.items()}
    permuted = a_batch({view.stream: view.z[order] for view in batch}, table, scene)
    banks = double(Banks.rebuild(Joint().banks(scene, batch.targets)))
    one, two = Joint()(batch, banks), Joint()(permuted, banks)
    assert len(one) == 3
    for name, term in one.items():
        torch.testing.assert_close(term, two[name])


def test_joint_survives_an_epoch_without_shared_clusters_and_without_their_labels() -> None:
    scene, batch = shared_step(shared=1)
    empty = Pair.build(lambda m: Clusters(torch.full((6,), OUTLIER), torch.zeros(0, 8)))
    nobody = {(m, SHARED): SoftLabels.one_hot(empty[m].labels, 0) for m in Modality}
    scene = Scene(0, 0, scene.features, Clustering(scene.clustering.own, empty))
    targets = batch.targets.replaced(nobody)
    batch = Batch(batch.views, 0, scene, targets)
    banks = double(Banks.rebuild(Joint().banks(scene, targets)))
    terms = Joint()(batch, banks)
    assert terms["shared"].item() == 0
    total = torch.stack(list(terms.values())).sum()
    assert all(torch.isfinite(g).all() for g in torch.autograd.grad(total, [view.z for view in batch]))
    update(banks, batch)

    _, plain = random_step()
    own = Banks.rebuild(Joint().banks(plain.scene, plain.targets))
    assert [live.bank.name for live in own] == ["joint.visible", "joint.infrared"]
    with pytest.raises(RecipeError, match="no clusters of the space 'shared'"):
        Joint().banks(plain.scene, targets)


def test_joint_draws_as_its_option_says() -> None:
    assert Joint().sampling == "own"
    assert registry.build("objectives", "joint(draw=paired)").sampling == "paired"


@pytest.mark.cuda
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_contract_on_cuda() -> None:
    check_clusterer(Mixed(k1=8, mixed_k1=10, mixed_k2=4), device="cuda")
