"""``reidassoc features``: the saved features are those that the run's label stage saw."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from support.small import SMALL

import reidassoc as ra
from reidassoc.cli import cli
from reidassoc.errors import CheckpointError, DataError, ReidassocError
from reidassoc.files.features import read_features
from reidassoc.runs.folder import RunFolder


def test_the_lab_repeats_what_the_run_measured(rival: Path, tmp_path: Path) -> None:
    saved = ra.save_features(rival, tmp_path / "f.safetensors", epoch=4, device="cpu")
    assert saved.notes["epoch"] == "4"
    (row,) = ra.lab(tmp_path / "f.safetensors", associators=["pgm"], device="cpu").rows
    assert row.quality == RunFolder(rival).metrics[4]["labels"]


def test_the_newest_checkpoint_is_the_default(rival: Path, tmp_path: Path) -> None:
    newest = ra.save_features(rival, tmp_path / "n.npz", device="cpu")
    assert newest.notes["epoch"] == "5"
    before = ra.save_features(rival, tmp_path / "b.npz", epoch=4, device="cpu")
    assert not torch.equal(newest.features.visible.x, before.features.visible.x)
    assert torch.equal(read_features(tmp_path / "n.npz").features.visible.camera, newest.features.visible.camera)


def test_an_untrained_network_s_features_are_those_of_a_run_s_first_epoch(tmp_path: Path) -> None:
    recipe = ra.choose(dataset="synthetic(size='tiny')", changes=[*SMALL, ("intra.epochs", 1), ("cross.epochs", 1)])
    saved = ra.save_features(recipe, tmp_path / "f.safetensors", device="cpu")
    ra.run(recipe, out=tmp_path / "run", device="cpu")
    first = ra.save_features(tmp_path / "run", tmp_path / "g.safetensors", epoch=1, device="cpu")
    assert torch.equal(saved.identity.visible, first.identity.visible)  # type: ignore[union-attr]
    (row,) = ra.lab(saved, associators=["pgm"], device="cpu").rows
    clusters = RunFolder(tmp_path / "run").metrics[0]["clusters"]
    assert clusters == {str(m): row.clusters[m] for m in ("visible", "infrared")}


def test_what_can_t_be_saved_is_said(rival: Path, tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"keeps no checkpoint of epoch 1; it keeps: 4, 5"):
        ra.save_features(rival, tmp_path / "f.npz", epoch=1, device="cpu")
    with pytest.raises(DataError, match=r"end in .safetensors or .npz"):
        ra.save_features(rival, tmp_path / "f.txt", device="cpu")
    with pytest.raises(CheckpointError, match="is no run folder"):
        ra.save_features(tmp_path, tmp_path / "f.npz", device="cpu")
    with pytest.raises(DataError, match="can't write"):
        ra.save_features(rival, tmp_path / "nowhere" / "f.safetensors", device="cpu")
    assert list(tmp_path.iterdir()) == []


def test_the_command_line_goes_from_a_run_to_a_table_and_advice(rival: Path, tmp_path: Path) -> None:
    place = str(tmp_path / "f.safetensors")
    saved = CliRunner().invoke(cli, ["features", str(rival), "--out", place, "--device", "cpu"], catch_exceptions=False)
    assert "visible and" in saved.output
    assert "with identities" in saved.output
    words = [
        "lab",
        place,
        "--clusterer",
        "dbscan(eps=0.7, k1=5, k2=3)",
        "--associator",
        "mult,pgm",
        "--refiner",
        "none,agree",
    ]
    words += ["--sweep", "associator.alpha=0.1,0.4", "--device", "cpu"]
    table = CliRunner().invoke(cli, words, catch_exceptions=False, env={"COLUMNS": "160"})
    assert "6 combinations" in table.output
    assert "mult(alpha=0.4)" in table.output
    written = CliRunner().invoke(cli, [*words, "--format", "json", "--out", str(tmp_path / "o.json")])
    assert written.exit_code == 0
    assert len(json.loads((tmp_path / "o.json").read_text())["rows"]) == 6
    plain = CliRunner().invoke(cli, [*words, "--out", str(tmp_path / "o.txt")])
    assert plain.exit_code == 0
    assert "associator" in (tmp_path / "o.txt").read_text()
    advice = CliRunner().invoke(cli, ["advise", place, "--k1", "4,6", "--device", "cpu"], catch_exceptions=False)
    assert "agreement" in advice.output
    points = json.loads(CliRunner().invoke(cli, ["advise", place, "--k1", "4", "--json"]).output)
    assert len(points["curves"]) == 1


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["features", "--out", "f.npz"], "name a run folder, or --dataset SPEC"),
        (["features", "RUN", "--seed", "3", "--out", "f.npz"], "has its own recipe; leave out: seed"),
        (["features", "--dataset", "synthetic", "--epoch", "3", "--out", "f.npz"], "--epoch chooses among a run's"),
        (["features", "--dataset", "sythetic", "--out", "f.npz"], "no dataset 'sythetic'; did you mean 'synthetic'"),
        (["lab", "none.safetensors"], "no feature file none.safetensors"),
        (["lab", "RUN"], "is a run folder, not a feature file; next: reidassoc features "),
        (["lab", "bad.safetensors"], "can't be read as .safetensors"),
        (["advise", "bad.safetensors"], "can't be read as .safetensors"),
        (["advise", "bad.safetensors", "--k1", "x"], "--k1 x: expected whole numbers"),
    ],
)
def test_bad_input_is_one_line(
    words: list[str], message: str, rival: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("bad.safetensors").write_bytes(b"\x08\x00\x00\x00\x00\x00\x00\x00notjson!")
    words = [str(rival) if word == "RUN" else word for word in words]
    with pytest.raises(ReidassocError, match=message) as caught:
        CliRunner().invoke(cli, words, standalone_mode=False, catch_exceptions=False)
    assert "\n" not in str(caught.value)


def test_associate_takes_the_clusterer_that_the_file_names(rival: Path, tmp_path: Path) -> None:
    ra.save_features(rival, tmp_path / "f.safetensors", device="cpu")
    named = read_features(tmp_path / "f.safetensors").notes["clusterer"]
    for out, words in (("a.npz", []), ("b.npz", ["--clusterer", named])):
        arguments = [
            "associate",
            str(tmp_path / "f.safetensors"),
            "--associator",
            "nearest",
            "--out",
            str(tmp_path / out),
        ]
        done = CliRunner().invoke(cli, [*arguments, *words, "--device", "cpu"])
        assert done.exit_code == 0, done.output
        assert f"nearest on {named}" in " ".join(done.output.split())
    first, second = (np.load(tmp_path / name) for name in ("a.npz", "b.npz"))
    assert all((first[key] == second[key]).all() for key in first)
