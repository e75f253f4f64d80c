"""The length of stage 1 from stability: the epoch at which clusters settle, and what is no evidence."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from sklearn.metrics import adjusted_rand_score

import reidassoc as ra
from reidassoc.cli import cli
from reidassoc.errors import CheckpointError, DataError, RecipeError, ReidassocError
from reidassoc.runs.folder import RunFolder

SAMPLES, PEOPLE = 240, 24


def run_folder(
    path: Path, noise: list[float], *, infrared: list[float] | None = None, relabel: str = "every_epoch"
) -> Path:
    """A run whose first stage's labels are the identities, a share of them drawn at random in each epoch."""
    changes = [("intra.epochs", len(noise)), ("intra.relabel", relabel)]
    folder = RunFolder(path)
    folder.create(ra.choose(dataset="synthetic(size='tiny')", changes=changes))
    generator = np.random.default_rng(0)
    identity = np.arange(SAMPLES) % PEOPLE
    for epoch, shares in enumerate(zip(noise, infrared or noise, strict=True)):
        drawn = {}
        for name, share in zip(("own_visible", "own_infrared"), shares, strict=True):
            wrong = generator.random(SAMPLES) < share
            drawn[name] = np.where(wrong, generator.integers(-1, PEOPLE, SAMPLES), identity)
        np.savez(path / f"labels/epoch_{epoch:03d}.npz", **drawn)
    return path


FALLING = [0.9, 0.7, 0.5, 0.3, 0.2, 0.1, *[0.0] * 10]


def test_the_advice_is_the_epoch_from_which_clusters_hardly_change(tmp_path: Path) -> None:
    found = ra.advise_epochs(run_folder(tmp_path / "run", FALLING))
    assert (found.stage, found.total, len(found.epochs)) == ("intra", 16, 16)
    assert found.settled == 9  # the first three epochs that repeat each other: 7, 8, 9
    assert found.change == "intra.epochs=9"
    assert not found.late
    assert found.epochs[0].agreement.visible is None
    one, two = (np.load(tmp_path / f"run/labels/epoch_00{n}.npz")["own_infrared"] for n in (3, 4))
    apart = [np.where(x < 0, 1000 + np.arange(SAMPLES), x) for x in (one, two)]
    assert found.epochs[4].agreement.infrared == pytest.approx(adjusted_rand_score(*apart))
    assert found.epochs[3].outliers.infrared == pytest.approx((one < 0).mean())
    assert found.epochs[12].largest.visible == pytest.approx(1 / PEOPLE)
    assert ra.choose(changes=[tuple(found.change.split("="))]).stages[0].epochs == 9  # type: ignore[list-item]


def test_the_slower_modality_decides(tmp_path: Path) -> None:
    slow = [0.9, 0.8, 0.7, 0.6, 0.5, 0.4, 0.3, 0.3, 0.2, 0.1, *[0.0] * 6]
    found = ra.advise_epochs(run_folder(tmp_path / "run", FALLING, infrared=slow))
    assert found.settled == 13


def test_clusters_that_never_settle_are_said_to_be_late(tmp_path: Path) -> None:
    found = ra.advise_epochs(run_folder(tmp_path / "run", list(np.linspace(0.9, 0.1, 16))))
    assert found.late
    assert found.settled == 15


def test_one_great_cluster_or_none_is_no_stability(tmp_path: Path) -> None:
    folder = run_folder(tmp_path / "run", FALLING)
    for label in (0, -1):  # labels that repeat each other perfectly
        for epoch in range(6):
            rows = np.full(SAMPLES, label)
            np.savez(folder / f"labels/epoch_{epoch:03d}.npz", own_visible=rows, own_infrared=rows)
        assert ra.advise_epochs(folder).settled == 9
        for epoch in range(16):
            np.savez(folder / f"labels/epoch_{epoch:03d}.npz", own_visible=rows, own_infrared=rows)
        assert ra.advise_epochs(folder).change is None
        run_folder(tmp_path / f"again{label}", FALLING)
        folder = tmp_path / f"again{label}"


def test_an_unfinished_run_and_a_gap_do(tmp_path: Path) -> None:
    folder = run_folder(tmp_path / "run", FALLING)
    for epoch in (8, 14, 15):
        (folder / f"labels/epoch_{epoch:03d}.npz").unlink()
    found = ra.advise_epochs(folder)
    assert next(e for e in found.epochs if e.epoch == 9).agreement.visible is None
    assert found.settled == 12


def test_what_can_t_be_advised_is_said(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="is no run folder"):
        ra.advise_epochs(tmp_path)
    with pytest.raises(RecipeError, match="stage 'intra' makes its labels once"):
        ra.advise_epochs(run_folder(tmp_path / "once", FALLING, relabel="once"))
    with pytest.raises(DataError, match="keeps the labels of 3 epochs of stage 'intra'; advice needs more than 3"):
        ra.advise_epochs(run_folder(tmp_path / "short", FALLING[:3]))
    folder = run_folder(tmp_path / "spoilt", FALLING)
    np.savez(folder / "labels/epoch_002.npz", own_visible=np.zeros(3))
    with pytest.raises(DataError, match=r"epoch_002\.npz has no labels of visible images"):
        ra.advise_epochs(folder)


def test_the_command_prints_it_and_takes_no_options_of_features(tmp_path: Path) -> None:
    folder = str(run_folder(tmp_path / "run", FALLING))
    shown = CliRunner().invoke(cli, ["advise", folder], catch_exceptions=False, env={"COLUMNS": "160"})
    assert "--set intra.epochs=9" in shown.output
    assert "agreement with the epoch before" in shown.output
    data = json.loads(CliRunner().invoke(cli, ["advise", folder, "--json"], catch_exceptions=False).output)
    assert (data["settled"], data["change"], len(data["epochs"])) == (9, "intra.epochs=9", 16)
    with pytest.raises(ReidassocError, match="is a run folder, whose own clusters are looked at; leave out: --k1"):
        CliRunner().invoke(cli, ["advise", folder, "--k1", "5"], catch_exceptions=False)
