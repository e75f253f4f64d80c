"""``reidassoc new`` and ``reidassoc check``: for authors of plug-ins."""

from __future__ import annotations

import shlex

import click

from reidassoc.cli.options import load_plugins, plugin_option

KINDS = ("associator", "clusterer", "refiner", "objective", "network", "dataset")


@click.command(short_help="Write a working plug-in, to start from.")
@click.argument("kind", type=click.Choice(KINDS))
@click.argument("name")
@click.option("--file", "as_file", is_flag=True, help="Write one file, for --plugin, in the place of a package.")
@click.option(
    "--from",
    "taken",
    metavar="FILE",
    help="Make the package around your FILE, which holds the plug-in; its code is run.",
)
@click.option("--out", default=".", metavar="DIR", type=click.Path(), help="Where it goes.  [default: here]")
def new(kind: str, name: str, as_file: bool, taken: str | None, out: str) -> None:
    """Write a working plug-in of a KIND, to start from: a package with tests that pip installs, or one file.

    \b
    Examples:
      reidassoc new associator my_idea --file
      reidassoc new clusterer my_clusters
      reidassoc new associator my_idea --from my_idea.py
    """
    # Imported late, here and below: help must not import torch.
    from reidassoc.errors import PluginError
    from reidassoc.scaffold import BESIDE
    from reidassoc.scaffold import new as write

    if as_file and taken:
        raise PluginError("--from makes a package around a file that is there: leave out --file")
    written = write(kind, name, out=out, package=not as_file, taken=taken)
    for path in written:
        click.echo(path)
    if as_file:
        file = shlex.quote(str(written[0]))
        click.echo(f"\nnext: reidassoc check {file}")
        click.echo(f"      reidassoc run --plugin {file} --{kind} {name}{BESIDE.get(kind, '')}")
    else:
        click.echo(f"\nnext: pip install -e {shlex.quote(f'{written[0].parent}[test]')}")
        click.echo(f"      reidassoc check {name}")
        click.echo(f"      reidassoc run --{kind} {name}{BESIDE.get(kind, '')}")
        if taken:
            click.echo(f"      write `expected` in {written[1]}: test_parity fails until you do")
            click.echo(
                f"      leave out --plugin {shlex.quote(taken)} from now on: the package has its name, and the file is not needed"
            )


@click.command(short_help="Check a plug-in; explain what is wrong with it.")
@click.argument("targets", metavar="FILE|[KIND:]SPEC ...", nargs=-1, required=True)
@plugin_option
def check(targets: tuple[str, ...], plugins: tuple[str, ...]) -> None:
    """Check that the plug-ins of files, or ones that are installed, keep their contract; explain what does not.

    Ends with exit code 2 if one doesn't.

    \b
    Examples:
      reidassoc check my_idea.py
      reidassoc check --plugin my_idea.py 'my_idea(power=3.0)'
      reidassoc check associator:mult
    """
    import reidassoc.registry as registry
    from reidassoc.errors import PluginError

    load_plugins(plugins)
    wanted = [found for target in targets for found in registry.named(target)]

    from reidassoc.testing.check.diagnosis import diagnose  # now that the names are right: torch

    broken = []
    for entry, spec in wanted:
        found = diagnose(entry, registry.build(entry.kind, spec))
        broken += [entry.name] if found.failures else []
        for line in found.lines():
            click.echo(line)
    if broken:
        raise PluginError(f"{', '.join(broken)} broke the contract: mend what fails above, and check again")
