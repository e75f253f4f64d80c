"""Export: what it writes beyond what the loaders' tests read, and what it refuses."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from support.toy_dataset import Odd, Toy

from reidassoc.cli.data import LAYOUTS as CLI_LAYOUTS
from reidassoc.data import export as module
from reidassoc.data.check import check
from reidassoc.data.export import LAYOUTS, export
from reidassoc.errors import DataError
from reidassoc_plugins.datasets.regdb import Regdb
from reidassoc_plugins.datasets.sysu_mm01 import SysuMm01


def files(root: Path) -> list[str]:
    return sorted(path.relative_to(root).as_posix() for path in root.rglob("*") if path.is_file())


def test_cameras_and_people_are_renumbered_where_the_layout_needs_it(tmp_path: Path) -> None:
    assert export(Odd(), tmp_path / "out", layout="sysu_mm01") == 24
    found = files(tmp_path / "out")
    assert {name.split("/")[0] for name in found} == {"cam1", "cam2", "cam3", "cam6", "exp"}
    dataset = SysuMm01(root=tmp_path / "out")
    ids = [dataset.identity(records) for records in (dataset.train().visible, dataset.test().visible)]
    assert ids[0] is not None
    assert ids[1] is not None
    assert sorted(set(ids[0].tolist())) == [1, 2, 3]
    assert sorted(set(ids[1].tolist())) == [4, 5, 6]
    assert len(SysuMm01(root=tmp_path / "out", galleries="official").trials()) == 40


def test_a_tree_can_be_exported_again(tmp_path: Path) -> None:
    export(Toy(), tmp_path / "regdb", layout="regdb")
    again = Regdb(root=tmp_path / "regdb", split=3)
    export(again, tmp_path / "sysu", layout="sysu_mm01")
    read = SysuMm01(root=tmp_path / "sysu")
    assert len(read.train().infrared) == len(again.train().infrared)
    assert np.array_equal(read.test().visible.source.load(0), again.test().visible.source.load(0))


def test_an_unknown_camera_stays_unknown_in_a_manifest(tmp_path: Path) -> None:
    export(Odd(camera_unknown=True), tmp_path / "out", layout="manifest")
    with (tmp_path / "out/manifest.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert {row["camera"] for row in rows} == {""}
    assert {row["split"] for row in rows} == {"train", "query", "gallery"}
    assert rows[0]["path"] == "visible/cam/0001/0001.png"


@pytest.mark.parametrize("layout", LAYOUTS)
def test_jpeg_is_lossy_but_the_same_tree(tmp_path: Path, layout: str) -> None:
    export(Odd(), tmp_path / "png", layout=layout)
    export(Odd(), tmp_path / "jpg", layout=layout, jpeg=True)
    assert [name.replace(".jpg", ".png") for name in files(tmp_path / "jpg")] == files(tmp_path / "png")
    path = next(path for path in (tmp_path / "jpg").rglob("*.jpg"))
    with Image.open(path) as image:
        assert image.format == "JPEG"


def test_what_is_exported_is_the_same_each_time(tmp_path: Path) -> None:
    for name in ("a", "b"):
        export(Toy(), tmp_path / name, layout="regdb")
    assert files(tmp_path / "a") == files(tmp_path / "b")
    for name in files(tmp_path / "a"):
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()


def test_an_empty_folder_is_filled_and_another_refused(tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    export(Odd(), tmp_path / "out", layout="manifest")
    with pytest.raises(DataError, match="out is there already and is not an empty folder; name a new one"):
        export(Odd(), tmp_path / "out", layout="manifest")
    (tmp_path / "file").write_text("mine")
    with pytest.raises(DataError, match="file is there already"):
        export(Odd(), tmp_path / "file", layout="manifest")
    assert (tmp_path / "file").read_text() == "mine"


def test_a_failure_leaves_nothing_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(module, "write", full)
    with pytest.raises(DataError, match=r"can't write .*out: .*No space left"):
        export(Odd(), tmp_path / "out", layout="llcm")
    assert list(tmp_path.iterdir()) == []


def test_what_can_not_be_laid_out_is_refused(tmp_path: Path) -> None:
    with pytest.raises(
        DataError, match=r"no layout 'sysu'; did you mean 'sysu_mm01'\?; layouts: sysu_mm01, regdb, llcm, man"
    ):
        export(Odd(), tmp_path / "out", layout="sysu")
    with pytest.raises(DataError, match="5 visible cameras, but the layout has 4; use layout manifest"):
        export(Odd(cameras=5), tmp_path / "out", layout="sysu_mm01")
    with pytest.raises(DataError, match="the visible train images have no known identities"):
        export(Toy(blind=True), tmp_path / "out", layout="regdb")
    with pytest.raises(DataError, match="images have no known identities"):
        export(Odd(person_unknown=True), tmp_path / "out", layout="regdb")
    for layout in ("sysu_mm01", "llcm"):
        with pytest.raises(DataError, match="unknown camera, which this layout can't say; use layout manifest"):
            export(Odd(camera_unknown=True), tmp_path / "out", layout=layout)


def test_unknown_people_are_not_counted_by_the_check() -> None:
    report = check(Odd(person_unknown=True), layout="odd")
    assert {(count.images, count.identities) for count in report.cameras} == {(3, 2)}


def test_the_command_line_offers_every_layout() -> None:
    assert tuple(LAYOUTS) == CLI_LAYOUTS
