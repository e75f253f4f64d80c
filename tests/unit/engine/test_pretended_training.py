"""Training keeps a GPU's rules: the label stage copies nothing large to the host, and a step never waits for the device."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning_fabric import Fabric
from torch import Tensor

import reidassoc as ra
from reidassoc import registry
from reidassoc.data.loader import HostBatch
from reidassoc.engine import associate as engine_associate
from reidassoc.engine import train
from reidassoc.engine.step import Step
from reidassoc.interfaces.scene import Scene
from reidassoc.ops.compiled.dispatch import without_numba
from reidassoc.pipeline import associate, cluster
from reidassoc.recipe.choose import choose
from reidassoc.recipe.load import load_recipe
from reidassoc.runs.folder import RunFolder
from reidassoc.testing import Toy, pretended_device
from reidassoc.types import Pair

RECIPES = ("mult", "salcr", "mmm_released", "nulc")  # all objectives but two, a head, several banks, losses of samples


class There(Fabric):
    """Computes on the pretended GPU."""

    @property
    def device(self) -> torch.device:
        return torch.device("meta")


@contextmanager
def on_a_pretended_gpu() -> Iterator[None]:
    """A run in this block trains on the pretended GPU, and its steps never wait."""
    step = Step.__call__

    def unwaiting(self: Step, host: HostBatch) -> tuple[Mapping[str, Tensor], Tensor]:
        with pretended_device(waits=False):
            return step(self, host)

    with pytest.MonkeyPatch.context() as patch, pretended_device():
        patch.setattr(Step, "__call__", unwaiting)
        patch.setattr(train, "open_devices", lambda *_: There(accelerator="cpu", devices=1))
        yield


def trained(name: str, out: Path) -> list[dict[str, Any]]:
    recipe = load_recipe(f"{name}/synthetic")
    changes: list[tuple[str, Any]] = [("evaluate_every", 0)]
    for stage in recipe.stages:
        changes += [(f"{stage.name}.epochs", 1), (f"{stage.name}.iterations", 2), (f"{stage.name}.identities", 6)]
    small = choose(recipe=f"{name}/synthetic", dataset="synthetic(size='tiny')", changes=changes)
    ra.run(small, out=out, device="cpu")
    return RunFolder(out).metrics


@pytest.mark.parametrize("name", RECIPES)
def test_a_run_keeps_a_gpus_rules_and_loses_the_same(name: str, tmp_path: Path, request: pytest.FixtureRequest) -> None:
    with without_numba():
        expected = trained(name, tmp_path / "here")
    with on_a_pretended_gpu():
        found = trained(name, tmp_path / "there")
    assert len(found) == len(expected) > 0
    for one, other in zip(found, expected, strict=True):
        assert one["clusters"] == other["clusters"]
        assert one["losses"] == pytest.approx(other["losses"], rel=1e-3, abs=1e-5)
    assert any(row["losses"] for row in found)


@pytest.mark.parametrize("name", ["mult", "salcr"])
def test_labels_copy_nothing_to_the_host_that_grows_with_the_pairs_of_samples(name: str) -> None:
    toy = Toy(clusters=Pair(40, 36), samples=8, width=8)
    with pretended_device(to_host=40 * 36) as device:  # a number a sample, or a number a pair of clusters
        features = toy.scene(device=device).features
        clustering = cluster(registry.build("clusterers", "dbscan(k1=10)"), features)
        assert min(clusters.count for clusters in clustering.own) > 20
        found = associate(registry.build("associators", name), Scene(0, 0, features, clustering))
    assert found.cross is not None
    assert all(bool((labels.prob.cpu().sum(1) > 0).any()) for labels in found.cross)


def test_anybodys_features_are_labelled_as_here(monkeypatch: pytest.MonkeyPatch) -> None:
    features = Toy(clusters=Pair(9, 7), samples=6).features.map(lambda given: given.x.numpy())
    here = ra.associate("mult(k1=8)", *features, clusterer="dbscan(k1=8)", device="cpu")
    monkeypatch.setattr(engine_associate, "open_device", lambda *_: There(accelerator="cpu", devices=1))
    with pretended_device():
        there = ra.associate("mult(k1=8)", *features, clusterer="dbscan(k1=8)", device="cpu")
    assert max(here.cross.visible) > 3
    for found, expected in ((there.own, here.own), (there.cross, here.cross)):
        assert all((one == other).all() for one, other in zip(found, expected, strict=True))
