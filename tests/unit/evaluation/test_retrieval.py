"""Retrieval over a dataset's trials: filtered columns, chunks, directions, averages."""

from __future__ import annotations

import json
from unittest.mock import patch

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from support.exact_rows import exact_rows
from support.toy_dataset import Toy

from reidassoc.errors import DataError
from reidassoc.evaluation import retrieval as module
from reidassoc.evaluation.ranking import rank
from reidassoc.evaluation.retrieval import Retrieval, retrieve, summarise
from reidassoc.types import Modality, Pair, Rule, Trial


def toy_features(
    seed: int = 0, width: int = 8
) -> tuple[Toy, Pair[torch.Tensor], Pair[torch.Tensor], Pair[torch.Tensor]]:
    """Noisy features around one centre per person."""
    dataset = Toy()
    test = dataset.test()
    generator = torch.Generator().manual_seed(seed)
    centres = torch.randn(13, width, generator=generator)
    identity = test.map(lambda records: dataset.identity(records))
    features = identity.map(
        lambda ids: torch.nn.functional.normalize(
            centres[ids] + torch.randn(len(ids), width, generator=generator), dim=1
        )
    )
    return dataset, features, identity, test.map(lambda records: records.camera)


def run(seed: int = 0) -> tuple[Toy, Retrieval]:
    dataset, features, identity, camera = toy_features(seed)
    return dataset, retrieve(features, identity=identity, camera=camera, trials=dataset.trials())


def test_every_trial_equals_its_own_ranking() -> None:
    dataset, features, identity, camera = toy_features()
    trials = dataset.trials()
    got = retrieve(features, identity=identity, camera=camera, trials=trials)
    assert len(got.trials) == len(trials) == 40
    for trial, result in list(zip(trials, got.trials, strict=True))[::7]:
        gallery = features.visible[trial.gallery].double()
        alone = rank(
            1 - features.infrared[trial.query].double() @ gallery.T,
            query_identity=identity.infrared[trial.query],
            gallery_identity=identity.visible[trial.gallery],
            query_camera=camera.infrared[trial.query],
            gallery_camera=camera.visible[trial.gallery],
            rule=trial.rule,
        )
        assert (result.protocol, result.number) == (trial.protocol, trial.number)
        assert result.ranking.first.equal(alone.first)
        torch.testing.assert_close(result.ranking.average_precision, alone.average_precision)


def test_the_summary_is_percent_with_the_sample_deviation() -> None:
    _, got = run()
    assert list(got.summary) == [
        "all-search single-shot",
        "all-search multi-shot",
        "indoor-search single-shot",
        "indoor-search multi-shot",
    ]
    results = got.of("all-search single-shot")
    rank1 = [100 * float((r.ranking.first == 1).double().mean()) for r in results]
    entry = got.summary["all-search single-shot"]
    assert set(entry) == {"rank1", "rank5", "rank10", "rank20", "mAP", "mINP"}
    assert entry["rank1"]["mean"] == pytest.approx(np.mean(rank1))
    assert entry["rank1"]["std"] == pytest.approx(np.std(rank1, ddof=1))
    assert entry["rank1"]["std"] > 0
    assert 20 < entry["mAP"]["mean"] <= 100
    assert entry["rank20"]["mean"] == 100.0  # six people
    assert json.loads(json.dumps(got.summary)) == got.summary


def test_a_single_trial_has_no_deviation() -> None:
    assert summarise([{"mAP": 12.5}]) == {"mAP": {"mean": 12.5, "std": 0.0}}


@given(seed=st.integers(0, 10_000), chunk=st.integers(1, 40))
def test_chunks_and_any_query_order_change_nothing(seed: int, chunk: int) -> None:
    _, toy, identity, camera = toy_features()
    features = toy.map(lambda x: exact_rows(len(x), 8, seed))  # a product of fewer rows may round otherwise
    mixed = torch.randperm(len(features.infrared), generator=torch.Generator().manual_seed(seed))
    gallery = torch.arange(len(features.visible)).flip(0)
    trial = Trial(
        protocol="p", number=0, query_modality=Modality.INFRARED, query=mixed[:30], gallery=gallery, rule=Rule()
    )
    whole = retrieve(features, identity=identity, camera=camera, trials=[trial]).trials[0].ranking
    with patch.object(module, "QUERY_CHUNK", chunk):
        pieces = retrieve(features, identity=identity, camera=camera, trials=[trial]).trials[0].ranking
    assert whole.first.equal(pieces.first)
    torch.testing.assert_close(whole.average_precision, pieces.average_precision)
    alone = rank(
        1 - features.infrared[mixed[:30]] @ features.visible[gallery].T,
        query_identity=identity.infrared[mixed[:30]],
        gallery_identity=identity.visible[gallery],
        query_camera=camera.infrared[mixed[:30]],
        gallery_camera=camera.visible[gallery],
        rule=Rule(),
    )
    assert whole.first.equal(alone.first)


def test_the_direction_of_a_trial_is_its_query_modality() -> None:
    features = Pair(torch.eye(3), torch.eye(3)[[1, 2]])
    identity = Pair(torch.tensor([1, 2, 3]), torch.tensor([2, 3]))
    camera = Pair(torch.ones(3, dtype=torch.int64), torch.ones(2, dtype=torch.int64))
    trials = [
        Trial(
            protocol=str(modality),
            number=0,
            query_modality=modality,
            query=torch.arange(len(features[modality])),
            gallery=torch.arange(len(features[modality.other])),
            rule=Rule(),
        )
        for modality in Modality
    ]
    got = retrieve(features, identity=identity, camera=camera, trials=trials)
    assert got.trials[0].ranking.first.tolist() == [0, 1, 1]
    assert got.trials[1].ranking.first.tolist() == [1, 1]
    assert got.notes == ("visible: up to 1 of 3 queries have no relevant gallery image, left out",)


def test_the_note_counts_the_queries_of_the_trial_that_lacks_most() -> None:
    eye, ids = torch.eye(3), torch.arange(3)
    trials = [
        Trial(protocol="p", number=number, query_modality=Modality.VISIBLE, query=query, gallery=ids[:1], rule=Rule())
        for number, query in enumerate((ids[:1], ids))
    ]
    got = retrieve(Pair(eye, eye), identity=Pair(ids, ids), camera=Pair(ids, ids), trials=trials)
    assert got.notes == ("p: up to 2 of 3 queries have no relevant gallery image, left out",)


def test_trials_without_a_match_have_no_part_in_the_mean() -> None:
    eye, ids = torch.eye(3), torch.arange(3)
    trials = [
        Trial(protocol="p", number=n, query_modality=Modality.VISIBLE, query=query, gallery=ids[:1], rule=Rule())
        for n, query in enumerate((ids[:1], ids[1:]))
    ]
    columns = {"identity": Pair(ids, ids), "camera": Pair(ids, ids)}
    both = retrieve(Pair(eye, eye), trials=trials, **columns)
    assert both.summary["p"]["mAP"] == {"mean": 100.0, "std": 0.0}
    assert both.notes == ("p: up to 2 of 2 queries have no relevant gallery image, left out",)
    neither = retrieve(Pair(eye, eye), trials=trials[1:], **columns)
    assert all(figure == {"mean": None, "std": None} for figure in neither.summary["p"].values())
    assert neither.notes == ("p: none of 2 queries has a relevant gallery image: no figure",)


def test_rows_of_any_length_are_ranked_by_cosine() -> None:
    dataset, features, identity, camera = toy_features()
    trials = dataset.trials()[:1]
    longer = features.map(lambda x: x * torch.arange(1, len(x) + 1)[:, None])
    plain = retrieve(features, identity=identity, camera=camera, trials=trials)
    assert (
        retrieve(longer, identity=identity, camera=camera, trials=trials)
        .trials[0]
        .ranking.first.equal(plain.trials[0].ranking.first)
    )


def test_no_query_gives_an_empty_ranking() -> None:
    eye, ids = torch.eye(2), torch.arange(2)
    nobody = torch.zeros(0, dtype=torch.int64)
    trial = Trial(protocol="p", number=0, query_modality=Modality.VISIBLE, query=nobody, gallery=ids, rule=Rule())
    got = retrieve(Pair(eye, eye), identity=Pair(ids, ids), camera=Pair(ids, ids), trials=[trial])
    assert (len(got.trials[0].ranking), got.summary["p"]["mAP"]) == (0, {"mean": None, "std": None})
    assert got.notes == ("p: there is no query: no figure",)
    none = retrieve(Pair(eye[:0], eye), identity=Pair(nobody, ids), camera=Pair(nobody, ids), trials=[trial])
    assert len(none.trials[0].ranking) == 0


def test_refuses_columns_that_do_not_fit_and_features_that_are_not_finite() -> None:
    eye, ids = torch.eye(2), torch.arange(2)
    trial = Trial(protocol="p", number=0, query_modality=Modality.VISIBLE, query=ids, gallery=ids, rule=Rule())
    with pytest.raises(ValueError, match=r"visible: features, identity and camera differ in length: \[1, 2\]"):
        retrieve(Pair(eye, eye), identity=Pair(ids[:1], ids), camera=Pair(ids, ids), trials=[trial])
    with pytest.raises(DataError, match="NaN"):
        retrieve(Pair(eye * torch.nan, eye), identity=Pair(ids, ids), camera=Pair(ids, ids), trials=[trial])
