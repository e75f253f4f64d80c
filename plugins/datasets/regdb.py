"""RegDB: one visible and one thermal camera, ten official splits."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path, PurePosixPath
from typing import Annotated, ClassVar

import torch
from pydantic import Field

from reidassoc.errors import DataError
from reidassoc.types import Modality, Pair, Rule, Trial
from reidassoc_plugins.datasets import folders
from reidassoc_plugins.datasets.galleries import direction
from reidassoc_plugins.datasets.listing import Count, Item, Listed, Part, files

FOLDERS = Pair("Visible", "Thermal")
SPLITS = 10


@dataclass(frozen=True, kw_only=True)
class Regdb(Listed):
    """RegDB: 412 people, ten visible and ten thermal images of each; half of them train, half test.

    ``ROOT/{Visible,Thermal}/{n}/*.bmp`` and ``ROOT/idx/{train,test}_{visible,thermal}_{1..10}.txt`` with lines
    ``relative/path label``. Both directions against the whole gallery, with the standard CMC. The ten splits also
    split the training identities: a run trains and is evaluated on one, and the published figure is the mean of ten
    runs.

    Raises:
        DataError: (when read) the root is not RegDB, a list is corrupt, or an image both trains and tests.
    """

    root: Annotated[Path, Field(description="folder that contains Visible, Thermal and idx")]
    split: Annotated[int, Field(ge=1, le=SPLITS, description="which of the ten official divisions of the people")] = 1

    paper: ClassVar[str] = (
        "Nguyen et al., Person Recognition System Based on a Combination of Body Images, Sensors 2017"
    )
    train_count: ClassVar[Count] = Count(identities=206, visible=2060, infrared=2060)
    test_count: ClassVar[Count] = Count(identities=206, visible=2060, infrared=2060)

    @classmethod
    def recognises(cls, root: Path) -> bool:
        """Whether a folder looks like RegDB."""
        return all(folders.spellings(root, name) for name in ("idx", *FOLDERS))

    def read_train(self) -> Pair[Part]:
        return self._lists["train"]

    def read_test(self) -> Pair[Part]:
        return self._lists["test"]

    def trials(self) -> Sequence[Trial]:
        """Two trials: visible queries in the thermal gallery, and the other way round."""
        rows = self.testing.map(lambda part: torch.arange(len(part.items)))
        return [
            Trial(
                protocol=direction(modality),
                number=0,
                query_modality=modality,
                query=rows[modality],
                gallery=rows[modality.other],
                rule=Rule(),
            )
            for modality in Modality
        ]

    def remarks(self, split: str, parts: Pair[Part]) -> Sequence[str]:
        if split == "test":
            return ()
        lists = {n: self._index_path("train", Modality.VISIBLE, n) for n in range(1, SPLITS + 1)}
        missing = ", ".join(str(n) for n, path in lists.items() if not path.is_file())
        return [f"no lists for split {missing}; the published figures are means over all ten"] if missing else []

    def people(self, parts: Pair[Part]) -> set[int]:
        """By their folders: the lists number each split from 0."""
        folder_names = {PurePosixPath(item.name).parent.name for part in parts for item in part.items}
        return {int(name) for name in folder_names if folders.is_number(name)}

    @cached_property
    def _root(self) -> Path:
        return folders.check_root(self.root, "RegDB", ["idx", *FOLDERS], str(self.train_count))

    @cached_property
    def _lists(self) -> dict[str, Pair[Part]]:
        lists = {use: Pair.build(lambda m, use=use: self._part(use, m)) for use in ("train", "test")}  # type: ignore[misc]
        for modality in Modality:
            train, test = ({item.name for item in lists[use][modality].items} for use in ("train", "test"))
            both = train & test
            if both:
                raise DataError(
                    f"{self._root}: {min(both)} is both in the training and in the test list of split {self.split}; "
                    "restore the original idx files"
                )
        return lists

    def _part(self, use: str, modality: Modality) -> Part:
        listed = folders.labelled_paths(self._index_path(use, modality, self.split), self._root)
        camera = 1 if modality is Modality.VISIBLE else 2
        return files(self._root, [Item(path, label, camera) for path, label in listed])

    def _index_path(self, use: str, modality: Modality, split: int) -> Path:
        index = folders.find(self._root, "idx") or self._root / "idx"
        name = f"{use}_{FOLDERS[modality].lower()}_{split}.txt"
        return folders.find(index, name) or index / name
