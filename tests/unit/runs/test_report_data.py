"""What a run keeps for its report: thumbnails, the first gallery images of each query, some features."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from support.small import SMALL

import reidassoc as ra
from reidassoc.cli import cli
from reidassoc.data.tiles import pack, tile_size, unpack
from reidassoc.engine.report_data import exhibits_of, of_each_person
from reidassoc.errors import DataError
from reidassoc.evaluation.nearest_images import NEAREST, QUERIES, leaders
from reidassoc.evaluation.queries import load_scores
from reidassoc.recipe.model import Recipe
from reidassoc.recipe.override import override
from reidassoc.runs.folder import RunFolder
from reidassoc.runs.report_data import EXHIBITS, Exhibits
from reidassoc.types import Modality, Pair, Rule, Trial

PROTOCOL = "all-search single-shot"


def test_the_nearest_images_leave_out_what_the_protocol_ignores() -> None:
    x = Pair(torch.eye(4), torch.eye(4)[:2])
    identity = Pair(torch.tensor([0, 1, 0, 1]), torch.tensor([0, 1]))
    camera = Pair(torch.tensor([2, 1, 1, 2]), torch.tensor([3, 6]))
    trial = Trial(
        protocol="all", number=0, query_modality=Modality.INFRARED, query=torch.tensor([0, 1]),
        gallery=torch.tensor([3, 1, 0]), rule=Rule(ignored_cameras=((3, 2),)),
    )  # fmt: skip
    found = leaders(x, identity=identity, camera=camera, trials=[trial])["all"]
    assert found.side is Modality.INFRARED
    assert found.nearest.shape == (1, 2, NEAREST)
    assert found.nearest[0, 0].tolist() == [1] + [-1] * (NEAREST - 1)  # rows 0 and 3 are of camera 2
    assert found.nearest[0, 1].tolist() == [1, 3, 0] + [-1] * (NEAREST - 3)  # nearest first, then in gallery order


def test_the_same_identity_and_camera_is_left_out_where_the_rule_says_so() -> None:
    same = torch.tensor([7, 8])
    trial = Trial(
        protocol="all", number=0, query_modality=Modality.VISIBLE, query=torch.tensor([0]), gallery=torch.tensor([0, 1]),
        rule=Rule(ignore_same_identity_camera=True),
    )  # fmt: skip
    columns = {"identity": Pair(same, same), "camera": Pair(torch.ones(2).long(), torch.ones(2).long())}
    found = leaders(Pair(torch.eye(2), torch.eye(2)), trials=[trial], **columns)["all"]
    assert found.nearest[0, 0, :2].tolist() == [1, -1]


def test_gallery_images_of_unknown_people_are_not_shown() -> None:
    ids = torch.arange(2)
    trial = Trial(
        protocol="all", number=0, query_modality=Modality.VISIBLE, query=ids, gallery=ids, rule=Rule()
    )  # fmt: skip
    columns = {"identity": Pair(ids, torch.tensor([-1, 1])), "camera": Pair(ids, ids)}
    found = leaders(Pair(torch.eye(2), torch.eye(2)), trials=[trial], **columns)["all"]
    assert found.nearest[0, :, :2].tolist() == [[1, -1], [1, -1]]


def test_many_queries_are_thinned_evenly_and_the_same_for_every_network() -> None:
    count = 3 * QUERIES
    ids = torch.arange(count)
    columns = {"identity": Pair(ids, ids[:2]), "camera": Pair(ids, ids[:2])}
    trial = Trial(
        protocol="all", number=0, query_modality=Modality.VISIBLE, query=ids, gallery=ids[:2], rule=Rule()
    )  # fmt: skip
    first, second = (
        leaders(Pair(torch.randn(count, 3), torch.randn(2, 3)), trials=[trial], **columns)["all"] for _ in range(2)
    )
    assert np.array_equal(first.query, second.query)
    assert len(first.query) == QUERIES
    assert first.query[[0, -1]].tolist() == [0, count - 1]


def test_tiles_come_back_as_they_went_in() -> None:
    smooth = torch.linspace(0, 255, 64).to(torch.uint8)[:, None].expand(3, 64, 32)
    images = torch.stack([smooth, smooth.flip(1), torch.full((3, 64, 32), 90, dtype=torch.uint8)])
    back = unpack(pack(images, tile=(64, 32), quality=90), tile=(64, 32), count=3)
    assert (back.int() - images.int()).abs().max() < 12
    larger = pack(torch.full((40, 3, 288, 144), 30, dtype=torch.uint8), tile=tile_size((288, 144)), quality=90)
    assert unpack(larger, tile=(96, 48), count=40).float().mean() == pytest.approx(30, abs=2)
    assert len(unpack(pack(images[:0], tile=(64, 32), quality=90), tile=(64, 32), count=0)) == 0


def test_a_run_keeps_exhibits_that_agree_with_its_scores(finished: Path) -> None:
    assert (finished / EXHIBITS).stat().st_size < 1 << 20
    kept = Exhibits.load(finished / EXHIBITS)
    scores = load_scores(finished / "queries.npz")
    assert set(kept.leaders) == set(scores)
    assert kept.test is not None
    for protocol, held in kept.leaders.items():
        side, theirs = kept.test[held.side], kept.test[held.side.other]
        hit = theirs.identity[held.nearest[:, :, 0]] == side.identity[held.query]
        place = np.searchsorted(scores[protocol].query, held.query)
        assert np.array_equal(hit, scores[protocol].first[: len(hit), place] == 1)
        assert np.isin(held.nearest[held.nearest >= 0], theirs.shown).all()
        assert np.isin(held.query, side.shown).all()
    assert kept.mapped is not None
    assert kept.features is not None
    assert kept.features.visible.shape == (len(kept.mapped.visible), 512)


def test_a_run_that_kept_none_is_evaluated_again(finished: Path, tmp_path: Path) -> None:
    kept = Exhibits.load(finished / EXHIBITS)
    shutil.copytree(finished, tmp_path / "old")
    (tmp_path / "old" / EXHIBITS).unlink()
    again = exhibits_of(RunFolder(tmp_path / "old"), device="cpu")
    for modality in Modality:
        assert np.array_equal(again.train[modality].shown, kept.train[modality].shown)
        assert np.array_equal(again.train[modality].tiles, kept.train[modality].tiles)
    for protocol, held in kept.leaders.items():
        assert np.array_equal(again.leaders[protocol].nearest, held.nearest)


def test_a_run_without_pictures_keeps_all_but_thumbnails(small: Recipe, tmp_path: Path) -> None:
    few = override(small, [("intra.epochs", 1), ("cross.epochs", 1), ("evaluate_every", 0)])
    folder = ra.run(few, out=tmp_path / "run", device="cpu", pictures=False).folder
    kept = Exhibits.load(folder / EXHIBITS)
    assert not kept.pictured
    assert kept.leaders
    assert kept.features is not None
    assert jpegs(folder) == []
    for page in (tmp_path / "own.html", tmp_path / "asked.html"):
        text = ra.write_report(folder, page, device="cpu", pictures=page.stem == "own").read_text(encoding="utf-8")
        assert "data:image" not in text
        assert "mult: without pictures, as --no-pictures says" in text
        assert 'id="associations-0"' in text
    (folder / EXHIBITS).unlink()
    ra.run(out=folder, resume=True, device="cpu")  # though nobody says it again
    assert not RunFolder(folder).pictures
    ra.write_report(folder, tmp_path / "again.html", device="cpu")
    assert "data:image" not in (tmp_path / "again.html").read_text(encoding="utf-8")


def test_a_page_can_leave_out_the_pictures_that_a_run_kept(finished: Path, tmp_path: Path) -> None:
    pages = [
        ra.write_report(finished, tmp_path / f"{pictures}.html", pictures=pictures).read_text(encoding="utf-8")
        for pictures in (True, False)
    ]
    assert ["data:image/jpeg" in text for text in pages] == [True, False]
    assert jpegs(finished) != []


def test_the_command_line_keeps_and_shows_no_pictures(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    few = [*SMALL, ("intra.epochs", 1), ("cross.epochs", 1), ("evaluate_every", 0)]
    settings = [word for path, value in few for word in ("--set", f"{path}={value}")]
    tiny = ["--dataset", "synthetic(size='tiny')", "--device", "cpu", "--out", "run"]
    CliRunner().invoke(cli, ["run", *tiny, *settings, "--no-pictures"], catch_exceptions=False)
    assert jpegs(tmp_path / "run") == []
    assert "data:image" not in (tmp_path / "run" / "report.html").read_text(encoding="utf-8")
    CliRunner().invoke(cli, ["report", "run", "--no-pictures"], catch_exceptions=False)
    assert "data:image" not in (tmp_path / "report.html").read_text(encoding="utf-8")


def jpegs(folder: Path) -> list[str]:
    """The files of a run folder that hold a JPEG picture, packed or not."""
    found = []
    for path in folder.rglob("*"):
        if path.suffix == ".npz":
            with np.load(path) as held:
                texts = [held[name].tobytes() for name in held.files]
        else:
            texts = [path.read_bytes()] if path.is_file() else []
        found += [path.name] if any(b"\xff\xd8\xff\xe0" in text or b"JFIF" in text for text in texts) else []
    return found


def test_a_damaged_file_is_named(tmp_path: Path) -> None:
    (tmp_path / EXHIBITS).write_bytes(b"nothing")
    with pytest.raises(DataError, match=r"exhibits\.npz can't be read .* delete it"):
        Exhibits.load(tmp_path / EXHIBITS)
    np.savez(tmp_path / EXHIBITS, other=np.zeros(1))
    with pytest.raises(DataError, match="holds no exhibits"):
        Exhibits.load(tmp_path / EXHIBITS)


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("tile", [96, 96], "thumbnails are not of 96 × 96 pixels"),
        ("train/visible/shown", np.array([10**6], np.int32), "rows beyond"),
        ("train/visible/camera", np.zeros(1, np.int32), "without camera or identity"),
        ("test/infrared/identity", np.zeros(5), "float64 of 1 axes"),
        (f"leaders/{PROTOCOL}/nearest", np.full((1, 48, 10), 10**6, np.int32), "rows beyond"),
        (f"leaders/{PROTOCOL}/query", np.zeros(1, np.int32), "ranking of images that are not there"),
        (f"leaders/{PROTOCOL}/side", np.array("x"), "is not a valid Modality"),
        ("map/visible/rows", np.zeros(1, np.int32), "features of images that are not there"),
        ("map/visible/features", np.full((48, 512), np.nan, np.float16), "not finite"),
    ],
)
def test_parts_that_don_t_fit_are_refused(finished: Path, tmp_path: Path, name: str, value: Any, message: str) -> None:
    with np.load(finished / EXHIBITS) as held:
        np.savez(tmp_path / EXHIBITS, **{**dict(held.items()), name: value})
    with pytest.raises(DataError, match=rf"holds no exhibits \(.*{message}.*\); delete it"):
        Exhibits.load(tmp_path / EXHIBITS)


def test_everybody_is_shown_alike_and_the_unknown_evenly() -> None:
    identity = np.repeat(np.arange(20, dtype=np.int32), 10)
    rows = of_each_person(identity, 60)
    assert np.bincount(identity[rows]).tolist() == [3] * 20
    assert len(of_each_person(np.full(500, -1, np.int32), 60)) == 60
