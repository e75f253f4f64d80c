"""Tracklets: images of one person that a tracker followed within one camera, taken together."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from reidassoc.ops.prototypes import centroids
from reidassoc.types import Features


def pooled(features: Features) -> tuple[Features, Tensor]:
    """Join the images of each tracklet; an image without one stays by itself. Remembered with the features.

    Returns:
        T rows in the order of their first images, each the unit mean of its members' unit features; and (N,) int64, the row
        to which each image went. Of a row, ``index`` and ``camera`` are those of its first image.
    """
    return features.memo("tracklets", lambda: _pooled(features))


def _pooled(features: Features) -> tuple[Features, Tensor]:
    tracklet, n = features.tracklet, len(features)
    rows = torch.arange(n, device=tracklet.device)
    by_itself = rows + (int(tracklet.max()) + 1 if n else 0)
    group = torch.unique(torch.where(tracklet < 0, by_itself, tracklet), return_inverse=True)[1]
    first = torch.full((int(group.max()) + 1 if n else 0,), n, device=rows.device).scatter_reduce(
        0, group, rows, "amin"
    )
    order = torch.argsort(first)
    member = torch.argsort(order)[group]
    head = first[order]
    x = F.normalize(centroids(features.x, member, len(head)), dim=1)
    return Features(x, features.index[head], features.camera[head]), member
