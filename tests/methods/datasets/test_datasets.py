"""The loaders of datasets on disk, read from trees that ``export`` made: protocols, galleries, wrong roots, corrupt lists."""

from __future__ import annotations

import os
import random
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from scipy.io import loadmat, savemat
from support.toy_dataset import ABSENT, Toy

from reidassoc import Dataset, registry
from reidassoc.data.export import export
from reidassoc.errors import DataError
from reidassoc.registry.spec import Spec
from reidassoc.types import Modality, Pair, Records, Rule, Trial
from reidassoc_plugins.datasets import folders
from reidassoc_plugins.datasets.llcm import Llcm, camera_of
from reidassoc_plugins.datasets.manifest import Manifest
from reidassoc_plugins.datasets.regdb import Regdb
from reidassoc_plugins.datasets.sysu_mm01 import SysuMm01

LOADERS = {"sysu_mm01": SysuMm01, "regdb": Regdb, "llcm": Llcm, "manifest": Manifest}


@pytest.fixture(scope="module")
def trees(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The toy dataset in every layout; not to be changed."""
    base = tmp_path_factory.mktemp("trees")
    for layout in LOADERS:
        export(Toy(), base / layout, layout=layout)
    return {layout: base / layout for layout in LOADERS}


@pytest.fixture
def copy(trees: dict[str, Path], tmp_path: Path):  # type: ignore[no-untyped-def]
    """Return a tree that a test may spoil."""

    def make(layout: str) -> Path:
        return Path(shutil.copytree(trees[layout], tmp_path / layout))

    return make


def names(records: Records, rows: torch.Tensor) -> list[str]:
    return [records.names[row] for row in rows.tolist()]


def same_pixels(one: Records, other: Records) -> bool:
    return all(np.array_equal(one.source.load(row), other.source.load(row)) for row in range(len(one)))


def read_both(dataset: Dataset) -> tuple[Pair[Records], Pair[Records]]:
    return dataset.train(), dataset.test()


# --- SYSU-MM01 -------------------------------------------------------------------------------------------------------


def test_sysu_from_files_equals_the_dataset_in_memory(trees: dict[str, Path]) -> None:
    memory, disk = Toy(), SysuMm01(root=trees["sysu_mm01"])
    for ours, theirs in ((memory.train(), disk.train()), (memory.test(), disk.test())):
        for modality in Modality:
            assert ours[modality].names == theirs[modality].names
            assert ours[modality].camera.equal(theirs[modality].camera)
            assert same_pixels(ours[modality], theirs[modality])
            ids, known = memory.identity(ours[modality]), disk.identity(theirs[modality])
            assert ids is not None
            assert known is not None
            assert ids.equal(known)
    for one, other in zip(memory.trials(), disk.trials(), strict=True):
        assert (one.protocol, one.number, one.rule) == (other.protocol, other.number, other.rule)
        assert one.gallery.equal(other.gallery)
        assert one.query.equal(other.query)


def community_gallery(root: Path, cameras: list[str], trial: int, shots: int) -> list[str]:
    """The community's procedure (for ten images: ours), written down independently: seed, identities, cameras."""
    random.seed(trial)
    people = sorted(f"{int(text):04d}" for text in (root / "exp/test_id.txt").read_text().strip().split(","))
    chosen = []
    for person in people:
        for camera in cameras:
            folder = root / camera / person
            if folder.is_dir():
                files = sorted(f"{camera}/{person}/{path.name}" for path in folder.iterdir())
                if shots == 1:
                    chosen.append(random.choice(files))
                else:
                    chosen.extend(files if len(files) < shots else random.sample(files, shots))
    return chosen


@pytest.mark.parametrize(("search", "cameras"), [("all-search", [1, 2, 4, 5]), ("indoor-search", [1, 2])])
@pytest.mark.parametrize(("shot", "shots"), [("single-shot", 1), ("multi-shot", 10)])
def test_sysu_galleries_are_the_communitys(
    trees: dict[str, Path], search: str, cameras: list[int], shot: str, shots: int
) -> None:
    root = trees["sysu_mm01"]
    dataset = SysuMm01(root=root)
    trials = [trial for trial in dataset.trials() if trial.protocol == f"{search} {shot}"]
    assert [trial.number for trial in trials] == list(range(10))
    gallery, query = dataset.test().visible, dataset.test().infrared
    for trial in trials:
        expected = community_gallery(root, [f"cam{camera}" for camera in cameras], trial.number, shots)
        assert names(gallery, trial.gallery) == expected
        assert trial.query.tolist() == list(range(len(query)))  # all of cameras 3 and 6, in both searches
        assert trial.rule == Rule(ignored_cameras=((3, 2),), first_occurrence=True)
        assert trial.query_modality is Modality.INFRARED
    if shots == 1:
        assert len(trials[0].gallery) == 6 * len(cameras) - 1  # ABSENT has no folder
    assert not any(name.startswith(f"cam{ABSENT[1]}/{ABSENT[0]:04d}") for name in gallery.names)
    assert len({tuple(trial.gallery.tolist()) for trial in trials}) > 1


def test_sysu_trains_on_train_and_val(trees: dict[str, Path]) -> None:
    dataset = SysuMm01(root=trees["sysu_mm01"])
    identity = dataset.identity(dataset.train().visible)
    assert identity is not None
    assert sorted(set(identity.tolist())) == [1, 2, 3, 4, 5, 6]
    assert "6" in (trees["sysu_mm01"] / "exp/val_id.txt").read_text()


def test_sysu_official_galleries_follow_the_permutations(trees: dict[str, Path]) -> None:
    root = trees["sysu_mm01"]
    dataset = SysuMm01(root=root, galleries="official")
    table = loadmat(root / "exp/rand_perm_cam.mat")["rand_perm_cam"]
    gallery = dataset.test().visible
    trials = {(trial.protocol, trial.number): trial for trial in dataset.trials()}
    assert all(protocol.endswith(" (official galleries)") for protocol, _ in trials)
    for shot, shots in (("single-shot", 1), ("multi-shot", 10)):
        for number in (0, 9):
            expected = []
            for person in range(7, 13):
                for camera in (1, 2):
                    if (person, camera) == ABSENT:
                        continue
                    files = sorted(path.name for path in (root / f"cam{camera}/{person:04d}").iterdir())
                    order = table[camera - 1, 0][person - 1, 0][number][:shots]
                    expected += [f"cam{camera}/{person:04d}/{files[place - 1]}" for place in order]
            trial = trials[f"indoor-search {shot} (official galleries)", number]
            assert names(gallery, trial.gallery) == expected


def test_sysu_official_galleries_must_fit_the_folders(copy) -> None:  # type: ignore[no-untyped-def]
    root = copy("sysu_mm01")
    dataset = SysuMm01(root=root, galleries="official")
    next((root / "cam1/0007").iterdir()).unlink()
    with pytest.raises(
        DataError, match=r"camera 1, identity 7: expected permutations of 1 … \d+.*use galleries='community'"
    ):
        dataset.trials()
    mat = root / "exp/rand_perm_cam.mat"
    savemat(mat, {"rand_perm_cam": np.empty((0, 0), dtype=object)})
    with pytest.raises(DataError, match="camera 1, identity 7: no entry"):
        dataset.trials()
    cells = np.empty((1, 1), dtype=object)
    cells[0, 0] = "text"
    savemat(mat, {"rand_perm_cam": cells})
    with pytest.raises(DataError, match="must hold one cell per camera"):
        dataset.trials()
    savemat(mat, {"other": np.zeros(1)})
    with pytest.raises(DataError, match="with the variable 'rand_perm_cam'"):
        dataset.trials()
    mat.write_bytes(b"rubbish")
    with pytest.raises(DataError, match="can't be read as a MATLAB file"):
        dataset.trials()
    mat.unlink()
    with pytest.raises(
        DataError, match=r"rand_perm_cam\.mat: no such file; galleries='official' needs it.*evaluation/data_split"
    ):
        dataset.trials()


def test_sysu_finds_folders_spelt_in_another_way(trees: dict[str, Path], copy) -> None:  # type: ignore[no-untyped-def]
    root = copy("sysu_mm01")
    (root / "cam1").rename(root / "Cam_1")
    (root / "exp").rename(root / "EXP")
    (root / "EXP" / "train_id.txt").rename(root / "EXP" / "Train-ID.txt")
    (root / "Cam_1" / "0001" / ".hidden.jpg").write_text("")
    (root / "Cam_1" / "0001" / "Thumbs.db").write_text("")
    (root / "Cam_1" / "notes").mkdir()
    original, renamed = SysuMm01(root=trees["sysu_mm01"]), SysuMm01(root=root)
    assert len(original.train().visible) == len(renamed.train().visible)
    assert original.trials()[0].gallery.equal(renamed.trials()[0].gallery)
    assert renamed.train().visible.names[0] == "Cam_1/0001/0001.png"


def test_sysu_training_arrays_stand_in_for_absent_folders(copy) -> None:  # type: ignore[no-untyped-def]
    root = copy("sysu_mm01")
    for camera in range(1, 7):
        for person in range(1, 7):
            shutil.rmtree(root / f"cam{camera}/{person:04d}", ignore_errors=True)
    dataset = SysuMm01(root=root)
    with pytest.raises(
        DataError, match=r"no visible training images: looked for cam1.*train_rgb_resized_img\.npy.*22258"
    ):
        dataset.train()
    assert dataset.notes()[0].startswith("train: ")
    pictures = np.random.default_rng(0).integers(0, 256, (7, 12, 6, 3), dtype=np.uint8)
    for short, count in (("rgb", 7), ("ir", 5)):
        np.save(root / f"train_{short}_resized_img.npy", pictures[:count])
        np.save(root / f"train_{short}_resized_label.npy", np.arange(count) // 2)
    dataset = SysuMm01(root=root)
    train = dataset.train()
    identity = dataset.identity(train.infrared)
    assert identity is not None
    assert identity.tolist() == [0, 0, 1, 1, 2]
    assert train.visible.camera.tolist() == [-1] * 7
    assert np.array_equal(train.visible.source.load(6), pictures[6])
    assert len(dataset.trials()) == 40  # the test folders are there
    fingerprint = dataset.fingerprint()
    np.save(root / "train_rgb_resized_img.npy", 255 - pictures)
    assert SysuMm01(root=root).fingerprint() != fingerprint
    np.save(root / "train_ir_resized_label.npy", np.arange(4))
    with pytest.raises(DataError, match=r"train_ir_resized_label\.npy: expected 5 whole numbers.*found \(4,\) int64"):
        SysuMm01(root=root).train()
    (root / "train_ir_resized_label.npy").write_bytes(b"rubbish")
    with pytest.raises(DataError, match=r"train_ir_resized_label\.npy: can't be read as an array"):
        SysuMm01(root=root).train()


def test_sysu_wrong_roots_say_what_was_looked_for_and_found(tmp_path: Path, trees: dict[str, Path]) -> None:
    with pytest.raises(DataError, match=r"nowhere does not exist; expected the root of SYSU-MM01, with exp \(395"):
        SysuMm01(root=tmp_path / "nowhere").train()
    (tmp_path / "file").write_text("")
    with pytest.raises(DataError, match="is a file, not a folder"):
        SysuMm01(root=tmp_path / "file").train()
    with pytest.raises(DataError, match=r"no exp in it, found file; expected 395 identities, 22258 visible and 11909"):
        SysuMm01(root=tmp_path).train()
    with pytest.raises(DataError, match=rf"did you mean {trees['sysu_mm01']}\?"):
        SysuMm01(root=trees["sysu_mm01"].parent).train()
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match="found an empty folder"):
        SysuMm01(root=tmp_path / "empty").fingerprint()


def test_sysu_corrupt_lists(copy) -> None:  # type: ignore[no-untyped-def]
    root = copy("sysu_mm01")
    (root / "exp/val_id.txt").unlink()
    with pytest.raises(DataError, match=r"val_id\.txt: no such file; found rand_perm_cam\.mat"):
        SysuMm01(root=root).train()
    (root / "exp/val_id.txt").write_text("5,six\n")
    with pytest.raises(DataError, match=r"val_id\.txt: expected comma-separated identity numbers .*, found 'six'"):
        SysuMm01(root=root).train()
    (root / "exp/val_id.txt").write_text("")
    with pytest.raises(DataError, match=r"expected comma-separated identity numbers .*, found ''"):
        SysuMm01(root=root).train()
    (root / "exp/val_id.txt").write_text("5," + "6" * 5000)
    with pytest.raises(DataError, match=r"identity numbers of at most 9 digits, found '6{40}'"):
        SysuMm01(root=root).train()
    (root / "exp/val_id.txt").write_bytes(b"\xff\xfe\xff\xff")
    with pytest.raises(DataError, match=r"val_id\.txt: can't be read as text"):
        SysuMm01(root=root).train()
    assert len(SysuMm01(root=root).trials()) == 40  # evaluation does not need it


def test_sysu_lists_in_matlab_alone_are_named(copy) -> None:  # type: ignore[no-untyped-def]
    root = copy("sysu_mm01")
    for use in ("train", "val", "test"):
        (root / f"exp/{use}_id.txt").rename(root / f"exp/{use}_id.mat")
    assert SysuMm01.recognises(root)
    with pytest.raises(
        DataError, match=r"exp/test_id\.txt: no such file, only test_id\.mat; write its numbers into it"
    ):
        SysuMm01(root=root).test()


def test_sysu_missing_cameras(copy) -> None:  # type: ignore[no-untyped-def]
    root = copy("sysu_mm01")
    shutil.rmtree(root / "cam5")
    dataset = SysuMm01(root=root)
    assert any(note.startswith("no folder for cam5; found cam1/") for note in dataset.notes())
    assert all(len(trial.gallery) for trial in dataset.trials())
    for camera in (1, 2):
        shutil.rmtree(root / f"cam{camera}")
    with pytest.raises(DataError, match=r"indoor-search needs test images of .*cam1, cam2"):
        SysuMm01(root=root).trials()


def test_counts_that_differ_are_notes(trees: dict[str, Path]) -> None:
    dataset = SysuMm01(root=trees["sysu_mm01"])
    count = len(dataset.train().visible)
    assert f"train: {count} visible images, {22258 - count} fewer than the published 22258" in dataset.notes()
    assert "test: 6 identities, 90 fewer than the published 96" in dataset.notes()
    assert Toy().notes() == ()


def test_identity_and_fingerprint(trees: dict[str, Path], copy) -> None:  # type: ignore[no-untyped-def]
    dataset = SysuMm01(root=trees["sysu_mm01"])
    others = Regdb(root=trees["regdb"]).train().visible
    with pytest.raises(DataError, match=r"Visible/1/v_00001\.png is not a visible image of this dataset"):
        dataset.identity(others)
    root = copy("sysu_mm01")
    assert SysuMm01(root=root).fingerprint() == dataset.fingerprint()  # a copy elsewhere is the same data
    assert len(dataset.fingerprint()) == 16
    next((root / "cam6/0001").iterdir()).unlink()
    assert SysuMm01(root=root).fingerprint() != dataset.fingerprint()
    assert Toy().fingerprint() != Toy(seed=1).fingerprint()
    assert Toy(blind=True).identity(Toy(blind=True).train().visible) is None


# --- RegDB -----------------------------------------------------------------------------------------------------------


def test_regdb_reads_every_split(trees: dict[str, Path]) -> None:
    everyone = set()
    for split in range(1, 11):
        dataset = Regdb(root=trees["regdb"], split=split)
        train, test = dataset.train(), dataset.test()
        people = [{name.split("/")[1] for name in records.names} for records in (train.visible, test.visible)]
        assert (len(people[0]), len(people[1])) == (6, 6)
        assert not people[0] & people[1]
        everyone.add(frozenset(people[0]))
        for records in (*train, *test):
            identity = dataset.identity(records)
            assert identity is not None
            by_folder: dict[str, int] = {}
            for name, label in zip(records.names, identity.tolist(), strict=True):
                assert by_folder.setdefault(name.split("/")[1], label) == label
            assert sorted(by_folder.values()) == list(range(6))
    assert len(everyone) > 1
    own = {name.split("/")[1] for name in Regdb(root=trees["regdb"]).train().visible.names}
    assert own == {str(person) for person in range(1, 7)}  # split 1 is the toy's own division


def test_regdb_searches_both_directions_in_the_whole_gallery(trees: dict[str, Path]) -> None:
    dataset = Regdb(root=trees["regdb"])
    visible, infrared = dataset.trials()
    test = dataset.test()
    assert (visible.protocol, infrared.protocol) == ("visible-to-infrared", "infrared-to-visible")
    assert visible.query_modality is Modality.VISIBLE
    assert (len(visible.query), len(visible.gallery)) == (len(test.visible), len(test.infrared))
    assert (len(infrared.query), len(infrared.gallery)) == (len(test.infrared), len(test.visible))
    assert visible.rule == Rule()


def test_regdb_splits_have_their_own_fingerprints_and_notes(copy) -> None:  # type: ignore[no-untyped-def]
    root = copy("regdb")
    assert Regdb(root=root).fingerprint() != Regdb(root=root, split=2).fingerprint()
    (root / "idx/train_visible_9.txt").unlink()
    notes = Regdb(root=root).notes()
    assert "no lists for split 9; the published figures are means over all ten" in notes
    assert "train: 6 identities, 200 fewer than the published 206" in notes


def test_regdb_folder_names_in_the_lists_may_differ_in_case(copy) -> None:  # type: ignore[no-untyped-def]
    root = copy("regdb")
    (root / "Thermal").rename(root / "thermal")
    records = Regdb(root=root).train().infrared
    assert records.names[0].startswith("thermal/")
    assert records.source.load(0).shape == (12, 6, 3)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("Visible/1/v_00001.png", "line 1: expected 'relative/path label', .*, found 'Visible/1/v_00001.png'"),
        ("Visible/1/v_00001.png zero", "line 1: expected 'relative/path label'"),
        (
            "Visible/1/v_00001.png --5",
            "the label a whole number of at most 9 digits, found 'Visible/1/v_00001.png --5'",
        ),
        ("Visible/1/v_00001.png " + "5" * 5000, "the label a whole number of at most 9 digits"),
        ("../secret.png 0", r"line 1: the path '\.\./secret\.png' must be relative and stay inside"),
        ("/etc/passwd 0", "must be relative"),
        ("C:\\x.png 0", "must be relative"),
        ("Visible/1/a.png 0\nVisible/1/a.png 1", r"line 2: Visible/1/a\.png is listed twice"),
        ("Visible/7/v_00001.png 0", "is both in the training and in the test list of split 1"),
        ("", r"train_visible_1\.txt: no images are listed"),
    ],
)
def test_regdb_corrupt_lists(copy, line: str, message: str) -> None:  # type: ignore[no-untyped-def]
    root = copy("regdb")
    (root / "idx/train_visible_1.txt").write_text(line)
    with pytest.raises(DataError, match=message):
        Regdb(root=root).train()


def test_regdb_wrong_root(trees: dict[str, Path]) -> None:
    with pytest.raises(
        DataError, match=r"is not RegDB: no idx, Visible, Thermal in it, found cam1/.*206 identities, 2060"
    ):
        Regdb(root=trees["sysu_mm01"]).test()


# --- LLCM ------------------------------------------------------------------------------------------------------------


def test_llcm_galleries_are_one_random_image_per_person_and_camera(trees: dict[str, Path]) -> None:
    root = trees["llcm"]
    dataset = Llcm(root=root)
    test, trials = dataset.test(), dataset.trials()
    assert [trial.protocol for trial in trials] == ["visible-to-infrared"] * 10 + ["infrared-to-visible"] * 10
    people = sorted(f"{int(text):04d}" for text in (root / "idx/test_id.txt").read_text().strip().split(","))
    for trial, short, numbers in ((trials[3], "nir", (1, 2, 4, 5, 6, 7, 8, 9)), (trials[14], "vis", range(1, 10))):
        random.seed(trial.number)
        expected = []
        for person in people:
            for number in numbers:
                folder = root / f"test_{short}" / f"cam{number}" / person
                if folder.is_dir():
                    files = sorted(path.name for path in folder.iterdir())
                    expected.append(f"test_{short}/cam{number}/{person}/{random.choice(files)}")
        assert names(test[trial.query_modality.other], trial.gallery) == expected
        assert len(trial.query) == len(test[trial.query_modality])
        assert trial.rule == Rule(ignore_same_identity_camera=True, first_occurrence=True)


def test_llcm_training_cameras_are_read_from_the_names(trees: dict[str, Path]) -> None:
    train = Llcm(root=trees["llcm"]).train()
    assert set(train.visible.camera.tolist()) == {1, 2, 4, 5}
    assert set(train.infrared.camera.tolist()) == {1, 2}  # the toy's 3 and 6: LLCM has no infrared camera 3
    assert camera_of("vis/0001/0001_c03_s1.jpg") == 3
    assert camera_of("test_nir/cam9/0001/1.jpg") == 9
    assert camera_of("vis/0001/1.jpg") == -1
    assert camera_of(f"cam{'9' * 20}/1.jpg") == -1
    identity = Llcm(root=trees["llcm"]).identity(train.visible)
    assert identity is not None
    assert sorted(set(identity.tolist())) == list(range(6))


def test_llcm_missing_parts(copy, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    root = copy("llcm")
    assert "no test images of cam3, cam6, cam7, cam8, cam9 in test_vis" in Llcm(root=root).notes()
    shutil.rmtree(root / "test_nir")
    dataset = Llcm(root=root)
    with pytest.raises(
        DataError, match=r"no infrared test images: looked for test_nir/cam1/0001/, found idx/.*351 identities"
    ):
        dataset.test()
    assert len(dataset.train().visible)
    (root / "idx/train_nir.txt").unlink()
    with pytest.raises(DataError, match=r"train_nir\.txt: no such file"):
        Llcm(root=root).train()
    with pytest.raises(DataError, match="is not LLCM: no idx in it"):
        Llcm(root=root / "vis").test()


def test_llcm_notes_survive_a_missing_test_set(copy) -> None:  # type: ignore[no-untyped-def]
    root = copy("llcm")
    shutil.rmtree(root / "test_nir")
    assert any(note.startswith("test: ") and "no infrared test images" in note for note in Llcm(root=root).notes())


def test_llcm_folder_names_in_the_lists_may_differ_in_case(copy) -> None:  # type: ignore[no-untyped-def]
    root = copy("llcm")
    (root / "nir").rename(root / "NIR")
    records = Llcm(root=root).train().infrared
    assert records.names[0].startswith("NIR/")
    assert records.source.load(0).shape == (12, 6, 3)


# --- manifest --------------------------------------------------------------------------------------------------------


def write_manifest(root: Path, text: str) -> Manifest:
    (root / "manifest.csv").write_text(text, encoding="utf-8")
    return Manifest(root=root)


HEADER = "path,modality,identity,camera,split\n"


def test_manifest_reads_both_directions(trees: dict[str, Path]) -> None:
    dataset = Manifest(root=trees["manifest"])
    memory, test = Toy(), dataset.test()
    assert len(dataset.train().infrared) == len(memory.train().infrared)
    assert same_pixels(test.visible, memory.test().visible)
    assert [trial.protocol for trial in dataset.trials()] == ["visible-to-infrared", "infrared-to-visible"]
    assert dataset.trials()[0].gallery.tolist() == list(range(len(test.infrared)))  # listed twice, held once
    assert Manifest(root=trees["manifest"] / "manifest.csv").fingerprint() == dataset.fingerprint()
    strict = Manifest(root=trees["manifest"], first_occurrence=True, ignore_same_identity_camera=True)
    assert strict.trials()[0].rule == Rule(first_occurrence=True, ignore_same_identity_camera=True)


def test_manifest_splits_and_unknown_values(tmp_path: Path) -> None:
    dataset = write_manifest(
        tmp_path,
        "\ufeffsplit, path ,modality,identity,camera,remark\n"
        "train,a.png,visible,,,x\ntrain,b.png,infrared,4,2,\n"
        "query,c.png,infrared,7,3,\ngallery,d.png,visible,7,1,\ngallery,e.png,visible,8,,\n",
    )
    train = dataset.train()
    assert dataset.identity(train.visible) is None
    known = dataset.identity(train.infrared)
    assert known is not None
    assert known.tolist() == [4]
    assert train.visible.camera.tolist() == [-1]
    (trial,) = dataset.trials()
    assert (trial.protocol, trial.query.tolist(), trial.gallery.tolist()) == ("infrared-to-visible", [0], [0, 1])


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("a.png,thermal,1,1,train", "line 2: modality must be visible or infrared, got 'thermal'"),
        ("a.png,visble,1,1,train", "got 'visble'; did you mean 'visible'?"),
        ("a.png,visible,1,1,test", "line 2: split must be train or query or gallery, got 'test'"),
        (
            "a.png,visible,one,1,train",
            "line 2: identity must be a whole number from 0, of at most 9 digits, or empty, got 'one'",
        ),
        ("a.png,visible,1234567890,1,train", "of at most 9 digits, or empty, got '1234567890'"),
        ("a.png,visible,.0,1,train", "line 2: identity must be a whole number"),
        ("a.png,visible,1.5,1,train", "line 2: identity must be a whole number"),
        ("a.png,visible,1,-3,train", "line 2: camera must be a whole number"),
        ("a.png,visible,,1,query", "line 2: a query image needs its identity"),
        ("../a.png,visible,1,1,train", "line 2: the path '../a.png' must be relative and stay inside"),
        (",visible,1,1,train", "line 2: the path '' must be relative"),
        ("a.png,visible,1,1,train\na.png,visible,1,1,train", "a.png is listed twice as train"),
        ("a.png,visible,1,1,train\na.png,visible,1,1,query", "a.png is listed as train and as query; keep one"),
        ("a.png,visible,1,1,gallery\na.png,visible,2,1,query", "a.png is described in two ways"),
        ("a.png,visible,1,1,train", "no infrared image is listed as train"),
    ],
)
def test_manifest_wrong_lines(tmp_path: Path, line: str, message: str) -> None:
    with pytest.raises(DataError) as error:
        write_manifest(tmp_path, HEADER + line + "\n").train()
    assert message in str(error.value)


def test_manifest_tracklets(tmp_path: Path) -> None:
    header = HEADER.strip() + ",tracklet\n"
    lines = "a.png,visible,,1,train,4\nb.png,visible,,1,train,\nc.png,infrared,,3,train,4\nd.png,visible,,1,train,4\n"
    dataset = write_manifest(tmp_path, header + lines)
    assert dataset.train().visible.tracklet.tolist() == [4, -1, 4]
    assert dataset.train().infrared.tracklet.tolist() == [4]  # another camera: the modalities' numbers are apart
    other = write_manifest(tmp_path, header + lines.replace("d.png,visible,,1,train,4", "d.png,visible,,1,train,5"))
    assert other.fingerprint() != dataset.fingerprint()
    with pytest.raises(DataError, match=r"visible tracklet 4 has images of two cameras, d\.png among them"):
        write_manifest(tmp_path, header + lines.replace("d.png,visible,,1", "d.png,visible,,2")).train()
    with pytest.raises(
        DataError, match="line 2: tracklet must be a whole number from 0, of at most 9 digits, or empty, got 'x'"
    ):
        write_manifest(tmp_path, header + "a.png,visible,,1,train,x\n").train()


def test_manifest_wrong_files(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no column camera, split; expected the header path,modality"):
        write_manifest(tmp_path, "path,modality,identity\n").train()
    with pytest.raises(DataError, match="several columns camera; keep one of each name"):
        write_manifest(tmp_path, HEADER.strip() + ",camera\na.png,visible,1,1,train,7\n").train()
    with pytest.raises(DataError, match="no column path"):
        write_manifest(tmp_path, "").train()
    with pytest.raises(DataError, match="line 2: field larger than field limit"):
        write_manifest(tmp_path, HEADER + "x" * 200_000).train()
    with pytest.raises(
        DataError, match=r"none does not exist; expected a CSV file, or a folder that contains manifest\.csv"
    ):
        Manifest(root=tmp_path / "none").train()
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match=r"contains no manifest\.csv, found an empty folder"):
        Manifest(root=tmp_path / "empty").train()


@pytest.mark.parametrize(
    "text",
    [
        HEADER + "a;b.png,visible,1,1,train\nb.png,infrared,1,2,train\n",
        HEADER.upper() + "a;b.png,visible,1,1,train\nb.png,infrared,1,2,train\n",
        HEADER.replace(",", ";") + '"a;b.png";visible;1;1;train\nb.png;infrared;1;2;train\n',
        HEADER.replace(",", "\t") + "a;b.png\tvisible\t1\t1\ttrain\nb.png\tinfrared\t1\t2\ttrain\n",
        "sep=,\r\n" + HEADER + "a;b.png,visible,1,1,train\r\nb.png,infrared,1,2,train\r\n",
        HEADER.strip() + ",,\na;b.png,visible,1,1,train,,\nb.png,infrared,1,2,train\n,,,,,,\n,,,,,,\n",
        HEADER + "a;b.png,visible,1.0,1.0,train\nb.png,infrared,1.0,2.0,train\n",
    ],
)
def test_manifests_of_spreadsheets_and_pandas_are_read(tmp_path: Path, text: str) -> None:
    train = write_manifest(tmp_path, text).train()
    assert train.visible.names == ("a;b.png",)
    assert train.infrared.camera.tolist() == [2]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ((HEADER + "ä.png,visible,1,1,train\n").encode("utf-16"), "its encoding is utf-16, .* save it as UTF-8"),
        ((HEADER + "a.png,visible,1,1,train\n").encode("utf-16-le"), "its encoding is utf-16"),
        ((HEADER + "\nä.png,visible,1,1,train\n").encode("latin-1"), "line 3 is not UTF-8, perhaps Latin-1"),
        (b"sep=;\n" + HEADER.encode() + b"a.png,visible,x,1,train\n", "line 3: identity must be"),
        (b"Path|Modality\n", r"expected the header path,.*, found 'Path\|Modality'"),
    ],
)
def test_what_is_wrong_with_a_manifest_names_line_or_cause(tmp_path: Path, content: bytes, message: str) -> None:
    (tmp_path / "manifest.csv").write_bytes(content)
    with pytest.raises(DataError, match=message):
        Manifest(root=tmp_path).train()


def test_a_manifest_may_list_images_elsewhere(trees: dict[str, Path], tmp_path: Path) -> None:
    here = Manifest(root=trees["manifest"])
    shutil.copy(trees["manifest"] / "manifest.csv", tmp_path / "mine.csv")
    for images in (str(trees["manifest"]), os.path.relpath(trees["manifest"], tmp_path)):
        there = registry.build("datasets", Spec("manifest", {"root": str(tmp_path / "mine.csv"), "images": images}))
        assert same_pixels(there.test().visible, here.test().visible)
        assert there.fingerprint() == here.fingerprint()
    assert str(Spec.parse("manifest(root='a', images='b', first_occurrence=true)").without_roots()) == (
        "manifest(first_occurrence=True)"
    )
    with pytest.raises(DataError, match=r"images=nowhere: .*/nowhere is not a folder"):
        Manifest(root=tmp_path / "mine.csv", images=Path("nowhere")).train()


def test_manifest_without_a_direction(tmp_path: Path) -> None:
    train = "a.png,visible,1,1,train\nb.png,infrared,1,3,train\n"
    assert write_manifest(tmp_path, HEADER + train).trials() == []
    with pytest.raises(DataError, match="nothing to evaluate: list query images of one modality"):
        write_manifest(tmp_path, HEADER + train + "c.png,visible,1,1,query\n").trials()


# --- all -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("layout", LOADERS)
def test_trials_name_rows_of_the_test_set(layout: str, trees: dict[str, Path]) -> None:
    dataset = LOADERS[layout](root=trees[layout])  # type: ignore[abstract]
    test = dataset.test()
    trials: list[Trial] = list(dataset.trials())
    assert trials
    used = {modality: set() for modality in Modality}  # type: ignore[var-annotated]
    for trial in trials:
        assert trial.query.dtype == trial.gallery.dtype == torch.int64
        assert len(trial.query)
        assert len(trial.gallery)
        used[trial.query_modality] |= set(trial.query.tolist())
        used[trial.query_modality.other] |= set(trial.gallery.tolist())
    for modality in Modality:
        assert used[modality] <= set(range(len(test[modality])))
        assert len(set(test[modality].names)) == len(test[modality])
        assert not set(test[modality].names) & set(dataset.train()[modality].names)


@pytest.mark.parametrize(
    ("layout", "folder", "twin"),
    [
        ("sysu_mm01", "cam1/0001", "cam1/1"),
        ("sysu_mm01", "cam1", "CAM1"),
        ("sysu_mm01", "exp", "Exp"),
        ("sysu_mm01", "exp/train_id.txt", "exp/Train-ID.txt"),
        ("regdb", "Thermal", "thermal"),
        ("regdb", "idx/train_visible_1.txt", "idx/train-visible-1.txt"),
        ("llcm", "test_vis", "test-vis"),
        ("llcm", "test_vis/cam1", "test_vis/Cam1"),
        ("llcm", "test_vis/cam1/0007", "test_vis/cam1/07"),
        ("llcm", "nir", "NIR"),
    ],
)
def test_two_names_of_one_thing_are_refused(copy, layout: str, folder: str, twin: str) -> None:  # type: ignore[no-untyped-def]
    root = copy(layout)
    (shutil.copytree if (root / folder).is_dir() else shutil.copy)(root / folder, root / twin)
    names = rf"({Path(folder).name} and {Path(twin).name}|{Path(twin).name} and {Path(folder).name}) both name"
    with pytest.raises(DataError, match=names):
        read_both(LOADERS[layout](root=root))  # type: ignore[abstract]


def test_an_empty_twin_of_a_folder_is_passed_over(copy) -> None:  # type: ignore[no-untyped-def]
    root = copy("sysu_mm01")
    (root / "cam1/1").mkdir()
    assert len(SysuMm01(root=root).train().visible) == len(Toy().train().visible)


def test_an_image_listed_in_two_spellings_is_refused(copy) -> None:  # type: ignore[no-untyped-def]
    root = copy("regdb")
    (root / "idx/train_visible_1.txt").write_text("Visible/1/v_00001.png 0\nvisible/./1/v_00001.png 0\n")
    with pytest.raises(DataError, match=r"line 2: Visible/1/v_00001\.png is listed twice"):
        Regdb(root=root).train()


def test_people_who_train_and_test_are_noted(copy, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    note = "identities both train and test"
    for layout in LOADERS:
        assert not any(note in text for text in LOADERS[layout](root=copy(layout)).notes())  # type: ignore[abstract]
    (tmp_path / "sysu_mm01/exp/val_id.txt").write_text("6,7,8\n")
    assert f"2 {note}, 7 among them: figures will be too good" in SysuMm01(root=tmp_path / "sysu_mm01").notes()
    lines = (tmp_path / "regdb/idx/test_visible_1.txt").read_text().splitlines()
    moved = lines[0]
    (tmp_path / "regdb/idx/test_visible_1.txt").write_text("\n".join(lines[1:]) + "\n")
    with (tmp_path / "regdb/idx/train_visible_1.txt").open("a") as file:
        file.write(moved + "\n")
    assert f"1 {note}, 7 among them: figures will be too good" in Regdb(root=tmp_path / "regdb").notes()
    table = "a.png,visible,0,1,train\nb.png,infrared,0,2,train\nc.png,visible,0,1,gallery\nd.png,infrared,0,2,query\n"
    assert write_manifest(tmp_path, HEADER + table).notes() == (f"1 {note}, 0 among them: figures will be too good",)


def test_a_string_is_a_root_too(trees: dict[str, Path]) -> None:
    for layout, cls in LOADERS.items():
        assert len(cls(root=str(trees[layout])).train().visible)  # type: ignore[arg-type]


def test_paths_inside_the_root() -> None:
    assert folders.inside("a\\b.png", "x") == "a/b.png"
    assert folders.inside("./a//b.png", "x") == "a/b.png"
    for wrong in ("", "..", "a/../../b", "\\\\server\\share", "a\0b"):
        with pytest.raises(DataError, match="must be relative"):
            folders.inside(wrong, "x")


def test_a_corrupt_image_is_found_when_it_is_read(copy) -> None:  # type: ignore[no-untyped-def]
    root = copy("sysu_mm01")
    (root / "cam1/0001/0001.png").write_bytes(b"\x89PNG rubbish")
    Image.new("RGB", (6, 12)).save(root / "cam1/0001/0002.png")
    records = SysuMm01(root=root).train().visible
    with pytest.raises(DataError, match=r"cam1/0001/0001\.png"):
        records.source.load(0)
    assert records.source.load(1).max() == 0
