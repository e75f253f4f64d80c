"""Part heads on the tiny network: what they add, and that they change nothing else."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from support.small import SMALL

import reidassoc as ra
from reidassoc.engine.step import Step
from reidassoc.interfaces.banks import Banks
from reidassoc.recipe.choose import choose
from reidassoc.runs.folder import RunFolder
from reidassoc.types import STREAMS
from reidassoc_plugins.networks.parts import FIRST, OWN, SECOND, as_rows
from reidassoc_plugins.networks.tiny import Tiny

SIZE = (64, 32)


def images(*streams: str, count: int = 3) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    return {stream: torch.randn(count, 3, *SIZE, generator=generator) for stream in streams}


def build(parts: int) -> torch.nn.Module:
    torch.manual_seed(0)
    return Tiny(width=32, channels=4, parts=parts).build(size=SIZE)


def test_the_global_feature_is_the_same_to_the_bit() -> None:
    plain, with_parts = build(0), build(3)
    state = with_parts.state_dict()
    assert all(torch.equal(value, state[name]) for name, value in plain.state_dict().items())
    assert {name.split(".")[0] for name in state.keys() - plain.state_dict().keys()} == {"heads"}
    for stream, output in plain(images(*STREAMS)).items():
        assert torch.equal(output.z, with_parts(images(*STREAMS))[stream].z)
        assert not output.parts


def test_rows_of_a_map_are_positions_and_columns_channels() -> None:
    x = torch.arange(2 * 3 * 4 * 5).view(2, 3, 4, 5)
    rows = as_rows(x)
    assert rows.shape == (2, 15, 4, 1)
    assert torch.equal(rows[1, :, 2, 0].view(3, 5), x[1, :, 2])


def test_training_gives_all_nine_pairs_and_trains_the_tokens() -> None:
    network = build(3).train()
    found = {pair: x for output in network(images(*STREAMS)).values() for pair, x in output.parts.items()}
    assert set(found) == {*OWN, *FIRST, *SECOND}
    assert all(x.shape == (3, 3, 64) for x in found.values())
    torch.stack([x.square().sum() * (1 + n) for n, x in enumerate(found.values())]).sum().backward()
    assert float(network.heads.tokens.grad.abs().sum()) > 0


def test_a_part_looks_at_its_own_stripe() -> None:
    network = build(4).eval()
    before = images("visible")["visible"]
    after = before.clone()
    after[:, :, 52:] += torch.randn(3, 3, 12, 32, generator=torch.Generator().manual_seed(2))  # the feet
    one, two = (network({"visible": x})["visible"].parts["visible", "visible"] for x in (before, after))
    moved = (one - two).abs().amax((0, 2))
    assert moved[3] > 1e-3
    assert float(moved[:2].max()) < 1e-4 * float(moved[3])


def test_calibration_sets_the_statistics_of_the_heads() -> None:
    network = build(2)
    network.calibrate([images("visible", "infrared", count=8)])
    assert int(network.heads.neck.num_batches_tracked) == 1
    assert not torch.equal(network.heads.neck.running_var, torch.ones(2 * 64))


def test_images_of_fewer_rows_than_parts_are_refused() -> None:
    with pytest.raises(ValueError, match=r"tiny\(parts=3\): images of 2 x 32 pixels are too small"):
        Tiny(parts=3).build(size=(2, 32))
    assert Tiny(parts=3).gives == {"parts"}
    assert Tiny().gives == frozenset()


def test_salcr_runs_end_to_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its own recipe by its own name; part features reach the scene, every term is there, and part banks are fed."""
    seen: list[Banks] = []
    call = Step.__call__

    def watched(self: Step, host: object) -> dict[str, torch.Tensor]:
        before = {live.bank.name: live.vectors.clone() for live in self.banks}
        terms = call(self, host)  # type: ignore[arg-type]
        fed = {name for name, rows in before.items() if not torch.equal(rows, self.banks[name].vectors)}
        assert fed == {live.bank.name for live in self.banks if live.bank.fed_by}
        assert self.scene.features.visible.extra["parts"].shape[1:] == (3, 64)
        seen.append(self.banks)
        return terms

    monkeypatch.setattr(Step, "__call__", watched)
    changes = [*SMALL, ("intra.epochs", 1), ("cross.epochs", 1)]
    recipe = choose(associator="salcr", dataset="synthetic(size='tiny')", changes=changes)
    assert recipe.name == "salcr/synthetic"
    result = ra.run(recipe, out=tmp_path / "run", device="cpu")
    assert result.data["method"]["associator"].startswith("salcr(")
    assert "fgsal.infrared.visible.2" in [live.bank.name for live in seen[-1]]
    losses = RunFolder(result.folder).metrics[-1]["losses"]
    assert {"dual/visible", "fgsal/infrared", "gpcr/global", "gpcr/part"} <= losses.keys()
