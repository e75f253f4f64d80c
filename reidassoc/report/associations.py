"""Which clusters were associated with which, epoch by epoch, and whether they show the same person."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from reidassoc.engine.exhibits import UNKNOWN, Images
from reidassoc.report.material import Method, Shown
from reidassoc.types import OUTLIER, Modality, Pair

EPOCHS = 20  # shown at most, evenly from the first association to the last
THUMBNAILS = 5  # of a cluster
NONE, RIGHT, WRONG, UNTOLD = range(4)  # a cluster without a partner, with the right, a wrong one, or who knows

Labels = npt.NDArray[np.int64]
Kept = Mapping[str, Labels]


def explored(method: Method) -> dict[str, Any] | None:
    """What the explorer shows of a method's example run; None if it kept no labels across modalities.

    ``{"seed", "epochs": [e, …], "directions": [{"from", "to", "pairs": [one list per epoch], "people": {person: states}}]}``.
    A pair is ``[cluster, images, person, purity, partner, share, its images, its person, its purity, state, thumbnails,
    its thumbnails]``: shares in percent, thumbnails as places in ``Images.shown``. ``people``: each person's state at each
    epoch, a digit: that of most of its images.
    """
    run = method.example
    if run.exhibits is None:
        return None
    held = {epoch: labels for epoch in epochs_of(run) if crosses(labels := run.labels(epoch))}
    chosen = [
        sorted(held)[n] for n in np.unique(np.linspace(0, len(held) - 1, min(EPOCHS, len(held))).round().astype(int))
    ]
    if not chosen:
        return None
    images = run.exhibits.train
    directions = []
    for modality in Modality:
        found = [of_epoch(held[epoch], modality, images) for epoch in chosen]
        if any(pairs for pairs, _ in found):
            people = {
                int(person): "".join(str(states.get(int(person), NONE)) for _, states in found)
                for person in np.unique(images[modality].identity)
                if person != UNKNOWN
            }
            directions.append(
                {"from": str(modality), "to": str(modality.other), "pairs": [p for p, _ in found], "people": people}
            )
    return {"seed": run.outcome.seed, "epochs": chosen, "directions": directions} if directions else None


def epochs_of(run: Shown) -> list[int]:
    return [int(row["epoch"]) for row in run.epochs if "clusters" in row]


def crosses(labels: Kept) -> bool:
    return any(name.startswith(("cross_", "shared_")) for name in labels)


def sides(labels: Kept, modality: Modality) -> tuple[Labels, Labels, Labels] | None:
    """(own, cross, theirs): a modality's clusters, its samples' labels across, and what those are labels of.

    Where a method labels both modalities in one shared space, a sample's cluster is its label across.
    """
    names = f"own_{modality}", f"cross_{modality}", f"own_{modality.other}"
    if all(name in labels for name in names):
        own, cross, theirs = (labels[name] for name in names)
        return own, cross, theirs
    if f"shared_{modality}" in labels and f"shared_{modality.other}" in labels:
        own = labels[f"shared_{modality}"]
        return own, own, labels[f"shared_{modality.other}"]
    return None


def of_epoch(labels: Kept, modality: Modality, images: Pair[Images]) -> tuple[list[list[Any]], dict[int, int]]:
    """The pairs of one direction, and the state of each person."""
    found = sides(labels, modality)
    here, there = images[modality], images[modality.other]
    if found is None or len(found[0]) != len(here.identity) or len(found[2]) != len(there.identity):
        return [], {}
    own, cross, theirs = found
    if len(cross) != len(own):
        return [], {}
    shows, shows_there = faces(own, here.identity), faces(theirs, there.identity)
    pairs = []
    for cluster, (images_here, person, purity) in shows.items():
        partner, share = partner_of(cross[own == cluster])
        size, other, purity_there = shows_there.get(partner, (0, UNKNOWN, 0))
        state = state_of(person, other, partner if partner in shows_there else OUTLIER)
        thumbnails = thumbs(own, cluster, here.shown), thumbs(theirs, partner, there.shown)
        pairs.append(
            [cluster, images_here, person, purity, partner, share, size, other, purity_there, state, *thumbnails]
        )
    return pairs, people_of(here.identity, cross, {label: face[1] for label, face in shows_there.items()})


def faces(labels: Labels, identity: npt.NDArray[np.int32]) -> dict[int, tuple[int, int, int]]:
    """Of each cluster: its images, whom most of them show, and how many percent do; ties go to the lower number."""
    found = {}
    for cluster in np.unique(labels[labels != OUTLIER]):
        people, counts = np.unique(identity[labels == cluster], return_counts=True)
        most = int(counts.argmax())
        found[int(cluster)] = int(counts.sum()), int(people[most]), round(100 * int(counts[most]) / int(counts.sum()))
    return found


def partner_of(cross: Labels) -> tuple[int, int]:
    """The label that most of a cluster's samples have across modalities, and how many percent have it."""
    known, counts = np.unique(cross[cross != OUTLIER], return_counts=True)
    if len(known) == 0:
        return OUTLIER, 0
    most = int(counts.argmax())
    return int(known[most]), round(100 * int(counts[most]) / len(cross))


def state_of(person: int, other: int, partner: int) -> int:
    if partner == OUTLIER:
        return NONE
    if UNKNOWN in (person, other):
        return UNTOLD
    return RIGHT if person == other else WRONG


def people_of(identity: npt.NDArray[np.int32], cross: Labels, shown: Mapping[int, int]) -> dict[int, int]:
    """Each person's state: that of most of its labelled images."""
    known, place = np.unique(cross, return_inverse=True)
    other = np.array([shown.get(int(label), UNKNOWN) if label != OUTLIER else UNKNOWN for label in known], np.int64)[
        place
    ]
    states = {}
    for person in np.unique(identity[identity != UNKNOWN]):
        mine = other[identity == person]
        told = mine[mine != UNKNOWN]
        states[int(person)] = (
            NONE if len(told) == 0 else RIGHT if 2 * int((told == person).sum()) >= len(told) else WRONG
        )
    return states


def thumbs(labels: Labels, cluster: int, shown: npt.NDArray[np.int32]) -> list[int]:
    """Places in ``shown`` of some images of a cluster, spread over it."""
    places = np.flatnonzero(labels[shown] == cluster) if cluster != OUTLIER else np.zeros(0, np.int64)
    chosen = places[
        np.unique(np.linspace(0, max(len(places) - 1, 0), min(THUMBNAILS, len(places))).round().astype(int))
    ]
    return [int(place) for place in chosen]
