"""Time and memory of the label stage (clustering and MULT, once per epoch) at SYSU-MM01's training size.

    python benchmarks/perf/label_stage.py                      # 22 258 + 11 909 x 2048, writes benchmarks/results/
    python benchmarks/perf/label_stage.py --scale 0.1 --no-write

Features are those of `crowd.py`, from the stated seed. The baseline column is the released MULT code, unchanged, on
features of the same size on 2 CPU cores (another processor: compare orders, not percents).
"""

from __future__ import annotations

import argparse
import datetime
import json
import os
import resource
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import torch
from crowd import WIDTH, agreement, synthetic
from machine import RESULTS, device_name, slug
from watch import Meter

from reidassoc.ops.accelerate import compiled, without_numba
from reidassoc.scene import Scene
from reidassoc.types import Features
from reidassoc_plugins.associators.mult import Mult
from reidassoc_plugins.clusterers.dbscan import Dbscan

BASELINE_S = {"clustering": 45.3 + 16.6 + 8.4, "mult": 363.4}
BASELINE_PEAK_GIB = 13.05e9 / 2**30
BAR_S, BAR_GIB = 150.0, 4.0


def table(record: dict[str, Any]) -> str:
    """The record as a Markdown page."""
    seconds, cpu, baseline = record["seconds"], record["cpu_seconds"], record["baseline_seconds"]
    before, after = record["load_average"]
    lines = [
        f"# Label stage: {record['device']}, {record['date']}",
        "",
        f"{' + '.join(map(str, record['samples']))} x {WIDTH} float32, seed {record['seed']}, one run after a warm-up;"
        f" clusters {' + '.join(map(str, record['clusters']))}; torch {record['torch']};"
        f" numba: {'yes' if record['numba'] else 'no'}; truncation {record['truncation']}.",
        f"Load average before and after: {before:.1f}, {after:.1f}; what exceeds the threads used is other processes'.",
        "",
        "| step | seconds | processor seconds | released MULT code, seconds (2 CPU cores, full size) |",
        "|---|--:|--:|--:|",
        *[f"| {step} | {seconds[step]:.1f} | {cpu[step]:.1f} | {baseline[step]:.1f} |" for step in seconds],
        f"| **together** | **{record['total_s']:.1f}** | {sum(cpu.values()):.1f} | **{sum(baseline.values()):.1f}** |",
        f"| peak memory, GiB | {record['peak_gib']:.2f} | | {record['baseline_peak_gib']:.2f} |",
        "",
    ]
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--scale", type=float, default=1.0, help="share of SYSU-MM01's size")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--truncation", type=float, default=Mult.truncation, help="of mult; 0 = exact")
    parser.add_argument("--without-numba", action="store_true", help="time the torch loops")
    parser.add_argument("--no-write", action="store_true", help="print only")
    options = parser.parse_args()
    with without_numba() if options.without_numba else nullcontext():
        measure(options)


def measure(options: argparse.Namespace) -> None:
    """Run the benchmark, print its table and write the results."""

    device = torch.device(options.device)
    clusterer, associator = Dbscan(), Mult(truncation=options.truncation)
    toy, _ = synthetic(0.01, options.seed)  # warm-up: compiles the kernels, starts the threads
    toy = toy.map(lambda f: Features(f.x.to(device)))
    associator(Scene(0, 0, toy, clusterer(toy, epoch=0, seed=0, previous=None)))

    features, identity = synthetic(options.scale, options.seed)
    features = features.map(lambda f: Features(f.x.to(device)))
    meter, load_before = Meter(device), os.getloadavg()[0]
    clustering = meter.measure("clustering", lambda: clusterer(features, epoch=0, seed=0, previous=None))
    association = meter.measure("mult", lambda: associator(Scene(0, 0, features, clustering)))
    assert association.own is not None

    load_after = os.getloadavg()[0]
    total, peak = sum(meter.seconds.values()), max(meter.peak_gib.values())
    quality = {
        f"{name}_{kind}": agreement(labels.cpu(), truth)
        for name, truth, cluster, soft in zip(
            ("visible", "infrared"), identity, clustering.own, association.own, strict=True
        )
        for kind, labels in (("clusters", cluster.labels), ("mult", soft.hard))
    }
    date = datetime.date.today().isoformat()
    record = {
        "benchmark": "label_stage",
        "date": date,
        "device": device_name(device),
        "torch": torch.__version__,
        "numba": compiled(torch.device("cpu")) is not None,
        "load_average": [load_before, load_after],
        "seed": options.seed,
        "scale": options.scale,
        "truncation": options.truncation,
        "runs": 1,
        "samples": [len(f) for f in features],
        "clusters": [c.count for c in clustering.own],
        "agreement": quality,
        "seconds": meter.seconds,
        "cpu_seconds": meter.cpu_seconds,
        "total_s": total,
        "peak_gib": peak,
        "process_peak_gib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20,
        "baseline_seconds": BASELINE_S,
        "baseline_peak_gib": BASELINE_PEAK_GIB,
    }
    text = table(record)
    print(text)
    print(json.dumps(quality))
    if options.scale == 1:
        print(f"bar {BAR_S:.0f} s and {BAR_GIB:.0f} GiB: {'met' if total < BAR_S and peak < BAR_GIB else 'MISSED'}")
    if not options.no_write:
        RESULTS.mkdir(parents=True, exist_ok=True)
        target = (
            RESULTS / f"label_stage_{slug(str(record['device']))}{'' if record['numba'] else '-without-numba'}_{date}"
        )
        Path(f"{target}.json").write_text(json.dumps(record, indent=2) + "\n")
        Path(f"{target}.md").write_text(text)
        print(f"written: {target}.json, .md")


if __name__ == "__main__":
    main()
