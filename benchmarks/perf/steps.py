"""Whole training steps, as the engine makes them, beside the bare network's forward, backward and optimiser.

Times are processor seconds of this process: what else the machine does at the time hardly shows. Bare and whole steps
alternate. Images are of the synthetic pedestrians; features, from which labels come, are made up, so that clusters exist
without training.
"""

from __future__ import annotations

import statistics
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from reidassoc.data.loader import HostBatch, batches
from reidassoc.data.samplers import Sampler
from reidassoc.data.store import ImageStore
from reidassoc.data.transforms import normalise
from reidassoc.engine.checkpoint import State
from reidassoc.engine.devices.device import open_device
from reidassoc.engine.ema import Average
from reidassoc.engine.extract import extract, unit_features
from reidassoc.engine.label_stage import Given, label
from reidassoc.engine.loop import Run
from reidassoc.engine.optim import build_optimiser
from reidassoc.engine.setup import build_network, calibrate, translate
from reidassoc.engine.step import Step
from reidassoc.interfaces.banks import Banks
from reidassoc.recipe.compose import compose
from reidassoc.recipe.load import load_recipe
from reidassoc.recipe.model import Recipe
from reidassoc.recipe.override import override
from reidassoc.runs.folder import RunFolder
from reidassoc.runs.observer import Observer
from reidassoc.types import STREAMS, Features, Modality, Pair

PEOPLE, IMAGES = 32, 8  # of the synthetic training set: 256 + 256 images
SMALL = [("clusterer.k1", 8), ("clusterer.k2", 4), ("intra.optimiser.warmup_steps", 0)]
NEAR = {"mult": [("associator.k1", 8), ("associator.k2", 4)], "salcr": [("associator.k", 8), ("refiner.gpcr.k", 8)]}


def recipe_of(method: str, network: str) -> Recipe:
    """The recipe of a method on few images: of the synthetic data, or ResNet-50 at the published size in a small batch."""
    data = f"synthetic(size='tiny', identities={PEOPLE}, images={IMAGES})"
    if network == "tiny":
        return override(load_recipe(f"{method}/synthetic"), [("dataset", data), *NEAR[method]])
    parts = ", parts=3" if method == "salcr" else ""
    changes = [("dataset", data), ("network", f"two_stream(depth=50, weights='none'{parts})"), *SMALL, *NEAR[method]]
    batch = [
        (f"{stage}.{key}", count) for stage in ("intra", "cross") for key, count in (("identities", 4), ("images", 2))
    ]
    return override(load_recipe(f"{method}/sysu_mm01"), [*changes, *batch])


@dataclass(frozen=True)
class Training:
    """An epoch that is about to begin.

    Args:
        step: the engine's.
        loaded: makes the epoch's batches, so many.
    """

    step: Step
    loaded: Callable[[int], Any]

    @staticmethod
    def begin(recipe: Recipe, *, cache: Path | None = None) -> Training:
        """Build everything that the cross-modality stage trains with; images are read from `cache`, or held in memory."""
        composed = compose(recipe)
        stage, method = recipe.stages[-1], composed.methods[-1]
        fabric = open_device("cpu", recipe.precision)
        records = composed.dataset.train()
        where = {} if cache is None else {"memory_limit": 0, "cache": cache}
        stores = records.map(lambda images: ImageStore(images, size=recipe.size, **where))
        network = build_network(composed.network, recipe, fabric)
        calibrate(network, stores, fabric, recipe)
        translate(network, recipe)
        state = State(network, build_optimiser(network.parameters(), recipe.stages[0].optimiser or stage.optimiser))  # type: ignore[arg-type]
        folder = RunFolder(Path(tempfile.gettempdir()) / "none")
        run = Run(composed, fabric, folder, stores, None, None, state, Counter(), Observer())
        features = Pair.build(lambda m: made_up(composed.dataset.identity(records[m]), m, network, stores[m]))  # type: ignore[arg-type]
        labelled = label(method, stage, Given(features, 0, 0, 0), counts=Counter())
        assert labelled is not None
        banks: Banks = run.prepare(stage, method, labelled)
        scene, targets = labelled.scene, labelled.targets
        step = Step(
            fabric, network, state.optimiser, method, scene, targets, banks, state.heads, stage.augmentation.pad,
            average=Average(network, recipe.ema) if recipe.ema else None,
        )  # fmt: skip
        sampling = method.objectives[0].part.sampling
        sampler = Sampler.build(targets, sampling, identities=stage.identities, images=stage.images)
        index = features.map(lambda f: f.index.numpy())

        def loaded(steps: int) -> Any:
            return batches(
                sampler=sampler, stores=stores, index=index, targets=targets, banks=[live.bank for live in banks],
                augmentation=stage.augmentation, steps=steps, seed=0, epoch=0,
            )  # fmt: skip

        return Training(step, loaded)

    def bare(self, host: HostBatch) -> None:
        """Forward, backward and optimiser of the network on the batch's images as they are."""
        images = {stream: normalise(host.images[modality]) for stream, modality in STREAMS.items()}
        outputs = self.step.network(images)
        shown = [x for output in outputs.values() for x in (output.z, *output.parts.values())]
        loss = torch.stack([x.square().mean() for x in shown]).sum()
        self.step.optimiser.zero_grad(set_to_none=True)
        loss.backward()
        self.step.optimiser.step()


@torch.no_grad()
def made_up(identity: Tensor, modality: Modality, network: nn.Module, store: ImageStore) -> Features:
    """Features, and part features where the network has any, whose clusters are the identities."""
    stream = str(modality)
    output = network.eval()({stream: normalise(store.read(store.good[:1]))})[stream]
    network.train()
    _, number = torch.unique(identity, return_inverse=True)
    generator = torch.Generator().manual_seed(1 + list(Modality).index(modality))

    def around(*shape: int) -> Tensor:
        centre = torch.randn(PEOPLE + 1, *shape, generator=torch.Generator().manual_seed(0))
        return F.normalize(centre[number] + 0.5 * torch.randn(len(number), *shape, generator=generator), dim=-1)

    part = output.parts.get((stream, stream))
    extra = {} if part is None else {"parts": around(*part.shape[1:])}
    return Features(around(output.z.shape[1]), store.good, torch.zeros(len(number), dtype=torch.int64), extra)


def processor_seconds(work: Callable[[], object]) -> float:
    started = time.process_time()
    work()
    return time.process_time() - started


def bare_and_whole(method: str, network: str, runs: int) -> tuple[float, float]:
    """Median processor seconds of the bare and of the whole step, after one of each."""
    training = Training.begin(recipe_of(method, network))
    spent: dict[str, list[float]] = {"bare": [], "whole": []}
    for host in list(training.loaded(runs + 1)):  # whole: else the loader's thread would count, now here, now there
        spent["bare"].append(processor_seconds(lambda host=host: training.bare(host)))  # type: ignore[misc]
        spent["whole"].append(processor_seconds(lambda host=host: training.step(host)))  # type: ignore[misc]
    return statistics.median(spent["bare"][1:]), statistics.median(spent["whole"][1:])


def as_is_and_changed(network: str, change: str, runs: int) -> tuple[float, float]:
    """Median processor seconds of the bare step by MULT's recipe, and with a key of it true, after two of each."""
    recipe = recipe_of("mult", network)
    as_is, changed = (Training.begin(override(recipe, [(change, wanted)])) for wanted in (False, True))
    spent: dict[str, list[float]] = {"as is": [], "changed": []}
    for host in list(as_is.loaded(runs + 2)):
        spent["as is"].append(processor_seconds(lambda host=host: as_is.bare(host)))  # type: ignore[misc]
        spent["changed"].append(processor_seconds(lambda host=host: changed.bare(host)))  # type: ignore[misc]
    return statistics.median(spent["as is"][2:]), statistics.median(spent["changed"][2:])


def in_place_and_read(steps: int) -> tuple[float, float]:
    """Processor seconds of a step with its batch in memory, and with one read from the cache of decoded images on disk."""
    with tempfile.TemporaryDirectory() as folder:
        training = Training.begin(recipe_of("mult", "tiny"), cache=Path(folder))
        hosts = list(training.loaded(steps))
        for host in hosts[:2]:
            training.step(host)

        def in_place() -> None:
            for host in hosts:
                training.step(host)

        def read() -> None:
            for host in training.loaded(steps):
                training.step(host)

        pairs = [(processor_seconds(in_place), processor_seconds(read)) for _ in range(3)]
    return statistics.median(p[0] for p in pairs) / steps, statistics.median(p[1] for p in pairs) / steps


def alone_and_extracted(network: str, images: int, runs: int) -> tuple[float, float]:
    """Processor seconds of the network alone on so many images in place, and of extraction from the cache on disk."""
    data = f"synthetic(size='tiny', identities={PEOPLE}, images={images // (2 * PEOPLE)})"
    recipe = override(recipe_of("mult", network), [("dataset", data)])
    composed, fabric, batch = compose(recipe), open_device("cpu"), recipe.extract_batch
    with tempfile.TemporaryDirectory() as folder:
        where: dict[str, Any] = {"cache": Path(folder), "memory_limit": 0}
        stores = composed.dataset.train().map(lambda images: ImageStore(images, size=recipe.size, **where))
        module = build_network(composed.network, recipe, fabric).eval()
        ready = [(m, normalise(rows)) for m in Modality for rows in stores[m].read(stores[m].good).split(batch)]

        @torch.no_grad()
        def alone() -> None:
            module.eval()  # extraction leaves it in training
            for modality, images in ready:
                unit_features(module, images, modality, fabric)

        extract(module, stores, fabric, batch=batch)
        pairs = [
            (processor_seconds(alone), processor_seconds(lambda: extract(module, stores, fabric, batch=batch)))
            for _ in range(runs)
        ]
    return statistics.median(p[0] for p in pairs), statistics.median(p[1] for p in pairs)
