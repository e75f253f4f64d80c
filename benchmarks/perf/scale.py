"""How the label stage grows to 200 000 + 100 000 images: seconds and peak memory per stage, and fitted exponents.

    python benchmarks/perf/scale.py                                  # up to 200 000 visible images x 512
    python benchmarks/perf/scale.py --counts 5000 10000 20000 --no-write
    python benchmarks/perf/scale.py --agreement 8000 --counts        # near pairs against the whole kernel, alone

Half as many infrared as visible images, one identity for every fifty visible ones, features as in `crowd.py`. Every
size has a process of its own. Mult's labels are spread over near pairs at every size, so that the exponents are of one
algorithm; SALCR takes what the memory limit leaves it. Bars: clustering and either association of 200 000 + 100 000
images within 20 minutes and 6 GiB above the imports.
"""

from __future__ import annotations

import argparse
import datetime
import json
import math
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import torch
from crowd import agreement, crowd
from machine import RESULTS, device_name, slug
from watch import Meter, resident_bytes

from reidassoc import registry
from reidassoc.interfaces.scene import Scene
from reidassoc.ops.dbscan import dbscan
from reidassoc.ops.jaccard import jaccard_similarity
from reidassoc.ops.memory_limit import DEFAULT_GIB, dense_fits, memory_limit
from reidassoc.ops.neighbours import nearest
from reidassoc.pipeline import associate, cluster
from reidassoc.types import Association, Features, Pair
from reidassoc_plugins.associators.mult import Mult
from reidassoc_plugins.associators.mult_near import MultNear
from reidassoc_plugins.associators.salcr import Salcr
from reidassoc_plugins.clusterers.dbscan import Dbscan

IMAGES, WIDTH = 50, 512  # visible images of an identity; numbers of a feature
COUNTS = [10_000, 20_000, 50_000, 100_000, 200_000]
BAR_S, BAR_GIB = 1200.0, 6.0
STAGES = ("neighbours", "jaccard", "dbscan", "mult", "salcr")
CLUSTERING = ("jaccard", "dbscan")  # the affinity's neighbours are within it


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--counts", type=int, nargs="*", default=COUNTS, help="visible images")
    parser.add_argument("--stages", nargs="+", choices=STAGES, default=list(STAGES))
    parser.add_argument(
        "--agreement", type=int, metavar="N", help="compare near pairs with the whole kernel at this size"
    )
    parser.add_argument("--no-write", action="store_true", help="print only")
    parser.add_argument("--one", type=int, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one:
        print(json.dumps(measure(options.one, options.stages)))
        return
    load = os.getloadavg()[0]
    rows = []
    for count in options.counts:
        command = [sys.executable, __file__, "--one", str(count), "--stages", *options.stages]
        done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
        rows.append(json.loads(done.stdout.splitlines()[-1]))
        print(f"{count}: {rows[-1]}", file=sys.stderr, flush=True)
    record: dict[str, Any] = {
        "benchmark": "scale",
        "date": datetime.date.today().isoformat(),
        "device": device_name(torch.device("cpu")),
        "torch": torch.__version__,
        "load_average": [load, os.getloadavg()[0]],
        "neighbours_kept": registry.build("associators", "mult_near").neighbours,
        "memory_limit_gib": DEFAULT_GIB,
        "rows": rows,
        "agreement": compare(options.agreement) if options.agreement else None,
    }
    print(text := page(record))
    if not options.no_write:
        target = RESULTS / f"scale_{slug(record['device'])}_{record['date']}"
        Path(f"{target}.json").write_text(json.dumps(record, indent=2) + "\n")
        Path(f"{target}.md").write_text(text)
        print(f"written: {target}.json, .md")


def measure(count: int, stages: list[str]) -> dict[str, Any]:
    """Processor and wall seconds, and GiB above what the imports took, of each stage at one size."""
    warm, _ = crowd(Pair(400, 200), 8, 0, width=WIDTH)
    label(warm, MultNear(neighbours=10))
    with memory_limit(1e-6):
        label(warm, Salcr(k=10))
    before = resident_bytes() / 2**30
    features, identity = crowd(Pair(count, count // 2), max(2, count // IMAGES), 0, width=WIDTH)
    meter = Meter(torch.device("cpu"))
    row: dict[str, Any] = {"visible": count, "infrared": count // 2, "identities": max(2, count // IMAGES)}
    if "neighbours" in stages:
        x = features.visible.x
        meter.measure("neighbours", lambda: nearest(x, x, 30))
    if set(stages) - {"neighbours"}:
        similarity = meter.measure(
            "jaccard", lambda: features.map(lambda f: f.memo(("affinity", 30, 6), lambda: jaccard_similarity(f.x)))
        )
        row["affinities"] = sum(len(s.values()) for s in similarity) / sum(map(len, features))
        meter.measure("dbscan", lambda: similarity.map(lambda s: dbscan(s, eps=0.6, min_samples=4)))
        clustering = cluster(Dbscan(), features)
        row["clusters"] = [c.count for c in clustering.own]
        scene = Scene(0, 0, features, clustering)
        for name, method in (("mult", MultNear()), ("salcr", Salcr())):
            if name in stages:
                found = meter.measure(name, lambda m=method: associate(m, scene))
                row[f"{name}_own_identity"] = [
                    agreement(a.hard, b) for a, b in zip(found.own or (), identity, strict=True)
                ]
    row["seconds"], row["cpu_seconds"] = meter.seconds, meter.cpu_seconds
    row["peak_gib"] = {name: peak - before for name, peak in meter.peak_gib.items()}
    return row


def label(features: Pair[Features], method: Mult | Salcr) -> Association:
    return associate(method, Scene(0, 0, features, cluster(Dbscan(), features)))


def compare(count: int) -> dict[str, Any]:
    """Labels on near pairs alone beside those of the whole kernel, at a size where both run."""
    features, _ = crowd(Pair(count, count // 2), max(2, count // IMAGES), 0, width=WIDTH)
    scene = Scene(0, 0, features, cluster(Dbscan(), features))
    assert dense_fits(count, count // 2)
    found: dict[str, Any] = {"visible": count, "infrared": count // 2}
    whole, near = associate(Mult(), scene), associate(MultNear(), scene)
    found["mult"] = shares(whole, near)
    whole = associate(Salcr(), scene)
    with memory_limit(1e-3):
        near = associate(Salcr(), scene)
    found["salcr"] = shares(whole, near)
    return found


def shares(one: Association, two: Association) -> dict[str, float]:
    """The share of samples with equal labels: their own, and those in the other modality's space."""
    pairs = {"own": (one.own, two.own), "cross": (one.cross, two.cross)}
    return {
        name: float(torch.cat([x.hard == y.hard for x, y in zip(a or (), b or (), strict=True)]).double().mean())
        for name, (a, b) in pairs.items()
    }


def slope(counts: list[int], values: list[float]) -> float:
    """The exponent of a power law, by least squares in logarithms."""
    x = torch.tensor([[math.log(c), 1.0] for c in counts], dtype=torch.float64)
    y = torch.tensor([[math.log(max(v, 1e-6))] for v in values], dtype=torch.float64)
    return float(torch.linalg.lstsq(x, y).solution[0, 0])


def page(record: dict[str, Any]) -> str:
    """The record as a Markdown page."""
    rows, before_after = record["rows"], record["load_average"]
    lines = [
        f"# Label stage as it grows: {record['device']}, {record['date']}",
        "",
        f"Half as many infrared as visible images x {WIDTH}, one identity for {IMAGES} visible ones; one run each after a "
        f"warm-up; torch {record['torch']}; load average before and after {before_after[0]:.1f}, {before_after[1]:.1f}. "
        f"Mult on {record['neighbours_kept']} near pairs of a sample, memory limit {record['memory_limit_gib']:g} GiB.",
        "",
    ]
    if rows:
        counts = [row["visible"] for row in rows]
        names = [name for name in STAGES if name in rows[-1]["seconds"]]
        for title, key, form in (
            ("processor seconds", "cpu_seconds", "{:.1f}"),
            ("seconds", "seconds", "{:.1f}"),
            ("peak above the imports, GiB", "peak_gib", "{:.2f}"),
        ):
            lines += [f"| {title}, visible images | {' | '.join(map(str, counts))} | exponent |"]
            lines += ["|---|" + "--:|" * (len(counts) + 1)]
            for name in names:
                values = [row[key][name] for row in rows]
                exponent = f"{slope(counts, values):.2f}" if len(counts) > 1 else ""
                lines.append(f"| {name} | {' | '.join(form.format(v) for v in values)} | {exponent} |")
            lines.append("")
        lines += verdicts(rows[-1]) if rows[-1]["visible"] >= COUNTS[-1] else []
    if record["agreement"]:
        found = record["agreement"]
        lines.append(f"Labels equal to those of the whole kernel at {found['visible']} + {found['infrared']} images:")
        lines += [
            f"- {name}: own {100 * found[name]['own']:.3f} %, cross {100 * found[name]['cross']:.3f} %"
            for name in ("mult", "salcr")
        ]
        lines.append("")
    return "\n".join(lines)


def verdicts(row: dict[str, Any]) -> list[str]:
    """What the largest size is held to."""
    lines = []
    for name in ("mult", "salcr"):
        parts = [*CLUSTERING, name]
        if all(part in row["seconds"] for part in parts):
            seconds, peak = sum(row["seconds"][p] for p in parts), max(row["peak_gib"][p] for p in parts)
            met = "met" if seconds <= BAR_S and peak <= BAR_GIB else "MISSED"
            asked = f"{BAR_S / 60:.0f} minutes, {BAR_GIB:.0f} GiB"
            lines.append(f"- clustering + {name}: {seconds / 60:.1f} minutes, {peak:.2f} GiB; asked {asked}: {met}")
    return [*lines, ""]


if __name__ == "__main__":
    main()
