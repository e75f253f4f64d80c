"""The features of one modality's images: everything that a method may know about an image."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeVar

import numpy as np
import torch
from torch import Tensor

T = TypeVar("T")
UNKNOWN_CAMERA = -1
UNKNOWN_IDENTITY = -1  # like every negative number: nobody in particular, and never the same person as another one
UNKNOWN_TRACKLET = -1
TRACKLET = "tracklet"  # key of Features.extra


@dataclass(frozen=True)
class Features:
    """Unit features of N images of one modality. Identities have no place here, on purpose.

    NumPy's arrays are taken too, floats and whole numbers of any width.

    Args:
        x: (N, D) float32, unit rows.
        index: (N,) int64, row of the image in its dataset; ``arange(N)`` if not given.
        camera: (N,) int64, −1 where unknown; all unknown if not given.
        extra: further tensors with N rows, such as ``parts`` (N, P, D); ``tracklet`` (N,) int64, −1 where unknown, is read
            as :attr:`tracklet`.

    Raises:
        ValueError: a shape or dtype differs from the above.
    """

    x: Tensor
    index: Tensor = None  # type: ignore[assignment]  # filled in below, so that readers never meet None
    camera: Tensor = None  # type: ignore[assignment]
    extra: Mapping[str, Tensor] = field(default_factory=dict)
    _memo: dict[Hashable, Any] = field(default_factory=dict, init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        for name in ("x", "index", "camera"):
            object.__setattr__(self, name, as_tensor(getattr(self, name)))
        object.__setattr__(self, "extra", {name: as_tensor(value) for name, value in self.extra.items()})
        if self.x.ndim != 2 or self.x.dtype != torch.float32:
            raise ValueError(f"features must be (N, D) float32, got {tuple(self.x.shape)} {self.x.dtype}")
        n, device = len(self.x), self.x.device
        if self.index is None:
            object.__setattr__(self, "index", torch.arange(n, device=device))
        if self.camera is None:
            object.__setattr__(self, "camera", torch.full((n,), UNKNOWN_CAMERA, dtype=torch.int64, device=device))
        columns = {"index": self.index, "camera": self.camera}
        columns |= {TRACKLET: self.extra[TRACKLET]} if TRACKLET in self.extra else {}
        for name, column in columns.items():
            if column.shape != (n,) or column.dtype != torch.int64:
                raise ValueError(f"{name} must be ({n},) int64, got {tuple(column.shape)} {column.dtype}")
        for name, tensor in self.extra.items():
            if tensor.ndim == 0 or len(tensor) != n:
                raise ValueError(f"extra[{name!r}] must have {n} rows, got the shape {tuple(tensor.shape)}")

    def __len__(self) -> int:
        return len(self.x)

    @property
    def width(self) -> int:
        return self.x.shape[1]

    @property
    def tracklet(self) -> Tensor:
        """(N,) int64: images with the same number are one person followed by one camera; −1 where unknown."""
        if TRACKLET in self.extra:
            return self.extra[TRACKLET]
        return torch.full((len(self),), UNKNOWN_TRACKLET, dtype=torch.int64, device=self.x.device)

    def memo(self, key: Hashable, make: Callable[[], T]) -> T:
        """Return what ``make`` made for ``key`` the first time: for dear things that depend on these features alone."""
        if key not in self._memo:
            self._memo[key] = make()
        return self._memo[key]  # type: ignore[no-any-return]

    def take(self, rows: Tensor) -> Features:
        """The features of some rows; ``index`` still names the images."""
        extra = {name: tensor[rows] for name, tensor in self.extra.items()}
        return Features(self.x[rows], self.index[rows], self.camera[rows], extra)


def as_tensor(value: Any) -> Any:
    """An array of NumPy's as a tensor, floats as float32 and whole numbers as int64; anything else as it is."""
    if not isinstance(value, np.ndarray) or value.dtype.kind not in "fiu":
        return value
    return torch.from_numpy(np.array(value, np.float32 if value.dtype.kind == "f" else np.int64))
