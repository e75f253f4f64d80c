"""How likely a sample's label is right, read off its loss by a mixture of two Gaussians.

Source: Arazo et al., Unsupervised Label Noise Modeling, ICML 2019; Li et al., DivideMix, ICLR 2020.
"""

from __future__ import annotations

import warnings

import torch
import torch.nn.functional as F
from sklearn.exceptions import ConvergenceWarning
from sklearn.mixture import GaussianMixture
from torch import Tensor

from reidassoc.ops.memory_limit import block_rows
from reidassoc.ops.precision import full_float32
from reidassoc.types import SoftLabels

SMALLEST = 1e-6  # range of losses below which they tell nothing
BLOCK_ELEMENTS = 1 << 24  # logits held at once


def prototype_loss(x: Tensor, prototypes: Tensor, labels: SoftLabels, *, temperature: float) -> Tensor:
    """(N,) float32: the cross-entropy of each sample's label against softmax(⟨f, prototype⟩ / τ).

    Args:
        x: (N, D) unit rows.
        prototypes: (K, D), normalised here.
        labels: N rows over the same K clusters.
    """
    keys = F.normalize(prototypes, dim=1).T
    rows = block_rows(BLOCK_ELEMENTS, len(prototypes))
    with full_float32(x.device):
        return torch.cat(
            [
                -(labels.take(some).prob * F.log_softmax(x[some] @ keys / temperature, dim=1)).sum(1)
                for some in torch.split(torch.arange(len(x), device=x.device), rows)
            ]
        )


def confidence(losses: Tensor, known: Tensor, *, seed: int) -> Tensor:
    """(N,) float32 in [0, 1]: the probability that a loss belongs to the lower of two Gaussians.

    Losses are scaled to [0, 1] first; scikit-learn's `GaussianMixture(max_iter=100, tol=1e-2, reg_covar=5e-4)`, on the
    host. All 1 where there are fewer than two losses or they do not differ.

    Args:
        losses: (N,) floating; NaN for a sample without one.
        known: (N,) bool, the samples that have a label; the others, and those without a loss, have confidence 0 and no
            influence.
        seed: of the mixture's start, below 2³².
    """
    host = losses.detach().double().cpu()
    rows = (known.cpu() & ~host.isnan()).nonzero().flatten()
    sure = torch.zeros(len(host))
    mine = host[rows]
    if len(rows) < 2 or float(mine.max() - mine.min()) < SMALLEST:
        sure[rows] = 1.0
        return sure.to(losses.device)
    scaled = ((mine - mine.min()) / (mine.max() - mine.min()))[:, None].numpy()
    mixture = GaussianMixture(2, max_iter=100, tol=1e-2, reg_covar=5e-4, random_state=seed)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # few distinct losses
        probability = mixture.fit(scaled).predict_proba(scaled)
    sure[rows] = torch.from_numpy(probability[:, mixture.means_.argmin()]).float()
    return sure.to(losses.device)
