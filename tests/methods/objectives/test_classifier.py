"""Objective `classifier` and the hard triplets it stands on: oracles, gradients, symmetry; heads in a whole run."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar

import pytest
import torch
import torch.nn.functional as F
from support.training_step import R, V, a_batch, hard_step, random_step
from torch import Tensor, nn

import reidassoc as ra
from reidassoc import Modality, Pair, SoftLabels, Targets, registry
from reidassoc.engine.label_stage import Labelled
from reidassoc.engine.objective_modules import Heads
from reidassoc.errors import CheckpointError, PluginError
from reidassoc.interfaces.banks import Banks
from reidassoc.interfaces.batch import Batch
from reidassoc.interfaces.plugins import Objective, Sampling
from reidassoc.ops.triplet import hardest_triplet
from reidassoc.recipe.compose import Method, Weighted
from reidassoc.recipe.model import Optimiser, Recipe
from reidassoc.recipe.override import override
from reidassoc.runs.folder import RunFolder
from reidassoc.testing import ContractError, check_objective, toy_scene
from reidassoc.types import STREAMS
from reidassoc_plugins.objectives.classifier import Classifier
from reidassoc_plugins.objectives.joint import Joint

NOTHING = Banks()


def a_head(batch: Batch, **options: Any) -> nn.Module:
    head = Classifier(**options).modules(batch.scene, batch.targets).double()
    nn.init.normal_(next(head.parameters()), generator=torch.Generator().manual_seed(3))
    return head


def test_hardest_triplet_against_a_plain_reading() -> None:
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(9, 4, generator=generator, dtype=torch.float64)
    labels = torch.tensor([0, 0, 0, 1, 1, 2, -1, 1, -1])  # 2 occurs once, so it is a negative alone
    found = []
    for i in range(9):
        far = [float((x[i] - x[j]).norm()) for j in range(9) if j != i and labels[j] == labels[i]]
        near = [float((x[i] - x[j]).norm()) for j in range(9) if labels[j] != labels[i] and labels[j] >= 0]
        if labels[i] >= 0 and far:
            found.append(max(0.0, 0.5 + max(far) - min(near)))
    assert len(found) == 6
    assert hardest_triplet(x, labels, margin=0.5).item() == pytest.approx(sum(found) / 6, abs=1e-9)


@pytest.mark.parametrize("labels", [[-1, -1, -1], [0, 0, 0], [0, 1, 2]])
def test_hardest_triplet_is_silent_where_nothing_counts(labels: list[int]) -> None:
    x = torch.ones(3, 2, requires_grad=True)
    loss = hardest_triplet(x, torch.tensor(labels), margin=0.2)
    (gradient,) = torch.autograd.grad(loss, x)
    assert loss.item() == 0
    assert not bool(gradient.any())


@pytest.mark.parametrize("trusting", [True, False])
def test_it_is_a_weighted_cross_entropy_and_a_triplet(trusting: bool) -> None:
    losses = Pair(torch.arange(8.0) ** 2, torch.arange(8.0))
    batch = hard_step(epoch=5 if trusting else 4, losses=losses)
    classifier, head = Classifier(), a_head(batch)
    terms = classifier(batch, NOTHING, module=head)
    assert list(terms) == ["identity", "triplet"]
    z = torch.cat([batch[s].z for s in STREAMS]).detach()
    y = torch.cat([batch.labels(batch[s], "infrared").hard for s in STREAMS])
    w = torch.cat([classifier.trust(batch.scene, batch.targets, STREAMS[s]) for s in STREAMS]).double() * (y >= 0)
    assert bool((w[y >= 0] == 1).all()) is not trusting
    each = F.cross_entropy(head(z), y, reduction="none", ignore_index=-1)
    torch.testing.assert_close(terms["identity"], (w * each).sum() / w.sum())
    torch.testing.assert_close(terms["triplet"], hardest_triplet(F.normalize(z, dim=1), y, margin=0.2))


def test_triplets_count_from_an_epoch_of_the_stage_on() -> None:
    for epoch, names in ((4, ["identity"]), (5, ["identity", "triplet"])):
        batch = hard_step(epoch=epoch)
        assert list(Classifier(triplet_from=5)(batch, NOTHING, module=a_head(batch))) == names


def test_its_loss_of_single_samples() -> None:
    batch = hard_step()
    head = a_head(batch)
    loss = Classifier().per_sample(batch["visible"], batch, NOTHING, module=head)
    y = batch.targets.of(V, "infrared").hard
    wanted = F.cross_entropy(head(batch["visible"].z), y, reduction="none", ignore_index=-1)
    assert loss.isnan().tolist() == (y < 0).tolist()
    torch.testing.assert_close(loss[y >= 0], wanted[y >= 0])


@pytest.mark.parametrize("term", ["identity", "triplet"])
def test_gradients_are_those_of_the_loss(term: str) -> None:
    batch = hard_step()
    head = a_head(batch)

    def loss(*z: Tensor) -> Tensor:
        made = a_batch(dict(zip(STREAMS, z, strict=True)), batch.targets.table, batch.scene)
        return Classifier(margin=2.0)(made, NOTHING, module=head)[term]

    assert torch.autograd.gradcheck(loss, [view.z for view in batch])


def test_permuting_the_batch_changes_no_loss() -> None:
    batch = hard_step(epoch=9, losses=Pair(torch.arange(8.0), torch.arange(8.0) ** 2))
    head = a_head(batch)
    order = torch.randperm(8, generator=torch.Generator().manual_seed(0))
    views = {name: replace(view, rows=view.rows[order], z=view.z[order]) for name, view in batch.views.items()}
    one = Classifier()(batch, NOTHING, module=head)
    two = Classifier()(replace(batch, views=views), NOTHING, module=head)
    for name, term in one.items():
        torch.testing.assert_close(term, two[name])


def test_a_batch_of_outliers_has_no_loss_and_no_gradient() -> None:
    batch = hard_step()
    head = a_head(batch)
    silent = Targets({key: SoftLabels(torch.zeros_like(rows.prob)) for key, rows in batch.targets.table.items()})
    loss = torch.stack(list(Classifier()(replace(batch, targets=silent), NOTHING, module=head).values())).sum()
    assert loss.item() == 0
    assert all(not bool(g.any()) for g in torch.autograd.grad(loss, [view.z for view in batch]))


def test_what_it_needs_follows_its_space() -> None:
    assert Classifier().needs == {"cross", "losses"}
    shared = registry.build("objectives", "classifier(space=shared, draw=shared)")
    assert shared.needs == {"shared", "losses"}
    assert shared.sampling == "shared"


def test_losses_of_joint_are_means_over_spaces_with_a_label() -> None:
    scene, batch = random_step()
    banks = Banks.rebuild(Joint().banks(scene, batch.targets))
    for live in banks:
        live.vectors = live.vectors.double()
    some = SoftLabels(batch.targets.of(R, "infrared").prob * (torch.arange(6) < 4)[:, None])
    batch = replace(batch, targets=batch.targets.replaced({(R, "infrared"): some}))
    loss = Joint().per_sample(batch["infrared"], batch, banks)
    logits = banks["joint.infrared"].logits(batch["infrared"].feature)
    torch.testing.assert_close(loss[:4], F.cross_entropy(logits, some.prob, reduction="none")[:4])
    assert bool(loss[4:].isnan().all())


@pytest.fixture
def classified(small: Recipe) -> Recipe:
    """Two epochs of dcl, then three with a classifier whose labels are made once."""
    parts: list[tuple[str, Any]] = [
        ("cross.objectives", ["classifier(plain_epochs=1)", "sca(inter_from=1)"]),
        ("cross.refiners", []),
        ("cross.relabel", "once"),
        ("cross.optimiser", {"name": "sgd", "learning_rate": 0.05, "network_rate": 0.1, "warmup_steps": 3}),
        ("evaluate_every", 0),
    ]
    return override(small, parts)


def state_of(folder: Path) -> dict[str, Any]:
    found: dict[str, Any] = torch.load(RunFolder(folder).checkpoints()[0], weights_only=True)
    return found


def same(one: Any, two: Any) -> None:
    if isinstance(one, Mapping):
        assert one.keys() == two.keys()
        for key, value in one.items():
            same(value, two[key])
    elif isinstance(one, (list, tuple)):
        for a, b in zip(one, two, strict=True):
            same(a, b)
    elif isinstance(one, Tensor):
        torch.testing.assert_close(one, two, rtol=0, atol=0, equal_nan=True)
    else:
        assert one == two


def test_a_run_with_a_head_resumes_to_the_same_bits(
    classified: Recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    ra.run(classified, out=whole, device="cpu")
    real = RunFolder.append_metrics
    for epoch in (2, 3):  # cut off while the head is young, and again when it is kept

        def die(self: RunFolder, row: Mapping[str, Any], last: int = epoch) -> None:
            real(self, row)
            if row["epoch"] == last:
                raise KeyboardInterrupt

        monkeypatch.setattr(RunFolder, "append_metrics", die)
        with pytest.raises(KeyboardInterrupt):
            ra.run(classified, out=cut, device="cpu", resume=cut.exists())
        monkeypatch.undo()
    ra.run(classified, out=cut, device="cpu", resume=True)
    same(state_of(whole), state_of(cut))
    rows = [[{**row, "seconds": 0} for row in RunFolder(folder).metrics] for folder in (whole, cut)]
    assert rows[0] == rows[1]

    state = state_of(whole)
    assert list(state["heads"]) == ["0.classifier"]
    assert state["heads"]["0.classifier"]["optimiser"]["param_groups"][0]["lr"] == pytest.approx(0.05)
    assert state["optimiser"]["param_groups"][0]["lr"] == pytest.approx(0.005)
    labels = {m: state["targets"]["table"][f"{m}|infrared"][0].sum(1) for m in Modality}
    for modality, losses in zip(Modality, state["losses"], strict=True):
        assert losses.isnan().tolist() == (labels[modality] == 0).tolist()
        assert bool((losses[~losses.isnan()] > 0).all())
    assert len({json.dumps(row["clusters"]) for row in rows[0][2:]}) == 1  # made once


@dataclass(frozen=True, kw_only=True)
class Counted(Objective):
    """Its module remembers the epoch that it was made in."""

    sampling: ClassVar[Sampling] = "own"
    broken: bool = False

    def banks(self, scene: ra.Scene, targets: Targets) -> list[Any]:
        return []

    def __call__(self, batch: Batch, banks: Banks, module: nn.Module | None = None) -> dict[str, Tensor]:
        return {}

    def modules(self, scene: ra.Scene, targets: Targets) -> nn.Module:
        return nn.Linear(2 if not self.broken else "two", scene.epoch, bias=False)  # type: ignore[arg-type]


@dataclass(frozen=True, kw_only=True)
class Lasting(Counted):
    """The same; its module doesn't depend on labels."""

    outlives_labels: ClassVar[bool] = True


def sizes(heads: Heads, *parts: Objective, epoch: int, stage_epoch: int, fresh: bool = True) -> list[int]:
    """Prepare an epoch; return the epochs in which the modules were made."""
    scene = replace(toy_scene(epoch=epoch), stage_epoch=stage_epoch)
    weighted = tuple(Weighted("part", part, 1.0) for part in parts)
    method = Method(None, None, (), weighted)  # type: ignore[arg-type]
    labelled = Labelled(scene, Targets.compose(scene.clustering), fresh)
    heads.prepare(method, labelled, settings=Optimiser(name="sgd"), device=torch.device("cpu"))
    return [len(next(head.module.parameters())) for head in heads]


def test_heads_are_made_with_their_labels() -> None:
    heads, parts = Heads(), (Counted(), Lasting())
    assert sizes(heads, *parts, epoch=3, stage_epoch=0) == [3, 3]
    assert sizes(heads, *parts, epoch=4, stage_epoch=1, fresh=False) == [3, 3]
    assert sorted(sizes(heads, *parts, epoch=5, stage_epoch=2)) == [3, 5]
    resumed = Heads(stored=dict(heads.packed()))
    assert resumed.packed().keys() == {"0.part", "1.part"}  # kept through an epoch without training
    before = torch.random.get_rng_state()
    with pytest.raises(CheckpointError, match=r"the checkpoint's module of 0\.part does not fit"):
        sizes(Heads(stored=dict(heads.packed())), *parts, epoch=6, stage_epoch=3, fresh=False)
    assert torch.equal(before, torch.random.get_rng_state())
    assert sizes(heads, *parts, epoch=7, stage_epoch=0) == [7, 7]


def test_an_objective_that_can_t_make_its_module_is_named() -> None:
    with pytest.raises(PluginError, match="objective counted failed"):
        sizes(Heads(), Counted(broken=True), epoch=3, stage_epoch=0)


class Centre(nn.Module):
    """A module without parameters: the squared distance to a place that it remembers."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.register_buffer("place", torch.zeros(width))

    def forward(self, x: Tensor) -> Tensor:
        return (x - self.get_buffer("place")).square().sum(1)


class Rare(nn.Module):
    """A table whose gradient is sparse, which an optimiser with weight decay doesn't take."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.table = nn.Embedding(3, width, sparse=True)

    def forward(self, x: Tensor) -> Tensor:
        return (x - self.table(torch.zeros(len(x), dtype=torch.int64, device=x.device))).square().sum(1)


MODULES: dict[str, Any] = {"centre": Centre, "rare": Rare, "dictionary": lambda width: {"centre": Centre(width)}}


@dataclass(frozen=True, kw_only=True)
class Central(Objective):
    """Pull the visible features to what a module says."""

    sampling: ClassVar[Sampling] = "own"
    module: str

    def banks(self, scene: Any, targets: Any) -> list[Any]:
        return []

    def modules(self, scene: Any, targets: Any) -> nn.Module | None:
        found: nn.Module = MODULES[self.module](scene.features.visible.width)
        return found

    def __call__(self, batch: Any, banks: Any, module: Any = None) -> dict[str, Tensor]:
        return {"pull": module(batch["visible"].feature).mean()}


def central(small: Recipe, module: str) -> Recipe:
    registry.add("central", Central)
    few = [("intra.epochs", 1), ("cross.epochs", 1), ("intra.iterations", 2), ("cross.iterations", 2)]
    return override(small, [*few, ("evaluate_every", 0), ("intra.objectives", [f"central(module='{module}')"])])


def test_a_module_without_parameters_passes_check_and_runs(small: Recipe, tmp_path: Path) -> None:
    check_objective(Central(module="centre"))
    result = ra.run(central(small, "centre"), out=tmp_path / "run", device="cpu", keep=3)
    held = torch.load(result.folder / "checkpoints" / "epoch_001.pt", weights_only=True)["heads"]["0.central"]
    assert list(held["module"]) == ["place"]
    assert held["optimiser"]["state"] == {}


@pytest.mark.parametrize(
    ("module", "complaint"),
    [
        ("rare", "sparse"),
        ("dictionary", r"modules must return a torch\.nn\.Module, or None for nothing to train, got dict"),
    ],
)
def test_a_module_that_a_run_can_t_train_fails_its_check(
    module: str, complaint: str, small: Recipe, tmp_path: Path
) -> None:
    with pytest.raises(ContractError, match=complaint):
        check_objective(Central(module=module))
    with pytest.raises((PluginError, RuntimeError), match=complaint):
        ra.run(central(small, module), out=tmp_path / "run", device="cpu")
