"""LLCM: nine cameras in low light, each with a visible and most with a near-infrared mode."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Annotated, ClassVar

import torch
from pydantic import Field

from reidassoc.errors import DataError
from reidassoc.types import UNKNOWN_CAMERA, Modality, Pair, Rule, Trial
from reidassoc_plugins.datasets import folders
from reidassoc_plugins.datasets.galleries import TRIALS, choose, direction, folders_of
from reidassoc_plugins.datasets.listing import Count, Item, Listed, Part, files

SHORT = Pair("vis", "nir")
CAMERAS = Pair((1, 2, 3, 4, 5, 6, 7, 8, 9), (1, 2, 4, 5, 6, 7, 8, 9))
CAMERA_IN_NAME = re.compile(r"cam0*(\d{1,9})/|(?:^|[_/])c(?:am)?0*(\d{1,9})[_s.]", re.IGNORECASE)


@dataclass(frozen=True, kw_only=True)
class Llcm(Listed):
    """LLCM: 1064 people in low light, nine cameras that see visible and near-infrared.

    ``ROOT/idx/train_{vis,nir}.txt`` with lines ``relative/path label``, ``ROOT/idx/test_id.txt``, and the test images
    in ``ROOT/test_{vis,nir}/cam{n}/{identity:04d}/``. Both directions: all images of one modality query one random
    image per identity and camera of the other, ten trials. Gallery images with the query's identity and camera are
    ignored.

    Raises:
        DataError: (when read) the root is not LLCM, or a list in it is corrupt.
    """

    root: Annotated[Path, Field(description="folder that contains idx, test_vis and test_nir")]

    paper: ClassVar[str] = (
        "Zhang and Wang, Diverse Embedding Expansion Network and Low-Light Cross-Modality Benchmark, CVPR 2023"
    )
    train_count: ClassVar[Count] = Count(identities=713, visible=16946, infrared=13975)
    test_count: ClassVar[Count] = Count(identities=351, visible=8680, infrared=7166)

    @classmethod
    def recognises(cls, root: Path) -> bool:
        """Whether a folder looks like LLCM."""
        return any(folders.spellings(root / name, "train_nir.txt") for name in folders.spellings(root, "idx"))

    def read_train(self) -> Pair[Part]:
        return Pair.build(self._train_part)

    def read_test(self) -> Pair[Part]:
        wanted = set(folders.identities_of(self._index("test_id.txt")))
        return Pair.build(lambda m: self._test_part(m, wanted))

    def trials(self) -> Sequence[Trial]:
        """Ten trials in each direction."""
        rule = Rule(ignore_same_identity_camera=True, first_occurrence=True)
        trials = []
        for modality in Modality:
            query = torch.arange(len(self.testing[modality].items))
            gallery_folders = folders_of(self.testing[modality.other].items)
            for number in range(TRIALS):
                gallery = choose(gallery_folders, CAMERAS[modality.other], number, 1)
                trials.append(
                    Trial(
                        protocol=direction(modality),
                        number=number,
                        query_modality=modality,
                        query=query,
                        gallery=torch.tensor(gallery, dtype=torch.int64),
                        rule=rule,
                    )
                )
        return trials

    def remarks(self, split: str, parts: Pair[Part]) -> Sequence[str]:
        found = []
        for modality in Modality if split == "test" else ():
            seen = {item.camera for item in parts[modality].items}
            missing = [f"cam{camera}" for camera in CAMERAS[modality] if camera not in seen]
            found += [f"no test images of {', '.join(missing)} in test_{SHORT[modality]}"] if missing else []
        return found

    def people(self, parts: Pair[Part]) -> set[int]:
        """Nobody: the training lists number their people from 0, whatever their numbers in the test set."""
        return set()

    @cached_property
    def _root(self) -> Path:
        return folders.check_root(self.root, "LLCM", ["idx"], str(self.train_count))

    def _index(self, name: str) -> Path:
        index = folders.find(self._root, "idx") or self._root / "idx"
        return folders.find(index, name) or index / name

    def _train_part(self, modality: Modality) -> Part:
        listed = folders.labelled_paths(self._index(f"train_{SHORT[modality]}.txt"), self._root)
        return files(self._root, [Item(name, label, camera_of(name)) for name, label in listed])

    def _test_part(self, modality: Modality, wanted: set[int]) -> Part:
        name = f"test_{SHORT[modality]}"
        folder = folders.find(self._root, name)
        people = folders.cameras(self._root, folder, CAMERAS[modality]) if folder is not None else {}
        items = [
            Item(path, identity, camera)
            for identity in sorted(wanted)
            for camera in CAMERAS[modality]
            for path in people.get(camera, {}).get(identity, ())
        ]
        if not items:
            raise DataError(
                f"{self._root} contains no {modality} test images: looked for {name}/cam1/0001/, found "
                f"{folders.contents(folder or self._root)}; expected {self.test_count}"
            )
        return files(self._root, items)


def camera_of(name: str) -> int:
    """The camera in a training image's path, as in ``cam3/0001/x.jpg`` or ``0001_c03_s1.jpg``; −1 if it names none.

    >>> camera_of("train_vis/0001/0001_c05_s10_f7.jpg"), camera_of("nir/cam2/0001/1.jpg"), camera_of("nir/1/2.jpg")
    (5, 2, -1)
    """
    found = CAMERA_IN_NAME.search(name)
    return int(found[1] or found[2]) if found else UNKNOWN_CAMERA
