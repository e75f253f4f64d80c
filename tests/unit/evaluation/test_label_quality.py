"""Label quality against N × N masks, on small cases."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn import metrics

from reidassoc.evaluation.labels import label_quality, measure
from reidassoc.types import Modality, Pair, SoftLabels, Targets

PairOfLists = Pair[list[int]]


def tensors(visible: list[int], infrared: list[int]) -> Pair[torch.Tensor]:
    return Pair(torch.tensor(visible, dtype=torch.int64), torch.tensor(infrared, dtype=torch.int64))


def by_masks(first: np.ndarray, second: np.ndarray, first_id: np.ndarray, second_id: np.ndarray, same: bool):  # type: ignore[no-untyped-def,type-arg]
    """Pair precision and recall from full masks, of known people; ``same`` leaves a sample's pair with itself out."""
    known = (first_id[:, None] >= 0) & (second_id[None] >= 0)
    predicted = (first[:, None] == second[None]) & (first[:, None] >= 0) & known
    right = (first_id[:, None] == second_id[None]) & known
    if same:
        off = ~np.eye(len(first), dtype=bool)
        predicted, right = predicted & off, right & off
    both = (predicted & right).sum()
    return (both / predicted.sum() if predicted.sum() else None), (both / right.sum() if right.sum() else None)


labels = st.lists(st.tuples(st.integers(-1, 4), st.integers(-1, 4)), max_size=12)


@settings(max_examples=100, deadline=None)
@given(visible=labels, infrared=labels)
def test_agrees_with_full_masks(visible: list[tuple[int, int]], infrared: list[tuple[int, int]]) -> None:
    v, r = (np.array(side, dtype=np.int64).reshape(-1, 2) for side in (visible, infrared))
    got = measure(tensors(v[:, 0].tolist(), r[:, 0].tolist()), tensors(v[:, 1].tolist(), r[:, 1].tolist()))
    pairs = {
        "visible": by_masks(v[:, 0], v[:, 0], v[:, 1], v[:, 1], True),
        "infrared": by_masks(r[:, 0], r[:, 0], r[:, 1], r[:, 1], True),
        "cross": by_masks(v[:, 0], r[:, 0], v[:, 1], r[:, 1], False),
    }
    for name, (precision, recall) in pairs.items():
        assert getattr(got, f"precision_{name}") == (None if precision is None else pytest.approx(precision))
        assert getattr(got, f"recall_{name}") == (None if recall is None else pytest.approx(recall))
    both = np.concatenate([v, r])
    labelled = both[both[:, 0] >= 0]
    assert got.clusters == len(set(labelled[:, 0]))
    assert got.identities == len(set(both[:, 1]) - {-1})
    kept = labelled[labelled[:, 1] >= 0]
    if len(kept) > 1:
        assert got.ari == pytest.approx(metrics.adjusted_rand_score(kept[:, 1], kept[:, 0]))
        assert got.v_measure == pytest.approx(metrics.v_measure_score(kept[:, 1], kept[:, 0]))
    else:  # no pair
        assert got.ari is got.fmi is got.ami is got.v_measure is None
    mixed = set(v[v[:, 0] >= 0][:, 0]) & set(r[r[:, 0] >= 0][:, 0])
    rate = pytest.approx(len(mixed) / len(set(labelled[:, 0]))) if len(labelled) else None
    assert got.association_rate == rate
    if len(v):
        assert got.coverage_visible == pytest.approx((v[:, 0] >= 0).mean())


def test_perfect_labels_score_one_and_a_swap_of_modalities_swaps_the_answer() -> None:
    perfect = measure(tensors([4, 4, 7], [7, 4]), tensors([1, 1, 2], [2, 1]))
    assert perfect.ari == perfect.fmi == perfect.v_measure == perfect.association_rate == 1.0
    assert perfect.ami == pytest.approx(1.0)
    assert perfect.precision_cross == perfect.recall_cross == perfect.coverage_visible == 1.0
    labels, identity = tensors([0, 0, 1, -1], [0, 1, 1]), tensors([1, 2, 2, 2], [1, 1, 2])
    one, other = measure(labels, identity), measure(labels.swapped, identity.swapped)
    assert (one.precision_visible, one.recall_visible) == (other.precision_infrared, other.recall_infrared)
    assert (one.precision_cross, one.recall_cross) == (other.precision_cross, other.recall_cross)


def test_an_unlabelled_sample_costs_recall_and_coverage_but_not_precision() -> None:
    got = measure(tensors([0, 0, -1], [0]), tensors([1, 1, 1], [1]))
    assert got.precision_visible == 1.0
    assert got.recall_visible == pytest.approx(1 / 3)
    assert got.recall_cross == pytest.approx(2 / 3)
    assert got.coverage_visible == pytest.approx(2 / 3)
    assert got.ari == 1.0  # of the labelled ones: read it beside the coverage


def test_samples_of_unknown_identity_are_not_one_person() -> None:
    got = measure(tensors([0, 0, 1, 2, 3], [0, 1]), tensors([5, 5, -1, -1, -1], [5, -1]))
    assert got.recall_visible == got.precision_visible == got.ari == 1.0
    assert (got.identities, got.clusters, got.coverage_visible, got.association_rate) == (1, 4, 1.0, 0.5)
    nobody = measure(tensors([0, 0], [0]), tensors([-1, -2], [-1]))
    assert (nobody.identities, nobody.coverage_visible) == (0, 1.0)
    assert nobody.precision_visible is nobody.recall_cross is nobody.ari is None


def test_without_a_pair_there_is_no_agreement() -> None:
    alone = measure(tensors([0], []), tensors([1], []))
    assert alone.ari is alone.fmi is alone.ami is alone.v_measure is None
    assert measure(tensors([0, 1], []), tensors([1, 1], [])).fmi is None  # no predicted pair


def test_every_space_of_the_targets_is_measured_and_goes_into_json() -> None:
    visible, infrared = Modality.VISIBLE, Modality.INFRARED
    own = SoftLabels.one_hot(torch.tensor([0, 0, 1]), 2)
    soft = SoftLabels(torch.tensor([[0.9, 0.1], [0.0, 0.0]]))  # the second sample has no opinion
    targets = Targets(
        {
            (visible, "visible"): own,
            (infrared, "visible"): soft,
            (infrared, "infrared"): SoftLabels.one_hot(torch.tensor([0, 1]), 2),
        }
    )
    got = label_quality(targets, tensors([1, 1, 2], [1, 2]))
    assert json.loads(json.dumps(got)) == got
    assert got["visible/coverage_infrared"] == 0.5
    assert got["visible/association_rate"] == 0.5
    assert (got["visible/clusters"], got["visible/identities"]) == (2, 2)
    assert got["visible/precision_cross"] == 1.0
    assert got["infrared/coverage_visible"] == 0.0  # nobody labels visible samples there
    assert "infrared/precision_cross" not in got  # undefined: left out
    assert not any(value is None for value in got.values())


def test_lengths_must_agree() -> None:
    with pytest.raises(ValueError, match=r"infrared: \(1,\) labels for \(2,\) identities; give the identities"):
        measure(tensors([0], [0]), tensors([1], [1, 2]))
