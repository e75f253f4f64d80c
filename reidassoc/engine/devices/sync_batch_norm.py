"""Batch norm over the rows of all ranks. torch's SyncBatchNorm refuses CPU tensors; this one does not care."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
import torch.distributed as dist
import torch.nn.functional as F
from lightning_fabric import Fabric
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from reidassoc.engine.devices.ranks import connected, summed
from reidassoc.ops.precision import at_least_single, no_autocast


class JointNorm(_BatchNorm):
    """A batch norm whose training statistics are those of all ranks' rows together; in evaluation the ordinary one.

    It takes over another one's parameters and buffers, so that optimisers and checkpoints know no difference.
    """

    def __init__(self, norm: _BatchNorm) -> None:
        super().__init__(norm.num_features, norm.eps, norm.momentum, affine=False, track_running_stats=False)
        self.affine, self.track_running_stats = norm.affine, norm.track_running_stats
        self.weight, self.bias = norm.weight, norm.bias
        for name, buffer in norm.named_buffers(recurse=False):
            self.register_buffer(name, buffer)
        self.train(norm.training)

    alone = False  # as the ordinary one does, without a word to the other ranks

    def _check_input_dim(self, input: Tensor) -> None:
        if input.dim() < 2:
            raise ValueError(f"expected at least (B, C), got {input.dim()} dimension(s)")

    def forward(self, input: Tensor) -> Tensor:
        if self.alone or not (self.training or self.running_mean is None):
            return super().forward(input)
        self._check_input_dim(input)
        with no_autocast(input.device):
            out, mean, variance, count = Joint.apply(at_least_single(input), self.weight, self.bias, self.eps)
        self.remember(mean, variance, count)
        normal: Tensor = out.to(input.dtype)
        return normal

    @torch.no_grad()
    def remember(self, mean: Tensor, variance: Tensor, count: Tensor) -> None:
        """Move the running statistics, as torch does: the variance, of ``count`` () values, unbiased."""
        if self.running_mean is None or self.running_var is None or self.num_batches_tracked is None:
            return
        self.num_batches_tracked.add_(1)
        rate = 1 / float(self.num_batches_tracked) if self.momentum is None else self.momentum
        self.running_mean.lerp_(mean.to(self.running_mean.dtype), rate)
        unbiased = variance * (count / (count - 1).clamp_min(1))
        self.running_var.lerp_(unbiased.to(self.running_var.dtype), rate)


class Joint(torch.autograd.Function):
    """Normalise (B, C, …) by the mean and variance of each channel over all ranks: one message forward, one back."""

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, weight: Tensor | None, bias: Tensor | None, eps: float
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        over = [0, *range(2, x.dim())]
        variance, mean = torch.var_mean(x, over, correction=0)
        own = torch.stack([mean, variance, torch.full_like(mean, x.numel() / x.shape[1])])
        everybody = [torch.empty_like(own) for _ in range(dist.get_world_size())]
        with connected():
            dist.all_gather(everybody, own)
        means, variances, counts = torch.stack(everybody, 1)  # (R, C) each
        count = counts.sum(0)
        parts = counts / count
        mean = (parts * means).sum(0)
        variance = (parts * (variances + (means - mean).square())).sum(0)
        ctx.over = over
        ctx.save_for_backward(x, weight, mean, (variance + eps).rsqrt(), count)
        ctx.mark_non_differentiable(mean, variance, count)
        return F.batch_norm(x, mean, variance, weight, bias, training=False, eps=eps), mean, variance, count

    @staticmethod
    def backward(ctx: Any, slope: Tensor, *_: Any) -> tuple[Tensor, Tensor | None, Tensor | None, None]:
        x, weight, mean, scale, count = ctx.saved_tensors
        shape = [1, -1] + [1] * (x.dim() - 2)
        normal = (x - mean.view(shape)) * scale.view(shape)
        own = torch.stack([slope.sum(ctx.over), (slope * normal).sum(ctx.over)])
        all_bias, all_weight = summed(own.clone()) / count
        factor = scale if weight is None else scale * weight
        back = factor.view(shape) * (slope - all_bias.view(shape) - normal * all_weight.view(shape))
        return back, own[1] if weight is not None else None, own[0] if weight is not None else None, None


def normalise_jointly(network: nn.Module, fabric: Fabric) -> None:
    """Replace every batch norm of the network, in place, if there is more than one rank."""
    if fabric.world_size == 1:
        return
    for module in list(network.modules()):
        for name, child in list(module.named_children()):
            if isinstance(child, _BatchNorm) and not isinstance(child, JointNorm):
                setattr(module, name, JointNorm(child))


@contextmanager
def by_itself(network: nn.Module) -> Iterator[None]:
    """Inside this block batch norm takes the rows of this rank alone, and waits for nobody."""
    norms = [module for module in network.modules() if isinstance(module, JointNorm)]
    try:
        for norm in norms:
            norm.alone = True
        yield
    finally:
        for norm in norms:
            norm.alone = False
