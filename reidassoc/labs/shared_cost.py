"""What shared work costs: features that time what is remembered with them."""

from __future__ import annotations

import time
from collections.abc import Callable, Hashable
from dataclasses import dataclass, field
from typing import TypeVar

from reidassoc.types import Features

T = TypeVar("T")


@dataclass
class Ledger:
    """Seconds of remembered work, by key, and the keys asked for since the last :meth:`open`.

    A combination is charged its own seconds, without what others had remembered for it or it for others, and beside
    them the seconds of all shared work that it used, whoever did it first. So neither depends on the order.
    """

    cost: dict[Hashable, float] = field(default_factory=dict)
    used: set[Hashable] = field(default_factory=set)
    spent: float = 0.0
    _depth: int = 0

    def open(self) -> None:
        """Start a new account."""
        self.used, self.spent = set(), 0.0

    @property
    def shared(self) -> float:
        """Seconds of all shared work used since :meth:`open`."""
        return sum(self.cost[key] for key in self.used)

    def time(self, key: Hashable, call: Callable[[], T], *, known: bool) -> T:
        """Make (or only fetch, if ``known``) something shared."""
        self._depth += 1
        started = time.perf_counter()
        try:
            return call()
        finally:
            self._depth -= 1
            seconds = time.perf_counter() - started
            if not known:
                self.cost[key] = seconds
            if self._depth == 0:  # what it used in turn is in its own seconds
                self.used.add(key)
                self.spent += seconds


@dataclass(frozen=True)
class Metered(Features):
    """Features whose remembered work is charged to a ledger."""

    ledger: Ledger = field(default_factory=Ledger, repr=False, compare=False)

    def memo(self, key: Hashable, make: Callable[[], T]) -> T:
        return self.ledger.time((id(self), key), lambda: Features.memo(self, key, make), known=key in self._memo)


def metered(features: Features, ledger: Ledger) -> Metered:
    """The same features, remembering nothing yet."""
    return Metered(features.x, features.index, features.camera, features.extra, ledger)
