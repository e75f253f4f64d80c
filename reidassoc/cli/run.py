"""``reidassoc run``: train by a recipe, with parts exchanged."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path

import click

from reidassoc.cli.options import (
    device_option,
    load_plugins,
    pictures_option,
    plugin_option,
    root_option,
    weights_option,
)

TRACKERS = ("tensorboard", "wandb", "mlflow")


def refuse_stray(context: click.Context, parameter: click.Parameter, words: tuple[str, ...]) -> None:
    """``run mult`` is what many type first: say which option is meant."""
    if words:
        context.fail(
            f"nothing is expected here, got '{words[0]}'; parts are named by options, as in --associator {words[0]}"
        )


@click.command(short_help="Train and evaluate; print a table.")
@click.option(
    "--associator",
    metavar="SPEC",
    help="How clusters are associated, by default in its method's recipe.  [default: mult]",
)
@click.option(
    "--clusterer",
    metavar="SPEC",
    help="How images are clustered, e.g. 'dbscan(eps=0.5)': what isn't named stays the recipe's.",
)
@click.option(
    "--refiner",
    "refiners",
    multiple=True,
    metavar="SPEC",
    help="How labels are refined, in the place of the recipe's refiners; may be repeated, in order.",
)
@click.option("--objective", "objectives", multiple=True, metavar="SPEC", help="What is optimised, likewise.")
@click.option("--network", metavar="SPEC", help="The network, e.g. 'two_stream(depth=18)', likewise.")
@click.option(
    "--dataset",
    metavar="SPEC",
    help="The dataset, e.g. 'synthetic(size=\"tiny\")'. One of your own has the settings of sysu_mm01 (ResNet-50, ImageNet "
    "weights) unless --recipe says otherwise, e.g. mult/synthetic.  [default: synthetic]",
)
@root_option
@click.option(
    "--recipe",
    metavar="NAME|FILE",
    help="A shipped recipe, as mult/sysu_mm01, or a YAML file; parts named replace its own.",
)
@click.option(
    "--set",
    "changes",
    multiple=True,
    metavar="PATH=VALUE",
    help="One change, e.g. associator.alpha=0.3; may be repeated.",
)
@weights_option
@plugin_option
@click.option(
    "--oracle", is_flag=True, help="Let clusterer and associator see true identities; flagged in every result."
)
@click.option(
    "--seed", type=click.IntRange(min=0), metavar="N", help="Everything random follows from it.  [default: 0]"
)
@click.option("--on-nan", type=click.Choice(["stop", "skip"]), help="When a loss is not finite.  [default: stop]")
@click.option(
    "--as-gpus",
    type=click.IntRange(min=1),
    metavar="N",
    help="Batch-norm statistics as DataParallel on N GPUs has them; recorded in the result.  [default: 1]",
)
@device_option
@click.option(
    "--devices",
    type=click.IntRange(min=1),
    default=1,
    metavar="N",
    help="Train on N devices of this machine together, a process each.  [default: 1]",
)
@click.option(
    "--tracker",
    "trackers",
    multiple=True,
    type=click.Choice(TRACKERS),
    help="Send figures there, too; may be repeated.",
)
@click.option("--no-report", is_flag=True, help="Don't write report.html into the run folder as the run ends.")
@pictures_option
@click.option(
    "--out", metavar="DIR", type=click.Path(), help="The run folder.  [default: runs/METHOD-DATASET[-PLUGIN]-NUMBER]"
)
@click.option(
    "--keep", type=click.IntRange(min=1), default=2, metavar="N", help="Checkpoints to keep, the newest.  [default: 2]"
)
@click.option("--resume", metavar="DIR", type=click.Path(), help="Go on with an interrupted run.")
@click.argument("stray", nargs=-1, metavar="", expose_value=False, callback=refuse_stray)
def run(
    associator: str | None,
    clusterer: str | None,
    refiners: tuple[str, ...],
    objectives: tuple[str, ...],
    network: str | None,
    dataset: str | None,
    root: str | None,
    recipe: str | None,
    changes: tuple[str, ...],
    weights: str | None,
    plugins: tuple[str, ...],
    oracle: bool,
    seed: int | None,
    on_nan: str | None,
    as_gpus: int | None,
    device: str,
    devices: int,
    trackers: tuple[str, ...],
    no_report: bool,
    no_pictures: bool,
    out: str | None,
    keep: int,
    resume: str | None,
) -> None:
    """Train: cluster, associate, refine and learn, epoch by epoch; evaluate; print a table.

    Without --recipe, an associator runs in its method's recipe for the dataset (pgm in pgm/DATASET, cma in adca/DATASET), or in
    mult/DATASET if it has none. To compare associations alone, name the recipe: --recipe mult/synthetic --associator pgm.

    A clusterer, network, dataset or associator of the recipe's own name keeps the recipe's options that aren't named; another
    clusterer keeps the recipe's k1 and k2.

    \b
    Examples:
      reidassoc run --associator mult
      reidassoc run --recipe mult/synthetic --associator pgm
      reidassoc run --associator 'mult(alpha=0.3)' --dataset sysu_mm01 --data /data/SYSU-MM01
      reidassoc run --resume runs/mult-synthetic-1
      reidassoc run --associator mult --dataset sysu_mm01 --data /data/SYSU-MM01 --devices 4
    """
    from reidassoc.engine.devices import processes

    if devices > 1 and not processes.several_here():
        try:
            sys.exit(processes.start(sys.argv[1:], devices))
        except KeyboardInterrupt as stopped:
            raise click.exceptions.Abort(str(stopped)) from None
    if processes.watched():
        processes.end_with_parent()
    from reidassoc.errors import RecipeError
    from reidassoc.files.paths import refuse_no_run, refuse_no_weights
    from reidassoc.recipe.choose import choose
    from reidassoc.recipe.code_version import check_parts

    load_plugins(plugins)
    chosen = {
        "associator": associator, "clusterer": clusterer, "refiners": refiners, "objectives": objectives, "network": network,
        "dataset": dataset, "root": root, "recipe": recipe, "weights": weights, "seed": seed, "oracle": oracle,
        "on_nan": on_nan, "as_gpus": as_gpus,
    }  # fmt: skip
    if resume:
        asked = {**chosen, "root": None, "set": changes, "out": out}.items()
        given = [name for name, value in asked if value not in (None, ()) and value is not False]  # a seed of 0, too
        if given:
            raise RecipeError(f"--resume goes on with the folder's own recipe; leave out: {', '.join(given)}")
        refuse_no_run(Path(resume))
    else:
        what = choose(**chosen, changes=parsed_changes(changes))  # type: ignore[arg-type]
        check_parts(what)
        if weights:
            refuse_no_weights(weights)

    from reidassoc.cli.output import result_table  # now that names, options and paths are right: torch
    from reidassoc.engine.train import run as train
    from reidassoc.report.run_page import PAGE, OwnPage
    from reidassoc.runs.folder import RunFolder
    from reidassoc.runs.observer import Everyone
    from reidassoc.runs.terminal import Terminal
    from reidassoc.runs.trackers import tracker

    if resume:
        what = RunFolder.open(Path(resume)).located_recipe(root)
    log = Terminal()
    page = OwnPage()
    everyone = Everyone([log, *(tracker(name, log.once) for name in trackers), *([] if no_report else [page])])
    try:
        result = train(
            what, out=resume or out, device=device, devices=devices, resume=bool(resume), keep=keep,
            pictures=not no_pictures, log=everyone,
        )  # fmt: skip
    except KeyboardInterrupt:
        log.close()
        if log.folder is None or processes.watched():  # who watches says it
            raise
        words = ["reidassoc", "run", "--resume", str(log.folder)]
        again = shlex.join([*words, *(word for file in plugins for word in ("--plugin", file))])
        message = f"Stopped. The last whole epoch is saved; go on with: {again}"
        raise click.exceptions.Abort(message) from None
    finally:
        everyone.close()
    if devices == 1 or processes.first():
        result_table(result)
        if not no_report:
            click.echo(page.problem or f"Page: {result.folder / PAGE}", err=True)


def parsed_changes(changes: tuple[str, ...]) -> list[tuple[str, object]]:
    """``--set PATH=VALUE`` as pairs; RecipeError if one has no equals sign."""
    from reidassoc.errors import RecipeError
    from reidassoc.registry.spec import parse_value

    pairs = []
    for change in changes:
        path, equals, value = change.partition("=")
        if not equals:
            raise RecipeError(f"--set {change}: expected PATH=VALUE, as in --set associator.alpha=0.3")
        pairs.append((path.strip(), parse_value(value)))
    return pairs
