"""What the commands print: rich tables."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from typing import Any, cast

from rich.console import Console
from rich.markup import escape
from rich.text import Text

from reidassoc.bench.reproduce import Reproduction
from reidassoc.engine.associate import Associated
from reidassoc.evaluation.crowding import crowding
from reidassoc.evaluation.figures import NOTHING, figure_text
from reidassoc.files.atomic import write_text
from reidassoc.labs.advise import Advice
from reidassoc.labs.advise_epochs import Settling
from reidassoc.labs.result import Lab, caption, columns, hints, percent, text_table
from reidassoc.runs.result import Result
from reidassoc.tables.terminal_table import Column, print_columns
from reidassoc.types import Modality

COLUMNS = {"rank1": "Rank-1", "rank5": "Rank-5", "rank10": "Rank-10", "rank20": "Rank-20", "mAP": "mAP", "mINP": "mINP"}
SPARE = {"rank20": 2, "rank5": 1}  # left out where not all of them fit
FILE_WIDTH = 160
LABEL_ROWS = {
    "precision_visible": "pair precision, visible",
    "precision_infrared": "pair precision, infrared",
    "precision_cross": "pair precision, across modalities",
    "recall_cross": "pair recall, across modalities",
    "ari": "adjusted Rand index",
    "association_rate": "clusters that hold both modalities",
    "coverage_visible": "coverage, visible",
    "coverage_infrared": "coverage, infrared",
}


def console_of() -> Console:
    return Console(highlight=False)


def result_table(result: Result) -> None:
    """Print retrieval, label quality and the run folder."""
    console = console_of()
    method = result.data["method"]["associator"] or "one modality at a time"
    flags = "".join(f"; {flag}" for flag in result.data["flags"])
    title = f"{method} on {result.data['dataset']['spec']}, seed {result.data['seed']}, last epoch{flags}"
    print_protocols(console, result.protocols, title, "result.json has everything", result.notes)
    for protocol, best in list(result.data["best_epoch_oracle"].items())[:1]:
        figures = f"Rank-1 {figure_text(best['rank1']['mean'])}, mAP {figure_text(best['mAP']['mean'])}"
        console.print(
            f"Best epoch on the test set (an oracle, not the result): {best['epoch']}, {protocol}: {figures}\n",
            markup=False,
        )
    if result.labels:
        print_labels(console, result.labels, "Label quality of the last epoch")
    for name, count in result.data["counts"].items():
        console.print(f"{name}: {count}")
    console.print(f"\nRun folder: {result.folder}", soft_wrap=True, markup=False)


def protocol_table(protocols: Mapping[str, Any], title: str, notes: Sequence[str] = ()) -> None:
    print_protocols(console_of(), protocols, title, "--json has everything", notes)


def transductive_table(plain: Mapping[str, Any], steps: Mapping[str, Any]) -> None:
    """Print each test-time step in a column of its own, next to the plain result; a row per protocol and figure."""
    console = console_of()
    console.print(
        "\n[bold]Transductive[/]: each trial's queries and gallery ranked together; not comparable with plain figures"
    )
    names = ["plain", *(f"{step} transductive" for step in steps)]
    of = [plain, *(step["protocols"] for step in steps.values())]
    rows = [
        ["" if number else protocol, COLUMNS[key], *(figure_text(**protocols[protocol][key]) for protocols in of)]
        for protocol in plain
        for number, key in enumerate(("rank1", "mAP", "mINP"))
    ]
    print_columns(console, [Column("protocol", "words"), Column("", "words"), *map(Column, names)], rows)


def print_protocols(
    console: Console, protocols: Mapping[str, Any], title: str, more: str, notes: Sequence[str] = ()
) -> None:
    """Print one row per protocol; a narrow terminal gets fewer ranks. ``more``: where the others are."""
    console.print(f"\n[bold]{escape(title)}[/]\nRetrieval, percent, mean ± std over trials")
    columns = [Column("protocol", "words"), *(Column(name, spare=SPARE.get(key, 0)) for key, name in COLUMNS.items())]
    rows = [[protocol, *(figure_text(**metrics[key]) for key in COLUMNS)] for protocol, metrics in protocols.items()]
    print_columns(console, columns, rows, more=more)
    for note in notes:
        console.print(note, markup=False, soft_wrap=True)


def print_labels(console: Console, quality: Mapping[str, float], title: str) -> None:
    """Print label quality, flat as ``evaluation.labels`` gives it, one column per label space."""
    console.print(f"[bold]{title}[/], percent, by label space")
    spaces = list(dict.fromkeys(key.partition("/")[0] for key in quality))
    rows = [[name, *(percent(quality.get(f"{space}/{key}")) for space in spaces)] for key, name in LABEL_ROWS.items()]
    counts = [f"{quality[f'{space}/clusters']:.0f} / {quality[f'{space}/identities']:.0f}" for space in spaces]
    rows.append(["clusters / known identities", *counts])
    print_columns(console, [Column("", "words"), *map(Column, spaces)], rows)


def associated_table(found: Associated, out: str, methods: str, file: str) -> None:
    """Print which methods labelled the features of a file, what it cost, and how good the labels are if identities are known."""
    console = console_of()
    console.print(escape(methods))
    rows = []
    for modality in Modality:
        labels = found.own[modality], found.cross[modality]
        known = [percent(float((held >= 0).mean()) if len(held) else None) for held in labels]
        rows.append([str(modality), str(len(labels[0])), str(found.clusters[modality]), *known])
    names = ("samples", "clusters", "own label, %", "cross label, %")
    print_columns(console, [Column("modality", "words"), *map(Column, names)], rows)
    if hint := crowding(found.largest, file):
        console.print(hint, soft_wrap=True, markup=False)
    if found.quality:
        print_labels(console, found.quality, "Label quality")
    times = ", ".join(f"{name} {seconds:.2f} s" for name, seconds in found.seconds.items())
    console.print(f"{times}; peak memory {found.peak_bytes / 2**30:.2f} GiB")
    console.print(f"Labels: {out}", soft_wrap=True, markup=False)


def reproduction_table(console: Console, found: Reproduction) -> None:
    """Print published figures, ours, the verdict, and on a miss what deviates."""
    console.print(f"\n[bold]{escape(found.recipe)}[/]\nPercent: Rank-1 / mAP; last epoch, interval of 95 %")
    rows = []
    for verdict in found.verdicts:
        published = f"{verdict.published.figures['rank1']:.1f} / {verdict.published.figures['mAP']:.1f}"
        ours = f"{verdict.ours['rank1'].mean:.1f} / {verdict.ours['mAP'].mean:.1f}"
        low, high = verdict.interval
        rows.append(
            [verdict.protocol, published, ours, f"{low:.1f} to {high:.1f}", f"{verdict.best:.1f}", verdict.text]
        )
    figures = [Column(name) for name in ("published", "ours", "mAP interval", "best epoch")]
    print_columns(console, [Column("protocol", "words"), *figures, Column("verdict", "words")], rows)
    for source in dict.fromkeys(verdict.published.source for verdict in found.verdicts):
        console.print(f"Published figures as printed in: {escape(source)}")
    if any(not verdict.reached for verdict in found.verdicts):
        console.print("What deviates from the published runs:")
        for deviation in found.deviations:
            console.print(f"  - {escape(deviation)}", soft_wrap=True)


def lab_table(found: Lab, out: str | None = None) -> None:
    """Print what the lab found, or write the same text to a file."""
    console = Console(highlight=False, file=io.StringIO(), width=FILE_WIDTH) if out else console_of()
    for line in caption(found):
        console.print(escape(line))
    header, rows = text_table(found)
    if header[0] == "clusterer":  # which is said once, with its clusters
        rows = [row if n == 0 or row[:2] != rows[n - 1][:2] else ["", "", *row[2:]] for n, row in enumerate(rows)]
    print_columns(console, columns(header), rows, more="--format csv has everything")
    for line in hints(found):
        console.print(escape(line), soft_wrap=True)
    failed = [one for one in found.rows if one.problem]
    for one in failed:
        console.print(escape(f"failed: {one.combination.associator} on {one.combination.clusterer}: {one.problem}"))
    console.print(f"{len(found.rows)} combination{'s' if len(found.rows) != 1 else ''} in {found.seconds:.1f} s")
    if out:
        write_text(out, cast(io.StringIO, console.file).getvalue())


def settling_table(found: Settling, source: str) -> None:
    """Print how the clusters of a run's first stage settled, and from which epoch to go on."""
    console = console_of()
    console.print(f"\n[bold]{escape(source)}[/], stage {escape(found.stage)}: visible | infrared")
    rows = []
    for row in found.epochs:
        agreement = " | ".join(NOTHING if value is None else f"{value:.3f}" for value in row.agreement)
        style = "bold" if found.settled is not None and row.epoch >= found.settled else ""
        shares = [" | ".join(f"{100 * share:.0f}" for share in both) for both in (row.outliers, row.largest)]
        cells = [str(row.epoch), agreement, " | ".join(map(str, row.clusters)), *shares]
        rows.append([Text(cell, style) for cell in cells])
    names = ("epoch", "agreement with the epoch before", "clusters", "outliers, %", "largest cluster, %")
    print_columns(console, [Column(name) for name in names], rows)
    if found.change is None:
        console.print("In no epoch are there sound clusters whose agreement can be told: nothing to advise.")
        return
    late = " They were still settling as the stage ended: more epochs may help." if found.late else ""
    console.print(
        f"Advice, from stability alone (no identity was looked at): the clusters hardly change from epoch {found.settled} "
        f"on; {escape(f'--set {found.change}')}.{late}"
    )


def advice_table(found: Advice, source: str) -> None:
    """Print the stability curve of the advised k1, the stable range of every k1, and the advice."""
    console = console_of()
    ranges = []
    for curve in found.curves:
        shown = "none" if curve.stable is None else f"{curve.stable[0]:.2f} to {curve.stable[1]:.2f}"
        ranges.append([str(curve.k1), str(curve.k2), shown])
    best = max(found.curves, key=lambda curve: curve.width)
    console.print(f"\n[bold]{escape(source)}[/], k1 {best.k1}, k2 {best.k2}: visible | infrared")
    rows = []
    for one, two in zip(*best.curve, strict=True):
        agreement = " | ".join(NOTHING if p.stability is None else f"{p.stability:.2f}" for p in (one, two))
        cells = [
            f"{one.eps:.2f}", agreement, f"{one.clusters} | {two.clusters}",
            f"{100 * one.outliers:.0f} | {100 * two.outliers:.0f}", f"{100 * one.largest:.0f} | {100 * two.largest:.0f}",
        ]  # fmt: skip
        rows.append([Text(cell, "bold" if one.stable and two.stable else "") for cell in cells])
    names = ("eps", "agreement with the eps before", "clusters", "outliers, %", "largest cluster, %")
    print_columns(console, [Column(name) for name in names], rows)
    print_columns(console, [Column(name) for name in ("k1", "k2", "stable eps, both modalities")], ranges)
    if found.clusterer is None:
        console.print("No eps is stable in both modalities: these features hold no clear clusters yet.")
    else:
        console.print(f"Advice, from stability alone (no identity was looked at): {escape(found.clusterer)}")
