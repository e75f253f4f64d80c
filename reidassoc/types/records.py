"""Images as a dataset lists them, and the retrieval trials that it defines. Identities stay with the dataset."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from reidassoc.types.features import UNKNOWN_TRACKLET
from reidassoc.types.modality import Modality


class ImageSource(Protocol):
    """Where the pixels of N images come from: files, arrays, a generator."""

    def __len__(self) -> int: ...

    def load(self, row: int) -> npt.NDArray[np.uint8]:
        """Return image ``row`` as (H, W, 3) uint8 RGB, at its own size; DataError names an image that can't be read."""
        ...

    def fingerprint(self) -> str:
        """A hash that changes when any image may have changed: the key of the decoded-image cache."""
        ...


@dataclass(frozen=True)
class Records:
    """N images of one modality, in dataset order.

    Args:
        modality: of all of them.
        camera: (N,) int64, −1 where unknown.
        names: N names, unique in the dataset (relative paths where there are files).
        source: the pixels, row by row.
        tracklet: (N,) int64, −1 where unknown; all unknown if not given. Numbers of the two modalities have nothing in common.

    Raises:
        ValueError: a shape or dtype differs from the above.
    """

    modality: Modality
    camera: Tensor
    names: tuple[str, ...]
    source: ImageSource
    tracklet: Tensor = None  # type: ignore[assignment]  # filled in below, so that readers never meet None

    def __post_init__(self) -> None:
        n = len(self.names)
        if self.tracklet is None:
            object.__setattr__(self, "tracklet", torch.full((n,), UNKNOWN_TRACKLET))
        for name, column in {"camera": self.camera, "tracklet": self.tracklet}.items():
            if column.shape != (n,) or column.dtype != torch.int64:
                raise ValueError(f"{name} must be ({n},) int64, got {tuple(column.shape)} {column.dtype}")
        if len(self.source) != n:
            raise ValueError(f"{n} names, but {len(self.source)} images")

    def __len__(self) -> int:
        return len(self.names)


@dataclass(frozen=True, kw_only=True)
class Rule:
    """How a protocol scores one query.

    Args:
        ignored_cameras: (query camera, gallery camera) pairs; such gallery images are removed before ranking.
        ignore_same_identity_camera: remove gallery images with the query's identity *and* camera.
        first_occurrence: CMC counts only the first image of each gallery identity (SYSU-MM01's and LLCM's rule).
    """

    ignored_cameras: tuple[tuple[int, int], ...] = ()
    ignore_same_identity_camera: bool = False
    first_occurrence: bool = False


@dataclass(frozen=True, kw_only=True)
class Trial:
    """One query set against one gallery.

    Args:
        protocol: name under which trials are averaged, such as ``all-search single-shot``.
        number: of the trial within its protocol, from 0.
        query_modality: the gallery is of the other one.
        query: (Q,) int64 rows of ``test()[query_modality]``.
        gallery: (G,) int64 rows of ``test()[query_modality.other]``.
        rule: how a query is scored.
    """

    protocol: str
    number: int
    query_modality: Modality
    query: Tensor
    gallery: Tensor
    rule: Rule
