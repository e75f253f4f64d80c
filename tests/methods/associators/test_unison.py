"""`unison`: contract, reduction to balanced transport, a plain reading of its formulas, and what it is for."""

from __future__ import annotations

import numpy as np
import ot
import pytest
import torch
from scipy.linalg import inv, sqrtm

from reidassoc import OUTLIER, Clustering, Clusters, Features, Pair, Scene, registry
from reidassoc.evaluation.labels import measure
from reidassoc.ops.prototypes import centroids
from reidassoc.testing import CASES, Toy, check_associator, check_permutation, check_swap, toy_scene
from reidassoc_plugins.associators.unison import Unison

PLAIN = Unison(centre="none", metric=False, hubs=0, floor=0.0, merge=False, outliers=False)
Array = np.ndarray


@pytest.mark.parametrize(
    "spec",
    [
        "unison",
        "unison(centre='none', metric=false)",
        "unison(merge=false, outliers=false, hubs=0, rounds=0)",
    ],
)
def test_contract(spec: str) -> None:
    check_associator(registry.build("associators", spec))


def test_permuting_and_swapping() -> None:
    cases = {
        name: CASES[name] for name in ("ordinary", "more_infrared", "far_more_visible", "one_visible", "no_visible")
    }
    check_permutation(Unison(), cases)
    check_swap(Unison(), cases)


def test_without_its_ingredients_it_is_balanced_transport_of_cluster_sizes() -> None:
    """Against POT's balanced solver: an infinite price of untransported mass."""
    for case in ("ordinary", "more_infrared", "far_more_visible"):
        scene = CASES[case].scene()
        own = scene.clustering.own
        unit = own.map(lambda c: torch.nn.functional.normalize(c.centroids.double(), dim=1).numpy())
        size = own.map(lambda c: np.bincount(c.labels[c.clustered].numpy(), minlength=c.count).astype(float))
        cost = 1 - unit.visible @ unit.infrared.T
        plan = ot.sinkhorn(*(s / s.sum() for s in size), cost, 0.15, stopThr=1e-12, numItermax=5000)
        cross = Unison(**{**vars(PLAIN), "relax": 1e9})(scene).cross
        assert cross is not None
        for modality, best in (("visible", plan.argmax(1)), ("infrared", plan.argmax(0))):
            labels = own[modality].labels.numpy()
            assert (cross[modality].hard.numpy() == np.where(labels < 0, OUTLIER, best[labels])).all()


@pytest.mark.filterwarnings("ignore:If reg_type = entropy")
def test_its_plan_is_pot_s_unbalanced_one() -> None:
    own = CASES["more_infrared"].scene().clustering.own
    similarity = torch.randn(5, 9, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    size = own.map(lambda c: np.bincount(c.labels[c.clustered].numpy(), minlength=c.count).astype(float))
    mass = size.map(lambda s: s / s.sum())
    found = Unison(entropy=0.3, relax=0.7).log_plan(similarity, own).exp()
    plan = ot.unbalanced.sinkhorn_knopp_unbalanced(
        mass.visible, mass.infrared, (similarity.max() - similarity).numpy(), 0.3, 0.7,
        reg_type="entropy", numItermax=5000, stopThr=1e-13,
    )  # fmt: skip
    np.testing.assert_allclose(found.numpy(), plan, rtol=1e-4)


def test_its_plan_keeps_the_masses_at_a_small_entropy() -> None:
    own = CASES["more_infrared"].scene().clustering.own
    similarity = torch.randn(5, 9, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    plan = Unison(entropy=2e-3, relax=1e6).log_plan(similarity, own).exp()  # exp(-1000) is 0, in float64 too
    size = torch.bincount(own.infrared.labels[own.infrared.clustered]).double()
    torch.testing.assert_close(plan.sum(0), size / size.sum(), rtol=1e-3, atol=0)


def unit(x: Array) -> Array:
    return x / np.maximum(np.linalg.norm(x, axis=1, keepdims=True), 1e-12)


def plain_reading(scene: Scene, method: Unison) -> Pair[Array]:
    """Cross labels by loops over NumPy arrays, before merging."""
    own = scene.clustering.own
    label = own.map(lambda c: c.labels.numpy())
    x: dict[str, Array] = {}
    for m in ("visible", "infrared"):
        rows = scene.features[m].x.numpy().astype(float)
        centred = rows - rows.mean(0)
        for camera in {*scene.features[m].camera.tolist()} - {-1}:
            here = scene.features[m].camera.numpy() == camera
            centred[here] = rows[here] - rows[here].mean(0)
        x[m] = unit(centred)

    def mean(points: Array, m: str) -> Array:
        return np.stack([points[label[m] == k].mean(0) for k in range(own[m].count)])

    def corrected(points: dict[str, Array]) -> Array:
        s = unit(mean(points["visible"], "visible")) @ unit(mean(points["infrared"], "infrared")).T
        out = np.empty_like(s)
        for i, row in enumerate(s):
            for j, column in enumerate(s.T):
                near = np.sort(row)[::-1][: method.hubs].mean(), np.sort(column)[::-1][: method.hubs].mean()
                out[i, j] = 2 * s[i, j] - near[0] - near[1]
        return out

    within = np.zeros((x["visible"].shape[1],) * 2)
    for m in x:
        apart = np.concatenate([x[m][label[m] == k] - x[m][label[m] == k].mean(0) for k in range(own[m].count)])
        within += apart.T @ apart / len(apart)
    within *= len(within) / np.trace(within)
    total = within
    for step in range(method.rounds + 1):
        root = np.real(sqrtm(inv(total + method.shrinkage * np.eye(len(total)))))  # another root, the same cosines
        moved = {m: unit(x[m] @ root) for m in x}
        s = corrected(moved)
        if step < method.rounds:
            pairs = [(i, int(s[i].argmax())) for i in range(len(s)) if s[:, s[i].argmax()].argmax() == i]
            start = {m: unit(mean(x[m], m)) for m in x}
            gaps = np.stack([start["visible"][i] - start["infrared"][j] for i, j in pairs])
            total = within + gaps.T @ gaps * len(within) / np.trace(gaps.T @ gaps)
    mass = [np.bincount(label[m][label[m] >= 0]).astype(float) for m in x]
    a, b = (w / w.sum() for w in mass)
    kernel, u, v = np.exp((s - s.max()) / method.entropy), np.ones(len(a)), np.ones(len(b))
    power = method.relax / (method.relax + method.entropy)
    for _ in range(1000):
        u = (a / (kernel @ v)) ** power
        v = (b / (kernel.T @ u)) ** power
    plan = u[:, None] * kernel * v
    confidence = np.sqrt(plan**2 / plan.sum(1, keepdims=True) / plan.sum(0))

    def labels(m: str, p: Array, c: Array) -> Array:
        best = p.argmax(1)
        partner = np.where(c[np.arange(len(best)), best] >= method.floor, best, OUTLIER)
        return np.where(label[m] < 0, OUTLIER, partner[label[m]])

    return Pair(labels("visible", plan, confidence), labels("infrared", plan.T, confidence.T))


@pytest.mark.parametrize("case", ["ordinary", "more_infrared", "far_more_visible"])
def test_against_a_plain_reading(case: str) -> None:
    toy = Toy(clusters=CASES[case].clusters, noise=1.2, gap=0.8, seed=3)
    before = toy.scene()
    cameras = before.features.map(lambda f: Features(f.x, camera=torch.tensor([1, 2, -1])[torch.arange(len(f)) % 3]))
    scene = Scene(0, 0, cameras, before.clustering)
    method = Unison(merge=False, outliers=False)
    found, read = method(scene).cross, plain_reading(scene, method)
    assert found is not None
    for modality in ("visible", "infrared"):
        assert (found[modality].hard.numpy() == read[modality]).all()


def world(
    seed: int, *, people: int = 12, unpaired: int = 0, split: bool = False, nuisance: float = 0.6
) -> tuple[Scene, Pair[torch.Tensor]]:
    """People of eight images each, in clusters that are right; the last ``unpaired`` have nobody on the other side."""
    generator = torch.Generator().manual_seed(seed)
    appearance = torch.randn(people + unpaired, 48, generator=generator)
    directions = torch.randn(6, 48, generator=generator)  # in which images differ, not people
    number = torch.arange(people).repeat_interleave(8)
    identity = Pair(number, torch.where(number >= people - unpaired, number + unpaired, number))

    def one(who: torch.Tensor) -> Features:
        noise = nuisance * torch.randn(len(who), 6, generator=generator) @ directions
        rows = appearance[who] + noise + 0.5 * torch.randn(len(who), 48, generator=generator)
        return Features(torch.nn.functional.normalize(rows, dim=1))

    features = identity.map(one)
    halves = number * 2 + torch.arange(len(number)) % 8 // 4
    labels = Pair(number, halves if split else number)
    own = Pair.build(lambda m: Clusters(labels[m], centroids(features[m].x, labels[m], int(labels[m].max()) + 1)))
    return Scene(0, 0, features, Clustering(own=own)), identity


def f1(scene: Scene, identity: Pair[torch.Tensor], spec: str, space: str = "visible") -> float:
    found = registry.build("associators", spec)(scene)
    own = scene.clustering.own if found.own is None else None
    mine = own[space].labels if own else found.own[space].hard
    other = "infrared" if space == "visible" else "visible"
    sides = {space: mine, other: found.cross[other].hard}
    quality = measure(Pair(sides["visible"], sides["infrared"]), identity)
    p, r = quality.precision_cross or 0.0, quality.recall_cross or 0.0
    return 2 * p * r / (p + r) if p + r else 0.0


def test_the_metric_takes_nuisance_out() -> None:
    worlds = [world(seed, nuisance=1.5) for seed in range(3)]
    assert min(f1(*w, "unison") for w in worlds) > 0.95
    assert np.mean([f1(*w, "unison(metric=false)") for w in worlds]) < 0.8


def test_halves_of_a_split_cluster_are_joined() -> None:
    scene, identity = world(0, split=True, nuisance=0.3)
    assert f1(scene, identity, "unison", "infrared") == 1
    assert f1(scene, identity, "unison(merge=false)", "infrared") == pytest.approx(2 / 3)


def test_people_of_one_modality_are_doubted_more() -> None:
    scene, identity = world(1, people=40, unpaired=20, nuisance=0.9)
    found = Unison(entropy=0.15, floor=0.5)(scene).cross
    assert found is not None
    alone = identity.map(lambda who: who >= 20)
    said = Pair.build(lambda m: found[m].hard >= 0)
    paired = np.mean([float(said[m][~alone[m]].double().mean()) for m in ("visible", "infrared")])
    lonely = np.mean([float(said[m][alone[m]].double().mean()) for m in ("visible", "infrared")])
    assert lonely < paired - 0.2


def test_a_higher_floor_never_labels_more() -> None:
    scene = Toy(noise=1.2).scene()
    covered = [
        sum(int(labels.labelled.sum()) for labels in Unison(floor=floor)(scene).cross or ())
        for floor in (0.0, 0.3, 0.6, 0.9, 1.0)
    ]
    assert covered == sorted(covered, reverse=True)
    assert covered[0] == sum(len(f) for f in scene.features)


def test_prototypes_are_the_means_of_the_new_labels() -> None:
    scene, _ = world(0, split=True)
    found = Unison()(scene)
    assert found.own is not None
    hard = found.own.infrared.hard
    for label in hard.unique().tolist():
        torch.testing.assert_close(
            found.prototypes["infrared"][label], scene.features.infrared.x[hard == label].mean(0)
        )
    unused = next(k for k in range(24) if k not in hard.tolist())
    assert torch.equal(found.prototypes["infrared"][unused], scene.clustering.own.infrared.centroids[unused])


def test_own_labels_of_the_toy_stay_what_they_are() -> None:
    scene = toy_scene()
    found = Unison()(scene)
    assert found.own is not None
    labels = scene.clustering.own.visible.labels
    assert torch.equal(found.own.visible.hard[labels >= 0], labels[labels >= 0])
