"""The comparison on the default synthetic pedestrians: methods × seeds, one process each, finished cells never run again.

    python benchmarks/synthetic_table.py            # run what is missing, then write the table
    python benchmarks/synthetic_table.py --table    # only write the table from what is stored

Cells are stored in benchmarks/results/synthetic/METHOD-SEED.json, the table in
 benchmarks/results/synthetic.md and in docs/synthetic.md.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
from datetime import date
from pathlib import Path

HERE = Path(__file__).parent
STORE = HERE / "results" / "synthetic"
TABLE = HERE / "results" / "synthetic.md"
PAGE = HERE.parent / "docs" / "synthetic.md"  # the table stands between these two lines of it
START, END = "<!-- table: benchmarks/synthetic_table.py -->", "<!-- end of table -->"
SEEDS = (0, 1, 2)
METHODS = {
    "base": ["--recipe", "base/synthetic"],
    "random": ["--associator", "random"],
    "nearest": ["--associator", "nearest"],
    "mult": ["--associator", "mult"],
    "oracle": ["--associator", "oracle", "--oracle"],
}
PROTOCOL = "all-search single-shot"


def run_cell(method: str, seed: int, path: Path) -> None:
    """Run one cell with the command line, as a user would, and keep its result."""
    with tempfile.TemporaryDirectory() as place:
        arguments = ["run", *METHODS[method], "--seed", str(seed), "--device", "cpu", "--out", f"{place}/run"]
        arguments += ["--set", "evaluate_every=0"]
        subprocess.run([sys.executable, "-m", "reidassoc", *arguments], check=True, stdout=subprocess.DEVNULL)
        result = json.loads(Path(place, "run", "result.json").read_text(encoding="utf-8"))
    kept = {
        key: result[key] for key in ("recipe", "digest", "method", "dataset", "seed", "flags", "protocols", "labels")
    }
    kept |= {"clusters": result["clusters"], "counts": result["counts"], "seconds": result["seconds"]["all_epochs"]}
    kept |= {"environment": result["environment"], "date": date.today().isoformat()}
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(kept, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


def cell(method: str, seed: int) -> dict[str, float]:
    """The figures of one stored cell, in percent."""
    result = json.loads((STORE / f"{method}-{seed}.json").read_text(encoding="utf-8"))
    metrics, labels = result["protocols"][PROTOCOL], result["labels"]
    cross = [100 * labels[key] for key in ("visible/precision_cross", "infrared/precision_cross") if key in labels]
    return {
        "rank1": metrics["rank1"]["mean"],
        "mAP": metrics["mAP"]["mean"],
        "precision": statistics.mean(cross) if cross else float("nan"),
    }


def table() -> str:
    """Mean ± sample standard deviation over the seeds, and each seed's mAP."""
    first = json.loads((STORE / "mult-0.json").read_text(encoding="utf-8"))
    lines = [
        "| method | Rank-1 | mAP | mAP of each seed | cross-modality pair precision |",
        "|---|--:|--:|--:|--:|",
    ]
    for method in METHODS:
        cells = [cell(method, seed) for seed in SEEDS]
        shown = {name: [c[name] for c in cells] for name in cells[0]}
        each = ", ".join(f"{value:.1f}" for value in shown["mAP"])
        precision = spread(shown["precision"]) if method != "base" else "–"
        figures = f"{spread(shown['rank1'])} | {spread(shown['mAP'])} | {each} | {precision}"
        lines.append(f"| {method} | {figures} |")
    machine = f"{first['environment']['device']}, {first['environment']['threads']} threads, torch {first['environment']['torch']}"
    head = (
        f"{PROTOCOL}, percent, mean ± sample standard deviation over seeds {', '.join(map(str, SEEDS))}, last epoch. "
    )
    return "\n".join([head + f"Measured on {machine}, {first['date']}.", "", *lines, ""])


def spread(values: list[float]) -> str:
    return f"{statistics.mean(values):.1f} ± {statistics.stdev(values):.1f}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--table", action="store_true", help="only write the table")
    parser.add_argument("--methods", nargs="+", choices=list(METHODS), default=list(METHODS), help="run these alone")
    given = parser.parse_args()
    if not given.table:
        for seed in SEEDS:
            for method in given.methods:
                path = STORE / f"{method}-{seed}.json"
                if not path.exists():
                    run_cell(method, seed, path)
                    print(method, seed, cell(method, seed), flush=True)
    if all((STORE / f"{method}-{seed}.json").exists() for method in METHODS for seed in SEEDS):
        TABLE.write_text(table(), encoding="utf-8")
        before, _, rest = PAGE.read_text(encoding="utf-8").partition(START)
        PAGE.write_text(before + START + "\n" + table() + END + rest.partition(END)[2], encoding="utf-8")
        print(table())


if __name__ == "__main__":
    main()
