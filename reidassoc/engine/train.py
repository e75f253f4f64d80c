"""The training run. The epoch loop reads in order: features → targets → banks → batches → report."""

from __future__ import annotations

import math
import time
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any, cast

import torch
from lightning_fabric import Fabric
from torch import Tensor, nn

from reidassoc.banks import Banks
from reidassoc.data.loader import batches
from reidassoc.data.samplers import Sampler
from reidassoc.data.store import ImageStore
from reidassoc.data.transforms import normalise
from reidassoc.engine import checkpoint
from reidassoc.engine.device import environment, open_device
from reidassoc.engine.evaluate import Evaluation, prepare_evaluation
from reidassoc.engine.extract import extract
from reidassoc.engine.folder import RunFolder
from reidassoc.engine.labelling import SKIPPED, Labelled, label
from reidassoc.engine.log import Log, Silent
from reidassoc.engine.optim import build_optimiser, learning_rate, set_learning_rate
from reidassoc.engine.result import Result, summarise
from reidassoc.engine.step import Step
from reidassoc.errors import DataError, RecipeError, ReidassocError
from reidassoc.evaluation.labels import label_quality
from reidassoc.ops.seeds import generator_for, seed_for
from reidassoc.pipeline import Composed, Method, compose
from reidassoc.recipe import Optimiser, Recipe, Stage
from reidassoc.types import Modality, Pair

LOG_EVERY = 10  # steps between two readings of the losses, the only ones that wait for the device
CALIBRATION_BATCHES = 12


@dataclass
class Run:
    """A run under way: what was composed, where it computes, and what it has reached."""

    composed: Composed
    fabric: Fabric
    folder: RunFolder
    stores: Pair[ImageStore]
    identity: Pair[Tensor] | None
    evaluation: Evaluation | None
    state: checkpoint.State
    counts: Counter[str]
    log: Log

    @property
    def recipe(self) -> Recipe:
        return self.composed.recipe

    def epochs(self) -> None:
        """Train every epoch that is left."""
        for epoch in range(self.state.epoch, self.recipe.epochs):
            stage, within = self.recipe.stage_at(epoch)
            method = self.composed.methods[self.recipe.stages.index(stage)]
            torch.manual_seed(seed_for(self.recipe.seed, epoch, "torch"))
            clock = Clock()
            if within == 0 and epoch > 0 and stage.optimiser is not None:
                self.state.optimiser = build_optimiser(self.state.network.parameters(), stage.optimiser)
                self.state.optimiser_step = 0
            self.log.epoch(epoch, self.recipe.epochs, stage.name, stage.iterations)

            features = extract(self.state.network, self.stores, self.fabric, batch=self.recipe.extract_batch)
            clock.lap("extract")
            labelled = label(
                method, stage, features, epoch=epoch, first_of_stage=within == 0, seed=self.recipe.seed,
                previous=self.state.targets, counts=self.counts, identity=self.identity,
            )  # fmt: skip
            clock.lap("label")
            losses = self.steps(stage, method, labelled, epoch)
            clock.lap("train")

            self.state.epoch = epoch + 1
            self.state.targets = labelled.targets if labelled else self.state.targets
            row = self.report(epoch, stage, labelled, losses)
            clock.lap("evaluate")
            if labelled:
                self.folder.write_labels(epoch, labelled.targets)
            self.folder.append_metrics({**row, "seconds": clock.laps})
            self.state.counts = dict(self.counts)
            checkpoint.save(self.folder, self.state, self.recipe.digest)
            self.log.report({**row, "seconds": clock.laps})

    def steps(self, stage: Stage, method: Method, labelled: Labelled | None, epoch: int) -> dict[str, float]:
        """Train one epoch's batches; return the mean of every loss term."""
        if labelled is None:
            return {}
        scene, targets = labelled.scene, labelled.targets
        declared = [part.part.banks(scene, targets) for part in (*method.objectives, *method.refiners)]
        banks = Banks.rebuild(chain.from_iterable(declared))
        sampling = method.objectives[0].part.sampling
        sampler = Sampler.build(targets, sampling, identities=stage.identities, images=stage.images)
        if not sampler.usable:
            self.counts[SKIPPED] += 1
            return {}
        if sampler.short:
            self.log.once(
                f"fewer than {stage.identities} usable labels in epoch {epoch}: some are drawn twice in a batch"
            )
        step = Step(
            self.fabric, self.state.network, self.state.optimiser, method, scene, targets, banks, stage.augmentation.pad
        )
        settings = self.optimiser_settings(stage)
        total: dict[str, Tensor] = {}
        index = scene.features.map(lambda features: features.index.cpu().numpy())
        prepared = batches(
            sampler=sampler, stores=self.stores, index=index, targets=targets, banks=[live.bank for live in banks],
            augmentation=stage.augmentation, steps=stage.iterations, seed=self.recipe.seed, epoch=epoch,
        )  # fmt: skip
        for number, host in enumerate(prepared, start=1):
            set_learning_rate(self.state.optimiser, learning_rate(settings, epoch, self.state.optimiser_step))
            terms = step(host)
            self.state.optimiser_step += 1
            total = {name: total.get(name, 0.0) + term for name, term in terms.items()}
            if number % LOG_EVERY == 0 or number == stage.iterations:
                mean = {name: value.item() / number for name, value in total.items()}
                if not math.isfinite(mean["loss"]):
                    worst = [name for name, value in mean.items() if not math.isfinite(value) and name != "loss"]
                    raise ReidassocError(
                        f"the loss is no longer finite in epoch {epoch}, step ≤ {number} ({', '.join(worst)}); "
                        f"lower the learning rate, or go on from the last checkpoint with --resume {self.folder.path}"
                    )
                self.log.step(number, mean, images=sum(len(rows) for rows in host.rows))
        return mean

    def optimiser_settings(self, stage: Stage) -> Optimiser:
        """The settings in force: the stage's own, or those of the last stage before it that has some."""
        before = self.recipe.stages[: self.recipe.stages.index(stage) + 1]
        return next((known.optimiser for known in reversed(before) if known.optimiser is not None), Optimiser())

    def report(
        self, epoch: int, stage: Stage, labelled: Labelled | None, losses: Mapping[str, float]
    ) -> dict[str, Any]:
        """What metrics.jsonl says of the epoch, timings aside."""
        row: dict[str, Any] = {"epoch": epoch, "stage": stage.name, "losses": dict(losses)}
        if labelled is not None:
            row["clusters"] = {str(m): labelled.scene.clustering.own[m].count for m in Modality}
            row["outliers"] = {str(m): int((labelled.scene.clustering.own[m].labels < 0).sum()) for m in Modality}
            if self.identity is not None:
                row["labels"] = label_quality(labelled.targets, self.identity)
        last = epoch + 1 == self.recipe.epochs
        every = self.recipe.evaluate_every
        if self.evaluation is not None and (last or (every and (epoch + 1) % every == 0)):
            row["retrieval"] = self.evaluation(self.state.network, self.fabric).summary
        return row


class Clock:
    """Seconds of each part of an epoch."""

    def __init__(self) -> None:
        self.laps: dict[str, float] = {}
        self._last = time.perf_counter()

    def lap(self, name: str) -> None:
        now = time.perf_counter()
        self.laps[name] = round(now - self._last, 3)
        self._last = now


def run(
    recipe: Recipe,
    *,
    out: str | Path | None = None,
    device: str = "auto",
    resume: bool = False,
    log: Log | None = None,
) -> Result:
    """Train by a recipe from its first epoch to its last, or go on with a run that was interrupted.

    Args:
        recipe: what to do; see :func:`reidassoc.overrides.choose` for how names become one.
        out: the run folder; ``runs/<recipe>-<number>`` if not given.
        device: ``auto``, ``cpu``, ``cuda`` or ``cuda:N``.
        resume: go on with the run in ``out``, repeating the epoch in which it was interrupted.
        log: where progress is shown; nowhere if not given.

    Returns:
        The result, as ``result.json`` in the run folder holds it.

    Raises:
        ReidassocError: something is wrong with the recipe, the data, the device or the folder; the message says what.

    Example:
        >>> import reidassoc as ra
        >>> result = ra.run(ra.choose(associator="mult", dataset="synthetic(size='tiny')"))  # doctest: +SKIP
    """
    log = log or Silent()
    composed = compose(recipe)
    fabric = open_device(device, recipe.precision)
    folder = chosen_folder(out, recipe, resume)
    under_way = prepare(
        composed, fabric, folder, log, resume
    )  # whatever is wrong shows here, before anything is written
    if not resume:
        folder.create(recipe)
        folder.write_json("environment.json", environment(fabric))
        checkpoint.save(folder, under_way.state, recipe.digest)
    log.start(folder.path)
    started = time.perf_counter()
    under_way.epochs()
    result = summarise(
        folder,
        composed,
        environment=environment(fabric),
        counts={**under_way.counts, **skipped_images(under_way.stores)},
        seconds=time.perf_counter() - started,
    )
    folder.write_json("result.json", result.data)
    log.finish(result)
    return result


def chosen_folder(out: str | Path | None, recipe: Recipe, resume: bool) -> RunFolder:
    """The folder of a run: one that exists and fits if it is resumed, else one that is free."""
    if resume:
        if out is None:
            raise RecipeError("resume needs the run folder, as in --resume runs/mult-synthetic-1")
        folder = RunFolder.open(Path(out))
        if folder.recipe.digest != recipe.digest:
            raise RecipeError(
                f"{out} was started with another recipe; resume takes the recipe.yaml of the folder, unchanged"
            )
        return folder
    if out is None:
        number = 1
        while (path := Path("runs") / f"{recipe.name.replace('/', '-')}-{number}").exists():
            number += 1
        return RunFolder(path)
    return RunFolder.free(Path(out))


def prepare(composed: Composed, fabric: Fabric, folder: RunFolder, log: Log, resume: bool) -> Run:
    """Load images, build the network, and start from scratch or from the newest checkpoint."""
    recipe, dataset = composed.recipe, composed.dataset
    records = dataset.train()
    for note in dataset.notes():
        log.once(note)
    stores = records.map(lambda images: ImageStore(images, size=recipe.size))
    for store in stores:
        for problem in store.problems:
            log.once(f"left out: {problem}")
    for modality in Modality:
        if len(stores[modality].good) == 0:
            raise DataError(f"the dataset has no readable {modality} training image")
    known = records.map(dataset.identity)
    identity = None
    if known.visible is not None and known.infrared is not None:
        identity = Pair.build(lambda m: known[m][stores[m].good])  # type: ignore[index]
    evaluation = prepare_evaluation(dataset, recipe)
    torch.manual_seed(seed_for(recipe.seed, "network"))
    network = composed.network.build(size=recipe.size).to(fabric.device)
    optimiser = build_optimiser(network.parameters(), recipe.stages[0].optimiser or Optimiser())
    state = checkpoint.State(network, optimiser, counts={})
    if resume:
        data = checkpoint.newest(folder, fabric.device)
        stage, _ = recipe.stage_at(max(data["epoch"] - 1, 0))
        run_so_far = Run(composed, fabric, folder, stores, identity, evaluation, state, Counter(), log)
        state.optimiser = build_optimiser(network.parameters(), run_so_far.optimiser_settings(stage))
        checkpoint.restore(state, data, recipe.digest)
        folder.forget_from(state.epoch)
        log.once(f"going on with epoch {state.epoch} of {recipe.epochs}")
    else:
        calibrate(network, stores, fabric, recipe)
    return Run(composed, fabric, folder, stores, identity, evaluation, state, Counter(state.counts), log)


@torch.no_grad()
def calibrate(network: nn.Module, stores: Pair[ImageStore], fabric: Fabric, recipe: Recipe) -> None:
    """Show a network that asks for it a few batches before a run from scratch."""
    if not hasattr(network, "calibrate"):
        return
    generator = generator_for(recipe.seed, "calibration")
    shown = []
    for _ in range(CALIBRATION_BATCHES):
        images = {}
        for modality in Modality:
            good = stores[modality].good
            rows = good[torch.randint(len(good), (min(recipe.extract_batch, len(good)),), generator=generator)]
            images[str(modality)] = normalise(stores[modality].read(rows).to(fabric.device))
        shown.append(images)
    cast(Any, network).calibrate(shown)


def skipped_images(stores: Pair[ImageStore]) -> dict[str, int]:
    return {"unreadable training images": bad} if (bad := sum(len(store.bad) for store in stores)) else {}
