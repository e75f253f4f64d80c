"""How ``reidassoc list --matrix`` shows which plug-ins run together."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from string import ascii_lowercase

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from reidassoc.errors import RecipeError
from reidassoc.recipe.compatibility import PAIRS, Grid, matrix

LEGEND = (
    "✓ runs; ✓ with a letter: runs in a stage that has what the note says; ✗ refused when the recipe is composed, for the "
    "reason in the note, unless a further objective or refiner gives what is missing."
)


def print_matrix(kind: str | None = None, console: Console | None = None) -> None:
    """Print every grid, or those whose rows are of a kind; as many columns beside each other as the terminal has room for.

    Raises:
        RecipeError: no grid has rows of that kind.
    """
    console = console or Console(highlight=False)
    grids = matrix(kind)
    if not grids:
        kinds = dict.fromkeys(rows for rows, _ in PAIRS)
        raise RecipeError(f"no matrix of {kind}: expected {', '.join(kinds)}, or no kind for all of them")
    console.print(LEGEND, markup=False)
    for grid in grids:
        notes = dict(zip(notes_of(grid), letters(), strict=False))
        console.print(f"\n[bold]{grid.kinds[0]} × {grid.kinds[1]}[/]")
        for columns in pages(grid, console.width):
            console.print(page(grid, columns, notes))
        for note, letter in notes.items():
            console.print(f"{letter}  {note}", markup=False)


def notes_of(grid: Grid) -> list[str]:
    """Every note once, in reading order."""
    return list(dict.fromkeys(cell.note for cell in grid.cells.values() if cell.note))


def letters() -> Iterator[str]:
    """a, b, …, z, aa, ab, …"""
    yield from ascii_lowercase
    yield from (first + second for first in ascii_lowercase for second in ascii_lowercase)


def heading(spec: str) -> str:
    """A spec, its options on lines of their own."""
    return spec.replace("(", "\n(").replace(", ", ",\n ")


def pages(grid: Grid, width: int) -> Iterator[Sequence[str]]:
    """The columns in groups that fit beside the names of the rows."""
    room = width - max(map(len, grid.rows)) - 4
    group: list[str] = []
    used = 0
    for column in grid.columns:
        wide = max(4, *map(len, heading(column).split("\n"))) + 3  # padding and divider
        if group and used + wide > room:
            yield group
            group, used = [], 0
        group.append(column)
        used += wide
    yield group


def page(grid: Grid, columns: Sequence[str], notes: dict[str, str]) -> Table:
    table = Table(box=SIMPLE_HEAD, pad_edge=False, padding=(0, 1))
    table.add_column("", no_wrap=True)
    for column in columns:
        table.add_column(escape(heading(column)), no_wrap=True)
    for row in grid.rows:
        cells = [grid.cells[row, column] for column in columns]
        marks = [f"{'✓' if cell.fits else '✗'} {notes.get(cell.note, '')}".rstrip() for cell in cells]
        table.add_row(escape(row), *(mark if mark[0] == "✓" else f"[red]{mark}[/]" for mark in marks))
    return table
