"""A comparison table drawn for a terminal, Markdown, LaTeX (booktabs), CSV or HTML. Names are escaped for each."""

from __future__ import annotations

import csv
import html
import io
import math
import re
from collections.abc import Callable
from pathlib import Path

from rich.console import Console
from rich.markup import escape as rich_escape
from rich.text import Text

from reidassoc.errors import DataError
from reidassoc.evaluation.figures import figure_text
from reidassoc.files.atomic import write_text
from reidassoc.tables.table import COLUMNS, Entry, Row, Table
from reidassoc.tables.terminal_table import Column, print_columns

TEXT_COLUMNS = ("interval", "each")
LATEX = {
    "\\": r"\textbackslash{}", "&": r"\&", "%": r"\%", "$": r"\$", "#": r"\#", "_": r"\_", "{": r"\{", "}": r"\}",
    "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "<": r"\textless{}", ">": r"\textgreater{}",
    "±": r"$\pm$", "≈": r"$\approx$", "–": "--", "−": "$-$", "≤": r"$\leq$", "≥": r"$\geq$",
}  # fmt: skip


def figure(entry: Entry) -> str:
    """``59.4 ± 1.6``, a text, or a dash."""
    return entry.text or figure_text(entry.mean, entry.std) + (" ≈" if entry.alike else "")


def name(row: Row) -> str:
    return f"{row.name}, published" if row.published else row.name


def markdown(table: Table) -> str:
    """A Markdown table with its remarks above and its footnotes below."""

    def cell(entry: Entry) -> str:
        text = markdown_escape(figure(entry))
        return {"best": f"**{text}**", "second": f"<u>{text}</u>", "": text}[entry.mark]

    def first(row: Row) -> str:
        return markdown_escape(name(row)) + "".join(f"<sup>{n}</sup>" for n in row.notes)

    lines = [f"{markdown_escape(table.title)}. " + " ".join(markdown_escape(text) for text in table.remarks), ""]
    lines.append("| " + " | ".join(table.headings) + " |")
    lines.append("|---|" + "|".join("---" if c in TEXT_COLUMNS else "--:" for c in table.columns) + "|")
    lines += ["| " + " | ".join([first(row), *map(cell, row.entries)]) + " |" for row in table.rows]
    if table.notes:
        notes = [f"<sup>{n}</sup> {markdown_escape(text)}" for n, text in enumerate(table.notes, start=1)]
        lines += ["", "<br>".join(notes)]
    return "\n".join(lines) + "\n"


def markdown_escape(text: str) -> str:
    return re.sub(r"([\\`*_|<>\[\]])", r"\\\1", " ".join(text.split()))


def latex(table: Table) -> str:
    """A ``booktabs`` table; ``\\usepackage{booktabs}`` is all that it needs."""

    def cell(entry: Entry) -> str:
        text = latex_escape(figure(entry))
        return {"best": rf"\textbf{{{text}}}", "second": rf"\underline{{{text}}}", "": text}[entry.mark]

    def first(row: Row) -> str:
        marks = ",".join(map(str, row.notes))
        return latex_escape(name(row)) + (rf"\textsuperscript{{{marks}}}" if marks else "")

    aligned = "l" + "".join("l" if column in TEXT_COLUMNS else "r" for column in table.columns)
    lines = [r"\begin{table}", r"\centering", rf"\begin{{tabular}}{{{aligned}}}", r"\toprule"]
    lines += [" & ".join(map(latex_escape, table.headings)) + r" \\", r"\midrule"]
    for number, row in enumerate(table.rows):
        if row.published and (number == 0 or not table.rows[number - 1].published):
            lines.append(r"\midrule")
        lines.append(" & ".join([first(row), *map(cell, row.entries)]) + r" \\")
    lines += [r"\bottomrule", r"\end{tabular}"]
    told = " ".join([f"{table.title}.", *table.remarks])
    marks = "".join(rf" \textsuperscript{{{n}}} {latex_escape(text)}." for n, text in enumerate(table.notes, start=1))
    return "\n".join([*lines, rf"\caption{{{latex_escape(told)}{marks}}}", r"\end{table}"]) + "\n"


def latex_escape(text: str) -> str:
    return "".join(LATEX.get(character, character) for character in " ".join(text.split()))


def as_csv(table: Table) -> str:
    """One line per row with mean and deviation in columns of their own, at full precision."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    figures = [column for column in table.columns if column not in (*TEXT_COLUMNS, "seeds", "seconds")]
    heads = []
    for column in table.columns:
        heads += [column, f"{column}_std"] if column in figures else [column]
    alike = "mAP" in table.columns
    writer.writerow(["method", "published", *heads, *(["alike_best"] if alike else []), "notes"])
    for row in table.rows:
        values: list[str] = []
        for column, entry in zip(table.columns, row.entries, strict=True):
            if column in figures:
                values += ["" if math.isnan(x) else f"{x:.4f}" for x in (entry.mean, entry.std)]
            else:
                values.append(entry.text)
        same = [str(any(entry.alike for entry in row.entries)).lower()] if alike else []
        notes = "; ".join(table.notes[number - 1] for number in row.notes)
        writer.writerow([row.name, str(row.published).lower(), *values, *same, notes])
    return out.getvalue()


def as_html(table: Table) -> str:
    """A bare ``<table>`` with classes ``best``, ``second``, ``published`` to style."""

    def cell(column: str, entry: Entry) -> str:
        text = html.escape(figure(entry))
        text = {"best": f"<b>{text}</b>", "second": f"<u>{text}</u>", "": text}[entry.mark]
        value = "" if math.isnan(entry.mean) else f' data-value="{entry.mean:.4f}"'
        return f"<td{value}>{text}</td>"

    lines = [
        '<table class="comparison">',
        f"<caption>{html.escape(' '.join([table.title + '.', *table.remarks]))}</caption>",
    ]
    heads = "".join(f'<th scope="col">{html.escape(heading)}</th>' for heading in table.headings)
    lines += [f"<thead><tr>{heads}</tr></thead>", "<tbody>"]
    for row in table.rows:
        marks = "".join(f"<sup>{number}</sup>" for number in row.notes)
        cells = "".join(cell(column, entry) for column, entry in zip(table.columns, row.entries, strict=True))
        kind = ' class="published"' if row.published else ""
        lines.append(f'<tr{kind}><th scope="row">{html.escape(name(row))}{marks}</th>{cells}</tr>')
    lines += ["</tbody>", "</table>"]
    if table.notes:
        lines += ["<ol>", *(f"<li>{html.escape(text)}</li>" for text in table.notes), "</ol>"]
    return "\n".join(lines) + "\n"


def terminal_table(table: Table) -> tuple[list[Column], list[list[Text]], list[int]]:
    """Columns, cells and the last of our rows, for a terminal; without remarks and footnotes."""
    columns = [Column("method", "words")]
    columns += [Column(COLUMNS[column], "list" if column in TEXT_COLUMNS else "figure") for column in table.columns]
    styles = {"best": "bold", "second": "underline", "": ""}
    cells = [
        [Text(f"{name(row)}{''.join(f' [{n}]' for n in row.notes)}")]
        + [Text(figure(entry), styles[entry.mark]) for entry in row.entries]
        for row in table.rows
    ]
    ours = [number for number, row in enumerate(table.rows[:-1]) if table.rows[number + 1].published > row.published]
    return columns, cells, ours


def as_rich(table: Table) -> str:
    """Text as a terminal shows it, with its styles if it is one."""
    console = Console(highlight=False)
    with console.capture() as captured:
        print_table(console, table)
    return captured.get()


def print_table(console: Console, table: Table) -> None:
    """Print title, remarks, the table and its footnotes."""
    console.print(f"\n[bold]{rich_escape(table.title)}[/]", soft_wrap=True)
    for remark in table.remarks:
        console.print(rich_escape(remark), soft_wrap=True)
    columns, cells, ours = terminal_table(table)
    print_columns(console, columns, cells, sections=ours)
    for number, text in enumerate(table.notes, start=1):
        console.print(f"\\[{number}] {rich_escape(text)}", soft_wrap=True)


FORMATS: dict[str, Callable[[Table], str]] = {
    "rich": as_rich,
    "markdown": markdown,
    "latex": latex,
    "csv": as_csv,
    "html": as_html,
}


def write_between(page: Path, text: str, marker: str) -> None:
    """Put a table between the lines ``<!-- table: MARKER -->`` and ``<!-- end of table -->`` of a Markdown page.

    Raises:
        DataError: the page can't be read or written, or has no such lines.
    """
    start, end = f"<!-- table: {marker} -->", "<!-- end of table -->"
    try:
        held = page.read_text(encoding="utf-8")
    except OSError as error:
        raise DataError(f"can't read {page}: {error.strerror}") from None
    before, opened, rest = held.partition(start + "\n")
    _, closed, after = rest.partition(end)
    if not opened or not closed:
        raise DataError(f"{page} has no lines '{start}' and '{end}' for the table to stand between")
    write_text(page, before + opened + text + closed + after)
