"""Batch norm as on N GPUs: the forward pass of ``torch.nn.DataParallel``, on one device.

DataParallel cuts every input of the network into N chunks; replica g sees chunk g of each, normalises it by its own
statistics, and only replica 0 keeps running ones. So the figures of a run depend on its number of GPUs, and published ones
belong to theirs. Chunking the streams after they were joined would be something else.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn
from torch.func import functional_call

from reidassoc.errors import RecipeError
from reidassoc.interfaces.plugins import NetworkOutput
from reidassoc.recipe.model import Recipe


def chunks(count: int, groups: int) -> list[slice]:
    """The rows of each of ``groups`` chunks of ``count`` rows, as ``torch.chunk`` cuts them: it may make fewer."""
    size = -(-count // groups)
    return [slice(start, min(start + size, count)) for start in range(0, count, size)]


def norm_groups(recipe: Recipe, ranks: int) -> int:
    """Groups of a batch whose batch-norm statistics are kept apart, on so many ranks; 1 = those of the whole batch."""
    return ranks if recipe.batch_norm == "rank" else recipe.as_gpus


def refuse_uneven(recipe: Recipe, ranks: int = 1) -> None:
    """Raise RecipeError if a stage's batch can't be cut into as many chunks of at least two images as it asks for.

    On several ranks each takes as many whole chunks as the others, so they must be of one size.
    """
    groups, asked = norm_groups(recipe, ranks), f"as_gpus: {recipe.as_gpus}"
    if recipe.batch_norm == "rank":
        if recipe.as_gpus > 1:
            raise RecipeError(
                f"{asked} says how batch norm is grouped, and so does batch_norm: rank; leave one of them out"
            )
        asked = f"batch_norm: rank on {ranks} devices"
    if groups > 1 and groups % ranks:
        raise RecipeError(f"{asked}, but there are {ranks} devices; take 1, or a multiple of {ranks}")
    for stage in recipe.stages if groups > 1 or ranks > 1 else ():
        count = stage.identities * stage.images
        if count < ranks or (groups > 1 and ranks > 1 and count % groups):
            raise RecipeError(
                f"stage '{stage.name}' has {count} images of each modality in a batch ({stage.identities} × {stage.images}), "
                f"which {ranks} devices can't share evenly; take a number of devices that divides it"
            )
        cut = chunks(count, groups)
        if len(cut) < groups or cut[-1].stop - cut[-1].start < 2:
            raise RecipeError(
                f"{asked}, but stage '{stage.name}' has {count} images of each modality in a batch "
                f"({stage.identities} × {stage.images}), which DataParallel would cut into {len(cut)} chunks, the last of "
                f"{cut[-1].stop - cut[-1].start}; take a count that divides them, with at least two for each"
            )


def replicated(network: nn.Module, images: Mapping[str, Tensor], groups: int) -> dict[str, NetworkOutput]:
    """Call the network on each group by itself, and join what it says.

    Args:
        images: (B, 3, H, W) by stream, as many of each; group g is chunk g of every stream.
        groups: N; of one, this is an ordinary call.

    Returns:
        outputs of B rows by stream. The network's buffers, running statistics among them, are those of group 0.
    """
    if groups == 1:
        return dict(network(images))
    cut = {stream: x.chunk(groups) for stream, x in images.items()}
    parts = [dict(zip(cut, together, strict=True)) for together in zip(*cut.values(), strict=True)]
    copies = [{name: buffer.clone() for name, buffer in network.named_buffers()} for _ in parts[1:]]
    outputs = [network(parts[0])]
    outputs += [functional_call(network, own, (part,)) for own, part in zip(copies, parts[1:], strict=True)]
    return {stream: joined([output[stream] for output in outputs]) for stream in outputs[0]}


def joined(outputs: Sequence[NetworkOutput]) -> NetworkOutput:
    """One stream's outputs, group after group, as one."""
    first = outputs[0]
    maps = [output.map for output in outputs if output.map is not None]
    return NetworkOutput(
        z=torch.cat([output.z for output in outputs]),
        pooled=torch.cat([output.pooled for output in outputs]),
        map=torch.cat(maps) if maps else None,
        parts={pair: torch.cat([output.parts[pair] for output in outputs]) for pair in first.parts},
    )
