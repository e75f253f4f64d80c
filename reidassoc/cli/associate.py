"""``reidassoc associate``: labels for anybody's features in one call."""

from __future__ import annotations

import click


@click.command()
@click.argument("features", type=click.Path())
@click.option("--clusterer", default="dbscan", show_default=True, metavar="SPEC", help="How features are clustered.")
@click.option("--associator", default="mult", show_default=True, metavar="SPEC", help="How clusters are associated.")
@click.option("--out", required=True, type=click.Path(), help="Where the labels go (.npz).")
@click.option(
    "--plugin", "plugins", multiple=True, metavar="FILE", help="A Python file with plug-ins; its code is run."
)
@click.option(
    "--seed", default=0, show_default=True, type=click.IntRange(min=0), help="For methods that draw at random."
)
@click.option("--device", default="auto", show_default=True, help="auto, cpu, cuda or cuda:N.")
def associate(
    features: str, clusterer: str, associator: str, out: str, plugins: tuple[str, ...], seed: int, device: str
) -> None:
    """Cluster and associate the features of FEATURES.npz, and write the labels.

    In: float32 `visible` (N_v, D) and `infrared` (N_r, D); optional int64 `camera_visible`, `camera_infrared`,
    `identity_visible`, `identity_infrared` (identities are used for scoring only).
    Out: int64 `own_visible`, `cross_visible`, `own_infrared`, `cross_infrared`; −1 = none.

    \b
    Example:
      reidassoc associate features.npz --clusterer 'dbscan(eps=0.6)' --associator mult --out labels.npz
    """
    from reidassoc import registry
    from reidassoc.cli.tables import associated_table
    from reidassoc.data.arrays import read_features, write_labels
    from reidassoc.engine.associate import associate as label

    for file in plugins:
        registry.load_file(file)
    loaded = read_features(features)
    found = label(associator, *loaded.features, clusterer=clusterer, identity=loaded.identity, seed=seed, device=device)
    write_labels(out, found.own, found.cross)
    associated_table(found, out)
