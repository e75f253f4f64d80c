"""CMC, mAP and mINP: the published figures, a query-by-query oracle, ties, ignored images, queries without a match."""

from __future__ import annotations

from unittest.mock import patch

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from support.golden_vectors import golden

from reidassoc.errors import DataError
from reidassoc.evaluation import ranking as module
from reidassoc.evaluation.ranking import MAX_RANK, Ranking, nearest_first, rank
from reidassoc.types import Rule

SYSU = Rule(ignored_cameras=((3, 2),), first_occurrence=True)
LLCM = Rule(ignore_same_identity_camera=True, first_occurrence=True)
REGDB = Rule()


def golden_columns() -> dict[str, torch.Tensor]:
    """Identities and cameras of the stored queries and gallery, as `rank` names them."""
    stored, names = golden("evaluation"), {"identity": "id", "camera": "cam"}
    return {
        f"{side}_{name}": stored[f"{side}_{short}"] for side in ("query", "gallery") for name, short in names.items()
    }


@pytest.mark.parametrize(("name", "rule"), [("sysu", SYSU), ("regdb", REGDB)])
def test_reproduces_the_published_evaluation(name: str, rule: Rule) -> None:
    stored = golden("evaluation")
    got = rank(stored["distance"], rule=rule, **golden_columns())
    torch.testing.assert_close(got.cmc, stored[f"{name}_cmc"].double(), atol=1e-6, rtol=0)
    assert got.mean_average_precision == pytest.approx(float(stored[f"{name}_map"]), abs=1e-9)
    assert got.mean_inverse_penalty == pytest.approx(float(stored[f"{name}_minp"]), abs=1e-9)


def by_hand(distance, query_id, gallery_id, query_cam, gallery_cam, rule):  # type: ignore[no-untyped-def]
    """One query after the other, as the definitions say it."""
    rows = []
    for q in range(len(query_id)):
        kept = [
            g
            for g in sorted(range(len(gallery_id)), key=lambda g: (distance[q][g], g))
            if (query_cam[q], gallery_cam[g]) not in rule.ignored_cameras
            and not (
                rule.ignore_same_identity_camera
                and query_id[q] == gallery_id[g]
                and query_cam[q] == gallery_cam[g] >= 0
            )
            and gallery_id[g] >= 0
        ]
        hits = [place for place, g in enumerate(kept, start=1) if gallery_id[g] == query_id[q]]
        if not hits:
            rows.append((0, float("nan"), float("nan")))
            continue
        counted = [gallery_id[g] for g in kept]
        if rule.first_occurrence:
            counted = list(dict.fromkeys(counted))
        precision = [number / place for number, place in enumerate(hits, start=1)]
        rows.append((counted.index(query_id[q]) + 1, sum(precision) / len(hits), len(hits) / hits[-1]))
    return rows


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 10_000),
    queries=st.integers(1, 9),
    gallery=st.integers(1, 25),
    people=st.integers(1, 8),
    rule=st.sampled_from([SYSU, LLCM, REGDB, Rule(first_occurrence=True), Rule(ignored_cameras=((3, 2), (6, 1)))]),
)
def test_agrees_with_a_query_by_query_oracle(seed: int, queries: int, gallery: int, people: int, rule: Rule) -> None:
    draw = np.random.default_rng(seed)
    distance = draw.integers(0, 6, (queries, gallery)) / 4 - 0.5  # few values: many ties
    columns = [
        draw.integers(-1, people, queries),
        draw.integers(-1, people, gallery),
        draw.choice([-1, 1, 2, 3, 6], queries),
        draw.choice([-1, 1, 2, 3], gallery),
    ]
    names = ("query_identity", "gallery_identity", "query_camera", "gallery_camera")
    got = rank(
        torch.from_numpy(distance), rule=rule, **{n: torch.from_numpy(c) for n, c in zip(names, columns, strict=True)}
    )
    expected = by_hand(distance.tolist(), *[column.tolist() for column in columns], rule)
    assert got.first.tolist() == [row[0] for row in expected]
    np.testing.assert_allclose(got.average_precision, [row[1] for row in expected], atol=1e-12)
    np.testing.assert_allclose(got.inverse_penalty, [row[2] for row in expected], atol=1e-12)
    answered = [row for row in expected if row[0]]
    assert (got.counted, got.left_out) == (len(answered), queries - len(answered))
    for r in (1, 3, MAX_RANK):
        share = sum(row[0] <= r for row in answered) / len(answered) if answered else float("nan")
        assert float(got.cmc[r - 1]) == pytest.approx(share, nan_ok=True)


def one(distances: list[float], people: list[int], cameras: list[int], rule: Rule, *, camera: int = 3) -> Ranking:
    return rank(
        torch.tensor([distances]),
        query_identity=torch.tensor([1]),
        gallery_identity=torch.tensor(people),
        query_camera=torch.tensor([camera]),
        gallery_camera=torch.tensor(cameras),
        rule=rule,
    )


def test_a_query_of_camera_3_ignores_camera_2_whoever_is_on_the_image() -> None:
    got = one([0.1, 0.2, 0.3, 0.4], [1, 2, 3, 1], [2, 2, 1, 1], SYSU)
    assert got.first.tolist() == [2]  # behind person 3 alone
    assert float(got.average_precision[0]) == 0.5
    kept = one([0.1, 0.2, 0.3, 0.4], [1, 2, 3, 1], [2, 2, 1, 1], SYSU, camera=6)
    assert kept.first.tolist() == [1]
    assert float(kept.average_precision[0]) == pytest.approx((1 + 2 / 4) / 2)


def test_llcm_ignores_the_same_person_in_the_same_camera_only() -> None:
    got = one([0.1, 0.2, 0.3], [1, 2, 1], [3, 3, 4], LLCM)
    assert got.first.tolist() == [2]
    assert float(got.inverse_penalty[0]) == 0.5


def test_first_occurrence_counts_people_not_images() -> None:
    people, distances = [2, 2, 2, 1], [0.1, 0.2, 0.3, 0.4]
    assert one(distances, people, [1, 1, 1, 1], REGDB).first.tolist() == [4]
    assert one(distances, people, [1, 1, 1, 1], SYSU).first.tolist() == [2]
    assert float(one(distances, people, [1, 1, 1, 1], SYSU).average_precision[0]) == 0.25  # full ranking all the same


def test_ties_keep_the_order_of_the_gallery() -> None:
    assert one([0.5, 0.5], [1, 2], [1, 1], REGDB).first.tolist() == [1]
    assert one([0.5, 0.5], [2, 1], [1, 1], REGDB).first.tolist() == [2]


def test_ranks_beyond_the_last_reported_one_and_short_galleries() -> None:
    late = one([i / 100 for i in range(30)], [2] * 29 + [1], [1] * 30, REGDB)
    assert late.first.tolist() == [30]
    assert late.cmc.tolist() == [0.0] * MAX_RANK
    assert one([0.3], [1], [1], REGDB).cmc.tolist() == [1.0] * MAX_RANK


def test_a_query_without_relevant_image_is_left_out() -> None:
    got = rank(
        torch.tensor([[0.1, 0.2], [0.1, 0.2]]),
        query_identity=torch.tensor([1, 9]),
        gallery_identity=torch.tensor([1, 2]),
        query_camera=torch.tensor([3, 3]),
        gallery_camera=torch.tensor([1, 1]),
        rule=SYSU,
    )
    assert (got.counted, got.left_out, len(got)) == (1, 1, 2)
    assert float(got.cmc[0]) == got.mean_average_precision == got.mean_inverse_penalty == 1.0
    assert bool(got.average_precision[1].isnan())


@pytest.mark.parametrize("gallery", [0, 3])
def test_a_mean_over_no_query_is_not_zero(gallery: int) -> None:
    got = one([0.1] * gallery, [5] * gallery, [1] * gallery, SYSU)
    assert got.counted == 0
    assert np.isnan([got.mean_average_precision, got.mean_inverse_penalty, *got.cmc.tolist()]).all()


def test_images_of_unknown_people_are_neither_right_nor_wrong() -> None:
    got = one([0.1, 0.2, 0.3, 0.4], [-1, -1, 2, 1], [1, 1, 1, 1], REGDB)
    assert got.first.tolist() == [2]
    assert float(got.average_precision[0]) == float(got.inverse_penalty[0]) == 0.5
    columns = {"gallery_identity": torch.tensor([-1, 1]), "gallery_camera": torch.tensor([1, 1]), "rule": SYSU}
    nobody = rank(
        torch.tensor([[0.1, 0.2]]), query_identity=torch.tensor([-1]), query_camera=torch.tensor([3]), **columns
    )
    assert nobody.counted == 0


def test_unknown_cameras_are_not_one_camera() -> None:
    got = one([0.1, 0.2, 0.3], [1, 2, 1], [-1, -1, 4], LLCM, camera=-1)
    assert got.first.tolist() == [1]
    assert float(got.inverse_penalty[0]) == pytest.approx(2 / 3)


def drawn(seed: int, queries: int, gallery: int, levels: int) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
    """Distances that are multiples of a quarter, with ties if there are few levels, and who is on the images."""
    draw = torch.Generator().manual_seed(seed)
    sizes = {"query": queries, "gallery": gallery}
    columns = {f"{side}_identity": torch.randint(0, 8, (size,), generator=draw) for side, size in sizes.items()}
    columns |= {f"{side}_camera": torch.randint(1, 4, (size,), generator=draw) for side, size in sizes.items()}
    return torch.randint(0, levels, (queries, gallery), generator=draw).double() / 4, columns


DRAWN = {
    "seed": st.integers(0, 10_000),
    "queries": st.integers(0, 40),
    "gallery": st.integers(0, 90),
    "levels": st.sampled_from([3, 10**6]),
    "rule": st.sampled_from([SYSU, LLCM, REGDB]),
}


@given(chunk=st.integers(1, 1000), **DRAWN)
def test_chunks_change_nothing(chunk: int, seed: int, queries: int, gallery: int, levels: int, rule: Rule) -> None:
    distance, columns = drawn(seed, queries, gallery, levels)
    whole = rank(distance, rule=rule, **columns)
    with patch.object(module, "CHUNK", chunk):
        pieces = rank(distance, rule=rule, **columns)
    assert whole.first.equal(pieces.first)
    for name in ("average_precision", "inverse_penalty"):  # sums of other lengths are rounded in another order
        one, two = getattr(whole, name), getattr(pieces, name)
        torch.testing.assert_close(one, two, rtol=1e-13, atol=0, equal_nan=True)


@given(**DRAWN)
def test_monotone_changes_of_the_distance_change_nothing(
    seed: int, queries: int, gallery: int, levels: int, rule: Rule
) -> None:
    distance, columns = drawn(seed, queries, gallery, levels)
    plain = rank(distance, rule=rule, **columns)
    for changed in (distance * 4 - 1000, distance**2):  # exact, so that no two become equal
        assert plain.first.equal(rank(changed, rule=rule, **columns).first)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.float16])
def test_the_order_is_that_of_a_stable_sort(dtype: torch.dtype) -> None:
    generator = torch.Generator().manual_seed(0)
    distance = torch.randn(50, 40, generator=generator).to(dtype)
    distance[:, ::3] = distance[:, ::3].round()  # ties, among them 0 and -0
    distance[0, :4] = torch.tensor([0.0, -0.0, float("inf"), -float("inf")])
    assert nearest_first(distance).equal(distance.argsort(dim=1, stable=True))
    assert nearest_first(distance.T).equal(distance.T.argsort(dim=1, stable=True))
    assert nearest_first(distance[0:1, :2]).tolist() == [[0, 1]]


def test_refuses_wrong_shapes_and_nan() -> None:
    column = torch.tensor([1])
    columns = dict.fromkeys(("query_identity", "gallery_identity", "query_camera", "gallery_camera"), column)
    with pytest.raises(ValueError, match=r"distance must be \(Q, G\) floating point, got \(1,\)"):
        rank(torch.zeros(1), rule=REGDB, **columns)
    with pytest.raises(ValueError, match=r"gallery_identity must be \(2,\) to fit the distances, got \(1,\)"):
        rank(torch.zeros(1, 2), rule=REGDB, **columns)
    with pytest.raises(DataError, match="hold NaN: the run has diverged"):
        rank(torch.tensor([[float("nan")]]), rule=REGDB, **columns)
