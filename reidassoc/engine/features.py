"""One epoch's training features as a file: from a run's checkpoint, or from a network before its first step."""

from __future__ import annotations

from os import PathLike
from pathlib import Path
from typing import Any

import torch
from lightning_fabric import Fabric
from torch import nn

import reidassoc.registry as registry
from reidassoc.data.progress import Say, silent
from reidassoc.data.store import ImageStore
from reidassoc.engine import checkpoint
from reidassoc.engine.devices.device import open_device
from reidassoc.engine.evaluate import untrained
from reidassoc.engine.extract import extract
from reidassoc.engine.setup import build_network, calibrate, training_images
from reidassoc.errors import CheckpointError, RecipeError
from reidassoc.files.features import FeatureFile, write_features
from reidassoc.files.paths import check_ending
from reidassoc.recipe.model import Recipe
from reidassoc.runs.folder import RunFolder, epoch_of
from reidassoc.types import Features, Pair


def save_features(
    source: str | PathLike[str] | Recipe,
    out: str | Path,
    *,
    epoch: int | None = None,
    root: str | Path | None = None,
    device: str | torch.device = "auto",
    progress: Say = silent,
) -> FeatureFile:
    """Save the training features that an epoch of a run starts from, as its label stage would see them.

    Args:
        source: a run folder, or a run's result; or a recipe, for the features of its network before the first step.
        out: the file, .safetensors or .npz; true identities, where known, go with it for scoring.
        root: the folder of a run's dataset, if it isn't where it was as the run began.
        epoch: of the run, one whose checkpoint is kept; the newest if not given.
        device: as for ``run``.
        progress: takes a line a minute, such as ``print``, and what there is to say about the images.

    Returns:
        what was written; its notes name dataset, recipe, seed, epoch and clusterer.

    Raises:
        ReidassocError: the run, its checkpoint, the dataset or the file can't be used.

    Examples:
        >>> import reidassoc as ra
        >>> recipe = ra.choose(dataset="synthetic(size='tiny')")
        >>> saved = ra.save_features(recipe, "tiny.safetensors")  # doctest: +SKIP
    """
    check_ending(Path(out))
    if isinstance(source, Recipe) and root is not None:
        raise RecipeError("a recipe says where its data are; leave out root, or give it to choose(…)")
    folder = None if isinstance(source, Recipe) else RunFolder.open(Path(source))
    recipe = source if isinstance(source, Recipe) else RunFolder(Path(source)).located_recipe(root)
    fabric = open_device(device, recipe.precision)
    data = None if folder is None else kept(folder, epoch, fabric)
    wanted = recipe.network if folder is None else untrained(recipe.network)
    plugin = registry.build("networks", wanted)
    stores, identity = training_images(registry.build("datasets", recipe.dataset), recipe, progress)
    network = build_network(plugin, recipe, fabric)
    if data is None:
        calibrate(network, stores, fabric, recipe)
    else:
        checkpoint.load_network(network, data)
    file = FeatureFile(
        features_of(network, stores, fabric, recipe, progress),
        identity,
        {
            "recipe": recipe.name,
            "dataset": str(recipe.dataset.without_roots()),
            "clusterer": str(recipe.clusterer),
            "seed": str(recipe.seed),
            "epoch": str(0 if data is None else data["epoch"]),
            "epochs": str(recipe.epochs),
        },
    )
    write_features(out, file)
    return file


def features_of(
    network: nn.Module, stores: Pair[ImageStore], fabric: Fabric, recipe: Recipe, progress: Say = silent
) -> Pair[Features]:
    """Extract on the device, keep on the host."""

    def host(found: Features) -> Features:
        extra = {name: tensor.cpu() for name, tensor in found.extra.items()}
        return Features(found.x.cpu(), found.index.cpu(), found.camera.cpu(), extra)

    return extract(network, stores, fabric, batch=recipe.extract_batch, progress=progress).map(host)


def kept(folder: RunFolder, epoch: int | None, fabric: Fabric) -> dict[str, Any]:
    """The newest checkpoint of a run, or that of an epoch.

    Raises:
        CheckpointError: there is none, or it can't be read.
    """
    if epoch is None:
        return checkpoint.newest(folder, fabric.device)
    path = folder.path / "checkpoints" / f"epoch_{epoch:03d}.pt"
    if not path.is_file():
        there = ", ".join(str(epoch_of(path)) for path in reversed(folder.checkpoints()))
        raise CheckpointError(f"{folder.path} keeps no checkpoint of epoch {epoch}; it keeps: {there or 'none'}")
    return checkpoint.read(path, fabric.device)
