"""What a run saves for its report in one small file: thumbnails, identities, nearest images, some features."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from reidassoc.data.tiles import packed_as
from reidassoc.errors import DataError
from reidassoc.evaluation.nearest_images import Leaders
from reidassoc.files.npz import Arrays, read_npz
from reidassoc.types import Modality, Pair

EXHIBITS = "exhibits.npz"


EXPECTED = "delete it: the report makes it anew from the checkpoint"


Ints = npt.NDArray[np.int32]


Array = npt.NDArray[Any]


@dataclass(frozen=True)
class Images:
    """The images of one modality, and thumbnails of some.

    Args:
        identity: (N,) int32, negative where unknown.
        camera: (N,) int32, negative where unknown.
        shown: (n,) int32 rows that have a thumbnail, ascending.
        tiles: their JPEG, see :mod:`reidassoc.data.tiles`.
    """

    identity: Ints
    camera: Ints
    shown: Ints
    tiles: npt.NDArray[np.uint8]

    def without_pictures(self) -> Images:
        return replace(self, shown=self.shown[:0], tiles=self.tiles[:0])


@dataclass(frozen=True)
class Exhibits:
    """What ``exhibits.npz`` holds.

    Args:
        tile: (height, width) of a thumbnail in pixels.
        train: rows as in ``labels/epoch_XXX.npz``.
        test: rows of ``dataset.test()``; None without trials.
        leaders: by protocol, of the last epoch.
        mapped: (n,) int32 rows of ``test`` whose features are kept.
        features: (n, D) float16 unit rows.
    """

    tile: tuple[int, int]
    train: Pair[Images]
    test: Pair[Images] | None = None
    leaders: Mapping[str, Leaders] = field(default_factory=dict)
    mapped: Pair[Ints] | None = None
    features: Pair[npt.NDArray[np.float16]] | None = None

    @property
    def pictured(self) -> bool:
        """Whether there are thumbnails."""
        return any(len(images.shown) for part in (self.train, self.test) for images in part or ())

    def without_pictures(self) -> Exhibits:
        """The same without any thumbnail, to be passed on where images of people must not be."""
        test = None if self.test is None else self.test.map(Images.without_pictures)
        return replace(self, train=self.train.map(Images.without_pictures), test=test)

    def save(self, path: Path) -> None:
        columns: dict[str, Array] = {"tile": np.array(self.tile, np.int32)}
        for part, images in (("train", self.train), ("test", self.test)):
            for modality in Modality if images is not None else ():
                columns |= {f"{part}/{modality}/{key}": value for key, value in vars(images[modality]).items()}  # type: ignore[index]
        for name, held in self.leaders.items():
            columns |= {f"leaders/{name}/query": held.query, f"leaders/{name}/nearest": held.nearest}
            columns[f"leaders/{name}/side"] = np.array(str(held.side))
        if self.mapped is not None and self.features is not None:
            for modality in Modality:
                columns[f"map/{modality}/rows"] = self.mapped[modality]
                columns[f"map/{modality}/features"] = self.features[modality]
        with open(path, "wb") as file:
            np.savez_compressed(file, **columns)  # type: ignore[arg-type]

    @staticmethod
    def load(path: Path) -> Exhibits:
        """Read what ``save`` wrote; DataError if the file is of another kind, or its parts don't fit together."""
        held = read_npz(path, "exhibits", EXPECTED)
        names = dict.fromkeys(key.split("/", 1)[1].rpartition("/")[0] for key in held if key.startswith("leaders/"))
        tested, mapped = "test/visible/identity" in held, "map/visible/rows" in held
        try:
            found = Exhibits(
                (int(held["tile"][0]), int(held["tile"][1])),
                images_in(held, "train"),
                images_in(held, "test") if tested else None,
                {name: leaders_in(held, name) for name in names},
                Pair.build(lambda m: column(held, f"map/{m}/rows", "i4")) if mapped else None,
                Pair.build(lambda m: column(held, f"map/{m}/features", "f2", 2)) if mapped else None,
            )
            found.check()
        except (ValueError, KeyError, IndexError, TypeError) as error:
            raise DataError(f"{path} holds no exhibits ({error}); {EXPECTED}") from None
        return found

    def check(self) -> None:
        """Raise ValueError if rows are named that are not there, or thumbnails are missing."""
        for part in (self.train, self.test):
            for images in part or ():
                if len(images.camera) != len(images.identity):
                    raise ValueError("an image without camera or identity")
                within(images.shown, len(images.identity))
                if not packed_as(images.tiles, tile=self.tile, count=len(images.shown)):
                    raise ValueError(f"thumbnails are not of {self.tile[0]} × {self.tile[1]} pixels")
        for held in self.leaders.values():
            if self.test is None or held.nearest.shape[1] != len(held.query):
                raise ValueError("a ranking of images that are not there")
            within(held.query, len(self.test[held.side].identity))
            within(held.nearest[held.nearest >= 0], len(self.test[held.side.other].identity))
        if self.mapped is not None and self.features is not None:
            for modality in Modality:
                if self.test is None or len(self.mapped[modality]) != len(self.features[modality]):
                    raise ValueError("features of images that are not there")
                within(self.mapped[modality], len(self.test[modality].identity))
            if self.features.visible.shape[1] != self.features.infrared.shape[1]:
                raise ValueError("features of two widths")
            if not all(np.isfinite(x).all() for x in self.features):
                raise ValueError("features that are not finite")


def within(rows: Array, count: int) -> None:
    if len(rows) and not (rows.min() >= 0 and rows.max() < count):
        raise ValueError(f"rows beyond the {count} that there are")


def column(held: Arrays, name: str, kind: str, axes: int = 1) -> Any:
    """An array of a kind and number of axes; ValueError if it is another."""
    found = held[name]
    if found.dtype != np.dtype(kind) or found.ndim != axes:
        raise ValueError(f"{name}: {found.dtype} of {found.ndim} axes")
    return found


def images_in(held: Arrays, part: str) -> Pair[Images]:
    kinds = {"identity": "i4", "camera": "i4", "shown": "i4", "tiles": "u1"}
    return Pair.build(lambda m: Images(*(column(held, f"{part}/{m}/{key}", kind) for key, kind in kinds.items())))


def leaders_in(held: Arrays, protocol: str) -> Leaders:
    place = f"leaders/{protocol}"
    query, nearest = column(held, f"{place}/query", "i4"), column(held, f"{place}/nearest", "i4", 3)
    return Leaders(Modality(str(held[f"{place}/side"])), query, nearest)
