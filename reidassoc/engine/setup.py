"""What a run starts from: training images, their identities, and the network before its first step."""

from __future__ import annotations

import os
import shutil
from typing import Any, cast

import torch
from lightning_fabric import Fabric
from torch import Tensor, nn

from reidassoc.data.progress import Say, silent
from reidassoc.data.store import ImageStore
from reidassoc.data.transforms import normalise
from reidassoc.errors import DataError, DeviceError
from reidassoc.interfaces.plugins import Dataset, Network
from reidassoc.ops.seeds import generator_for, seed_for
from reidassoc.recipe.model import Recipe
from reidassoc.types import Modality, Pair

CALIBRATION_BATCHES = 12
FEWEST = 2  # training images of a modality: of one alone there is no batch norm, and no cluster


def training_images(
    dataset: Dataset, recipe: Recipe, say: Say = silent
) -> tuple[Pair[ImageStore], Pair[Tensor] | None]:
    """Load a dataset's training images, and the identities of the readable ones where they are known.

    Args:
        say: takes the dataset's notes, a line for every image that is left out, and a line a minute as long as images are read.

    Raises:
        DataError: a modality has fewer than two readable images.
    """
    records = dataset.train()
    for note in dataset.notes():
        say(note)
    stores = records.map(lambda images: ImageStore(images, size=recipe.size, say=say))
    for store in stores:
        for problem in store.problems:
            say(f"left out: {problem}")
    for modality in Modality:
        if (found := len(stores[modality].good)) < FEWEST:
            raise DataError(
                f"the dataset has {found or 'no'} readable {modality} training image; "
                f"at least {FEWEST} are needed, of either modality"
            )
    known = records.map(dataset.identity)
    if known.visible is None or known.infrared is None:
        return stores, None
    return stores, Pair.build(lambda m: known[m][stores[m].good])  # type: ignore[index]


def build_network(plugin: Network, recipe: Recipe, fabric: Fabric) -> nn.Module:
    """Build a network with the initial weights that the recipe's seed gives."""
    torch.manual_seed(seed_for(recipe.seed, "network"))
    network = plugin.build(size=recipe.size).to(fabric.device)
    return network.to(memory_format=torch.channels_last) if recipe.channels_last else network


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


def translate(network: nn.Module, recipe: Recipe) -> None:
    """Let torch.compile translate a network, once it is calibrated, if the recipe says so; its weights keep their names.

    Raises:
        DeviceError: there is no compiler.
    """
    if not recipe.compile:
        return
    if not any(map(shutil.which, (os.environ.get("CXX", "g++"), "g++", "clang++"))):
        raise DeviceError("compile: true takes a C++ compiler; install g++, or leave it out")
    network.compile()
