"""``reidassoc reproduce``: run a published recipe and judge the result against the published figure."""

from __future__ import annotations

from pathlib import Path

import click

from reidassoc.cli.options import device_option, seeds_option, weights_option


@click.command(short_help="Run a recipe as published; compare the figures.")
@click.argument("recipe")
@click.option("--data", "root", metavar="ROOT", help="Folder of the dataset.")
@click.option(
    "--set", "changes", multiple=True, metavar="PATH=VALUE", help="A change, named as a deviation; may be repeated."
)
@weights_option
@seeds_option("Of a run, 0 if not given")
@click.option(
    "--as-gpus",
    type=click.IntRange(min=1),
    metavar="N",
    help="Batch-norm statistics as on N GPUs.  [default: the number that the published figures belong to]",
)
@device_option
@click.option(
    "--out",
    metavar="DIR",
    type=click.Path(path_type=Path),
    help="Folder of the runs.  [default: runs/reproduce-RECIPE]",
)
def reproduce(
    recipe: str,
    root: str | None,
    changes: tuple[str, ...],
    weights: str | None,
    seeds: tuple[int, ...],
    as_gpus: int | None,
    device: str,
    out: Path | None,
) -> None:
    """Run RECIPE as published, and print the published figure, ours, its interval, the verdict, and what deviates.

    Stopped at any point, the same command goes on where it was.

    \b
    Example:
      reidassoc reproduce mult/sysu_mm01 --data /data/SYSU-MM01
    """
    from rich.console import Console

    from reidassoc.cli.run import parsed_changes
    from reidassoc.recipe.choose import choose
    from reidassoc.recipe.code_version import check_parts
    from reidassoc.recipe.override import override

    what = choose(recipe=recipe, root=root, weights=weights, changes=parsed_changes(changes))
    what = override(what, [("as_gpus", as_gpus or what.batch_norm_gpus)])
    check_parts(what)

    from reidassoc.bench.reproduce import reproduce as attempt  # now that names, options and paths are right: torch
    from reidassoc.cli.output import reproduction_table
    from reidassoc.runs.terminal import Terminal

    place = out or Path("runs") / f"reproduce-{what.name.replace('/', '-')}"
    reproduction_table(
        Console(highlight=False), attempt(what, out=place, seeds=seeds or (0,), device=device, log=Terminal)
    )
    click.echo(f"Runs: {place}")
