"""A training run, from a recipe to a result: what it starts from, and what it leaves behind."""

from __future__ import annotations

import shlex
import time
from collections import Counter
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import torch
from lightning_fabric import Fabric

from reidassoc.data.store import ImageStore
from reidassoc.engine import checkpoint
from reidassoc.engine.devices import ranks
from reidassoc.engine.devices.as_gpus import norm_groups, refuse_uneven
from reidassoc.engine.devices.device import environment, open_devices
from reidassoc.engine.devices.peak_memory import peak_bytes, start_peak
from reidassoc.engine.devices.processes import note
from reidassoc.engine.devices.sync_batch_norm import normalise_jointly
from reidassoc.engine.ema import Average
from reidassoc.engine.evaluate import prepare_evaluation
from reidassoc.engine.loop import Run
from reidassoc.engine.optim import build_optimiser
from reidassoc.engine.setup import build_network, calibrate, training_images, translate
from reidassoc.errors import DataError, RecipeError
from reidassoc.ops.memory_limit import memory_limit
from reidassoc.recipe.code_version import named_sources, parts
from reidassoc.recipe.compose import Composed, compose
from reidassoc.recipe.load import load_recipe
from reidassoc.recipe.model import Optimiser, Recipe
from reidassoc.runs.folder import ENVIRONMENT, IMPORTED, KEPT, FolderTaken, RunFolder
from reidassoc.runs.observer import Observer
from reidassoc.runs.result import Result, changed_files, summarise
from reidassoc.types import Pair


def run(
    recipe: Recipe,
    *,
    out: str | Path | None = None,
    device: str | torch.device = "auto",
    devices: int = 1,
    resume: bool = False,
    keep: int = KEPT,
    pictures: bool = True,
    log: Observer | None = None,
) -> Result:
    """Train by a recipe from its first epoch to its last, or go on with a run that was interrupted.

    Args:
        recipe: what to do; see :func:`reidassoc.recipe.choose.choose` for how names become one.
        out: the run folder; ``runs/METHOD-DATASET-NUMBER`` if not given, as in ``runs/mult-synthetic-1``; plug-ins that
            are not the recipe's are named, too: ``runs/mult-synthetic-nearest-1``.
        device: ``auto``, ``cpu``, ``cuda`` or ``cuda:N``.
        devices: of this machine, one process each: those that torchrun, srun or ``reidassoc run --devices`` started.
        resume: go on with the run in ``out``, repeating the epoch in which it was interrupted.
        keep: number of checkpoints to keep, the newest ones.
        pictures: whether thumbnails are kept for reports; a run that began without any goes on so.
        log: where progress is shown, by the first process; nowhere if not given.

    Returns:
        The result, as ``result.json`` in the run folder holds it; on every process.

    Raises:
        ReidassocError: something is wrong with the recipe, the data, the device or the folder; the message says what.

    Examples:
        >>> import reidassoc as ra
        >>> result = ra.run(ra.choose(associator="mult", dataset="synthetic(size='tiny')"))  # doctest: +SKIP
    """
    composed = compose(recipe)
    fabric = open_devices(device, recipe.precision, devices)
    refuse_uneven(recipe, fabric.world_size)
    log = log if log is not None and ranks.first(fabric) else Observer()
    with ExitStack() as held:  # the folder, by the first rank, from the moment that it is there
        held.enter_context(memory_limit(recipe.memory_limit))
        path, begun = "", False
        if ranks.first(fabric):
            folder = chosen_folder(out, recipe, resume)
            refuse_other_devices(folder, recipe, fabric.world_size)
            if resume:
                held.enter_context(folder.held())
                folder.sweep()
            path, begun, pictures = str(folder.path), folder.begun, pictures and folder.pictures
        path, begun = ranks.told(fabric, [path, begun])
        # Whatever is wrong shows here, before anything is written.
        under_way = prepare(composed, fabric, RunFolder(Path(path)), log, resume=begun)
        under_way.kept = keep
        if ranks.first(fabric):
            if not begun:
                under_way.folder = begin(folder, out, recipe, held, there=resume, pictures=pictures)
                began = {"files": named_sources(recipe), "fingerprint": composed.dataset.fingerprint()}
                under_way.folder.write_json(ENVIRONMENT, {**environment(fabric), **began})
                checkpoint.save(under_way.folder, under_way.state, recipe.digest, keep)
            under_way.pictures = pictures
            under_way.folder.write_settings(recipe, pictures=pictures)
            note(under_way.folder.path)
        return finish(under_way, log)


def begin(
    folder: RunFolder, out: str | Path | None, recipe: Recipe, held: ExitStack, *, there: bool, pictures: bool = True
) -> RunFolder:
    """Make the folder of a new run and hold it; without a name given, one that no other run took meanwhile."""
    while not there:
        try:
            folder.create(recipe, pictures=pictures)
            break
        except FolderTaken:
            if out is not None:
                raise
            folder = chosen_folder(None, recipe, resume=False)
    if not there:
        held.enter_context(folder.held())
    return folder


def finish(under_way: Run, log: Observer) -> Result:
    """Train what is left, and write the result."""
    fabric, folder = under_way.fabric, under_way.folder
    log.start(folder.path)
    started = time.perf_counter()
    start_peak(fabric.device)
    under_way.epochs()
    data: dict[str, Any] = {}
    if ranks.first(fabric):
        counts = {**under_way.counts, **skipped_images(under_way.stores)}
        seconds, peak, machine = time.perf_counter() - started, peak_bytes(fabric.device), environment(fabric)
        data = summarise(
            folder,
            under_way.composed,
            groups=norm_groups(under_way.recipe, fabric.world_size),
            environment=machine,
            counts=counts,
            seconds=seconds,
            peak_bytes=peak,
        )
        folder.write_json("result.json", data)
    place, data = ranks.told(fabric, [str(folder.path), data])
    result = Result(Path(place), data)
    log.finish(result)
    return result


def chosen_folder(out: str | Path | None, recipe: Recipe, resume: bool) -> RunFolder:
    """The folder of a run: one that exists and fits if it is resumed, else one that is free."""
    if resume:
        if out is None:
            raise RecipeError("resume needs the run folder, as in --resume runs/mult-synthetic-1")
        folder = RunFolder.open(Path(out))
        if (folder.path / IMPORTED).is_file():
            raise RecipeError(
                f"{out} holds a released checkpoint, which can't be trained on; "
                f"next: reidassoc evaluate {shlex.quote(str(out))}"
            )
        if folder.recipe.digest != recipe.digest:
            raise RecipeError(
                f"{out} was started with another recipe; resume takes the recipe.yaml of the folder, unchanged"
            )
        return folder
    if out is None:
        number, name = 1, title(recipe)
        while (path := Path("runs") / f"{name}-{number}").exists():
            number += 1
        return RunFolder(path)
    return RunFolder.free(Path(out))


def title(recipe: Recipe) -> str:
    """The recipe's name, with the dataset that is used, and the plug-ins that it does not bring itself.

    ``mult-synthetic``, ``mult-synthetic-nearest``; of mult/synthetic on a manifest ``mult-manifest``.
    """
    try:
        usual = load_recipe(recipe.name)
    except RecipeError:  # from a file of one's own: all in it is the recipe's
        usual = recipe
    known = {(kind, spec.name) for kind, spec in parts(usual)}
    others = [spec.name for kind, spec in parts(recipe) if kind != "datasets" and (kind, spec.name) not in known]
    name = recipe.name.replace(usual.dataset.name, recipe.dataset.name)
    return "-".join([name.replace("/", "-"), *dict.fromkeys(others)])


def prepare(composed: Composed, fabric: Fabric, folder: RunFolder, log: Observer, *, resume: bool) -> Run:
    """Load images, build the network, and start from scratch or from the newest checkpoint."""
    recipe, dataset = composed.recipe, composed.dataset
    stores, identity = training_images(dataset, recipe, log.once)
    evaluation = prepare_evaluation(dataset, recipe, log.once)
    network = build_network(composed.network, recipe, fabric)
    if not resume:
        calibrate(network, stores, fabric, recipe)
        ranks.align(fabric, network.state_dict().values())
    optimiser = build_optimiser(network.parameters(), recipe.stages[0].optimiser or Optimiser())
    average = Average(network, recipe.ema) if recipe.ema else None
    state = checkpoint.State(network, optimiser, counts={}, average=average)
    if resume:
        data = ranks.told(fabric, checkpoint.newest(folder, fabric.device) if ranks.first(fabric) else None)
        checkpoint.refuse_other_recipe(data, recipe.digest)
        stage, _ = recipe.stage_at(max(data["epoch"] - 1, 0))
        run_so_far = Run(composed, fabric, folder, stores, identity, evaluation, state, Counter(), log)
        state.optimiser = build_optimiser(network.parameters(), run_so_far.optimiser_settings(stage))
        checkpoint.restore(state, data)
        refuse_other_images(state, stores)
        refuse_other_data(folder, recipe, dataset.fingerprint())
        if ranks.first(fabric):
            folder.forget_from(state.epoch)
            for name in changed_files(folder, recipe):
                log.once(f"{name} has changed since the run began: its first {state.epoch} epochs are of another text")
        log.once(going_on(state.epoch, recipe.epochs))
    if norm_groups(recipe, fabric.world_size) == 1:
        normalise_jointly(network, fabric)
    for each in state.networks:
        translate(each, recipe)
    return Run(composed, fabric, folder, stores, identity, evaluation, state, Counter(state.counts), log)


def going_on(trained: int, epochs: int) -> str:
    """What a resumed run says, ``trained`` epochs of ``epochs`` being done; they are numbered from 0."""
    if trained >= epochs:
        return f"the run is finished already: all its {epochs} epochs are trained"
    if trained == 0:
        return f"no epoch had ended: going on from the start, {epochs} epochs"
    return f"going on after epoch {trained - 1}: {trained} of {epochs} epochs are trained"


def refuse_other_images(state: checkpoint.State, stores: Pair[ImageStore]) -> None:
    """Raise DataError if the readable training images are not as many as those that the stored labels are of."""
    for (modality, _), labels in state.targets.table.items() if state.targets else ():
        found = len(stores[modality].good)
        if len(labels.hard) != found:
            raise DataError(
                f"{found} {modality} training images can be read, but the run began with {len(labels.hard)}: "
                "bring them back and resume, or start anew"
            )


def refuse_other_data(folder: RunFolder, recipe: Recipe, fingerprint: str) -> None:
    """Raise DataError if the dataset is not what it was as the run began."""
    if folder.read_json(ENVIRONMENT).get("fingerprint", fingerprint) != fingerprint:
        raise DataError(
            f"{folder.path} began on other data than {recipe.dataset}: names, people or sizes of images differ; give --data the "
            "folder that holds the same ones, or start a new run"
        )


def refuse_other_devices(folder: RunFolder, recipe: Recipe, count: int) -> None:
    """Raise RecipeError if a run whose batch norm is left to each device would go on with other ones."""
    began = folder.read_json(ENVIRONMENT)
    if recipe.batch_norm == "rank" and began and (devices := began.get("devices", 1)) != count:
        raise RecipeError(
            f"{folder.path} began on {devices} device(s) with batch_norm: rank, so that its statistics are of so many groups; "
            f"resume it with --devices {devices}, not {count}"
        )


def skipped_images(stores: Pair[ImageStore]) -> dict[str, int]:
    return {"unreadable training images": bad} if (bad := sum(len(store.bad) for store in stores)) else {}
