"""The community's choice of gallery images, shared by SYSU-MM01, LLCM and the synthetic pedestrians."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable, Mapping, Sequence

import torch

from reidassoc.errors import DataError
from reidassoc.types import Modality, Pair, Rule, Trial
from reidassoc_plugins.datasets.listing import Item, Part

TRIALS = 10
VISIBLE_CAMERAS = (1, 2, 4, 5)
INFRARED_CAMERAS = (3, 6)
SEARCHES = {"all-search": VISIBLE_CAMERAS, "indoor-search": (1, 2)}
SHOTS = {"single-shot": 1, "multi-shot": 10}
SAME_PLACE = ((3, 2),)  # (query camera, gallery camera): they look at the same place, so those images are ignored

Folders = Mapping[tuple[int, int], Sequence[int]]
Choose = Callable[[Folders, Sequence[int], int, int], list[int]]


def folders_of(items: Iterable[Item]) -> dict[tuple[int, int], list[int]]:
    """Rows by (identity, camera), each in the order of the file names."""
    found: dict[tuple[int, int], list[tuple[str, int]]] = {}
    for row, item in enumerate(items):
        if item.identity is not None:
            found.setdefault((item.identity, item.camera), []).append((item.name, row))
    return {key: [row for _, row in sorted(named)] for key, named in found.items()}


def choose(folders: Folders, cameras: Sequence[int], trial: int, shots: int) -> list[int]:
    """Draw ``shots`` rows of each identity and camera, after ``random.seed(trial)``.

    One image is the one that the community's code draws. Ten are drawn with the same chances, but are other files:
    the public code draws them with ``np.random.choice``, which ``random.seed`` does not seed. Identities and cameras
    come in ascending order. A missing folder draws nothing; one with fewer images than are wanted gives them all,
    without a draw.
    """
    draw = random.Random(trial)
    chosen: list[int] = []
    for identity in sorted({identity for identity, _ in folders}):
        for camera in sorted(cameras):
            rows = folders.get((identity, camera), ())
            if rows and shots == 1:
                chosen.append(draw.choice(rows))
            else:
                chosen += rows if len(rows) < shots else draw.sample(rows, shots)
    return chosen


def search_trials(test: Pair[Part], *, choose: Choose = choose, suffix: str = "") -> list[Trial]:
    """SYSU-MM01's protocols: infrared queries; all-search and indoor-search; single-shot and multi-shot; ten trials each.

    Raises:
        DataError: queries or gallery images are missing.
    """
    query = torch.arange(len(test.infrared.items))
    folders = folders_of(test.visible.items)
    rule = Rule(ignored_cameras=SAME_PLACE, first_occurrence=True)
    trials = []
    for search, cameras in SEARCHES.items():
        if not len(query) or not any(camera in cameras for _, camera in folders):
            places = ", ".join(f"cam{camera}" for camera in cameras)
            raise DataError(
                f"{search} needs test images of the infrared cameras 3, 6 and of the visible ones: {places}"
            )
        for shot, shots in SHOTS.items():
            for number in range(TRIALS):
                gallery = torch.tensor(choose(folders, cameras, number, shots), dtype=torch.int64)
                trials.append(
                    Trial(
                        protocol=f"{search} {shot}{suffix}",
                        number=number,
                        query_modality=Modality.INFRARED,
                        query=query,
                        gallery=gallery,
                        rule=rule,
                    )
                )
    return trials


def direction(query: Modality) -> str:
    """Name of the protocol that queries with one modality: ``visible-to-infrared``."""
    return f"{query}-to-{query.other}"
