"""What every dataset that lists its images has in common: records, identities, fingerprint, and notes on unusual counts."""

from __future__ import annotations

import hashlib
from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import ClassVar, Protocol

import torch
from torch import Tensor

from reidassoc.data.images import FileImages
from reidassoc.errors import DataError
from reidassoc.interfaces import Dataset
from reidassoc.types import UNKNOWN_TRACKLET, ImageSource, Modality, Pair, Records


class Source(ImageSource, Protocol):
    """Pixels that also say, by a hash that every copy of the data shares, what they are."""

    def mark(self) -> str: ...


@dataclass(frozen=True)
class Item:
    """One image: its name, unique in the dataset, its true identity (None where unknown), camera and tracklet (−1: unknown)."""

    name: str
    identity: int | None
    camera: int
    tracklet: int = UNKNOWN_TRACKLET


@dataclass(frozen=True)
class Part:
    """The images of one modality in one split, and where their pixels are."""

    items: tuple[Item, ...]
    source: Source

    def records(self, modality: Modality) -> Records:
        camera = torch.tensor([item.camera for item in self.items], dtype=torch.int64)
        tracklet = torch.tensor([item.tracklet for item in self.items], dtype=torch.int64)
        return Records(modality, camera, tuple(item.name for item in self.items), self.source, tracklet)

    @property
    def identities(self) -> set[int]:
        return {item.identity for item in self.items if item.identity is not None}


@dataclass(frozen=True, kw_only=True)
class Count:
    """The published size of a split."""

    identities: int
    visible: int
    infrared: int

    def __str__(self) -> str:
        return f"{self.identities} identities, {self.visible} visible and {self.infrared} infrared images"

    def differences(self, parts: Pair[Part], split: str) -> list[str]:
        """One line for each count that differs, and by how much: home-made subsets are legal, but said."""
        found = {
            "identities": len(parts.visible.identities | parts.infrared.identities),
            "visible images": len(parts.visible.items),
            "infrared images": len(parts.infrared.items),
        }
        expected = (self.identities, self.visible, self.infrared)
        return [
            f"{split}: {count} {what}, {abs(count - known)} {'more' if count > known else 'fewer'} than the published {known}"
            for (what, count), known in zip(found.items(), expected, strict=True)
            if count != known
        ]


class Listed(Dataset):
    """A dataset that reads lists of its images, each split when it is first asked for."""

    train_count: ClassVar[Count | None] = None
    test_count: ClassVar[Count | None] = None

    @abstractmethod
    def read_train(self) -> Pair[Part]: ...

    @abstractmethod
    def read_test(self) -> Pair[Part]: ...

    def remarks(self, split: str, parts: Pair[Part]) -> Sequence[str]:
        """Further notes of a dataset's own on a split that could be read."""
        return ()

    def people(self, parts: Pair[Part]) -> set[int]:
        """Who is in a split, by numbers that name the same people in both splits; empty where there are none such."""
        return parts.visible.identities | parts.infrared.identities

    @cached_property
    def training(self) -> Pair[Part]:
        return self.read_train()

    @cached_property
    def testing(self) -> Pair[Part]:
        return self.read_test()

    def train(self) -> Pair[Records]:
        return Pair.build(lambda m: self.training[m].records(m))

    def test(self) -> Pair[Records]:
        return Pair.build(lambda m: self.testing[m].records(m))

    def identity(self, records: Records) -> Tensor | None:
        """(N,) int64 true identities, or None if one of them is unknown.

        Raises:
            DataError: an image is not of this dataset.
        """
        identities: dict[str, int | None] = {}
        for parts in self._readable():
            identities |= {item.name: item.identity for item in parts[records.modality].items}
        values = []
        for name in records.names:
            if name not in identities:
                raise DataError(
                    f"{name} is not a {records.modality} image of this dataset; give records of its train() or test()"
                )
            values.append(identities[name])
        labelled = [value for value in values if value is not None]
        return torch.tensor(labelled, dtype=torch.int64) if len(labelled) == len(values) else None

    def notes(self) -> tuple[str, ...]:
        """What is unusual about the data: counts that differ from the published ones, missing cameras, people in both splits."""
        notes: list[str] = []
        people: list[set[int]] = []
        for split, count, part in (
            ("train", self.train_count, "training"),
            ("test", self.test_count, "testing"),
        ):
            try:
                parts = getattr(self, part)
            except DataError as error:
                notes.append(f"{split}: {error}")
                continue
            notes += count.differences(parts, split) if count else []
            notes += self.remarks(split, parts)
            people.append(self.people(parts))
        both = set.intersection(*people) if len(people) > 1 else ()
        if both:
            notes.append(
                f"{len(both)} identities both train and test, {min(both)} among them: figures will be too good"
            )
        return tuple(notes)

    def fingerprint(self) -> str:
        """16 hexadecimal digits: names, identities, cameras, tracklets and file sizes. Copies on other machines have the same."""
        return self._fingerprint

    @cached_property
    def _fingerprint(self) -> str:
        digest = hashlib.sha256(type(self).__name__.encode())
        for parts in self._readable():
            for part in parts:
                digest.update(b"\n--\n")
                for item in part.items:
                    tracklet = f"\t{item.tracklet}" if item.tracklet != UNKNOWN_TRACKLET else ""
                    digest.update(f"{item.name}\t{item.identity}\t{item.camera}{tracklet}\n".encode())
                digest.update(part.source.mark().encode())
        return digest.hexdigest()[:16]

    def _readable(self) -> list[Pair[Part]]:
        """The splits that can be read: a root may hold just one. If none can, the first one's error is raised."""
        splits, problems = [], []
        for part in ("training", "testing"):
            try:
                splits.append(getattr(self, part))
            except DataError as error:
                problems.append(error)
        if not splits:
            raise problems[0]
        return splits


def files(root: Path, items: Sequence[Item]) -> Part:
    """A part whose items are files below a root."""
    return Part(tuple(items), FileImages(root, [item.name for item in items]))
