"""How the label stage grows with the number of images: processor seconds per stage, and fitted exponents.

python benchmarks/perf/growth.py                       # 5 000, 10 000, 20 000 visible, half as many infrared, x 512
"""

from __future__ import annotations

import argparse
import math
import time
from collections.abc import Callable
from typing import Any

import torch
from label_stage import VISIBLE, synthetic
from meter import resident_bytes

from reidassoc.ops.dbscan import dbscan
from reidassoc.ops.jaccard import jaccard_similarity
from reidassoc.ops.neighbours import nearest
from reidassoc.ops.transport import transport


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--counts", type=int, nargs="+", default=[5_000, 10_000, 20_000], help="visible images")
    parser.add_argument("--width", type=int, default=512)
    options = parser.parse_args()
    seconds: dict[str, list[float]] = {}
    stored: list[float] = []

    def clock(stage: str, work: Callable[[], Any]) -> Any:
        started = time.process_time()
        result = work()
        seconds.setdefault(stage, []).append(time.process_time() - started)
        return result

    warm, _ = synthetic(0.02, 0, width=options.width)
    transport(warm.visible.x, warm.infrared.x, strength=25.0, fast=True)
    dbscan(jaccard_similarity(warm.visible.x), eps=0.6, min_samples=4)
    for count in options.counts:
        features, _ = synthetic(count / VISIBLE, 0, width=options.width)
        x, y = (f.x for f in features)
        clock("neighbours", lambda x=x: nearest(x, x, 30))
        similarity = clock("jaccard, neighbours included", lambda x=x: jaccard_similarity(x))
        stored.append(similarity.values().numel() / len(x))
        clock("dbscan", lambda s=similarity: dbscan(s, eps=0.6, min_samples=4))
        plan = clock("instance transport", lambda x=x, y=y: transport(x, y, strength=25.0, fast=True))
        print(count, f"rounds {plan.rounds}, {resident_bytes() / 2**30:.2f} GiB", flush=True)
    print(f"| stage, processor seconds | {' | '.join(map(str, options.counts))} | exponent |")
    print("|---|" + "--:|" * (len(options.counts) + 1))
    for stage, spent in seconds.items():
        cells = " | ".join(f"{s:.2f}" for s in spent)
        print(f"| {stage} | {cells} | {slope(options.counts, spent):.2f} |")
    print(f"| stored affinities per image | {' | '.join(f'{s:.0f}' for s in stored)} | |")


def slope(counts: list[int], values: list[float]) -> float:
    """The exponent of a power law, by least squares in logarithms."""
    x = torch.tensor([[math.log(c), 1.0] for c in counts])
    y = torch.tensor([[math.log(max(v, 1e-6))] for v in values])
    return float(torch.linalg.lstsq(x, y).solution[0, 0])


if __name__ == "__main__":
    main()
