"""Associator `from_file`: contract on files that fit, round trip with `reidassoc associate`, and what it refuses."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from reidassoc import Features, Modality, Pair, Scene, registry
from reidassoc.engine.associate import associate
from reidassoc.errors import DataError, SpecError
from reidassoc.files.features import write_labels
from reidassoc.testing import CASES, Toy, check_associator, check_permutation, check_swap, permuted, toy_scene
from reidassoc_plugins.associators.from_file import FromFile
from reidassoc_plugins.associators.pgm import Pgm


def written(path: Path, scene: Scene, *, own: bool = True, **changes: Any) -> FromFile:
    """The labels of `pgm` in a file, some arrays exchanged or (None) left out."""
    cross = Pgm()(scene).cross
    assert cross is not None
    arrays = {f"cross_{m}": cross[m].hard.numpy() for m in Modality}
    if own:
        arrays |= {f"own_{m}": scene.clustering.own[m].labels.numpy() for m in Modality}
    np.savez(path, **{name: array for name, array in (arrays | changes).items() if array is not None})
    return FromFile(path=path)


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("own", [True, False])
def test_contract(case: str, own: bool, tmp_path: Path) -> None:
    associator = written(tmp_path / "labels.npz", CASES[case].scene(), own=own)
    check_associator(associator, {case: CASES[case]})


@pytest.mark.parametrize("case", ["ordinary", "more_infrared"])
def test_rows_are_named_by_their_image(case: str, tmp_path: Path) -> None:
    """Permuting the samples permutes the answer: the file's rows are those of the dataset, not of the scene."""
    check_permutation(written(tmp_path / "labels.npz", CASES[case].scene()), {case: CASES[case]})


def test_images_that_could_not_be_read_have_no_row(tmp_path: Path) -> None:
    scene = toy_scene()
    features = scene.features.map(lambda f: Features(f.x, f.index + (f.index >= 7)))  # image 7 is missing
    same = written(tmp_path / "labels.npz", scene)
    one, two = same(scene).cross, same(replace(scene, features=features)).cross
    assert one is not None
    assert two is not None
    assert torch.equal(one.visible.hard, two.visible.hard)
    order = Pair(*(torch.randperm(len(f)) for f in features))
    moved = same(permuted(replace(scene, features=features), order)).cross
    assert moved is not None
    assert torch.equal(moved.visible.hard, two.visible.hard[order.visible])


def test_swapping_the_modalities_of_file_and_scene_swaps_the_answer(tmp_path: Path) -> None:
    toy = Toy(clusters=Pair(6, 6))
    scene = toy.scene()
    cross = Pgm()(scene).cross
    assert cross is not None
    assert torch.equal(cross.visible.hard, cross.infrared.hard)  # so that one file serves both ways round
    check_swap(written(tmp_path / "labels.npz", scene), {"six": toy})


@pytest.mark.parametrize("own", [True, False])
def test_labels_come_back_as_they_were(own: bool, tmp_path: Path) -> None:
    scene = CASES["more_infrared"].scene()
    want, association = Pgm()(scene).cross, written(tmp_path / "labels.npz", scene, own=own)(scene)
    assert want is not None
    assert association.cross is not None
    for modality in Modality:
        assert torch.equal(association.cross[modality].prob, want[modality].prob)
        if own:
            assert association.own is not None
            assert torch.equal(association.own[modality].hard, scene.clustering.own[modality].labels)
            torch.testing.assert_close(association.prototypes[str(modality)], scene.clustering.own[modality].centroids)
    assert own or (association.own is None and not association.prototypes)


def test_own_labels_bring_their_means_along(tmp_path: Path) -> None:
    """Banks start from the file's clusters; a number that the file does not use keeps the clusterer's centroid."""
    scene = toy_scene()
    x, labels = scene.features.visible.x, scene.clustering.own.visible.labels
    exchanged = torch.where(labels == 0, 1, torch.where(labels == 1, 0, torch.where(labels == 7, -1, labels)))
    start = written(tmp_path / "labels.npz", scene, own_visible=exchanged.numpy())(scene).prototypes["visible"]
    torch.testing.assert_close(start[0], x[labels == 1].mean(dim=0))
    torch.testing.assert_close(start[1], x[labels == 0].mean(dim=0))
    torch.testing.assert_close(start[7], scene.clustering.own.visible.centroids[7])


def test_round_trip_with_associate(tmp_path: Path) -> None:
    features = Toy(samples=8, outliers=0).features
    made = associate("pgm", *features, clusterer="dbscan(k1=8)", device="cpu")
    write_labels(tmp_path / "labels.npz", made.own, made.cross)
    method = registry.build("associators", f"from_file(path={str(tmp_path / 'labels.npz')!r})")
    again = associate(method, *features, clusterer="dbscan(k1=8)", device="cpu")
    for modality in Modality:
        assert (again.cross[modality] == made.cross[modality]).all()
        assert (again.own[modality] == made.own[modality]).all()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"cross_visible": None}, "has no array 'cross_visible'"),
        ({"own_infrared": None}, "has no array 'own_infrared'"),
        ({"cross_visible": np.zeros(51, dtype=np.float32)}, "must be .N,. int64, got .51,. float32"),
        ({"cross_visible": np.zeros((51, 1), dtype=np.int64)}, r"must be .N,. int64, got .51, 1. int64"),
        ({"cross_infrared": np.zeros(50, dtype=np.int64)}, "holds 50 labels, but there are 51 infrared samples"),
        (
            {"cross_infrared": np.full(51, 8)},
            r"must lie in \[-1, 8\), for the clusterer found 8 visible clusters; got 8 to 8",
        ),
        ({"own_visible": np.full(51, -2)}, r"must lie in \[-1, 8\).*got -2 to -2"),
        ({"cross_visible": np.array(["a"] * 51)}, "must be .N,. int64"),
        ({"cross_visible": np.array([None] * 51, dtype=object)}, r"can't be read as \.npz"),
    ],
)
def test_a_file_that_does_not_fit_is_refused(changes: dict[str, Any], message: str, tmp_path: Path) -> None:
    scene = toy_scene()
    with pytest.raises(DataError, match=message):
        written(tmp_path / "labels.npz", scene, **changes)(scene)


def test_what_is_no_archive_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no label file"):
        FromFile(path=tmp_path / "none.npz")(toy_scene())
    (tmp_path / "text.npz").write_text("nothing")
    with pytest.raises(DataError, match=r"can't be read as \.npz"):
        FromFile(path=tmp_path / "text.npz")(toy_scene())
    (tmp_path / "empty.npz").write_bytes(b"")
    with pytest.raises(DataError, match=r"can't be read as \.npz"):
        FromFile(path=tmp_path / "empty.npz")(toy_scene())
    (tmp_path / "cut.npz").write_bytes(b"PK\x03\x04 cut off")
    with pytest.raises(DataError, match=r"can't be read as \.npz"):
        FromFile(path=tmp_path / "cut.npz")(toy_scene())
    np.save(tmp_path / "lone.npy", np.zeros(3))
    with pytest.raises(DataError, match="one array without a name"):
        FromFile(path=tmp_path / "lone.npy")(toy_scene())


def test_the_path_is_required() -> None:
    with pytest.raises(SpecError, match="option 'path' is required"):
        registry.build("associators", "from_file")
