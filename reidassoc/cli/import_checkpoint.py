"""``reidassoc import-checkpoint``: a released checkpoint as a run folder."""

from __future__ import annotations

import shlex

import click


@click.command("import-checkpoint", short_help="Make a run folder from the authors' checkpoint.")
@click.argument("file", type=click.Path())
@click.option("--format", "form", required=True, metavar="NAME", help="Whose: mult, salcr or agw (ADCA, PGM, MMM).")
@click.option("--dataset", default="sysu_mm01", show_default=True, metavar="SPEC", help="What it was trained on.")
@click.option("--data", "root", metavar="ROOT", help="Folder of that dataset.")
@click.option("--out", metavar="DIR", type=click.Path(), help="The run folder.  [default: runs/imported-FILE]")
def import_checkpoint(file: str, form: str, dataset: str, root: str | None, out: str | None) -> None:
    """Make a run folder from the authors' released checkpoint FILE; nothing in it is executed.

    \b
    Examples:
      reidassoc import-checkpoint sysu_all.pth --format mult --data /data/SYSU-MM01 --out runs/released
      reidassoc evaluate runs/released
    """
    from reidassoc.files.paths import refuse_no_weights

    refuse_no_weights(file)

    from reidassoc.engine.import_checkpoint import import_checkpoint as make  # now that the path is right: torch

    folder = make(file, form=form, dataset=dataset, root=root, out=out)
    click.echo(f"{folder.path}; next: reidassoc evaluate {shlex.quote(str(folder.path))}")
