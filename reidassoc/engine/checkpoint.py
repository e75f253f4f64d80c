"""Checkpoints at epoch ends: network, optimisers, heads, targets, losses. Read with ``weights_only``; nothing in them is code."""

from __future__ import annotations

import errno
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from reidassoc.engine.ema import Average
from reidassoc.engine.objective_modules import Heads
from reidassoc.engine.optim import load_optimiser
from reidassoc.errors import CheckpointError
from reidassoc.files.npz import bomb
from reidassoc.runs.folder import KEPT, RunFolder
from reidassoc.types import Modality, Pair, SoftLabels, Targets
from reidassoc.weights import reason

FORMAT = 1


@dataclass
class State:
    """What survives from one epoch to the next.

    Args:
        epoch: the next one to train.
        optimiser_step: steps since the optimiser was made.
        targets: of the last epoch, if there was one.
        counts: faults so far, by name (fall-backs, skipped epochs).
        heads: the modules of the objectives, with their optimisers.
        losses: (N,) of each modality's samples in the last epoch, where the stage asked for them.
        average: of the network's weights, if the recipe wants one.
    """

    network: nn.Module
    optimiser: torch.optim.Optimizer
    epoch: int = 0
    optimiser_step: int = 0
    targets: Targets | None = None
    counts: dict[str, int] | None = None
    heads: Heads = field(default_factory=Heads)
    losses: Pair[Tensor] | None = None
    average: Average | None = None

    @property
    def networks(self) -> list[nn.Module]:
        """The trained one, and the averaged one if there is one."""
        return [self.network] if self.average is None else [self.network, self.average.network]

    @property
    def extractor(self) -> nn.Module:
        """The network whose features are clustered and evaluated."""
        return self.networks[-1]


def save(folder: RunFolder, state: State, digest: str, kept: int = KEPT) -> Path:
    """Write the checkpoint that ``state.epoch`` starts from; once it is on the disk, delete all but the newest ``kept``."""
    name = f"checkpoints/epoch_{state.epoch:03d}.pt"
    with folder.replacing(name) as temporary:
        try:
            torch.save(packed(state, digest), temporary)
        except RuntimeError as error:  # how torch's writer says that the disk is full
            raise OSError(errno.ENOSPC, str(error)) from error
    folder.prune(kept)
    return folder.path / name


def packed(state: State, digest: str) -> dict[str, Any]:
    return {
        "format": FORMAT,
        "recipe": digest,
        "epoch": state.epoch,
        "optimiser_step": state.optimiser_step,
        "network": state.network.state_dict(),
        "optimiser": state.optimiser.state_dict(),
        "targets": pack_targets(state.targets),
        "counts": dict(state.counts or {}),
        "heads": state.heads.packed(),
        "losses": list(state.losses) if state.losses is not None else None,
        "average": state.average.packed() if state.average is not None else None,
    }


def pack_targets(targets: Targets | None) -> dict[str, Any] | None:
    if targets is None:
        return None
    table = {
        f"{modality}|{space}": (labels.value, labels.weight, labels.index, labels.count)
        for (modality, space), labels in targets.table.items()
    }
    return {"table": table, "prototypes": dict(targets.prototypes)}


def unpack_targets(data: dict[str, Any] | None) -> Targets | None:
    if data is None:
        return None
    table: dict[tuple[Modality, str], SoftLabels] = {}
    for key, stored in data["table"].items():
        modality, _, space = key.partition("|")
        table[Modality(modality), space] = SoftLabels(*stored)
    prototypes: dict[str, Tensor] = data["prototypes"]
    return Targets(table, prototypes)


def read(path: Path, device: torch.device) -> dict[str, Any]:
    """Read one checkpoint; CheckpointError if it is corrupt or none of ours."""
    if size := bomb(path):
        raise CheckpointError(f"{path} {size}")
    try:
        data = torch.load(path, map_location=device, weights_only=True)
    except Exception as error:  # torch raises many kinds for a spoilt file
        raise CheckpointError(f"{path} can't be read as a checkpoint: {reason(error)}") from None
    if not isinstance(data, dict) or str(data.get("format")) != str(FORMAT):  # as text: a stranger's may be a tensor
        raise CheckpointError(f"{path} is no checkpoint of this version of reidassoc (format {FORMAT} expected)")
    return data


def newest(folder: RunFolder, device: torch.device) -> dict[str, Any]:
    """Read the newest checkpoint of a run that is whole.

    Raises:
        CheckpointError: there is none.
    """
    problems = []
    for path in folder.checkpoints():
        try:
            return read(path, device)
        except CheckpointError as error:
            problems.append(str(error))
    raise CheckpointError(problems[0] if problems else f"{folder.path} holds no checkpoint; start the run anew")


def refuse_other_recipe(data: Mapping[str, Any], digest: str) -> None:
    """Raise CheckpointError if a checkpoint was written under another recipe."""
    if not isinstance(data.get("recipe"), str) or data["recipe"] != digest:
        raise CheckpointError(
            "the checkpoint was written under another recipe; resume with the run folder's own recipe.yaml"
        )


def restore(state: State, data: dict[str, Any]) -> None:
    """Load a checkpoint into a run's network and optimiser.

    Raises:
        CheckpointError: its tensors don't fit, or its state is spoilt.
    """
    try:
        state.network.load_state_dict(data["network"])
        if state.average is not None:
            state.average.load(data["average"])
        load_optimiser(state.optimiser, data["optimiser"])
    except Exception as error:  # a spoilt state fails in any way
        raise CheckpointError(f"the checkpoint does not fit the recipe's network: {first_line(error)}") from None
    try:
        state.epoch, state.optimiser_step = whole(data["epoch"]), whole(data["optimiser_step"])
        state.targets = unpack_targets(data["targets"])
        state.counts = {str(name): whole(count) for name, count in data["counts"].items()}
        state.heads = Heads(stored=dict(data.get("heads", {})))
        state.losses = Pair(*data["losses"]) if data.get("losses") else None
    except Exception as error:
        raise CheckpointError(f"the checkpoint's state is spoilt: {first_line(error)}; start the run anew") from None


def whole(value: Any) -> int:
    if not isinstance(value, int) or value < 0:
        raise ValueError(f"expected a whole number from 0, got {str(value)[:40]}")
    return value


def first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]


def load_network(network: nn.Module, data: dict[str, Any]) -> None:
    """Load the weights that features come from, averaged ones if there are any; CheckpointError if they don't fit."""
    try:
        network.load_state_dict((data.get("average") or data)["network"])
    except Exception as error:
        raise CheckpointError(f"the checkpoint does not fit the network: {first_line(error)}") from None
