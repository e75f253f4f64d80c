"""Clusterer `dbscan`: contract, parity with the published code, permutation."""

from __future__ import annotations

from unittest.mock import patch

import pytest
import torch
from support.golden_vectors import golden

from reidassoc import Features, Pair, Scene, registry
from reidassoc.errors import SpecError
from reidassoc.testing import check_clusterer
from reidassoc_plugins.clusterers.dbscan import Dbscan


def golden_features() -> Pair[Features]:
    stored = golden("dbscan")
    return Pair(Features(stored["features_v"]), Features(stored["features_r"]))


@pytest.mark.parametrize("spec", ["dbscan", "dbscan(k1=8, k2=3)", "dbscan(eps=1.0)", "dbscan(min_samples=1)"])
def test_contract(spec: str) -> None:
    check_clusterer(registry.build("clusterers", spec))


def test_parity() -> None:
    stored = golden("dbscan")
    clustering = Dbscan(k1=20)(golden_features(), epoch=0, seed=0, previous=None)
    for clusters, suffix in zip(clustering.own, "vr", strict=True):
        assert torch.equal(clusters.labels, stored[f"labels_{suffix}"])


def test_permuting_samples_permutes_the_partition() -> None:
    features = golden_features()
    order = features.map(lambda f: torch.randperm(len(f), generator=torch.Generator().manual_seed(0)))
    straight = Dbscan(k1=20)(features, epoch=0, seed=0, previous=None)
    moved = Dbscan(k1=20)(
        Pair(features.visible.take(order.visible), features.infrared.take(order.infrared)),
        epoch=0,
        seed=0,
        previous=None,
    )
    for one, two, rows in zip(straight.own, moved.own, order, strict=True):
        before = one.labels[rows]
        # Numbers follow the order of samples, so compare who is with whom; border samples may change sides.
        together = (before[:, None] == before) == (two.labels[:, None] == two.labels)
        assert float(together.double().mean()) > 0.999


def test_the_affinity_is_computed_once_whoever_asks() -> None:
    features = golden_features()
    with patch(
        "reidassoc.ops.affinity.jaccard_similarity",
        wraps=__import__("reidassoc.ops.jaccard", fromlist=["jaccard_similarity"]).jaccard_similarity,
    ) as jaccard:
        clustering = Dbscan()(features, epoch=0, seed=0, previous=None)
        Scene(0, 0, features, clustering).affinity()
        assert jaccard.call_count == 2  # one per modality


def test_options_are_checked() -> None:
    with pytest.raises(SpecError, match="eps"):
        registry.build("clusterers", "dbscan(eps=1.5)")
    with pytest.raises(SpecError, match="did you mean 'eps'"):
        registry.build("clusterers", "dbscan(epss=0.5)")


def test_broken_features_are_refused() -> None:
    features = golden_features()
    features.visible.x[7] = float("nan")
    with pytest.raises(ValueError, match=r"NaN .* row 7"):
        Dbscan()(features, epoch=0, seed=0, previous=None)
