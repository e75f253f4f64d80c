"""A benchmark small enough for tests."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

from reidassoc.tables.formats import markdown
from reidassoc.tables.read import read_results
from reidassoc.tables.table import compare_results

TINY = """
name: tiny
recipe: mult/synthetic
datasets: ["synthetic(size='tiny', identities=8, test_identities=4, images=4)"]
set: {intra.epochs: 1, cross.epochs: 2, intra.iterations: 2, cross.iterations: 2, intra.identities: 3,
      cross.identities: 3, intra.images: 2, cross.images: 2, evaluate_every: 0, network.width: 32}
methods: {nearest: {associator: nearest}, mult: }
"""


def written(folder: Path, text: str = TINY) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "spec.yaml").write_text(text)
    return folder / "spec.yaml"


def table_of(out: Path) -> str:
    return markdown(compare_results(read_results([out])))


def wait_for(condition: Any, seconds: float = 120.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.01)
