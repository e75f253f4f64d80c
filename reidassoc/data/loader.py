"""Prepares the batches of an epoch on the host, ahead of the step that uses them."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
import torch
from torch import Tensor

from reidassoc.data.samplers import Rows, Sampler
from reidassoc.data.store import ImageStore
from reidassoc.data.transforms import Draw, draw
from reidassoc.interfaces.banks import Bank
from reidassoc.ops.banks import plan_rounds
from reidassoc.ops.seeds import generator_for, seed_for
from reidassoc.recipe.model import Augmentation
from reidassoc.types import STREAMS, Modality, Pair, Targets

T = TypeVar("T")
AHEAD = 2  # batches prepared before they are asked for


@dataclass(frozen=True)
class HostBatch:
    """What a step needs from the host. On several devices, images and draws are those of this rank's share.

    Args:
        rows: (B,) int64 rows of each modality's features, of all ranks.
        images: (b, 3, H, W) uint8 of each modality.
        draws: the augmentation of each stream.
        rounds: the plan of each fed bank's update, see ``ops.banks.plan_rounds``.
    """

    rows: Pair[Rows]
    images: Pair[Tensor]
    draws: Mapping[str, Draw]
    rounds: Mapping[str, Tensor]


def plan_feeds(
    banks: list[Bank], rows: Pair[Rows], hard: Mapping[tuple[Modality, str], Rows], random: np.random.Generator
) -> dict[str, Tensor]:
    """Plan the update of every fed bank for a batch; banks with the same rows and feeding order share a plan."""
    shared: dict[tuple[str, str, tuple[str, ...], bool], Tensor] = {}
    plans = {}
    for bank in banks:
        if bank.fed_by:
            key = (bank.level, str(bank.space), bank.fed_by, bank.shuffled)
            if key not in shared:
                fed = [(STREAMS[stream], rows[STREAMS[stream]]) for stream in bank.fed_by]
                labels = np.concatenate([bank.rows_fed(images, hard[m, bank.space][images]) for m, images in fed])
                order = random.permutation(len(labels)) if bank.shuffled else np.arange(len(labels))
                planned = plan_rounds(labels[order])
                shared[key] = torch.where(planned < 0, planned, torch.from_numpy(order)[planned.clamp_min(0)])
            plans[bank.name] = shared[key]
    return plans


def batches(
    *,
    sampler: Sampler,
    stores: Pair[ImageStore],
    index: Pair[Rows],
    targets: Targets,
    banks: list[Bank],
    augmentation: Augmentation,
    steps: int,
    seed: int,
    epoch: int,
    share: Callable[[int], slice] = slice,
) -> Iterator[HostBatch]:
    """Yield the batches of an epoch, each the same whenever it is made: its draws depend on (seed, epoch, step) alone.

    Args:
        index: (N,) row in the store of each feature row.
        share: of a batch of B images, those that this rank embeds; all if not given.
    """
    hard = {key: labels.hard.cpu().numpy() for key, labels in targets.table.items()}

    def make(step: int) -> HostBatch:
        feeding = np.random.default_rng(seed_for(seed, epoch, step, "feeding"))
        rows = sampler.batch(np.random.default_rng(seed_for(seed, epoch, step, "sampler")))
        images = Pair.build(lambda m: stores[m].read(index[m][rows[m][share(len(rows[m]))]]))
        draws = {
            stream: draw(
                augmentation,
                stream,
                len(rows[modality]),
                stores[modality].size,
                generator_for(seed, epoch, step, stream),
            ).take(share(len(rows[modality])))
            for stream, modality in STREAMS.items()
        }
        return HostBatch(rows, images, draws, plan_feeds(banks, rows, hard, feeding))

    return ahead(make, steps)


def ahead(make: Callable[[int], T], count: int, depth: int = AHEAD) -> Iterator[T]:
    """Yield ``make(0)`` … ``make(count − 1)``, made in a thread a few items ahead; an error there is raised here."""
    ready: queue.Queue[tuple[T | None, BaseException | None]] = queue.Queue(depth)
    stopped = threading.Event()

    def offer(item: tuple[T | None, BaseException | None]) -> None:
        while not stopped.is_set():
            try:
                ready.put(item, timeout=0.1)
            except queue.Full:
                continue
            return

    def work() -> None:
        try:
            for number in range(count):
                if stopped.is_set():
                    return
                offer((make(number), None))
        except BaseException as error:  # handed over, and raised where the batches are used
            offer((None, error))

    thread = threading.Thread(target=work, daemon=True, name="reidassoc-loader")
    thread.start()
    try:
        for _ in range(count):
            item, error = ready.get()
            if error is not None:
                raise error
            yield item  # type: ignore[misc]
    finally:
        stopped.set()
        thread.join()
