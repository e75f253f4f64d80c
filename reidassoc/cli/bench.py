"""``reidassoc bench``: run a grid of methods, datasets and seeds, and print their comparison."""

from __future__ import annotations

from pathlib import Path

import click


@click.command()
@click.argument("spec", type=click.Path(path_type=Path))
@click.option("--out", type=click.Path(path_type=Path), help="The results folder.  [default: runs/NAME of the spec]")
@click.option("--data", "roots", multiple=True, metavar="[DATASET=]ROOT", help="Folder of a dataset kept on disk.")
@click.option("--jobs", default=1, show_default=True, type=click.IntRange(min=1), help="Worker processes.")
@click.option("--seed", "seeds", multiple=True, type=click.IntRange(min=0), help="Run these seeds, not the spec's.")
@click.option("--device", default="auto", show_default=True, help="auto, cpu, cuda or cuda:N.")
@click.option("--retry-failed", is_flag=True, help="Run cells again that failed, from their last whole epoch.")
@click.option("--dry-run", is_flag=True, help="List the cells and what has become of them; run nothing.")
@click.option(
    "--export", "exported", type=click.Path(path_type=Path), help="Write each result as a small JSON file here."
)
def bench(
    spec: Path,
    out: Path | None,
    roots: tuple[str, ...],
    jobs: int,
    seeds: tuple[int, ...],
    device: str,
    retry_failed: bool,
    dry_run: bool,
    exported: Path | None,
) -> None:
    """Run the grid of SPEC.yaml and print the comparison; finished cells are never run again.

    Killed at any point, the same command goes on where it was. Several may work on one folder at a time.

    \b
    Examples:
      reidassoc bench benchmarks/specs/synthetic.yaml --dry-run
      reidassoc bench benchmarks/specs/sysu_mm01.yaml --data /data/SYSU-MM01 --jobs 4
    """
    from rich.console import Console

    from reidassoc.bench.formats import print_table
    from reidassoc.bench.results import export
    from reidassoc.bench.runner import open_benchmark
    from reidassoc.errors import ReidassocError

    named = {name: root for name, _, root in (text.rpartition("=") for text in roots)}
    runner = open_benchmark(spec, out=out, roots=named, seeds=seeds, jobs=jobs, device=device)
    if dry_run:
        for line in runner.listed():
            click.echo(line)
        return
    try:
        runner.run_watched(retry_failed=retry_failed)
    except KeyboardInterrupt:
        again = f"reidassoc bench {spec}" + (f" --out {out}" if out else "")
        raise click.exceptions.Abort(f"Stopped. Whole epochs are saved; go on with: {again}") from None
    tables, results = runner.tables()
    for table in tables:
        print_table(Console(highlight=False), table)
    click.echo(f"\nResults folder: {runner.store.path}")
    if exported:
        click.echo(f"{len(export(results, exported))} results in {exported}")
    if failed := [cell for cell in runner.plan.runs if runner.store.failure(cell)]:
        total = len(runner.plan.runs)
        raise ReidassocError(
            f"{len(failed)} of {total} cells failed, as said below the table; repeat with --retry-failed"
        )
