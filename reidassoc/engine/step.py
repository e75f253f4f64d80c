"""One training step: augment, forward, losses, backward, optimiser, banks, average. It never waits for the device.

On several ranks each embeds its share of the images, and all go on with the whole batch: the same losses, the same banks.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from lightning_fabric import Fabric
from torch import Tensor, nn

from reidassoc.data.loader import HostBatch
from reidassoc.data.transforms import augment
from reidassoc.engine.devices import ranks
from reidassoc.engine.devices.as_gpus import replicated
from reidassoc.engine.ema import Average
from reidassoc.engine.finite_step import Before, finite_step, update
from reidassoc.engine.objective_modules import Heads
from reidassoc.errors import PluginError
from reidassoc.interfaces.banks import Banks, BanksBefore, Feed
from reidassoc.interfaces.batch import Batch, View
from reidassoc.interfaces.plugins import NetworkOutput
from reidassoc.interfaces.scene import Scene
from reidassoc.ops.precision import at_least_single
from reidassoc.recipe.compose import Method
from reidassoc.recipe.requirements import needs
from reidassoc.types import STREAMS, Targets


@dataclass(frozen=True)
class Step:
    """What stays the same over the steps of an epoch.

    Args:
        pad: pixels that the augmentation pads by.
        groups: of batch-norm statistics on this rank, see ``engine.devices.as_gpus``.
        average: of the network's weights, which follows each step, if the recipe wants one.
    """

    fabric: Fabric
    network: nn.Module
    optimiser: torch.optim.Optimizer
    method: Method
    scene: Scene
    targets: Targets
    banks: Banks
    heads: Heads
    pad: int
    groups: int = 1
    average: Average | None = None

    def __call__(self, host: HostBatch) -> tuple[dict[str, Tensor], Tensor]:
        """Train on one batch, unless the loss or a gradient is not finite: then network, optimiser and banks stay as they were.

        Returns:
            every loss term, detached, on the device, and ``loss``, their weighted sum; () bool, whether the step was finite.
        """
        device = self.fabric.device
        modules = [self.network, *(head.module for head in self.heads)]
        optimisers = [self.optimiser, *(head.optimiser for head in self.heads)]
        statistics = Before(buffer for module in modules for buffer in module.buffers())  # of batch norm
        images = {
            stream: augment(
                host.images[modality].to(device, non_blocking=True), host.draws[stream].to(device), self.pad
            )
            for stream, modality in STREAMS.items()
        }
        with self.fabric.autocast():
            outputs = replicated(self.network, images, self.groups)
        views = {stream: self.view(stream, output, host) for stream, output in outputs.items()}
        batch = Batch(views, self.scene.epoch, self.scene, self.targets)

        banks = BanksBefore(self.banks)
        terms = self.losses(batch)
        loss = torch.stack(list(terms.values())).sum()
        for optimiser in optimisers:
            optimiser.zero_grad(set_to_none=True)
        self.fabric.backward(loss)
        ranks.add_gradients(self.fabric, self.network, modules[1:])
        finite = finite_step(loss, modules)
        update(optimisers, finite)
        statistics.restore_unless(finite)
        banks.restore_unless(finite)
        self.banks.update(self.feeds(batch, host.rounds), gate=finite)
        if self.average is not None:
            self.average.follow(self.network)
        return {"loss": loss.detach(), **{name: term.detach() for name, term in terms.items()}}, finite

    def view(self, stream: str, output: NetworkOutput, host: HostBatch) -> View:
        """What the network says of a stream's images, those of all ranks."""

        def whole(x: Tensor) -> Tensor:
            return ranks.gathered(self.fabric, x, len(rows))

        rows = torch.from_numpy(host.rows[STREAMS[stream]]).to(self.fabric.device, non_blocking=True)
        parts = {pair: whole(at_least_single(part)) for pair, part in output.parts.items()}
        seen = self.fabric.world_size == 1 or reads_maps(self.method)  # gathering maps is dear
        shown = whole(output.map) if output.map is not None and seen else None
        return View(stream, rows, whole(at_least_single(output.z)), shown, parts)

    def losses(self, batch: Batch) -> dict[str, Tensor]:
        """All loss terms with their weights, named ``part/term``."""
        terms: dict[str, Tensor] = {}
        for number, weighted in enumerate(self.method.objectives):
            found = weighted.part(batch, self.banks, **self.heads.of(number, weighted.name))
            terms |= {f"{weighted.name}/{k}": weighted.weight * v for k, v in found.items()}
        for weighted in self.method.refiners:
            found = weighted.part.losses(batch, self.banks)
            terms |= {f"{weighted.name}/{k}": weighted.weight * v for k, v in found.items()}
        if not terms:
            raise PluginError("the recipe's objectives returned no loss; an objective maps a batch to named loss terms")
        return terms

    def feeds(self, batch: Batch, rounds: Mapping[str, Tensor]) -> dict[str, Feed]:
        """What each fed bank takes in: its streams' features and the rows that they feed, in its order."""
        feeds = {}
        known: dict[
            tuple[tuple[str, ...], int | None], Tensor
        ] = {}  # banks of several spaces take in the same features
        for name, plan in rounds.items():
            bank = self.banks[name].bank
            fed = [batch[stream] for stream in bank.fed_by]
            labels = torch.cat([bank.rows_fed(view.rows, batch.labels(view, bank.space).hard) for view in fed])
            if (bank.fed_by, bank.part) not in known:
                known[bank.fed_by, bank.part] = torch.cat([fed_feature(view, bank.part) for view in fed])
            features = known[bank.fed_by, bank.part]
            feeds[name] = Feed(features, labels, plan.to(batch[bank.fed_by[0]].rows.device, non_blocking=True))
        return feeds


def reads_maps(method: Method) -> bool:
    """Whether a part of a stage says that its losses read feature maps."""
    return any("maps" in needs(weighted.part) for weighted in (*method.objectives, *method.refiners))


def fed_feature(view: View, part: int | None) -> Tensor:
    """What a view feeds into a bank: its unit global feature, or the unit feature of the part on its own map (B, D)."""
    if part is None:
        return view.feature.detach()
    return F.normalize(view.parts[view.stream, view.stream][:, part].detach(), dim=1)
