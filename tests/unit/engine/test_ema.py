"""Averaged weights: the mean they are, who uses them, and that resume goes on with them."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
from torch import nn

import reidassoc as ra
from reidassoc.engine import checkpoint
from reidassoc.engine.devices.device import open_device
from reidassoc.engine.ema import Average
from reidassoc.engine.evaluate import Evaluation
from reidassoc.errors import CheckpointError
from reidassoc.recipe.override import override
from reidassoc.runs.folder import RunFolder


def small_network() -> nn.Sequential:
    return nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2))


def test_it_is_the_mean_of_all_steps_until_the_window_is_full_and_moves_on_from_there() -> None:
    network = small_network()
    average = Average(network, decay=0.75)
    seen = [network[0].weight.detach().clone()]
    for step in range(1, 7):
        with torch.no_grad():
            network[0].weight += step
            network[1].running_mean += step
        network[1].num_batches_tracked += 1
        average.follow(network)
        seen.append(network[0].weight.detach().clone())
        if step <= 3:
            wanted = torch.stack(seen).mean(dim=0)
        else:
            wanted = 0.75 * wanted + 0.25 * seen[-1]
        torch.testing.assert_close(average.network[0].weight, wanted)
        assert average.network[1].num_batches_tracked == step
    assert average.network[1].running_mean[0] == pytest.approx(float(wanted[0, 0] - seen[0][0, 0]), abs=1e-5)
    assert not any(p.requires_grad for p in average.network.parameters())


@pytest.fixture(scope="module")
def averaged(finished: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run `finished` with averaged weights; every checkpoint is kept."""
    folder = tmp_path_factory.mktemp("averaged") / "run"
    ra.run(override(RunFolder(finished).recipe, [("ema", 0.9)]), out=folder, device="cpu", keep=9)
    return folder


def test_features_and_figures_come_from_the_average(averaged: Path, finished: Path) -> None:
    data = checkpoint.newest(RunFolder(averaged), torch.device("cpu"))
    trained, mean = data["network"], data["average"]["network"]
    assert list(trained) == list(mean)
    assert any(not torch.equal(trained[key], mean[key]) for key in trained)
    stored = json.loads((averaged / "result.json").read_text())["protocols"]
    assert ra.evaluate(averaged, device="cpu")["protocols"] == stored
    # In the first epoch, both runs see the network as it starts; then the labels are those of other features.
    rows, plain = RunFolder(averaged).metrics, RunFolder(finished).metrics
    assert rows[0]["losses"] == plain[0]["losses"]
    assert rows[-1]["losses"] != plain[-1]["losses"]


def test_evaluation_reads_the_average_not_the_trained_weights(averaged: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shown: list[nn.Module] = []
    embed = Evaluation.embed

    def noted(self: Evaluation, network: nn.Module, *args: object) -> object:
        shown.append(network)
        return embed(self, network, *args)  # type: ignore[arg-type]

    monkeypatch.setattr(Evaluation, "embed", noted)
    ra.evaluate(averaged, device="cpu")
    data = checkpoint.newest(RunFolder(averaged), open_device("cpu", "32-true").device)
    state = shown[0].state_dict()
    assert all(torch.equal(state[key], value) for key, value in data["average"]["network"].items())


def test_resume_goes_on_with_the_average(averaged: Path, tmp_path: Path) -> None:
    folder = tmp_path / "resumed"
    shutil.copytree(averaged, folder)
    for path in (folder / "checkpoints").iterdir():
        if path.name > "epoch_003.pt":
            path.unlink()
    (folder / "result.json").unlink()
    recipe = RunFolder(averaged).recipe
    ra.run(recipe, out=folder, device="cpu", resume=True)
    ends = [checkpoint.newest(RunFolder(path), torch.device("cpu")) for path in (averaged, folder)]
    assert ends[0]["average"]["steps"] == ends[1]["average"]["steps"] == 20
    for key, value in ends[0]["average"]["network"].items():
        assert torch.equal(value, ends[1]["average"]["network"][key]), key
    spoilt = torch.load(folder / "checkpoints" / "epoch_005.pt", weights_only=True)
    spoilt["average"] = None
    torch.save(spoilt, folder / "checkpoints" / "epoch_005.pt")
    for path in (folder / "checkpoints").iterdir():
        if path.name != "epoch_005.pt":
            path.unlink()
    with pytest.raises(CheckpointError):
        ra.run(recipe, out=folder, device="cpu", resume=True)
