"""Changes that make a run small enough for tests."""

from __future__ import annotations

from typing import Any

SMALL: list[tuple[str, Any]] = [
    ("intra.epochs", 2),
    ("cross.epochs", 3),
    ("intra.iterations", 4),
    ("cross.iterations", 4),
    ("intra.identities", 6),
    ("cross.identities", 6),
    ("evaluate_every", 2),
]
