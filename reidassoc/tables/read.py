"""Finished runs as tables take them: from run folders, from a benchmark's folder, or from cells exported as JSON."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from datetime import datetime, timezone
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

import reidassoc.registry as registry
from reidassoc.errors import DataError, ReidassocError, SpecError
from reidassoc.evaluation.queries import load_scores
from reidassoc.files.paths import refuse_no_results
from reidassoc.registry.spec import Spec, several
from reidassoc.runs.folder import SCORES, RunFolder
from reidassoc.runs.result import go_on_with
from reidassoc.tables.rows import row_names
from reidassoc.tables.schema import read_failure, read_result

KEPT = (
    "recipe", "digest", "method", "configuration", "files", "dataset", "seed", "epochs", "flags", "setting", "protocols",
    "notes", "best_epoch_oracle", "labels", "clusters", "counts", "environment",
)  # fmt: skip
DIGITS = 5  # of a query's average precision in an exported cell


@dataclass(frozen=True)
class Queries:
    """Average precision of each query, over its trials, and which person it shows."""

    precision: npt.NDArray[np.float64]
    person: npt.NDArray[np.int64]


@dataclass(frozen=True)
class Outcome:
    """One run that has ended.

    Args:
        name: what it is called: by its benchmark, by the user, or by its method.
        data: the content of ``result.json``.
        queries: by protocol; empty for runs that kept none.
        origin: where it was read.
        date: of the result, UTC.
        row: what its row of a table is called, see :mod:`reidassoc.tables.rows`; `Results` says it.
    """

    name: str
    data: Mapping[str, Any]
    queries: Mapping[str, Queries]
    origin: Path
    date: str = ""
    row: str = ""

    @property
    def seed(self) -> int:
        return int(self.data["seed"])

    @property
    def dataset(self) -> Spec:
        return Spec.parse(self.data["dataset"]["spec"])


@dataclass(frozen=True)
class Results:
    """What was read: the outcomes, and what failed or is not there yet, as ``(name, dataset, remark)``.

    Args:
        names: in the order of the table.

    Attributes:
        rows: of the table: the names, each of them once for each method that bears it.
    """

    outcomes: tuple[Outcome, ...] = ()
    missing: tuple[tuple[str, str, str], ...] = ()
    protocol: str | None = None
    title: str = ""
    names: tuple[str, ...] = field(default=())
    rows: tuple[str, ...] = field(init=False)

    def __post_init__(self) -> None:
        rows = row_names([(outcome.name, outcome.data) for outcome in self.outcomes])
        outcomes = tuple(replace(outcome, row=row) for outcome, row in zip(self.outcomes, rows, strict=True))
        of = {name: dict.fromkeys(o.row for o in outcomes if o.name == name) for name in self.names}
        missing = {name for name, _, _ in self.missing}
        shown = (
            row for name in self.names for row in (*of[name], *([name] if name in missing or not of[name] else []))
        )
        object.__setattr__(self, "outcomes", outcomes)
        object.__setattr__(self, "rows", tuple(dict.fromkeys(shown)))

    def __add__(self, other: Results) -> Results:
        return Results(
            self.outcomes + other.outcomes,
            self.missing + other.missing,
            self.protocol or other.protocol,
            self.title or other.title,
            tuple(dict.fromkeys(self.names + other.names)),
        )

    def by_dataset(self) -> list[Results]:
        """The results of each dataset by themselves, in order; RegDB's splits are one."""
        names = [data_name(outcome.dataset) for outcome in self.outcomes]
        names += [data_name(Spec.parse(dataset)) for _, dataset, _ in self.missing]
        found = []
        for name in dict.fromkeys(names):
            outcomes = tuple(o for o in self.outcomes if data_name(o.dataset) == name)
            missing = tuple(m for m in self.missing if data_name(Spec.parse(m[1])) == name)
            own = {outcome.name for outcome in outcomes} | {row for row, _, _ in missing}
            title = f"{self.title} {name}" if self.title and len(set(names)) > 1 else self.title
            mine = tuple(each for each in self.names if each in own)
            found.append(replace(self, outcomes=outcomes, missing=missing, names=mine, title=title))
        return found


def data_name(spec: Spec) -> str:
    """A dataset's spec without the folder it lies in and without RegDB's split."""
    return str(spec.without_roots().without("split"))


def shown_name(spec: Spec) -> str:
    """The dataset as a caption names it: with those of its options that differ from their defaults; root and split left out."""
    try:
        usual = {field.name: field.default for field in fields(registry.get("datasets", spec.name))}
    except ReidassocError:  # of a plug-in that is not here
        usual = {}
    same = [key for key, value in spec.options.items() if key in usual and value == usual[key]]
    return data_name(spec.without(*same))


def read_results(paths: str | PathLike[str] | Iterable[str | PathLike[str]]) -> Results:
    """Read run folders, runs' results, benchmark folders, exported cells, or folders of these; one or several.

    Raises:
        ReidassocError: a path holds none of them; the message names it.
    """
    found = Results()
    for path in map(Path, several(paths)):
        found += read_path(path)
    if not found.outcomes and not found.missing:
        raise DataError("there is no run to show; name run folders, or the folder of a benchmark")
    return found


def read_path(path: Path) -> Results:
    refuse_no_results(path)
    if (path / "plan.json").is_file():
        return read_benchmark(path)
    if (path / "result.json").is_file():
        outcome = read_run(path)
        return Results((outcome,), names=(outcome.name,))
    if path.suffix == ".json" and path.is_file():
        outcome = read_cell(path)
        return Results((outcome,), names=(outcome.name,))
    if (path / "recipe.yaml").is_file():
        raise DataError(f"{path}: the run has not ended; go on with: {go_on_with(RunFolder(path))}")
    if path.is_dir() and (cells := sorted(path.glob("*.json"))):
        outcomes = tuple(read_cell(cell) for cell in cells)
        return Results(outcomes, names=ordered(outcomes))
    raise DataError(f"{path} is no run folder, benchmark folder or exported cell: it has no result.json")


def ordered(outcomes: Sequence[Outcome]) -> tuple[str, ...]:
    """Names of exported cells, in the order that the benchmark gave them."""
    place = {outcome.name: outcome.data.get("place", 0) for outcome in reversed(outcomes)}
    return tuple(sorted(dict.fromkeys(outcome.name for outcome in outcomes), key=lambda name: place[name]))


def read_run(path: Path, name: str | None = None) -> Outcome:
    """Read a run folder; it is called by its method where no name is given."""
    data = read_result(path / "result.json")
    scores = load_scores(path / SCORES) if (path / SCORES).is_file() else {}
    queries = {name: Queries(score.mean, score.person.astype(np.int64)) for name, score in scores.items()}
    ended = datetime.fromtimestamp((path / "result.json").stat().st_mtime, timezone.utc)
    return Outcome(name or method_name(data), data, queries, path, ended.date().isoformat())


def read_cell(path: Path) -> Outcome:
    """Read a cell that ``export`` wrote."""
    data = read_result(path)
    queries = {
        name: Queries(np.array([np.nan if v is None else v for v in held["precision"]]), np.array(held["person"]))
        for name, held in data.get("queries", {}).items()
    }
    return Outcome(data.get("row") or method_name(data), data, queries, path, data.get("date", ""))


def method_name(data: Mapping[str, Any]) -> str:
    """The associator's name, or the recipe's where the run stays within the modalities."""
    associator = data["method"]["associator"]
    return Spec.parse(associator).name if associator else str(data["recipe"]).partition("/")[0]


def read_benchmark(path: Path) -> Results:
    """Read a benchmark's folder; a cell that is damaged, failed or not run yet does not hide the others."""
    try:
        plan = json.loads((path / "plan.json").read_text(encoding="utf-8"))
        cells = [(str(c["id"]), str(c["method"]), str(c["dataset"]), int(c["seed"])) for c in plan["cells"]]
        if strange := [name for name, *_ in cells if Path(name).name != name]:
            raise ValueError(f"'{strange[0]}' is no cell")  # and would lead out of the folder
        for _, _, dataset, _ in cells:
            Spec.parse(dataset)
        told = {key: plan.get(key) or "" for key in ("protocol", "title")}
        if wrong := [key for key, value in told.items() if not isinstance(value, str)]:
            raise ValueError(f"'{wrong[0]}' is no text")
    except (OSError, ValueError, KeyError, TypeError, RecursionError, SpecError) as error:
        raise DataError(f"{path / 'plan.json'} can't be read ({error}); run reidassoc bench again") from None
    outcomes, missing, rows = [], [], []
    for name, row, dataset, seed in cells:
        rows.append(row)
        folder, failure = path / "cells" / name, path / "cells" / f"{name}.error.json"
        if (folder / "result.json").is_file():
            try:
                outcomes.append(read_run(folder, row))
            except ReidassocError as error:
                missing.append((row, dataset, f"seed {seed} can't be read: {error}"))
        elif failure.is_file():
            missing.append((row, dataset, f"seed {seed} failed: {read_failure(failure)['error']}"))
        else:
            missing.append((row, dataset, f"seed {seed} has not ended"))
    return Results(tuple(outcomes), tuple(missing), told["protocol"] or None, told["title"], tuple(dict.fromkeys(rows)))


def export(results: Results, out: Path) -> list[Path]:
    """Write each outcome as one small JSON file ``ROW-SEED.json`` that can be committed: figures, no weights.

    Raises:
        DataError: two outcomes would have one name, or the folder can't be written.
    """
    protocol = results.protocol
    written: dict[str, Path] = {}
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise DataError(f"can't make {out}: {error.strerror}") from None
    for outcome in results.outcomes:
        data = outcome.data
        options = outcome.dataset.options
        split = f"-split{options['split']}" if "split" in options else ""
        name = re.sub(r"[^\w.+-]+", "_", outcome.row) + f"{split}-{outcome.seed}.json"
        if name in written:
            raise DataError(f"two results would be called {name}: {written[name]} and {outcome.origin}")
        written[name] = outcome.origin
        shown = protocol or next(iter(data["protocols"]))
        kept = {"row": outcome.name, "place": results.names.index(outcome.name)}
        kept |= {key: data[key] for key in KEPT if key in data}
        kept |= {"seconds": seconds_of(data), "date": outcome.date}
        kept["dataset"] = {**data["dataset"], "spec": str(outcome.dataset.without_roots())}
        if shown in outcome.queries:
            held = outcome.queries[shown]
            precision = [None if np.isnan(v) else round(float(v), DIGITS) for v in held.precision]
            kept["queries"] = {shown: {"precision": precision, "person": held.person.tolist()}}
        RunFolder(out).write_text(name, compact(kept))
    return [out / name for name in written]


def seconds_of(data: Mapping[str, Any]) -> float:
    """Seconds of all epochs of a run, as its folder or an exported cell says; NaN if it doesn't."""
    seconds = data.get("seconds", math.nan)
    return float(seconds["all_epochs"] if isinstance(seconds, Mapping) else seconds)


def compact(value: Mapping[str, Any]) -> str:
    """JSON with one line per key, but lists of numbers on one line."""
    text = json.dumps(value, indent=1, ensure_ascii=False)
    return re.sub(r"\[[-\d.,\snuleE+]*\]", lambda match: re.sub(r"\s+", "", match[0]), text) + "\n"
