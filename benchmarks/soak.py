"""A long run in little: memory, open files and disk over 200 tiny epochs, all of which must stay flat.

    python benchmarks/soak.py                 # writes benchmarks/results/soak.json, prints the verdict
    python benchmarks/soak.py --epochs 40 --no-write

Every epoch clusters, associates, trains a few steps, saves a checkpoint and, every other one, evaluates. The first quarter is
warm-up; after it, resident memory may grow by 1 % or 16 MiB in all, the numbers of open files and of checkpoints not at all,
and the run folder by 64 KiB an epoch (its rows in metrics.jsonl and log.txt, and its labels). Exit code 1 if one of them does.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
import tempfile
from collections.abc import Mapping
from datetime import date
from pathlib import Path
from typing import Any

import torch

import reidassoc as ra
from reidassoc.engine.devices.peak_memory import resident
from reidassoc.runs.observer import Observer

RESULT = Path(__file__).parent / "results" / "soak.json"
ROOM = 16 << 20  # bytes


class Watch(Observer):
    """Reads the meters at the end of every epoch."""

    def __init__(self) -> None:
        self.folder = Path()
        self.memory: list[int] = []
        self.files: list[int] = []
        self.checkpoints: list[int] = []
        self.disk: list[int] = []

    def start(self, folder: Path) -> None:
        self.folder = folder

    def report(self, row: Mapping[str, Any]) -> None:
        self.memory.append(resident("VmRSS"))
        self.files.append(len(os.listdir("/proc/self/fd")))
        self.checkpoints.append(len(list((self.folder / "checkpoints").iterdir())))
        self.disk.append(sum(path.stat().st_size for path in self.folder.rglob("*") if path.is_file()))


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--epochs", type=int, default=200)
    parser.add_argument("--no-write", action="store_true", help="print only")
    options = parser.parse_args()
    torch.set_num_threads(1)
    watch = Watch()
    changes = {
        "intra.epochs": 2,
        "cross.epochs": options.epochs - 2,
        **{
            f"{stage}.{key}": value
            for stage in ("intra", "cross")
            for key, value in (("iterations", 2), ("identities", 4))
        },
        "evaluate_every": 2,
    }
    with tempfile.TemporaryDirectory() as place:
        ra.run(
            "mult", dataset="synthetic(size='tiny')", changes=changes, out=Path(place, "run"), device="cpu", log=watch
        )
    warm = options.epochs // 4
    memory = [statistics.median(part) for part in (watch.memory[warm : 2 * warm], watch.memory[-warm:])]
    per_epoch = (watch.disk[-1] - watch.disk[warm]) / (options.epochs - 1 - warm)
    verdicts = {
        "memory": memory[1] - memory[0] <= max(ROOM, 0.01 * memory[0]),
        "open files": max(watch.files[warm:]) <= max(watch.files[:warm]),
        "checkpoints": max(watch.checkpoints[warm:]) <= max(watch.checkpoints[:warm]),
        "disk": per_epoch <= 64 << 10,
    }
    kept = {
        "epochs": options.epochs,
        "memory_bytes": {"second quarter": memory[0], "last quarter": memory[1]},
        "open_files": {"first quarter": max(watch.files[:warm]), "later": max(watch.files[warm:])},
        "checkpoints": max(watch.checkpoints),
        "disk_bytes_per_epoch": round(per_epoch),
        "verdicts": verdicts,
        "torch": torch.__version__,
        "date": date.today().isoformat(),
    }
    print(json.dumps(kept, indent=1))
    if not options.no_write:
        RESULT.write_text(json.dumps(kept, indent=1) + "\n", encoding="utf-8")
    sys.exit(not all(verdicts.values()))


if __name__ == "__main__":
    main()
