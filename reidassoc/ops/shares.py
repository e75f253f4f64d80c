"""Work on consecutive rows, or blocks of rows, that several processes may share. They need not know each other here.

An op names what can be shared, ``shared(work, count, …)``; whoever calls the op says by whom, ``shared_by(team)``, as the
engine does for the label stage of a run on several devices. Without a team the work is done here, in one piece.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from importlib import import_module
from typing import Any, Protocol

from torch import Tensor

Work = Callable[..., tuple[Tensor, ...]]  # (start, stop, *arguments): that part's answer
SHAREABLE: dict[str, Work] = {}
ROWS = 1024  # least that is worth a message, for work by rows


class Team(Protocol):
    """Several processes that do a part of some work each."""

    size: int

    def __call__(self, name: str, edges: Sequence[int], arguments: Sequence[Any]) -> list[tuple[Tensor, ...]]:
        """What the parts ``edges[i]`` to ``edges[i + 1]`` of a work of that name give, in order; empty parts are left out."""


_team: ContextVar[Team | None] = ContextVar("team", default=None)  # of this thread: others compute by themselves


def shareable(work: Work) -> Work:
    """Let other processes compute parts of this function; they know it by its name.

    Its arguments after ``start`` and ``stop`` are tensors, numbers and None. A row's answer must not depend on where the
    parts are cut.
    """
    SHAREABLE[f"{work.__module__}:{work.__qualname__}"] = work
    return work


def known(name: str) -> Work:
    """The shareable function of that name; its module is imported if it isn't yet."""
    if name not in SHAREABLE:
        import_module(name.partition(":")[0])
    return SHAREABLE[name]


@contextmanager
def shared_by(team: Team | None) -> Iterator[None]:
    """Have a team do what can be shared inside this block, in this thread."""
    token = _team.set(team)
    try:
        yield
    finally:
        _team.reset(token)


def shared(work: Work, count: int, *arguments: Any, cost: Sequence[float] | None = None) -> list[tuple[Tensor, ...]]:
    """Do a shareable work on 0 … ``count``; return the answers of its parts, in order: one without a team.

    Args:
        cost: of each of the ``count`` units; equal if not given.
    """
    team = _team.get()
    if team is None or count < 2:
        return [work(0, count, *arguments)]
    edges = cut(cost if cost is not None else [1.0] * count, team.size)
    with shared_by(None):  # what the parts call is not shared again
        return team(f"{work.__module__}:{work.__qualname__}", edges, arguments)


def shared_rows(work: Work, count: int, *arguments: Any) -> list[tuple[Tensor, ...]]:
    """The same for rows, of which fewer than ``2 * ROWS`` are no work to share."""
    if count < 2 * ROWS:
        return [work(0, count, *arguments)]
    return shared(work, count, *arguments)


def cut(cost: Sequence[float], count: int) -> list[int]:
    """Edges of ``count`` consecutive parts of about the same cost.

    >>> cut([4, 3, 2, 1], 2)
    [0, 1, 4]
    """
    total, done, edges = sum(cost), 0.0, [0]
    for number, one in enumerate(cost):
        # A unit goes to the part in which its middle lies.
        while len(edges) < count and done + one / 2 >= total * len(edges) / count:
            edges.append(number)
        done += one
    return [*edges, *[len(cost)] * (count + 1 - len(edges))]
