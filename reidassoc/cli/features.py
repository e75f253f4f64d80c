"""``reidassoc features``: one epoch's training features as a file."""

from __future__ import annotations

import click


@click.command()
@click.argument("run", required=False, type=click.Path())
@click.option("--dataset", metavar="SPEC", help="Instead of RUN: features of an untrained network on this dataset.")
@click.option("--recipe", metavar="NAME|FILE", help="Whose network and image size.  [default: that of mult]")
@click.option("--network", metavar="SPEC", help="Another network than the recipe's.")
@click.option("--data", "root", metavar="ROOT", help="Folder of a dataset that is kept on disk.")
@click.option("--weights", metavar="NAME|FILE", help="Initial weights of the network: imagenet, none, or a file.")
@click.option("--seed", type=click.IntRange(min=0), help="Of the network's initial weights.  [default: 0]")
@click.option("--epoch", type=click.IntRange(min=0), help="A checkpoint of RUN that is kept.  [default: the newest]")
@click.option("--out", required=True, type=click.Path(), help="Where they go (.safetensors, .npz).")
@click.option(
    "--plugin", "plugins", multiple=True, metavar="FILE", help="A Python file with plug-ins; its code is run."
)
@click.option("--device", default="auto", show_default=True, help="auto, cpu, cuda or cuda:N.")
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

    Arrays: `visible`, `infrared`, and with suffix `_visible`, `_infrared`: `camera`, `index`, `parts` (where the network has
    any), `identity` (where known; for scoring only).

    \b
    Examples:
      reidassoc features runs/mult-synthetic-1 --out end.safetensors
      reidassoc features --dataset synthetic --out untrained.safetensors
    """
    from reidassoc import registry
    from reidassoc.engine.features import save_features
    from reidassoc.errors import RecipeError
    from reidassoc.overrides import choose

    for file in plugins:
        registry.load_file(file)
    named = {
        "dataset": dataset, "recipe": recipe, "network": network, "root": root, "weights": weights, "seed": seed,
    }  # fmt: skip
    given = [name for name, value in named.items() if value is not None]
    if run is None and not (dataset or recipe):
        raise RecipeError("name a run folder, or --dataset SPEC for an untrained network")
    if run is not None and given:
        raise RecipeError(f"{run} has its own recipe; leave out: {', '.join(given)}")
    if run is None and epoch is not None:
        raise RecipeError("--epoch chooses among a run's checkpoints; name the run folder")
    saved = save_features(run or choose(**named), out, epoch=epoch, device=device)  # type: ignore[arg-type]
    of = f"{len(saved.features.visible)} visible and {len(saved.features.infrared)} infrared features"
    known = "with" if saved.identity is not None else "without"
    click.echo(f"{of} of epoch {saved.notes['epoch']}, {saved.features.visible.width} wide, {known} identities: {out}")
