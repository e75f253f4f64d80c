"""MyIdea: images, and the trials by which retrieval is judged."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated

import numpy as np
import numpy.typing as npt
import torch
from pydantic import Field
from torch import Tensor

from reidassoc import Dataset, Modality, Pair, Records, Rule, Trial
from reidassoc.data.images import ArrayImages

FIRST = {"train": 0, "test": 1000}  # number of a split's first person: nobody is in both
CAMERA = {Modality.VISIBLE: 1, Modality.INFRARED: 3}


@dataclass(frozen=True, kw_only=True)
class MyIdea(Dataset):
    """Noisy stripes that stand for people, until you put your own images here.

    Files of your own: ``FileImages(root, names)`` of ``reidassoc.data.images`` in the place of ``ArrayImages``, and an
    option ``root: Path``.
    """

    people: Annotated[int, Field(ge=2, description="in either split; a batch of most recipes takes 16")] = 16
    images: Annotated[int, Field(ge=1, description="of each person in each modality")] = 8

    def train(self) -> Pair[Records]:
        return Pair.build(lambda modality: self.records("train", modality))

    def test(self) -> Pair[Records]:
        return Pair.build(lambda modality: self.records("test", modality))

    def records(self, split: str, modality: Modality) -> Records:
        """All images of a split and a modality; the name says who is in them."""
        who = [FIRST[split] + person for person in range(self.people) for _ in range(self.images)]
        names = tuple(f"{modality}/{person:04d}/{row % self.images:04d}.png" for row, person in enumerate(who))
        camera = torch.full((len(who),), CAMERA[modality])
        return Records(modality, camera, names, ArrayImages([self.draw(name) for name in names]))

    def draw(self, name: str) -> npt.NDArray[np.uint8]:
        """(32, 16, 3): a person is a height of stripes; infrared shows them in grey."""
        modality, person, number = name.removesuffix(".png").split("/")
        noise = np.random.default_rng([int(person), int(number), len(modality)])
        stripes = np.random.default_rng(int(person)).random((32, 1, 3 if modality == "visible" else 1))
        return (255 * (0.7 * stripes + 0.3 * noise.random((32, 16, 3)))).astype(np.uint8)

    def trials(self) -> Sequence[Trial]:
        everything = torch.arange(self.people * self.images)
        return [
            Trial(
                protocol=f"{modality}-to-{modality.other}",
                number=0,
                query_modality=modality,
                query=everything,
                gallery=everything,
                rule=Rule(),
            )
            for modality in Modality
        ]

    def identity(self, records: Records) -> Tensor | None:
        return torch.tensor([int(name.split("/")[1]) for name in records.names])

    def fingerprint(self) -> str:
        return f"my_idea-{self.people}-{self.images}"  # for files: a hash of names and sizes
