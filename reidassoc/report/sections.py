"""The sections of a page as HTML. Whatever comes from outside (names, specs, file names, errors) is escaped here."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from html import escape

from reidassoc.evaluation.figures import NOTHING, figure_text
from reidassoc.report import svg
from reidassoc.report.chapters import Chapter
from reidassoc.report.charts import COLOURS, Curves, Dots
from reidassoc.report.cost import PARTS, Cost, shown
from reidassoc.report.curves import known_people, subtitle
from reidassoc.tables.formats import as_html, figure
from reidassoc.tables.read import Outcome
from reidassoc.tables.table import LEVEL, figures

MADE_WITH = ("reidassoc", "torch", "python")


@dataclass(frozen=True)
class Section:
    """A heading, a line or two on what is shown, and the rest; ``name`` is its anchor."""

    name: str
    title: str
    lead: str
    body: str

    def html(self, number: int) -> str:
        return (
            f'<section id="{self.name}-{number}"><h2>{escape(self.title)}</h2>'
            f'<p class="lead">{escape(self.lead)}</p>{self.body}</section>'
        )


def overview(chapter: Chapter) -> Section:
    """The headline, and the comparison under each protocol."""
    single = len(chapter.runs) == 1
    body = tiles(chapter) if single else ""
    if not chapter.protocols:
        return Section("overview", "Result", "The dataset has no trials: nothing was retrieved.", body)
    options = "".join(f"<option>{escape(name)}</option>" for name in chapter.protocols)
    picker = (
        f'<label>protocol <select class="protocols">{options}</select></label>' if len(chapter.protocols) > 1 else ""
    )
    shown = "".join(
        f'<div class="scroll" data-protocol="{escape(name, quote=True)}"{"" if name == chapter.protocol else " hidden"}>'
        f"{as_html(table)}</div>"
        for name, table in chapter.tables.items()
    )
    notes = "".join(f"<li>{escape(note)}</li>" for note in chapter.notes)
    hint = "" if single else '<span class="hint">Press a heading to sort.</span>'
    body += f'<div class="controls">{picker}{hint}</div>{shown}'
    body += f'<ul class="notes">{notes}</ul>' if notes else ""
    title = "Result" if single else "Comparison"
    return Section("overview", title, headline(chapter), body)


def headline(chapter: Chapter) -> str:
    """What a reader should take away, in a sentence or two."""
    table = chapter.tables[chapter.protocol]
    place = table.columns.index("mAP")
    best = [row for row in table.rows if row.entries[place].mark == "best"]
    first = chapter.methods[0]
    if len(chapter.methods) == 1 or not best:
        row = next(row for row in table.rows if row.name == first.name)
        if (shown := figure(row.entries[place])) == NOTHING:
            return f"{first.name} on {subtitle(chapter)}: no figure under {chapter.protocol}: no query has a match."
        return f"{first.name} on {subtitle(chapter)}: mAP {shown} under {chapter.protocol}, last epoch."
    said = f"{best[0].name} has the highest mAP, {figure(best[0].entries[place])}, under {chapter.protocol} ({subtitle(chapter)})."
    alike = [c.second for c in table.comparisons if not c.distinguishable(LEVEL)]
    if alike:
        said += (
            f" The paired test can't tell it from {', '.join(f'“{name}”' if ',' in name else name for name in alike)}."
        )
    elif table.comparisons:
        said += " The paired test tells it from every other method here."
    return said


def tiles(chapter: Chapter) -> str:
    """Large figures for a single run."""
    data = chapter.runs[0].outcome.data
    found = data["protocols"].get(chapter.protocol, {})
    shown = [
        (figure_text(found[key]["mean"]), name)
        for key, name in (("mAP", "mAP"), ("rank1", "Rank-1"), ("mINP", "mINP"))
        if key in found
    ]
    precision = figures(data, chapter.protocol).get("precision")
    if precision is not None:
        shown.append((f"{precision:.1f}", "pairs across modalities right, %"))
    if isinstance(data.get("clusters"), dict):
        people = known_people(chapter)
        counts = " / ".join(str(value) for value in data["clusters"].values())
        shown.append((counts, f"clusters, visible / infrared{f', of {people} people' if people else ''}"))
    items = "".join(f"<li><b>{escape(value)}</b><span>{escape(name)}</span></li>" for value, name in shown)
    return f'<ul class="tiles">{items}</ul>'


def legend(chapter: Chapter) -> str:
    """The methods' colours and dashes; pressing one sets it off from the others."""
    keys = "".join(
        f'<li><button type="button" class="key m{method.colour % COLOURS} d{method.colour // COLOURS % len(svg.DASHES)}" '
        f'data-method="{method.colour}" aria-pressed="false">'
        f"{escape(method.name)}</button></li>"
        for method in chapter.methods
    )
    return f'<ul class="legend">{keys}</ul>'


def over_epochs(chapter: Chapter, charts: Sequence[Curves]) -> Section:
    spread = (
        " Bands: ± one deviation over the seeds." if any(line.low for chart in charts for line in chart.lines) else ""
    )
    marks = " Dotted: a stage begins." if any(chart.marks for chart in charts) else ""
    followed = any(chart.name == "map" for chart in charts)
    lead = (
        "Retrieval on the test set, and the labels against true identities, which no method sees."
        if followed
        else "How right the labels are, by true identities, which no method sees; retrieval was measured at the end alone."
    )
    lead += marks + spread
    body = legend(chapter) + f'<div class="charts">{"".join(map(svg.curves, charts))}</div>'
    return Section("epochs", "Over the epochs", lead, body)


def ranks(chapter: Chapter, charts: Sequence[Curves]) -> Section:
    lead = "Share of queries with a correct match among the first k, at the last epoch; mean over trials and seeds."
    return Section(
        "cmc", "CMC", lead, legend(chapter) + f'<div class="charts small">{"".join(map(svg.curves, charts))}</div>'
    )


def cost(found: Sequence[Cost]) -> Section:
    """Time by part as bars, and the memory."""
    most = max(one.total for one in found) or 1.0
    used = shown(found)
    keys = "".join(f'<li><span class="key p{n}">{escape(PARTS[part])}</span></li>' for n, part in enumerate(used))
    rows = []
    for one in found:
        bars = "".join(
            f'<i class="p{n}" style="width:{100 * one.seconds[part] / most:.2f}%" '
            f'title="{escape(PARTS[part])}: {one.seconds[part]:.1f} s"></i>'
            for n, part in enumerate(used)
        )
        memory = (
            f'<td data-value="{one.peak_gib:.4f}">{one.peak_gib:.2f}</td>' if one.peak_gib is not None else "<td>–</td>"
        )
        label = one.seconds["label"] / max(one.epochs, 1)
        rows.append(
            f'<tr><th scope="row">{escape(one.name)}</th><td class="bars" data-value="{one.total:.2f}"><div>{bars}</div></td>'
            f'<td data-value="{one.total:.2f}">{one.total:.0f}</td><td>{one.total / max(one.epochs, 1):.2f}</td>'
            f"<td>{label:.2f}</td>{memory}</tr>"
        )
    heads = ("method", "time of a run", "s", "s per epoch", "labels, s per epoch", "peak memory, GiB")
    head = "".join(f'<th scope="col">{escape(text)}</th>' for text in heads)
    table = f'<div class="scroll"><table class="cost"><thead><tr>{head}</tr></thead><tbody>{"".join(rows)}</tbody></table></div>'
    devices = sorted({name for one in found for name in one.devices})
    lead = (
        f"Mean over the seeds, on {'; '.join(devices)}, wall-clock time: other load on the machine is included. "
        "Memory: of the process on a CPU, of torch on a GPU."
    )
    return Section("cost", "Cost", lead, f'<ul class="legend">{keys}</ul>{table}')


def embedding(found: Sequence[Dots], seed: int) -> Section:
    people = len(found[0].groups)
    lead = (
        f"Test images of {people} people, the same for every method: t-SNE of the last epoch's features (seed {seed}). "
        "A colour is a person; discs are visible, triangles infrared. Good features join a person's discs and triangles. "
        "Distances between far groups mean little."
    )
    return Section("map", "Map of the features", lead, f'<div class="maps">{"".join(map(svg.dots, found))}</div>')


def associations(number: int) -> Section:
    lead = (
        "Which cluster was associated with which, at each epoch: right if the commonest person of both is the same. A card "
        "says on how many images that person is, and how many of the first one's images were given the second as their label. "
        "Choose an epoch by its bar; a column of the strip is a person."
    )
    return Section("associations", "Associations", lead, waiting("associations", number))


def browser(number: int, seeds: Sequence[int]) -> Section:
    which = f"seed{'s' if len(seeds) > 1 else ''} {', '.join(map(str, seeds))}"
    lead = (
        f"The same query, one row per method, nearest image first, last epoch, {which}. Solid frame and tick: the right person; "
        "dashed frame and cross: another one. Images that the protocol ignores are left out."
    )
    return Section("retrieval", "Retrieval", lead, waiting("retrieval", number))


def waiting(name: str, number: int) -> str:
    return f'<div class="{name}" data-chapter="{number}"><noscript><p>This part needs JavaScript.</p></noscript></div>'


def sources(chapter: Chapter) -> Section:
    """Where every row comes from: run folder, seed, digest, versions, recipe."""
    rows = "".join(source(run.outcome) for run in chapter.runs)
    heads = ("method", "seed", "recipe's digest", "date", "made with", "flags", "run folder")
    head = "".join(f'<th scope="col">{text}</th>' for text in heads)
    table = (
        f'<div class="scroll"><table class="sources"><thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table></div>'
    )
    recipes = "".join(recipe_of(method.example.outcome) for method in chapter.methods)
    return Section(
        "sources", "Where the figures come from", "Each row can be made again from its run folder.", table + recipes
    )


def source(outcome: Outcome) -> str:
    data = outcome.data
    made = ", ".join(f"{name} {data['environment'][name]}" for name in MADE_WITH if name in data["environment"])
    flags = "; ".join(data["flags"]) or "–"
    cells = outcome.seed, data.get("digest", "–"), outcome.date, made, flags, outcome.origin
    row = "".join(f"<td>{escape(str(cell))}</td>" for cell in cells)
    return f'<tr><th scope="row">{escape(outcome.row)}</th>{row}</tr>'


def recipe_of(outcome: Outcome) -> str:
    path = outcome.origin / "recipe.yaml"
    if not path.is_file():
        return ""
    summary = f"{escape(outcome.row)}: recipe of seed {outcome.seed}"
    return f"<details><summary>{summary}</summary><pre>{escape(path.read_text(encoding='utf-8', errors='replace'))}</pre></details>"


def contents(sections: Iterable[Section], number: int) -> str:
    return "".join(f'<li><a href="#{section.name}-{number}">{escape(section.title)}</a></li>' for section in sections)
