"""``reidassoc lab`` and ``reidassoc advise``: methods, and the clusterer's settings, on one epoch's features."""

from __future__ import annotations

import click
from click.core import ParameterSource

from reidassoc.cli.options import device_option, load_plugins, memory_option, plugin_option, seed_option


@click.command(short_help="Score methods on saved features, without training.")
@click.argument("features", type=click.Path())
@click.option(
    "--clusterer",
    "clusterers",
    multiple=True,
    metavar="SPECS",
    help="How features are clustered; comma-separated, may be repeated.  [default: the file's, or dbscan]",
)
@click.option(
    "--associator",
    "associators",
    multiple=True,
    metavar="SPECS",
    help="How clusters are associated, likewise.  [default: all that need no option]",
)
@click.option(
    "--refiner",
    "refiners",
    multiple=True,
    metavar="CHAINS",
    help="How labels are refined, likewise: a+b is a chain, none refines nothing.  [default: none]",
)
@click.option(
    "--sweep",
    "sweeps",
    multiple=True,
    metavar="KIND.OPTION=V,V",
    help="Values of an option, e.g. associator.alpha=0.1,0.2; may be repeated.",
)
@click.option("--oracle", is_flag=True, help="Let associators see true identities that need them; flagged.")
@click.option(
    "--format",
    "form",
    type=click.Choice(["rich", "markdown", "csv", "json"]),
    default="rich",
    show_default=True,
    help="csv and json hold every figure.",
)
@click.option("--out", metavar="FILE", type=click.Path(), help="Write there instead of to the screen.")
@plugin_option
@seed_option
@device_option
@memory_option
def lab(
    features: str,
    clusterers: tuple[str, ...],
    associators: tuple[str, ...],
    refiners: tuple[str, ...],
    sweeps: tuple[str, ...],
    oracle: bool,
    form: str,
    out: str | None,
    plugins: tuple[str, ...],
    seed: int,
    device: str,
    memory_limit: float | None,
) -> None:
    """Score every clusterer × associator × refiner on the features of a file (.safetensors, .npz), without training.

    Label quality needs `identity_*` arrays in the file.

    \b
    Examples:
      reidassoc lab end.safetensors
      reidassoc lab end.safetensors --associator mult,mmm,pgm --refiner none,propagate
      reidassoc lab end.safetensors --associator mult --sweep associator.alpha=0.1,0.2,0.4 --format csv --out alpha.csv
    """
    from pathlib import Path

    import reidassoc.registry as registry
    from reidassoc.files.paths import refuse_no_features
    from reidassoc.labs.combinations import NONE, Sweep, split
    from reidassoc.registry.spec import Spec

    load_plugins(plugins)
    spread = [Sweep.parse(text) for text in sweeps]
    chains = [spec for text in refiners for chain in split(text) for spec in split(chain, "+") if spec != NONE]
    for kind, texts in (("clusterers", clusterers), ("associators", associators), ("refiners", chains)):
        for spec in (Spec.parse(spec) for text in texts for spec in split(text)):
            registry.check(
                kind, spec, whole=False
            )  # what is missing may come from a sweep, or from the file's clusterer
            for swept in (swept for sweep in spread if sweep.kind == kind for swept in sweep.spread(spec)):
                registry.check(kind, swept, whole=False)
    refuse_no_features(Path(features))

    from reidassoc.cli.output import lab_table
    from reidassoc.errors import ReidassocError
    from reidassoc.files.atomic import write_text
    from reidassoc.labs.lab import lab as score  # now that names and paths are right: torch
    from reidassoc.labs.result import render
    from reidassoc.ops.memory_limit import memory_limit as limited

    with limited(memory_limit):
        found = score(
            features,
            clusterers=[spec for text in clusterers for spec in split(text)],
            associators=[spec for text in associators for spec in split(text)],
            refiners=[chain for text in refiners for chain in split(text)] or [NONE],
            sweeps=sweeps,
            oracle=oracle,
            seed=seed,
            device=device,
        )
    if form == "rich":
        lab_table(found, out)
    elif out:
        write_text(out, render(found, form))
    else:
        click.echo(render(found, form), nl=False)
    if out:
        click.echo(f"{len(found.rows)} combinations: {out}", err=True)
    failed = [row for row in found.rows if row.problem]
    if failed:
        first = failed[0]
        raise ReidassocError(
            f"{len(failed)} of {len(found.rows)} combinations failed; the first, {first.combination.associator} on "
            f"{first.combination.clusterer}: {first.problem}"
        )


@click.command(short_help="Advise eps and k1, or the length of stage 1.")
@click.argument("features", type=click.Path(), metavar="FEATURES|RUN")
@click.option("--k1", "k1", metavar="N,N", help="Neighbourhood sizes to try.  [default: 5 to 30, as the samples allow]")
@click.option("--min-samples", metavar="N", default=4, show_default=True, type=click.IntRange(min=1), help="Of DBSCAN.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON instead of tables.")
@device_option
def advise(features: str, k1: str | None, min_samples: int, as_json: bool, device: str) -> None:
    """Advise without looking at any identity: eps and k1 of dbscan for a file of features, the length of stage 1 for a run.

    For features, prints the stability curve: how much clusterings at neighbouring eps agree, clusters and outliers; and the
    range where they hardly change. For a run, how much the clusters of neighbouring epochs of its first stage agree, and the
    epoch from which they hardly change.

    \b
    Examples:
      reidassoc advise end.safetensors
      reidassoc advise runs/mult-sysu_mm01-1
    """
    import json
    from dataclasses import asdict
    from pathlib import Path

    from reidassoc.errors import SpecError
    from reidassoc.files.paths import refuse_no_features, refuse_no_run

    (refuse_no_run if Path(features).is_dir() else refuse_no_features)(Path(features))

    from reidassoc.cli.output import advice_table, settling_table
    from reidassoc.labs.advise import advise as look  # now that the path is right: torch
    from reidassoc.labs.advise_epochs import advise_epochs

    if Path(features).is_dir():
        given = click.get_current_context().get_parameter_source
        extra = [name for name in ("k1", "min_samples", "device") if given(name) is ParameterSource.COMMANDLINE]
        if extra:
            told = ", ".join("--" + name.replace("_", "-") for name in extra)
            raise SpecError(f"{features} is a run folder, whose own clusters are looked at; leave out: {told}")
        settling = advise_epochs(features)
        if as_json:
            click.echo(json.dumps({**asdict(settling), "change": settling.change}, indent=1, ensure_ascii=False))
        else:
            settling_table(settling, features)
        return
    try:
        sizes = tuple(int(text) for text in k1.split(",")) if k1 else ()
    except ValueError:
        raise SpecError(f"--k1 {k1}: expected whole numbers, as in --k1 8,15,30") from None
    found = look(features, k1=sizes, min_samples=min_samples, device=device)
    if as_json:
        click.echo(json.dumps(asdict(found), indent=1, ensure_ascii=False))
    else:
        advice_table(found, features)
