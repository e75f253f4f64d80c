"""``reidassoc bench``: run a grid of methods, datasets and seeds, and print their comparison; or the speed suite."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path
from typing import Any

import click

from reidassoc.cli.options import device_option, pictures_option, seeds_option


@click.command("perf", add_help_option=False, context_settings={"ignore_unknown_options": True})
@click.argument("arguments", nargs=-1, type=click.UNPROCESSED)
def perf(arguments: tuple[str, ...]) -> None:
    """Run the repository's speed suite; what follows is passed on to it, ``--help`` too."""
    from reidassoc.bench.perf import run_suite

    if code := run_suite(arguments):
        raise click.exceptions.Exit(code)


class GridOrPerf(click.Command):
    """``bench SPEC`` with its options, or ``bench perf`` with others."""

    def make_context(
        self, info_name: str | None, args: list[str], parent: click.Context | None = None, **extra: Any
    ) -> click.Context:
        if args[:1] == ["perf"]:
            return perf.make_context(f"{info_name} perf", args[1:], parent, **extra)
        return super().make_context(info_name, args, parent, **extra)


@click.command(cls=GridOrPerf, short_help="Run a grid of methods and seeds; print its tables.")
@click.argument("spec", type=click.Path(path_type=Path))
@click.option(
    "--out",
    metavar="DIR",
    type=click.Path(path_type=Path),
    help="The results folder.  [default: runs/NAME of the spec]",
)
@click.option(
    "--data",
    "roots",
    multiple=True,
    metavar="[DATASET=]ROOT",
    help="Folder of a dataset that is kept on disk; may be repeated.",
)
@click.option(
    "--jobs",
    metavar="N",
    type=click.IntRange(min=1),
    help="Worker processes, or jobs at a time.  [default: 1; slurm: no limit]",
)
@seeds_option("In the place of the spec's seeds")
@device_option
@click.option("--retry-failed", is_flag=True, help="Run cells again that failed, from their last whole epoch.")
@pictures_option
@click.option("--dry-run", is_flag=True, help="List the cells and what has become of them; run nothing.")
@click.option(
    "--executor",
    default="local",
    show_default=True,
    type=click.Choice(["local", "slurm"]),
    help="Where the work is done: processes here, or jobs of a Slurm cluster (extra 'slurm').",
)
@click.option("--slurm-partition", metavar="NAME", help="Of the jobs.  [default: the cluster's]")
@click.option(
    "--slurm-time", metavar="LIMIT", help="Of one job, which is then requeued and goes on.  [default: 24:00:00]"
)
@click.option(
    "--slurm-gpus", metavar="N", type=click.IntRange(min=0), help="Of each job.  [default: 1; with --device cpu: 0]"
)
@click.option("--slurm-cpus", metavar="N", type=click.IntRange(min=1), help="Of each job.  [default: 4]")
@click.option(
    "--slurm-option",
    multiple=True,
    metavar="KEY[=VALUE]",
    help="Any other of sbatch, such as account=vision or exclusive; may be repeated.",
)
@click.option(
    "--export",
    "exported",
    metavar="DIR",
    type=click.Path(path_type=Path),
    help="Write each result as a small JSON file here.",
)
def bench(
    spec: Path,
    out: Path | None,
    roots: tuple[str, ...],
    jobs: int | None,
    seeds: tuple[int, ...],
    device: str,
    retry_failed: bool,
    no_pictures: bool,
    dry_run: bool,
    executor: str,
    slurm_partition: str | None,
    slurm_time: str | None,
    slurm_gpus: int | None,
    slurm_cpus: int | None,
    slurm_option: tuple[str, ...],
    exported: Path | None,
) -> None:
    """Run the grid of SPEC.yaml and print the comparison; finished cells are never run again.

    Killed at any point, the same command goes on where it was. Several may work on one folder at a time. A spec may name files
    with plug-ins; their code is run.

    In a checkout, "bench perf" runs the speed suite instead: every stage beside a plain version, its floor and its bar; "bench
    perf scale" the growth of the label stage ("bench perf --help" has the options).

    \b
    Examples:
      reidassoc bench benchmarks/specs/synthetic.yaml --dry-run
      reidassoc bench benchmarks/specs/sysu_mm01.yaml --data /data/SYSU-MM01 --jobs 4
      reidassoc bench benchmarks/specs/sysu_mm01.yaml --data /data/SYSU-MM01 --executor slurm --slurm-partition gpu
      reidassoc bench perf --size sysu
    """
    from rich.console import Console

    from reidassoc.bench.plan import named_roots, read_plan
    from reidassoc.files.paths import refuse_no_grid

    refuse_no_grid(spec)
    read_plan(spec, roots=named_roots(roots), seeds=seeds, composed=False)

    from reidassoc.bench.runner import open_benchmark
    from reidassoc.bench.slurm import on_slurm
    from reidassoc.errors import ReidassocError
    from reidassoc.tables.formats import print_table  # now that the path is right: torch
    from reidassoc.tables.read import export

    runner = open_benchmark(
        spec, out=out, roots=named_roots(roots), seeds=seeds, jobs=jobs or 1, device=device, pictures=not no_pictures
    )
    named = {"partition": slurm_partition, "time": slurm_time, "gpus-per-node": slurm_gpus, "cpus-per-task": slurm_cpus}
    options = {name: value for name, _, value in (text.removeprefix("--").partition("=") for text in slurm_option)}
    options |= {name: str(value) for name, value in named.items() if value is not None}
    if executor == "slurm":
        runner = on_slurm(runner, options, jobs=jobs)
    elif options:
        raise ReidassocError("options --slurm-… go with --executor slurm")
    if dry_run:
        for line in runner.listed():
            click.echo(line)
        return
    click.echo(f"A line an epoch, as runs go on: {runner.store.path}/cells/*/metrics.jsonl", err=True)
    try:
        runner.run_watched(retry_failed=retry_failed)
    except KeyboardInterrupt:
        again = shlex.join(["reidassoc", *sys.argv[1:]])
        raise click.exceptions.Abort(f"{runner.stopped()}: {again}") from None
    tables, results = runner.tables()
    for table in tables:
        print_table(Console(highlight=False), table)
    click.echo(f"\nResults folder: {runner.store.path}")
    if outdated := runner.outdated():
        click.echo(outdated, err=True)
    if exported:
        click.echo(f"{len(export(results, exported))} results in {exported}")
    if failed := [cell for cell in runner.plan.runs if runner.store.failure(cell)]:
        total = len(runner.plan.runs)
        raise ReidassocError(
            f"{len(failed)} of {total} cells failed, as said below the table; repeat with --retry-failed"
        )
