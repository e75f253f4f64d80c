"""``reidassoc associate``: labels for anybody's features in one call."""

from __future__ import annotations

from pathlib import Path

import click

from reidassoc.cli.options import device_option, load_plugins, memory_option, plugin_option, seed_option


@click.command(short_help="Label features of any model across modalities.")
@click.argument("features", type=click.Path())
@click.option(
    "--clusterer", metavar="SPEC", help="How features are clustered.  [default: what the file names, else dbscan]"
)
@click.option("--associator", default="mult", show_default=True, metavar="SPEC", help="How clusters are associated.")
@click.option("--out", required=True, metavar="FILE", type=click.Path(), help="Where the labels go (.npz).")
@plugin_option
@seed_option
@device_option
@memory_option
def associate(
    features: str,
    clusterer: str | None,
    associator: str,
    out: str,
    plugins: tuple[str, ...],
    seed: int,
    device: str,
    memory_limit: float | None,
) -> None:
    """Cluster and associate the features of a file (.safetensors, .npz), and write the labels.

    In: floats `visible` (N_v, D) and `infrared` (N_r, D); optional, with suffix `_visible`, `_infrared`: int64 `camera`,
    `tracklet`, `identity` (for scoring only), floats `parts` (N, P, D).

    Out: int64 `own_visible`, `cross_visible`, `own_infrared`, `cross_infrared`; −1 = none.

    \b
    Example:
      reidassoc associate features.npz --clusterer 'dbscan(eps=0.6)' --associator mult --out labels.npz
    """
    import reidassoc.registry as registry
    from reidassoc.files.paths import check_folder, refuse_no_features

    check_folder(Path(out))
    load_plugins(plugins)
    for kind, spec in (("clusterers", clusterer), ("associators", associator)):
        if spec:
            registry.check(kind, spec)
    refuse_no_features(Path(features))

    from reidassoc.cli.output import associated_table
    from reidassoc.engine.associate import associate as label
    from reidassoc.files.features import read_features, write_labels
    from reidassoc.ops.memory_limit import memory_limit as limited
    from reidassoc.recipe.inherited_options import grouping  # now that names, options and paths are right: torch

    loaded = read_features(features)
    (clusterer,) = grouping([clusterer] if clusterer else [], loaded.notes.get("clusterer", ""))
    with limited(memory_limit):
        found = label(
            associator, *loaded.features, clusterer=clusterer, identity=loaded.identity, seed=seed, device=device
        )
    write_labels(out, found.own, found.cross)
    associated_table(found, out, f"{associator} on {clusterer}", features)
