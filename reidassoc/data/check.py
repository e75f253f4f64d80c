"""Look a downloaded dataset over: which layout it is, how many images each camera has, and which of them can't be read."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from reidassoc.data.images import decoder_threads
from reidassoc.errors import DataError
from reidassoc.interfaces import Dataset
from reidassoc.paths import refuse_no_dataset
from reidassoc.types import UNKNOWN_CAMERA, Modality, Records, Trial

BLOCK = 512  # images decoded between two reports of progress


@dataclass(frozen=True)
class CameraCount:
    """How much one camera contributes to a split; ``identities`` is None where they are unknown."""

    split: str
    modality: Modality
    camera: int
    images: int
    identities: int | None

    def __str__(self) -> str:
        camera = "camera unknown" if self.camera == UNKNOWN_CAMERA else f"camera {self.camera}"
        people = "" if self.identities is None else f" of {self.identities} identities"
        return f"{self.split} {self.modality}, {camera}: {self.images} images{people}"


@dataclass(frozen=True)
class CheckReport:
    """What was found.

    Args:
        layout: name of the dataset plug-in.
        fingerprint: of the dataset; copies of it elsewhere have the same.
        cameras: counts by split, modality and camera.
        protocols: ``(protocol, trials, queries, gallery images of the first trial)``.
        bad: one message for each image that is missing or corrupt.
        notes: counts that differ from the published ones, missing cameras, a split that can't be read.
    """

    layout: str
    fingerprint: str
    cameras: tuple[CameraCount, ...]
    protocols: tuple[tuple[str, int, int, int], ...]
    bad: tuple[str, ...]
    notes: tuple[str, ...]

    @property
    def images(self) -> int:
        return sum(count.images for count in self.cameras)

    def lines(self) -> list[str]:
        """The report as text."""
        found = [f"layout: {self.layout}", f"fingerprint: {self.fingerprint}", f"images: {self.images}"]
        found += [f"  {count}" for count in self.cameras]
        found += [
            f"protocol: {name}: {trials} trial{'s' * (trials > 1)}, {queries} queries, gallery {gallery}"
            for name, trials, queries, gallery in self.protocols
        ]
        found += [f"note: {note}" for note in self.notes]
        found += [f"bad: {message}" for message in self.bad]
        return found + ([] if self.bad else ["every image can be read"])


def layout_of(root: Path, candidates: Mapping[str, type]) -> str:
    """Return the name of the candidate whose ``recognises(root)`` is true.

    Raises:
        DataError: the root does not exist, or none recognises it.
    """
    root = Path(root).expanduser()
    refuse_no_dataset(root, candidates)
    for name, cls in candidates.items():
        recognises: Callable[[Path], bool] | None = getattr(cls, "recognises", None)
        if recognises is not None and recognises(root):
            return name
    found = sorted(os.listdir(root))[:8] if root.is_dir() else ["a file"]
    raise DataError(
        f"{root} is none of the known layouts ({', '.join(candidates)}); found {', '.join(found) or 'an empty folder'}; expected "
        "exp/ with cam1 … cam6, idx/ with Visible and Thermal, idx/ with test_vis and test_nir, or manifest.csv"
    )


def check(
    dataset: Dataset, *, layout: str, progress: Callable[[int, int], None] = lambda done, total: None
) -> CheckReport:
    """Count and decode every image of a dataset.

    Args:
        dataset: to look over.
        layout: its name, for the report.
        progress: called with (images done, images in all).

    Raises:
        DataError: neither split can be read.
    """
    splits: list[tuple[str, Records]] = []
    problems: dict[str, DataError] = {}
    for name, read in (("train", dataset.train), ("test", dataset.test)):
        try:
            splits += [(name, records) for records in read() if len(records)]
        except DataError as error:
            problems[name] = error
    if not splits:
        raise next(iter(problems.values()), DataError(f"{layout}: no images are listed"))
    notes = list(dataset.notes())
    trials: Sequence[Trial] = ()
    if "test" not in problems:
        try:
            trials = dataset.trials()
        except DataError as error:
            notes.append(f"trials: {error}")
    return CheckReport(
        layout=layout,
        fingerprint=dataset.fingerprint(),
        cameras=tuple(count for split, records in splits for count in counts(dataset, split, records)),
        protocols=tuple(protocols(trials)),
        bad=tuple(unreadable([records for _, records in splits], progress)),
        notes=tuple(notes),
    )


def counts(dataset: Dataset, split: str, records: Records) -> Iterator[CameraCount]:
    identity = dataset.identity(records)
    for camera in sorted(set(records.camera.tolist())):
        here = records.camera == camera
        people = None if identity is None else len(set(identity[here].tolist()))
        yield CameraCount(split, records.modality, int(camera), int(here.sum()), people)


def protocols(trials: Sequence[Trial]) -> Iterator[tuple[str, int, int, int]]:
    for name in dict.fromkeys(trial.protocol for trial in trials):
        own = [trial for trial in trials if trial.protocol == name]
        yield name, len(own), len(own[0].query), len(own[0].gallery)


def unreadable(parts: list[Records], progress: Callable[[int, int], None]) -> Iterator[str]:
    """Decode every image; yield a message for each that fails."""
    places = [(records, row) for records in parts for row in range(len(records))]

    def problem(place: tuple[Records, int]) -> str | None:
        try:
            place[0].source.load(place[1])
        except DataError as error:
            return str(error)
        return None

    with ThreadPoolExecutor(decoder_threads()) as pool:
        for start in range(0, len(places), BLOCK):
            yield from (message for message in pool.map(problem, places[start : start + BLOCK]) if message is not None)
            progress(min(start + BLOCK, len(places)), len(places))
