"""The momentum update of cluster banks, vectorised over labels, with a loop only over a label's repeats.

Source: the ClusterNCE memory of Dai et al., Cluster Contrast, ACCV 2022.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor

TRACE = 1e-9  # of a unit vector: below what float32 can hold


def plan_rounds(labels: npt.NDArray[np.int64]) -> Tensor:
    """Plan, on the host, in which order rows enter a bank: the last round holds every label's last row, and so on back.

    Args:
        labels: (M,) label of each row in the order of feeding; −1 rows are left out.

    Returns:
        (R, L) int64 row numbers, R = most repeats of a label, L = labels present; −1 in the rounds before a label's first.
    """
    rows = np.flatnonzero(labels >= 0)
    if len(rows) == 0:
        return torch.empty((0, 0), dtype=torch.int64)
    _, column, repeats = np.unique(labels[rows], return_inverse=True, return_counts=True)
    order = np.argsort(column, kind="stable")
    ends = np.cumsum(repeats)
    plan = np.full((repeats.max(), len(repeats)), -1, dtype=np.int64)
    plan[np.arange(len(rows)) - ends[column[order]], column[order]] = rows[order]  # counted from the last round
    return torch.from_numpy(plan)


def lasting_rounds(momentum: float) -> int | None:
    """Return how many of a label's last rows leave a trace in float32; None = all of them.

    A round divides what was there by ``‖μ b + (1 − μ) f‖ ≥ |1 − 2μ|``, so its share shrinks by ``μ / |1 − 2μ|`` at least:
    after ten rounds at μ = 0.1 nothing is left of it.
    """
    if momentum >= 1 / 3:
        return None
    share = momentum / (1 - 2 * momentum)
    return max(1, math.ceil(math.log(TRACE) / math.log(share))) if share > 0 else 1


@dataclass(frozen=True)
class Intake:
    """What one bank takes in after a step.

    Args:
        vectors: (K, D) unit rows, the bank before the step.
        features: (M, D) unit rows, in the order of feeding.
        labels: (M,) int64 rows of the bank.
        rounds: (R, L) from :func:`plan_rounds`, on the device of the features.
        momentum: μ in [0, 1].
    """

    vectors: Tensor
    features: Tensor
    labels: Tensor
    rounds: Tensor
    momentum: float


def update_banks(intakes: Sequence[Intake], gate: Tensor | None = None) -> list[Tensor]:
    """Return each bank after ``vectors[y] ← normalise(μ vectors[y] + (1 − μ) f)`` for each row, in the planned order.

    All banks of the same width advance together, so that a step costs as many rounds as its longest plan, not as all of
    them; a label's rows that leave no trace are skipped (:func:`lasting_rounds`).

    Args:
        intakes: what each bank takes in.
        gate: () bool; where it is false, no bank changes.
    """
    updated = [intake.vectors for intake in intakes]
    fed = [number for number, intake in enumerate(intakes) if intake.rounds.numel()]
    for width in sorted({intakes[number].vectors.shape[1] for number in fed}):
        group = [number for number in fed if intakes[number].vectors.shape[1] == width]
        for number, (slots, rows) in zip(group, _advanced([intakes[number] for number in group], gate), strict=True):
            updated[number] = updated[number].index_copy(0, slots, rows)
    return updated


def _advanced(intakes: Sequence[Intake], gate: Tensor | None) -> list[tuple[Tensor, Tensor]]:
    """Run the rounds of banks of one width side by side; return the rows that changed: where (L,), and to what (L, D)."""
    plans = [intake.rounds[-(lasting_rounds(intake.momentum) or len(intake.rounds)) :] for intake in intakes]
    # The last round has every label.
    slots = [intake.labels[plan[-1]] for intake, plan in zip(intakes, plans, strict=True)]
    depth = max(len(plan) for plan in plans)
    offsets = np.cumsum([0, *(len(intake.features) for intake in intakes)])
    plan = torch.cat(
        [
            F.pad(torch.where(plan < 0, -1, plan + int(offset)), (0, 0, depth - len(plan), 0), value=-1)
            for plan, offset in zip(plans, offsets[:-1], strict=True)
        ],
        dim=1,
    )
    start = torch.cat([intake.vectors[slot] for intake, slot in zip(intakes, slots, strict=True)])
    momentum = torch.cat(
        [start.new_full((len(slot), 1), intake.momentum) for intake, slot in zip(intakes, slots, strict=True)]
    )
    features = torch.cat([intake.features for intake in intakes]).to(start.dtype)
    fresh = (1 - momentum) * features[plan.clamp_min(0)]
    there = (plan >= 0).unsqueeze(2)
    rows = start
    for number in range(depth):
        mixed = F.normalize(torch.addcmul(fresh[number], momentum, rows), dim=1)
        rows = torch.where(there[number], mixed, rows)
    if gate is not None:
        rows = torch.where(gate, rows, start)
    return list(zip(slots, torch.split(rows, [len(slot) for slot in slots]), strict=True))
