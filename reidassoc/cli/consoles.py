"""Consoles that are not UTF-8: what they can't show is spelled in letters, so that a command ends as it does elsewhere."""

from __future__ import annotations

import codecs
import io
import sys
import unicodedata

SPELLED = {
    "–": "-", "−": "-", "—": "-", "…": "...", "≥": ">=", "≤": "<=", "≈": "~", "±": "+-", "×": "x", "→": "->", "·": "*",
    "✓": "+", "✗": "x",
}  # fmt: skip


def spelled(character: str) -> str:
    """A character in ASCII: its signs above, an accented letter without its accent, a Greek letter's name, else ``?``.

    >>> [spelled(one) for one in "≥äτ猫"]
    ['>=', 'a', 'tau', '?']
    """
    greek = unicodedata.name(character, "").removeprefix("GREEK SMALL LETTER ")
    plain = unicodedata.normalize("NFKD", character).encode("ascii", "ignore").decode()
    return SPELLED.get(character) or plain or (greek.lower() if character in "αβγδεζηθικλμνξοπρσςτυφχψω" else "?")


def replace(error: UnicodeError) -> tuple[str, int]:
    """Spell what could not be encoded (a codec's error handler)."""
    if not isinstance(error, UnicodeEncodeError):
        raise error
    return "".join(map(spelled, error.object[error.start : error.end])), error.end


def spell_what_consoles_lack() -> None:
    """Let what this process prints be spelled where its console has no sign for it."""
    codecs.register_error("spelled", replace)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="spelled")
