"""The values that flow between steps: what they refuse, and what they make of empty sides."""

from __future__ import annotations

import pytest
import torch

from reidassoc.types import (
    Association,
    Clustering,
    Clusters,
    Features,
    Modality,
    Pair,
    SoftLabels,
    Targets,
)


def clusters(labels: list[int], count: int) -> Clusters:
    return Clusters(torch.tensor(labels, dtype=torch.int64), torch.ones(count, 2))


def test_a_clustering_is_usable_with_a_cluster_in_either_modality() -> None:
    some, none = clusters([0, -1], 1), clusters([-1, -1], 0)
    assert Clustering(Pair(some, some)).usable
    assert not Clustering(Pair(some, none)).usable


@pytest.mark.parametrize("samples", [0, 3])
def test_relabelled_own_clusters_stand_in_the_targets(samples: int) -> None:
    clustering = Clustering(Pair(clusters([0] * samples, 1), clusters([0], 1)))
    relabelled = Pair(SoftLabels(torch.full((samples, 5), 0.2)), SoftLabels(torch.ones(1, 1)))
    targets = Targets.compose(clustering, Association(own=relabelled))
    assert targets.of(Modality.VISIBLE, "visible") is relabelled.visible
    assert Targets.compose(clustering).of(Modality.VISIBLE, "visible").count == 1


def test_targets_name_the_spaces_that_there_are() -> None:
    targets = Targets.compose(Clustering(Pair(clusters([0], 1), clusters([0], 1))))
    assert targets.has(Modality.VISIBLE, "visible")
    assert not targets.has(Modality.VISIBLE, "infrared")
    with pytest.raises(KeyError, match="space 'infrared'; there are: visible in visible, infrared in infrared"):
        targets.of(Modality.VISIBLE, "infrared")


@pytest.mark.parametrize("extra", [torch.tensor(1.0), torch.ones(3)])
def test_further_tensors_have_a_row_for_each_image(extra: torch.Tensor) -> None:
    with pytest.raises(ValueError, match=r"extra\['mine'\] must have 2 rows, got the shape"):
        Features(torch.eye(2), extra={"mine": extra})


def test_negative_labels_are_missing_ones() -> None:
    assert SoftLabels.one_hot(torch.tensor([0, -2, 1, -1]), 2).hard.tolist() == [0, -1, 1, -1]


def test_joined_labels_are_the_rows_of_all() -> None:
    parts = [
        SoftLabels.one_hot(torch.tensor([0, -1]), 3, torch.tensor([0.5, 1.0])),
        SoftLabels(torch.tensor([[0.75, 0.25]]), index=torch.tensor([[2, 0]]), count=3),
    ]
    joined = SoftLabels.joined(parts)
    assert joined.prob.tolist() == [[1, 0, 0], [0, 0, 0], [0.25, 0, 0.75]]
    assert joined.weight.tolist() == [0.5, 1, 1]
