"""Folding text for the columns of a terminal: specs at their brackets, commas and signs, headings at words and hyphens."""

from __future__ import annotations

import re
from collections.abc import Sequence

from rich.cells import cell_len

GAP = 2  # characters between two columns, see `terminal_table`
LONG_WORD = 10  # characters from which a heading's word may be folded at its hyphen


def fold(text: str, width: int) -> str:
    """Text in lines of at most ``width`` characters: broken at spaces or after ``( , +``, else after ``=``, else anywhere.

    >>> fold("rank_cam(floor=0.2)", 16)
    'rank_cam(\\nfloor=0.2)'
    >>> fold("my idea, stricter", 10)
    'my idea,\\nstricter'
    """
    pieces = re.findall(r"[(,+]*[^\s(,+]+[(,+]?\s*|[(,+]\s*", text.strip())
    whole = [[piece] if cell_len(piece.rstrip()) <= width else re.findall(r"[^=]+=?|=", piece) for piece in pieces]
    return filled([piece for split in whole for piece in split], width)


def fold_heading(text: str, width: int) -> str:
    """A heading in lines of at most ``width`` characters, or as long as its longest word."""
    return filled(heading_pieces(text), max(width, least_width(text)))


def least_width(heading: str) -> int:
    """The width below which a heading's words would be cut."""
    return max((cell_len(piece.rstrip()) for piece in heading_pieces(heading)), default=0)


def heading_width(text: str, lines: int, least: int) -> int:
    """The smallest width, ``least`` or more, in which a heading takes at most so many lines, if there is one."""
    for width in range(max(least, least_width(text)), cell_len(text)):
        if fold_heading(text, width).count("\n") < lines:
            return width
    return max(least, cell_len(text))


def heading_pieces(text: str) -> list[str]:
    words = re.findall(r"\S+(?: %)?\s*", text)
    return [piece for word in words for piece in (re.findall(r"[^-]+-?", word) if len(word) > LONG_WORD else [word])]


def filled(pieces: Sequence[str], width: int) -> str:
    """Pieces put side by side as far as they fit; one that is too long by itself is cut."""
    lines = [""]
    for piece in pieces:
        if lines[-1] and cell_len((lines[-1] + piece).rstrip()) > width:
            lines.append("")
        lines[-1] += piece
        while cell_len(lines[-1].rstrip()) > width:
            at = next(n for n in range(len(lines[-1]), 0, -1) if n == 1 or cell_len(lines[-1][:n]) <= width)
            lines[-1:] = [lines[-1][:at], lines[-1][at:]]
    return "\n".join(line.rstrip() for line in lines)


def shares(wanted: Sequence[int], room: int) -> list[int]:
    """Widths of columns that would like to be so wide, within ``room``: the narrow ones whole, the others alike."""
    found, left = dict.fromkeys(range(len(wanted)), 0), room
    for done, number in enumerate(sorted(found, key=lambda n: wanted[n])):
        found[number] = max(1, min(wanted[number], left // (len(wanted) - done)))
        left -= found[number]
    return list(found.values())
