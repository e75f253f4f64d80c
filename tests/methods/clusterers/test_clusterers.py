"""Clusterers `hdbscan`, `kmeans`, `infomap`, `sklearn`: contract, parity with their libraries, what follows from symmetry."""

from __future__ import annotations

import importlib
import sys

import numpy as np
import pytest
import torch

from reidassoc import Clusterer, Clustering, Features, Modality, Pair, registry
from reidassoc.errors import PluginError, SpecError
from reidassoc.ops.partition import by_first_member
from reidassoc.ops.prototypes import centroids
from reidassoc.registry.spec import Spec
from reidassoc.testing import CASES, Toy, check_clusterer, toy_features
from reidassoc_plugins.clusterers import kmeans as kmeans_module
from reidassoc_plugins.clusterers.hdbscan import Hdbscan
from reidassoc_plugins.clusterers.identity import Identity
from reidassoc_plugins.clusterers.infomap import Infomap, modules
from reidassoc_plugins.clusterers.kmeans import Kmeans
from reidassoc_plugins.clusterers.scikit_learn import FitPredict, Sklearn

SPECS = [
    "hdbscan(min_samples=2, single=true)",
    "hdbscan(selection=leaf, min_cluster_size=2)",
    "kmeans(clusters=3, infrared_clusters=7)",
    "kmeans(clusters=4, spherical=true, starts=2)",
    "infomap(graph=jaccard, k1=8, floor=0.2)",
    "infomap(min_cluster_size=1, floor=0.9)",
    "sklearn(estimator='AgglomerativeClustering(n_clusters=5)')",
    "sklearn(estimator='KMeans(n_clusters=5)')",
    "sklearn(estimator='DBSCAN(eps=0.9, min_samples=2)')",
]
SEPARATE = Toy(clusters=Pair(6, 9), samples=7, outliers=0, noise=0.2, seed=3)


def call(clusterer: Clusterer, features: Pair[Features], seed: int = 0) -> Clustering:
    return clusterer(features, epoch=0, seed=seed, previous=None)


@pytest.mark.parametrize("spec", SPECS)
def test_contract(spec: str) -> None:
    check_clusterer(registry.build("clusterers", spec))


def test_numbers_follow_the_first_members() -> None:
    labels = np.array([5, 5, -2, 0, 9, 0, -1, 5])
    assert by_first_member(labels).tolist() == [0, 0, -1, 1, 2, 1, -1, 0]
    assert by_first_member(labels, least=3).tolist() == [0, 0, -1, -1, -1, -1, -1, 0]
    assert by_first_member(torch.zeros(0, dtype=torch.int64)).tolist() == []


def test_hdbscan_parity() -> None:
    """The same clusters as scikit-learn's other algorithm finds, which never sees a distance matrix."""
    from sklearn.cluster import HDBSCAN

    features = toy_features(seed=5)
    for mine, found in zip(features, call(Hdbscan(min_cluster_size=3, min_samples=2), features).own, strict=True):
        method = HDBSCAN(min_cluster_size=3, min_samples=2, algorithm="kd_tree", copy=True)
        expected = by_first_member(method.fit_predict(mine.x.double().numpy()))
        assert found.count > 2
        assert torch.equal(found.labels, expected)


def test_kmeans_parity() -> None:
    """Lloyd's algorithm of scikit-learn has nothing to improve where ours ended."""
    from sklearn.cluster import KMeans

    features = CASES["ordinary"].features
    for mine, found in zip(features, call(Kmeans(clusters=5), features).own, strict=True):
        start = found.centroids.double().numpy()
        oracle = KMeans(5, init=start, n_init=1).fit(mine.x.double().numpy())
        assert torch.equal(found.labels, torch.from_numpy(oracle.labels_).long())
        best = KMeans(5, n_init=20, random_state=0).fit(mine.x.double().numpy()).inertia_
        tried = call(Kmeans(clusters=5, starts=20), features).own.visible
        assert oracle.inertia_ < 1.5 * best
    spread = (features.visible.x - tried.centroids[tried.labels]).square().sum()
    assert float(spread) < 1.05 * KMeans(5, n_init=20, random_state=0).fit(features.visible.x.numpy()).inertia_


def test_spherical_kmeans_gives_every_image_the_centre_of_largest_cosine() -> None:
    features = CASES["ordinary"].features
    for mine, found in zip(features, call(Kmeans(clusters=5, spherical=True), features).own, strict=True):
        direction = torch.nn.functional.normalize(found.centroids, dim=1)
        assert torch.equal((mine.x @ direction.T).argmax(dim=1), found.labels)


def test_kmeans_follows_its_seed_and_works_without_faiss(monkeypatch: pytest.MonkeyPatch) -> None:
    features = CASES["ordinary"].features
    one, again, other = (call(Kmeans(clusters=6), features, seed).own.visible.labels for seed in (0, 0, 1))
    assert torch.equal(one, again)
    assert not torch.equal(one, other)
    monkeypatch.setitem(sys.modules, "faiss", None)
    assert kmeans_module.load_faiss() is None
    for spherical in (False, True):
        check_clusterer(Kmeans(clusters=5, spherical=spherical), {"ordinary": CASES["ordinary"]})
        found = call(Kmeans(clusters=6, spherical=spherical, starts=10), SEPARATE.features).own
        assert torch.equal(found.visible.labels, SEPARATE.identity.visible)


def test_kmeans_never_parts_copies() -> None:
    features = CASES["duplicates"].features
    distinct = features.map(lambda f: len(torch.unique(f.x, dim=0)))
    found = call(Kmeans(clusters=1000), features).own
    assert found.map(lambda clusters: clusters.count) == distinct
    for mine, clusters in zip(features, found, strict=True):
        torch.testing.assert_close(mine.x, clusters.centroids[clusters.labels])


def test_infomap_parity() -> None:
    """The package itself, given a graph that is built the long way."""
    package = importlib.import_module("infomap")
    features = toy_features(seed=2)
    clusterer = Infomap(neighbours=4, floor=0.4)
    for modality in Modality:
        x = features[modality].x.double()
        similarity = (x @ x.T).fill_diagonal_(-1)
        top, index = similarity.topk(4, dim=1)
        links = {
            (i, int(j)): float(w) for i in range(len(x)) for w, j in zip(top[i], index[i], strict=True) if w >= 0.4
        }
        assert {(int(a), int(b)) for a, b, _ in clusterer.links(features[modality])} == links.keys()
        for a, b, weight in clusterer.links(features[modality]):
            assert weight == pytest.approx(links[int(a), int(b)], abs=1e-5)
        method = package.Infomap(two_level=True, directed=True, silent=True, seed=1)
        for (a, b), weight in links.items():
            method.add_link(a, b, weight)
        method.run()
        labels = torch.full((len(x),), -1)
        for node, module in modules(method):
            labels[node] = int(module)
        found = call(clusterer, features).own[modality].labels
        assert int(found.max()) > 2
        assert torch.equal(found, by_first_member(labels, least=2))


def test_infomap_links_jaccard_neighbours_once() -> None:
    features = toy_features()
    clusterer = Infomap(graph="jaccard", k1=8, k2=3, floor=0.3)
    dense = Clustering(own=call(clusterer, features).own)
    assert dense.usable
    from reidassoc.ops.affinity import affinity

    similarity = affinity(features.visible, k1=8, k2=3).to_dense()
    links = clusterer.links(features.visible)
    assert len(links) == int((torch.triu(similarity, 1) >= 0.3).sum())
    assert all(weight == pytest.approx(float(similarity[int(a), int(b)])) for a, b, weight in links)


def test_infomap_absent_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "infomap", None)
    with pytest.raises(PluginError, match=r"clusterer infomap needs a package .*pip install 'reidassoc\[infomap\]'"):
        registry.build("clusterers", "infomap")


@pytest.mark.parametrize("text", ["AgglomerativeClustering(n_clusters=5, linkage='average')", "DBSCAN(eps=0.9)"])
def test_sklearn_parity(text: str) -> None:
    import sklearn.cluster

    features = toy_features(seed=4)
    estimator = eval(text, vars(sklearn.cluster))
    for mine, found in zip(features, call(Sklearn(estimator=text), features).own, strict=True):
        expected = by_first_member(estimator.fit_predict(mine.x.double().numpy()))
        assert torch.equal(found.labels, expected)
        torch.testing.assert_close(found.centroids, centroids(mine.x, expected, found.count))


AT_ODDS = {
    "AgglomerativeClustering(n_clusters=5, metric='cosine')": "linkage 'ward' needs metric 'euclidean', got 'cosine'",
    "AgglomerativeClustering(distance_threshold=0.5)": "give n_clusters or distance_threshold",
    "AgglomerativeClustering(n_clusters=none)": "give n_clusters or distance_threshold",
    "AgglomerativeClustering(n_clusters=none, distance_threshold=0.5, compute_full_tree=false)": "needs the whole tree",
    "DBSCAN(metric='cosine', algorithm='kd_tree')": "algorithm 'kd_tree' has no metric 'cosine'; it has: .*euclidean",
    "HDBSCAN(metric='cosine', algorithm='ball_tree')": "algorithm 'ball_tree' has no metric 'cosine'",
    "OPTICS(metric='cosine', algorithm='kd_tree')": "algorithm 'kd_tree' has no metric 'cosine'",
}


@pytest.mark.parametrize("text", AT_ODDS)
def test_scikit_learn_refuses_them_too(text: str) -> None:
    """What is refused before the run would have failed within it."""
    import sklearn.cluster

    spec = Spec.parse(text)
    with pytest.raises(ValueError, match=r".+"):
        getattr(sklearn.cluster, spec.name)(**spec.options).fit_predict(np.random.default_rng(0).normal(size=(40, 4)))


@pytest.mark.parametrize(
    "text",
    [
        "AgglomerativeClustering(n_clusters=5, metric='cosine', linkage='average')",
        "AgglomerativeClustering(n_clusters=none, distance_threshold=0.5)",
        "DBSCAN(metric='cosine')",
        "OPTICS(algorithm='kd_tree')",
        "KMeans(algorithm='elkan')",
    ],
)
def test_options_that_agree_are_taken(text: str) -> None:
    registry.build("clusterers", f"sklearn(estimator={text!r})")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("AgglomerativClustering()", "no clusterer 'AgglomerativClustering'; did you mean 'AgglomerativeClustering'"),
        ("SpectralBiclustering()", "no clusterer 'SpectralBiclustering'"),
        ("FeatureAgglomeration()", "no clusterer 'FeatureAgglomeration'"),
        ("k_means", "no clusterer 'k_means'"),
        ("__import__('os')", "options need names"),
        ("os.system(command='true')", "can't read"),
        ("KMeans(n_clusters=len('x'))", "values are literals"),
        ("KMeans(n_cluster=3)", "KMeans has no option 'n_cluster'; did you mean 'n_clusters'"),
        ("KMeans(n_clusters=-3)", "KMeans: The 'n_clusters' parameter"),
        ("DBSCAN(metric='precomputed')", "'precomputed' needs distances"),
        (
            "SpectralClustering(affinity='precomputed_nearest_neighbors')",
            "'precomputed_nearest_neighbors' needs distances",
        ),
        *((text, message) for text, message in AT_ODDS.items()),
    ],
)
def test_a_wrong_estimator_stops_before_any_work(text: str, message: str) -> None:
    with pytest.raises(SpecError, match=message):
        registry.build("clusterers", f"sklearn(estimator={text!r})")


def test_any_object_with_fit_predict() -> None:
    class Halves:
        """By the sign of the first value; a state that a second call would notice."""

        called = False

        def fit_predict(self, x: np.ndarray) -> np.ndarray:
            assert not self.called
            self.called = True
            return np.where(x[:, 0] < 0, 3, np.where(x[:, 0] > 0.3, -1, 0))

    clusterer = FitPredict(estimator=Halves())
    check_clusterer(clusterer)
    with pytest.raises(ValueError, match="must have a method fit_predict, got int"):
        FitPredict(estimator=3)

    class Wrong:
        def fit_predict(self, x: np.ndarray) -> np.ndarray:
            return x[:, 0]

    with pytest.raises(ValueError, match=r"must return \(51,\) integers, got \(51,\) float64"):
        call(FitPredict(estimator=Wrong()), toy_features())


@pytest.mark.parametrize(
    "clusterer",
    [
        Hdbscan(),
        Kmeans(clusters=6, infrared_clusters=9, starts=20),
        Infomap(),
        Infomap(graph="jaccard", k1=7, k2=3, floor=0.2),
        Sklearn(estimator="MeanShift(bandwidth=0.6)"),
    ],
    ids=lambda clusterer: type(clusterer).__name__,
)
def test_clear_clusters_are_found_in_any_order(clusterer: Clusterer) -> None:
    features = SEPARATE.features
    order = features.map(lambda f: torch.randperm(len(f), generator=torch.Generator().manual_seed(1)))
    moved = call(clusterer, Pair.build(lambda m: features[m].take(order[m])))
    for modality in Modality:
        assert torch.equal(call(clusterer, features).own[modality].labels, SEPARATE.identity[modality])
        expected = by_first_member(SEPARATE.identity[modality][order[modality]])
        assert torch.equal(moved.own[modality].labels, expected)


@pytest.mark.parametrize("spec", ["hdbscan", "kmeans(clusters=3)", "infomap", "sklearn(estimator='Birch()')"])
def test_broken_features_are_refused(spec: str) -> None:
    x = toy_features().visible.x.clone()
    x[7, 3] = float("nan")
    with pytest.raises(ValueError, match=r"NaN .* row 7"):
        call(registry.build("clusterers", spec), Pair(Features(x), toy_features().infrared))


def test_what_is_required_is_said() -> None:
    with pytest.raises(SpecError, match=r"kmeans: option 'clusters' is required, as in kmeans\(clusters=…\)"):
        registry.build("clusterers", "kmeans")
    with pytest.raises(SpecError, match="infrared_clusters must be"):
        registry.build("clusterers", "kmeans(clusters=3, infrared_clusters=0)")


def test_identity_parity() -> None:
    """scikit-learn sees no difference between the clusters and the identities; unknown ones are outliers."""
    from sklearn.metrics import adjusted_rand_score

    toy = CASES["more_infrared"]
    unknown = Pair.build(lambda m: torch.where(toy.identity[m] == 2, -1, toy.identity[m]))
    own = Identity()(toy.features, epoch=0, seed=0, previous=None, identity=unknown).own
    for modality in Modality:
        labels, true = own[modality].labels, unknown[modality]
        assert torch.equal(labels < 0, true < 0)
        assert adjusted_rand_score(true[true >= 0], labels[true >= 0]) == 1.0
    with pytest.raises(ValueError, match="identity needs true identities"):
        call(Identity(), toy.features)
    with pytest.raises(ValueError, match="identity of the visible samples must be"):
        Identity()(toy.features, epoch=0, seed=0, previous=None, identity=toy.identity.swapped)


def test_identity_follows_the_order_of_samples_and_modalities() -> None:
    toy = CASES["more_infrared"]
    straight = Identity()(toy.features, epoch=0, seed=0, previous=None, identity=toy.identity).own
    back = Identity()(toy.features.swapped, epoch=0, seed=0, previous=None, identity=toy.identity.swapped).own
    order = toy.features.map(lambda f: torch.arange(len(f)).flip(0))
    features, identity = (
        Pair.build(lambda m: toy.features[m].take(order[m])),
        Pair.build(lambda m: toy.identity[m][order[m]]),
    )
    moved = Identity()(features, epoch=0, seed=0, previous=None, identity=identity).own
    for modality in Modality:
        assert torch.equal(straight[modality].labels, back[modality.other].labels)
        assert torch.equal(moved[modality].labels, by_first_member(straight[modality].labels.flip(0)))


def test_identities_reach_a_clusterer_only_if_they_are_allowed() -> None:
    from reidassoc.errors import RecipeError
    from reidassoc.pipeline import cluster
    from reidassoc.recipe.choose import choose
    from reidassoc.recipe.compose import compose
    from reidassoc.runs.result import flags

    with pytest.raises(
        RecipeError, match="identity needs 'identity', but it sees true identities: say so with --oracle"
    ):
        compose(choose(clusterer="identity"))
    assert flags(compose(choose(clusterer="identity", oracle=True))) == ["uses true identities"]
    with pytest.raises(RecipeError, match="identity needs true identities, and there are none"):
        cluster(Identity(), toy_features())
    assert cluster(Identity(), toy_features(), identity=CASES["ordinary"].identity).own.visible.count == 11
    assert cluster(Hdbscan(), toy_features(), identity=CASES["ordinary"].identity).usable  # which it never sees
