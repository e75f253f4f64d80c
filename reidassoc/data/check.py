"""Check a downloaded dataset: its layout, the images of each camera, and those that can't be read."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from reidassoc.data.images import decoder_threads
from reidassoc.errors import DataError
from reidassoc.files.paths import refuse_no_dataset
from reidassoc.interfaces.plugins import Dataset
from reidassoc.types import Modality, Pair, Records, Trial

BLOCK = 512  # images decoded between two reports of progress
LISTED = 8  # names of a folder that an error message shows
USES = {"train": "training", "test": "evaluation"}  # what a split is for


@dataclass(frozen=True)
class CameraCount:
    """How much one camera contributes to a split; ``identities`` counts the known ones, and is None where none are given."""

    split: str
    modality: Modality
    camera: int
    images: int
    identities: int | None

    def __str__(self) -> str:
        camera = "camera unknown" if self.camera < 0 else f"camera {self.camera}"
        people = "" if self.identities is None else f" of {self.identities} identities"
        return f"{self.split} {self.modality}, {camera}: {self.images} images{people}"


@dataclass(frozen=True)
class CheckReport:
    """The report on a dataset.

    Args:
        layout: name of the dataset plug-in.
        fingerprint: of the dataset; copies of it elsewhere have the same.
        cameras: counts by split, modality and camera.
        protocols: ``(protocol, trials, queries, gallery images of the first trial)``.
        bad: one message for each image that is missing or corrupt.
        notes: counts that differ from the published ones, missing cameras, a split that can't be read.
        unusable: what can't be done with the data, for reasons that are among the notes: training, evaluation.
    """

    layout: str
    fingerprint: str
    cameras: tuple[CameraCount, ...]
    protocols: tuple[tuple[str, int, int, int], ...]
    bad: tuple[str, ...]
    notes: tuple[str, ...]
    unusable: tuple[str, ...] = ()

    @property
    def images(self) -> int:
        return sum(count.images for count in self.cameras)

    def lines(self) -> list[str]:
        """The report as text."""
        lines = [f"layout: {self.layout}", f"fingerprint: {self.fingerprint}", f"images: {self.images}"]
        lines += [f"  {count}" for count in self.cameras]
        lines += [
            f"protocol: {name}: {trials} trial{'s' * (trials > 1)}, {queries} queries, gallery {gallery}"
            for name, trials, queries, gallery in self.protocols
        ]
        lines += [f"note: {note}" for note in self.notes]
        lines += [f"bad: {message}" for message in self.bad]
        if self.bad:
            return lines
        but = f", but not the lists for {' and '.join(self.unusable)}: see the notes" if self.unusable else ""
        return [*lines, f"every image can be read{but}"]


def layout_of(root: Path, candidates: Mapping[str, type]) -> str:
    """Return the name of the candidate whose ``recognises(root)`` is true.

    Raises:
        DataError: the root does not exist, or none recognises it.
    """
    root = Path(root).expanduser()
    refuse_no_dataset(root, candidates)
    if name := recognised(root, candidates):
        return name
    found = sorted(os.listdir(root)) if root.is_dir() else ["a file"]
    within = [str(root / name) for name in found if recognised(root / name, candidates)]
    hint = f"; did you mean {' or '.join(within[:LISTED])}?" if within else ""
    raise DataError(
        f"{root} is none of the known layouts ({', '.join(candidates)}); "
        f"found {', '.join(found[:LISTED]) or 'an empty folder'}; expected "
        f"exp/ with cam1 … cam6, idx/ with Visible and Thermal, idx/ with test_vis and test_nir, or manifest.csv{hint}"
    )


def recognised(root: Path, candidates: Mapping[str, type]) -> str | None:
    """The name of the first candidate that recognises a folder."""
    for name, cls in candidates.items():
        recognises: Callable[[Path], bool] | None = getattr(cls, "recognises", None)
        if recognises is not None and recognises(root):
            return name
    return None


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
    read: dict[str, Pair[Records]] = {}
    problems: dict[str, DataError] = {}
    for split, images in (("train", dataset.train), ("test", dataset.test)):
        try:
            read[split] = images()
        except DataError as error:
            problems[split] = error
    splits = [(split, records) for split, pair in read.items() for records in pair if len(records)]
    if not splits:
        raise next(iter(problems.values()), DataError(f"{layout}: no images are listed"))
    notes = [*dataset.notes(), *(f"{split}: {error}" for split, error in problems.items())]
    trials: Sequence[Trial] = ()
    if "test" in read:
        try:
            trials = dataset.trials()
        except DataError as error:
            problems["test"] = error
            notes.append(f"trials: {error}")
        else:
            notes += unmatched(dataset, read["test"], trials) if trials else ["test: no trials: nothing to evaluate"]
    bad, turned = look_over([records for _, records in splits], progress)
    if turned:
        notes.append(
            f"EXIF data of {turned} images ask for a turn, which is ignored: turn the pixels if they are not upright"
        )
    return CheckReport(
        layout=layout,
        fingerprint=dataset.fingerprint(),
        cameras=tuple(count for split, records in splits for count in counts(dataset, split, records)),
        protocols=tuple(protocols(trials)),
        bad=tuple(bad),
        notes=tuple(dict.fromkeys(notes)),  # a dataset may have noted by itself what can't be read
        unusable=tuple(USES[split] for split in problems),
    )


def counts(dataset: Dataset, split: str, records: Records) -> Iterator[CameraCount]:
    identity = dataset.identity(records)
    for camera in sorted(set(records.camera.tolist())):
        here = records.camera == camera
        people = None if identity is None else len(set(identity[here & (identity >= 0)].tolist()))
        yield CameraCount(split, records.modality, int(camera), int(here.sum()), people)


def protocols(trials: Sequence[Trial]) -> Iterator[tuple[str, int, int, int]]:
    for name in dict.fromkeys(trial.protocol for trial in trials):
        own = [trial for trial in trials if trial.protocol == name]
        yield name, len(own), len(own[0].query), len(own[0].gallery)


def unmatched(dataset: Dataset, test: Pair[Records], trials: Sequence[Trial]) -> Iterator[str]:
    """A note for each modality some of whose query identities are in no gallery."""
    identity = test.map(dataset.identity)
    for modality in Modality:
        asked, offered = identity[modality], identity[modality.other]
        own = [trial for trial in trials if trial.query_modality is modality]
        if not own or asked is None or offered is None:
            continue
        queries = {number for trial in own for number in asked[trial.query].tolist() if number >= 0}
        alone = queries.difference(*(offered[trial.gallery].tolist() for trial in own))
        if alone:
            yield (
                f"test: {len(alone)} of {len(queries)} identities of {modality} queries are in no gallery, "
                f"{min(alone)} among them: those queries are left out of the figures"
            )


def look_over(parts: list[Records], progress: Callable[[int, int], None]) -> tuple[list[str], int]:
    """Decode every image; return a message for each that fails, and how many ask for a turn by their EXIF data."""
    places = [(records, row) for records in parts for row in range(len(records))]

    def look(place: tuple[Records, int]) -> tuple[str | None, bool]:
        source, row = place[0].source, place[1]
        try:
            source.load(row)
        except DataError as error:
            return str(error), False
        asks: Callable[[int], bool] | None = getattr(source, "asks_for_a_turn", None)  # files may
        return None, asks is not None and asks(row)

    bad: list[str] = []
    turned = 0
    with ThreadPoolExecutor(decoder_threads()) as pool:
        for start in range(0, len(places), BLOCK):
            for message, turns in pool.map(look, places[start : start + BLOCK]):
                bad += [message] if message is not None else []
                turned += turns
            progress(min(start + BLOCK, len(places)), len(places))
    return bad, turned
