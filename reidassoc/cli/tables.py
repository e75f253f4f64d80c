"""What the commands print: rich tables."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from rich.console import Console
from rich.table import Table

from reidassoc.engine.associate import Associated
from reidassoc.engine.result import Result
from reidassoc.types import Modality

COLUMNS = {"rank1": "Rank-1", "rank5": "Rank-5", "rank10": "Rank-10", "rank20": "Rank-20", "mAP": "mAP", "mINP": "mINP"}
LABEL_COLUMNS = {
    "precision_visible": "precision V",
    "precision_infrared": "precision R",
    "precision_cross": "precision V–R",
    "recall_cross": "recall V–R",
    "ari": "ARI",
    "association_rate": "associated",
    "coverage_visible": "coverage V",
    "coverage_infrared": "coverage R",
}


def result_table(result: Result, width: int | None = None) -> None:
    """Print retrieval, label quality and the run folder."""
    console = Console(width=width, highlight=False)
    method = result.data["method"]["associator"] or "one modality at a time"
    flags = "".join(f"; {flag}" for flag in result.data["flags"])
    title = f"{method} on {result.data['dataset']['spec']}, seed {result.data['seed']}, last epoch{flags}"
    print_protocols(console, result.protocols, title, result.data["best_epoch_oracle"])
    if result.labels:
        print_labels(console, result.labels, "Label quality, last epoch")
    for name, count in result.data["counts"].items():
        console.print(f"{name}: {count}")
    console.print(f"\nRun folder: {result.folder}", soft_wrap=True)


def protocol_table(protocols: Mapping[str, Any], title: str, notes: Sequence[str] = ()) -> None:
    console = Console(highlight=False)
    print_protocols(console, protocols, title, {})
    for note in notes:
        console.print(note)


def print_protocols(console: Console, protocols: Mapping[str, Any], title: str, best: Mapping[str, Any]) -> None:
    table = Table(
        title=f"Retrieval, percent, mean ± std over trials: {title}", title_justify="left", title_style="bold"
    )
    table.add_column("protocol")
    for name in COLUMNS.values():
        table.add_column(name, justify="right", no_wrap=True)
    if best:
        table.add_column("best epoch's mAP (oracle)", justify="right", style="dim")
    for protocol, metrics in protocols.items():
        cells = [f"{metrics[key]['mean']:.2f} ± {metrics[key]['std']:.2f}" for key in COLUMNS]
        if best:
            cells.append(f"{best[protocol]['mAP']['mean']:.2f} (epoch {best[protocol]['epoch']})")
        table.add_row(protocol, *cells)
    console.print(table)


def print_labels(console: Console, quality: Mapping[str, float], title: str) -> None:
    """Print label quality, flat as ``evaluation.labels`` gives it, one row per label space."""
    table = Table(title=f"{title}, percent (V visible, R infrared)", title_justify="left", title_style="bold")
    table.add_column("label space")
    for name in LABEL_COLUMNS.values():
        table.add_column(name, justify="right")
    table.add_column("clusters / identities", justify="right")
    for space in dict.fromkeys(key.partition("/")[0] for key in quality):
        found = {key.partition("/")[2]: value for key, value in quality.items() if key.startswith(f"{space}/")}
        cells = [f"{100 * found[key]:.1f}" if key in found else "–" for key in LABEL_COLUMNS]
        table.add_row(space, *cells, f"{found['clusters']:.0f} / {found['identities']:.0f}")
    console.print(table)


def associated_table(found: Associated, out: str) -> None:
    """Print what labelling somebody's features cost, and how good the labels are if identities are known."""
    console = Console(highlight=False)
    table = Table("modality", "samples", "clusters", "own label", "cross label")
    for modality in Modality:
        own, cross = found.own[modality], found.cross[modality]
        shares = [f"{100 * (labels >= 0).mean() if len(labels) else 0:.1f} %" for labels in (own, cross)]
        table.add_row(str(modality), str(len(own)), str(found.clusters[modality]), *shares)
    console.print(table)
    if found.quality:
        print_labels(console, found.quality, "Label quality")
    times = ", ".join(f"{name} {seconds:.2f} s" for name, seconds in found.seconds.items())
    console.print(f"{times}; peak memory {found.peak_bytes / 2**30:.2f} GiB")
    console.print(f"Labels: {out}", soft_wrap=True)
