"""``reidassoc features``: one epoch's training features as a file."""

from __future__ import annotations

import click

from reidassoc.cli.options import device_option, load_plugins, plugin_option, root_option, to_stderr, weights_option


@click.command(short_help="Save one epoch's training features to a file.")
@click.argument("run", required=False, type=click.Path())
@click.option("--dataset", metavar="SPEC", help="Instead of RUN: features of an untrained network on this dataset.")
@click.option("--recipe", metavar="NAME|FILE", help="Whose network and image size.  [default: that of mult]")
@click.option("--network", metavar="SPEC", help="Another network than the recipe's.")
@root_option
@weights_option
@click.option("--seed", type=click.IntRange(min=0), metavar="N", help="Of the network's initial weights.  [default: 0]")
@click.option(
    "--epoch", type=click.IntRange(min=0), metavar="N", help="A checkpoint of RUN that is kept.  [default: the newest]"
)
@click.option("--out", required=True, metavar="FILE", type=click.Path(), help="Where they go (.safetensors, .npz).")
@plugin_option
@device_option
def features(
    run: str | None,
    dataset: str | None,
    recipe: str | None,
    network: str | None,
    root: str | None,
    weights: str | None,
    seed: int | None,
    epoch: int | None,
    out: str,
    plugins: tuple[str, ...],
    device: str,
) -> None:
    """Save the training features that an epoch of RUN starts from, or those of an untrained network.

    Arrays: `visible`, `infrared`, and with suffix `_visible`, `_infrared`: `camera`, `index`, `tracklet` (where known), `parts`
    (where the network has any), `identity` (where known; for scoring only).

    \b
    Examples:
      reidassoc features runs/mult-synthetic-1 --out end.safetensors
      reidassoc features --dataset synthetic --out untrained.safetensors
    """
    from pathlib import Path

    import reidassoc.registry as registry
    from reidassoc.errors import RecipeError
    from reidassoc.files.paths import check_ending, refuse_no_run
    from reidassoc.recipe.choose import choose

    load_plugins(plugins)
    named = {
        "dataset": dataset, "recipe": recipe, "network": network, "weights": weights, "seed": seed,
    }  # fmt: skip
    given = [name for name, value in named.items() if value is not None]
    if run is None and not (dataset or recipe):
        raise RecipeError("name a run folder, or --dataset SPEC for an untrained network")
    if run is not None and given:
        raise RecipeError(f"{run} has its own recipe; leave out: {', '.join(given)}")
    if run is None and epoch is not None:
        raise RecipeError("--epoch chooses among a run's checkpoints; name the run folder")
    check_ending(Path(out))
    source = run or choose(**named, root=root)  # type: ignore[arg-type]
    if isinstance(source, str):
        refuse_no_run(Path(source))
    else:
        registry.check("datasets", source.dataset)
        registry.check("networks", source.network)

    from reidassoc.engine.features import save_features  # now that names, options and paths are right: torch

    saved = save_features(source, out, epoch=epoch, root=root if run else None, device=device, progress=to_stderr)
    of = f"{len(saved.features.visible)} visible and {len(saved.features.infrared)} infrared features"
    known = "with" if saved.identity is not None else "without"
    click.echo(
        f"{of} that epoch {saved.notes['epoch']} starts from, {saved.features.visible.width} wide, {known} identities: {out}"
    )
