"""What stands first in the gallery for each query: the pictures behind a rank."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from reidassoc.evaluation.ranking import ignored
from reidassoc.types import Modality, Pair, Trial

NEAREST = 10  # gallery images kept for a query
QUERIES = 400  # of a protocol, spread over its queries
TRIALS = 3  # of a protocol, its first ones
NOTHING = -1

Ints = npt.NDArray[np.int32]


@dataclass(frozen=True)
class Leaders:
    """The nearest gallery images of Q queries in T trials of one protocol.

    Args:
        side: the queries' modality; the gallery is of the other one.
        query: (Q,) int32 rows of ``test()[side]``, ascending.
        nearest: (T, Q, 10) int32 rows of ``test()[side.other]``, nearest first, without the images that the protocol
            ignores and those of unknown identity; −1 where there are fewer.
    """

    side: Modality
    query: Ints
    nearest: Ints


def leaders(
    features: Pair[Tensor], *, identity: Pair[Tensor], camera: Pair[Tensor], trials: Sequence[Trial]
) -> dict[str, Leaders]:
    """Return what stands first, by protocol, for some queries, the same ones for every network.

    Args:
        features: (N, D) unit rows per modality, in the order of ``dataset.test()``.
        identity: (N,) int64 per modality.
        camera: (N,) int64 per modality.
        trials: the dataset's; of each protocol the first three are looked at.

    Examples:
        >>> from reidassoc.types import Rule
        >>> eye, ids = torch.eye(2), torch.arange(2)
        >>> columns = {"query": ids, "gallery": ids, "query_modality": Modality.VISIBLE}
        >>> trial = Trial(protocol="all", number=0, rule=Rule(), **columns)
        >>> leaders(Pair(eye, eye), identity=Pair(ids, ids), camera=Pair(ids, ids), trials=[trial])["all"].nearest[0, :, :2]
        array([[0, 1],
               [1, 0]], dtype=int32)
    """
    found = {}
    for protocol in dict.fromkeys(trial.protocol for trial in trials):
        chosen = [trial for trial in trials if trial.protocol == protocol][:TRIALS]
        rows = spread(np.unique(np.concatenate([trial.query.cpu().numpy() for trial in chosen])), QUERIES)
        nearest = np.stack([in_trial(features, identity, camera, trial, rows) for trial in chosen])
        found[protocol] = Leaders(chosen[0].query_modality, rows.astype(np.int32), nearest)
    return found


def spread(rows: npt.NDArray[np.int64], count: int) -> npt.NDArray[np.int64]:
    """At most ``count`` of some rows, evenly from the first to the last."""
    return rows if len(rows) <= count else rows[np.linspace(0, len(rows) - 1, count).round().astype(np.int64)]


def in_trial(
    features: Pair[Tensor], identity: Pair[Tensor], camera: Pair[Tensor], trial: Trial, rows: npt.NDArray[np.int64]
) -> Ints:
    """(Q, 10) of one trial; a query that is not in it has nothing."""
    side, gallery = trial.query_modality, trial.gallery.cpu()
    gallery = gallery[identity[side.other].cpu()[gallery] >= 0]
    query = torch.from_numpy(rows)
    distance = 1 - features[side].cpu()[query] @ features[side.other].cpu()[gallery].T
    same = identity[side].cpu()[query][:, None] == identity[side.other].cpu()[gallery]
    absent = ignored(trial.rule, same, camera[side].cpu()[query], camera[side.other].cpu()[gallery])
    absent |= ~torch.isin(query, trial.query.cpu())[:, None]
    order = distance.masked_fill(absent, torch.inf).argsort(dim=1, stable=True)[:, :NEAREST]
    kept = torch.where(absent.gather(1, order), NOTHING, gallery[order]).numpy()
    return np.pad(kept, ((0, 0), (0, NEAREST - kept.shape[1])), constant_values=NOTHING).astype(np.int32)
