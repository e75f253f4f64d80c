"""The lab's rows and its table: text for people, records for machines."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from reidassoc.evaluation.crowding import crowding
from reidassoc.evaluation.figures import NOTHING, figure_text
from reidassoc.labs.combinations import NONE, Combination
from reidassoc.tables.terminal_table import Column
from reidassoc.types import Modality, Pair


@dataclass(frozen=True)
class Row:
    """How one combination did.

    Args:
        clusters: K per modality.
        outliers: share of the samples in no cluster, per modality; None if there is no result.
        largest: share of the samples in the largest cluster, per modality.
        coverage: share of all samples that have a label in the other modality's space; None if there is no result.
        quality: flat label quality, as ``evaluation.labels`` gives it; empty without identities.
        seconds: ``own`` work of the associator and refiners; ``shared`` work that they used (the affinity), whoever did it
            first; ``cluster`` likewise of the clusterer, shared work included.
        peak_bytes: peak memory while the associator and refiners ran: of the process, or of torch on a GPU.
        extra_bytes: by how much that is above what was in use before.
        oracle: whether true identities were seen.
        problem: why there is no result, if there is none.
    """

    combination: Combination
    clusters: Pair[int]
    outliers: Pair[float | None]
    largest: Pair[float] = field(default_factory=lambda: Pair(0.0, 0.0))
    coverage: float | None = None
    quality: Mapping[str, float] = field(default_factory=dict)
    seconds: Mapping[str, float] = field(default_factory=dict)
    peak_bytes: int = 0
    extra_bytes: int = 0
    oracle: bool = False
    problem: str = ""

    @property
    def cross(self) -> Mapping[str, float]:
        """Pair ``precision``, ``recall`` and ``f1`` across modalities, ``ari``: means over the label spaces that have them."""
        spaces = [str(m) for m in Modality]
        if any(f"{space}/recall_cross" not in self.quality for space in spaces):
            return {}

        def known(name: str) -> list[float | None]:
            return [self.quality.get(f"{space}/{name}") for space in spaces]

        precision, recall, ari = known("precision_cross"), known("recall_cross"), known("ari")
        # Without a predicted pair the precision is undefined, and F1 is 0: all right pairs are missed.
        f1 = [2 * p * r / (p + r) if p and r else 0.0 for p, r in zip(precision, recall, strict=True)]
        found: dict[str, Sequence[float | None]] = {"precision": precision, "recall": recall, "f1": f1, "ari": ari}
        there = {name: [value for value in values if value is not None] for name, values in found.items()}
        return {name: sum(values) / len(values) for name, values in there.items() if values}


@dataclass(frozen=True)
class Lab:
    """What the lab found, in the order in which it was asked."""

    rows: tuple[Row, ...]
    source: str
    samples: Pair[int]
    notes: Mapping[str, str]
    seconds: float

    def __str__(self) -> str:
        """The table, as Markdown."""
        from reidassoc.labs.result import render  # late: it reads this module

        return render(self, "markdown").rstrip()


PERCENT = {"precision": "precision", "recall": "recall", "f1": "F1", "ari": "ARI"}


ORACLE_MARK = "†"


SPARE = {"extra MiB": 6, "shared s": 5, "ARI": 4, "recall": 3, "own s": 2, "precision": 1}


def caption(found: Lab) -> list[str]:
    """What a reader must know: source, samples, the clusterer if there is one alone, what the figures are."""
    of = f"{found.samples.visible} visible and {found.samples.infrared} infrared samples"
    origin = ", ".join(f"{key} {found.notes[key]}" for key in ("recipe", "dataset", "epoch") if key in found.notes)
    lines = [f"{found.source}: {of}" + (f" ({origin})" if origin else "")]
    if one_clusterer(found):
        first = found.rows[0]
        counts = f"{first.clusters.visible} visible and {first.clusters.infrared} infrared clusters"
        lines.append(f"Clusterer {first.combination.clusterer}: {counts}.")
    if any(row.cross for row in found.rows):
        lines.append(
            "Percent; pair precision, recall and F1 across modalities and ARI, means over both label spaces; coverage: samples "
            "with a label in the other space."
        )
    if alike(found):
        lines.append(
            "Rows of a method with equal figures differ at most in how sure labels are (only the most probable one is scored), "
            "or in what reads scene.previous: the lab has no last epoch."
        )
    if any(row.oracle for row in found.rows):
        lines.append(f"{ORACLE_MARK} saw true identities: a bound, not a result.")
    return lines


def hints(found: Lab) -> list[str]:
    """What stands under the table: which clusterers made one very large cluster, and what helps."""
    file = {} if found.source == IN_MEMORY else {"file": found.source}
    large = {str(row.combination.clusterer): crowding(row.largest, **file) for row in found.rows}
    if one_clusterer(found):
        return [text for text in large.values() if text]
    return [f"{name}: {text}" for name, text in large.items() if text]


def alike(found: Lab) -> bool:
    """Whether two rows that differ in options alone have the same figures."""
    rows = [
        (
            str(row.combination.clusterer),
            row.combination.associator.name,
            [s.name for s in row.combination.refiners],
            row.cross,
        )
        for row in found.rows
        if row.cross
    ]
    return any(rows.count(row) > 1 for row in rows)


def one_clusterer(found: Lab) -> bool:
    """Whether all rows have the same clusterer, which then stands above the table instead of in it."""
    return len({str(row.combination.clusterer) for row in found.rows}) == 1


def columns(header: Sequence[str]) -> list[Column]:
    """The header's columns for a terminal: the choices are what a reader looks for, so figures go first."""
    text = header.index("coverage")
    return [
        Column(name, "words") if number < text else Column(name, spare=SPARE.get(name, 0))
        for number, name in enumerate(header)
    ]


def text_table(found: Lab) -> tuple[list[str], list[list[str]]]:
    """Header and cells as text; within a clusterer the best F1 first, where identities are known."""
    several = not one_clusterer(found)
    refined = any(row.combination.refiners for row in found.rows)
    scored = any(row.cross for row in found.rows)
    header = [*(["clusterer", "clusters"] if several else []), "associator"]
    header += [*(["refiner"] if refined else []), "coverage"]
    header += list(PERCENT.values()) if scored else []
    header += ["own s", "shared s", "extra MiB"]
    order = list(dict.fromkeys(str(row.combination.clusterer) for row in found.rows))
    rows = sorted(found.rows, key=lambda row: (order.index(str(row.combination.clusterer)), -row.cross.get("f1", -1.0)))
    return header, [cells(row, several, refined, scored) for row in rows]


def cells(row: Row, several: bool, refined: bool, scored: bool) -> list[str]:
    choice = row.combination
    found = [str(choice.clusterer), f"{row.clusters.visible} + {row.clusters.infrared}"] if several else []
    found += [f"{choice.associator}{ORACLE_MARK if row.oracle else ''}", *([choice.refiner_text] if refined else [])]
    if row.problem:
        return [*found, "failed", *[NOTHING] * (len(PERCENT) * scored + 3)]
    found.append(percent(row.coverage))
    found += [percent(row.cross.get(name)) for name in PERCENT] if scored else []
    seconds = [f"{row.seconds[name]:.2f}" for name in ("own", "shared")]
    return [*found, *seconds, f"{row.extra_bytes / 2**20:.0f}"]


def percent(share: float | None) -> str:
    return figure_text(None if share is None else 100 * share)


def record(row: Row) -> dict[str, Any]:
    """A row as one flat mapping."""
    choice = row.combination
    return {
        "clusterer": str(choice.clusterer),
        "associator": str(choice.associator),
        "refiner": choice.refiner_text if choice.refiners else NONE,
        "oracle": row.oracle,
        "problem": row.problem,
        **{f"clusters_{m}": row.clusters[m] for m in Modality},
        **{f"outliers_{m}": row.outliers[m] for m in Modality},
        **{f"largest_{m}": row.largest[m] for m in Modality},
        "coverage": row.coverage,
        **{f"cross_{name}": value for name, value in row.cross.items()},
        **{f"seconds_{name}": value for name, value in row.seconds.items()},
        "peak_bytes": row.peak_bytes,
        "extra_bytes": row.extra_bytes,
        **row.quality,
    }


def render(found: Lab, form: str) -> str:
    """The table as ``markdown``, ``csv`` (every figure) or ``json`` (every figure, with the notes)."""
    if form == "markdown":
        header, rows = text_table(found)
        below = ["", *lines] if (lines := hints(found)) else []
        return "\n".join([*caption(found), "", *markdown(header, rows), *below, ""])
    records = [record(row) for row in found.rows]
    if form == "json":
        whole = {"source": found.source, "notes": dict(found.notes), "seconds": found.seconds, "rows": records}
        return json.dumps(whole, indent=1, ensure_ascii=False) + "\n"
    names = list(dict.fromkeys(name for one in records for name in one))
    page = io.StringIO()
    writer = csv.DictWriter(page, names, lineterminator="\n")
    writer.writeheader()
    writer.writerows(records)
    return page.getvalue()


def markdown(header: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """A Markdown table; words are left-aligned, figures right: from the coverage on."""
    text = header.index("coverage")
    rule = ["---"] * text + ["--:"] * (len(header) - text)
    return [f"| {' | '.join(line)} |" for line in (header, rule, *rows)]


IN_MEMORY = "features in memory"  # the source of features that no file contains
