"""Charts as PDF files for papers, drawn with matplotlib: text stays text, lines stay lines."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from reidassoc.errors import DataError
from reidassoc.report.charts import COLOURS, Bars, Chart, Curves, Dots

INK = ("#2563eb", "#ea580c", "#059669", "#c026d3", "#a16207", "#0891b2", "#dc2626", "#7c3aed", "#475569", "#65a30d")
DASHES = ("-", "--", ":")
INCHES = (3.4, 2.3)  # a column of a two-column paper
STYLE: Any = {
    "font.size": 8, "axes.spines.top": False, "axes.spines.right": False, "axes.linewidth": 0.6, "pdf.fonttype": 42,
    "legend.frameon": False, "lines.linewidth": 1.3, "text.parse_math": False,  # names are text
}  # fmt: skip


def write_figures(charts: Iterable[Chart], folder: Path) -> list[Path]:
    """Write each chart as ``NAME.pdf``; two runs of the same figures give the same bytes.

    Raises:
        DataError: the folder can't be written.
    """
    import matplotlib as mpl
    from matplotlib.backends.backend_pdf import FigureCanvasPdf
    from matplotlib.figure import Figure

    written = []
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with mpl.rc_context(STYLE):
            for chart in charts:
                figure = Figure(figsize=INCHES, layout="constrained")
                FigureCanvasPdf(figure)
                draw(chart, figure.add_subplot())
                figure.legend(loc="outside lower center", ncols=4, fontsize=6.5)
                path = folder / f"{chart.name}.pdf"
                figure.savefig(path, metadata={"CreationDate": None, "Title": chart.title})
                written.append(path)
    except OSError as error:
        raise DataError(f"can't write figures into {folder}: {error.strerror or error}") from None
    return written


def draw(chart: Chart, axes: Any) -> None:
    if isinstance(chart, Curves):
        draw_curves(chart, axes)
    elif isinstance(chart, Bars):
        draw_bars(chart, axes)
    else:
        draw_dots(chart, axes)


def draw_curves(chart: Curves, axes: Any) -> None:
    for line in chart.lines:
        colour, dash = INK[line.colour % COLOURS], DASHES[line.colour // COLOURS % len(DASHES)]
        axes.plot(line.x, line.y, dash, color=colour, label=line.name)
        if line.low:
            axes.fill_between(line.x, line.low, line.high, color=colour, alpha=0.15, linewidth=0)
    for mark in chart.marks:
        axes.axvline(mark, color="0.6", linewidth=0.6, linestyle=":")
    if chart.level:
        axes.axhline(chart.level[0], color="0.4", linewidth=0.6, linestyle="--", label=chart.level[1])
    axes.set(xlabel=chart.x_label, ylabel=chart.y_label, xlim=chart.x_range, ylim=chart.y_range)
    axes.set_title(chart.title, fontsize=8)


def draw_bars(chart: Bars, axes: Any) -> None:
    names = [name for name, _ in chart.rows]
    start = [0.0] * len(chart.rows)
    for number, part in enumerate(chart.parts):
        values = [held[number] for _, held in chart.rows]
        axes.barh(names, values, left=start, color=INK[number % COLOURS], label=part, height=0.6)
        start = [a + b for a, b in zip(start, values, strict=True)]
    axes.invert_yaxis()
    axes.set(xlabel=chart.x_label)
    axes.set_title(chart.title, fontsize=8)


def draw_dots(chart: Dots, axes: Any) -> None:
    from matplotlib import colormaps

    colours = colormaps["tab20"].colors  # type: ignore[attr-defined]
    for infrared, shape in ((False, "o"), (True, "^")):
        held = [point for point in chart.points if point[3] == infrared]
        axes.scatter(
            [p[0] for p in held], [p[1] for p in held], s=9, marker=shape, linewidths=0,
            c=[colours[p[2] % len(colours)] for p in held], label="infrared" if infrared else "visible",
        )  # fmt: skip
    axes.set(xticks=[], yticks=[], aspect="equal")
    axes.set_title(chart.title, fontsize=8)
