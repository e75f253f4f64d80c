"""Which plug-ins run with which others, found out by composing every pair with parts that serve them both."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import combinations, groupby, product
from typing import Any

from reidassoc.recipe.requirements import GIVERS, candidates, gives, misfits, needs, unmet

PAIRS = (  # kinds of the rows and of the columns of the grids
    ("associators", "clusterers"),
    ("associators", "objectives"),
    ("associators", "refiners"),
    ("objectives", "clusterers"),
    ("objectives", "refiners"),
    ("objectives", "networks"),
    ("refiners", "networks"),
)
PLAIN = {"clusterers": "dbscan", "associators": "nearest", "objectives": "amirl", "networks": "tiny"}  # of a stage
CHANGES = 3  # parts of the plain stage that may be exchanged to serve a pair


@dataclass(frozen=True)
class Stage:
    """One part of each kind; no refiner unless it is one of the pair."""

    parts: Mapping[str, str]  # spec by kind
    oracle: bool = False


@dataclass(frozen=True)
class Cell:
    """What becomes of a pair of plug-ins.

    Args:
        fits: whether some stage runs them together.
        note: what that stage needs beside them; or why there is none. Empty where the plain parts do.
        stage: in which they run, or, of those that refuse them, the nearest.
    """

    fits: bool
    note: str
    stage: Stage


@dataclass(frozen=True)
class Grid:
    """All pairs of two kinds: ``cells[row, column]``, both specs."""

    kinds: tuple[str, str]
    rows: tuple[str, ...]
    columns: tuple[str, ...]
    cells: Mapping[tuple[str, str], Cell]


def matrix(kind: str | None = None) -> list[Grid]:
    """Pair the registered plug-ins by what they need and give.

    A pair is composed with the plain stage (dbscan, nearest, amirl, tiny); where that is refused, up to three of its other
    parts are exchanged, and true identities allowed. A second objective or refiner is never added.

    Args:
        kind: only grids whose rows are of this kind.
    """
    known = {each: dict(candidates(each)) for each in {*PLAIN, "refiners"}}
    grids = []
    for rows, columns in PAIRS:
        if kind in {None, rows}:
            cells = {
                pair: cell_of({rows: pair[0], columns: pair[1]}, known) for pair in product(known[rows], known[columns])
            }
            grids.append(Grid((rows, columns), tuple(known[rows]), tuple(known[columns]), cells))
    return grids


def cell_of(pair: Mapping[str, str], known: Mapping[str, Mapping[str, Any]]) -> Cell:
    """Find the stage nearest to the plain one that runs two plug-ins."""
    fewest, nearest = sys.maxsize, Stage(pair)
    for _, alike in groupby(stages_for(pair, known), key=lambda stage: len(changed(stage, pair))):
        fitting = []
        for stage in alike:
            count = len(unmet(named_parts(stage, known), oracle=stage.oracle))
            fitting += [stage] if count == 0 else []
            if count < fewest:  # of equals the first
                fewest, nearest = count, stage
        if fitting:
            return Cell(True, needed(fitting, pair), fitting[0])
    proposed = [pair for kind in GIVERS for pair in known[kind].items()]
    return Cell(False, misfits(named_parts(nearest, known), oracle=nearest.oracle, known=proposed)[0], nearest)


def stages_for(pair: Mapping[str, str], known: Mapping[str, Mapping[str, Any]]) -> Iterator[Stage]:
    """The plain stage with the pair in it, then with more and more parts exchanged."""
    free = [kind for kind in PLAIN if kind not in pair]
    for count in range(min(CHANGES, len(free) + 1) + 1):
        for kinds in combinations([*free, "oracle"], count):
            oracle, exchanged = "oracle" in kinds, [kind for kind in kinds if kind != "oracle"]
            for specs in product(*(useful(known[kind], PLAIN[kind]) for kind in exchanged)):
                yield Stage({**PLAIN, **dict(zip(exchanged, specs, strict=True)), **pair}, oracle)


def useful(parts: Mapping[str, Any], plain: str) -> list[str]:
    """What to try in place of the plain part: of the plug-ins that need and give the same, the first three."""
    seen: dict[object, list[str]] = {}
    for spec, part in parts.items():
        if spec != plain:
            seen.setdefault((needs(part), gives(part), getattr(part, "sampling", "")), []).append(spec)
    return [spec for specs in seen.values() for spec in specs[:3]]


def named_parts(stage: Stage, known: Mapping[str, Mapping[str, Any]]) -> list[tuple[str, Any]]:
    """The parts of a stage in the order in which recipes are checked."""
    order = ("clusterers", "associators", "refiners", "objectives", "networks")
    return [(spec.partition("(")[0], known[kind][spec]) for kind in order if (spec := stage.parts.get(kind))]


def changed(stage: Stage, pair: Mapping[str, str]) -> dict[str, str]:
    """What a stage has in place of the plain parts, by kind."""
    found = {kind: spec for kind, spec in stage.parts.items() if kind not in pair and spec != PLAIN.get(kind)}
    return {**found, **({"oracle": "--oracle"} if stage.oracle else {})}


def needed(stages: list[Stage], pair: Mapping[str, str]) -> str:
    """Say what the stages that run a pair have in place of the plain parts: ``with network tiny(parts=3)``."""
    if not (first := changed(stages[0], pair)):
        return ""
    words = []
    for kind in first:
        others = [changed(stage, pair) for stage in stages]
        choices = list(dict.fromkeys(c[kind] for c in others if c.keys() == first.keys()))
        words.append(f"{'' if kind == 'oracle' else kind.removesuffix('s') + ' '}{' or '.join(choices)}")
    return f"with {', '.join(words)}"
