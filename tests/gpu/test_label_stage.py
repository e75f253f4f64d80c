"""The label stage gives the same answers on a GPU, and the same ones every time."""

from __future__ import annotations

import pytest
import torch
from support.golden_vectors import golden

from reidassoc import Features, Pair, Scene, registry
from reidassoc.ops.jaccard import jaccard_similarity
from reidassoc.ops.neighbours import nearest
from reidassoc.ops.transport import transport
from reidassoc.testing import check_associator, check_clusterer
from reidassoc_plugins.associators.mult import Mult
from reidassoc_plugins.clusterers.dbscan import Dbscan

pytestmark = [
    pytest.mark.cuda,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"),
]


def test_neighbours() -> None:
    x = golden("jaccard")["features"]
    on_cpu, on_gpu = nearest(x, x, 20), nearest(x.cuda(), x.cuda(), 20)
    torch.testing.assert_close(on_gpu[0].cpu(), on_cpu[0])
    assert float((on_gpu[1].cpu() == on_cpu[1]).double().mean()) > 0.999


def test_jaccard_equals_the_published_code_and_repeats() -> None:
    stored = golden("jaccard")
    x = stored["features"].cuda()
    first, second = jaccard_similarity(x), jaccard_similarity(x)
    torch.testing.assert_close(1 - first.to_dense().cpu(), stored["k1_30_k2_6"], atol=1e-5, rtol=0)
    assert torch.equal(first.values(), second.values())


def test_transport_equals_the_published_code() -> None:
    stored = golden("sinkhorn")
    plan = transport(stored["features_v"].cuda(), stored["centroids_r"].cuda(), strength=25.0)
    want = stored["plan_v_to_cr_lambda25"]
    assert float(((plan.dense().cpu() - want).abs() / want.amax(1, keepdim=True)).max()) < 1e-4
    few = plan.truncated(0.01)
    assert few is not None
    torch.testing.assert_close(few.to_dense().sum(1).cpu(), torch.ones(len(want)), atol=1e-5, rtol=0)


@pytest.mark.parametrize("truncation", [0.0, 1e-3])
def test_mult_equals_the_published_code(truncation: float) -> None:
    stored = golden("mult")
    features = Pair(Features(stored["features_v"].cuda()), Features(stored["features_r"].cuda()))
    scene = Scene(0, 0, features, Dbscan(k1=20)(features, epoch=0, seed=0, previous=None))
    cross = Mult(k1=20, truncation=truncation)(scene).cross
    assert cross is not None
    for labels, suffix in zip(cross, "vr", strict=True):
        assert torch.equal(labels.hard.cpu(), stored[f"cross_{suffix}"])


def test_contracts() -> None:
    check_clusterer(registry.build("clusterers", "dbscan(k1=8)"), device="cuda")
    for name in ("mult", "nearest", "random", "oracle"):
        check_associator(registry.build("associators", name), device="cuda")
