"""A training run, from a recipe to a result: what it starts from, and what it leaves behind."""

from __future__ import annotations

import time
from collections import Counter
from pathlib import Path
from typing import Any, cast

import torch
from lightning_fabric import Fabric
from torch import nn

from reidassoc.data.store import ImageStore
from reidassoc.data.transforms import normalise
from reidassoc.engine import checkpoint
from reidassoc.engine.device import environment, open_device
from reidassoc.engine.epochs import Run
from reidassoc.engine.evaluate import prepare_evaluation
from reidassoc.engine.folder import RunFolder
from reidassoc.engine.log import Log, Silent
from reidassoc.engine.optim import build_optimiser
from reidassoc.engine.result import Result, summarise
from reidassoc.errors import DataError, RecipeError
from reidassoc.ops.seeds import generator_for, seed_for
from reidassoc.pipeline import Composed, compose
from reidassoc.recipe import Optimiser, Recipe
from reidassoc.types import Modality, Pair

CALIBRATION_BATCHES = 12


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
