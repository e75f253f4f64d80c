"""A small world of made-up pedestrians, seen by visible and by infrared cameras, drawn from one seed.

Each picture depends on (seed, identity, camera, frame) and the options alone, so a smaller world is a part of a larger one. All
drawing is done in whole numbers: the arrays are the same on every machine.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from random import Random
from typing import Literal

import numpy as np
import numpy.typing as npt

from reidassoc_plugins.datasets.galleries import INFRARED_CAMERAS, VISIBLE_CAMERAS
from reidassoc_plugins.datasets.pedestrians.figures import Figure
from reidassoc_plugins.datasets.pedestrians.people import Person, Pose
from reidassoc_plugins.datasets.pedestrians.raster import Canvas
from reidassoc_plugins.datasets.pedestrians.scenery import Camera, Picture, ground, occlude

Split = Literal["train", "test"]
Column = npt.NDArray[np.int64]

FIRST_TEST_IDENTITY = 5001  # far above any training identity, so a larger training set leaves the test set as it is
SAMPLES = 2  # per pixel and direction


@dataclass(frozen=True, kw_only=True)
class Shots:
    """The pictures of one modality and split as columns, in the order of a SYSU-MM01 scan: camera, identity, frame."""

    identity: Column  # (N,) int64, at least 1
    camera: Column  # (N,) int64
    frame: Column  # (N,) int64, from 1


@dataclass(frozen=True, kw_only=True)
class World:
    """Made-up pedestrians before visible and infrared cameras.

    `images` is per identity and modality; they go round the modality's cameras in turn. `train_total` and `test_total`, if given,
    are the numbers of visible and infrared images of the whole split instead, spread evenly.

    Raises:
        ValueError: an option is out of its range.
    """

    seed: int = 0
    train_identities: int = 160
    test_identities: int = 32
    images: int = 8
    height: int = 64
    width: int = 32
    visible_cameras: tuple[int, ...] = VISIBLE_CAMERAS
    infrared_cameras: tuple[int, ...] = INFRARED_CAMERAS
    jitter: float = 0.3  # how far poses, places and sizes stray: the main dial of difficulty
    gap: float = 1.0  # 1: infrared albedo has nothing to do with colour; 0: it is the colour's brightness
    unpaired: float = 0.0  # share of training identities seen in one modality only
    imbalance: float = 0.0  # share of its images that the rarest training identity lacks
    noise: float = 1.0  # times the sensors' own
    train_total: tuple[int, int] | None = None
    test_total: tuple[int, int] | None = None

    def __post_init__(self) -> None:
        for name in ("train_identities", "test_identities", "images"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, got {getattr(self, name)}")
        for name in ("height", "width"):
            if getattr(self, name) < 8:
                raise ValueError(f"{name} must be at least 8 pixels, got {getattr(self, name)}")
        for name in ("gap", "unpaired", "imbalance"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"{name} must be in [0, 1], got {getattr(self, name)}")
        for name in ("jitter", "noise"):
            if not 0 <= getattr(self, name) <= 4:
                raise ValueError(f"{name} must be in [0, 4], got {getattr(self, name)}")
        if self.train_identities >= FIRST_TEST_IDENTITY:
            raise ValueError(f"train_identities must be below {FIRST_TEST_IDENTITY}, got {self.train_identities}")
        both = self.visible_cameras + self.infrared_cameras
        if not self.visible_cameras or not self.infrared_cameras or len(set(both)) < len(both):
            raise ValueError(f"cameras must be distinct, and at least one per modality; got {both}")
        if not set(self.infrared_cameras) <= set(INFRARED_CAMERAS) or set(self.visible_cameras) & set(INFRARED_CAMERAS):
            raise ValueError(
                f"cameras {INFRARED_CAMERAS} are the infrared ones and no others; got {self.infrared_cameras}"
            )

    def identities(self, split: Split) -> range:
        """The identity numbers of a split."""
        if split == "train":
            return range(1, self.train_identities + 1)
        return range(FIRST_TEST_IDENTITY, FIRST_TEST_IDENTITY + self.test_identities)

    def shots(self, split: Split, *, infrared: bool) -> Shots:
        """Which pictures a modality of a split has; draws none."""
        people = self.identities(split)
        cameras = self.infrared_cameras if infrared else self.visible_cameras
        total = self.train_total if split == "train" else self.test_total
        hidden = self._hidden(infrared=infrared) if split == "train" else frozenset()
        rows = []
        for place, identity in enumerate(people):
            count = self.images
            if total is not None:
                whole = total[int(infrared)]
                count = whole * (place + 1) // len(people) - whole * place // len(people)
            if split == "train":
                count = max(1, count - self._lack(identity, count))
            if identity in hidden:
                continue
            # The camera an identity starts with changes from one to the next, so that odd counts do not favour one.
            for turn in range(count):
                camera = cameras[(turn + identity) % len(cameras)]
                rows.append((camera, identity, turn // len(cameras) + 1))
        table = np.array(sorted(rows), dtype=np.int64).reshape(-1, 3)
        return Shots(identity=table[:, 1].copy(), camera=table[:, 0].copy(), frame=table[:, 2].copy())

    def picture(self, identity: int, camera: int, frame: int, *, height: int = 0, width: int = 0) -> Picture:
        """One picture, (height, width, 3) uint8 RGB; the world's own size unless another is asked for."""
        height, width = height or self.height, width or self.width
        person, view = _person(self.seed, identity), _camera(self.seed, camera)
        random = Random(f"{self.seed}/shot/{identity}/{camera}/{frame}")
        jitter = round(self.jitter * 1000)
        pose = Pose.of(random, person, yaw=view.yaw, zoom=view.zoom, drop=view.drop, jitter=jitter)
        canvas = Canvas(height=height, width=width, samples=SAMPLES, light=view.light)
        view.backdrop(canvas, aside=shift(random, 900), up=shift(random, 900))
        ground(canvas, middle=pose.middle, foot=pose.crown + person.stature * pose.scale // 1000 - 120)
        Figure(person=person, pose=pose, canvas=canvas).draw()
        occlude(canvas, random, chance=jitter // 8)
        palette = view.palette(person, gap=round(self.gap * 1000))
        return view.expose(canvas.render(), palette, random, samples=SAMPLES, noise=round(self.noise * 1000))

    def _rank(self, purpose: str) -> list[int]:
        """The training identities in an order of chance."""
        return sorted(self.identities("train"), key=lambda i: Random(f"{self.seed}/{purpose}/{i}").getrandbits(64))

    def _hidden(self, *, infrared: bool) -> frozenset[int]:
        """The training identities that a modality never sees: every other one of the unpaired."""
        alone = self._rank("unpaired")[: round(self.unpaired * self.train_identities)]
        return frozenset(alone[int(infrared) :: 2])

    def _lack(self, identity: int, count: int) -> int:
        """How many of its images a training identity lacks: between none and the share `imbalance`, by chance."""
        share = Random(f"{self.seed}/imbalance/{identity}").randrange(1001)
        return count * round(self.imbalance * 1000) * share // 1_000_000


def shift(random: Random, width: int) -> int:
    """A whole number in [-width, width]."""
    return random.randint(-width, width)


@lru_cache(maxsize=4096)
def _person(seed: int, identity: int) -> Person:
    return Person.of(seed, identity)


@lru_cache(maxsize=64)
def _camera(seed: int, number: int) -> Camera:
    return Camera.of(seed, number)


SIZES: dict[str, World] = {
    "tiny": World(train_identities=16, test_identities=6, height=48, width=24),
    "default": World(),
    "sysu": World(
        train_identities=395,
        test_identities=96,
        height=288,
        width=144,
        train_total=(22258, 11909),
        test_total=(6775, 3803),
    ),
}


def sheet(world: World, identities: Sequence[int], *, height: int = 192, width: int = 96, rim: int = 4) -> Picture:
    """A contact sheet: one row per identity, one column per camera in the order 1 to 6, on white."""
    cameras = sorted(world.visible_cameras + world.infrared_cameras)
    cell_height, cell_width = height + rim, width + rim
    shape = (len(identities) * cell_height + rim, len(cameras) * cell_width + rim, 3)
    page = np.full(shape, 255, dtype=np.uint8)
    for row, identity in enumerate(identities):
        for column, camera in enumerate(cameras):
            top, left = row * cell_height + rim, column * cell_width + rim
            page[top : top + height, left : left + width] = world.picture(
                identity, camera, 1, height=height, width=width
            )
    return page
