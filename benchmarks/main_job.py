"""The main job, `reidassoc run --associator mult`, timed as a user runs it, on a machine that does nothing else.

    python benchmarks/main_job.py    # about two minutes; writes benchmarks/results/main_job.json

Bounds: four minutes and 4 GiB on two cores without a GPU, from start to end of the process, importing torch included.
"""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from datetime import date
from pathlib import Path

RESULT = Path(__file__).parent / "results" / "main_job.json"
BAR_SECONDS, BAR_GIB = 240, 4


def main() -> None:
    load = os.getloadavg()[0]
    with tempfile.TemporaryDirectory() as place:
        command = ["-m", "reidassoc", "run", "--associator", "mult", "--device", "cpu", "--out", f"{place}/run"]
        started = time.perf_counter()
        subprocess.run([sys.executable, *command], check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        seconds = time.perf_counter() - started
        result = json.loads(Path(place, "run", "result.json").read_text(encoding="utf-8"))
    peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * 1024
    kept = {
        "recipe": result["recipe"],
        "digest": result["digest"],
        "seconds": round(seconds, 1),
        "peak_gib": round(peak / 2**30, 2),
        "load_average_before": round(load, 2),
        "environment": result["environment"],
        "date": date.today().isoformat(),
    }
    met = seconds <= BAR_SECONDS and peak <= BAR_GIB * 2**30
    RESULT.write_text(json.dumps(kept, indent=1) + "\n", encoding="utf-8")
    print(json.dumps(kept, indent=1), f"bar {BAR_SECONDS} s and {BAR_GIB} GiB: {'met' if met else 'missed'}", sep="\n")
    sys.exit(not met)


if __name__ == "__main__":
    main()
