"""Thumbnails of all runs of a chapter, each image once, as one JPEG sheet per split and modality."""

from __future__ import annotations

import base64
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from reidassoc.data.tiles import COLUMNS, pack, resized, unpack
from reidassoc.report.chapters import Chapter
from reidassoc.runs.report_data import Images
from reidassoc.types import Modality

QUALITY = 75  # of the sheets on the page
MANY = 2500  # tiles of a sheet; more of them are made smaller
SMALL = (64, 32)  # (height, width) of such a tile
Key = tuple[str, Modality]


@dataclass(frozen=True)
class Sheet:
    """One sheet: which rows it shows, who they are, and its JPEG."""

    rows: npt.NDArray[np.int32]
    person: npt.NDArray[np.int32]
    camera: npt.NDArray[np.int32]
    jpeg: bytes

    @property
    def uri(self) -> str:
        return f"data:image/jpeg;base64,{base64.b64encode(self.jpeg).decode('ascii')}"


@dataclass(frozen=True)
class Sheets:
    """The sheets of a chapter, by split (train, test) and modality."""

    tile: tuple[int, int]
    held: Mapping[Key, Sheet]

    def places(self, part: str, modality: Modality, rows: Iterable[int]) -> list[int]:
        """Which tile shows each row; −1 where none does."""
        sheet = self.held[part, modality]
        wanted = np.asarray(list(rows), dtype=np.int64)
        place = np.searchsorted(sheet.rows, wanted)
        known = (place < len(sheet.rows)) & (sheet.rows[np.minimum(place, max(len(sheet.rows) - 1, 0))] == wanted)
        return [int(p) if k else -1 for p, k in zip(place, known, strict=True)]

    def described(self) -> dict[str, Any]:
        """For the page: ``{"train-visible": {"person": […], "camera": […]}}`` by tile."""
        return {
            f"{part}-{modality}": {"person": sheet.person.tolist(), "camera": sheet.camera.tolist()}
            for (part, modality), sheet in self.held.items()
        }

    def css(self, number: int) -> str:
        """Rules that show them as backgrounds of ``.sheet-NUMBER-train-visible`` and so on."""
        height, width = self.tile
        rules = [f".chapter-{number}{{--ratio:{height / width:.4f};--columns:{COLUMNS}}}"]
        rules += [
            f'.sheet-{number}-{part}-{modality}{{background-image:url("{sheet.uri}")}}'
            for (part, modality), sheet in self.held.items()
            if sheet.jpeg
        ]
        return "\n".join(rules)


def sheets_of(chapter: Chapter) -> Sheets | None:
    """Join the thumbnails of the methods' examples; None if none kept any."""
    every = [method.example.exhibits for method in chapter.methods]
    kept = [exhibits for exhibits in every if exhibits is not None and exhibits.pictured]
    if not kept:
        return None
    tile = kept[0].tile
    held: dict[Key, Sheet] = {}
    for modality in Modality:
        held["train", modality] = joined([(one.train[modality], one.tile) for one in kept], tile)
        tested = [(one.test[modality], one.tile) for one in kept if one.test is not None]
        if tested:
            held["test", modality] = joined(tested, tile)
    return Sheets(tile, held)


def joined(kept: list[tuple[Images, tuple[int, int]]], tile: tuple[int, int]) -> Sheet:
    """One sheet of all rows that any of the runs shows."""
    images = kept[0][0]
    rows, first = np.unique(np.concatenate([one.shown for one, _ in kept]), return_index=True)
    if all(len(one.shown) == len(rows) for one, _ in kept):  # the usual case for training images
        kept = kept[:1]
        first = np.arange(len(rows))
    unpacked = [unpack(one.tiles, tile=size, count=len(one.shown)) for one, size in kept]
    tiles = torch.cat([resized(one, tile) for one in unpacked])[first]
    jpeg = pack(tiles, tile=small_of(tile) if len(rows) > MANY else tile, quality=QUALITY).tobytes()
    return Sheet(rows, images.identity[rows], images.camera[rows], jpeg)


def small_of(tile: tuple[int, int]) -> tuple[int, int]:
    """A smaller tile of the same shape, if there is one."""
    return SMALL if tile[0] * SMALL[1] == tile[1] * SMALL[0] else tile
