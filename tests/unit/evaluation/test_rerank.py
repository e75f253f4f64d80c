"""Test-time steps on query and gallery together: parity with dense formulas, per trial, never mixed with plain figures."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from reidassoc.cli.output import transductive_table
from reidassoc.errors import DataError, SpecError
from reidassoc.evaluation.rerank import Cmfp, KReciprocal, transductive
from reidassoc.evaluation.retrieval import retrieve
from reidassoc.ops.jaccard import jaccard_similarity
from reidassoc.types import Modality, Pair, Rule, Trial


def some(count: int, seed: int, width: int = 6) -> Tensor:
    return F.normalize(torch.randn(count, width, generator=torch.Generator().manual_seed(seed)), dim=1)


def dense_cmfp(query: Tensor, gallery: Tensor, k: int) -> Tensor:
    """SALCR's formula on full matrices; no ties in its inputs."""

    def block(rows: Tensor, columns: Tensor) -> Tensor:
        similarity = rows @ columns.T
        least = similarity.topk(min(k, len(columns)), dim=1).values[:, -1:]
        kept = torch.where(similarity >= least, similarity, 0).clamp(min=0)
        return kept / kept.sum(1, keepdim=True).clamp_min(1e-12)

    sides = (query, gallery)
    spread = [F.normalize(sum(block(mine, other) @ other for other in sides), dim=1) for mine in sides]
    return 1 - spread[0] @ spread[1].T


@pytest.mark.parametrize("k", [1, 3, 50])
def test_cmfp_is_the_formula_on_query_and_gallery(k: int) -> None:
    query, gallery = some(9, 0), some(7, 1)
    torch.testing.assert_close(Cmfp(k=k)(query, gallery), dense_cmfp(query, gallery, k), atol=1e-5, rtol=1e-5)


def test_k_reciprocal_mixes_cosine_and_jaccard_distances() -> None:
    query, gallery = some(9, 0), some(7, 1)
    jaccard = 1 - jaccard_similarity(torch.cat([query, gallery]), k1=5, k2=2).to_dense()[:9, 9:]
    wanted = 0.4 * (1 - query @ gallery.T) + 0.6 * jaccard
    torch.testing.assert_close(KReciprocal(k1=5, k2=2, weight=0.4)(query, gallery), wanted)
    assert KReciprocal()(some(0, 0), gallery).shape == (0, 7)
    assert 0 < float((jaccard < 1).double().mean()) < 1  # both kinds of entry were there


def trial(number: int, query: list[int], gallery: list[int]) -> Trial:
    rows = {"query": torch.tensor(query), "gallery": torch.tensor(gallery)}
    return Trial(protocol="p", number=number, query_modality=Modality.INFRARED, rule=Rule(), **rows)


@pytest.mark.parametrize("step", [Cmfp(k=3), KReciprocal(k1=4, k2=2)])
def test_each_trial_is_reranked_from_its_own_gallery_alone(step: Cmfp | KReciprocal) -> None:
    features = Pair(some(8, 0), some(6, 1))
    identity = Pair(torch.arange(8) % 3, torch.arange(6) % 3)
    camera = Pair(torch.ones(8, dtype=torch.int64), torch.ones(6, dtype=torch.int64))
    trials = [trial(0, [5, 0, 3, 1], [2, 7, 0, 4]), trial(1, [0, 1, 2], [1, 3, 5, 6])]
    both = retrieve(features, identity=identity, camera=camera, trials=trials, rerank=step).trials
    moved = Pair(features.visible.clone(), features.infrared.clone())
    moved.visible[[1, 3, 5, 6]] = some(4, 9)  # what only the other trial has
    moved.infrared[[2, 4]] = some(2, 8)
    alone = retrieve(moved, identity=identity, camera=camera, trials=trials[:1], rerank=step).trials[0]
    assert torch.equal(both[0].ranking.average_precision, alone.ranking.average_precision)
    distance = step(features.infrared[[5, 0, 3, 1]], features.visible[[2, 7, 0, 4]])
    nearest = torch.tensor([2, 7, 0, 4])[distance.argmin(1)] % 3
    assert torch.equal(both[0].ranking.first == 1, nearest == torch.tensor([5, 0, 3, 1]) % 3)


def test_specs_are_checked_before_any_work() -> None:
    assert transductive("cmfp(k=8)") == ("cmfp(k=8)", Cmfp(k=8))
    assert transductive("k_reciprocal") == ("k_reciprocal", KReciprocal())
    with pytest.raises(SpecError, match="no transductive step 'cmpf'; did you mean 'cmfp'"):
        transductive("cmpf")
    with pytest.raises(SpecError, match="cmfp: k must be int ≥ 1, got 0"):
        transductive("cmfp(k=0)")


def test_features_that_are_not_finite_are_refused() -> None:
    eye, ids = torch.eye(2), torch.arange(2)
    with pytest.raises(DataError, match="to rerank hold NaN or infinite values"):
        retrieve(
            Pair(eye * torch.nan, eye), identity=Pair(ids, ids), camera=Pair(ids, ids), trials=[trial(0, [0], [0, 1])],
            rerank=Cmfp(),
        )  # fmt: skip


@pytest.mark.parametrize("width", [80, 140])
def test_the_table_keeps_columns_apart(
    width: int, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", str(width))
    figures = {key: {"mean": 50.0, "std": 1.0} for key in ("rank1", "mAP", "mINP")}
    better = {key: {"mean": 60.0, "std": 2.0} for key in ("rank1", "mAP", "mINP")}
    steps = {"cmfp(k=8)": {"protocols": {"all-search single-shot": better}}}
    transductive_table({"all-search single-shot": figures}, steps)
    printed = capsys.readouterr().out
    assert "not comparable with plain figures" in " ".join(printed.split())
    assert "cmfp(k=8)" in printed
    assert "transductive" in printed.split("cmfp(k=8)")[1]
    assert "50.0 ± 1.0" in printed.split("mAP")[1]
    assert "60.0 ± 2.0" in printed.split("mAP")[1]
    assert max(map(len, printed.splitlines())) <= width
