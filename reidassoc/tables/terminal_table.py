"""Tables for a terminal, a pipe or a log of any width, in which no digit is ever cut.

Headings and words are folded, whole columns that can be spared are left out, and told; figures are set closer, and lists of them
folded. What is still too wide goes beyond the edge.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from rich.box import SIMPLE_HEAD
from rich.cells import cell_len
from rich.console import Console
from rich.table import Table
from rich.text import Text

from reidassoc.tables.wrap import GAP, fold, fold_heading, heading_width, least_width, shares

HEADING_LINES = 4
WORDS = 20  # characters that a column of words keeps, folded: columns that can be spared make room for them
LEAST = 12  # what it keeps if the figures alone leave less
CLOSER = {" ± ": "±", " to ": "–", " / ": "/", " | ": "|"}  # how figures are set in a narrow table


@dataclass(frozen=True)
class Column:
    """A column of a table.

    Args:
        heading: at its top.
        kind: ``figure`` stands on the right and is never broken, ``list`` of figures is broken at its commas alone, ``words``
            anywhere between two words.
        spare: columns with the highest number are left out of a narrow table first; 0 never is.
    """

    heading: str
    kind: Literal["figure", "list", "words"] = "figure"
    spare: int = 0


Cells = Sequence[Sequence[Text | str]]


@dataclass(frozen=True)
class Layout:
    """Which columns are shown, how wide they are, and the text of every cell, folded."""

    columns: tuple[Column, ...]
    widths: tuple[int, ...]
    rows: tuple[tuple[Text, ...], ...]
    left_out: tuple[str, ...]


def print_columns(
    console: Console, columns: Sequence[Column], rows: Cells, *, more: str = "", sections: Sequence[int] = ()
) -> None:
    """Print a table, with an empty line before and after it.

    Args:
        columns: of the table.
        rows: a text for each column; a row may be styled as a whole by its texts.
        more: where the figures are that are left out of a narrow table, as ``--json has everything``.
        sections: rows that a line follows.
    """
    found = laid_out(columns, rows, console.width)
    if found.left_out:
        text = f"Left out for want of width: {', '.join(found.left_out)}{'; ' + more if more else ''}."
        console.print(text, markup=False)
    console.print()
    console.print(drawn(found, sections), crop=False)
    console.print()


def drawn(layout: Layout, sections: Sequence[int] = ()) -> Table:
    """The table as rich prints it."""
    table = Table(
        box=SIMPLE_HEAD, show_edge=False, pad_edge=False, collapse_padding=True, padding=(0, 1, 0, 0),
        width=sum(layout.widths) + GAP * (len(layout.widths) - 1),
    )  # fmt: skip
    for column, width in zip(layout.columns, layout.widths, strict=True):
        justify: Literal["left", "right"] = "right" if column.kind == "figure" else "left"
        table.add_column(Text(fold_heading(column.heading, width)), justify=justify, width=width, no_wrap=True)
    for number, row in enumerate(layout.rows):
        table.add_row(*row, end_section=number in sections)
    return table


def laid_out(columns: Sequence[Column], rows: Cells, width: int) -> Layout:
    """Fit a table into a width, as far as that can be done without breaking a figure."""
    texts = [[cell if isinstance(cell, Text) else Text(cell) for cell in row] for row in rows]
    spare = sorted((n for n, column in enumerate(columns) if column.spare), key=lambda n: -columns[n].spare)
    tries = [(count, False, False, WORDS) for count in range(len(spare) + 1)]
    tries += [(len(spare), *closing) for closing in ((True, False, WORDS), (True, False, LEAST), (True, True, LEAST))]
    for count, closer, broken, least in tries:
        kept = [n for n in range(len(columns)) if n not in spare[:count]]
        shown = [columns[n] for n in kept]
        cells = [[reset(row[n], columns[n], closer, broken) for n in kept] for row in texts]
        widths, fits = widths_of(shown, cells, width, least)
        if fits:
            break
    folded = tuple(
        tuple(
            Text(fold(cell.plain, wide), cell.style) if column.kind == "words" else cell
            for column, wide, cell in zip(shown, widths, row, strict=True)
        )
        for row in cells
    )
    return Layout(tuple(shown), tuple(widths), folded, tuple(columns[n].heading for n in sorted(spare[:count])))


def widths_of(
    columns: Sequence[Column], cells: Sequence[Sequence[Text]], width: int, keep: int
) -> tuple[list[int], bool]:
    """Widths of the columns, and whether they fit; of the ways to fold the headings, the one with the fewest lines."""
    longest = [longest_line([row[n] for row in cells]) for n in range(len(columns))]
    words = [n for n, column in enumerate(columns) if column.kind == "words"]
    wanted = {n: max(longest[n], cell_len(columns[n].heading)) for n in words}
    least = {n: max(min(wanted[n], keep), least_width(columns[n].heading)) for n in words}
    room = width - GAP * (len(columns) - 1)
    for lines in range(1, HEADING_LINES + 1):
        widths = [
            least[n] if n in least else heading_width(column.heading, lines, longest[n])
            for n, column in enumerate(columns)
        ]
        if fits := sum(widths) <= room:
            break
    left = room - sum(wide for n, wide in enumerate(widths) if n not in least)
    for n, wide in zip(words, shares(list(wanted.values()), left), strict=True):
        widths[n] = max(least[n], wide)
    return widths, fits


def longest_line(cells: Sequence[Text]) -> int:
    return max((cell_len(line) for cell in cells for line in cell.plain.split("\n")), default=0)


def reset(cell: Text, column: Column, closer: bool, broken: bool) -> Text:
    """A figure set closer; a list of figures, one below the other."""
    text = cell.plain
    for wide, narrow in CLOSER.items() if closer and column.kind != "words" else ():
        text = text.replace(wide, narrow)
    if broken and column.kind == "list":
        text = text.replace(", ", ",\n")
    return Text(text, cell.style)
