"""The epochs of a run. The loop reads in order: features → targets → banks → batches → report."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, NoReturn

import torch
from lightning_fabric import Fabric
from torch import Tensor

from reidassoc.data.loader import HostBatch, batches
from reidassoc.data.samplers import Sampler
from reidassoc.data.store import ImageStore
from reidassoc.engine import checkpoint
from reidassoc.engine.devices import ranks
from reidassoc.engine.devices.as_gpus import norm_groups
from reidassoc.engine.devices.device import open_device
from reidassoc.engine.devices.sync_batch_norm import by_itself
from reidassoc.engine.evaluate import Evaluation
from reidassoc.engine.extract import extract
from reidassoc.engine.label_stage import FALLBACKS, SKIPPED, Given, Labelled, label
from reidassoc.engine.loss_meter import Reading, Tally
from reidassoc.engine.optim import build_optimiser, learning_rate, set_learning_rate
from reidassoc.engine.out_of_memory import ran_out, too_large
from reidassoc.engine.report_data import exhibits
from reidassoc.engine.sample_losses import sample_losses, wanted
from reidassoc.engine.shared_labelling import label_together
from reidassoc.engine.step import Step
from reidassoc.errors import ReidassocError
from reidassoc.evaluation.labels import label_quality
from reidassoc.interfaces.banks import Banks
from reidassoc.ops.seeds import seed_for
from reidassoc.pipeline import declare
from reidassoc.recipe.compose import Composed, Method
from reidassoc.recipe.model import Optimiser, Recipe, Stage
from reidassoc.runs.folder import KEPT, RunFolder
from reidassoc.runs.observer import Observer
from reidassoc.runs.report_data import EXHIBITS, Exhibits
from reidassoc.types import Modality, Pair

LOG_EVERY = 10  # steps between two readings of the losses, the only ones that wait for the device
LOST = "steps without effect (loss not finite)"


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
    log: Observer
    kept: int = KEPT
    pictures: bool = True

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

            features = extract(
                self.state.extractor, self.stores, self.fabric, batch=self.recipe.extract_batch, say=self.log.once
            )
            clock.lap("extract")
            given = Given(features, epoch, within, self.recipe.seed, self.state.targets, self.state.losses)
            make = partial(label, method, stage, given, counts=self.counts, identity=self.identity)
            before = Counter(self.counts)
            labelled = label_together(self.fabric, given, self.counts, make)
            for name in self.counts - before:
                self.log.once(f"epoch {epoch}: {FALLBACKS[name]}")
            clock.lap("label")
            losses: dict[str, float] = {}
            if labelled:
                banks = self.prepare(stage, method, labelled)
                losses = self.steps(stage, method, labelled, banks)
                clock.lap("train")
                self.state.losses = self.sample_losses(method, labelled, banks)
                clock.lap("losses")

            self.state.epoch = epoch + 1
            self.state.targets = labelled.targets if labelled else self.state.targets
            row = self.report(epoch, stage, labelled, losses)
            clock.lap("evaluate")
            self.state.counts = dict(self.counts)
            if ranks.first(self.fabric):
                self.write(row, labelled, clock)

    def write(self, row: Mapping[str, Any], labelled: Labelled | None, clock: Clock) -> None:
        """Keep what the epoch has led to; the checkpoint comes last, and makes it count."""
        if labelled:
            self.folder.write_labels(row["epoch"], labelled.targets)
        self.folder.append_metrics({**row, "seconds": clock.laps})
        checkpoint.save(self.folder, self.state, self.recipe.digest, self.kept)
        self.log.report({**row, "seconds": clock.laps})

    def prepare(self, stage: Stage, method: Method, labelled: Labelled) -> Banks:
        """Make the epoch's banks, and its heads where they are not kept."""
        scene, targets = labelled.scene, labelled.targets
        settings = self.optimiser_settings(stage)
        self.state.heads.prepare(method, labelled, settings=settings, device=self.fabric.device)
        return declare(method, scene, targets)

    def steps(self, stage: Stage, method: Method, labelled: Labelled, banks: Banks) -> dict[str, float]:
        """Train one epoch's batches; return the mean of every loss term."""
        scene, targets, epoch = labelled.scene, labelled.targets, labelled.scene.epoch
        sampling = method.objectives[0].part.sampling
        sampler = Sampler.build(targets, sampling, identities=stage.identities, images=stage.images)
        if not sampler.usable:
            self.counts[SKIPPED] += 1
            self.log.once(f"epoch {epoch}: no label can be drawn: nothing is trained")
            return {}
        if sampler.short:
            self.log.once(
                f"fewer than {stage.identities} usable labels in epoch {epoch}: some are drawn twice in a batch; harmless for a "
                f"few epochs, else take fewer at once (--set {stage.name}.identities=N) or a looser clusterer"
            )
        step = Step(
            self.fabric, self.state.network, self.state.optimiser, method, scene, targets, banks, self.state.heads,
            stage.augmentation.pad, max(1, norm_groups(self.recipe, self.fabric.world_size) // self.fabric.world_size),
            self.state.average,
        )  # fmt: skip
        settings = self.optimiser_settings(stage)
        tally = Tally()
        index = scene.features.map(lambda features: features.index.cpu().numpy())

        def loaded(sampler: Sampler, steps: int, fabric: Fabric) -> Iterator[HostBatch]:
            return batches(
                sampler=sampler, stores=self.stores, index=index, targets=targets, banks=[live.bank for live in banks],
                augmentation=stage.augmentation, steps=steps, seed=self.recipe.seed, epoch=epoch,
                share=partial(ranks.own_share, fabric),
            )  # fmt: skip

        def attempt(identities: int) -> None:  # this rank's share, by itself: the others wait in the step that failed
            alone = open_device(str(self.fabric.device), self.recipe.precision)
            share = -(-identities // self.fabric.world_size)
            smaller = Sampler.build(targets, sampling, identities=share, images=stage.images)
            with by_itself(self.state.network):
                for host in loaded(smaller, 1, alone):
                    replace(step, fabric=alone)(host)

        for number, host in enumerate(loaded(sampler, stage.iterations, self.fabric), start=1):
            rate = learning_rate(settings, epoch, self.state.optimiser_step)
            set_learning_rate(self.state.optimiser, rate * settings.network_rate)
            for head in self.state.heads:
                set_learning_rate(head.optimiser, rate)
            try:
                outcome = step(host)
            except Exception as error:
                if not ran_out(error):
                    raise
                outcome = None
            if outcome is None:  # outside of the except, which holds on to what the step had made
                raise too_large(stage.name, stage.identities, stage.images, attempt)
            tally.add(*outcome)
            self.state.optimiser_step += 1
            if number % LOG_EVERY == 0 or number == stage.iterations:
                reading = tally.read()
                if reading.lost and self.recipe.on_nan == "stop":
                    self.stop(epoch, stage, labelled, reading, number)
                if reading.mean:
                    self.log.step(number, reading.mean, images=sum(len(rows) for rows in host.rows))
        self.counts.update({LOST: reading.lost} if reading.lost else {})
        for network in self.state.networks:  # with statistics of its own, the first rank's count
            ranks.align(self.fabric, network.buffers())
        return dict(reading.mean)

    def stop(self, epoch: int, stage: Stage, labelled: Labelled, reading: Reading, number: int) -> NoReturn:
        """End a run whose loss is not finite any more; its row so far stays, marked as cut off."""
        row = self.report(epoch, stage, labelled, reading.mean, evaluate=False)
        if ranks.first(self.fabric):
            self.folder.append_metrics({**row, "stopped": {"step": number, "not finite": list(reading.culprits)}})
        raise ReidassocError(
            f"the loss is no longer finite in epoch {epoch}, step ≤ {number} ({', '.join(reading.culprits) or 'gradient'}); "
            "start anew with a lower learning rate, or leave such steps out with --on-nan skip; "
            f"{self.folder.path} holds the last whole epoch"
        )

    def sample_losses(self, method: Method, labelled: Labelled, banks: Banks) -> Pair[Tensor] | None:
        """The loss of every sample as the epoch ends, if the stage asks for it."""
        if not wanted(method):
            return None
        return sample_losses(
            self.state.extractor, self.stores, self.fabric, method, labelled, banks, self.state.heads,
            batch=self.recipe.extract_batch,
        )  # fmt: skip

    def optimiser_settings(self, stage: Stage) -> Optimiser:
        """The settings in force: the stage's own, or those of the last stage before it that has some."""
        before = self.recipe.stages[: self.recipe.stages.index(stage) + 1]
        return next((known.optimiser for known in reversed(before) if known.optimiser is not None), Optimiser())

    def report(
        self, epoch: int, stage: Stage, labelled: Labelled | None, losses: Mapping[str, float], *, evaluate: bool = True
    ) -> dict[str, Any]:
        """What metrics.jsonl says of the epoch, timings aside."""
        row: dict[str, Any] = {"epoch": epoch, "stage": stage.name, "losses": dict(losses)}
        if labelled is not None:
            row["clusters"] = {str(m): labelled.scene.clustering.own[m].count for m in Modality}
            row["outliers"] = {str(m): int((labelled.scene.clustering.own[m].labels < 0).sum()) for m in Modality}
            if self.identity is not None and ranks.first(self.fabric):
                row["labels"] = label_quality(labelled.targets, self.identity)
        last = epoch + 1 == self.recipe.epochs
        every = self.recipe.evaluate_every
        if evaluate and self.evaluation is not None and (last or (every and (epoch + 1) % every == 0)):
            features = self.evaluation.embed(self.state.extractor, self.fabric)
            if ranks.first(self.fabric):
                retrieval = self.evaluation.score(features)
                row |= {"retrieval": retrieval.summary, "notes": list(retrieval.notes)}
                if last:
                    self.folder.write_scores(self.evaluation.scores(retrieval))
                    self.keep(exhibits(self.stores, self.identity, self.evaluation, features))
        elif evaluate and last and ranks.first(self.fabric):
            self.keep(exhibits(self.stores, self.identity))
        return row

    def keep(self, shown: Exhibits) -> None:
        shown = shown if self.pictures else shown.without_pictures()
        with self.folder.replacing(EXHIBITS) as temporary:
            shown.save(temporary)


class Clock:
    """Seconds of each part of an epoch."""

    def __init__(self) -> None:
        self.laps: dict[str, float] = {}
        self._last = time.perf_counter()

    def lap(self, name: str) -> None:
        now = time.perf_counter()
        self.laps[name] = round(now - self._last, 3)
        self._last = now
