"""GPCR: predictions over single images, consistent across streams and parts."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, ClassVar

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor

from reidassoc import Bank, Banks, Batch, Modality, Refiner, Scene, Targets
from reidassoc.errors import RecipeError
from reidassoc.ops.part_features import unit_parts
from reidassoc.ops.positives import Near, near_floor, near_rows, positive_loss


@dataclass(frozen=True, kw_only=True)
class Gpcr(Refiner):
    """Draw the streams of a batch to the images that all of them find near, and their parts to those that parts agree on.

    Instance banks of each modality, global and per part, hold every image's feature and stay as they are for an epoch;
    p = softmax(⟨f, bank⟩ / τ). Image i of every stream shows the same pseudo-identity. Its global positives in a bank are
    the k nearest of all its streams, intersected. A part row is a stream s whose query is put to a stream m's map; its
    positives are the k nearest of s's global feature that are also among the k nearest of the part rows (s, m') of
    another map m'. Loss: −log Σ_positives p, a mean over all rows that have a positive, summed over the two banks; a mean
    over parts. No labels are read. Published with weight 0.5. Source: SALCR, IJCV 2025, arXiv 2504.19244,
    global-part collaborative refinement.

    Raises:
        RecipeError: batches whose streams differ in size, or part features that the network doesn't give.
    """

    paper: ClassVar[str] = "SALCR, IJCV 2025, arXiv 2504.19244"
    needs: ClassVar[frozenset[str]] = frozenset({"paired", "parts"})
    gives: ClassVar[frozenset[str]] = frozenset({"instance bank"})
    variants: ClassVar[tuple[str, ...]] = ("parts=false",)

    k: Annotated[int, Field(ge=1, description="neighbours of a row in a bank")] = 30
    temperature: Annotated[float, Field(gt=0, description="τ of the banks")] = 0.05
    parts: Annotated[bool, Field(description="refine part features, too; false: global ones alone")] = True

    def __post_init__(self) -> None:
        if not self.parts:
            object.__setattr__(self, "needs", frozenset({"paired"}))

    def banks(self, scene: Scene, targets: Targets) -> Sequence[Bank]:
        def bank(modality: Modality, start: Tensor, part: int | None = None) -> Bank:
            return Bank(
                name=f"gpcr.{modality}" if part is None else f"gpcr.{modality}.{part}",
                space=modality,
                role="instance",
                start=start,
                level="instance",
                part=part,
                temperature=self.temperature,
            )

        declared = [bank(modality, scene.features[modality].x) for modality in Modality]
        for modality in Modality if self.parts else ():
            parts = unit_parts(scene.features[modality], modality, "gpcr")
            declared += [bank(modality, parts[:, part], part) for part in range(parts.shape[1])]
        return declared

    def losses(self, batch: Batch, banks: Banks) -> Mapping[str, Tensor]:
        if len({len(view.rows) for view in batch}) != 1:
            raise RecipeError(
                "gpcr compares image i of every stream, and the streams differ in size; take an objective that draws "
                "'paired' batches, such as dual"
            )
        parts = self.part_features(batch) if self.parts else {}
        by_number = list(torch.stack([x.transpose(0, 1) for x in parts.values()], 1).flatten(1, 2)) if parts else []
        alike: list[Tensor] = []
        by_part: list[Tensor] = []
        for modality in Modality:
            logits = {view.stream: banks[f"gpcr.{modality}"].logits(view.feature) for view in batch}
            near = {stream: near_rows(rows, self.k) for stream, rows in logits.items()}
            alike.append(self.global_loss(logits, near))
            known = {stream: near[stream].has(rows, near[stream].index) for stream, rows in logits.items()}
            for number, rows in enumerate(by_number):
                live = banks[f"gpcr.{modality}.{number}"]
                by_part.append(self.part_loss(parts, live.logits(rows), near, known))
        terms = {"global": torch.stack(alike).sum()}
        return {**terms, "part": torch.stack(by_part).sum() / len(by_number)} if by_number else terms

    def part_features(self, batch: Batch) -> dict[tuple[str, str], Tensor]:
        """(B, P, D) unit part features by (query stream, map stream)."""
        found = {pair: F.normalize(parts, dim=2) for view in batch for pair, parts in view.parts.items()}
        missing = [(query, asked) for query in batch.views for asked in batch.views if (query, asked) not in found]
        if missing:
            raise RecipeError(
                f"gpcr needs the part features of every stream's query on every stream's map, and there are none of "
                f"{missing[0][0]} on {missing[0][1]}; take two_stream(parts=3) or the option parts=false"
            )
        return found

    def global_loss(self, logits: Mapping[str, Tensor], near: Mapping[str, Near]) -> Tensor:
        """The loss in one global bank: a row's positives are near to all streams."""
        index = torch.cat([mine.index for mine in near.values()])
        agreed = [
            torch.stack([near[other].has(logits[other], mine.index) for other in logits]).all(dim=0)
            for mine in near.values()
        ]
        return positive_loss(torch.cat(list(logits.values())), index, torch.cat(agreed))

    def part_loss(
        self, pairs: Iterable[tuple[str, str]], logits: Tensor, near: Mapping[str, Near], known: Mapping[str, Tensor]
    ) -> Tensor:
        """The loss of one part in one bank: rows (query, map), positives from the other maps.

        Args:
            pairs: (query stream, map stream) of the blocks of rows.
            logits: (9·B, N), block by block.
            near: the global neighbours of each stream.
            known: (B, k) bool, which entries of ``near.index`` are near.
        """
        names = list(pairs)
        blocks = torch.split(logits, len(logits) // len(names))
        index = [near[query].index for query, _ in names]
        floors = torch.split(near_floor(logits, self.k), len(blocks[0]))
        found = {
            pair: Near(rows, floor).has(block, rows)
            for pair, rows, floor, block in zip(names, index, floors, blocks, strict=True)
        }
        positive = []
        for query, asked in names:
            others = [found[pair] for pair in names if pair[0] == query and pair[1] != asked]
            elsewhere = torch.stack(others).any(dim=0) if others else torch.zeros_like(known[query])
            positive.append(known[query] & elsewhere)
        return positive_loss(logits, torch.cat(index), torch.cat(positive))
