"""One sort for many trials: the same rankings as a sort per trial, ties, rules and odd galleries included."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from reidassoc.evaluation import retrieval as module
from reidassoc.evaluation.presorted import rank_sorted
from reidassoc.evaluation.ranking import Ranking, nearest_first, rank
from reidassoc.evaluation.retrieval import retrieve
from reidassoc.ops.compiled.dispatch import compiled_ranking, without_numba
from reidassoc.types import Modality, Pair, Rule, Trial

RULES = [
    Rule(),
    Rule(ignored_cameras=((3, 2), (1, 1))),
    Rule(ignored_cameras=((3, 2),), first_occurrence=True),
    Rule(ignore_same_identity_camera=True),
    Rule(ignore_same_identity_camera=True, first_occurrence=True),
]


def same(one: Ranking, two: Ranking) -> None:
    assert one.first.equal(two.first)
    for name in ("average_precision", "inverse_penalty"):
        torch.testing.assert_close(getattr(one, name), getattr(two, name), rtol=1e-13, atol=0, equal_nan=True)


def people(n: int, seed: int) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    cameras = torch.tensor([-1, 1, 2, 3])
    identity = torch.randint(-1, 9, (n,), generator=generator)
    return identity, cameras[torch.randint(0, 4, (n,), generator=generator)]


@pytest.fixture(autouse=True)
def numba() -> None:
    if compiled_ranking(torch.device("cpu")) is None:
        pytest.skip("numba is not installed")


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("levels", [3, 10**6])  # many ties, hardly any
def test_equals_a_sort_of_the_trials_own_gallery(rule: Rule, levels: int) -> None:
    generator = torch.Generator().manual_seed(levels)
    distance = torch.randint(-levels, levels + 1, (40, 70), generator=generator) / levels
    (query_identity, query_camera), (gallery_identity, gallery_camera) = people(40, 1), people(70, 2)
    query_identity[:2] = 77  # nobody answers
    for size in (70, 31, 1, 0):
        gallery = torch.randperm(70, generator=generator)[:size]
        rows = torch.randperm(40, generator=generator)[:25]
        mine = {"query_identity": query_identity[rows], "query_camera": query_camera[rows], "rule": rule}
        got = rank_sorted(
            nearest_first(distance).int(),
            distance,
            rows,
            gallery,
            gallery_identity=gallery_identity,
            gallery_camera=gallery_camera,
            **mine,
        )
        assert got is not None
        theirs = {"gallery_identity": gallery_identity[gallery], "gallery_camera": gallery_camera[gallery]}
        same(got, rank(distance[rows][:, gallery], **mine, **theirs))


def test_retrieval_is_the_same_without_the_walk(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "QUERY_CHUNK", 16)
    generator = torch.Generator().manual_seed(0)
    features = Pair(torch.randn(50, 6, generator=generator), torch.randn(41, 6, generator=generator))
    features.visible[7] = features.visible[9]
    (v_identity, v_camera), (r_identity, r_camera) = people(50, 3), people(41, 4)
    trials = [
        Trial(
            protocol="p",
            number=number,
            query_modality=side,
            query=torch.randperm(30, generator=generator),
            gallery=torch.tensor([4, 4, 2]) if number == 3 else torch.randperm(41, generator=generator)[:20],
            rule=rule,
        )
        for number, rule in enumerate(RULES)
        for side in Modality
    ]
    columns = {"identity": Pair(v_identity, r_identity), "camera": Pair(v_camera, r_camera), "trials": trials}
    walked = retrieve(features, **columns)
    with without_numba():
        sorted_each = retrieve(features, **columns)
    for one, two in zip(walked.trials, sorted_each.trials, strict=True):
        same(one.ranking, two.ranking)
