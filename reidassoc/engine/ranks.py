"""Several processes as one run: each embeds its share of the images, all know every feature, and only the first one writes.

The loss is that of the whole batch, on every rank. So gathering needs no communication on the way back: a rank has the
gradient of all rows and goes on with its own. What the ranks' shares add to the network's gradient is then summed.
"""

from __future__ import annotations

import io
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from itertools import pairwise
from typing import Any

import torch
import torch.distributed as dist
from lightning_fabric import Fabric
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
def align(fabric: Fabric, values: Iterable[Tensor], source: int = 0) -> None:
    """Give every rank the first one's values, or another one's, in place."""
    if fabric.world_size > 1:
        for value in values:
            with connected():
                dist.broadcast(value, source)


def told(fabric: Fabric, value: Any, source: int = 0) -> Any:
    """What the first rank, or another one, passes, on every rank: plain containers of numbers, text and tensors."""
    if fabric.world_size == 1:
        return value
    speaks = fabric.global_rank == source
    buffer = io.BytesIO()
    if speaks:
        torch.save(value, buffer)
    size = torch.tensor([buffer.tell()], device=fabric.device)
    align(fabric, [size], source)
    data = torch.zeros(int(size), dtype=torch.uint8, device=fabric.device)
    if speaks:
        data.copy_(torch.frombuffer(bytearray(buffer.getvalue()), dtype=torch.uint8))
    align(fabric, [data], source)
    if speaks:
        return value
    # Tensors on the speaker's GPU come to our own; what lies in main memory stays there.
    places = {f"cuda:{number}": str(fabric.device) for number in range(torch.cuda.device_count())}
    return torch.load(io.BytesIO(data.cpu().numpy().tobytes()), map_location=places, weights_only=True)


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
