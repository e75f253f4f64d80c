"""Made-up pedestrians with SYSU-MM01's protocols: a dataset that is there at once, on every machine the same."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Annotated, Any, ClassVar, Literal

import numpy as np
import numpy.typing as npt
from pydantic import Field

from reidassoc.types import Modality, Pair, Trial
from reidassoc_plugins.datasets.galleries import VISIBLE_CAMERAS, search_trials
from reidassoc_plugins.datasets.listing import Item, Listed, Part
from reidassoc_plugins.datasets.pedestrians.world import FIRST_TEST_IDENTITY, SIZES, Split, World

SAMPLED = 8  # pictures that stand for all in a fingerprint: they change when the drawing does


class Drawn:
    """Pictures of a world, drawn when they are asked for.

    Args:
        world: which is drawn.
        shots: (identity, camera, frame) of each picture.
    """

    def __init__(self, world: World, shots: Sequence[tuple[int, int, int]]) -> None:
        self.world = world
        self.shots = tuple(shots)

    def __len__(self) -> int:
        return len(self.shots)

    def load(self, row: int) -> npt.NDArray[np.uint8]:
        return self.world.picture(*self.shots[row])

    def mark(self) -> str:
        """Hash of the world's options and of some of its pictures."""
        digest = hashlib.sha256(f"{self.world} {len(self)}".encode())
        for row in np.linspace(0, max(len(self) - 1, 0), min(len(self), SAMPLED)).astype(int):
            digest.update(self.load(row).tobytes())
        return digest.hexdigest()

    def fingerprint(self) -> str:
        """Hash of the mark and of which pictures these are."""
        return hashlib.sha256(f"{self.mark()} {self.shots}".encode()).hexdigest()


@dataclass(frozen=True, kw_only=True)
class Synthetic(Listed):
    """Made-up pedestrians in memory: nothing to download, all of it follows from one seed.

    Body shape shows in both modalities, colour in visible images alone. Cameras 1, 2, 4 and 5 are visible, 3 and 6
    infrared; protocols and galleries are SYSU-MM01's, so that a run from memory equals one on the exported tree.
    ``size`` is ``tiny`` (tests), ``default`` (a first run on two cores) or ``sysu`` (as many images as SYSU-MM01);
    every other option, where given, replaces that of the size.

    Raises:
        ValueError: options contradict each other.
    """

    size: Annotated[Literal["tiny", "default", "sysu"], Field(description="how many people and images")] = "default"
    seed: Annotated[int, Field(ge=0, description="everything follows from it")] = 0
    identities: Annotated[int | None, Field(ge=1, lt=FIRST_TEST_IDENTITY, description="people to train on")] = None
    test_identities: Annotated[int | None, Field(ge=1, description="people to test on, all of them unseen")] = None
    images: Annotated[int | None, Field(ge=1, description="images of each person in each modality")] = None
    height: Annotated[int | None, Field(ge=8, description="of an image, in pixels")] = None
    width: Annotated[int | None, Field(ge=8, description="of an image, in pixels")] = None
    visible_cameras: Annotated[tuple[int, ...] | None, Field(description="some of 1, 2, 4, 5")] = None
    infrared_cameras: Annotated[tuple[int, ...] | None, Field(description="some of 3, 6")] = None
    jitter: Annotated[
        float | None, Field(ge=0, le=4, description="how far poses stray: the main dial of difficulty")
    ] = None
    gap: Annotated[
        float | None, Field(ge=0, le=1, description="0: infrared shows the colour's brightness; 1: unrelated")
    ] = None
    unpaired: Annotated[float | None, Field(ge=0, le=1, description="share of people seen in one modality only")] = None
    imbalance: Annotated[float | None, Field(ge=0, le=1, description="share of images the rarest person lacks")] = None
    noise: Annotated[float | None, Field(ge=0, le=4, description="times the sensors' own noise")] = None

    paper: ClassVar[str] = ""

    def __post_init__(self) -> None:
        if self.visible_cameras is not None and not set(self.visible_cameras) <= set(VISIBLE_CAMERAS):
            raise ValueError(f"visible_cameras must be some of {VISIBLE_CAMERAS}, got {self.visible_cameras}")
        _ = self.world  # it checks its options

    @cached_property
    def world(self) -> World:
        """The world that the options describe."""
        named = {"train_identities": self.identities}
        same = ("test_identities", "images", "height", "width", "visible_cameras", "infrared_cameras")
        dials = ("jitter", "gap", "unpaired", "imbalance", "noise")
        options: dict[str, Any] = named | {name: getattr(self, name) for name in (*same, *dials)}
        options = {name: value for name, value in options.items() if value is not None}
        base = SIZES[self.size]
        if "images" in options:  # so many for each person, not so many in all
            base = replace(base, train_total=None, test_total=None)
        elif base.train_total is not None:
            options |= totals(base, self.identities, self.test_identities)
        return replace(base, seed=self.seed, **options)

    def read_train(self) -> Pair[Part]:
        return Pair.build(lambda m: self._part("train", m))

    def read_test(self) -> Pair[Part]:
        return Pair.build(lambda m: self._part("test", m))

    def trials(self) -> Sequence[Trial]:
        """SYSU-MM01's 40 trials."""
        return search_trials(self.testing)

    def _part(self, split: Split, modality: Modality) -> Part:
        shots = self.world.shots(split, infrared=modality is Modality.INFRARED)
        rows = sorted(zip(shots.identity.tolist(), shots.camera.tolist(), shots.frame.tolist(), strict=True))
        items = [
            Item(f"cam{camera}/{identity:04d}/{frame:04d}.png", identity, camera) for identity, camera, frame in rows
        ]
        return Part(tuple(items), Drawn(self.world, rows))


def totals(base: World, train: int | None, test: int | None) -> dict[str, tuple[int, int]]:
    """The numbers of images in proportion, where another number of people is asked for."""
    counts = {}
    for name, people, wanted in (
        ("train_total", base.train_identities, train),
        ("test_total", base.test_identities, test),
    ):
        total = getattr(base, name)
        if wanted is not None and total is not None:
            counts[name] = (max(wanted, total[0] * wanted // people), max(wanted, total[1] * wanted // people))
    return counts
