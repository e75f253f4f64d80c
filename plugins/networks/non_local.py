"""The non-local block of AGW, with one inner channel."""

from __future__ import annotations

from torch import Tensor, nn


class NonLocal(nn.Module):
    """Add to every position what all positions say: ``x + BN(W(θ(x) φ(x)ᵀ / n · g(x)))``, n positions.

    With a single inner channel, ``θ φᵀ g / n`` is θ times one number per image, so the n × n matrix is never built.
    Starts as the identity. Source: Ye et al., AGW, TPAMI 2021; Wang et al., Non-local Neural Networks, CVPR 2018.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.theta = nn.Conv2d(channels, 1, 1)
        self.phi = nn.Conv2d(channels, 1, 1)
        self.g = nn.Conv2d(channels, 1, 1)
        self.expand = nn.Conv2d(1, channels, 1)
        self.norm = nn.BatchNorm2d(channels)
        nn.init.zeros_(self.norm.weight)

    def forward(self, x: Tensor) -> Tensor:
        agreement = (self.phi(x) * self.g(x)).mean((2, 3), keepdim=True)
        heard: Tensor = self.norm(self.expand(self.theta(x) * agreement))
        return x + heard
