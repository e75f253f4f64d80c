"""Time every stage beside a plain dense version of it, in one process, on the same inputs.

    python benchmarks/perf/run.py                                  # small: 2 226 + 1 191 x 512, with the plain versions
    python benchmarks/perf/run.py --size sysu                      # 22 258 + 11 909 x 2048, ours and the floors
    python benchmarks/perf/run.py --stage neighbours --stage evaluation --size sysu --plain

Writes benchmarks/results/perf_SIZE_DEVICE_DATE.json and .md, with the names of the stages after the size where only some
were chosen. The floor of a stage is what the plain algorithm needs at the rates of matrix products and memory that this
process probes before: its products in float32, and its 500 rounds of transport over the whole kernel.
"""

from __future__ import annotations

import argparse
import datetime
import json
import os

import torch
from bench import Bench
from machine import RESULTS, device_name, slug
from meter import HEAD
from stages import STAGES, rows

from reidassoc.ops.compiled.dispatch import compiled

SIZES = {"tiny": (0.02, 128), "small": (0.1, 512), "sysu": (1.0, 2048)}  # share of SYSU-MM01's training set, D


def name_of(size: str, stages: list[str], day: datetime.date) -> str:
    """The name of a record, without its ending: some stages alone don't take the place of the whole suite's."""
    return "_".join(["perf", size, *stages, slug(device_name(torch.device("cpu"))), day.isoformat()])


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--size", choices=SIZES, default="small")
    parser.add_argument(
        "--stage",
        action="append",
        choices=STAGES,
        metavar="NAME",
        help=f"may be given several times; default: all of {', '.join(STAGES)}",
    )
    parser.add_argument("--runs", type=int, default=None, help="timed runs; default 5, for sysu 1")
    parser.add_argument(
        "--plain", action=argparse.BooleanOptionalAction, help="run the plain versions; default: not sysu"
    )
    parser.add_argument("--no-write", action="store_true", help="print only")
    options = parser.parse_args()
    scale, width = SIZES[options.size]
    big = options.size == "sysu"
    runs = options.runs or (1 if big else 5)
    plain = options.plain if options.plain is not None else not big
    bench = Bench(scale, width, runs, plain)
    rates, load = bench.rates, os.getloadavg()[0]
    title = f"# Stages, {options.size}: {device_name(torch.device('cpu'))}, {datetime.date.today().isoformat()}"
    facts = (
        f"Median of {runs} runs after a warm-up, the plain version once; torch {torch.__version__}, numba "
        f"{'yes' if compiled(torch.device('cpu')) else 'no'}. Probed: {rates.float32_gflops:.0f} GFLOP/s float32, "
        f"{rates.bfloat16_gflops:.0f} bfloat16, {rates.gbytes_s:.1f} GB/s."
    )
    print(title, "", facts, "", HEAD, sep="\n", flush=True)
    table = []
    for row in rows(bench, options.stage or list(STAGES)):
        table.append(row)
        print(row.line(), flush=True)
    busy = f"Load average before and after: {load:.1f}, {os.getloadavg()[0]:.1f}."
    print("", busy, sep="\n")
    if options.no_write:
        return
    target = RESULTS / name_of(options.size, options.stage or [], datetime.date.today())
    RESULTS.mkdir(parents=True, exist_ok=True)
    text = "\n".join([title, "", facts, busy, "", HEAD, *(row.line() for row in table), ""])
    target.with_suffix(".md").write_text(text)
    record = {"benchmark": "perf", "size": options.size, "runs": runs, "load_average": load, "rates": vars(rates)}
    target.with_suffix(".json").write_text(
        json.dumps({**record, "rows": [r.as_dict() for r in table]}, indent=2) + "\n"
    )
    print(f"written: {target}.json, .md")


if __name__ == "__main__":
    main()
