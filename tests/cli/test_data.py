"""``reidassoc data synth`` and ``reidassoc data check``, and the report behind the second."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner
from PIL import Image
from support.toy_dataset import Odd, Toy

from reidassoc.cli.data import LAYOUTS, SIZES, data
from reidassoc.data.check import check, layout_of
from reidassoc.data.export import export
from reidassoc.errors import DataError, ReidassocError
from reidassoc_plugins.datasets.llcm import Llcm
from reidassoc_plugins.datasets.manifest import Manifest
from reidassoc_plugins.datasets.pedestrians.world import SIZES as WORLD_SIZES
from reidassoc_plugins.datasets.regdb import Regdb
from reidassoc_plugins.datasets.sysu_mm01 import SysuMm01

CLASSES = {"llcm": Llcm, "manifest": Manifest, "regdb": Regdb, "sysu_mm01": SysuMm01}


@pytest.fixture(scope="module")
def synthetic(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny tree made by the command."""
    out = tmp_path_factory.mktemp("cli") / "tree"
    result = CliRunner().invoke(data, ["synth", str(out), "--size", "tiny", "--seed", "1"], catch_exceptions=False)
    assert result.exit_code == 0
    assert result.output == f"352 images in {out}; next: reidassoc data check {out}\n"
    return out


def test_check_reports_the_layout_counts_and_fingerprint(synthetic: Path) -> None:
    result = CliRunner().invoke(data, ["check", str(synthetic)], catch_exceptions=False)
    assert result.exit_code == 0
    lines = result.output.splitlines()
    assert "layout: sysu_mm01" in lines
    assert f"fingerprint: {SysuMm01(root=synthetic).fingerprint()}" in lines
    assert "images: 352" in lines
    assert "  train visible, camera 1: 32 images of 16 identities" in lines
    assert "protocol: all-search single-shot: 10 trials, 48 queries, gallery 24" in lines
    assert "note: train: 128 visible images, 22130 fewer than the published 22258" in lines
    assert "every image can be read" in lines
    assert "352 of 352 images" in result.stderr


def test_check_names_every_bad_image_and_fails(tmp_path: Path) -> None:
    export(Toy(), tmp_path / "tree", layout="regdb")
    (tmp_path / "tree/Visible/1/v_00001.png").write_bytes(b"\x89PNG\r\n\x1a\nrubbish")
    (tmp_path / "tree/Thermal/9/t_00002.png").unlink()
    result = CliRunner().invoke(data, ["check", str(tmp_path / "tree")])
    assert isinstance(result.exception, ReidassocError)
    assert "2 of " in str(result.exception)
    bad = [line for line in result.output.splitlines() if line.startswith("bad: ")]
    assert len(bad) == 2
    assert "v_00001.png: " in bad[0]
    assert "t_00002.png: no such file" in bad[1]


@pytest.mark.parametrize("layout", LAYOUTS)
def test_every_layout_is_recognised(tmp_path: Path, layout: str) -> None:
    export(Toy(), tmp_path / "tree", layout=layout)
    assert layout_of(tmp_path / "tree", CLASSES) == layout
    report = check(CLASSES[layout](root=tmp_path / "tree"), layout=layout)  # type: ignore[abstract]
    memory = Toy()
    assert report.images == sum(len(records) for records in (*memory.train(), *memory.test()))
    assert report.bad == ()
    assert report.protocols
    assert {count.identities for count in report.cameras} <= {5, 6}  # one camera never saw one person


def test_what_is_no_dataset_is_said(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="nothing does not exist; expected the root of a dataset: llcm, manifest"):
        layout_of(tmp_path / "nothing", CLASSES)
    (tmp_path / "holiday.txt").write_text("")
    with pytest.raises(DataError, match=r"none of the known layouts .*; found holiday\.txt; expected exp/ with cam1"):
        layout_of(tmp_path, CLASSES)
    with pytest.raises(DataError, match="found a file"):
        layout_of(tmp_path / "holiday.txt", CLASSES)
    result = CliRunner().invoke(data, ["check", str(tmp_path)])
    assert isinstance(result.exception, DataError)


def test_a_split_that_can_not_be_read_is_a_note_and_two_are_an_error(tmp_path: Path) -> None:
    export(Toy(), tmp_path / "tree", layout="llcm")
    (tmp_path / "tree/idx/train_vis.txt").write_text("rubbish\n")
    report = check(Llcm(root=tmp_path / "tree"), layout="llcm")
    assert {count.split for count in report.cameras} == {"test"}
    assert any("train_vis.txt, line 1" in note for note in report.notes)
    (tmp_path / "tree/idx/test_id.txt").unlink()
    with pytest.raises(DataError, match=r"train_vis\.txt, line 1"):
        check(Llcm(root=tmp_path / "tree"), layout="llcm")
    (tmp_path / "manifest.csv").write_text("path,modality,identity,camera,split\n")
    with pytest.raises(DataError, match="no visible image is listed as train"):
        check(Manifest(root=tmp_path), layout="manifest")


@pytest.mark.parametrize(
    ("file", "use"), [("exp/val_id.txt", "training"), ("exp/test_id.txt", "evaluation")], ids=["train", "test"]
)
def test_lists_that_can_not_be_read_fail_the_check(tmp_path: Path, file: str, use: str) -> None:
    export(Toy(), tmp_path / "tree", layout="sysu_mm01")
    (tmp_path / "tree" / file).unlink()
    result = CliRunner().invoke(data, ["check", str(tmp_path / "tree")])
    assert isinstance(result.exception, ReidassocError)
    assert f"the lists for {use} can't be used, see the notes above" in str(result.exception)
    assert f"every image can be read, but not the lists for {use}: see the notes" in result.output.splitlines()
    assert sum(f"{file}: no such file" in line for line in result.output.splitlines()) == 1


def test_trials_that_can_not_be_made_fail_the_check(tmp_path: Path) -> None:
    export(Toy(), tmp_path / "tree", layout="sysu_mm01")
    (tmp_path / "tree/exp/rand_perm_cam.mat").unlink()
    plain = CliRunner().invoke(data, ["check", str(tmp_path / "tree")])
    assert plain.exit_code == 0
    official = ["check", str(tmp_path / "tree"), "--dataset", "sysu_mm01(galleries='official')"]
    result = CliRunner().invoke(data, official)
    assert "the lists for evaluation can't be used" in str(result.exception)


def test_a_root_one_level_too_high_names_the_dataset(tmp_path: Path) -> None:
    export(Toy(), tmp_path / "SYSU-MM01", layout="sysu_mm01")
    with pytest.raises(DataError, match=rf"; did you mean {tmp_path}/SYSU-MM01\?"):
        layout_of(tmp_path, CLASSES)
    export(Toy(), tmp_path / "RegDB", layout="regdb")
    with pytest.raises(DataError, match=rf"; did you mean {tmp_path}/RegDB or {tmp_path}/SYSU-MM01\?"):
        layout_of(tmp_path, CLASSES)


def test_images_that_ask_for_a_turn_are_counted(tmp_path: Path) -> None:
    export(Toy(), tmp_path / "tree", layout="manifest", jpeg=True)
    assert not any("turn" in note for note in check(Manifest(root=tmp_path / "tree"), layout="manifest").notes)
    exif = Image.Exif()
    exif[0x0112] = 6
    for path in sorted(tmp_path.glob("tree/infrared/cam3/*/0001.jpg"))[:3]:
        Image.new("RGB", (6, 12)).save(path, exif=exif)
    report = check(Manifest(root=tmp_path / "tree"), layout="manifest")
    assert any(note.startswith("EXIF data of 3 images ask for a turn, which is ignored") for note in report.notes)


def test_queries_without_a_gallery_identity_are_noted(tmp_path: Path) -> None:
    (tmp_path / "manifest.csv").write_text(
        "path,modality,identity,camera,split\na.png,visible,1,,query\nb.png,visible,2,,query\nc.png,infrared,1,,gallery\n"
    )
    notes = check(Manifest(root=tmp_path), layout="manifest").notes
    assert any(
        note.startswith("test: 1 of 2 identities of visible queries are in no gallery, 2 among") for note in notes
    )


def test_a_manifest_with_nothing_to_evaluate_is_noted(tmp_path: Path) -> None:
    (tmp_path / "manifest.csv").write_text(
        "path,modality,identity,camera,split\na.png,visible,1,,train\nb.png,infrared,1,,train\n"
    )
    report = check(Manifest(root=tmp_path), layout="manifest")
    assert "test: no trials: nothing to evaluate" in report.notes
    assert report.unusable == ()


def test_a_dataset_without_images_is_an_error() -> None:
    with pytest.raises(DataError, match="odd: no images are listed"):
        check(Odd(cameras=0), layout="odd")


def test_trials_that_can_not_be_made_are_a_note(tmp_path: Path) -> None:
    (tmp_path / "manifest.csv").write_text("path,modality,identity,camera,split\na.png,visible,1,,query\n")
    report = check(Manifest(root=tmp_path), layout="manifest")
    assert report.protocols == ()
    assert any("nothing to evaluate" in note for note in report.notes)
    assert report.lines()[3] == "  test visible, camera unknown: 1 images of 1 identities"


def test_help_does_not_import_torch() -> None:
    code = (
        "import sys, contextlib\nfrom reidassoc.cli.data import data\n"
        "with contextlib.suppress(SystemExit): data(['synth', '--help'])\n"
        "sys.exit('torch' in sys.modules or 'numpy' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, check=False).returncode == 0


def test_the_choices_are_those_of_the_library(tmp_path: Path) -> None:
    assert set(SIZES) == set(WORLD_SIZES)
    wrong = CliRunner().invoke(data, ["synth", str(tmp_path / "x"), "--layout", "market"])
    assert wrong.exit_code == 2
    assert "'market' is not one of 'sysu_mm01', 'regdb', 'llcm', 'manifest'" in wrong.output
