"""What the engine makes of a network's output: features for evaluation and for clustering, and the sum of weighted losses."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import reidassoc as ra
from reidassoc import registry
from reidassoc.data.store import ImageStore
from reidassoc.data.transforms import DEVIATION, MEAN
from reidassoc.engine import checkpoint
from reidassoc.engine.devices.device import open_device
from reidassoc.engine.evaluate import prepare_evaluation
from reidassoc.engine.extract import extract
from reidassoc.recipe.model import Recipe
from reidassoc.recipe.override import override
from reidassoc.runs.folder import RunFolder
from reidassoc.types import Modality


def by_hand(network: nn.Module, store: ImageStore, modality: Modality, *, mirrored: bool) -> Tensor:
    """Unit features of all images, or of their mirror images, one at a time."""
    found = []
    for row in store.good.tolist():
        pixels = store.read(torch.tensor([row])).double() / 255
        pixels = (pixels - torch.tensor(MEAN).view(3, 1, 1)) / torch.tensor(DEVIATION).view(3, 1, 1)
        if mirrored:
            pixels = pixels.flip(-1)
        found.append(F.normalize(network({str(modality): pixels.float()})[str(modality)].z, dim=1))
    return torch.cat(found)


@torch.no_grad()
def test_evaluation_averages_an_image_with_its_mirror_image_and_clustering_does_not(finished: Path) -> None:
    recipe, fabric = RunFolder(finished).recipe, open_device("cpu")
    evaluation = prepare_evaluation(registry.build("datasets", recipe.dataset), recipe)
    assert evaluation is not None
    network = registry.build("networks", recipe.network).build(size=recipe.size)
    checkpoint.load_network(network, checkpoint.newest(RunFolder(finished), fabric.device))
    for_evaluation = evaluation.embed(network, fabric)
    plain = extract(network, evaluation.stores, fabric, batch=32)
    network.eval()
    for modality in Modality:
        one, other = (by_hand(network, evaluation.stores[modality], modality, mirrored=m) for m in (False, True))
        torch.testing.assert_close(plain[modality].x, one, rtol=0, atol=1e-5)
        torch.testing.assert_close(for_evaluation[modality], F.normalize(one + other, dim=1), rtol=0, atol=1e-5)
        assert not torch.allclose(one, other, atol=1e-2)


def test_a_loss_is_the_sum_of_its_terms_each_times_its_weight(small: Recipe, tmp_path: Path) -> None:
    """Of one step after equal ones."""
    short = [(f"{stage}.{key}", 1) for stage in ("intra", "cross") for key in ("epochs", "iterations")]
    rows = []
    for number, (objective, refiner) in enumerate([("amirl", "oclr"), ("0.25 * amirl", "0.5 * oclr")]):
        parts = [("cross.objectives", [objective]), ("cross.refiners", [refiner]), ("evaluate_every", 0)]
        ra.run(override(small, [*short, *parts]), out=tmp_path / str(number), device="cpu")
        rows.append(RunFolder(tmp_path / str(number)).metrics[-1]["losses"])
    whole, weighed = rows
    assert {"amirl", "oclr"} == {name.partition("/")[0] for name in whole} - {"loss"}
    assert whole.keys() == weighed.keys()
    for name, value in whole.items():
        if name != "loss":
            assert weighed[name] == pytest.approx(value * (0.25 if name.startswith("amirl") else 0.5), rel=1e-6)
    for row in rows:
        assert row["loss"] == pytest.approx(sum(value for name, value in row.items() if name != "loss"), rel=1e-6)
