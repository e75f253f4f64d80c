"""``reidassoc table``: compare runs that have ended, beside what has been published."""

from __future__ import annotations

from pathlib import Path

import click

FORMATS = ("rich", "markdown", "latex", "csv", "html")


@click.command(short_help="Compare runs in a table.")
@click.argument("runs", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option(
    "--format", "kind", type=click.Choice(FORMATS), default="rich", show_default=True, help="How it is drawn."
)
@click.option("--protocol", metavar="NAME", help="Whose figures are shown.  [default: the benchmark's, or the first]")
@click.option("--columns", metavar="A,B,…", help="Which columns, e.g. seeds,rank1,mAP,each,precision,seconds.")
@click.option("--allow", is_flag=True, help="Print what forbids a comparison as footnotes, instead of refusing.")
@click.option("--no-published", is_flag=True, help="Leave published figures out.")
@click.option("--out", metavar="FILE", type=click.Path(path_type=Path), help="Write to this file instead of printing.")
@click.option(
    "--into",
    metavar="FILE",
    type=click.Path(path_type=Path),
    help="Write between the marker lines of this Markdown page.",
)
@click.option(
    "--marker", metavar="NAME", default="comparison", show_default=True, help="In the line <!-- table: NAME -->."
)
def table(
    runs: tuple[Path, ...],
    kind: str,
    protocol: str | None,
    columns: str | None,
    allow: bool,
    no_published: bool,
    out: Path | None,
    into: Path | None,
    marker: str,
) -> None:
    """Compare RUNS: run folders, folders of benchmarks, or cells exported as JSON. Best bold, second underlined.

    Runs that differ in protocol, galleries, data, batch-norm groups, test-time steps or backbone are refused.

    \b
    Examples:
      reidassoc table runs/mult-synthetic-1 runs/pgm-synthetic-1
      reidassoc table runs/sysu_mm01 --format latex --out table.tex
    """
    from reidassoc.files.paths import refuse_no_results

    for run in runs:
        refuse_no_results(run)

    from reidassoc.files.atomic import write_text
    from reidassoc.tables.formats import FORMATS, write_between  # now that the paths are right: torch
    from reidassoc.tables.read import read_results
    from reidassoc.tables.table import DEFAULT, compare_results, measured_on

    if into and (out or kind not in ("rich", "markdown")):
        raise click.UsageError("--into writes Markdown into a page; leave out --out and --format")
    results = read_results(runs)
    chosen = tuple(name.strip() for name in columns.split(",")) if columns else DEFAULT
    benchmark = len(runs) == 1 and (runs[0] / "plan.json").is_file()  # its datasets are meant to stand apart
    text = "\n".join(
        FORMATS[kind if not into else "markdown"](
            compare_results(part, protocol=protocol, columns=chosen, allow=allow, beside_published=not no_published)
        )
        for part in (results.by_dataset() if benchmark else [results])
    )
    if into:
        write_between(into, f"{measured_on(results)} {text}", marker)
        click.echo(f"table in {into}")
    elif out:
        write_text(out, text)
        click.echo(f"table in {out}")
    else:
        click.echo(text, nl=False)
