"""What the commands print: rich tables."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from typing import Any, cast

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from reidassoc.bench.advise import Advice
from reidassoc.bench.folding import GAP, fold, shares
from reidassoc.bench.lab import Lab
from reidassoc.bench.lab_table import caption, hints, text_table
from reidassoc.bench.reproduce import Reproduction
from reidassoc.bench.settling import Settling
from reidassoc.data.whole_file import write_text
from reidassoc.engine.associate import Associated
from reidassoc.engine.result import Result
from reidassoc.evaluation.crowding import crowding
from reidassoc.types import Modality

COLUMNS = {"rank1": "Rank-1", "rank5": "Rank-5", "rank10": "Rank-10", "rank20": "Rank-20", "mAP": "mAP", "mINP": "mINP"}
NARROW = ("rank1", "rank10", "mAP", "mINP")  # what is shown where all of them don't fit
WIDE = 100  # characters
FILE_WIDTH = 160
WORDS = 20  # characters that a column of words needs at least, folded
OPTIONAL = ("extra MiB", "shared s", "ARI", "recall", "own s", "precision")  # left out of a narrow table in this order
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
    print_protocols(console, result.protocols, title)
    for protocol, best in list(result.data["best_epoch_oracle"].items())[:1]:
        figures = f"Rank-1 {best['rank1']['mean']:.1f}, mAP {best['mAP']['mean']:.1f}"
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
    console = console_of()
    print_protocols(console, protocols, title)
    for note in notes:
        console.print(note, markup=False)


def transductive_table(plain: Mapping[str, Any], steps: Mapping[str, Any]) -> None:
    """Print each test-time step in a column of its own, beside the plain result; a row per protocol and figure."""
    console = console_of()
    console.print(
        "\n[bold]Transductive[/]: each trial's queries and gallery ranked together; not comparable with plain figures"
    )
    table = Table(box=SIMPLE_HEAD, pad_edge=False)
    table.add_column("protocol")
    table.add_column("")
    for name in ("plain", *(f"{step}\ntransductive" for step in steps)):
        table.add_column(escape(name), justify="right")
    columns = [plain, *(step["protocols"] for step in steps.values())]
    for protocol in plain:
        for number, key in enumerate(("rank1", "mAP", "mINP")):
            cells = [f"{of[protocol][key]['mean']:.1f} ± {of[protocol][key]['std']:.1f}" for of in columns]
            table.add_row("" if number else escape(protocol), COLUMNS[key], *cells)
    console.print(table)


def print_protocols(console: Console, protocols: Mapping[str, Any], title: str) -> None:
    """Print one row per protocol; a narrow terminal gets fewer ranks."""
    console.print(f"\n[bold]{escape(title)}[/]\nRetrieval, percent, mean ± std over trials")
    shown = COLUMNS if console.width >= WIDE else {key: COLUMNS[key] for key in NARROW}
    table = Table(box=SIMPLE_HEAD, pad_edge=False)
    table.add_column("protocol", no_wrap=True)
    for name in shown.values():
        table.add_column(name, justify="right", no_wrap=True)
    for protocol, metrics in protocols.items():
        table.add_row(escape(protocol), *(f"{metrics[key]['mean']:.1f} ± {metrics[key]['std']:.1f}" for key in shown))
    console.print(table)


def print_labels(console: Console, quality: Mapping[str, float], title: str) -> None:
    """Print label quality, flat as ``evaluation.labels`` gives it, one column per label space."""
    console.print(f"[bold]{title}[/], percent, by label space")
    spaces = list(dict.fromkeys(key.partition("/")[0] for key in quality))
    table = Table(box=SIMPLE_HEAD, pad_edge=False)
    table.add_column("")
    for space in spaces:
        table.add_column(space, justify="right")
    for key, name in LABEL_ROWS.items():
        values = [quality.get(f"{space}/{key}") for space in spaces]
        table.add_row(name, *("–" if value is None else f"{100 * value:.1f}" for value in values))
    counts = [f"{quality[f'{space}/clusters']:.0f} / {quality[f'{space}/identities']:.0f}" for space in spaces]
    table.add_row("clusters / true identities", *counts)
    console.print(table)


def associated_table(found: Associated, out: str, methods: str, file: str) -> None:
    """Print which methods labelled the features of a file, what it cost, and how good the labels are if identities are known."""
    console = console_of()
    console.print(escape(methods))
    table = Table("modality", "samples", "clusters", "own label", "cross label", box=SIMPLE_HEAD, pad_edge=False)
    for modality in Modality:
        own, cross = found.own[modality], found.cross[modality]
        shares = [f"{100 * (labels >= 0).mean() if len(labels) else 0:.1f} %" for labels in (own, cross)]
        table.add_row(str(modality), str(len(own)), str(found.clusters[modality]), *shares)
    console.print(table)
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
    table = Table(
        "protocol", "published", "ours", "mAP interval", "best epoch", "verdict", box=SIMPLE_HEAD, pad_edge=False
    )
    for verdict in found.verdicts:
        published = f"{verdict.published.figures['rank1']:.1f} / {verdict.published.figures['mAP']:.1f}"
        ours = f"{verdict.ours['rank1'].mean:.1f} / {verdict.ours['mAP'].mean:.1f}"
        low, high = verdict.interval
        table.add_row(
            verdict.protocol, published, ours, f"{low:.1f} to {high:.1f}", f"{verdict.best:.1f}", verdict.text
        )
    console.print(table)
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
    header, rows, left_out = fitting(*text_table(found), console.width)
    table = Table(box=SIMPLE_HEAD, show_edge=False, pad_edge=False, collapse_padding=True, padding=(0, 1, 0, 0))
    text = header.index("coverage")
    for number, name in enumerate(header):
        table.add_column(name, justify="left" if number < text else "right", no_wrap=True)
    longest = [max(len(row[number]) for row in [header, *rows]) for number in range(len(header))]
    wide = shares(longest[:text], console.width - sum(longest[text:]) - GAP * (len(header) - 1))
    if left_out:
        console.print(f"Left out for want of width: {', '.join(left_out)}; --format csv has everything.")
    last = None
    for row in rows:
        same = header[0] == "clusterer" and row[:2] == last
        last = row[:2]
        words = [fold(word, width) for word, width in zip(row, wide, strict=False)]
        table.add_row(*map(escape, [*(["", "", *words[2:]] if same else words), *row[text:]]))
    console.print()
    console.print(table, crop=False)
    console.print()
    for line in hints(found):
        console.print(escape(line), soft_wrap=True)
    failed = [one for one in found.rows if one.problem]
    for one in failed:
        console.print(escape(f"failed: {one.combination.associator} on {one.combination.clusterer}: {one.problem}"))
    console.print(f"{len(found.rows)} combination{'s' if len(found.rows) != 1 else ''} in {found.seconds:.1f} s")
    if out:
        write_text(out, cast(io.StringIO, console.file).getvalue())


def fitting(header: list[str], rows: list[list[str]], width: int) -> tuple[list[str], list[list[str]], list[str]]:
    """A table without the columns of figures that would squeeze its words below `WORDS` characters, and their names."""
    text = header.index("coverage")
    words = sum(min(WORDS, max(len(row[number]) for row in [header, *rows])) + GAP for number in range(text))
    left_out: list[str] = []
    for name in OPTIONAL:
        figures = sum(max(len(row[number]) for row in [header, *rows]) + GAP for number in range(text, len(header)))
        if words + figures <= width:
            break
        if name in header:
            number = header.index(name)
            header, *rows = [[*row[:number], *row[number + 1 :]] for row in [header, *rows]]
            left_out.append(name)
    return header, rows, left_out


def settling_table(found: Settling, source: str) -> None:
    """Print how the clusters of a run's first stage settled, and from which epoch to go on."""
    console = console_of()
    console.print(f"\n[bold]{escape(source)}[/], stage {escape(found.stage)}: visible | infrared")
    table = Table(box=SIMPLE_HEAD, pad_edge=False)
    for name in ("epoch", "agreement with the epoch before", "clusters", "outliers, %", "largest cluster, %"):
        table.add_column(name, justify="right")
    for row in found.epochs:
        agreement = " | ".join("–" if value is None else f"{value:.3f}" for value in row.agreement)
        table.add_row(
            str(row.epoch), agreement, " | ".join(map(str, row.clusters)),
            *(" | ".join(f"{100 * share:.0f}" for share in both) for both in (row.outliers, row.largest)),
            style="bold" if found.settled is not None and row.epoch >= found.settled else None,
        )  # fmt: skip
    console.print(table)
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
    ranges = Table("k1", "k2", "stable eps, both modalities", box=SIMPLE_HEAD, pad_edge=False)
    for curve in found.curves:
        shown = "none" if curve.stable is None else f"{curve.stable[0]:.2f} to {curve.stable[1]:.2f}"
        ranges.add_row(str(curve.k1), str(curve.k2), shown)
    best = max(found.curves, key=lambda curve: curve.width)
    console.print(f"\n[bold]{escape(source)}[/], k1 {best.k1}, k2 {best.k2}: visible | infrared")
    table = Table(box=SIMPLE_HEAD, pad_edge=False)
    for name in ("eps", "agreement with the eps before", "clusters", "outliers, %", "largest cluster, %"):
        table.add_column(name, justify="right")
    for one, two in zip(*best.curve, strict=True):
        agreement = " | ".join("–" if p.stability is None else f"{p.stability:.2f}" for p in (one, two))
        table.add_row(
            f"{one.eps:.2f}", agreement, f"{one.clusters} | {two.clusters}",
            f"{100 * one.outliers:.0f} | {100 * two.outliers:.0f}", f"{100 * one.largest:.0f} | {100 * two.largest:.0f}",
            style="bold" if one.stable and two.stable else None,
        )  # fmt: skip
    console.print(table)
    console.print(ranges)
    if found.clusterer is None:
        console.print("No eps is stable in both modalities: these features hold no clear clusters yet.")
    else:
        console.print(f"Advice, from stability alone (no identity was looked at): {escape(found.clusterer)}")
