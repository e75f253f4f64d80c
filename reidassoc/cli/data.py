"""``reidassoc data``: make the synthetic pedestrians as files, and look a downloaded dataset over."""

from __future__ import annotations

import shlex
from pathlib import Path

import click

from reidassoc.cli.options import to_stderr

LAYOUTS = ("sysu_mm01", "regdb", "llcm", "manifest")
SIZES = ("tiny", "default", "sysu")


@click.group()
def data() -> None:
    """Make and check datasets.

    \b
    Examples:
      reidassoc data synth pedestrians --layout sysu_mm01
      reidassoc data check pedestrians
    """


@data.command(short_help="Write synthetic pedestrians as a dataset's files.")
@click.argument("out", type=click.Path(path_type=Path))
@click.option(
    "--layout", type=click.Choice(LAYOUTS), default="sysu_mm01", show_default=True, help="Whose tree to make."
)
@click.option(
    "--size", type=click.Choice(SIZES), default="default", show_default=True, help="How many people and images."
)
@click.option("--jpeg", is_flag=True, help="Write lossy JPEG instead of PNG.")
@click.option("--seed", type=int, metavar="N", default=0, show_default=True, help="Everything random follows from it.")
def synth(out: Path, layout: str, size: str, jpeg: bool, seed: int) -> None:
    """Write synthetic visible-infrared pedestrians as files in OUT.

    \b
    Example:
      reidassoc data synth pedestrians --layout regdb --size tiny
    """
    # Imported late, here and below: help must not import torch.
    import reidassoc.registry as registry
    from reidassoc.data.export import export
    from reidassoc.registry.spec import Spec

    dataset = registry.build("datasets", Spec("synthetic", {"size": size, "seed": seed}))
    count = export(dataset, out, layout=layout, jpeg=jpeg)
    click.echo(f"{count} images in {out}; next: reidassoc data check {shlex.quote(str(out))}")


@data.command(short_help="Check a dataset: its layout, counts, every image.")
@click.argument("root", type=click.Path(path_type=Path))
@click.option("--dataset", metavar="SPEC", help="Its name and options; recognised by its files if not given.")
def check(root: Path, dataset: str | None) -> None:
    """Find the layout of ROOT, count its images per camera, and decode every one.

    Ends with exit code 2 if an image is missing or corrupt, or if the lists for training or evaluation can't be read.

    \b
    Examples:
      reidassoc data check /data/SYSU-MM01
      reidassoc data check /data/RegDB --dataset 'regdb(split=2)'
    """
    import reidassoc.registry as registry
    from reidassoc.files.paths import refuse_no_dataset

    outlined = registry.entries("datasets", outlined=True)
    refuse_no_dataset(root, [entry.name for entry in outlined if hasattr(entry.cls, "recognises")])

    from reidassoc.data import check as checking  # now that the path is right: torch
    from reidassoc.data.progress import Progress
    from reidassoc.errors import DataError
    from reidassoc.registry.spec import Spec

    known = {entry.name: entry.cls for entry in registry.entries("datasets") if hasattr(entry.cls, "recognises")}
    candidates = {name: cls for name, cls in known.items() if cls is not None}
    spec = Spec.parse(dataset) if dataset else Spec(checking.layout_of(root, candidates), {})
    report = checking.check(
        registry.build("datasets", spec.with_options(root=str(root))),
        layout=spec.name,
        progress=Progress("reading images", to_stderr),
    )
    to_stderr(f"{report.images} of {report.images} images")
    for line in report.lines():
        click.echo(line)
    faults = [f"{len(report.bad)} of {report.images} images can't be read; they are listed above"] if report.bad else []
    if report.unusable:
        faults.append(f"the lists for {' and '.join(report.unusable)} can't be used, see the notes above")
    if faults:
        raise DataError(f"{root}: {'; '.join(faults)}")
