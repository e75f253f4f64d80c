"""What mkdocs does to the pages beyond Markdown. Tables of options and printed output are in the pages: docs/fill.py."""

from __future__ import annotations

import re
from typing import Any


def on_page_content(html: str, **_: Any) -> str:
    """Docstrings name functions as Sphinx would; here they are plain code. Code in tables may break after its signs."""
    html = re.sub(r":(?:func|class|mod|meth):(?=<code>)", "", html)
    return re.sub(r"<td[ >].*?</td>", lambda cell: re.sub(r"<code>[^<]*</code>", breakable, cell[0]), html, flags=re.S)


def breakable(code: re.Match[str]) -> str:
    """A piece of code with a place to break after each sign within it; those of entities are none."""
    return re.sub(r"(?<=\w)([./,=]|[(\[]|::)(?=[\w&'\"])", r"\1<wbr>", code[0])
