"""Features of all images of some records, in evaluation mode."""

from __future__ import annotations

import warnings

import torch
from lightning_fabric import Fabric
from torch import Tensor, nn

from reidassoc.data.progress import Progress, Say, silent
from reidassoc.data.store import ImageStore
from reidassoc.data.transforms import normalise
from reidassoc.engine.devices import ranks
from reidassoc.engine.out_of_memory import by_batches
from reidassoc.ops.part_features import PARTS
from reidassoc.ops.unit_rows import unit_rows
from reidassoc.types import TRACKLET, Features, Modality, Pair


@torch.no_grad()
def extract(
    network: nn.Module,
    stores: Pair[ImageStore],
    fabric: Fabric,
    *,
    batch: int,
    mirror: bool = False,
    say: Say = warnings.warn,
    progress: Say = silent,
) -> Pair[Features]:
    """Return unit features of every readable image; ``index`` names its row in the store. Ranks share the work.

    Where the network gives part features, ``extra["parts"]`` holds each image's on its own map (N, P, D), unit rows; not
    with ``mirror``, since nothing evaluates them. Where some image's tracklet is known, ``extra["tracklet"]`` holds them.

    Args:
        batch: images at a time; halved where memory runs out.
        mirror: average each image's unit feature with that of its mirror image (evaluation does; clustering doesn't).
        say: takes a line about a batch that was halved.
        progress: takes a line a minute.
    """
    network.eval()
    features = Pair.build(
        lambda modality: features_of(network, stores[modality], modality, fabric, batch, mirror, say, progress)
    )
    network.train()
    return features


def features_of(
    network: nn.Module,
    store: ImageStore,
    modality: Modality,
    fabric: Fabric,
    batch: int,
    mirror: bool,
    say: Say,
    progress: Say,
) -> Features:
    def embed(pixels: Tensor) -> tuple[Tensor, Tensor | None]:
        images = normalise(pixels.to(fabric.device, non_blocking=True))
        unit, part = unit_features(network, images, modality, fabric)
        if mirror:
            return unit_rows(unit + unit_features(network, images.flip(3), modality, fabric)[0]), None
        return unit, part

    own = store.good[ranks.own_share(fabric, len(store.good))]
    found, done, far = [], 0, Progress(f"features of {modality} images", progress)
    for chunk in by_batches(own, batch, lambda rows: embed(store.read(rows)), say):
        found.append(chunk)
        done += len(chunk[0])
        far(done, len(own))
    if not found:  # a rank without an image: a blank one says what features look like, and is left out
        unit, part = embed(torch.zeros(1, 3, *store.size, dtype=torch.uint8))
        found = [(unit[:0], None if part is None else part[:0])]
    chunks = [unit for unit, _ in found]
    parts = [part for _, part in found if part is not None]
    index, camera = store.good.to(fabric.device), store.records.camera[store.good].to(fabric.device)
    x, *part_features = (ranks.gathered(fabric, torch.cat(c), len(index)) for c in (chunks, parts) if c)
    extra = {PARTS: part_features[0]} if part_features else {}
    tracklet = store.records.tracklet[store.good]
    if bool((tracklet >= 0).any()):
        extra[TRACKLET] = tracklet.to(fabric.device)
    return Features(x, index, camera, extra)


def unit_features(
    network: nn.Module, images: Tensor, modality: Modality, fabric: Fabric
) -> tuple[Tensor, Tensor | None]:
    """Unit global features (B, D), and unit part features (B, P, D) where the network gives any."""
    stream = str(modality)
    with fabric.autocast():
        output = network({stream: images})[stream]
    part = output.parts.get((stream, stream))
    return unit_rows(output.z), None if part is None else unit_rows(part)
