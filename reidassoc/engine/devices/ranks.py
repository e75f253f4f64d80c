"""Several processes as one run: each embeds its share of the images, all know every feature, and only the first one writes.

The loss is that of the whole batch, on every rank. So gathering needs no communication on the way back: a rank has the
gradient of all rows and goes on with its own. What the ranks' shares add to the network's gradient is then summed.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import torch
import torch.distributed as dist
from lightning_fabric import Fabric
from lightning_utilities.core.apply_func import apply_to_collection
from torch import Tensor, nn

from reidassoc.errors import RankLost


def first(fabric: Fabric) -> bool:
    """Whether this process is the one that labels, scores and writes."""
    return fabric.global_rank == 0


def shares(count: int, ranks: int) -> list[slice]:
    """Cut ``count`` rows into consecutive shares that differ by one row at most, the larger ones first.

    >>> shares(5, 2)
    [slice(0, 3, None), slice(3, 5, None)]
    """
    ends = [rank * (count // ranks) + min(rank, count % ranks) for rank in range(ranks + 1)]
    return [slice(start, end) for start, end in pairwise(ends)]


def own_share(fabric: Fabric, count: int) -> slice:
    return shares(count, fabric.world_size)[fabric.global_rank]


def gathered(fabric: Fabric, own: Tensor, count: int) -> Tensor:
    """Join the ranks' shares (b, …) of ``count`` rows, in order: (count, …), with gradient to the own rows."""
    if fabric.world_size == 1:
        return own
    joined: Tensor = Gather.apply(own, shares(count, fabric.world_size), fabric.global_rank)
    return joined


class Gather(torch.autograd.Function):
    """All rows forward; back, the own rows of a gradient that every rank has whole."""

    @staticmethod
    def forward(ctx: Any, own: Tensor, cut: Sequence[slice], rank: int) -> Tensor:
        ctx.rows = cut[rank]
        size = cut[0].stop
        padded = own.new_zeros((size, *own.shape[1:]))
        padded[: len(own)] = own
        with connected():
            parts = [torch.empty_like(padded) for _ in cut]
            dist.all_gather(parts, padded)
        return torch.cat([part[: rows.stop - rows.start] for part, rows in zip(parts, cut, strict=True)])

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None]:
        return gradient[ctx.rows], None, None


def summed(x: Tensor) -> Tensor:
    """Add the ranks' tensors up, in place."""
    with connected():
        dist.all_reduce(x)
    return x


@torch.no_grad()
def add_gradients(fabric: Fabric, network: nn.Module, heads: Iterable[nn.Module]) -> None:
    """Sum the network's gradients over the ranks; what is trained on all rows on every rank has its gradients averaged."""
    if fabric.world_size == 1:
        return
    total([p.grad for p in network.parameters() if p.grad is not None], 1.0)
    total([p.grad for head in heads for p in head.parameters() if p.grad is not None], 1 / fabric.world_size)


def total(gradients: Sequence[Tensor], factor: float) -> None:
    """Sum tensors over the ranks in place, in one message for each dtype."""
    for dtype in dict.fromkeys(gradient.dtype for gradient in gradients):
        alike = [gradient for gradient in gradients if gradient.dtype == dtype]
        flat = summed(torch.cat([gradient.flatten() for gradient in alike])).mul_(factor)
        for gradient, part in zip(alike, torch.split(flat, [g.numel() for g in alike]), strict=True):
            gradient.copy_(part.view_as(gradient))


@torch.no_grad()
def align(fabric: Fabric, values: Iterable[Tensor]) -> None:
    """Give every rank the first one's values, in place."""
    if fabric.world_size > 1:
        for value in values:
            with connected():
                dist.broadcast(value, 0)


@dataclass(frozen=True)
class Outline:
    """A tensor without its numbers."""

    shape: torch.Size
    dtype: torch.dtype
    on_cpu: bool


def told(fabric: Fabric, value: Any) -> Any:
    """Return the first rank's value on every rank: plain containers of numbers, text and dense tensors.

    Tensors are broadcast by themselves, as bytes. Those on the first rank's GPU arrive on each rank's own.
    """
    if fabric.world_size == 1:
        return value
    outlines = [apply_to_collection(value, Tensor, lambda x: Outline(x.shape, x.dtype, x.device.type == "cpu"))]
    with connected():
        dist.broadcast_object_list(outlines, device=fabric.device)

    def received(outline: Outline) -> Tensor:
        x = torch.empty(outline.shape, dtype=outline.dtype, device=fabric.device)
        align(fabric, [x.view(-1).view(torch.uint8)])
        return x.cpu() if outline.on_cpu else x

    if not first(fabric):
        return apply_to_collection(outlines[0], Outline, received)
    apply_to_collection(
        value, Tensor, lambda x: align(fabric, [x.detach().to(fabric.device).reshape(-1).view(torch.uint8)])
    )
    return value


@contextmanager
def connected() -> Iterator[None]:
    """Turn a broken connection between ranks into one clear line."""
    try:
        yield
    except RuntimeError as error:  # gloo's and NCCL's errors are no narrower
        if isinstance(error, torch.cuda.OutOfMemoryError):
            raise
        raise RankLost(
            "another process of this run has ended, see its message; the last whole epoch is saved: go on with --resume"
        ) from error
