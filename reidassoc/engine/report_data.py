"""What a run keeps for its report, in one small file: thumbnails, who they show, what stood first for each query, and some
features.

Which images are shown follows from the dataset alone, so that the runs of a dataset can be set side by side.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

import reidassoc.registry as registry
from reidassoc.data.store import ImageStore
from reidassoc.data.tiles import pack, tile_size
from reidassoc.engine import checkpoint
from reidassoc.engine.devices.device import open_device
from reidassoc.engine.evaluate import Evaluation, prepare_evaluation, untrained
from reidassoc.engine.setup import training_images
from reidassoc.evaluation.nearest_images import leaders, spread
from reidassoc.runs.folder import RunFolder
from reidassoc.runs.report_data import EXHIBITS, Array, Exhibits, Images, Ints
from reidassoc.types import UNKNOWN_IDENTITY, Modality, Pair

TRAINING_TILES = 640  # of a modality, spread over its people
MOST_OF_A_PERSON = 6
MAPPED_PEOPLE = 12
MAPPED_IMAGES = 10  # of a person and modality
QUALITY = 85  # of the thumbnails


def exhibits(
    stores: Pair[ImageStore],
    identity: Pair[Tensor] | None,
    evaluation: Evaluation | None = None,
    features: Pair[Tensor] | None = None,
) -> Exhibits:
    """Choose what is shown.

    Args:
        stores: the training images.
        identity: (N,) of the readable ones, where known.
        evaluation: the test images and trials, if there are any.
        features: (N, D) of the test images.
    """
    tile = tile_size(stores.visible.size)

    def training(modality: Modality) -> Images:
        store = stores[modality]
        known = np.full(len(store.good), UNKNOWN_IDENTITY, np.int32)
        if identity is not None:
            known = identity[modality].cpu().numpy().astype(np.int32)
        shown = of_each_person(known, TRAINING_TILES)
        return shown_of(store, store.good.numpy(), known, shown, tile)

    train = Pair.build(training)
    if evaluation is None or features is None:
        return Exhibits(tile, train)
    camera = evaluation.stores.map(lambda store: store.records.camera)
    first = leaders(features, identity=evaluation.identity, camera=camera, trials=evaluation.trials)
    mapped = mapped_rows(evaluation.identity)

    def tested(modality: Modality) -> Images:
        store = evaluation.stores[modality]
        seen = [mapped[modality], *(held.query for held in first.values() if held.side == modality)]
        seen += [held.nearest.ravel() for held in first.values() if held.side != modality]
        shown = np.unique(np.concatenate(seen))
        known = evaluation.identity[modality].cpu().numpy().astype(np.int32)
        return shown_of(store, np.arange(len(store)), known, shown[shown >= 0], tile)

    kept = Pair.build(lambda m: features[m].cpu()[mapped[m].astype(np.int64)].numpy().astype(np.float16))
    return Exhibits(tile, train, Pair.build(tested), first, mapped, kept)


def shown_of(store: ImageStore, rows: Array, identity: Ints, shown: Array, tile: tuple[int, int]) -> Images:
    """``rows``: of the store, for each of the N images."""
    camera = store.records.camera.numpy()[rows].astype(np.int32)
    tiles = pack(store.read(rows[shown]), tile=tile, quality=QUALITY)
    return Images(identity, camera, shown.astype(np.int32), tiles)


def of_each_person(identity: Ints, count: int) -> npt.NDArray[np.int64]:
    """About ``count`` rows, as many of each person; spread over all rows where nobody is known."""
    people = np.unique(identity[identity >= 0]).astype(np.int64)
    if len(people) == 0:
        return spread(np.arange(len(identity)), count)
    each = min(MOST_OF_A_PERSON, max(1, count // len(people)))
    chosen = [spread(np.flatnonzero(identity == person), each) for person in spread(people, count)]
    return np.sort(np.concatenate(chosen))


def mapped_rows(identity: Pair[Tensor]) -> Pair[Ints]:
    """Rows of some people that are seen in both modalities."""
    known = identity.map(lambda column: column.cpu().numpy())
    both = np.intersect1d(known.visible, known.infrared)
    people = spread(both[both >= 0], MAPPED_PEOPLE)

    def rows(modality: Modality) -> Ints:
        chosen = [spread(np.flatnonzero(known[modality] == person), MAPPED_IMAGES) for person in people]
        return np.sort(np.concatenate([np.zeros(0, np.int64), *chosen])).astype(np.int32)

    return Pair.build(rows)


def exhibits_of(folder: RunFolder, *, device: str | torch.device = "auto") -> Exhibits:
    """What the folder keeps; for a run that kept nothing, made from its newest checkpoint and its dataset.

    Raises:
        ReidassocError: the folder keeps nothing, and the checkpoint or the dataset can't be used.
    """
    if (path := folder.path / EXHIBITS).is_file():
        return Exhibits.load(path)
    recipe = folder.located_recipe()
    fabric = open_device(device, recipe.precision)
    dataset = registry.build("datasets", recipe.dataset)
    network = registry.build("networks", untrained(recipe.network)).build(size=recipe.size).to(fabric.device)
    checkpoint.load_network(network, checkpoint.newest(folder, fabric.device))
    stores, identity = training_images(dataset, recipe)
    evaluation = prepare_evaluation(dataset, recipe)
    features = evaluation.embed(network, fabric) if evaluation is not None else None
    made = exhibits(stores, identity, evaluation, features)
    return made if folder.pictures else made.without_pictures()
