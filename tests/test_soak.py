"""The stored long run stayed flat; `python benchmarks/soak.py` makes it anew."""

from __future__ import annotations

import json
from pathlib import Path

ROOT = Path(__file__).parent.parent


def test_the_stored_long_run_stayed_flat() -> None:
    stored = json.loads((ROOT / "benchmarks" / "results" / "soak.json").read_text(encoding="utf-8"))
    assert stored["epochs"] >= 200
    assert set(stored["verdicts"]) == {"memory", "open files", "checkpoints", "disk"}
    assert all(stored["verdicts"].values())
    said = (ROOT / "docs" / "reliability.md").read_text(encoding="utf-8")
    assert stored["date"] in said.partition("## Long runs")[2]
