"""A dataset of twelve people in memory, in SYSU-MM01's shape, for tests of loaders, protocols and exports."""

from __future__ import annotations

import random
from dataclasses import dataclass

import numpy as np

from reidassoc.data.images import ArrayImages
from reidassoc.types import Modality, Pair, Trial
from reidassoc_plugins.datasets.galleries import search_trials
from reidassoc_plugins.datasets.listing import Item, Listed, Part

CAMERAS = Pair((1, 2, 4, 5), (3, 6))
TRAIN, TEST = range(1, 7), range(7, 13)
ABSENT = (8, 2)  # this person was never seen by this camera


@dataclass(frozen=True, kw_only=True)
class Toy(Listed):
    """Twelve people, two to thirteen noise images of each in every camera but one."""

    seed: int = 0
    blind: bool = False  # hide the identities

    def read_train(self) -> Pair[Part]:
        return Pair.build(lambda m: self._part(m, TRAIN))

    def read_test(self) -> Pair[Part]:
        return Pair.build(lambda m: self._part(m, TEST))

    def trials(self) -> list[Trial]:
        return search_trials(self.testing)

    def _part(self, modality: Modality, people: range) -> Part:
        items, pictures = [], []
        for person in people:
            for camera in CAMERAS[modality]:
                if (person, camera) == ABSENT:
                    continue
                draw = random.Random(f"{self.seed} {person} {camera}")
                for frame in range(1, (10 if person == 9 else draw.randint(2, 13)) + 1):
                    name = f"cam{camera}/{person:04d}/{frame:04d}.png"
                    items.append(Item(name, None if self.blind else person, camera))
                    pictures.append(np.frombuffer(draw.randbytes(12 * 6 * 3), np.uint8).reshape(12, 6, 3))
        return Part(tuple(items), ArrayImages(pictures))


@dataclass(frozen=True, kw_only=True)
class Odd(Listed):
    """Cameras that no layout has, and people numbered from 0 anew in the test set."""

    cameras: int = 2
    camera_unknown: bool = False
    person_unknown: bool = False  # the first one's number is −1

    def read_train(self) -> Pair[Part]:
        return Pair.build(lambda m: self._part("train", m))

    def read_test(self) -> Pair[Part]:
        return Pair.build(lambda m: self._part("test", m))

    def trials(self) -> list[Trial]:
        return []

    def _part(self, split: str, modality: Modality) -> Part:
        items = [
            Item(f"{split}/{modality}/{camera}/{person}.png", person, -1 if self.camera_unknown else 10 + camera)
            for person in (-1 if self.person_unknown else 0, 1, 2)
            for camera in range(self.cameras)
        ]
        return Part(tuple(items), ArrayImages([np.full((4, 2, 3), row, np.uint8) for row in range(len(items))]))
