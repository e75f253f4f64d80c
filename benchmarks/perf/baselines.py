"""Plain dense versions of the stages, written from the published descriptions: the yardstick, and the oracle.

Nothing here is fast on purpose, nor slow on purpose: whole matrices, a loop where the description has one.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
import torch.nn.functional as F
from sklearn.cluster import DBSCAN, KMeans
from torch import Tensor

from reidassoc.types import Pair, Rule


def nearest(x: Tensor, k: int) -> Tensor:
    """(N, k) the nearest rows by inner product: the whole matrix, sorted."""
    return torch.argsort(x @ x.T, dim=1, descending=True, stable=True)[:, :k]


def jaccard_distance(x: Tensor, *, k1: int = 30, k2: int = 6) -> Tensor:
    """(N, N) k-reciprocal Jaccard distance, Zhong et al., CVPR 2017: a dense encoding, rows of minima."""
    similarity = x @ x.T
    order = torch.argsort(similarity, dim=1, descending=True, stable=True)[:, :k1]
    n, half = len(x), round(k1 / 2) + 1

    def reciprocal(k: int) -> list[Tensor]:
        near = order[:, :k]
        return [row[(near[row] == i).any(dim=1)] for i, row in enumerate(near)]

    wide, narrow = reciprocal(k1), reciprocal(half)
    encoding = torch.zeros(n, n)
    for i in range(n):
        members = [wide[i]]
        for j in wide[i].tolist():
            if 3 * int(torch.isin(narrow[j], wide[i]).sum()) > 2 * len(narrow[j]):
                members.append(narrow[j])
        row = torch.unique(torch.cat(members))
        weight = torch.exp(2 * similarity[i, row] - 2)
        encoding[i, row] = weight / weight.sum()
    if k2 > 1:
        encoding = torch.stack([encoding[order[i, :k2]].mean(dim=0) for i in range(n)])
    distance = torch.empty(n, n)
    for i in range(n):
        column = encoding[i].nonzero().flatten()
        overlap = torch.minimum(encoding[i, column], encoding[:, column]).sum(dim=1)
        distance[i] = 1 - overlap / (2 - overlap)
    return distance.clamp(min=0)


def dbscan(distance: Tensor, *, eps: float = 0.6, min_samples: int = 4) -> Tensor:
    labels = DBSCAN(eps=eps, min_samples=min_samples, metric="precomputed").fit_predict(distance.numpy())
    return torch.from_numpy(labels.astype(np.int64))


def transport(x: Tensor, y: Tensor, *, strength: float = 25.0) -> Tensor:
    """(N, K) entropic plan by alternate scaling, at most 500 rounds, looked at every tenth."""
    kernel = torch.exp(-strength * (2 - 2 * x @ y.T))
    n, k = kernel.shape
    b = torch.full((k,), 1.0 / k)
    for done in range(500):
        a = (1.0 / n) / (kernel @ b)
        old, b = b, (1.0 / k) / (kernel.T @ a)
        if done % 10 == 0 and float((old / b - 1).abs().sum()) <= 0.1:
            break
    return a[:, None] * kernel * b


def mult(
    x: Pair[Tensor], centroids: Pair[Tensor], distance: Pair[Tensor], plan: Tensor, moved: Pair[Tensor]
) -> tuple[Pair[Tensor], Pair[Tensor]]:
    """MULT's label transfer, He et al., IJCV 2024, with whole matrices: (own, cross) soft labels. Overwrites `distance`."""
    similarity = distance.map(lambda d: d.neg_().add_(1))
    within = similarity.map(lambda a: a.div_(a.sum(dim=1, keepdim=True)))
    across = Pair(plan / plan.sum(dim=1, keepdim=True), plan.T / plan.T.sum(dim=1, keepdim=True))
    own, cross = [], []
    for s in range(2):
        mine, theirs = tuple(within)[s], tuple(within)[1 - s]
        to_me, to_them = tuple(across)[s], tuple(across)[1 - s]
        start = torch.softmax(tuple(x)[s] @ tuple(centroids)[s].T / 0.05, dim=1)
        other = F.one_hot(tuple(moved)[1 - s], start.shape[1]).float()
        y, z = start, other
        for _ in range(20):
            before = y, z
            y = 0.8 * to_me @ z + 0.2 * start
            z = 0.8 * to_them @ y + 0.2 * other
            y, z = (mine @ y + y) / 2, (theirs @ z + z) / 2
            change = (float((n - o).abs().sum() / o.sum()) for n, o in zip((y, z), before, strict=True))
            if max(change) <= 0.01:
                break
        own.append(y)
        cross.append(z)
    return Pair(own[0], own[1]), Pair(cross[1], cross[0])


def memory_matching_cost(x: Pair[Tensor], labels: Pair[Tensor], *, memories: int, seed: int) -> Tensor:
    """(K_v, K_r): K-means centres per cluster, and the summed distance to the nearest one of the other side."""

    def split(rows: Tensor, label: Tensor) -> list[Tensor]:
        members = [rows[label == c].numpy() for c in range(int(label.max()) + 1)]
        fits = [KMeans(min(memories, len(m)), random_state=seed, n_init=1).fit(m) for m in members]
        return [torch.from_numpy(fit.cluster_centers_).double() for fit in fits]

    visible, infrared = (split(a, b) for a, b in zip(x, labels, strict=True))
    return torch.stack([torch.stack([torch.cdist(v, r).amin(dim=1).sum() for r in infrared]) for v in visible])


def propagated(x: Pair[Tensor], *, k: int) -> Pair[Tensor]:
    """CMFP of SALCR: whole similarity matrices, sorted."""

    def mean(queries: Tensor, keys: Tensor) -> Tensor:
        similarity = queries @ keys.T
        order = torch.argsort(similarity, dim=1, descending=True)
        weight = torch.zeros_like(similarity)
        weight.scatter_(1, order[:, :k], similarity.gather(1, order[:, :k]).clamp(min=0))
        return weight / weight.sum(dim=1, keepdim=True).clamp(min=1e-12) @ keys

    return x.map(lambda mine: F.normalize(mean(mine, x.visible) + mean(mine, x.infrared), dim=1))


def fed(vectors: Tensor, features: Tensor, labels: Tensor, momentum: float) -> Tensor:
    """The momentum update of a cluster bank, sample by sample."""
    vectors = vectors.clone()
    for f, y in zip(features, labels.tolist(), strict=True):
        vectors[y] = F.normalize(momentum * vectors[y] + (1 - momentum) * f, dim=0)
    return vectors


def agreement_loss(logits: Tensor, target: Tensor, sharpening: float) -> Tensor:
    """OCLR's term: cross-entropy of softmax(logits) against softmax(target / sharpening)."""
    return -(torch.softmax(target / sharpening, dim=1) * torch.log(torch.softmax(logits, dim=1))).sum(dim=1).mean()


def positive_loss_by_sort(logits: Tensor, k: int) -> Tensor:
    """GPCR's loss of one bank: near rows from a whole sort, then -log of their summed probability."""
    near = logits > torch.sort(logits, dim=1, descending=True).values[:, k : k + 1]
    return -torch.log((torch.softmax(logits, dim=1) * near).sum(dim=1)).mean()


def retrieval(distance: Tensor, columns: Mapping[str, Tensor], gallery: Tensor, rule: Rule) -> tuple[float, float]:
    """Rank-1 and mAP, in percent, of one trial: a sort, and a loop over the queries."""
    first, precision = [], []
    for q, row in enumerate(distance[:, gallery].numpy()):
        order = gallery[torch.from_numpy(np.argsort(row, kind="stable"))]
        kept = torch.ones(len(order), dtype=torch.bool)
        for mine, theirs in rule.ignored_cameras:
            if int(columns["query_camera"][q]) == mine:
                kept &= columns["gallery_camera"][order] != theirs
        order = order[kept]
        match = (columns["gallery_identity"][order] == columns["query_identity"][q]).numpy()
        if match.any():
            hits = np.flatnonzero(match)
            precision.append(float(np.mean(np.arange(1, len(hits) + 1) / (hits + 1))))
            first.append(bool(match[0]))
    return 100 * float(np.mean(first)), 100 * float(np.mean(precision))


def adjusted_rand(labels: Tensor, identity: Tensor) -> float:
    """The adjusted Rand index from the N x N tables of pairs, outliers left out."""
    used = labels >= 0
    a, b = labels[used], identity[used]
    together, same = a[:, None] == a, b[:, None] == b
    n = len(a)
    both, one, two, pairs = (
        (float(t.sum()) - n) / 2 for t in (together & same, together, same, torch.ones(n, n, dtype=torch.bool))
    )
    expected = one * two / pairs
    return (both - expected) / ((one + two) / 2 - expected)
