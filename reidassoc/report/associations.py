"""Which clusters were associated with which, epoch by epoch, and whether the commonest person of both is the same."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from reidassoc.report.chapters import Method, Shown
from reidassoc.runs.report_data import Images
from reidassoc.types import OUTLIER, UNKNOWN_IDENTITY, Modality, Pair

EPOCHS = 20  # shown at most, evenly from the first association to the last
THUMBNAILS = 5  # of a cluster
NONE, RIGHT, WRONG, UNTOLD = range(4)  # a cluster without a partner, with the right, a wrong one, or who knows


class Face(NamedTuple):
    """Whom a cluster shows: the commonest known person, on how many of the images whose person is known."""

    images: int
    person: int
    showing: int
    known: int


NOBODY = Face(0, UNKNOWN_IDENTITY, 0, 0)
Labels = npt.NDArray[np.int64]
Kept = Mapping[str, Labels]


def explored(method: Method) -> dict[str, Any] | None:
    """What the explorer shows of a method's example run; None if it kept no labels across modalities.

    ``{"seed", "epochs": [e, …], "directions": [{"from", "to", "pairs": [one list per epoch], "people": {person: states}}]}``.
    A pair is ``[cluster, *face, partner, share, *face of the partner, state, thumbnails, its thumbnails]``, a face as
    :class:`Face` has it, the share in percent, thumbnails as places in ``Images.shown``. ``people``: each person's state at
    each epoch, a digit: that of at least half of its labelled images.
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
                if person >= 0
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
    for cluster, face in shows.items():
        partner, share = partner_of(cross[own == cluster])
        other = shows_there.get(partner, NOBODY)
        state = state_of(face.person, other.person, partner if partner in shows_there else OUTLIER)
        thumbnails = thumbs(own, cluster, here.shown), thumbs(theirs, partner, there.shown)
        pairs.append([cluster, *face, partner, share, *other, state, *thumbnails])
    return pairs, people_of(here.identity, cross, {label: face.person for label, face in shows_there.items()})


def faces(labels: Labels, identity: npt.NDArray[np.int32]) -> dict[int, Face]:
    """The face of each cluster; ties go to the lower number. Images of unknown people are not one person."""
    found = {}
    for cluster in np.unique(labels[labels != OUTLIER]):
        shown = identity[labels == cluster]
        people, counts = np.unique(shown[shown >= 0], return_counts=True)
        face = NOBODY._replace(images=len(shown))
        if len(people):
            most = int(counts.argmax())
            face = Face(len(shown), int(people[most]), int(counts[most]), int(counts.sum()))
        found[int(cluster)] = face
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
    if min(person, other) < 0:
        return UNTOLD
    return RIGHT if person == other else WRONG


def people_of(identity: npt.NDArray[np.int32], cross: Labels, shown: Mapping[int, int]) -> dict[int, int]:
    """Each person's state: right if at least half of its labelled images are."""
    known, place = np.unique(cross, return_inverse=True)
    other = np.array([shown.get(int(label), UNKNOWN_IDENTITY) for label in known], np.int64)[place]
    states = {}
    for person in np.unique(identity[identity >= 0]):
        mine = other[identity == person]
        told = mine[mine >= 0]
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
