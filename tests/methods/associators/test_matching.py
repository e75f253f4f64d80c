"""Associators that match clusters (`pgm`, `bccm`, `cclnet`, `cma`) and `reidassoc.ops.assignment`: contract, parity, property."""

from __future__ import annotations

from collections import Counter
from itertools import permutations

import pytest
import torch
import torch.nn.functional as F
from support.cluster_scenes import golden_scene, random_scene
from support.golden_vectors import golden
from torch import Tensor

from reidassoc import Association, Associator, Clustering, Clusters, Features, Modality, Pair, Scene, registry
from reidassoc.ops.assignment import (
    cosine_table,
    cross_labels,
    greedy_pairs,
    in_rounds,
    mixed_prototypes,
    of_samples,
    one_to_one,
    rows_of_samples,
    similar_pairs,
    tiled,
)
from reidassoc.ops.prototypes import centroids
from reidassoc.testing import CASES, Toy, check_associator, check_permutation, check_swap, toy_scene
from reidassoc_plugins.associators.bccm import Bccm
from reidassoc_plugins.associators.cclnet import Cclnet
from reidassoc_plugins.associators.cma import Cma
from reidassoc_plugins.associators.pgm import Pgm

SHAPES = [(3, 3), (2, 7), (7, 2), (5, 4), (4, 5), (1, 6), (6, 1)]


def hard(association: Association) -> Pair[list[int]]:
    assert association.cross is not None
    return association.cross.map(lambda labels: labels.hard.tolist())


def best_total(cost: list[list[float]], most: int = 1) -> float:
    """The least total of giving every row a column, each column at most `most` times, by trying everything."""
    places = [j for j in range(len(cost[0])) for _ in range(most)]
    return min(sum(cost[i][j] for i, j in enumerate(chosen)) for chosen in set(permutations(places, len(cost))))


@pytest.mark.parametrize(
    "spec", ["pgm", "bccm", "bccm(link=true)", "cclnet", "cclnet(floor=0.9)", "cma", "cma(floor=-1.0)"]
)
def test_contract(spec: str) -> None:
    check_associator(registry.build("associators", spec))


@pytest.mark.parametrize("associator", [Pgm(), Bccm(), Bccm(link=True), Cclnet(), Cma()], ids=str)
def test_symmetries(associator: Associator) -> None:
    check_permutation(associator)
    check_swap(associator)


@pytest.mark.parametrize("name", ["pgm", "bccm"])
def test_parity_with_the_published_code(name: str) -> None:
    stored = golden("cluster_matching")
    found = hard(registry.build("associators", name)(golden_scene()))
    assert found.visible == stored[f"{name}_cross_v"].tolist()
    assert found.infrared == stored[f"{name}_cross_r"].tolist()


@pytest.mark.parametrize("name", ["pgm", "bccm"])
def test_parity_with_the_modalities_exchanged(name: str) -> None:
    """K_v < K_r, which the stored example has not: the answer is the same, exchanged."""
    stored, scene = golden("cluster_matching"), golden_scene()
    scene = Scene(0, 0, scene.features.swapped, Clustering(own=scene.clustering.own.swapped))
    found = hard(registry.build("associators", name)(scene))
    assert found.infrared == stored[f"{name}_cross_v"].tolist()
    assert found.visible == stored[f"{name}_cross_r"].tolist()


# ---- one-to-one, rounds, tiles: against trying every matching


@pytest.mark.parametrize("shape", [shape for shape in SHAPES if max(shape) <= 6])
def test_one_to_one_is_the_cheapest_matching(shape: tuple[int, int]) -> None:
    cost = torch.rand(shape, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    row, column = one_to_one(cost)
    assert sum(row >= 0) == sum(column >= 0) == min(shape)
    assert all(column[j] == i for i, j in enumerate(row.tolist()) if j >= 0)
    total = sum(float(cost[i, j]) for i, j in enumerate(row.tolist()) if j >= 0)
    assert total == pytest.approx(best_total((cost if shape[0] <= shape[1] else cost.T).tolist()))


@pytest.mark.parametrize("shape", SHAPES)
def test_rounds_are_one_to_one_each_and_the_cheapest_of_what_is_left(shape: tuple[int, int]) -> None:
    cost = torch.rand(shape, dtype=torch.float64, generator=torch.Generator().manual_seed(2))
    larger, smaller = in_rounds(cost) if shape[0] >= shape[1] else in_rounds(cost).swapped
    table = (cost if shape[0] >= shape[1] else cost.T).tolist()
    left = list(range(max(shape)))
    first = True
    while left:
        # The cheapest injection of the shorter of (left, smaller side) into the other, by trying all.
        k, width = len(left), min(shape)
        if k >= width:
            rounds = [dict(zip(chosen, range(width), strict=True)) for chosen in permutations(left, width)]
        else:
            rounds = [dict(zip(left, chosen, strict=True)) for chosen in permutations(range(width), k)]
        best = min(rounds, key=lambda pairs: sum(table[i][j] for i, j in pairs.items()))
        assert {i: int(larger[i]) for i in best} == best
        if first:
            assert smaller.tolist() == [i for i, _ in sorted(best.items(), key=lambda pair: pair[1])]
        first = False
        left = [i for i in left if i not in best]


@pytest.mark.parametrize("shape", SHAPES)
def test_tiles_bound_how_often_a_column_is_taken(shape: tuple[int, int]) -> None:
    cost = torch.rand(shape, dtype=torch.float64, generator=torch.Generator().manual_seed(3))
    most = shape[0] // shape[1] + 1
    partner = tiled(cost).tolist()
    assert max(Counter(partner).values()) <= most
    assert sum(float(cost[i, j]) for i, j in enumerate(partner)) == pytest.approx(best_total(cost.tolist(), most))


@pytest.mark.parametrize("shape", [(0, 0), (0, 3), (3, 0)])
def test_nobody_to_match_with(shape: tuple[int, int]) -> None:
    cost = torch.zeros(shape, dtype=torch.float64)
    for match in (one_to_one, in_rounds, lambda c: greedy_pairs(c.long(), c), lambda c: Pair(tiled(c), tiled(c.T))):
        assert match(cost).map(Tensor.tolist) == Pair([-1] * shape[0], [-1] * shape[1])


def test_ties_are_decided_the_same_way_every_time_and_stay_matchings() -> None:
    for shape in SHAPES:
        cost = torch.zeros(shape, dtype=torch.float64)
        row, column = in_rounds(cost)
        assert torch.equal(row, in_rounds(cost).visible)
        assert min(row) >= 0
        assert min(column) >= 0
        shares = Counter((row if shape[0] >= shape[1] else column).tolist())
        assert len(shares) == min(shape)
        assert max(shares.values()) - min(shares.values()) <= 1
        assert max(Counter(tiled(cost).tolist()).values()) <= shape[0] // shape[1] + 1


def test_of_samples() -> None:
    assert of_samples(torch.tensor([1, -1, 0, 2]), torch.tensor([5, -1, 7])).tolist() == [-1, -1, 5, 7]
    assert of_samples(torch.tensor([-1, -1]), torch.tensor([], dtype=torch.int64)).tolist() == [-1, -1]
    with pytest.raises(ValueError, match=r"partner must be \(K,\).*got \(4, 5\).*rows_of_samples"):
        of_samples(torch.tensor([0]), torch.zeros(4, 5))


def test_rows_of_samples() -> None:
    table, labels = torch.tensor([[0.2, 0.8], [1.0, 0.0], [0.5, 0.5]]), torch.tensor([2, -1, 0, 2])
    by_hand = torch.zeros(len(labels), table.shape[1])
    seen = labels >= 0
    by_hand[seen] = table[labels[seen]]
    assert torch.equal(rows_of_samples(labels, table), by_hand)
    assert rows_of_samples(labels, table.double()).dtype == torch.float32
    assert rows_of_samples(torch.tensor([-1, -1]), torch.zeros(0, 3)).tolist() == [[0, 0, 0]] * 2
    assert rows_of_samples(torch.tensor([1, -1]), torch.zeros(2, 0)).shape == (2, 0)
    with pytest.raises(ValueError, match=r"table must be \(K, L\).*got \(3,\).*of_samples"):
        rows_of_samples(labels, table[:, 0])


def test_cross_labels_are_the_partners_in_the_other_space() -> None:
    own = Pair(Clusters(torch.tensor([1, -1, 0]), torch.eye(2)), Clusters(torch.tensor([2, 0, 1, -1]), torch.eye(3)))
    cross = cross_labels(own, Pair(torch.tensor([2, -1]), torch.tensor([-1, -1, 0])))
    assert cross.map(lambda labels: labels.hard.tolist()) == Pair([-1, -1, 2], [0, -1, -1, -1])
    assert cross.map(lambda labels: labels.count) == Pair(3, 2)


def test_cosine_table_of_a_zero_centroid_is_zero() -> None:
    table = cosine_table(torch.tensor([[3.0, 0], [0, 0]]), torch.tensor([[2.0, 0], [0, 5], [-1, 0]]))
    assert table.tolist() == [[1, 0, -1], [0, 0, 0]]


# ---- pgm


@pytest.mark.parametrize(("k_v", "k_r"), [(3, 8), (8, 3), (4, 4), (2, 9)])
def test_pgm_over_several_rounds(k_v: int, k_r: int) -> None:
    scene = random_scene(k_v, k_r)
    cosine = scene.features.visible.x.double() @ scene.features.infrared.x.double().T
    assert hard(Pgm()(scene)) == in_rounds(1 / cosine.exp()).map(Tensor.tolist)
    larger = hard(Pgm()(scene)).visible if k_v >= k_r else hard(Pgm()(scene)).infrared
    shares = Counter(larger)
    assert len(shares) == min(k_v, k_r)
    assert max(shares.values()) - min(shares.values()) <= 1


def test_pgm_labels_samples_by_their_cluster_and_leaves_outliers_alone() -> None:
    scene = toy_scene()
    cross = Pgm()(scene).cross
    assert cross is not None
    for modality in Modality:
        labels = scene.clustering.own[modality].labels
        assert torch.equal(cross[modality].hard, labels)  # of this scene, cluster i is identity i in both modalities


# ---- bccm


def test_bccm_directions_are_matched_separately() -> None:
    scene = random_scene(7, 3)
    distance = torch.cdist(scene.features.visible.x.double(), scene.features.infrared.x.double()).square()
    found = hard(Bccm()(scene))
    cost = sum(float(distance[i, j]) for i, j in enumerate(found.visible))
    assert cost == pytest.approx(best_total(distance.tolist(), 3), abs=1e-5)
    cost = sum(float(distance[j, i]) for i, j in enumerate(found.infrared))
    assert cost == pytest.approx(best_total(distance.T.tolist(), 1), abs=1e-5)


@pytest.mark.parametrize(("k_v", "k_r"), [(7, 3), (3, 7), (5, 5)])
def test_bccm_links_all_clusters_no_farther_than_the_match(k_v: int, k_r: int) -> None:
    scene = random_scene(k_v, k_r)
    matched, linked = hard(Bccm()(scene)), Bccm(link=True)(scene).cross
    assert linked is not None
    for modality in Modality:
        x, y = scene.features[modality].x.double(), scene.features[modality.other].x.double()
        for i, partner in enumerate(matched[modality]):
            near = [j for j in range(len(y)) if (x[i] - y[j]).norm() <= (x[i] - y[partner]).norm()]
            want = torch.zeros(len(y)).index_fill(0, torch.tensor(near), 1 / len(near))
            torch.testing.assert_close(linked[modality].prob[i], want)


# ---- cclnet


@pytest.mark.parametrize(("k_v", "k_r"), [(4, 4), (3, 6), (6, 3)])
def test_cclnet_maximises_similarity_and_drops_weak_pairs(k_v: int, k_r: int) -> None:
    scene = random_scene(k_v, k_r, seed=5)
    cosine = cosine_table(scene.features.visible.x, scene.features.infrared.x)
    everybody, kept = hard(Cclnet(floor=-1.0)(scene)), hard(Cclnet(floor=0.2)(scene))
    total = sum(float(cosine[i, j]) for i, j in enumerate(everybody.visible) if j >= 0)
    assert total == pytest.approx(-best_total((-cosine if k_v <= k_r else -cosine.T).tolist()))
    assert kept.visible == [j if j >= 0 and cosine[i, j] >= 0.2 else -1 for i, j in enumerate(everybody.visible)]
    assert kept.infrared == [i if i >= 0 and cosine[i, j] >= 0.2 else -1 for j, i in enumerate(everybody.infrared)]


@pytest.mark.parametrize("associator", [Cclnet(own=0.1), Cma(own=0.1)], ids=str)
@pytest.mark.parametrize("case", ["ordinary", "more_infrared", "far_more_visible", "no_infrared"])
def test_prototypes_of_matched_clusters_are_mixed(associator: Associator, case: str) -> None:
    scene = CASES[case].scene()
    association = associator(scene)
    for modality in Modality:
        mine, theirs = (F.normalize(scene.clustering.own[m].centroids, dim=1) for m in (modality, modality.other))
        found = hard(association)[modality]
        labels = scene.clustering.own[modality].labels.tolist()
        partner = dict(zip(labels, found, strict=True))
        for cluster, row in enumerate(association.prototypes[str(modality)]):
            match = partner[cluster]
            want = mine[cluster] if match < 0 else 0.1 * mine[cluster] + 0.9 * theirs[match]
            torch.testing.assert_close(row, want)


def test_mixing_uses_the_centroids_from_before() -> None:
    one, two = torch.tensor([[2.0, 0.0]]), torch.tensor([[0.0, 3.0]])
    mixed = mixed_prototypes(Pair(one, two), Pair(torch.tensor([0]), torch.tensor([0])), own=0.1)
    torch.testing.assert_close(mixed.visible, torch.tensor([[0.1, 0.9]]))
    torch.testing.assert_close(mixed.infrared, torch.tensor([[0.9, 0.1]]))


# ---- cma


def similar_pairs_plainly(scene: Scene) -> Tensor:
    """(K_v, K_r) int64: pairs of images with a cosine of at least 0.5, by the pair of their clusters, one by one."""
    own, x = scene.clustering.own, scene.features.map(lambda f: f.x)
    count = torch.zeros(own.visible.count, own.infrared.count, dtype=torch.int64)
    alike = x.visible @ x.infrared.T >= 0.5
    for i, a in enumerate(own.visible.labels.tolist()):
        for j, b in enumerate(own.infrared.labels.tolist()):
            if a >= 0 and b >= 0:
                count[a, b] += int(alike[i, j])
    return count


def counted(scene: Scene) -> Tensor:
    return similar_pairs(scene.features.map(lambda f: f.x), scene.clustering.own, floor=0.5)


@pytest.mark.parametrize("case", ["ordinary", "more_infrared", "far_more_visible", "duplicates", "all_outliers"])
@pytest.mark.parametrize("block", [1, 1 << 24])
def test_cma_counts_similar_pairs(case: str, block: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("reidassoc.ops.assignment.BLOCK_ELEMENTS", block)
    scene = CASES[case].scene()
    assert torch.equal(counted(scene), similar_pairs_plainly(scene))


@pytest.mark.parametrize("case", ["ordinary", "more_infrared", "far_more_visible"])
def test_cma_against_a_plain_reading(case: str) -> None:
    scene = Toy(clusters=CASES[case].clusters, noise=1.2, gap=0.8, seed=3).scene()
    own, count = scene.clustering.own, similar_pairs_plainly(scene)
    cosine = cosine_table(own.visible.centroids, own.infrared.centroids)
    pairs = [(i, j) for i in range(own.visible.count) for j in range(own.infrared.count) if count[i, j] > 0]
    partner: Pair[dict[int, int]] = Pair({}, {})
    for i, j in sorted(pairs, key=lambda pair: (-int(count[pair]), -float(cosine[pair]), pair)):
        if i not in partner.visible and j not in partner.infrared:
            partner.visible[i], partner.infrared[j] = j, i
    found = hard(Cma()(scene))
    for modality in Modality:
        assert found[modality] == [partner[modality].get(label, -1) for label in own[modality].labels.tolist()]
        assert len(set(found[modality])) > 2


def test_greedy_pairs_go_by_count_then_preference_then_number() -> None:
    count = torch.tensor([[5, 5, 0], [9, 1, 0], [0, 0, 0]])
    assert greedy_pairs(count, torch.zeros(3, 3)).map(Tensor.tolist) == Pair([1, 0, -1], [1, 0, -1])
    count = torch.tensor([[4, 4], [4, 4]])
    assert greedy_pairs(count, torch.zeros(2, 2)).visible.tolist() == [0, 1]
    assert greedy_pairs(count, torch.tensor([[0.1, 0.2], [0.3, 0.0]])).visible.tolist() == [1, 0]


def test_cma_is_stable_and_leaves_unlike_clusters_alone() -> None:
    """No two clusters that both would rather have each other than their partners: what greedy by count means."""
    generator = torch.Generator().manual_seed(4)
    people = torch.randn(6, 24, generator=generator)

    def one(count: int) -> tuple[Features, Clusters]:
        labels = torch.arange(count).repeat_interleave(5)
        x = F.normalize(people[labels] + 0.9 * torch.randn(len(labels), 24, generator=generator), dim=1)
        return Features(x), Clusters(labels, centroids(x, labels, count))

    visible, infrared = one(6), one(4)
    scene = Scene(0, 0, Pair(visible[0], infrared[0]), Clustering(own=Pair(visible[1], infrared[1])))
    count = counted(scene)
    partner = hard(Cma()(scene)).map(lambda labels: labels[::5])
    for a in range(6):
        for b in range(4):
            mine = int(count[a, partner.visible[a]]) if partner.visible[a] >= 0 else 0
            theirs = int(count[partner.infrared[b], b]) if partner.infrared[b] >= 0 else 0
            assert not (count[a, b] > mine and count[a, b] > theirs)
    assert partner.visible.count(-1) >= 2
    assert hard(Cma(floor=1.0)(scene)).visible == [-1] * 30
