"""``reidassoc report``: one page that shows what runs did and how they compare."""

from __future__ import annotations

import click

from reidassoc.cli.options import load_plugins, pictures_option, plugin_option


@click.command(short_help="Show runs on one page, with curves and pictures.")
@click.argument("runs", nargs=-1, required=True)
@click.option(
    "--out", type=click.Path(dir_okay=False), default="report.html", show_default=True, help="The page: one HTML file."
)
@click.option("--figures", metavar="DIR", type=click.Path(file_okay=False), help="Write the figures as PDF there, too.")
@click.option("--protocol", metavar="NAME", help="Shown first.  [default: the benchmark's, or the first]")
@click.option("--allow", is_flag=True, help="Show what can't be compared, with footnotes, instead of refusing.")
@click.option("--no-published", is_flag=True, help="Leave published figures out.")
@pictures_option
@plugin_option
@click.option(
    "--device",
    metavar="NAME",
    default="auto",
    show_default=True,
    help="Where runs that kept no pictures are evaluated again.",
)
def report(
    runs: tuple[str, ...],
    out: str,
    figures: str | None,
    protocol: str | None,
    allow: bool,
    no_published: bool,
    no_pictures: bool,
    plugins: tuple[str, ...],
    device: str,
) -> None:
    """Show RUNS on one page: run folders, folders of benchmarks, exported cells; NAME=PATH gives a row its name.

    Tables, curves, cost, a map of the features, associations epoch by epoch, and what each query found. The page needs no network
    and no other file.

    \b
    Examples:
      reidassoc report runs/mult-synthetic-1 runs/mult-synthetic-nearest-1
      reidassoc report runs/synthetic --out synthetic.html --figures figures
      reidassoc report weak=runs/mult-synthetic-2 strong=runs/mult-synthetic-3
    """
    from pathlib import Path

    from reidassoc.files.paths import refuse_no_results

    load_plugins(plugins)
    for run in runs:
        if not Path(run).exists():
            refuse_no_results(Path(run.partition("=")[2] or run))

    from reidassoc.report.page_writer import write_report  # now that the paths are right: torch

    path = write_report(
        runs, out, figures=figures, protocol=protocol, allow=allow, published=not no_published, pictures=not no_pictures,
        device=device,
    )  # fmt: skip
    click.echo(f"report in {path} ({path.stat().st_size / 2**20:.1f} MiB)")
    if figures:
        click.echo(f"figures in {figures} ({len(list(Path(figures).rglob('*.pdf')))} PDF files)")
