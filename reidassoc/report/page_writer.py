"""A report on runs: one HTML file that needs nothing else, and its figures as PDF."""

from __future__ import annotations

import base64
import gzip
import json
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timezone
from html import escape
from importlib.resources import files
from os import PathLike
from pathlib import Path
from typing import Any

import torch

from reidassoc._version import __version__
from reidassoc.data.tiles import COLUMNS
from reidassoc.files.atomic import write_text
from reidassoc.registry.spec import several
from reidassoc.report import sections
from reidassoc.report.associations import explored
from reidassoc.report.chapters import Chapter, chapters, read_named
from reidassoc.report.charts import Chart
from reidassoc.report.cost import chart as cost_chart
from reidassoc.report.cost import costs
from reidassoc.report.curves import cmc, over_epochs
from reidassoc.report.embedding import maps
from reidassoc.report.pdf import write_figures
from reidassoc.report.retrieval import browsed
from reidassoc.report.sections import Section
from reidassoc.report.thumbnails import sheets_of

SCRIPTS = ("start.js", "tables.js", "charts.js", "associations.js", "retrieval.js")
NAMED = 4  # methods in a title


@dataclass(frozen=True)
class Part:
    """A chapter of the page: its methods and dataset, its sections, its figures, its style rules and its data.

    Args:
        title: a benchmark's, or ``METHODS on DATASET``.
        methods: in a few words.
        dataset: its name.
    """

    title: str
    methods: str
    dataset: str
    sections: tuple[Section, ...]
    figures: tuple[Chart, ...]
    css: str
    data: dict[str, Any]


def write_report(
    runs: str | PathLike[str] | Sequence[str | PathLike[str]],
    out: str | Path = "report.html",
    *,
    figures: str | Path | None = None,
    protocol: str | None = None,
    allow: bool = False,
    published: bool = True,
    pictures: bool = True,
    device: str | torch.device = "auto",
) -> Path:
    """Write a page on some runs.

    Args:
        runs: run folders, runs' results, benchmark folders, or exported cells; ``NAME=PATH`` calls the runs of a path NAME.
        out: the HTML file; it holds everything that it shows.
        figures: a folder for the figures as PDF.
        protocol: shown first; the benchmark's, or the first one, if not given.
        allow: show what can't be compared, with footnotes, instead of refusing it.
        published: put published figures into the tables.
        pictures: show the thumbnails that the runs kept.
        device: where a run that kept no exhibits is evaluated again.

    Returns:
        The page's path.

    Raises:
        ReidassocError: there is no result, the runs can't be compared, or a file can't be written.

    Examples:
        >>> import reidassoc as ra
        >>> ra.write_report(["runs/mult-synthetic-1", "runs/mult-synthetic-nearest-1"])  # doctest: +SKIP
    """
    results = read_named(several(runs))
    found = chapters(results, protocol=protocol, allow=allow, published=published, pictures=pictures, device=device)
    parts = [part_of(chapter, number) for number, chapter in enumerate(found)]
    write_text(out, page(parts, results.title))
    if figures is not None:
        for number, part in enumerate(parts):
            write_figures(part.figures, Path(figures) / str(number) if len(parts) > 1 else Path(figures))
    return Path(out)


def part_of(chapter: Chapter, number: int) -> Part:
    """Make all sections that the chapter's runs have something for."""
    sheets = sheets_of(chapter)
    lines, ranked, spent, mapped = over_epochs(chapter), cmc(chapter), costs(chapter), maps(chapter)
    pairs = [explored(method) for method in chapter.methods]
    queries = browsed(chapter, sheets) if sheets is not None else None
    made = [sections.overview(chapter)]
    made += [sections.over_epochs(chapter, lines)] if lines else []
    made += [sections.ranks(chapter, ranked)] if ranked else []
    made += [sections.cost(spent)] if spent else []
    made += [sections.embedding(mapped, chapter.methods[0].example.outcome.seed)] if mapped else []
    made += [sections.associations(number)] if any(pairs) else []
    seeds = sorted({method.example.outcome.seed for method in chapter.methods})
    made += [sections.browser(number, seeds)] if queries else []
    made += [sections.sources(chapter)]
    data = {
        "methods": [[method.name, method.colour] for method in chapter.methods],
        "tiles": sheets.described() if sheets is not None else {},
        "associations": pairs,
        "retrieval": queries or {},
    }
    figures: tuple[Chart, ...] = (*lines, *ranked, *([cost_chart(spent)] if spent else []), *mapped)
    methods = methods_of(chapter)
    title = chapter.results.title or f"{methods} on {chapter.title}"
    return Part(
        title, methods, chapter.title, tuple(made), figures, sheets.css(number) if sheets is not None else "", data
    )


def methods_of(chapter: Chapter) -> str:
    """``mult, pgm``; of many, how many they are."""
    names = [method.name for method in chapter.methods]
    return ", ".join(names) if len(names) <= NAMED else f"{len(names)} methods"


def title_of(parts: Sequence[Part]) -> str:
    """``mult, pgm on synthetic``; of several chapters with the same methods, the datasets in a row."""
    if len(parts) == 1 or len({part.methods for part in parts}) > 1:
        return "; ".join(part.title for part in parts)
    *most, last = (part.dataset for part in parts)
    return f"{parts[0].methods} on {', '.join(most)} and {last}"


def page(parts: Sequence[Part], title: str = "") -> str:
    """The whole file, called by its chapters unless it has a title."""
    title = title or title_of(parts)
    several = len(parts) > 1
    body = "".join(chapter_of(part, number, headed=several) for number, part in enumerate(parts))
    filled = {
        "title": escape(title),
        "made": f"reidassoc {escape(__version__)}, {datetime.now(timezone.utc).date().isoformat()}",
        "contents": "".join(
            "<ul>"
            + (f'<li><a href="#chapter-{number}"><b>{escape(part.title)}</b></a></li>' if several else "")
            + f"{sections.contents(part.sections, number)}</ul>"
            for number, part in enumerate(parts)
        ),
        "style": template("report.css") + "\n".join(part.css for part in parts),
        "body": body,
        "data": packed({"columns": COLUMNS, "chapters": [part.data for part in parts]}),
        "script": "\n".join(template(name) for name in SCRIPTS),
    }
    held = template("page.html").split("<!-- ")  # filled in one pass: what is filled in is never looked at again
    text = held[0]
    for piece in held[1:]:
        name, _, rest = piece.partition(" -->")
        text += filled[name] + rest
    return text


def chapter_of(part: Part, number: int, *, headed: bool) -> str:
    heading = f'<h2 class="dataset">{escape(part.title)}</h2>' if headed else ""
    text = "".join(section.html(number) for section in part.sections)
    return f'<div class="chapter chapter-{number}" id="chapter-{number}">{heading}{text}</div>'


def template(name: str) -> str:
    return files("reidassoc.report").joinpath("page").joinpath(name).read_text(encoding="utf-8")


def packed(data: dict[str, Any]) -> str:
    """JSON, compressed, as text that no HTML parser can mistake."""
    text = json.dumps(data, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
    return base64.b64encode(gzip.compress(text.encode(), mtime=0)).decode("ascii")
