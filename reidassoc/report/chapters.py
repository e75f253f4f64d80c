"""What a report is made from: runs, read with whatever their folders hold beside the result, and grouped by method."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from os import PathLike, fspath
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from reidassoc.engine.report_data import exhibits_of
from reidassoc.errors import DataError, ReidassocError
from reidassoc.evaluation.queries import QueryScores, load_scores
from reidassoc.files.npz import read_npz
from reidassoc.report.epochs import read_epochs
from reidassoc.runs.folder import SCORES, RunFolder, labels_name
from reidassoc.runs.report_data import Exhibits
from reidassoc.tables.read import Outcome, Results, read_results, shown_name
from reidassoc.tables.table import Table, compare_results

COLUMNS = ("seeds", "rank1", "rank10", "mAP", "mINP", "interval", "best", "precision", "seconds")
MOST_OF_A_REASON = 300  # characters


@dataclass(frozen=True)
class Shown:
    """One run: its result, its epochs, its labels, and its exhibits where there are any."""

    outcome: Outcome
    exhibits: Exhibits | None = None

    @property
    def folder(self) -> RunFolder:
        return RunFolder(self.outcome.origin)

    @cached_property
    def epochs(self) -> list[dict[str, Any]]:
        """Rows of ``metrics.jsonl``, checked; empty for figures without their folder."""
        return read_epochs(self.folder) if self.outcome.origin.is_dir() else []

    @cached_property
    def scores(self) -> dict[str, QueryScores]:
        """How each query fared in each trial, by protocol."""
        path = self.outcome.origin / SCORES
        return load_scores(path) if path.is_file() else {}

    def labels(self, epoch: int) -> dict[str, npt.NDArray[np.int64]]:
        """Hard labels of an epoch, named as ``associate`` names them; empty if they were not kept."""
        path = self.outcome.origin / labels_name(epoch)
        if not path.is_file():
            return {}
        held = read_npz(path, "labels", "delete it to leave that epoch out")
        if any(labels.ndim != 1 or labels.dtype != np.int64 for labels in held.values()):
            raise DataError(f"{path} holds no labels: expected one int64 per image; delete it to leave that epoch out")
        return dict(held)  # type: ignore[arg-type]


@dataclass(frozen=True)
class Method:
    """The runs of one row of the table, and the number of its colour."""

    name: str
    colour: int
    runs: tuple[Shown, ...]
    example: Shown  # whose labels and pictures are shown


@dataclass(frozen=True)
class Chapter:
    """The runs of one dataset, ready to be shown.

    Args:
        title: names the dataset.
        protocol: shown first.
        protocols: which all runs have.
        tables: the comparison under each of them.
        methods: in the order of the table's rows.
        notes: what could not be shown, and why.
    """

    title: str
    protocol: str
    protocols: tuple[str, ...]
    tables: Mapping[str, Table]
    methods: tuple[Method, ...]
    results: Results
    notes: tuple[str, ...] = field(default=())

    @property
    def runs(self) -> tuple[Shown, ...]:
        return tuple(run for method in self.methods for run in method.runs)


def read_named(paths: Sequence[str | PathLike[str]]) -> Results:
    """Read results; ``NAME=PATH`` calls the runs of a path NAME.

    Raises:
        ReidassocError: a path holds no result.
    """
    found = Results()
    for path in paths:
        name, equals, rest = fspath(path).partition("=")
        if not equals or Path(path).exists():
            found += read_results([path])
        else:
            held = read_results([rest])
            found += replace(held, outcomes=tuple(replace(o, name=name) for o in held.outcomes), names=(name,))
    if not found.outcomes:
        raise DataError("no run has ended yet: there is nothing to report; name run folders, or a benchmark's")
    return found


def chapters(
    results: Results,
    *,
    protocol: str | None = None,
    allow: bool = False,
    published: bool = True,
    pictures: bool = True,
    device: str | torch.device = "auto",
) -> list[Chapter]:
    """Group results by dataset and read what their folders hold.

    Args:
        results: what was read.
        protocol: shown first; the benchmark's, or the first one, if not given.
        allow: show what can't be compared, with footnotes, instead of refusing it.
        published: put published rows into the tables.
        pictures: show the thumbnails that the runs kept.
        device: where a run that kept no exhibits is evaluated again.

    Raises:
        DataError: the runs can't be compared, or none of them knows the protocol.
    """
    parts = results.by_dataset()
    return [
        chapter(part, protocol=protocol, allow=allow, published=published, pictures=pictures, device=device)
        for part in parts
        if part.outcomes
    ]


def chapter(
    results: Results,
    *,
    protocol: str | None,
    allow: bool,
    published: bool,
    pictures: bool = True,
    device: str | torch.device,
) -> Chapter:
    every = [set(outcome.data["protocols"]) for outcome in results.outcomes]
    known = tuple(name for name in results.outcomes[0].data["protocols"] if all(name in held for held in every))
    first = protocol or results.protocol or next(iter(known), "")
    if protocol and protocol not in known:
        raise DataError(f"no protocol '{protocol}' that all runs have; there are: {', '.join(known) or 'none'}")
    known = (first, *(name for name in known if name != first)) if known else ()
    tables = {
        name: compare_results(results, protocol=name, columns=COLUMNS, allow=allow, beside_published=published)
        for name in known
    }
    examples = examples_of(results)
    notes, kept = pictured(examples, device, pictures)
    methods = []
    for colour, row in enumerate(row for row in results.rows if row in examples):
        runs = tuple(Shown(o, kept.get(o.origin)) for o in results.outcomes if o.row == row)
        example = next(run for run in runs if run.outcome is examples[row])
        methods.append(Method(row, colour, runs, example))
    title = results.title or shown_name(results.outcomes[0].dataset)
    return Chapter(title, first, known, tables, tuple(methods), results, notes)


def examples_of(results: Results) -> dict[str, Outcome]:
    """The run of each row whose pictures are shown: of the lowest seed that all rows have, else of its lowest."""
    by_row = {row: [o for o in results.outcomes if o.row == row] for row in results.rows}
    by_row = {row: outcomes for row, outcomes in by_row.items() if outcomes}
    shared = set.intersection(*({o.seed for o in outcomes} for outcomes in by_row.values()))
    found = {}
    for row, outcomes in by_row.items():
        wanted = min(shared) if shared else min(o.seed for o in outcomes)
        found[row] = next(o for o in outcomes if o.seed == wanted)
    return found


def pictured(
    examples: Mapping[str, Outcome], device: str | torch.device, pictures: bool = True
) -> tuple[tuple[str, ...], dict[Path, Exhibits]]:
    """Why some rows have no pictures, and the exhibits of the others, by run folder.

    Thumbnails are shared by all rows: a run on other data than the first one's is left without.
    """
    why: dict[str, list[str]] = {}
    found: dict[Path, Exhibits] = {}
    data = next(iter(examples.values())).data["dataset"].get("fingerprint")
    for row, outcome in examples.items():
        if not outcome.origin.is_dir():
            reason = "exported figures alone; curves, labels and pictures need the run folder"
        elif outcome.data["dataset"].get("fingerprint") != data:
            reason = "no pictures; its data are not those of the first row"
        else:
            try:
                kept = exhibits_of(RunFolder(outcome.origin), device=device)
                found[outcome.origin] = kept if pictures else kept.without_pictures()
                if found[outcome.origin].pictured:
                    continue
                reason = "without pictures, as --no-pictures says"
            except (ReidassocError, OSError, RuntimeError, KeyError) as error:
                text = " ".join(str(error).split())[:MOST_OF_A_REASON]
                reason = f"no pictures; the run kept none, and they can't be made from its checkpoint ({text})"
        why.setdefault(reason, []).append(row)
    return tuple(f"{', '.join(rows)}: {text}" for text, rows in why.items()), found
