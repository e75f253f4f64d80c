"""What tests/unit/engine/test_several_devices.py has two processes do together, and one by itself: a script, and a module."""

from __future__ import annotations

import os
import sys
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Any, ClassVar

import torch
import torch.distributed as dist
import torch.nn.functional as F
from lightning_fabric import Fabric
from torch import Tensor, nn

import reidassoc as ra
from reidassoc import registry
from reidassoc.data.loader import batches
from reidassoc.data.samplers import Sampler
from reidassoc.engine import shared_labelling
from reidassoc.engine.devices import ranks
from reidassoc.engine.devices.device import open_device, open_devices
from reidassoc.engine.devices.sync_batch_norm import normalise_jointly
from reidassoc.engine.extract import extract
from reidassoc.engine.label_stage import Given, Labelled, label
from reidassoc.engine.objective_modules import Heads
from reidassoc.engine.optim import build_optimiser
from reidassoc.engine.sample_losses import sample_losses
from reidassoc.engine.setup import build_network, calibrate, training_images
from reidassoc.engine.step import Step
from reidassoc.errors import DeviceError, RankLost
from reidassoc.interfaces.banks import Banks, LiveBank
from reidassoc.interfaces.plugins import NetworkOutput, Objective, Sampling
from reidassoc.interfaces.scene import Scene
from reidassoc.ops.part_features import PARTS
from reidassoc.recipe.choose import choose
from reidassoc.recipe.compose import Method, Weighted, compose
from reidassoc.recipe.model import Optimiser, Recipe
from reidassoc.types import Clustering, Clusters, Features, Modality, Pair, Targets

STEPS = 5


@dataclass(frozen=True)
class Case:
    """A method's last stage.

    Args:
        banks: that it has at least; heads: modules of its objectives.
    """

    recipe: str
    as_gpus: int = 1
    objective: str | None = None  # in place of the recipe's, and of its refiners
    banks: int = 3
    heads: int = 0


CASES = {
    "mult": Case("mult"),
    "mult as on 2 GPUs": Case("mult", as_gpus=2),
    "salcr": Case("salcr"),
    "mmm_released": Case("mmm_released", banks=0, heads=1),
    "feature maps": Case("mult", objective="pictured", banks=0),
}
TINY: list[tuple[str, Any]] = [
    ("dataset", "synthetic(size='tiny', identities=8, images=6, test_identities=4)"),
    ("cross.identities", 3),
    ("cross.images", 4),
    ("cross.augmentation.pad", 2),
]


class Doubled(nn.Module):
    """A network in float64."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network.double()

    def forward(self, images: Mapping[str, Tensor]) -> dict[str, NetworkOutput]:
        return dict(self.network({stream: x.double() for stream, x in images.items()}))


@dataclass(frozen=True, kw_only=True)
class Pictured(Objective):
    """Reads feature maps, of all rows together."""

    sampling: ClassVar[Sampling] = "paired"
    needs: ClassVar[frozenset[str]] = frozenset({"maps"})

    def banks(self, scene: Any, targets: Any) -> list[Any]:
        return []

    def __call__(self, batch: Any, banks: Any) -> dict[str, Tensor]:
        pictures = torch.stack([view.map for view in batch])  # (streams, B, C, H, W)
        return {"likeness": (pictures - pictures.mean((0, 1))).square().mean()}


def trained(fabric: Fabric, case: Case) -> dict[str, Any]:
    """Banks, losses and weights after a few steps in float64, by plain SGD."""
    registry.add("pictured", Pictured)
    exchanged = [("cross.objectives", [case.objective]), ("cross.refiners", [])] if case.objective else []
    recipe, groups = choose(recipe=f"{case.recipe}/synthetic", changes=[*TINY, *exchanged]), case.as_gpus
    composed, alone, stage = compose(recipe), open_device("cpu"), recipe.stages[-1]
    method = composed.methods[-1]
    stores, _ = training_images(composed.dataset, recipe)
    network = build_network(composed.network, recipe, alone)
    calibrate(network, stores, alone, recipe)
    labelled = label(
        method,
        stage,
        Given(extract(network, stores, alone, batch=64), epoch=1, stage_epoch=0, seed=0),
        counts=Counter(),
    )
    assert labelled is not None
    scene, targets = labelled.scene, labelled.targets
    parts = (*method.objectives, *method.refiners)
    started = Banks.rebuild(chain.from_iterable(part.part.banks(scene, targets) for part in parts))
    banks = Banks({live.bank.name: LiveBank(live.bank, live.vectors.double()) for live in started})
    network = Doubled(network)
    plain = Optimiser(name="sgd", learning_rate=1e-3)
    optimiser, heads = build_optimiser(network.parameters(), plain), Heads()
    heads.prepare(method, labelled, settings=plain, device=fabric.device)
    for head in heads:
        head.module.double()
    if groups == 1:
        normalise_jointly(network, fabric)
    network.train()
    step = Step(
        fabric, network, optimiser, method, scene, targets, banks, heads, stage.augmentation.pad,
        max(1, groups // fabric.world_size),
    )  # fmt: skip
    prepared = batches(
        sampler=Sampler.build(
            targets, method.objectives[0].part.sampling, identities=stage.identities, images=stage.images
        ),
        stores=stores, index=scene.features.map(lambda f: f.index.numpy()), targets=targets,
        banks=[live.bank for live in banks], augmentation=stage.augmentation, steps=STEPS, seed=0, epoch=1,
        share=partial(ranks.own_share, fabric),
    )  # fmt: skip
    losses = []
    for host in prepared:
        terms, finite = step(host)
        assert bool(finite)
        losses.append(torch.stack(list(terms.values())))
    ranks.align(fabric, network.buffers())
    return {
        "losses": torch.stack(losses),
        "images": torch.tensor([len(images) for images in host.images]),
        **{f"bank {live.bank.name}": live.vectors for live in banks},
        **{f"weight {name}": value for name, value in network.state_dict().items()},
        **{f"head {name}": value for head in heads for name, value in head.module.state_dict().items()},
    }


def labelled(fabric: Fabric) -> dict[str, Any]:
    """What MULT makes of two crowds, and whether this rank made it."""
    recipe, made_here = choose(recipe="mult/synthetic", changes=TINY), False
    method, stage = compose(recipe).methods[1], recipe.stages[1]
    generator = torch.Generator().manual_seed(0)
    centre = torch.randn(20, 32, generator=generator)
    rows = Pair(torch.arange(1200) % 20, torch.arange(700) % 18)
    given = Given(
        rows.map(lambda of: Features(F.normalize(centre[of] + torch.randn(len(of), 32, generator=generator), dim=1))),
        epoch=1, stage_epoch=0, seed=0,
    )  # fmt: skip
    counts = Counter[str]()

    def make() -> Any:
        nonlocal made_here
        made_here = True
        counts["as from a fall-back"] += 1
        return label(method, stage, given, counts=counts)

    made = shared_labelling.label_together(fabric, given, counts, make)
    assert made is not None
    own, affinity = made.scene.clustering.own, made.scene.affinity()
    return {
        "made here": made_here,
        "counts": dict(counts),
        "clusters": [own[m].labels for m in Modality] + [own[m].centroids for m in Modality],
        "targets": [labels.prob for labels in made.targets.table.values()],
        "affinity": [x for m in Modality for x in (affinity[m].crow_indices(), affinity[m].values())],
    }


@dataclass(frozen=True, kw_only=True)
class Measured(Objective):
    """A loss of every single sample."""

    sampling: ClassVar[Sampling] = "paired"

    def banks(self, scene: Any, targets: Any) -> list[Any]:
        return []

    def __call__(self, batch: Any, banks: Any) -> dict[str, Tensor]:
        return {}

    def per_sample(self, view: Any, batch: Any, banks: Any) -> Tensor:
        return torch.as_tensor(view.z).square().sum(1)


def shared_pass(fabric: Fabric, infrared: int) -> dict[str, Any]:
    """Features and losses of all samples, so few of them infrared; and the images that this rank has looked at."""
    recipe = choose(recipe="salcr/synthetic", changes=TINY)  # with part features
    composed, alone = compose(recipe), open_device("cpu")
    stores, _ = training_images(composed.dataset, recipe)
    network = build_network(composed.network, recipe, alone)
    calibrate(network, stores, alone, recipe)
    stores.infrared.bad = tuple(range(infrared, len(stores.infrared)))
    seen: dict[str, int] = {}

    def look(network: nn.Module, images: tuple[Mapping[str, Tensor]]) -> None:
        for name, each in images[0].items():
            seen[name] = seen.get(name, 0) + len(each)

    network.register_forward_pre_hook(look)
    features = extract(network, stores, fabric, batch=16)
    counts = dict(seen)
    clusters = features.map(lambda found: Clusters(torch.zeros(len(found), dtype=torch.int64), found.x[:1]))
    scene = Scene(0, 0, features, Clustering(clusters))
    method = Method(None, None, (), (Weighted("measured", Measured(), 2.0),))  # type: ignore[arg-type]
    labelled = Labelled(scene, Targets.compose(scene.clustering), True)
    losses = sample_losses(network, stores, fabric, method, labelled, Banks(), Heads(), batch=16)
    assert losses is not None
    return {
        "seen": counts,
        "features": [each.x for each in features],
        "parts": [each.extra[PARTS] for each in features],
        "losses": list(losses),
    }


LITTLE = {"epochs": 1, "iterations": 3, "identities": 5, "images": 3}
NAME = "mmm_released/synthetic"  # shared clusters, a head of its own, losses of single samples
SHORT: list[tuple[str, Any]] = [
    *TINY,
    *[(f"{stage}.{key}", value) for stage in ("intra", "cmc", "cross") for key, value in LITTLE.items()],
    ("cross.epochs", 2),
    ("evaluate_every", 0),
]


def short_recipe() -> Recipe:
    return choose(recipe=NAME, changes=SHORT)


@dataclass(frozen=True, kw_only=True)
class Greedy(Objective):
    """Needs memory for every image, of which the second device has less."""

    sampling: ClassVar[Sampling] = "paired"

    def banks(self, scene: Any, targets: Any) -> list[Any]:
        return []

    def __call__(self, batch: Any, banks: Any) -> dict[str, Tensor]:
        if dist.get_rank() == 1 and len(batch["visible"].z) > 8:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return {"sum": batch["visible"].z.square().sum()}


def too_much(out: Path, rank: int) -> None:
    """A run whose second stage is too large for the second device; what is said."""
    registry.add("greedy", Greedy)
    little = [(f"{stage}.{key}", 1) for stage in ("intra", "cross") for key in ("epochs", "iterations")]
    scarce = [("cross.objectives", ["greedy"]), ("cross.refiners", []), ("cross.identities", 5), ("evaluate_every", 0)]
    try:
        ra.run(choose(recipe="mult/synthetic", changes=[*TINY, *little, *scarce]), out=out, device="cpu", devices=2)
    except (DeviceError, RankLost) as error:
        out.with_suffix(f".{rank}").write_text(f"{type(error).__name__}: {error}")


def keep_from_writing(folder: Path) -> None:
    """From now on, this process fails where it writes into a folder."""
    changing = {"os.mkdir", "os.rename", "os.remove", "os.truncate"}

    def look(event: str, arguments: tuple[Any, ...]) -> None:
        writes = event == "open" and isinstance(arguments[2], int) and arguments[2] & (os.O_WRONLY | os.O_RDWR)
        if (
            (writes or event in changing)
            and isinstance(arguments[0], str | Path)
            and folder in Path(arguments[0]).parents
        ):
            raise AssertionError(f"only the first process writes, but: {event} {arguments}")

    sys.addaudithook(look)


def main(out: Path) -> None:
    torch.set_num_threads(1)
    fabric = open_devices("cpu", devices=2)
    if fabric.global_rank:
        keep_from_writing(out / "run")
    for name, case in CASES.items():
        torch.save(trained(fabric, case), out / f"{name}.{fabric.global_rank}.pt")
    for infrared in (1, 5):
        torch.save(shared_pass(fabric, infrared), out / f"shared_pass {infrared}.{fabric.global_rank}.pt")
    torch.save(labelled(fabric), out / f"labels.{fabric.global_rank}.pt")
    result = ra.run(short_recipe(), out=out / "run", device="cpu", devices=2)
    torch.save(dict(result.data["protocols"]), out / f"result.{fabric.global_rank}.pt")
    too_much(out / "scarce", fabric.global_rank)  # the last: the first rank loses the second one by it


if __name__ == "__main__":
    main(Path(sys.argv[1]))
