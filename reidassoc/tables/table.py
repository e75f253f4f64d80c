"""From outcomes to a comparison table: estimates over seeds, marks, footnotes; how it is drawn is another file's business."""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

from reidassoc.errors import DataError, nearest_name
from reidassoc.evaluation.figures import mean_of
from reidassoc.evaluation.statistics import Comparison, estimate
from reidassoc.runs.result import ORACLE
from reidassoc.tables.comparable import differences, refuse
from reidassoc.tables.paired_tests import against_best, interval_text, is_oracle
from reidassoc.tables.published import published
from reidassoc.tables.read import Outcome, Results, seconds_of, shown_name

Mark = Literal["best", "second", ""]
LEVEL = 0.05
REGDB_SPLITS = 10

COLUMNS = {
    "seeds": "seeds",
    "rank1": "Rank-1",
    "rank5": "Rank-5",
    "rank10": "Rank-10",
    "rank20": "Rank-20",
    "mAP": "mAP",
    "mINP": "mINP",
    "interval": "mAP, 95 % interval",
    "each": "mAP of each seed",
    "best": "best epoch's mAP (oracle)",
    "precision": "cross-modality pair precision",
    "seconds": "s per run",
}
METRICS = ("rank1", "rank5", "rank10", "rank20", "mAP", "mINP", "best", "precision")
RANKED = ("rank1", "rank5", "rank10", "rank20", "mAP", "mINP")
DEFAULT = ("seeds", "rank1", "rank10", "mAP", "mINP", "interval", "best")


@dataclass(frozen=True)
class Entry:
    """One place of a table: a figure, or a text, or nothing.

    Args:
        mean, std: in percent; NaN where there is none.
        text: shown instead, where it is not a figure.
        mark: best or second of its column.
        alike: not distinguishable from the column's best by the paired test.
    """

    mean: float = math.nan
    std: float = math.nan
    text: str = ""
    mark: Mark = ""
    alike: bool = False


@dataclass(frozen=True)
class Row:
    """A method: one entry per column, and the numbers of its footnotes."""

    name: str
    entries: tuple[Entry, ...]
    notes: tuple[int, ...] = ()
    published: bool = False


@dataclass(frozen=True)
class Table:
    """A comparison, ready to be drawn."""

    title: str
    columns: tuple[str, ...]
    rows: tuple[Row, ...]
    notes: tuple[str, ...] = ()
    remarks: tuple[str, ...] = ()
    comparisons: tuple[Comparison, ...] = ()

    @property
    def headings(self) -> tuple[str, ...]:
        return ("method", *(COLUMNS[column] for column in self.columns))


class Notes:
    """Footnotes in the order in which they are first asked for."""

    def __init__(self) -> None:
        self.texts: list[str] = []

    def number(self, text: str) -> int:
        if text not in self.texts:
            self.texts.append(text)
        return self.texts.index(text) + 1


def compare_results(
    results: Results,
    *,
    protocol: str | None = None,
    columns: Sequence[str] = DEFAULT,
    allow: bool = False,
    beside_published: bool = True,
) -> Table:
    """Make the table of some results.

    Args:
        results: what was read.
        protocol: whose figures are shown; the benchmark's, or the first one, if not given.
        columns: names from ``COLUMNS``.
        allow: print differences that forbid a comparison as footnotes instead of refusing.
        beside_published: add published rows below ours, where the dataset and protocol have any.

    Raises:
        DataError: a column or protocol is unknown, or the rows can't be compared.
    """
    for column in columns:
        if column not in COLUMNS:
            raise DataError(f"no column '{column}'{nearest_name(column, COLUMNS)}; columns: {', '.join(COLUMNS)}")
    rows = {name: [o for o in results.outcomes if o.row == name] for name in results.rows}
    there = {name: outcomes for name, outcomes in rows.items() if outcomes}
    notes = Notes()
    if not there:
        return nothing_yet(results, columns, notes)
    shown = protocol or results.protocol or next(iter(results.outcomes[0].data["protocols"]))
    refuse_twice(there)
    found = differences(there, shown)
    if not allow or "protocol" in found:
        refuse(found, shown)
    comparisons = against_best(there, shown)
    drawn = [one_row(name, outcomes, shown, columns, results, notes) for name, outcomes in rows.items()]
    if allow:
        drawn = footnoted(drawn, found, notes)
    drawn = marked(drawn, columns, there, comparisons)
    first = results.outcomes[0]
    if beside_published:
        drawn += published_rows(first, shown, columns, notes)
    return Table(
        title=f"{results.title or shown_name(first.dataset)}: {shown}",
        columns=tuple(columns),
        rows=tuple(drawn),
        notes=tuple(notes.texts),
        remarks=remarks(there, comparisons, columns),
        comparisons=tuple(comparisons),
    )


def nothing_yet(results: Results, columns: Sequence[str], notes: Notes) -> Table:
    drawn = [one_row(name, [], "", columns, results, notes) for name in results.rows]
    return Table(results.title or "no result yet", tuple(columns), tuple(drawn), tuple(notes.texts))


def refuse_twice(rows: Mapping[str, Sequence[Outcome]]) -> None:
    """Raise DataError if a row holds two results of one seed: they would be counted as two runs."""
    for name, outcomes in rows.items():
        seen: dict[tuple[int, str], Outcome] = {}
        for outcome in outcomes:
            key = (outcome.seed, str(outcome.dataset))
            if key in seen:
                raise DataError(
                    f"row '{name}' has seed {outcome.seed} twice: {seen[key].origin} and {outcome.origin}; leave one out, "
                    "or run both as named methods of a grid (reidassoc bench)"
                )
            seen[key] = outcome


def one_row(
    name: str, outcomes: Sequence[Outcome], protocol: str, columns: Sequence[str], results: Results, notes: Notes
) -> Row:
    """A row's figures; what is missing of it becomes a footnote."""
    numbers = [notes.number(f"{name}: {remark}") for row, _, remark in results.missing if row == name]
    if is_oracle(outcomes):
        numbers.append(notes.number(f"{ORACLE}: an upper bound, not a method; left out of the ranking"))
    for outcome in outcomes:
        if outcome.dataset.name == "regdb" and (splits := len({str(o.dataset) for o in outcomes})) < REGDB_SPLITS:
            text = f"{splits}/{REGDB_SPLITS} of RegDB's splits; published figures are means over ten runs"
            numbers.append(notes.number(text))
        prefix = f"{protocol}: "
        told = [text.removeprefix(prefix) for text in outcome.data.get("notes", []) if text.startswith(prefix)]
        numbers += [notes.number(text) for text in told]
    values = [figures(outcome.data, protocol) for outcome in outcomes]
    absent = sum(row == name for row, _, _ in results.missing)
    entries = tuple(entry(column, values, outcomes, protocol, absent) for column in columns)
    return Row(name, entries, tuple(dict.fromkeys(numbers)))


def figures(data: Mapping[str, Any], protocol: str) -> dict[str, float]:
    """One run's figures in percent, those that there are, and its seconds."""
    found = {metric: mean_of(value) for metric, value in data["protocols"].get(protocol, {}).items()}
    if protocol in data.get("best_epoch_oracle", {}):
        found["best"] = mean_of(data["best_epoch_oracle"][protocol]["mAP"])
    found = {metric: value for metric, value in found.items() if not math.isnan(value)}
    cross = [
        value for key, value in data.get("labels", {}).items() if key.endswith("/precision_cross") and value is not None
    ]
    if cross and data["method"]["associator"]:
        found["precision"] = 100 * statistics.fmean(cross)
    found["seconds"] = seconds_of(data)
    return found


def entry(
    column: str, values: Sequence[Mapping[str, float]], outcomes: Sequence[Outcome], protocol: str, absent: int
) -> Entry:
    if column == "seeds":
        total = len(values) + absent
        return Entry(text=str(total) if not absent else f"{len(values)}/{total}")
    if not values:
        return Entry()
    if column == "interval":
        return Entry(text=interval_text(outcomes, protocol))
    if column == "each":
        by_seed = sorted(zip(outcomes, values, strict=True), key=lambda pair: pair[0].seed)
        return Entry(text=", ".join(f"{value['mAP']:.1f}" for _, value in by_seed if "mAP" in value))
    known = [value[column] for value in values if not math.isnan(value.get(column, math.nan))]
    if not known:
        return Entry()
    if column == "seconds":
        return Entry(text=f"{statistics.median(known):.0f}")
    found = estimate(known)
    return Entry(found.mean, found.std)


def footnoted(rows: list[Row], found: Mapping[str, Mapping[str, Sequence[str]]], notes: Notes) -> list[Row]:
    """Rows with a footnote for everything in which they differ from others."""
    drawn = []
    for row in rows:
        numbers = [
            notes.number(f"{what}: {value}")
            for what, values in found.items()
            for value, names in values.items()
            if row.name in names
        ]
        drawn.append(replace(row, notes=(*row.notes, *numbers)))
    return drawn


def marked(
    rows: list[Row], columns: Sequence[str], there: Mapping[str, Sequence[Outcome]], comparisons: Sequence[Comparison]
) -> list[Row]:
    """Rows with the best and second of each ranked column marked, and what can't be told from the best mAP."""
    alike = {c.second for c in comparisons if not c.distinguishable(LEVEL)}
    entries = [list(row.entries) for row in rows]
    for place, column in enumerate(columns):
        if column not in RANKED:
            continue
        ranked = [n for n, row in enumerate(rows) if row.name in there and not is_oracle(there[row.name])]
        values = sorted({round(entries[n][place].mean, 2) for n in ranked if not math.isnan(entries[n][place].mean)})
        marks: dict[float, Mark] = {}
        if len(values) > 1:
            marks = {values[-1]: "best", values[-2]: "second"}
        for n in ranked:
            held = entries[n][place]
            if not math.isnan(held.mean):
                mark = marks.get(round(held.mean, 2), "")
                entries[n][place] = replace(held, mark=mark, alike=column == "mAP" and rows[n].name in alike)
    return [replace(row, entries=tuple(held)) for row, held in zip(rows, entries, strict=True)]


def published_rows(first: Outcome, protocol: str, columns: Sequence[str], notes: Notes) -> list[Row]:
    """Published figures of the same dataset and protocol; those chosen on the test set stand in the oracle's column."""
    drawn = []
    steps = first.data.get("setting", {}).get("test_time", [])
    for known in published(first.dataset.name, protocol, transductive=bool(steps)):
        figures = dict(known.figures)
        numbers = [notes.number(f"as printed in: {known.source}{'' if known.verified else ' (unverified)'}")]
        if known.best_on_test:
            numbers.append(notes.number("the epoch was chosen on the test set: compare with the best-epoch column"))
            figures["best"] = figures["mAP"]
        if known.note:
            numbers.append(notes.number(known.note))
        entries = tuple(Entry(figures.get(column, math.nan)) for column in columns)
        drawn.append(Row(f"{known.name} ({known.venue})" if known.venue else known.name, entries, tuple(numbers), True))
    return drawn


def remarks(
    rows: Mapping[str, Sequence[Outcome]], comparisons: Sequence[Comparison], columns: Sequence[str]
) -> tuple[str, ...]:
    """What the reader must know of the figures."""
    seeds = sorted({outcome.seed for outcomes in rows.values() for outcome in outcomes})
    told = [f"Percent, mean ± sample standard deviation over seeds {', '.join(map(str, seeds))}; last epoch."]
    if len(seeds) == 1:
        told = [f"Percent, one seed ({seeds[0]}): its spread is unknown; last epoch."]
    if "interval" in columns:
        told.append("Intervals: bootstrap over seeds and people, where queries were kept.")
    if comparisons:
        best = comparisons[0].first
        test = f"paired permutation test over queries, grouped by person, Holm-corrected, level {LEVEL}"
        told.append(f"≈: mAP not distinguishable from {best}'s ({test}).")
    flags = {flag for outcomes in rows.values() for outcome in outcomes for flag in outcome.data["flags"]} - {ORACLE}
    told += [f"{flag[0].upper()}{flag[1:]}." for flag in sorted(flags)]
    return tuple(told)


def measured_on(results: Results) -> str:
    """The machine and the last date of some results, for a caption."""
    machines = {
        f"{e['device']}, {e['threads']} thread{'' if e['threads'] == 1 else 's'}, torch {e['torch']}"
        for e in (outcome.data["environment"] for outcome in results.outcomes)
    }
    dates = [outcome.date for outcome in results.outcomes if outcome.date]
    return f"Measured on {' and '.join(sorted(machines))}{', ' + max(dates) if dates else ''}."
