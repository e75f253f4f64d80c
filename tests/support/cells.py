"""Results of runs, written as files."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

ALL = "all-search single-shot"


def cell(folder: Path, row: str, seed: int, gain: float = 0.0, **changes: Any) -> Path:
    """Store one made-up result; 40 people with two queries each, ``gain`` mAP better than the easiest method."""
    random = np.random.default_rng(seed)
    easy = np.random.default_rng(99).uniform(30, 70, 80)
    precision = (easy + gain + random.normal(0, 6, 80)) / 100
    mean = 100 * float(precision.mean())
    figures = {"rank1": mean + 2, "rank5": 80.0, "rank10": 90.0, "rank20": 95.0, "mAP": mean, "mINP": mean - 9}
    data: dict[str, Any] = {
        "row": row, "place": 0, "recipe": "mult/synthetic", "digest": f"{row}{seed}", "seed": seed, "flags": [],
        "method": {"associator": "mult", "network": "tiny(width=512)"},
        "dataset": {"spec": "synthetic", "fingerprint": "f1"},
        "setting": {"batch_norm_groups": 1, "test_time": []},
        "protocols": {ALL: {name: {"mean": value, "std": 0.5} for name, value in figures.items()}},
        "best_epoch_oracle": {ALL: {"epoch": 7, "mAP": {"mean": mean + 1, "std": 0.5}}},
        "labels": {"visible/precision_cross": 0.4, "infrared/precision_cross": 0.5},
        "seconds": 100.0 + seed, "date": "2026-11-21",
        "environment": {"device": "CPU", "threads": 1, "torch": "2.15"},
        "queries": {ALL: {"precision": precision.tolist(), "person": [q // 2 for q in range(80)]}},
    }  # fmt: skip
    for key, value in changes.items():
        data[key] = {**data.get(key, {}), **value} if isinstance(value, dict) else value
    folder.mkdir(exist_ok=True)
    path = folder / f"{row.replace('/', '-').replace(' ', '_')}-{seed}.json"
    path.write_text(json.dumps(data))
    return path
