"""Kill the benchmark runner with SIGKILL at random points; its final table must be that of an undisturbed run, byte for byte.

python benchmarks/kill_runner.py --kills 10 --jobs 2
"""

from __future__ import annotations

import argparse
import os
import platform
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from datetime import date
from pathlib import Path

from reidassoc.bench.plan import read_plan
from reidassoc.bench.store import Store, held

SPEC = """
name: killed
recipe: mult/synthetic
datasets: ["synthetic(size='tiny')"]
set: {intra.epochs: 3, cross.epochs: 6, intra.iterations: 6, cross.iterations: 6, intra.identities: 6,
      cross.identities: 6, evaluate_every: 3}
methods: {nearest: {associator: nearest}, mult: , pgm: {associator: pgm}}
seeds: [0, 1]
"""


def start(spec: Path, store: Store, jobs: int) -> subprocess.Popen[bytes]:
    """Start the runner; what it says is kept beside its results folder."""
    command = [sys.executable, "-m", "reidassoc", "bench", str(spec), "--out", str(store.path), "--device", "cpu"]
    with open(store.path.with_suffix(".said"), "ab") as said:
        return subprocess.Popen(
            [*command, "--jobs", str(jobs)], stdout=said, stderr=said, env={**os.environ, "OMP_NUM_THREADS": "1"}
        )


def waited(condition: Callable[[], bool], seconds: float = 600.0) -> float:
    """Seconds until something is so."""
    started = time.monotonic()
    while not condition():
        if time.monotonic() - started > seconds:
            raise SystemExit("waited in vain")
        time.sleep(0.02)
    return time.monotonic() - started


def until_work(process: subprocess.Popen[bytes], store: Store) -> float:
    """Seconds until a worker has begun, or the runner has ended."""
    return waited(lambda: working(store) or process.poll() is not None)


def working(store: Store) -> bool:
    """Whether some worker holds a cell."""
    return any(held(path) for path in store.cells.glob("*.lock"))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=10)
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--seed", type=int, default=0, help="of the points in time")
    options = parser.parse_args()
    draw = random.Random(options.seed)
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        os.environ["REIDASSOC_CACHE"] = str(place / "cache")
        spec = place / "spec.yaml"
        spec.write_text(SPEC)
        plan, whole, store = read_plan(spec), Store(place / "whole"), Store(place / "killed")

        process = start(spec, whole, options.jobs)
        start_s = until_work(process, whole)
        work_s = waited(lambda: process.poll() is not None)
        if process.returncode:
            raise SystemExit(f"the undisturbed run ended with code {process.returncode}")
        wanted = (whole.path / "table.md").read_bytes()
        print(f"{date.today()}, {os.cpu_count()} cores, {platform.machine()}, Python {platform.python_version()}")
        print(
            f"undisturbed: {len(plan.runs)} runs, {options.jobs} workers, {work_s:.0f} s after {start_s:.0f} s of imports"
        )

        kills = 0
        while kills < options.kills:
            process = start(spec, store, options.jobs)
            if kills % 3 == 0:  # at any point of its start
                time.sleep(draw.uniform(0, start_s))
            else:  # at any point of its work
                until_work(process, store)
                time.sleep(draw.uniform(0, 1.6 * work_s / options.kills))
            if process.poll() is not None:
                said = store.path.with_suffix(".said").read_text(encoding="utf-8")
                raise SystemExit(
                    f"after {kills} kills it ended by itself, with code {process.returncode}: {said[-2000:]}"
                )
            process.kill()
            process.wait()
            gone_s = waited(lambda: not working(store))
            kills += 1
            states = [store.state(cell) for cell in plan.runs]
            epochs = sum(len(store.folder(cell).metrics) for cell in plan.runs)
            print(
                f"kill {kills}: {states.count('finished')} runs finished, {states.count('begun')} begun, "
                f"{epochs} epochs; workers gone after {gone_s:.1f} s",
                flush=True,
            )
        process = start(spec, store, options.jobs)
        if process.wait():
            raise SystemExit(f"the last runner ended with code {process.returncode}")
        same = (store.path / "table.md").read_bytes() == wanted
        print(f"table after {kills} kills: {'identical, byte for byte' if same else 'DIFFERENT'} ({len(wanted)} bytes)")
        sys.exit(not same)


if __name__ == "__main__":
    main()
