"""A line a minute about long work, for whoever looks at a pipe or a log."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field

EVERY_S = 60.0

Say = Callable[[str], None]


def silent(text: str) -> None:
    """Say nothing."""


@dataclass
class Progress:
    """Report how far some work has come, at most once a minute; work that is done sooner is not reported.

    Args:
        what: the work, as in ``reading visible images``.
        say: takes each line.
    """

    what: str
    say: Say
    last: float = field(init=False)

    def __post_init__(self) -> None:
        self.last = time.monotonic()

    def __call__(self, done: int, total: int) -> None:
        """Report ``done`` items of ``total`` if a minute has passed."""
        now = time.monotonic()
        if now - self.last >= EVERY_S and done < total:
            self.last = now
            self.say(f"{self.what}: {done} of {total}")
