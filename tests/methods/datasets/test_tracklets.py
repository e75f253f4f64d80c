"""Tracklets: from the records to the features, and one sample each for a clusterer that asks for it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from reidassoc import Clustering, Features, Modality, NetworkOutput, Pair, Records
from reidassoc.data.images import ArrayImages
from reidassoc.data.store import ImageStore
from reidassoc.engine.devices.device import open_device
from reidassoc.engine.extract import extract
from reidassoc.errors import DataError
from reidassoc.files.features import read_features
from reidassoc.ops.tracklets import pooled
from reidassoc.testing import toy_features, toy_identity
from reidassoc.testing.contracts import same, unchanged
from reidassoc_plugins.clusterers.dbscan import Dbscan


def with_tracklets(features: Features, tracklet: Tensor) -> Features:
    return Features(features.x, features.index, features.camera, {"tracklet": tracklet})


def tracked() -> Pair[Features]:
    """The toy's images in tracklets of two and three of one person, every seventh image in none."""

    def one(modality: Modality) -> Features:
        identity = toy_identity()[modality]
        rows = torch.arange(len(identity))
        number = 10 * identity + rows % 2
        return with_tracklets(toy_features()[modality], torch.where(rows % 7 == 0, -1, number))

    return Pair.build(one)


def clustered(features: Pair[Features], **options: object) -> Clustering:
    options = {"tracklets": True, "k1": 6, "k2": 2, "min_samples": 1, **options}
    return Dbscan(**options)(features, epoch=0, seed=0, previous=None)  # type: ignore[arg-type]


def test_a_tracklet_is_the_unit_mean_of_its_images() -> None:
    features = with_tracklets(
        Features(F.normalize(torch.tensor([[1.0, 0], [0, 1], [3, 4], [4, 3]])), camera=torch.tensor([5, 6, 7, 5])),
        torch.tensor([8, -1, -1, 8]),
    )
    joined, member = pooled(features)
    assert member.tolist() == [0, 1, 2, 0]
    torch.testing.assert_close(joined.x, F.normalize(torch.tensor([[1.8, 0.6], [0, 1], [0.6, 0.8]])))
    assert joined.index.tolist() == [0, 1, 2]
    assert joined.camera.tolist() == [5, 6, 7]
    assert pooled(features)[0] is joined  # so that its affinity is remembered, too
    empty, nobody = pooled(Features(torch.zeros(0, 2)))
    assert len(empty) == len(nobody) == 0


def test_its_images_share_a_label_which_is_that_of_their_mean() -> None:
    features = tracked()
    clustering = clustered(features)
    for modality in Modality:
        f, clusters = features[modality], clustering.own[modality]
        joined, member = pooled(f)
        expected = Dbscan(k1=6, k2=2, min_samples=1).cluster(Features(joined.x)).labels
        assert torch.equal(clusters.labels, expected[member])
        for number in f.tracklet[f.tracklet >= 0].unique():
            assert len(clusters.labels[f.tracklet == number].unique()) == 1
        members = clusters.labels == 0
        torch.testing.assert_close(clusters.centroids[0], f.x[members].mean(0))


def test_a_tracklet_counts_once_among_the_neighbours() -> None:
    x = F.normalize(torch.tensor([[1.0, 0.01 * n] for n in range(4)] + [[0.01 * n, 1.0] for n in range(4)]), dim=1)
    one = with_tracklets(Features(x), torch.tensor([0, 0, 0, 0, 1, 2, 3, 4]))
    for tracklets, labels in ((False, [0, 0, 0, 0, 1, 1, 1, 1]), (True, [-1, -1, -1, -1, 0, 0, 0, 0])):
        found = clustered(Pair(one, one), tracklets=tracklets, k1=4, k2=1, min_samples=3)
        assert found.own.visible.labels.tolist() == labels


def test_inputs_stay_and_answers_repeat() -> None:
    features = tracked()
    same("tracklets", unchanged("tracklets", features, lambda: clustered(features)), clustered(tracked()))


def test_permuting_samples_permutes_the_partition() -> None:
    features = tracked()
    order = features.map(lambda f: torch.randperm(len(f), generator=torch.Generator().manual_seed(0)))
    straight = clustered(features)
    moved = clustered(Pair.build(lambda m: features[m].take(order[m])))
    for modality in Modality:
        before, after = straight.own[modality].labels[order[modality]], moved.own[modality].labels
        together = (before[:, None] == before) == (after[:, None] == after)
        assert float(together.double().mean()) > 0.99


def test_without_any_tracklet_it_says_what_to_give(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no image has a tracklet; give the manifest a column 'tracklet'"):
        clustered(toy_features())


def test_wrong_columns_are_refused() -> None:
    x = torch.eye(3)
    with pytest.raises(ValueError, match=r"tracklet must be \(3,\) int64, got \(3,\) torch.float32"):
        Features(x, extra={"tracklet": torch.zeros(3)})
    pictures = ArrayImages([torch.zeros(4, 2, 3, dtype=torch.uint8).numpy()] * 2)
    with pytest.raises(ValueError, match=r"tracklet must be \(2,\) int64"):
        Records(Modality.VISIBLE, torch.zeros(2).long(), ("a", "b"), pictures, torch.zeros(3).long())


def test_a_feature_file_with_a_broken_column_is_named(tmp_path: Path) -> None:
    import numpy as np

    rows = np.eye(3, dtype=np.float32)
    np.savez(tmp_path / "f.npz", visible=rows, infrared=rows, tracklet_infrared=np.zeros(3))
    with pytest.raises(DataError, match=r"'tracklet_infrared' must be \(3,\) int64"):
        read_features(tmp_path / "f.npz")


class Flat(nn.Module):
    """The first pixels as features."""

    width = 4

    def forward(self, images: dict[str, Tensor]) -> dict[str, NetworkOutput]:
        return {s: NetworkOutput(x.flatten(1)[:, :4], x.flatten(1)[:, :4]) for s, x in images.items()}


def test_the_engine_hands_on_the_tracklets_of_readable_images() -> None:
    generator = torch.Generator().manual_seed(0)
    pictures = [torch.randint(255, (4, 2, 3), generator=generator, dtype=torch.uint8).numpy() for _ in range(3)]

    def store(modality: Modality) -> ImageStore:
        records = Records(modality, torch.zeros(3).long(), ("a", "b", "c"), ArrayImages(pictures))
        if modality is Modality.VISIBLE:
            records = replace(records, tracklet=torch.tensor([7, -1, 7]))
        return ImageStore(records, size=(4, 2))

    found = extract(Flat(), Pair.build(store), open_device("cpu"), batch=2)
    assert found.visible.tracklet.tolist() == [7, -1, 7]
    assert "tracklet" not in found.infrared.extra
    assert found.infrared.tracklet.tolist() == [-1, -1, -1]
    assert found.visible.take(torch.tensor([1, 2])).tracklet.tolist() == [-1, 7]
