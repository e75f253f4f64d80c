"""Time and memory of the label stage (clustering and MULT, once per epoch) at SYSU-MM01's training size.

    python benchmarks/perf/label_stage.py                      # 22 258 + 11 909 x 2048, writes benchmarks/results/
    python benchmarks/perf/label_stage.py --scale 0.1 --no-write

Features are synthetic: unit vectors of 395 identities of uneven size, each a shared direction plus one of its own in
each modality, an offset per modality and white noise, from the stated seed. The baseline column is the released MULT
code, unchanged, on features of the same size on 2 CPU cores (another processor: compare orders, not percents).
"""

from __future__ import annotations

import argparse
import datetime
import json
import os
import platform
import re
import resource
import threading
import time
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import Tensor

from reidassoc.ops.accelerate import compiled, without_numba
from reidassoc.scene import Scene
from reidassoc.types import Features, Pair
from reidassoc_plugins.associators.mult import Mult
from reidassoc_plugins.clusterers.dbscan import Dbscan

VISIBLE, INFRARED, IDENTITIES, WIDTH = 22_258, 11_909, 395, 2048
BASELINE_S = {"clustering": 45.3 + 16.6 + 8.4, "mult": 363.4}
BASELINE_PEAK_GIB = 13.05e9 / 2**30
BAR_S, BAR_GIB = 150.0, 4.0
RESULTS = Path(__file__).resolve().parents[1] / "results"
T = TypeVar("T")


def synthetic(
    scale: float, seed: int, noise: float = 1.0, *, width: int = WIDTH
) -> tuple[Pair[Features], Pair[Tensor]]:
    """Features and true identities; sizes and identities shrink with `scale`."""
    counts = Pair(*(max(8, round(count * scale)) for count in (VISIBLE, INFRARED)))
    return crowd(counts, max(2, round(IDENTITIES * scale)), seed, noise, width=width)


def crowd(
    counts: Pair[int], identities: int, seed: int, noise: float = 1.0, *, width: int = WIDTH
) -> tuple[Pair[Features], Pair[Tensor]]:
    """Features and true identities of so many images of so many people."""
    shared = torch.randn(identities, width, generator=torch.Generator().manual_seed(seed))

    def one(count: int, number: int) -> tuple[Features, Tensor]:
        generator = torch.Generator().manual_seed(seed + number)
        share = torch.exp(0.4 * torch.randn(identities, generator=generator))
        identity = torch.multinomial(share, count, replacement=True, generator=generator)
        identity = identity.sort().values
        centre = shared + 0.5 * torch.randn(identities, width, generator=generator)
        centre += 0.5 * torch.randn(1, width, generator=generator)
        x = torch.empty(len(identity), width)
        for rows in torch.arange(len(x)).split(2048):
            part = centre[identity[rows]] + noise * torch.randn(len(rows), width, generator=generator)
            x[rows] = torch.nn.functional.normalize(part, dim=1)
        return Features(x), identity

    (visible, identity_v), (infrared, identity_r) = one(counts.visible, 1), one(counts.infrared, 2)
    return Pair(visible, infrared), Pair(identity_v, identity_r)


def resident_bytes() -> int:
    """Memory of this process now; where there is no /proc, its peak so far."""
    statm = Path("/proc/self/statm")
    if statm.exists():
        return int(statm.read_text().split()[1]) * resource.getpagesize()
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


@dataclass
class Meter:
    """Wall and processor time of steps, and the peak memory of the process while they ran."""

    device: torch.device
    seconds: dict[str, float] = field(default_factory=dict)
    cpu_seconds: dict[str, float] = field(default_factory=dict)
    peak_gib: dict[str, float] = field(default_factory=dict)

    def measure(self, step: str, work: Callable[[], T]) -> T:
        done, peak = threading.Event(), resident_bytes()

        def watch() -> None:
            nonlocal peak
            while not done.wait(0.02):
                peak = max(peak, resident_bytes())

        watcher = threading.Thread(target=watch, daemon=True)
        watcher.start()
        if self.device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(self.device)
            torch.cuda.synchronize(self.device)
        started, worked = time.perf_counter(), time.process_time()
        result = work()
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
        self.seconds[step], self.cpu_seconds[step] = time.perf_counter() - started, time.process_time() - worked
        done.set()
        watcher.join()
        cuda = torch.cuda.max_memory_allocated(self.device) if self.device.type == "cuda" else 0
        self.peak_gib[step] = max(peak, cuda) / 2**30
        return result


def agreement(labels: Tensor, identity: Tensor) -> float:
    """Share of samples whose cluster's commonest identity is their own."""
    kept = labels >= 0
    if not bool(kept.any()):
        return 0.0
    table = torch.zeros(int(labels.max()) + 1, int(identity.max()) + 1)
    table.index_put_((labels[kept], identity[kept]), torch.ones(int(kept.sum())), accumulate=True)
    return float((table.argmax(1)[labels[kept]] == identity[kept]).sum() / len(labels))


def device_name(device: torch.device) -> str:
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    cpu = Path("/proc/cpuinfo")
    found = re.search(r"model name\s*:\s*(.+)", cpu.read_text()) if cpu.exists() else None
    return f"{found.group(1) if found else platform.processor() or 'CPU'}, {torch.get_num_threads()} threads"


def slug(device: str) -> str:
    """A device's name as part of a file's: small letters, digits and hyphens."""
    return re.sub(r"[^a-z0-9]+", "-", device.lower()).strip("-")


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
