"""SYSU-MM01: six cameras, raw image folders or the training arrays that many groups keep instead."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Annotated, ClassVar, Literal

import numpy as np
from pydantic import Field

from reidassoc.data.images import ArrayImages, open_array
from reidassoc.errors import DataError
from reidassoc.types import UNKNOWN_CAMERA, Modality, Pair, Trial
from reidassoc_plugins.datasets import folders, permutations
from reidassoc_plugins.datasets.galleries import INFRARED_CAMERAS, VISIBLE_CAMERAS, search_trials
from reidassoc_plugins.datasets.listing import Count, Item, Listed, Part, files

CAMERAS = Pair(VISIBLE_CAMERAS, INFRARED_CAMERAS)
ARRAYS = Pair("rgb", "ir")  # how the names of the training arrays abbreviate the modalities


@dataclass(frozen=True, kw_only=True)
class SysuMm01(Listed):
    """SYSU-MM01: 491 people, four visible and two near-infrared cameras, indoors and outdoors.

    ``ROOT/cam{1..6}/{identity:04d}/*.jpg`` and ``ROOT/exp/{train,val,test}_id.txt``; training uses the identities of
    train and val. Where the training images are absent, ``train_{rgb,ir}_resized_{img,label}.npy`` are read instead;
    their cameras are unknown. Infrared queries; all-search (cameras 1, 2, 4, 5) and indoor-search (1, 2), single-shot
    and multi-shot, ten trials each. ``galleries`` says how a trial's gallery images are chosen: ``community``, by
    Python's ``random.seed(trial)`` (single-shot galleries are those of the public code, file by file; multi-shot ones
    are not, since that code draws them unseeded), or ``official``, by ``exp/rand_perm_cam.mat``. The two give different
    numbers, so the official protocols have names of their own.

    Raises:
        DataError: (when read) the root is not SYSU-MM01, or a list or array in it is corrupt.
    """

    root: Annotated[Path, Field(description="folder that contains cam1 … cam6 and exp")]
    galleries: Annotated[
        Literal["community", "official"], Field(description="who chose the gallery images of each trial")
    ] = "community"

    paper: ClassVar[str] = "Wu et al., RGB-Infrared Cross-Modality Person Re-Identification, ICCV 2017"
    train_count: ClassVar[Count] = Count(identities=395, visible=22258, infrared=11909)
    test_count: ClassVar[Count] = Count(identities=96, visible=6775, infrared=3803)

    @classmethod
    def recognises(cls, root: Path) -> bool:
        """Whether a folder looks like SYSU-MM01: it has exp and one of the cameras or the list of test people."""
        cameras = any(folders.spellings(root, f"cam{number}") for number in (*VISIBLE_CAMERAS, *INFRARED_CAMERAS))
        return any(cameras or folders.spellings(root / name, "test_id.txt") for name in folders.spellings(root, "exp"))

    def read_train(self) -> Pair[Part]:
        wanted = self._identities("train_id.txt") | self._identities("val_id.txt")
        raw = Pair.build(lambda m: files(self._root, self._items(m, wanted)))
        if all(part.items for part in raw):
            return raw
        return Pair.build(self._array_part)

    def read_test(self) -> Pair[Part]:
        wanted = self._identities("test_id.txt")
        return Pair.build(lambda m: files(self._root, self._items(m, wanted)))

    def trials(self) -> Sequence[Trial]:
        """40 trials; the galleries are rows of ``test().visible``."""
        if self.galleries == "community":
            return search_trials(self.testing)
        table = permutations.load(self._experiment / "rand_perm_cam.mat")
        return search_trials(self.testing, choose=table.choose, suffix=" (official galleries)")

    def remarks(self, split: str, parts: Pair[Part]) -> Sequence[str]:
        if split == "train":
            return ()
        missing = [f"cam{c}" for c in sorted((*VISIBLE_CAMERAS, *INFRARED_CAMERAS)) if c not in self._people]
        return [f"no folder for {', '.join(missing)}; found {folders.contents(self._root)}"] if missing else []

    def people(self, parts: Pair[Part]) -> set[int]:
        """By their numbers in the lists; nobody of the training arrays, which number people from 0."""
        return set() if isinstance(parts.visible.source, ArrayImages) else super().people(parts)

    @cached_property
    def _root(self) -> Path:
        return folders.check_root(self.root, "SYSU-MM01", ["exp"], str(self.train_count))

    @property
    def _experiment(self) -> Path:
        return folders.find(self._root, "exp") or self._root / "exp"

    @cached_property
    def _people(self) -> dict[int, dict[int, list[str]]]:
        """Files by camera and identity."""
        return folders.cameras(self._root, self._root, (*VISIBLE_CAMERAS, *INFRARED_CAMERAS))

    def _identities(self, name: str) -> set[int]:
        path = folders.find(self._experiment, name)
        matlab = folders.find(self._experiment, name.replace(".txt", ".mat"))
        if path is None and matlab is not None:
            raise DataError(
                f"{self._experiment / name}: no such file, only {matlab.name}; write its numbers into it, with commas between them"
            )
        return set(folders.identities_of(path or self._experiment / name))

    def _items(self, modality: Modality, wanted: set[int]) -> list[Item]:
        """The images of some identities by identity, camera and name: the order of the community's lists."""
        return [
            Item(name, identity, camera)
            for identity in sorted(wanted)
            for camera in CAMERAS[modality]
            for name in self._people.get(camera, {}).get(identity, ())
        ]

    def _array_part(self, modality: Modality) -> Part:
        stem = f"train_{ARRAYS[modality]}_resized"
        image_path, label_path = (folders.find(self._root, f"{stem}_{what}.npy") for what in ("img", "label"))
        if image_path is None or label_path is None:
            places = ", ".join(f"cam{camera}" for camera in CAMERAS[modality])
            raise DataError(
                f"{self._root} contains no {modality} training images: looked for {places} and {stem}_img.npy with "
                f"{stem}_label.npy, found {folders.contents(self._root)}; expected {self.train_count}"
            )
        images = open_array(image_path)
        try:
            labels = np.load(label_path, allow_pickle=False)
        except (OSError, ValueError, EOFError) as error:
            raise DataError(f"{label_path}: can't be read as an array: {error}") from error
        if labels.shape != images.shape[:1] or labels.dtype.kind not in "iu":
            raise DataError(
                f"{label_path}: expected {len(images)} whole numbers, one for each image of {image_path.name}, "
                f"found {labels.shape} {labels.dtype}"
            )
        state = image_path.stat()
        key = f"{image_path.resolve()} {state.st_size} {state.st_mtime_ns}"
        items = [Item(f"{image_path.name}[{row}]", int(label), UNKNOWN_CAMERA) for row, label in enumerate(labels)]
        return Part(tuple(items), ArrayImages(images, key=key))
