"""Banks: one unit vector per cluster or image, against which features are classified, fed by the batch after each step."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Literal, TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor

from reidassoc.errors import PluginError, RecipeError
from reidassoc.ops.banks import Intake, update_banks
from reidassoc.ops.precision import at_least_single

T = TypeVar("T")
Level = Literal["cluster", "instance"]  # what a row of a bank is


@dataclass(frozen=True, kw_only=True)
class Bank:
    """What a plug-in declares about a bank that it trains against.

    Args:
        name: unique within a recipe.
        space: the label space whose clusters are its rows; of an instance bank, the modality whose images are.
        role: ``specific`` (fed by the space's own modality), ``cross`` (by the other one), ``agnostic`` (by both),
            ``joint`` or ``instance``; by this name refiners find it.
        start: (K, D) what it starts an epoch from; rows are normalised.
        fed_by: streams that feed it, in order; none for a frozen bank. Those of an instance bank are of its modality.
        level: what a row is: a cluster, fed by the images with its label; or (``instance``) an image, in the order of
            ``scene.features[space]``, fed by itself whenever it is drawn.
        part: number of the part whose features it holds; None = the global feature.
        shuffled: feed the rows of the streams in random order instead, drawn anew each step.
        momentum: μ of the update.
        temperature: τ by which logits are divided.
    """

    name: str
    space: str
    role: str
    start: Tensor
    fed_by: tuple[str, ...] = ()
    shuffled: bool = False
    level: Level = "cluster"
    part: int | None = None
    momentum: float = 0.1
    temperature: float = 0.05

    def rows_fed(self, images: T, labels: T) -> T:
        """The rows that images with some labels feed: of an instance bank the images' own, else those of the labels."""
        return images if self.level == "instance" else labels


@dataclass
class LiveBank:
    """A bank during an epoch: its declaration and its vectors (K, D), which change by an explicit call only."""

    bank: Bank
    vectors: Tensor

    def logits(self, feature: Tensor) -> Tensor:
        """Return ⟨f, bank⟩ / τ as (B, K) for unit features (B, D)."""
        return feature @ self.vectors.T / self.bank.temperature


@dataclass(frozen=True)
class Feed:
    """What one bank takes in after a step.

    Args:
        features: (M, D) unit rows, stream by stream in the bank's order.
        labels: (M,) int64 rows of the bank.
        rounds: (R, L) the host's plan, see ``ops.banks.plan_rounds``.
    """

    features: Tensor
    labels: Tensor
    rounds: Tensor


@dataclass(frozen=True)
class Banks:
    """The banks of an epoch, by name.

    Raises:
        RecipeError: two plug-ins of a recipe declare a bank of the same name.
    """

    live: Mapping[str, LiveBank] = field(default_factory=dict)

    @staticmethod
    def rebuild(declared: Iterable[Bank]) -> Banks:
        live: dict[str, LiveBank] = {}
        for bank in declared:
            if bank.name in live:
                raise RecipeError(
                    f"two parts of the recipe declare a bank '{bank.name}'; give one of them another name"
                )
            live[bank.name] = LiveBank(bank, F.normalize(at_least_single(bank.start), dim=-1))
        return Banks(live)

    def __getitem__(self, name: str) -> LiveBank:
        return self.live[name]

    def __iter__(self) -> Iterator[LiveBank]:
        return iter(self.live.values())

    def select(self, *roles: str, space: str | None = None, part: int | None = None) -> list[LiveBank]:
        """The banks with one of these roles (and of this space), in the order of declaration."""
        return [
            live
            for live in self.live.values()
            if live.bank.role in roles and live.bank.part == part and (space is None or live.bank.space == str(space))
        ]

    @torch.no_grad()
    def update(self, feeds: Mapping[str, Feed], gate: Tensor | None = None) -> None:
        """Feed each named bank. ``gate`` () bool on the device: where it is false, nothing changes."""
        intakes = [
            Intake(live.vectors, feed.features, feed.labels, feed.rounds, live.bank.momentum)
            for live, feed in ((self.live[name], feed) for name, feed in feeds.items())
        ]
        for name, vectors in zip(feeds, update_banks(intakes, gate), strict=True):
            self.live[name].vectors = vectors


class BanksBefore:
    """The banks as a step found them: a loss may feed one by hand, and a step that is not finite must leave no trace."""

    def __init__(self, banks: Banks) -> None:
        self.found = [(live, live.vectors, live.vectors._version) for live in banks]

    @torch.no_grad()
    def restore_unless(self, finite: Tensor) -> None:
        """Put the old vectors back where ``finite`` () bool is false. Banks that nobody fed cost nothing.

        Raises:
            PluginError: a bank's tensor was written into, so that its old vectors are lost.
        """
        for live, vectors, version in self.found:
            if vectors._version != version:
                raise PluginError(
                    f"bank '{live.bank.name}': its vectors were written into in place while the loss was computed; declare "
                    "what feeds it by fed_by, or give it new vectors, as in banks[name].vectors = vectors.index_copy(0, rows, new)"
                )
            if live.vectors is not vectors:
                live.vectors = torch.where(finite, live.vectors, vectors)
