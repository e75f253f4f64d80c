"""``reidassoc evaluate``: every protocol from a run's newest checkpoint."""

from __future__ import annotations

import click

from reidassoc.cli.options import device_option, load_plugins, plugin_option, root_option, to_stderr


@click.command(short_help="Evaluate a run under every protocol of its dataset.")
@click.argument("run", type=click.Path())
@click.option("--dataset", metavar="SPEC", help="Test on another dataset than the run's own.")
@root_option
@plugin_option
@device_option
@click.option(
    "--transductive",
    multiple=True,
    metavar="STEP",
    help="Report a test-time step in a column of its own: cmfp, 'cmfp(k=8)', k_reciprocal; may be repeated.",
)
@click.option("--json", "as_json", is_flag=True, help="Print JSON instead of a table.")
def evaluate(
    run: str,
    dataset: str | None,
    root: str | None,
    plugins: tuple[str, ...],
    device: str,
    transductive: tuple[str, ...],
    as_json: bool,
) -> None:
    """Evaluate RUN's newest checkpoint under every protocol of its dataset: mean ± std over the trials.

    \b
    Examples:
      reidassoc evaluate runs/mult-synthetic-1
      reidassoc evaluate runs/salcr-synthetic-1 --transductive 'cmfp(k=8)'
    """
    import json
    from pathlib import Path

    from reidassoc.files.paths import refuse_no_run

    load_plugins(plugins)
    if not transductive:  # whose names come first, and are known to a module that needs torch
        refuse_no_run(Path(run))

    from reidassoc.cli.output import protocol_table, transductive_table
    from reidassoc.engine.evaluate import evaluate as score

    found = score(run, dataset=dataset, root=root, device=device, transductive=transductive, progress=to_stderr)
    if as_json:
        click.echo(json.dumps(found, indent=2, ensure_ascii=False))
    else:
        protocol_table(found["protocols"], f"{run}, epoch {found['epoch']}, on {found['dataset']}", found["notes"])
        if found.get("transductive"):
            transductive_table(found["protocols"], found["transductive"])
